"""Relations between two expressions as left side minus right side, and multiples of those."""

from __future__ import annotations

from ds_jax.verify.math import expressions, units
from ds_jax.verify.math.expressions import INFINITY, Node
from ds_jax.verify.math.judge import Judge
from ds_jax.verify.math.points import PointSource
from ds_jax.verify.math.structures import Answer, Quantity, Relation

_NUM_POINTS = 3  # at which a function may be zero before it is given up


def difference(relation: Relation) -> Node | None:
  """Left minus right of a relation between two plain expressions; None of another one."""
  if len(relation.sides) != 2:
    return None
  left, right = relation.sides
  if not _is_plain(left) or not _is_plain(right):
    return None
  return expressions.subtract(left.node, right.node)


def _is_plain(side: Answer) -> bool:
  """Whether a side is a finite expression without a unit."""
  if not isinstance(side, Quantity) or side.unit != units.NONE:
    return False
  return INFINITY not in expressions.leaves(side.node)


def ratio_sign(first: Node, second: Node, judge: Judge) -> int:
  """The sign of the constant c with second = c first; 0: there is none, or it is not shown."""
  source = PointSource((first, second))
  if not source.names:
    return 0
  for index in range(_NUM_POINTS):
    # Their values at a point p, where neither must be zero.
    at_point = {}
    for name, value in source.draw(index).items():
      at_point['symbol', name] = ('number', value)
    first_at_p = expressions.replace(first, at_point.get)
    second_at_p = expressions.replace(second, at_point.get)
    if judge.is_zero(first_at_p) or judge.is_zero(second_at_p):
      continue
    # first(x) / first(p) = second(x) / second(p), for all x, without the divisions.
    scaled_first = ('*', first, second_at_p)
    scaled_second = ('*', second, first_at_p)
    if not judge.same_expression(scaled_first, scaled_second).is_equal:
      return 0
    # c is positive if it is its own absolute value.
    ratio = ('/', first_at_p, second_at_p)
    is_positive = judge.same_expression(('call', 'abs', ratio), ratio).is_equal
    return 1 if is_positive else -1
  return 0
