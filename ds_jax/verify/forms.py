r"""Decides, without an algebra system, answers made of expressions: lists, tuples, relations.

Read are one expression; several between commas, `;` or `and`, bare or in brackets of any kind; and
one relation between two expressions. The rules:

* Expressions are equal when their values are (`compare`).
* In round and square brackets, mixed ones too, the order counts, the brackets must be the same
  ones, and as many must stand in them. In braces and without brackets the order does not count.
* Equations are equal when one is a multiple of the other; inequalities when the factor's sign and
  the direction agree. `name = a` and `a` are equal, as an answer or a list of them.

Everything else, and what the values leave open, is undecided.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from ds_jax.verify.brackets import OPENING, closing_index, depths
from ds_jax.verify.compare import constant_ratio, has_other_roots, is_constant, same_value
from ds_jax.verify.expression import Node, UnreadableError, read, subtract
from ds_jax.verify.normalize import parse_rational, squeeze

# Between the parts of a list: commas, unions, the words and and or.
_SEPARATOR = re.compile(r'[,;]|\\cup(?![A-Za-z])|\\text\s*\{\s*(?:and|or|,)\s*\}|\b(?:and|or)\b')
# Signs of relations as written, in one spelling, and turned round.
_RELATION = re.compile(r'\\(?:leq|geq|neq|approx)(?![A-Za-z])|<=|>=|!=|[<>=]')
_SIGNS = {r'\leq': '<=', r'\geq': '>=', r'\neq': '!=', r'\approx': '='}
_FLIPPED = {'<': '>', '>': '<', '<=': '>=', '>=': '<='}
# A word or letter, |AB| or C:x with subscripts, primes, units and arguments; or a tuple of names.
_NAME = re.compile(
  r'(?:\\Delta\s*)?(?:\\?[A-Za-z]+|\|[A-Za-z]+\||[A-Za-z]:[A-Za-z])'
  r"(?:_(?:\{[^{}]*\}|\w)|'|\\text\{[^{}]*\}|\((?:\\?[A-Za-z0-9]+,?)*\))*"
  r'|\((?:\\?[A-Za-z]+(?:_\w|_\{\w*\})?,?)+\)'
)
# An optional bracket, the environment with its columns, the rows, and a bracket again.
_MATRIX = re.compile(
  r'([(\[]?)\s*\\begin\{((?:[pbB]|small)?matrix|array)\}(?:\{[lcr| ]{0,20}\})?'
  r'((?:(?!\\begin).)*)\\end\{\2\}\s*([)\]]?)',
  re.DOTALL,
)
_ROW_END = re.compile(r'\\\\')
_MAX_PAIRS = 200  # of parts, compared by value


def decide(gold: str, answer: str) -> bool | None:
  """Whether two answers, normalized and within `guards`, are equal; None: undecided."""
  if '%' in gold or '%' in answer:  # which may be left out: numbers alone are compared with it
    return None
  try:
    return _decide(gold, answer)
  except UnreadableError:
    return None


def is_name(text: str) -> bool:
  r"""Whether a text without spaces names a quantity: x, |AB|, f(x), I_{\max}, (p,q), …"""
  return _NAME.fullmatch(text) is not None


def _decide(gold: str, answer: str) -> bool | None:
  """`decide`, where what is unreadable raises UnreadableError."""
  relations = [_RELATION.findall(text) for text in (gold, answer)]
  if any(relations):  # one side at least is a relation
    return _decide_relations(gold, answer, relations)
  gold_brackets, gold_parts = _split(gold)
  answer_brackets, answer_parts = _split(answer)
  if gold_brackets == answer_brackets:
    decide_parts = _decide_ordered if gold_brackets else _decide_unordered
    return decide_parts(gold_parts, answer_parts)
  # [a, b) and (a, b] are different intervals; of other lists the algebra may know more.
  are_pairs = len(gold_parts) == len(answer_parts) == 2
  return False if are_pairs and gold_brackets and answer_brackets else None


def _split(text: str) -> tuple[str, list[str]]:
  """Its outer brackets, if they hold a list, and the parts between the outer commas.

  A single expression is a list of one without brackets, whatever brackets it has.
  """
  text = text.strip()
  if match := _MATRIX.fullmatch(text):
    return _cells(match[3])
  if _is_enclosed(text):
    escape = text.startswith('\\{')  # 1 character more on either side
    parts = _parts(text[1 + escape : -1 - escape])
    if len(parts) > 1 and text[0] in '([':
      return text[0] + text[-1], parts
    if len(parts) > 1:
      return '', _both_signs(parts)
  return '', _both_signs(_parts(text))


def _cells(rows: str) -> tuple[str, list[str]]:
  """A matrix, with the lengths of its rows as its brackets."""
  lengths: list[int] = []
  cells: list[str] = []
  for row in filter(str.strip, _ROW_END.split(rows)):
    row_cells = row.split('&')
    lengths.append(len(row_cells))
    cells += map(str.strip, row_cells)
  return f'matrix {lengths}', cells


def _is_enclosed(text: str) -> bool:
  r"""Whether the first bracket is closed by the last character, as in `(a, b]` and `\{a, b\}`."""
  if text.startswith('\\{') and text.endswith('\\}'):
    return closing_index(text, 1) == len(text) - 1
  return text[:1] in OPENING and closing_index(text, 0) == len(text) - 1


def _parts(text: str) -> list[str]:
  """What stands between commas outside all brackets."""
  depth = [0, *depths(text)]  # before each character, and at the end
  parts, start = [], 0
  for match in _SEPARATOR.finditer(text):
    if depth[match.start()] == 0:
      parts.append(text[start : match.start()].strip())
      start = match.end()
  parts.append(text[start:].strip())
  if depth[-1] or not all(parts):
    raise UnreadableError('list')
  return parts


def _both_signs(parts: list[str]) -> list[str]:
  r"""The parts, where `a \pm b` stands for two numbers."""
  signed: list[str] = []
  for part in parts:
    if part.count(r'\pm') == 1:
      signed += (part.replace(r'\pm', '+'), part.replace(r'\pm', '-'))
    else:
      signed.append(part)
  return signed


def _decide_part(gold: str, answer: str) -> bool | None:
  """Whether two parts of lists are equal: texts, lists within lists, or expressions."""
  if squeeze(gold) == squeeze(answer):
    return True
  _, gold_parts = _split(gold)
  if len(gold_parts) > 1:
    return _decide(gold, answer)
  _, answer_parts = _split(answer)
  if len(answer_parts) > 1:
    return _decide(gold, answer)
  return same_value(read(gold), read(answer))


def _decide_ordered(gold: list[str], answer: list[str]) -> bool | None:
  """Whether two lists are equal part by part."""
  if len(gold) != len(answer):
    return None
  decisions = list(map(_decide_part, gold, answer))
  if False in decisions:
    return False
  return None if None in decisions else True


def _decide_unordered(gold: list[str], answer: list[str]) -> bool | None:
  """Pairs the parts off: the same numbers and texts first, then whatever has the same value."""
  # The cheap comparison first: exact numbers and equal texts take each other away.
  gold_keys = Counter(map(_key, gold))
  answer_keys = Counter(map(_key, answer))
  gold_unpaired = _unpaired(gold, answer_keys)
  answer_unpaired = _unpaired(answer, gold_keys)
  if len(gold_unpaired) * len(answer_unpaired) > _MAX_PAIRS:
    return None
  # Then each part that is left takes the first one with the same value.
  for part in gold_unpaired:
    decisions = [_decide_part(part, other) for other in answer_unpaired]
    if True in decisions:
      del answer_unpaired[decisions.index(True)]
    elif None in decisions or len(gold) != len(answer):
      return None
    else:
      return False
  return None if answer_unpaired else True


def _unpaired(parts: list[str], other_keys: Counter) -> list[str]:
  """The parts that are left when each has taken an equal one of the others."""
  available = other_keys.copy()
  unpaired = []
  for part in parts:
    key = _key(part)
    if available[key]:
      available[key] -= 1
    else:
      unpaired.append(part)
  return unpaired


def _key(part: str) -> Fraction | str:
  """A number's value, or the text of anything else."""
  value = parse_rational(part)
  return squeeze(part) if value is None else value


