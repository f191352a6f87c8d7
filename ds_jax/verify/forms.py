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

from ds_jax.verify.compare import constant_ratio, has_other_roots, is_constant, same_value
from ds_jax.verify.expression import Node, UnreadableError, read, subtract
from ds_jax.verify.normalize import parse_rational, squeeze

_SEPARATOR = re.compile(r'[,;]|\\cup(?![A-Za-z])|\\text\s*\{\s*(?:and|or|,)\s*\}|\b(?:and|or)\b')
_RELATION = re.compile(r'\\(?:leq|geq|neq|approx)(?![A-Za-z])|<=|>=|!=|[<>=]')
_SIGNS = {r'\leq': '<=', r'\geq': '>=', r'\neq': '!=', r'\approx': '='}
_FLIPPED = {'<': '>', '>': '<', '<=': '>=', '>=': '<='}
_NAME = re.compile(
  r'(?:\\Delta\s*)?(?:\\?[A-Za-z]+|\|[A-Za-z]+\||[A-Za-z]:[A-Za-z])'
  r"(?:_(?:\{[^{}]*\}|\w)|'|\\text\{[^{}]*\}|\((?:\\?[A-Za-z0-9]+,?)*\))*"
  r'|\((?:\\?[A-Za-z]+(?:_\w|_\{\w*\})?,?)+\)'
)
_MATRIX = re.compile(
  r'([(\[]?)\s*\\begin\{((?:[pbB]|small)?matrix|array)\}(?:\{[lcr| ]{0,20}\})?'
  r'((?:(?!\\begin).)*)\\end\{\2\}\s*([)\]]?)',
  re.DOTALL,
)
_MAX_PAIRS = 200  # of parts, compared by value


def decide(gold: str, answer: str) -> bool | None:
  """Whether two answers, normalized and within `guards`, are equal; None: undecided."""
  if '%' in gold or '%' in answer:
    return None
  try:
    return _decide(gold, answer)
  except UnreadableError:
    return None


def is_name(text: str) -> bool:
  r"""Whether a text without spaces names a quantity: x, |AB|, f(x), I_{\max}, (p,q), …"""
  return _NAME.fullmatch(text) is not None


def _decide(gold: str, answer: str) -> bool | None:
  relations = [_RELATION.findall(text) for text in (gold, answer)]
  if any(relations):
    return _decide_relations(gold, answer, relations)
  (brackets, parts), (answer_brackets, answer_parts) = _split(gold), _split(answer)
  if brackets != answer_brackets:
    is_interval = len(parts) == len(answer_parts) == 2 and brackets and answer_brackets
    return False if is_interval else None
  if brackets:
    return _decide_ordered(parts, answer_parts)
  return _decide_unordered(parts, answer_parts)


def _split(text: str) -> tuple[str, list[str]]:
  """Its outer brackets, if they hold a list, and the parts between the outer commas.

  A single expression is a list of one without brackets, whatever brackets it has.
  """
  text = text.strip()
  if match := _MATRIX.fullmatch(text):
    return _cells(match[3])
  inside = text.removeprefix('\\{').removesuffix('\\}') if text[:2] == '\\{' else text[1:-1]
  is_enclosed = text[:1] in ('(', '[', '{', '\\') and _closes_last(text)
  if is_enclosed and len(parts := _parts(inside)) > 1:
    is_ordered = text[0] in '(['
    return (text[0] + text[-1], parts) if is_ordered else ('', _both_signs(parts))
  return '', _both_signs(_parts(text))


def _cells(rows: str) -> tuple[str, list[str]]:
  """A matrix, with the lengths of its rows as its brackets."""
  cells = [row.split('&') for row in re.split(r'\\\\', rows) if row.strip()]
  return f'matrix {[*map(len, cells)]}', [cell.strip() for row in cells for cell in row]


def _closes_last(text: str) -> bool:
  """Whether the first bracket is closed by the last character, as in `(a, b]` and `\\{a, b\\}`."""
  if text[0] == '\\' and not (text.startswith('\\{') and text.endswith('\\}')):
    return False
  depth = 0
  for i, c in enumerate(text):
    depth += (c in '({[') - (c in ')}]')
    if not depth and c in ')}]':
      return i == len(text) - 1
  return False


