"""Words, yes and no, options, numerals with a base, ratios and times of day."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from ds_jax.verify.math import units
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.judge import Judge, each_way
from ds_jax.verify.math.structures import (
  Answer,
  Collection,
  Name,
  Numeral,
  Option,
  Quantity,
  Ratio,
  Relation,
  Sequence,
  Truth,
  Unread,
  Words,
)


def unread(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """What is not understood equals its own spelling only, which was compared before."""
  del judge
  for side, structure in (('gold', gold), ('answer', answer)):
    if isinstance(structure, Unread):
      return Finding(None, f'not understood ({side}: {structure.reason})')
  return None


def same_structure(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same statement; numbers are left to their values, which may not exist."""
  del judge
  if isinstance(gold, (Quantity, Sequence, Collection)) or gold != answer:
    return None
  return Finding(True, 'same structure')


def truth(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Yes and true, no and false."""
  del judge
  if isinstance(gold, Truth) or isinstance(answer, Truth):
    return Finding(gold == answer, 'truth')
  return None


def options(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The letter decides; the content does where the other side has no letter."""
  pair = each_way(gold, answer, Option)
  if pair is None:
    return None
  option, other = pair
  if isinstance(other, Option):
    has_contents = option.content is not None and other.content is not None
    is_contradiction = has_contents and judge.is_same(option.content, other.content) is False
    return Finding(option.letter == other.letter and not is_contradiction, 'options')
  if isinstance(other, Quantity) and other.node[0] == 'symbol':
    return Finding(other.node[1] == option.letter, 'options')
  if option.content is None or isinstance(other, Collection):
    return Finding(False, 'options')
  if option is gold:
    return judge.compare(option.content, other)
  return judge.compare(other, option.content)


def words(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same words, in any letter case and without articles."""
  del judge
  if isinstance(gold, Words) and isinstance(answer, Words):
    return Finding(gold == answer, 'words')
  if isinstance(gold, Name) or isinstance(answer, Name):
    return Finding(gold == answer, 'words')
  pair = each_way(gold, answer, Words)
  if pair is None or isinstance(pair[1], Relation):
    return None
  letters = _letters(pair[1])
  return Finding(bool(letters) and pair[0].words == (letters,), 'words')


def _letters(answer: Answer) -> str:
  """The letters that a product of letters was written with, in one run."""
  if not isinstance(answer, Quantity) or len(answer.tokens) != 1:
    return ''
  token = answer.tokens[0]
  if token.kind != 'letters' or len(token.text) < 2:
    return ''
  return token.text.casefold()


def numerals(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Digits with a base; the same digits where the answer names no base."""
  del judge
  pair = each_way(gold, answer, Numeral)
  if pair is None or isinstance(pair[1], Relation):
    return None
  numeral, other = pair
  is_plain = isinstance(other, Quantity) and len(other.tokens) == 1 and other.unit == units.NONE
  if is_plain and (numeral is gold or numeral.base == 10):
    return Finding(other.tokens[0].text.lstrip('0') == numeral.digits, 'digits without base')
  return Finding(numeral == other, 'numeral and base')


def ratios(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Times of day part by part; ratios by proportion, two parts also as a fraction."""
  pair = each_way(gold, answer, Ratio)
  if pair is None or isinstance(pair[1], Relation):
    return None
  ratio, other = pair
  if isinstance(other, Ratio):
    if ratio.is_clock and other.is_clock:
      return Finding(_same_time(ratio, other), 'times')
    return _proportional(ratio.parts, other.parts, judge)
  is_fraction = isinstance(other, Quantity) and other.unit == units.NONE
  if ratio.half or len(ratio.parts) != 2 or not is_fraction:
    return Finding(False, 'ratios')
  return judge.same_expression(('/', *ratio.parts), other.node)._replace(stage='ratios')


def _same_time(first: Ratio, second: Ratio) -> bool:
  """Whether two times are the same, if need be without their halves of the day or in 24 hours."""
  if bool(first.half) == bool(second.half):
    return first.half == second.half and _time(first) == _time(second)
  readings = {_time(first), _time_of_24_hours(first)}
  other_readings = {_time(second), _time_of_24_hours(second)}
  return bool(readings & other_readings)


def _time(ratio: Ratio) -> tuple:
  """Hours, minutes and, unless they are zero, seconds."""
  parts: list = []
  for part in ratio.parts:
    parts.append(int(part[1].p) if part[0] == 'number' else part)
  while len(parts) > 2 and parts[-1] == 0:
    parts.pop()
  return tuple(parts)


def _time_of_24_hours(ratio: Ratio) -> tuple:
  hour, *others = _time(ratio)
  if ratio.half and isinstance(hour, int):
    hour = hour % 12 + 12 * (ratio.half == 'pm')
  return (hour, *others)


def _proportional(first: SequenceOf[Node], second: SequenceOf[Node], judge: Judge) -> Finding:
  """Whether a : b : … and c : d : … are the same ratio: all a d = b c."""
  if len(first) != len(second):
    return Finding(False, 'ratios')
  for i in range(len(first)):
    for k in range(i):
      product = ('*', first[i], second[k])
      cross_product = ('*', first[k], second[i])
      finding = judge.same_expression(product, cross_product)
      if not finding.is_equal:
        return finding._replace(stage='ratios')
  # Products with zeros say nothing: 0 : 1 is not 1 : 0.
  zeros = list(map(judge.is_zero, first))
  other_zeros = list(map(judge.is_zero, second))
  return Finding(zeros == other_zeros and not all(zeros), 'ratios')
