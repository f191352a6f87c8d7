r"""Text -> one structured answer. What is not understood makes the whole answer `Unread`.

`read` goes from the outside to the inside: words, options and phrases; statements between commas,
`and`, `or`; relations and chains; brackets; at last an expression with its unit. Each method either
understands all of its tokens or raises UnreadableError. None skips a word, but for the phrases that
announce an answer (`vocabulary.LEADS`) and adjectives in front of counted things.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import re
from collections.abc import Sequence as SequenceOf

from flint import fmpq

from ds_jax.verify.math import expressions, units, vocabulary
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.structures import (
  ELLIPSIS,
  EMPTY_SET,
  ORDER_SIGNS,
  OTHER_RELATIONS,
  Answer,
  Assignments,
  Builder,
  Cases,
  Collection,
  Congruence,
  Family,
  Name,
  Numeral,
  Option,
  Quantity,
  Ratio,
  Reading,
  Relation,
  Sequence,
  SetOperation,
  Truth,
  Unread,
  Words,
  name_of,
)
from ds_jax.verify.math.tokens import Token, UnreadableError, key, tokenize

MAX_LENGTH = 1500  # characters; a longer answer is compared as text only
_MAX_ITEMS = 150
_MAX_DEPTH = 12

Tokens = tuple[Token, ...]


_RELATIONS = frozenset(('=', *ORDER_SIGNS, r'\neq', r'\approx', r'\equiv', r'\in'))
_UNREAD_SIGNS = OTHER_RELATIONS | frozenset(
  r'\land \lor \neg \oplus \otimes \ni \vdash \forall \exists \circledast \cap \cup'.split()
)
_OPENING = {'(': ')', '[': ']', r'\{': r'\}', '{': '}', r'\langle': r'\rangle'}
_CLOSING = frozenset(_OPENING.values())
_NUMBER_SETS = frozenset(rf'\mathbb {name}' for name in 'ZNQRC')
_NEGATIONS = frozenset(
  'not never neither nor no wrong incorrect isnt false either maybe or and'.split()
)
_NO_NAME = _UNREAD_SIGNS - {r'\to', r'\mid', r'\cap', r'\cup'}  # P(A \mid B) is a name
_OPERATORS = frozenset(('+', '-', '/', '*', '^', '_', r'\cdot'))
_TEMPERATURES = ('c', 'f', 'celsius', 'fahrenheit')
_MAX_BOUNDARIES = 3
_CURRENCY_CODES = ('USD', 'EUR', 'GBP', 'INR', 'JPY', 'CNY')
_CLAUSE_WORDS = frozenset(
  'for where with some any all every each a an is are real constant constants integer integers '
  'number numbers arbitrary positive nonnegative natural fixed being the and complex '
  'nonzero'.split()
)


@functools.lru_cache(512)
def read(text: str) -> Reading:
  """Reads one bare answer, whatever it is."""
  if len(text) > MAX_LENGTH:
    return Reading(Unread('too long'), ' '.join(text.split()))
  try:
    tokens = tokenize(text)
  except UnreadableError as error:
    return Reading(Unread(str(error)), ' '.join(text.split()))
  tokens = _trimmed(tokens)
  while len(tokens) > 2 and tokens[0].text == '{' and _is_enclosed(tokens):
    inside = _trimmed(_inside(tokens))
    if _is_based(tokens) or len(split(inside, frozenset(',;'))[0]) > 1:
      break  # plain braces around a list are meant for a set
    tokens = inside
  if text.lstrip().startswith('["'):
    items = _json_items(text)
    if items is not None:
      return Reading(items, key(tokens))
  return Reading(read_tokens(tokens), key(tokens))


def _json_items(text: str) -> Answer | None:
  """The parts of a list in JSON, as some data sets write answers: `["2", "-2"]`."""
  try:
    texts = json.loads(text)
  except ValueError:
    return None
  if not isinstance(texts, list) or not all(isinstance(t, str) and len(t) < 300 for t in texts):
    return None
  items = [read(t).answer for t in texts[: _MAX_ITEMS + 1]]
  if not items or len(items) > _MAX_ITEMS or any(isinstance(i, Unread) for i in items):
    return None
  return items[0] if len(items) == 1 else _flat(items, ',')


def read_tokens(tokens: Tokens) -> Answer:
  """The structure of an answer, `Unread` included."""
  try:
    return _Reader().answer(tokens)
  except UnreadableError as error:
    return Unread(str(error))


def _trimmed(tokens: Tokens) -> Tokens:
  """Without the punctuation that ends a sentence."""
  while tokens and tokens[-1].text in ('.', ',', ';', ':', '\\', r'\\', '"', "'"):
    if tokens[-1].text == "'" and (len(tokens) < 2 or tokens[0].text != "'"):
      break  # a prime
    tokens = tokens[:-1]
  while tokens and tokens[0].text in (',', ';', ':', '"'):
    tokens = tokens[1:]
  return tokens


def split(tokens: Tokens, separators: frozenset[str]) -> tuple[list[Tokens], list[str]]:
  """The pieces between separators outside all brackets, and those separators."""
  pieces, found, depth, start = [], [], 0, 0
  for i, token in enumerate(tokens):
    text = token.text
    if text in separators and not depth:
      pieces.append(tokens[start:i])
      found.append(text)
      start = i + 1
    elif text in _OPENING or text.startswith(r'\begin '):
      depth += 1
    elif text in _CLOSING or text.startswith(r'\end '):
      depth -= 1
  return [*pieces, tokens[start:]], found


def _is_enclosed(tokens: Tokens) -> bool:
  """Whether the first bracket is closed by the last token."""
  if len(tokens) < 2 or tokens[0].text not in _OPENING:
    return False
  depth = 0
  for i, token in enumerate(tokens):
    depth += (token.text in _OPENING) - (token.text in _CLOSING)
    if not depth:
      return i == len(tokens) - 1
  return False


def _texts(tokens: Tokens) -> list[str]:
  return [t.text for t in tokens]


def _inside(tokens: Tokens) -> Tokens:
  return tokens[1:-1]


class _Reader:
  """The methods go from the outside of an answer to its inside."""

  def __init__(self):
    self._depth = 0

  def answer(self, tokens: Tokens) -> Answer:
    """A whole answer, or a part of one between brackets."""
    self._depth += 1
    if self._depth > _MAX_DEPTH:
      raise UnreadableError('nesting')
    tokens = _trimmed(tokens)
    if not tokens:
      raise UnreadableError('empty')
    found = self._answer(tokens)
    self._depth -= 1
    return found

  def _answer(self, tokens: Tokens) -> Answer:
    tokens = self._without_lead(_with_outward_brackets(tokens))
    aligned = self._aligned(tokens)
    if aligned is not None:
      return self.answer(aligned)
    for method in (self._truth, self._phrase, self._option, self._words):
      found = method(tokens)
      if found is not None:
        return found
    if len(tokens) > 2 and tokens[0].text == '{' and _is_enclosed(tokens):
      if not _is_based(tokens):
        return self.answer(_inside(tokens))
    if any(t.text in (r'\pmod', r'\mod', r'\bmod', r'\equiv') for t in tokens):
      congruence = self._congruence(tokens)
      if congruence is not None:
        return congruence
    return self._statements(tokens)

  def _without_lead(self, tokens: Tokens) -> Tokens:
    """Drops `The answer is`, `There are`, `Answer:` from the beginning."""
    words = []
    for token in tokens[:7]:
      if token.kind not in ('word', 'letters'):
        break
      words.append(token.text.casefold())
    for lead in sorted(vocabulary.LEADS, key=len, reverse=True):
      if tuple(words[: len(lead)]) == lead and len(tokens) > len(lead):
        following = tokens[len(lead) :]
        is_marked = following[0].text == ':' or lead[-1] in ('is', 'are', 'equals', 'have', 'get')
        if is_marked and len(following) > (following[0].text == ':'):
          return following[1:] if following[0].text == ':' else following
    return tokens

  def _aligned(self, tokens: Tokens) -> Tokens | None:
    """The lines of an `aligned` environment, as a list."""
    first = tokens[0].text
    kinds = ('aligned', 'align', 'gathered', 'gather', 'split', 'array', 'equation', 'eqnarray')
    if not first.startswith(r'\begin ') or first.removeprefix(r'\begin ') not in kinds:
      return None
    if tokens[-1].text != first.replace('begin', 'end') or first == r'\begin array':
      return None
    lines, _ = split(_inside(tokens), frozenset((r'\\',)))
    kept = [tuple(t for t in line if t.text != '&') for line in lines]
    return _joined([line for line in kept if line])

  def _truth(self, tokens: Tokens) -> Truth | None:
    if len(tokens) != 1 or tokens[0].kind not in ('word', 'letters'):
      return None
    word = tokens[0].text.casefold()
    if word in vocabulary.TRUE or word in vocabulary.FALSE:
      return Truth(word in vocabulary.TRUE)
    return None

  def _phrase(self, tokens: Tokens) -> Answer | None:
    """A fixed phrase that stands for a symbol, and number words."""
    if not any(t.kind == 'word' for t in tokens) or len(tokens) > 8:
      return None
    words = [t.text.casefold().lstrip('\\').replace('infty', 'infinity') for t in tokens]
    words = [w for w in words if w not in vocabulary.ARTICLES and w not in ("'", '-')]
    if len(words) == 1 and words[0] in vocabulary.NUMBER_WORDS:
      return Quantity(expressions.number(vocabulary.NUMBER_WORDS[words[0]]), units.NONE)
    if len(words) == 2 and words[1] in vocabulary.FRACTION_WORDS:  # two thirds
      top = vocabulary.NUMBER_WORDS.get(words[0])
      if top is not None:
        value = fmpq(top, vocabulary.FRACTION_WORDS[words[1]])
        return Quantity(expressions.number(value), units.NONE)
    meaning = vocabulary.PHRASES.get(' '.join(words))
    if meaning is None:
      return None
    if meaning[0] in '\\-':
      return self.answer(tokenize(meaning))
    return Words(tuple(meaning.split()))

  def _option(self, tokens: Tokens) -> Option | None:
    """`(B) 12`, `B)`, `B. the third`, `Option B`; `(B) or (C)` is none."""
    texts = _texts(tokens)
    if texts[0].casefold() in ('option', 'choice') and len(texts) > 1:
      letter = _inside(tokens[1:]) if texts[1] == '(' and texts[-1] == ')' else tokens[1:]
      return Option(letter[0].text, None) if [*map(_is_option_letter, letter)] == [True] else None
    if texts[0] == '(' and texts[2:3] == [')'] and _is_option_letter(tokens[1]):
      letter, content = tokens[1], tokens[3:]
      is_marked = not content or content[0].has_space or letter.is_text
    elif texts[1:2] and texts[1] in (')', '.', ':') and _is_option_letter(tokens[0]):
      letter, content = tokens[0], tokens[2:]
      is_marked = not content or content[0].has_space and (texts[1] != ':' or letter.is_text)
    else:
      return None
    is_hedge = any(t.text.casefold() in _NEGATIONS for t in content)
    if not is_marked or is_hedge or content and content[0].kind == 'sign':
      return None
    return Option(letter.text, read_tokens(content) if content else None)

  def _words(self, tokens: Tokens) -> Answer | None:
    """Prose: words and numbers, without mathematics. Lists of names are split."""
    first = tokens[0]
    if len(tokens) == 1 and first.kind == 'letters':
      is_name = len(first.text) >= 3 and (first.text.isupper() or first.is_text)
      return Words((first.text.casefold(),)) if is_name else None
    num_words = sum(t.kind == 'word' for t in tokens)
    if not num_words or not all(map(_is_prose, tokens)) or _starts_quantity(tokens):
      return None
    has_date = any(t.text.casefold() in vocabulary.MONTHS for t in tokens)
    if first.kind == 'number' and not has_date:
      return None
    pieces, separators = ([tokens], []) if has_date else _split_list(tokens)
    if len(pieces) > 1:
      return Collection(tuple(map(self.answer, pieces)), _connective(separators))
    if first.kind != 'word' and not (has_date or num_words > 1 or first.is_text):
      return None
    words = [t.text.casefold() for t in tokens if t.kind != 'sign']
    words = [w for w in words if w not in vocabulary.ARTICLES] or words
    for opening in vocabulary.WORD_OPENINGS:
      if tuple(words[: len(opening)]) == opening and len(words) > len(opening):
        words = words[len(opening) :]
    return Words(_date(words) if has_date else tuple(words))

  def _congruence(self, tokens: Tokens) -> Congruence | None:
    """`x \\equiv 3 \\pmod 7`, `3 (mod 7)`."""
    texts = _texts(tokens)
    is_class = r'\equiv' in texts
    commands = (r'\pmod', r'\mod', r'\bmod') if is_class else (r'\pmod', r'\mod')
    marks = [i for i, text in enumerate(texts) if text in commands]
    if len(marks) != 1:
      if not marks:
        return None
      raise UnreadableError('moduli')
    mark = marks[0]
    before, behind = tokens[:mark], tokens[mark + 1 :]
    if texts[mark] != r'\pmod':
      if before and before[-1].text == '(' and behind and behind[-1].text == ')':
        before, behind = before[:-1], behind[:-1]
      elif not is_class and not _is_residue(before, behind):
        return None  # the remainder 62 \mod 50
    if before and before[-1].text == '{':
      raise UnreadableError('modulus')
    modulus = expressions.read(_without_braces(behind))
    sides, signs = split(before, frozenset((r'\equiv', '=')))
    name = ''.join(_texts(sides[0])) if len(sides) > 1 else ''
    if len(sides) > 2 or not sides[-1]:
      raise UnreadableError('congruence')
    pieces, _ = _split_list(sides[-1])
    return Congruence(name, tuple(self._node(piece) for piece in pieces), modulus)

  def _node(self, tokens: Tokens) -> Node:
    return expressions.read(tokens)

  # Statements.

  def _statements(self, tokens: Tokens) -> Answer:
    """One statement, or several between commas, `and`, `or`."""
    pieces, separators = _split_list(tokens)
    if len(pieces) > _MAX_ITEMS:
      raise UnreadableError('length of a list')
    pieces, parameters = self._without_clauses(pieces)
    if len(pieces) == 1:
      found = self._statement(pieces[0])
    else:
      found = _collected(list(map(self._statement, pieces)), _connective(separators))
    return Family(found, parameters) if parameters else found

  def _without_clauses(self, pieces: list[Tokens]) -> tuple[list[Tokens], tuple[str, ...]]:
    """Splits off `k \\in \\mathbb{Z}` and `for some constant c`, keeping the integer parameters."""
    parameters: list[str] = []
    kept = []
    for i, piece in enumerate(pieces):
      head, clause = _clause(piece)
      names = _clause_names(clause) if clause else None
      is_statement = i == 0 and not head
      if names is None or is_statement and len(pieces) == 1:
        kept.append(piece)
        continue
      if head:
        kept.append(head)
      elif i == 0:
        kept.append(piece)
        continue
      parameters += names
    return kept, tuple(sorted(parameters))

  def _statement(self, tokens: Tokens) -> Answer:
    """A relation, or one answer."""
    tokens = _trimmed(tokens)
    sides, signs = split(tokens, _RELATIONS)
    if signs:
      return self._relation(sides, signs)
    sides, signs = split(tokens, OTHER_RELATIONS)
    if signs and all(sides):
      return Relation(tuple(map(self._item, sides)), tuple(signs))
    return self._item(tokens)

  def _relation(self, sides: list[Tokens], signs: list[str]) -> Answer:
    if not all(sides[1:]):
      raise UnreadableError('a relation with one side')
    first = self._first_side(sides[0])
    others = tuple(map(self._item, sides[1:]))
    if signs == ['='] and isinstance(first, Sequence) and isinstance(others[0], Sequence):
      names = [name_of(item) for item in first.items]
      if None not in names and len(others[0].items) == len(names):
        return Assignments(tuple(names), others[0].items, is_tuple=True)
    if signs == [r'\in'] and isinstance(others[0], Collection) and others[0].items:
      signs = ['=']  # n \in \{2, 3, 4\}
    return Relation((first, *others), tuple(signs))

  def _first_side(self, tokens: Tokens) -> Answer:
    """An answer, or what is no expression and may be a mere name; '' where nothing stands."""
    if not tokens:
      return Name('')
    words = {t.text.casefold() for t in tokens if t.kind in ('word', 'letters')}
    try:
      if any(t.kind == 'word' for t in tokens):
        raise UnreadableError('words')
      return self._item(tokens)
    except UnreadableError:
      is_hedge = words & (_NEGATIONS | vocabulary.NUMBER_WORDS.keys())
      if is_hedge or any(t.text in _NO_NAME for t in tokens):
        raise
      return Name(key(tokens))

  # One answer.

  def _item(self, tokens: Tokens) -> Answer:
    """An answer without relation: a set, a bracket, a function by cases, a quantity."""
    tokens = _trimmed(tokens)
    if not tokens:
      raise UnreadableError('empty')
    if _texts(tokens) == [r'\ldots']:
      return ELLIPSIS
    if len(tokens) > 2 and tokens[0].text == '{' and _is_enclosed(tokens):
      pieces, _ = _split_list(_inside(tokens))
      if len(pieces) > 1:
        return Collection(tuple(self.answer(piece) for piece in pieces), is_set=True)
      if not _is_based(tokens):
        return self._item(_inside(tokens))
    words = self._words(tokens)
    if words is not None:
      return words
    for method in (self._logic, self._brackets, self._cases, self._numeral, self._ratio):
      found = method(tokens)
      if found is not None:
        return found
    return self._quantity(tokens)

  def _logic(self, tokens: Tokens) -> Answer | None:
    """Operations between sets or statements, and negations."""
    operation = self._set_operation(tokens)
    if operation is None and tokens[0].text == r'\neg':
      return Quantity(('apply', r'\neg', self._node(tokens[1:])), units.NONE)
    return operation

  def _set_operation(self, tokens: Tokens) -> SetOperation | None:
    for operation in (r'\lor', r'\land', r'\setminus', r'\cup', r'\cap'):
      pieces, signs = split(tokens, frozenset((operation,)))
      if signs:
        parts = tuple(self._item(piece) for piece in pieces)
        return SetOperation(operation, parts)
    return None

  def _brackets(self, tokens: Tokens) -> Answer | None:
    opening, closing = tokens[0].text, tokens[-1].text
    if len(tokens) == 1 and opening == r'\emptyset':
      return EMPTY_SET
    if not _is_enclosed(tokens) or opening == '{':
      return None
    inside = _inside(tokens)
    if opening == r'\{':
      return self._braces(inside)
    pieces, separators = split(inside, frozenset((',', ';')))
    if len(pieces) < 2:
      if opening == '(' and any(t.text == ':' for t in inside):
        return self._ratio(inside)  # projective coordinates
      if opening == '(' and inside and inside[0].kind == 'word' or opening == r'\langle':
        raise UnreadableError('brackets')
      return None if opening != '[' or closing != ']' or len(inside) else EMPTY_SET
    if len(pieces) > _MAX_ITEMS:
      raise UnreadableError('length of a list')
    brackets = {r'\langle': '<'}.get(opening, opening) + {r'\rangle': '>'}.get(closing, closing)
    return _with_all_signs(brackets, [self.answer(piece) for piece in pieces])

  def _braces(self, inside: Tokens) -> Answer:
    if not inside:
      return EMPTY_SET
    parts, bars = split(inside, frozenset((r'\mid',)))
    if not bars:
      parts, bars = split(inside, frozenset(('|', ':')))
    if bars and parts[0]:
      clause = inside[len(parts[0]) + 1 :]
      parameters = _clause_names(clause)
      if parameters:
        return Family(self.answer(parts[0]), tuple(sorted(parameters)))
      try:
        return self._builder(parts[0], clause)
      except UnreadableError:
        if bars[0] != '|' or len(bars) % 2:  # else absolute values: \{|x|, |y|\}
          raise
    pieces, separators = _split_list(inside)
    return Collection(tuple(self.answer(piece) for piece in pieces), is_set=True)

  def _builder(self, variable: Tokens, condition: Tokens) -> Builder:
    sides, signs = split(variable, frozenset((r'\in',)))
    domain = key(sides[1]) if signs else r'\mathbb R'
    name = name_of(self._item(sides[0]))
    if name is None:
      raise UnreadableError('a set')
    return Builder(name, domain, self.answer(condition))

  def _cases(self, tokens: Tokens) -> Answer | None:
    if tokens[0].text != r'\begin cases' or tokens[-1].text != r'\end cases':
      return None
    lines, _ = split(_inside(tokens), frozenset((r'\\',)))
    rows: list[tuple[Answer, Answer | None]] = []
    for line in lines:
      cells, _ = split(line, frozenset(('&',)))
      if not any(cells):
        continue
      if len(cells) > 2:
        raise UnreadableError('cases')
      value = _trimmed(cells[0])
      condition = _condition(cells[1]) if len(cells) == 2 else ()
      if len(cells) == 1 and any(t.text in _RELATIONS for t in value):
        rows.append((self._statement(value), None))
      else:
        rows.append((self._item(value), self._case_condition(condition)))
    if all(isinstance(value, Relation) for value, _ in rows):
      return _collected([value for value, _ in rows], ',')
    return Cases(tuple(rows))

  def _case_condition(self, tokens: Tokens) -> Answer | None:
    tokens = _trimmed(tokens)
    if not tokens:
      return None
    found = read_tokens(tokens)
    return Words((key(tokens).casefold(),)) if isinstance(found, Unread) else found

  def _numeral(self, tokens: Tokens) -> Numeral | None:
    """`1011_2`, `(1011)_{2}`, `2A_{16}`, `52_{\\text{eight}}`, `101 base 2`."""
    if not _is_based(tokens):
      return None
    texts = _texts(tokens)
    mark = next(i for i, text in enumerate(texts) if text in ('_', 'base', 'Base'))
    digits = ''.join(t for t in texts[:mark] if t not in '(){}')
    base_text = ''.join(t for t in texts[mark + 1 :] if t not in '(){}').casefold()
    base = vocabulary.NUMBER_WORDS.get(base_text) or int(base_text)
    return Numeral(digits.casefold().lstrip('0') or '0', base)

  def _ratio(self, tokens: Tokens) -> Ratio | None:
    """`1:2:3`, `3 to 4`, `3:30 p.m.`, `5 p.m.`"""
    tokens, half = _without_half_of_day(tokens)
    pieces, colons = split(tokens, frozenset((':', 'to')))
    if half and len(tokens) == 1:
      return Ratio((self._node(tokens), expressions.ZERO), half, is_clock=True)
    if not colons:
      return None
    texts = [''.join(_texts(piece)) for piece in pieces]
    has_minutes = all(re.fullmatch(r'[0-5]\d', text) for text in texts[1:])
    is_clock = has_minutes and re.fullmatch(r'\d{1,2}', texts[0]) is not None
    return Ratio(tuple(map(self._node, pieces)), half, is_clock or bool(half))

  def _quantity(self, tokens: Tokens, is_plain_unit: bool = False) -> Answer:
    """An expression with a unit; `\\pm` makes it two."""
    quantity = _compound(tokens) or read_quantity(tokens, is_plain_unit)
    nodes = expressions.alternatives(quantity.node)
    if len(nodes) == 1:
      return quantity
    return Collection(tuple(Quantity(node, quantity.unit) for node in nodes))


def _with_all_signs(brackets: str, items: list[Answer]) -> Answer:
  """A bracket; `(\\pm 1, \\pm 2)` is four."""
  is_double = [isinstance(item, Collection) and not item.is_set for item in items]
  if not any(is_double):
    return Sequence(brackets, tuple(items))
  choices = [i.items if double else (i,) for i, double in zip(items, is_double, strict=True)]
  if math.prod(map(len, choices)) > 16:
    raise UnreadableError('signs')
  return Collection(tuple(Sequence(brackets, each) for each in itertools.product(*choices)))


def _compound(tokens: Tokens) -> Quantity | None:
  """`3 feet 6 inches`, `2 hours 30 minutes`: numbers with smaller and smaller units, as one."""
  starts = [i for i, t in enumerate(tokens) if t.kind == 'number' and (i == 0 or t.has_space)]
  if len(starts) < 2 or starts[0] != 0:
    return None
  try:
    parts = [read_quantity(tokens[i:j]) for i, j in zip(starts, [*starts[1:], None], strict=True)]
  except UnreadableError:
    return None
  return _sum_of_units(parts)


def _sum_of_units(parts: SequenceOf[Answer]) -> Quantity | None:
  """Quantities of one kind with smaller and smaller units, as their sum; None of others."""
  if len(parts) < 2 or not all(isinstance(part, Quantity) for part in parts):
    return None
  factors = [part.unit.factor for part in parts]
  is_one_kind = len({(part.unit.powers, part.unit.unknown) for part in parts}) == 1
  if not is_one_kind or not parts[0].unit.powers:
    return None
  if any(low >= high for high, low in zip(factors, factors[1:], strict=False)):
    return None
  terms = [('*', part.node, expressions.number(part.unit.factor)) for part in parts]
  return Quantity(('+', *terms), parts[0].unit._replace(factor=fmpq(1)))


def read_quantity(tokens: Tokens, is_plain_unit: bool = False) -> Quantity:
  """An expression with its unit.

  Args:
    tokens: all of it.
    is_plain_unit: whether letters of a formula may be units as well, as in `9.8 m/s^2`.

  Raises:
    UnreadableError: something is neither expression nor unit.
  """
  tokens = _without_ordinal_ending(tokens)
  if len(tokens) > 1 and tokens[0].text in ('+', '-') and units.currency(tokens[1].text):
    inner = read_quantity(tokens[1:])
    sign = tokens[0].text
    return dataclasses.replace(inner, node=('-', inner.node) if sign == '-' else inner.node)
  before = units.currency(tokens[0].text)
  if before is None and tokens[0].text in _CURRENCY_CODES:
    before = units.lookup(tokens[0].text)
  if before is not None and len(tokens) > 1:
    inner = read_quantity(tokens[1:])
    if inner.unit.powers and inner.unit.powers != before.powers:
      raise UnreadableError('two units')
    return dataclasses.replace(
      inner, unit=before.times(inner.unit._replace(factor=fmpq(1), powers=()))
    )
  if any(t.text in _UNREAD_SIGNS - {r'\to'} for t in tokens):
    raise UnreadableError('a relation that is not read')
  for boundary in _boundaries(tokens, is_plain_unit):
    unit = units.read_unit(tokens[boundary:])
    if unit is None:
      continue
    try:
      node = _value(tokens[:boundary])
    except UnreadableError:
      continue
    magnitude = unit[1]
    if magnitude != 1:
      node = ('*', node, expressions.number(magnitude))
    return Quantity(node, unit[0], tokens)
  node = expressions.read(tokens)
  if node[0] == 'degree':
    return Quantity(node[1], units.DEGREE, tokens)
  if node[0] == '-' and node[1][0] == 'degree':
    return Quantity(('-', node[1][1]), units.DEGREE, tokens)
  return Quantity(node, units.NONE, tokens)


def _without_ordinal_ending(tokens: Tokens) -> Tokens:
  """`5th`, `5^{\\text{th}}` as 5."""
  ending = [t for t in tokens[1:] if t.text not in ('^', '{', '}')]
  is_ordinal = len(ending) == 1 and ending[0].text in vocabulary.ORDINAL_ENDINGS
  return tokens[:1] if is_ordinal and tokens[0].text.isdigit() else tokens


def _value(tokens: Tokens) -> Node:
  """The number before a unit, which may be a word: `five cm`."""
  if len(tokens) == 1 and tokens[0].text.casefold() in vocabulary.NUMBER_WORDS:
    return expressions.number(vocabulary.NUMBER_WORDS[tokens[0].text.casefold()])
  return expressions.read(tokens)


def _boundaries(tokens: Tokens, is_plain_unit: bool) -> list[int]:
  """Where a unit may begin: at the first few tokens that are words or units, outside brackets."""
  found, depth, has_letters = [], 0, False
  for i, token in enumerate(tokens):
    is_behind_value = i > 0 and not depth and tokens[i - 1].text not in _OPERATORS
    is_product = token.kind == 'letters' and not token.is_text and has_letters  # x cm
    if is_behind_value and (is_plain_unit or not is_product):
      if _may_start_unit(tokens, i, is_plain_unit):
        found.append(i)
    has_letters |= token.kind == 'letters'
    depth += (token.text in _OPENING) - (token.text in _CLOSING)
  return found[:_MAX_BOUNDARIES]


def _may_start_unit(tokens: Tokens, i: int, is_plain_unit: bool) -> bool:
  token, following = tokens[i], tokens[i + 1 : i + 4]
  if token.text == '^':  # ^\circ C
    scale = [text.casefold() for text in _texts(following) if text not in '{}']
    return scale[:1] == [r'\circ'] and scale[1:2] != [] and scale[1] in _TEMPERATURES
  if token.text == '(':  # 5 (cm)
    is_closed = tokens[-1].text == ')' and len(following) > 1
    return is_closed and following[0].is_text and following[0].kind != 'number'
  if token.text == r'\frac':  # \frac{\text{m}}{\text{s}}
    is_group = len(following) > 1 and following[0].text == '{'
    return is_group and following[1].is_text and following[1].kind != 'number'
  if token.kind == 'command' and token.text != '%' and not _is_unit_command(tokens, i):
    return False
  return units.starts_unit(token, is_plain_unit)


def _is_unit_command(tokens: Tokens, i: int) -> bool:
  """Whether `\\min`, `\\Omega`, `\\mu` behind a number are a unit: with nothing to apply to."""
  following = tokens[i + 1 : i + 2]
  if tokens[i].text == r'\mu':
    return bool(following) and following[0].kind in ('letters', 'word') and following[0].is_text
  return tokens[i - 1].kind in ('number', 'letters') and (
    not following or following[0].text in ('/', '.', 'per', r'\cdot')
  )


def _is_prose(token: Token) -> bool:
  return token.kind in ('word', 'letters', 'number') or token.text in '\'-,.;&"/():!?'


def _starts_quantity(tokens: Tokens) -> bool:
  """Whether words begin as `USD 5`, `three million dollars` or `x is …` do."""
  first = tokens[0]
  if first.text in _CURRENCY_CODES:
    return True
  if first.text.casefold() in vocabulary.NUMBER_WORDS and len(tokens) > 1:
    unit = units.read_unit(tokens[1:])
    return unit is not None and not unit[0].unknown
  is_letter = first.kind == 'letters' and len(first.text) == 1
  return is_letter and tokens[1].kind != 'word'


def _date(words: SequenceOf[str]) -> tuple[str, ...]:
  """`14 March`, `March 14th` and `Mar 14` in one spelling."""
  fillers = vocabulary.ORDINAL_ENDINGS | {'of'}
  words = [vocabulary.MONTHS.get(word, word) for word in words if word not in fillers]
  months = [word for word in words if word in vocabulary.MONTHS]
  return (*months, *(word for word in words if word not in vocabulary.MONTHS))


def _is_option_letter(token: Token) -> bool:
  return token.kind == 'letters' and len(token.text) == 1 and token.text in 'ABCDEFGHIJ'


def _is_based(tokens: Tokens) -> bool:
  texts = [t for t in _texts(tokens) if t not in '(){}']
  marks = [i for i, text in enumerate(texts) if text in ('_', 'base', 'Base')]
  if len(marks) != 1 or not 0 < marks[0] == len(texts) - 2 or _texts(tokens).count('(') > 1:
    return False
  digits, base = ''.join(texts[: marks[0]]), texts[-1].casefold()
  if not re.fullmatch(r'[0-9A-Za-z.]+', digits) or len(digits) > 400:
    return False
  radix = vocabulary.NUMBER_WORDS.get(base, int(base) if re.fullmatch(r'\d{1,2}', base) else 0)
  has_digits = digits[0].isdigit() or radix == 16 and re.fullmatch('[A-F0-9]{2,}', digits)
  alphabet = '0123456789abcdefghijklmnopqrstuvwxyz'[:radix] + '.'
  return bool(has_digits) and 2 <= radix <= 36 and set(digits.casefold()) <= set(alphabet)


def _without_braces(tokens: Tokens) -> Tokens:
  return _inside(tokens) if _is_enclosed(tokens) and tokens[0].text in '{(' else tokens


def _with_outward_brackets(tokens: Tokens) -> Tokens:
  """`]-\\infty, 2[` in the usual brackets."""
  if tokens[0].text != ']' and not (tokens[-1].text == '[' and tokens[0].text in '['):
    return tokens
  changed, is_open = [], False
  for token in tokens:
    if token.text in ('[', ']'):
      opening = {'[': '[', ']': '('} if not is_open else {'[': ')', ']': ']'}
      token = token._replace(text=opening[token.text])
      is_open = not is_open
    changed.append(token)
  return tuple(changed)


_LIST_SEPARATORS = frozenset((',', ';', 'and', 'or', 'And', 'Or', r'\lor', r'\land', '&'))


def _split_list(tokens: Tokens) -> tuple[list[Tokens], list[str]]:
  """The parts of a list, and what separates them; `, and` counts once."""
  has_relation = any(t.text in _RELATIONS for t in tokens)
  separators = _LIST_SEPARATORS if has_relation else _LIST_SEPARATORS - {r'\lor', r'\land', '&'}
  pieces, found = split(tokens, separators)
  if not all(pieces) and len(pieces) > 1:
    kept = [piece for piece in pieces if piece]
    num_doubled = sum(a in ',;' and b not in ',;' for a, b in zip(found, found[1:], strict=False))
    if len(pieces) - len(kept) > num_doubled or not pieces[0] or not pieces[-1]:
      raise UnreadableError('an empty part of a list')
    pieces = kept
  return pieces, [text.casefold() for text in found]


def _connective(separators: SequenceOf[str]) -> str:
  if 'or' in separators or r'\lor' in separators:
    return 'or'
  return 'and' if 'and' in separators or r'\land' in separators else ','


def _joined(lines: list[Tokens]) -> Tokens:
  tokens: list[Token] = []
  for line in lines:
    tokens += [*_trimmed(line), Token('sign', ',')]
  return tuple(tokens[:-1])


def _collected(items: list[Answer], connective: str) -> Answer:
  """Several statements as one answer: values of one name, assignments, or a plain list."""
  compound = _sum_of_units(items) if connective == 'and' else None
  if compound is not None:
    return compound  # 5 hours and 30 minutes
  named = [_name_and_value(item) for item in items]
  if named[0] and not any(named[1:]) and not any(isinstance(i, Relation) for i in items[1:]):
    name, value = named[0]  # n = 2, 3, 4
    values = [value, *items[1:]]
    return Relation((Name(name), _flat(values, connective)), ('=',))
  if all(named):
    names = [name for name, _ in named]
    values = [value for _, value in named]
    if len(set(names)) == 1:
      return Relation((Name(names[0]), _flat(values, connective)), ('=',))
    if len(set(names)) == len(names):
      return Assignments(tuple(names), tuple(values))
  return _flat(items, connective)


def _flat(items: SequenceOf[Answer], connective: str) -> Collection:
  """`0, \\pm 1` are three."""
  flat: list[Answer] = []
  for item in items:
    is_list = isinstance(item, Collection) and not item.is_set and item.connective == ','
    flat += item.items if is_list else [item]
  return Collection(tuple(flat), connective)


def _name_and_value(item: Answer) -> tuple[str, Answer] | None:
  """Of `x = 5` or `5 = x`; longer chains keep their links."""
  if not isinstance(item, Relation) or item.signs not in (('=',), (r'\approx',)):
    return None
  first, last = item.sides
  if name_of(first) is not None:
    return name_of(first), last
  return None if name_of(last) is None else (name_of(last), first)


def _clause(tokens: Tokens) -> tuple[Tokens, Tokens]:
  """Splits `cx for some constant c` in front of the first of `for`, `where`, `with`."""
  for i, token in enumerate(tokens):
    if token.kind == 'word' and token.text.casefold() in ('for', 'where', 'with'):
      return tokens[:i], tokens[i:]
    if token.text in ('(',) and i and tokens[-1].text == ')':
      inside = tokens[i + 1 : -1]
      if _clause_names(inside) is not None and any(t.text == r'\in' for t in inside):
        return tokens[:i], inside
  return (), tokens


def _clause_names(tokens: Tokens) -> list[str] | None:
  """The names that a clause declares as integers; [] for other numbers; None: it is no clause."""
  names, has_words, domain = [], False, ''
  sides, signs = split(tokens, frozenset((r'\in',)))
  if len(signs) > 1:
    return None
  if signs:
    domain = ''.join(_texts(sides[1])).replace('{', '').replace('}', '')
    if not domain.startswith(tuple(_NUMBER_SETS)) or len(domain) > 13:
      return None
  for token in sides[0]:
    if token.kind == 'word' or token.text == 'a':
      if token.text.casefold() not in _CLAUSE_WORDS:
        return None
      has_words = True
      if token.text.casefold() in ('integer', 'integers'):
        domain = r'\mathbb Z'
    elif token.kind == 'letters' and len(token.text) == 1:
      names.append(token.text)
    elif token.text != ',':
      return None
  if not names or not (has_words or domain):
    return None
  return names if domain == r'\mathbb Z' else []


def _is_residue(residue: Tokens, modulus: Tokens) -> bool:
  """Whether `1 \\mod 4` is a class, as the number is a remainder already."""
  texts = [''.join(_texts(part)).strip('{}') for part in (residue, modulus)]
  return all(re.fullmatch(r'\d{1,9}', text) for text in texts) and int(texts[0]) < int(texts[1])


def _condition(tokens: Tokens) -> Tokens:
  """Without `if`, `when`, `for` in front of a case."""
  tokens = _trimmed(tokens)
  while tokens and tokens[0].text.casefold() in ('if', 'when', 'for', 'where', 'while'):
    tokens = tokens[1:]
  return tokens


def _without_half_of_day(tokens: Tokens) -> tuple[Tokens, str]:
  """Splits `p.m.` off a time."""
  tail = ''.join(t.text for t in tokens[-4:]).replace('.', '').casefold()
  for half in ('am', 'pm'):
    if tail.endswith(half) and len(tokens) > 1:
      end = len(tokens)
      while end and tokens[end - 1].text.casefold() in ('.', 'a', 'p', 'm', 'am', 'pm'):
        end -= 1
      if end and tokens[end - 1].kind == 'number':
        return tokens[:end], half
  return tokens, ''
