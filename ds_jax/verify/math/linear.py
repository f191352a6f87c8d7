"""Relations between two expressions as left side minus right side, and multiples of those."""

from __future__ import annotations

from ds_jax.verify.math import equality, expressions, units
from ds_jax.verify.math.expressions import INFINITY, Node
from ds_jax.verify.math.judge import Judge
from ds_jax.verify.math.structures import Quantity, Relation

_NUM_POINTS = 3


def difference(relation: Relation) -> Node | None:
  """Left minus right of a relation between two plain expressions; None of another one."""
  sides = relation.sides
  if len(sides) != 2 or not all(isinstance(side, Quantity) for side in sides):
    return None
  if any(side.unit != units.NONE or INFINITY in expressions.leaves(side.node) for side in sides):
    return None
  return expressions.subtract(sides[0].node, sides[1].node)


def ratio_sign(first: Node, second: Node, judge: Judge) -> int:
  """The sign of the constant c with second = c first; 0: there is none, or it is not shown."""
  names = expressions.symbols(first, second)
  for index in range(_NUM_POINTS if names else 0):
    point = equality.draw(names, index, frozenset())
    at_point = {('symbol', name): ('number', value) for name, value in point.items()}
    values = [expressions.replace(node, at_point.get) for node in (first, second)]
    if any(map(judge.is_zero, values)):
      continue
    # first(x) / first(p) = second(x) / second(p), for all x.
    scaled = ('*', first, values[1]), ('*', second, values[0])
    if not judge.same_expression(*scaled).is_equal:
      return 0
    ratio = ('/', *values)
    return 1 if judge.same_expression(('call', 'abs', ratio), ratio).is_equal else -1
  return 0
