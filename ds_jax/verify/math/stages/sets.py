"""Sets of numbers: intervals, inequalities, unions, sets by condition."""

from __future__ import annotations

import functools

from ds_jax.verify.math import regions
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.judge import Judge, pair_off
from ds_jax.verify.math.linear import difference, ratio_sign
from ds_jax.verify.math.structures import (
  Answer,
  Builder,
  Relation,
  SetOperation,
  name_of,
  renamed,
)

_FLIPPED = {'<': '>', '>': '<', r'\leq': r'\geq', r'\geq': r'\leq'}


def real_sets(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Intervals, unions and inequalities as sets of real numbers, where they are; else by parts."""
  if not regions.is_region_like(gold) and not regions.is_region_like(answer):
    return None
  try:
    region, name = regions.of(gold)
    other_region, other_name = regions.of(answer)
  except regions.NoRegionError:
    return _by_parts(gold, answer, judge)
  if name and other_name and name != other_name:
    return Finding(False, 'sets of different names')
  return regions.same_region(region, other_region, judge.work)


def _by_parts(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Sets with parameters, of complex numbers, of anything: their parts are compared."""
  if isinstance(gold, SetOperation) and isinstance(answer, SetOperation):
    return _set_operations(gold, answer, judge)
  if isinstance(gold, Builder) and isinstance(answer, Builder):
    if gold.domain != answer.domain:
      return Finding(False, 'sets of other things')
    new_name = {('symbol', answer.name): ('symbol', gold.name)}
    return judge.compare(gold.condition, renamed(answer.condition, new_name))
  links = _links(gold)
  other_links = _links(answer)
  if links is None or other_links is None:
    return _membership(gold, answer, judge)
  is_same = functools.partial(_same_inequality, judge=judge)
  return Finding(pair_off(links, other_links, is_same), 'inequalities')


def _set_operations(gold: SetOperation, answer: SetOperation, judge: Judge) -> Finding:
  if gold.operation != answer.operation or len(gold.parts) != len(answer.parts):
    return Finding(False, 'set operations')
  if gold.operation == r'\setminus':
    return judge.all_equal(zip(gold.parts, answer.parts, strict=True), 'set operations')
  return Finding(pair_off(gold.parts, answer.parts, judge.is_same), 'set operations')


def _links(answer: Answer) -> list[tuple[Node, str]] | None:
  """The single relations of a chain, each as a difference and its sign: a < b < c has two."""
  if not isinstance(answer, Relation) or r'\in' in answer.signs:
    return None
  links = []
  for left, sign, right in zip(answer.sides, answer.signs, answer.sides[1:], strict=False):
    left_minus_right = difference(Relation((left, right), (sign,)))
    if left_minus_right is None:
      return None
    links.append((left_minus_right, sign))
  return links


def _same_inequality(link: tuple[Node, str], other: tuple[Node, str], judge: Judge) -> bool:
  """Whether one is a multiple of the other, with the sign turned by a negative factor."""
  function, sign = link
  other_function, other_sign = other
  factor_sign = ratio_sign(function, other_function, judge)
  if factor_sign < 0:
    other_sign = _FLIPPED.get(other_sign, other_sign)
  return factor_sign != 0 and sign == other_sign


def _membership(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """`x \\in S` and S, where S is no set of real numbers."""
  if not _is_membership(gold) and not _is_membership(answer):
    has_relation = isinstance(gold, Relation) or isinstance(answer, Relation)
    return Finding(None, 'relations') if has_relation else None
  if _is_membership(gold) and _is_membership(answer):
    if name_of(gold.sides[0]) != name_of(answer.sides[0]):
      return Finding(False, 'membership')
  return judge.compare(_set_of(gold), _set_of(answer))


def _is_membership(side: Answer) -> bool:
  return isinstance(side, Relation) and side.signs == (r'\in',)


def _set_of(side: Answer) -> Answer:
  return side.sides[1] if _is_membership(side) else side
