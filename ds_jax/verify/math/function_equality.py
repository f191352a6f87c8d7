r"""Whether two functions of the same symbols agree: compared at the points of `points`.

One point at which they differ shows that they are different. That they agree at all points where
both have values is taken for equality; the odds of an error are those of unlucky draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from flint import fmpq

from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, Work, precision
from ds_jax.verify.math.enclosures import (
  PRECISIONS,
  Finding,
  compare_values,
  has_long_decimal,
)
from ds_jax.verify.math.expressions import IMAGINARY, Node, leaves, walk
from ds_jax.verify.math.kinks import Point
from ds_jax.verify.math.points import PointSource
from ds_jax.verify.math.values import Evaluation

_MIN_AGREEING = 4  # points where both have values
_FLOAT = 2 * 10**13  # of a number of 14 digits and half a unit of its last one


def same_function(gold: Node, answer: Node, work: Work) -> Finding:
  """Whether two functions have the same values, and none at the same points."""
  nodes = (gold, answer)
  is_rounded = _is_rounded(nodes)
  num_agreeing = 0
  open_stage = ''  # of the last point that told nothing
  for point, is_generic in PointSource(nodes).samples(work):
    finding = _compare_at(nodes, point, work, is_rounded=is_rounded)
    # One point is enough for a difference.
    if finding.is_equal is False:
      return finding
    # One of them alone has no value here: their domains differ.
    if finding.stage == 'domain' and is_generic:
      return finding
    if finding.is_equal:
      num_agreeing += 1
    else:
      open_stage = finding.stage
  if num_agreeing >= _MIN_AGREEING:
    return Finding(True, 'points')
  if gold == answer:
    return Finding(True, 'same tree')
  return Finding(None, open_stage or 'points')


def _is_rounded(nodes: Sequence[Node]) -> bool:
  """Whether one side alone has long decimals, or all of them are floating-point numbers."""
  first, second = map(has_long_decimal, nodes)
  if first != second:
    return True
  decimals = []
  for node in nodes:
    decimals += [part for part in walk(node) if part[0] == 'decimal']
  return bool(decimals) and all(abs(value) >= _FLOAT * half for _, value, half in decimals)


def _compare_at(nodes: Sequence[Node], point: Point, work: Work, *, is_rounded: bool) -> Finding:
  """Compares two functions at one point, at growing precision until it tells."""
  has_i = any(IMAGINARY in leaves(node) for node in nodes)
  for bits in PRECISIONS[:3]:
    values: list[Value | None] = []
    height = 0
    try:
      for node in nodes:
        evaluation = Evaluation(
          work,
          bits,
          values=point,
          is_complex=has_i,
          is_principal=has_i,
          is_rounded=is_rounded,
        )
        values.append(_value_or_none(evaluation, node))
        height = max(height, evaluation.height)
    except UndecidedError as error:
      if str(error) in ('work', 'magnitude'):  # which more bits do not help
        return Finding(None, f'beyond the bounds ({error})')
      continue
    if None in values:
      return Finding(None, 'undefined' if values == [None, None] else 'domain')
    u, v = values
    is_exact = isinstance(u, fmpq) and isinstance(v, fmpq)
    with precision(bits):
      # Balls of decimals have the width of their rounding at every precision.
      if is_rounded and not is_exact:
        return Finding(bool((u - v).contains(0)), 'rounding')
      is_equal = compare_values(u, v, height)
    if is_equal is not None:
      return Finding(is_equal, 'points')
  return Finding(None, 'beyond the bounds (precision)')


def _value_or_none(evaluation: Evaluation, node: Node) -> Value | None:
  """The value of a function at a point; None outside its domain."""
  try:
    return evaluation.value(node)
  except UndefinedError:
    return None
