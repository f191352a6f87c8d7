"""Several answers: in order between brackets, or in any order."""

from __future__ import annotations

from ds_jax.verify.math import units
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.judge import Judge, pair_off
from ds_jax.verify.math.structures import (
  ELLIPSIS,
  Answer,
  Collection,
  Quantity,
  Sequence,
  Words,
  symbols_of,
)

_ROUND = {'<>': '()'}  # brackets that mean the same


def sequences(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same brackets, and the same parts in the same order."""
  if not isinstance(gold, Sequence) and not isinstance(answer, Sequence):
    return None
  gold = _without_point_name(gold)
  answer = _without_point_name(answer)
  if isinstance(gold, Collection) or isinstance(answer, Collection):
    return None
  if not isinstance(gold, Sequence) or not isinstance(answer, Sequence):
    return Finding(False, 'brackets')
  if len(gold.items) != len(answer.items):
    return Finding(False, 'brackets')
  brackets = {_ROUND.get(side.brackets, side.brackets) for side in (gold, answer)}
  # Three parts or more are no interval: (1, 2, 3) and [1, 2, 3] are one vector.
  is_vector = len(gold.items) > 2 and brackets <= {'()', '[]'}
  if len(brackets) > 1 and not is_vector:
    return Finding(False, 'brackets')
  return judge.all_equal(zip(gold.items, answer.items, strict=True), 'in order')


def _without_point_name(answer: Answer) -> Answer:
  """`P(3, -4)` as the point."""
  if not isinstance(answer, Quantity) or answer.node[0] != 'apply':
    return answer
  _, name, *coordinates = answer.node
  is_point_name = len(name) == 1 and name.isupper()
  if len(coordinates) < 2 or not is_point_name:
    return answer
  items = [Quantity(node, units.NONE) for node in coordinates]
  return Sequence('()', tuple(items))


def collections(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same parts in any order; one number is the set that holds it."""
  num_lists = isinstance(gold, Collection) + isinstance(answer, Collection)
  if not num_lists:
    return None
  items = _items(gold)
  other_items = _items(answer)
  if len(items) != len(other_items):
    return Finding(_is_grouped_list(gold, answer), 'number of parts')
  # A letter may stand for a set, whose only element it is not.
  if num_lists == 1 and (symbols_of(gold) or symbols_of(answer)):
    return Finding(None, 'one element and its set')
  if _connectives_differ(gold, answer):
    return Finding(False, 'and, or')
  if ELLIPSIS in items:
    return judge.all_equal(zip(items, other_items, strict=True), 'in order')
  return Finding(pair_off(items, other_items, judge.is_same), 'in any order')


def _items(answer: Answer) -> tuple[Answer, ...]:
  """The parts. A point that is named twice is one; a number may be a multiple root."""
  if not isinstance(answer, Collection):
    return (answer,)
  if not any(isinstance(item, Sequence) for item in answer.items):
    return answer.items
  return tuple(dict.fromkeys(answer.items))


def _is_grouped_list(gold: Answer, answer: Answer) -> bool:
  """Whether `5,125` stands for the list 5, 125, which the gold is."""
  if not isinstance(answer, Quantity) or len(answer.tokens) != 1:
    return False
  numeral = answer.tokens[0]
  if not numeral.is_grouped or not isinstance(gold, Collection) or gold.is_set:
    return False
  texts: list[str] = []
  for item in gold.items:
    if not isinstance(item, Quantity) or len(item.tokens) != 1:
      return False
    texts.append(item.tokens[0].text)
  # Groups of three digits from the right; the first may be shorter.
  digits = numeral.text
  start = len(digits) % 3 or 3
  groups = [digits[:start]]
  for i in range(start, len(digits), 3):
    groups.append(digits[i : i + 3])
  return sorted(texts) == sorted(groups)


def _connectives_differ(gold: Answer, answer: Answer) -> bool:
  """Whether one says `red and blue`, the other `red or blue`; of numbers both are a list."""
  for side in (gold, answer):
    if not isinstance(side, Collection) or not side.items:
      return False
    if not isinstance(side.items[0], Words):
      return False
  return {gold.connective, answer.connective} == {'and', 'or'}
