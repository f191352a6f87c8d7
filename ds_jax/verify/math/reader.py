r"""Text -> one structured answer. What is not understood makes the whole answer `Unread`.

`read` goes from the outside to the inside: words, options and phrases; statements between commas,
`and`, `or`; relations and chains; brackets; at last an expression with its unit. Each method either
understands all of its tokens or raises UnreadableError. None skips a word, but for the phrases that
announce an answer (`vocabulary.LEADS`) and adjectives in front of counted things.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Sequence as SequenceOf

from ds_jax.verify.math import expression_reader, expressions, prose, units, vocabulary
from ds_jax.verify.math.clauses import declared_names, without_clauses, without_condition_word
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.numerals import read_numeral
from ds_jax.verify.math.quantity_reader import (
  UNREAD_SIGNS,
  read_compound,
  read_quantity,
  sum_of_units,
)
from ds_jax.verify.math.structures import (
  ELLIPSIS,
  EMPTY_SET,
  OTHER_RELATIONS,
  Answer,
  Assignments,
  Builder,
  Cases,
  Collection,
  Congruence,
  Family,
  Name,
  Option,
  Quantity,
  Ratio,
  Reading,
  Relation,
  Sequence,
  SetOperation,
  Unread,
  Words,
  name_of,
)
from ds_jax.verify.math.token_lists import (
  RELATIONS,
  Tokens,
  connective_of,
  has_any,
  inside,
  is_enclosed,
  is_in_braces,
  joined_lines,
  split,
  split_list,
  texts_of,
  trimmed,
  with_usual_brackets,
  without_braces,
)
from ds_jax.verify.math.tokens import UnreadableError, key, tokenize

MAX_LENGTH = 1500  # characters; a longer answer is compared as text only
_MAX_ITEMS = 150
_MAX_JSON_ITEM = 300  # characters
_MAX_DEPTH = 12
_MAX_PHRASE = 8  # tokens
_MAX_SIGNED = 16  # brackets that one with \pm stands for
_NO_NAME = UNREAD_SIGNS - {r'\to', r'\mid', r'\cap', r'\cup'}  # P(A \mid B) is a name
_LINES = frozenset('aligned align gathered gather split equation eqnarray'.split())
_MODULI = (r'\pmod', r'\mod', r'\bmod')
_CONGRUENCE_SIGNS = (*_MODULI, r'\equiv')
_ANGLES = {r'\langle': '<', r'\rangle': '>'}


@functools.lru_cache(512)
def read(text: str) -> Reading:
  """Reads one bare answer, whatever it is."""
  if len(text) > MAX_LENGTH:
    return Reading(Unread('too long'), ' '.join(text.split()))
  try:
    tokens = tokenize(text)
  except UnreadableError as error:
    return Reading(Unread(str(error)), ' '.join(text.split()))
  tokens = _without_outer_braces(trimmed(tokens))
  if text.lstrip().startswith('["'):
    items = _json_items(text)
    if items is not None:
      return Reading(items, key(tokens))
  return Reading(read_tokens(tokens), key(tokens))


def read_tokens(tokens: Tokens) -> Answer:
  """The structure of an answer, `Unread` included."""
  try:
    return _Reader().answer(tokens)
  except UnreadableError as error:
    return Unread(str(error))


def _without_outer_braces(tokens: Tokens) -> Tokens:
  """Drops braces around the whole; around a list they are meant for a set, and stay."""
  while is_in_braces(tokens) and read_numeral(tokens) is None:
    content = trimmed(inside(tokens))
    pieces, _ = split(content, ',;')
    if len(pieces) > 1:
      break
    tokens = content
  return tokens


def _json_items(text: str) -> Answer | None:
  """The parts of a list in JSON, as some data sets write answers: `["2", "-2"]`."""
  try:
    texts = json.loads(text)
  except ValueError:
    return None
  if not isinstance(texts, list) or not 0 < len(texts) <= _MAX_ITEMS:
    return None
  items: list[Answer] = []
  for item_text in texts:
    if not isinstance(item_text, str) or len(item_text) >= _MAX_JSON_ITEM:
      return None
    item = read(item_text).answer
    if isinstance(item, Unread):
      return None
    items.append(item)
  return items[0] if len(items) == 1 else _flat(items, ',')


class _Reader:
  """The methods go from the outside of an answer to its inside."""

  def __init__(self):
    self._depth = 0

  def answer(self, tokens: Tokens) -> Answer:
    """A whole answer, or a part of one between brackets."""
    self._depth += 1
    if self._depth > _MAX_DEPTH:
      raise UnreadableError('nesting')
    tokens = trimmed(tokens)
    if not tokens:
      raise UnreadableError('empty')
    answer = self._answer(prose.without_lead(with_usual_brackets(tokens)))
    self._depth -= 1
    return answer

  def _answer(self, tokens: Tokens) -> Answer:
    lines = _lines_as_list(tokens)
    if lines is not None:
      return self.answer(lines)
    for method in (prose.read_truth, self._phrase, _read_option, self._words):
      answer = method(tokens)
      if answer is not None:
        return answer
    if is_in_braces(tokens) and read_numeral(tokens) is None:
      return self.answer(inside(tokens))
    if has_any(tokens, _CONGRUENCE_SIGNS):
      congruence = _read_congruence(tokens)
      if congruence is not None:
        return congruence
    return self._statements(tokens)

  def _phrase(self, tokens: Tokens) -> Answer | None:
    """A fixed phrase that stands for a symbol, and number words."""
    if len(tokens) > _MAX_PHRASE or not any(token.kind == 'word' for token in tokens):
      return None
    words = prose.phrase_words(tokens)
    number = prose.read_number_words(words)
    if number is not None:
      return number
    meaning = vocabulary.PHRASES.get(' '.join(words))
    if meaning is None:
      return None
    if meaning[0] in '\\-':
      return self.answer(tokenize(meaning))
    return Words(tuple(meaning.split()))

  def _words(self, tokens: Tokens) -> Answer | None:
    """Prose: words and numbers, without mathematics. Lists of names are split."""
    first = tokens[0]
    if len(tokens) == 1 and first.kind == 'letters':
      return prose.read_name(first)
    if not prose.is_prose(tokens):
      return None
    if prose.has_month(tokens):
      return prose.read_words(tokens, has_date=True)
    if first.kind == 'number':
      return None
    pieces, separators = split_list(tokens)
    if len(pieces) > 1:
      return Collection(tuple(map(self.answer, pieces)), connective_of(separators))
    num_words = sum(token.kind == 'word' for token in tokens)
    if first.kind != 'word' and num_words < 2 and not first.is_text:
      return None
    return prose.read_words(tokens, has_date=False)

  # Statements.

  def _statements(self, tokens: Tokens) -> Answer:
    """One statement, or several between commas, `and`, `or`."""
    pieces, separators = split_list(tokens)
    if len(pieces) > _MAX_ITEMS:
      raise UnreadableError('length of a list')
    pieces, parameters = without_clauses(pieces)
    statements = [self._statement(piece) for piece in pieces]
    if len(statements) == 1:
      answer = statements[0]
    else:
      answer = _collected(statements, connective_of(separators))
    return Family(answer, parameters) if parameters else answer

  def _statement(self, tokens: Tokens) -> Answer:
    """A relation, or one answer."""
    tokens = trimmed(tokens)
    sides, signs = split(tokens, RELATIONS)
    if signs:
      return self._relation(sides, signs)
    sides, signs = split(tokens, OTHER_RELATIONS)
    if signs and all(sides):
      return Relation(tuple(map(self._item, sides)), tuple(signs))
    return self._item(tokens)

  def _relation(self, sides: list[Tokens], signs: list[str]) -> Answer:
    """A chain of relations; (x, y) = (1, 2) gives values to names."""
    if not all(sides[1:]):
      raise UnreadableError('a relation with one side')
    first = self._first_side(sides[0])
    others = tuple(map(self._item, sides[1:]))
    if signs == ['='] and isinstance(first, Sequence) and isinstance(others[0], Sequence):
      names = [name_of(item) for item in first.items]
      values = others[0].items
      if None not in names and len(values) == len(names):
        return Assignments(tuple(names), values, is_tuple=True)
    if signs == [r'\in'] and isinstance(others[0], Collection) and others[0].items:
      signs = ['=']  # n \in \{2, 3, 4\}
    return Relation((first, *others), tuple(signs))

  def _first_side(self, tokens: Tokens) -> Answer:
    """An answer, or what is no expression and may be a mere name; '' where nothing stands."""
    if not tokens:
      return Name('')
    try:
      if any(token.kind == 'word' for token in tokens):
        raise UnreadableError('words')
      return self._item(tokens)
    except UnreadableError:
      if prose.is_hedge(tokens) or has_any(tokens, _NO_NAME):
        raise
      return Name(key(tokens))

  # One answer.

  def _item(self, tokens: Tokens) -> Answer:
    """An answer without relation: a set, a bracket, a function by cases, a quantity."""
    tokens = trimmed(tokens)
    if not tokens:
      raise UnreadableError('empty')
    if texts_of(tokens) == [r'\ldots']:
      return ELLIPSIS
    if is_in_braces(tokens):
      pieces, _ = split_list(inside(tokens))
      if len(pieces) > 1:
        return Collection(tuple(map(self.answer, pieces)), is_set=True)
      if read_numeral(tokens) is None:
        return self._item(inside(tokens))
    methods = (
      self._words,
      self._logic,
      self._brackets,
      self._cases,
      read_numeral,
      _read_ratio,
    )
    for method in methods:
      answer = method(tokens)
      if answer is not None:
        return answer
    return _read_signed_quantity(tokens)

  def _logic(self, tokens: Tokens) -> Answer | None:
    """Operations between sets or statements, and negations."""
    for operation in (r'\lor', r'\land', r'\setminus', r'\cup', r'\cap'):
      pieces, signs = split(tokens, (operation,))
      if signs:
        return SetOperation(operation, tuple(map(self._item, pieces)))
    if tokens[0].text == r'\neg':
      return Quantity(('apply', r'\neg', expression_reader.read(tokens[1:])), units.NONE)
    return None

  def _brackets(self, tokens: Tokens) -> Answer | None:
    """A point, an interval, a vector, a set; None: the brackets only group."""
    opening, closing = tokens[0].text, tokens[-1].text
    if len(tokens) == 1 and opening == r'\emptyset':
      return EMPTY_SET
    if not is_enclosed(tokens) or opening == '{':
      return None
    content = inside(tokens)
    if opening == r'\{':
      return self._braces(content)
    pieces, _ = split(content, ',;')
    if len(pieces) > _MAX_ITEMS:
      raise UnreadableError('length of a list')
    if len(pieces) > 1:
      brackets = _ANGLES.get(opening, opening) + _ANGLES.get(closing, closing)
      return _with_all_signs(brackets, [self.answer(piece) for piece in pieces])
    if opening == '(' and has_any(content, ':'):
      return _read_ratio(content)  # projective coordinates
    if opening == r'\langle' or opening == '(' and content and content[0].kind == 'word':
      raise UnreadableError('brackets')
    is_empty_list = opening == '[' and closing == ']' and not content
    return EMPTY_SET if is_empty_list else None

  def _braces(self, content: Tokens) -> Answer:
    """A set: by its elements, by a condition, or by parameters."""
    if not content:
      return EMPTY_SET
    parts, bars = split(content, (r'\mid',))
    if not bars:
      parts, bars = split(content, '|:')
    if bars and parts[0]:
      clause = content[len(parts[0]) + 1 :]
      parameters = declared_names(clause)
      if parameters:
        return Family(self.answer(parts[0]), tuple(sorted(parameters)))
      try:
        return self._builder(parts[0], clause)
      except UnreadableError:
        if bars[0] != '|' or len(bars) % 2:  # else absolute values: \{|x|, |y|\}
          raise
    pieces, _ = split_list(content)
    return Collection(tuple(map(self.answer, pieces)), is_set=True)

  def _builder(self, variable: Tokens, condition: Tokens) -> Builder:
    """`{x in domain | condition}`."""
    sides, signs = split(variable, (r'\in',))
    domain = key(sides[1]) if signs else r'\mathbb R'
    name = name_of(self._item(sides[0]))
    if name is None:
      raise UnreadableError('a set')
    return Builder(name, domain, self.answer(condition))

  def _cases(self, tokens: Tokens) -> Answer | None:
    """A function by cases, or a system of equations in the same brace."""
    if tokens[0].text != r'\begin cases' or tokens[-1].text != r'\end cases':
      return None
    lines, _ = split(inside(tokens), (r'\\',))
    rows: list[tuple[Answer, Answer | None]] = []
    for line in lines:
      cells, _ = split(line, '&')
      if any(cells):
        rows.append(self._row(cells))
    if not rows:
      raise UnreadableError('cases')
    values = [value for value, _ in rows]
    if all(isinstance(value, Relation) for value in values):
      return _collected(values, ',')
    return Cases(tuple(rows))

  def _row(self, cells: list[Tokens]) -> tuple[Answer, Answer | None]:
    """A value and its condition, or an equation of a system."""
    if len(cells) > 2:
      raise UnreadableError('cases')
    value = trimmed(cells[0])
    if len(cells) == 2:
      return self._item(value), _read_condition(cells[1])
    is_statement = has_any(value, RELATIONS)
    return self._statement(value) if is_statement else self._item(value), None


# What needs no parts of its own.


def _lines_as_list(tokens: Tokens) -> Tokens | None:
  """The lines of an `aligned` environment, as a list."""
  first = tokens[0].text
  if not first.startswith(r'\begin ') or first.removeprefix(r'\begin ') not in _LINES:
    return None
  if tokens[-1].text != first.replace('begin', 'end'):
    return None
  lines: list[Tokens] = []
  for line in split(inside(tokens), (r'\\',))[0]:
    line = tuple(token for token in line if token.text != '&')
    if line:
      lines.append(line)
  return joined_lines(lines)


def _read_option(tokens: Tokens) -> Option | None:
  """`(B) 12`, `B)`, `B. the third`, `Option B`."""
  letter_and_content = prose.split_option(tokens)
  if letter_and_content is None:
    return None
  letter, content = letter_and_content
  return Option(letter, read_tokens(content) if content else None)


def _read_congruence(tokens: Tokens) -> Congruence | None:
  """`x \\equiv 3 \\pmod 7`, `3 (mod 7)`."""
  texts = texts_of(tokens)
  is_class = r'\equiv' in texts
  commands = _MODULI if is_class else _MODULI[:2]
  marks = [i for i, text in enumerate(texts) if text in commands]
  if not marks:
    return None
  if len(marks) > 1:
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
  modulus = expression_reader.read(without_braces(behind))
  sides, _ = split(before, (r'\equiv', '='))
  if len(sides) > 2 or not sides[-1]:
    raise UnreadableError('congruence')
  name = ''.join(texts_of(sides[0])) if len(sides) > 1 else ''
  residues, _ = split_list(sides[-1])
  return Congruence(name, tuple(map(expression_reader.read, residues)), modulus)


def _is_residue(residue: Tokens, modulus: Tokens) -> bool:
  """Whether `1 \\mod 4` is a class, as the number is a remainder already."""
  numbers: list[int] = []
  for part in (residue, modulus):
    text = ''.join(texts_of(part)).strip('{}')
    if not re.fullmatch(r'\d{1,9}', text):
      return False
    numbers.append(int(text))
  return numbers[0] < numbers[1]


def _read_condition(tokens: Tokens) -> Answer | None:
  """The condition of a case; one that is not understood is compared as words."""
  tokens = trimmed(without_condition_word(tokens))
  if not tokens:
    return None
  condition = read_tokens(tokens)
  if isinstance(condition, Unread):
    return Words((key(tokens).casefold(),))
  return condition


def _read_ratio(tokens: Tokens) -> Ratio | None:
  """`1:2:3`, `3 to 4`, `3:30 p.m.`, `5 p.m.`"""
  tokens, half = prose.without_half_of_day(tokens)
  if half and len(tokens) == 1:
    return Ratio((expression_reader.read(tokens), expressions.ZERO), half, is_clock=True)
  pieces, colons = split(tokens, (':', 'to'))
  if not colons:
    return None
  hours, *minutes = (''.join(texts_of(piece)) for piece in pieces)
  is_clock = re.fullmatch(r'\d{1,2}', hours) is not None
  for text in minutes:
    is_clock &= re.fullmatch(r'[0-5]\d', text) is not None
  parts: tuple[Node, ...] = tuple(map(expression_reader.read, pieces))
  return Ratio(parts, half, is_clock or bool(half))


def _read_signed_quantity(tokens: Tokens) -> Answer:
  """An expression with a unit; `\\pm` makes it two."""
  quantity = read_compound(tokens) or read_quantity(tokens)
  nodes = expressions.alternatives(quantity.node)
  if len(nodes) == 1:
    return quantity
  return Collection(tuple(Quantity(node, quantity.unit) for node in nodes))


# Several answers as one.


def _with_all_signs(brackets: str, items: list[Answer]) -> Answer:
  """A bracket; `(\\pm 1, \\pm 2)` is four."""
  choices: list[tuple[Answer, ...]] = []
  has_double = False
  for item in items:
    is_double = isinstance(item, Collection) and not item.is_set
    choices.append(item.items if is_double else (item,))
    has_double |= is_double
  if not has_double:
    return Sequence(brackets, tuple(items))
  if math.prod(map(len, choices)) > _MAX_SIGNED:
    raise UnreadableError('signs')
  sequences = [Sequence(brackets, choice) for choice in itertools.product(*choices)]
  return Collection(tuple(sequences))


def _collected(items: list[Answer], connective: str) -> Answer:
  """Several statements as one answer: values of one name, assignments, or a plain list."""
  if connective == 'and':
    compound = sum_of_units(items)  # 5 hours and 30 minutes
    if compound is not None:
      return compound
  pairs = [_name_and_value(item) for item in items]
  if all(pairs):
    names = [name for name, _ in pairs]
    values = [value for _, value in pairs]
    if len(set(names)) == 1:
      return Relation((Name(names[0]), _flat(values, connective)), ('=',))
    if len(set(names)) == len(names):
      return Assignments(tuple(names), tuple(values))
  elif pairs[0] and not any(isinstance(item, Relation) for item in items[1:]):
    name, value = pairs[0]  # n = 2, 3, 4
    return Relation((Name(name), _flat([value, *items[1:]], connective)), ('=',))
  return _flat(items, connective)


def _flat(items: SequenceOf[Answer], connective: str) -> Collection:
  """`0, \\pm 1` are three."""
  flat: list[Answer] = []
  for item in items:
    if isinstance(item, Collection) and not item.is_set and item.connective == ',':
      flat += item.items
    else:
      flat.append(item)
  return Collection(tuple(flat), connective)


def _name_and_value(item: Answer) -> tuple[str, Answer] | None:
  """Of `x = 5` or `5 = x`; longer chains keep their links."""
  if not isinstance(item, Relation) or item.signs not in (('=',), (r'\approx',)):
    return None
  for side, other in (item.sides, item.sides[::-1]):
    name = name_of(side)
    if name is not None:
      return name, other
  return None