def _parts(text: str) -> list[str]:
  """What stands between commas outside all brackets."""
  parts, depth, start, position = [], 0, 0, 0
  while position < len(text):
    c = text[position]
    depth += (c in '({[') - (c in ')}]')
    match = _SEPARATOR.match(text, position) if not depth else None
    if match:
      parts.append(text[start:position])
      start = position = match.end()
    else:
      position += 1
  parts = [part.strip() for part in (*parts, text[start:])]
  if depth or not all(parts):
    raise UnreadableError('list')
  return parts


def _both_signs(parts: list[str]) -> list[str]:
  r"""`a \pm b` stands for two numbers."""
  return [
    part.replace(r'\pm', sign)
    for part in parts
    for sign in ('+-' if part.count(r'\pm') == 1 else (r'\pm',))
  ]


def _decide_part(gold: str, answer: str) -> bool | None:
  if squeeze(gold) == squeeze(answer):
    return True
  if any(len(_split(text)[1]) > 1 for text in (gold, answer)):  # tuples of tuples
    return _decide(gold, answer)
  return same_value(read(gold), read(answer))


def _decide_ordered(gold: list[str], answer: list[str]) -> bool | None:
  if len(gold) != len(answer):
    return None
  verdicts = [_decide_part(g, a) for g, a in zip(gold, answer, strict=True)]
  return False if False in verdicts else None if None in verdicts else True


def _decide_unordered(gold: list[str], answer: list[str]) -> bool | None:
  """Pairs the parts off: the same numbers and texts first, then whatever has the same value."""
  gold_keys, answer_keys = (Counter(map(_key, parts)) for parts in (gold, answer))
  missing, left = _unmatched(gold, answer_keys), _unmatched(answer, gold_keys)
  if len(missing) * len(left) > _MAX_PAIRS:
    return None
  for part in missing:
    verdicts = [_decide_part(part, other) for other in left]
    if True in verdicts:
      del left[verdicts.index(True)]
    else:
      return None if None in verdicts or len(gold) != len(answer) else False
  return None if left else True


def _unmatched(parts: list[str], others: Counter) -> list[str]:
  """The parts that are left when each has taken an equal one of the others."""
  others, found = others.copy(), []
  for part in parts:
    key = _key(part)
    if others[key]:
      others[key] -= 1
    else:
      found.append(part)
  return found


def _key(part: str) -> Fraction | str:
  value = parse_rational(part)
  return squeeze(part) if value is None else value


def _decide_relations(gold: str, answer: str, relations: list[list[str]]) -> bool | None:
  if max(map(len, relations)) > 1:
    return None
  if not all(relations):
    return _decide_assignment(gold, answer, relations)
  first, sign = _difference(gold, relations[0][0])
  second, answer_sign = _difference(answer, relations[1][0])
  if '=' in (sign, answer_sign) and sign != answer_sign:
    return None
  ratio = constant_ratio(first, second)
  if ratio is None or ratio.imag:
    return False if has_other_roots(first, second) else None
  if sign in _FLIPPED and ratio < 0:
    answer_sign = _FLIPPED.get(answer_sign, answer_sign)
  return sign == answer_sign


def _difference(text: str, relation: str) -> tuple[Node, str]:
  left, right = text.split(relation)
  return subtract(read(left), read(right)), _SIGNS.get(relation, relation)


def _decide_assignment(gold: str, answer: str, relations: list[list[str]]) -> bool | None:
  related, other = (gold, answer) if relations[0] else (answer, gold)
  sign = (relations[0] or relations[1])[0]
  left, right = related.split(sign)
  if _SIGNS.get(sign, sign) != '=':
    return None
  if is_name(squeeze(left)):
    return _decide(*((right, other) if related is gold else (other, right)))
  # `\sqrt{4} = 2` is 2, but what is not a number on both sides is an equation.
  trees = [read(text) for text in (left, right, other)]
  is_calculation = all(map(is_constant, trees)) and same_value(*trees[1:])
  return True if is_calculation else None