def _decide_relations(gold: str, answer: str, relations: list[list[str]]) -> bool | None:
  """Whether two relations are equal, or a relation and a value; `relations` are their signs."""
  if max(map(len, relations)) > 1:
    return None
  if not all(relations):
    return _decide_assignment(gold, answer, relations)
  gold_difference, gold_sign = _difference(gold, relations[0][0])
  answer_difference, answer_sign = _difference(answer, relations[1][0])
  if gold_sign != answer_sign and '=' in (gold_sign, answer_sign):
    return None
  # The relations are f ? 0 and g ? 0. They say the same where g = c f with a real number c.
  ratio = constant_ratio(gold_difference, answer_difference)
  if ratio is None or ratio.imag:
    return False if has_other_roots(gold_difference, answer_difference) else None
  if gold_sign in _FLIPPED and ratio < 0:  # a negative c turns an inequality round
    answer_sign = _FLIPPED.get(answer_sign, answer_sign)
  return gold_sign == answer_sign


def _difference(text: str, relation: str) -> tuple[Node, str]:
  """The tree of left - right of a relation, and its sign in one spelling."""
  left, right = text.split(relation)
  return subtract(read(left), read(right)), _SIGNS.get(relation, relation)


def _decide_assignment(gold: str, answer: str, relations: list[list[str]]) -> bool | None:
  """Whether `name = a` or a calculation `b = a` stands for the other answer, a."""
  is_gold_related = bool(relations[0])
  related, other = (gold, answer) if is_gold_related else (answer, gold)
  sign = (relations[0] or relations[1])[0]
  left, right = related.split(sign)
  if _SIGNS.get(sign, sign) != '=':
    return None
  if is_name(squeeze(left)):
    return _decide(right, other) if is_gold_related else _decide(other, right)
  # `\sqrt{4} = 2` is 2, but what is not a number on both sides is an equation.
  trees = [read(text) for text in (left, right, other)]
  is_calculation = all(map(is_constant, trees)) and same_value(*trees[1:])
  return True if is_calculation else None
