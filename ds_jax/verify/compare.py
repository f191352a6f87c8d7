"""Whether two expressions, or two relations between expressions, are the same: by their values.

Two functions that agree at a few points drawn at random agree everywhere, but for unlucky draws
(Schwartz 1980, for polynomials). That takes a fraction of a millisecond where algebra takes a
hundred. Undecided are, and therefore None: values beyond the bounds of `values`, and expressions of
different domains (ln x^2 and 2 ln x).

A decimal of at least six significant digits stands for all that it may be rounded from, so that
3.14159 is pi; a shorter one for itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from ds_jax.verify.expression import Node, UnreadableError
from ds_jax.verify.values import Point, UndefinedError, Value, draw, leaves, value, value_or_none

NUM_POINTS = 9
ENOUGH = 4  # of them, where both have values
_SAME, _DIFFERENT = 1e-80, 1e-30  # relative differences
_SLACK = 1.001  # of a rounding
_NUM_ROOTS = 2
_MAX_STEPS = 40
_CONVERGED = 1e-25  # values below 1 / LIMIT cannot be computed
_FAR = 1e6


def same_value(gold: Node, answer: Node) -> bool | None:
  """Whether two expressions agree as functions of their symbols; None: undecided."""
  num_agreeing = num_open = 0
  try:
    drawn = list(points(gold, answer))
  except UnreadableError:
    return None
  for point in drawn:
    try:
      u, v = value_or_none(gold, point), value_or_none(answer, point)
      if u is None and v is None:
        continue
      is_same = None if u is None or v is None else _agree(u, v, (gold, answer), point)
    except UnreadableError:  # too large here
      continue
    if is_same is False and (len(drawn) == 1 or not (u.imag or v.imag)):
      return False  # with letters, complex values may differ by the branch of a root only
    num_agreeing += is_same is True
    num_open += is_same is not True
    if num_agreeing == ENOUGH:
      break
  return True if num_agreeing >= min(ENOUGH, len(drawn)) and not num_open else None


def _agree(u: Value, v: Value, nodes: tuple[Node, Node], point: Point) -> bool | None:
  difference = relative_difference(u, v)
  if difference < _SAME:
    return True
  if any(_rounding(node, point) * _SLACK >= abs(u - v) for node in nodes):
    return True
  return None if difference < _DIFFERENT else False


def _rounding(node: Node, point: Point) -> Value:
  """How far the value may be off because of rounded decimals; -1: not at all."""
  if not any(kind == 'decimal' for kind, _ in leaves(node)):
    return -1
  ends = [value_or_none(node, point._replace(rounding=way)) for way in (-1, 1)]
  return -1 if None in ends else abs(ends[1] - ends[0]) / 2


def relative_difference(u: Value, v: Value) -> float:
  """In terms of the larger one."""
  size = max(abs(u), abs(v))
  return float(abs(u - v) / size) if size else 0.0


def is_constant(node: Node) -> bool:
  """Whether no symbol and no unknown function stands in a tree."""
  return all(kind in ('constant', 'decimal') for kind, _ in leaves(node))


def points(*nodes: Node) -> Iterator[Point]:
  """Points with values for the symbols of some trees; one where there is no symbol."""
  found = set().union(*map(leaves, nodes))
  names = sorted(name for kind, name in found if kind == 'symbol')
  for i in range(NUM_POINTS if names else 1):
    yield draw(names, i, ('constant', 'i') in found)


def constant_ratio(gold: Node, answer: Node) -> Value | None:
  """The number c with answer = c gold everywhere, if there is one and it is not 0."""
  ratios = []
  try:
    for point in points(gold, answer):
      top, bottom = value_or_none(answer, point), value_or_none(gold, point)
      if top and bottom:
        ratios.append(top / bottom)
        if relative_difference(ratios[0], ratios[-1]) > _SAME:
          return None
  except UnreadableError:
    return None
  return ratios[0] if len(ratios) >= ENOUGH else None


def has_other_roots(first: Node, second: Node) -> bool:
  """Whether a real root of one expression is found that is none of the other.

  False says nothing: they may have the same roots, or none was found. Asked of expressions with the
  same symbols only, and without unknown functions.
  """
  symbols = [leaves(node) for node in (first, second)]
  names = [sorted(name for kind, name in found if kind == 'symbol') for found in symbols]
  if names[0] != names[1] or any(kind == 'unknown' for found in symbols for kind, _ in found):
    return False
  return any(
    _is_no_root(other, root)
    for node, other in ((first, second), (second, first))
    for root in _roots(node, names[0])
  )


def _is_no_root(node: Node, point: Point) -> bool:
  try:
    return abs(value_or_none(node, point) or 0) > _DIFFERENT
  except UnreadableError:
    return False


def _roots(node: Node, names: list[str]) -> Iterator[Point]:
  """A few real roots, each along one symbol."""
  num_found = 0
  for name in names:
    for i in range(_NUM_ROOTS):
      point = draw(names, i, is_complex=False)
      root = _root_along(node, point, name)
      if root is not None:
        num_found += 1
        yield root
      if num_found == _NUM_ROOTS:
        return


def _root_along(node: Node, point: Point, name: str) -> Point | None:
  """The secant method from `point`, which moves `name` only."""
  try:
    x, fx = point.values[name], value(node, point)
    next_x = x * 1.1
    for _ in range(_MAX_STEPS):
      moved = point._replace(values={**point.values, name: next_x})
      if abs(next_x - x) < _CONVERGED * abs(next_x):  # and far closer to the root: superlinear
        return moved
      next_fx = value(node, moved)
      if not next_fx:
        return moved
      x, next_x, fx = next_x, next_x - next_fx * (next_x - x) / (next_fx - fx), next_fx
      if abs(next_x) > _FAR:
        return None
  except (UnreadableError, ArithmeticError, UndefinedError):
    return None
  return None
