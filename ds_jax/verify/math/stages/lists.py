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


def sequences(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same brackets, and the same parts in the same order."""
  if not isinstance(gold, Sequence) and not isinstance(answer, Sequence):
    return None
  gold, answer = _without_point_name(gold), _without_point_name(answer)
  if isinstance(gold, Collection) or isinstance(answer, Collection):
    return None
  if not isinstance(gold, Sequence) or not isinstance(answer, Sequence):
    return Finding(False, 'brackets')
  brackets = ['()' if side.brackets == '<>' else side.brackets for side in (gold, answer)]
  is_vector = len(gold.items) > 2 and set(brackets) <= {'()', '[]'}  # no interval
  is_same_kind = brackets[0] == brackets[1] or is_vector
  if len(gold.items) != len(answer.items) or not is_same_kind:
    return Finding(False, 'brackets')
  return judge.all_equal(list(zip(gold.items, answer.items, strict=True)), 'in order')


def _without_point_name(answer: Answer) -> Answer:
  """`P(3, -4)` as the point."""
  if not isinstance(answer, Quantity) or answer.node[0] != 'apply':
    return answer
  _, name, *coordinates = answer.node
  if len(coordinates) < 2 or not (len(name) == 1 and name.isupper()):
    return answer
  return Sequence('()', tuple(Quantity(node, units.NONE) for node in coordinates))


def collections(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same parts in any order; one number is the set that holds it."""
  is_list = [isinstance(side, Collection) for side in (gold, answer)]
  if not any(is_list):
    return None
  items = [_items(side) for side in (gold, answer)]
  if len(items[0]) != len(items[1]):
    return Finding(_is_grouped_list(gold, answer), 'number of parts')
  if not all(is_list) and any(symbols_of(part) for part in (gold, answer)):
    return Finding(None, 'one element and its set')
  if _connectives_differ(gold, answer):
    return Finding(False, 'and, or')
  if ELLIPSIS in items[0]:
    return judge.all_equal(list(zip(*items, strict=True)), 'in order')
  return Finding(pair_off(*items, judge.is_same), 'in any order')


def _items(answer: Answer) -> tuple[Answer, ...]:
  """The parts. A point that is named twice is one; a number may be a multiple root."""
  if not isinstance(answer, Collection):
    return (answer,)
  if not any(isinstance(item, Sequence) for item in answer.items):
    return answer.items
  return tuple(dict.fromkeys(answer.items))


def _is_grouped_list(gold: Answer, answer: Answer) -> bool:
  """Whether `5,125` stands for the list 5, 125, which the gold is."""
  tokens = answer.tokens if isinstance(answer, Quantity) else ()
  if len(tokens) != 1 or not tokens[0].is_grouped:
    return False
  if not isinstance(gold, Collection) or gold.is_set:
    return False
  parts = [item.tokens for item in gold.items if isinstance(item, Quantity)]
  texts = [part[0].text for part in parts if len(part) == 1]
  digits = tokens[0].text
  start = len(digits) % 3 or 3
  groups = [digits[:start], *(digits[i : i + 3] for i in range(start, len(digits), 3))]
  return len(texts) == len(gold.items) and sorted(texts) == sorted(groups)


def _connectives_differ(gold: Answer, answer: Answer) -> bool:
  """Whether one says `red and blue`, the other `red or blue`; of numbers both are a list."""
  sides = gold, answer
  if not all(isinstance(side, Collection) and side.items for side in sides):
    return False
  connectives = {side.connective for side in sides}
  return all(isinstance(s.items[0], Words) for s in sides) and connectives == {'and', 'or'}
