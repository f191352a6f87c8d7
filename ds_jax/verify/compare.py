"""Decides by their values whether two expressions, or two relations between them, are the same.

Two functions that agree at a few points drawn at random agree everywhere, but for unlucky draws
(Schwartz 1980, for polynomials). That takes a fraction of a millisecond where algebra takes a
hundred. The answer is None, undecided, where values are beyond the bounds of `values`, and for
expressions of different domains (ln x^2 and 2 ln x).

A decimal of at least six significant digits stands for all numbers that it may be rounded from, so
that 3.14159 is pi; a shorter one stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from ds_jax.verify.expression import Node, UnreadableError
from ds_jax.verify.values import Point, UndefinedError, Value, draw, leaves, value, value_or_none

NUM_POINTS = 9  # drawn for expressions with symbols; some have no value there
MIN_AGREEING = 4  # points where both have values, and equal ones
_SAME, _DIFFERENT = 1e-80, 1e-30  # relative differences below and above; undecided in between
_ROUNDING_SLACK = 1.001
_NUM_ROOTS = 2
_MAX_STEPS = 40  # of the search for a root
_CONVERGED = 1e-25  # last relative step; values below 1 / LIMIT cannot be computed
_MAX_ROOT = 1e6


def same_value(gold: Node, answer: Node) -> bool | None:
  """Whether two expressions agree as functions of their symbols; None: undecided."""
  try:
    drawn = list(points(gold, answer))
  except UnreadableError:
    return None
  is_constant_pair = len(drawn) == 1
  num_agreeing = num_undecided = 0
  for point in drawn:
    try:
      gold_value, answer_value = value_or_none(gold, point), value_or_none(answer, point)
      if gold_value is None and answer_value is None:
        continue
      if gold_value is None or answer_value is None:
        is_same = None  # here their domains differ
      else:
        is_same = _agree((gold, answer), (gold_value, answer_value), point)
    except UnreadableError:  # too large here
      continue
    # One point refutes. Complex values of symbols may differ by the branch of a root only.
    if is_same is False and (is_constant_pair or not (gold_value.imag or answer_value.imag)):
      return False
    if is_same:
      num_agreeing += 1
    else:
      num_undecided += 1
    if num_agreeing == MIN_AGREEING:
      break
  is_decided = not num_undecided and num_agreeing >= min(MIN_AGREEING, len(drawn))
  return True if is_decided else None


def _agree(nodes: tuple[Node, Node], values: tuple[Value, Value], point: Point) -> bool | None:
  """Whether two values are equal up to errors of computing, or to the rounding of decimals."""
  difference = relative_difference(*values)
  if difference < _SAME:
    return True
  distance = abs(values[0] - values[1])
  if any(distance <= _rounding(node, point) * _ROUNDING_SLACK for node in nodes):
    return True
  return None if difference < _DIFFERENT else False


def _rounding(node: Node, point: Point) -> Value:
  """How far the value may be off because of rounded decimals; -1: not at all.

  Half the distance of the values where all decimals are half a unit lower and half a unit higher.
  """
  if not any(kind == 'decimal' for kind, _ in leaves(node)):
    return -1
  lowest = value_or_none(node, point._replace(rounding=-1))
  highest = value_or_none(node, point._replace(rounding=1))
  if lowest is None or highest is None:
    return -1
  return abs(highest - lowest) / 2


def relative_difference(u: Value, v: Value) -> float:
  """The difference of two values relative to the larger one."""
  size = max(abs(u), abs(v))
  return float(abs(u - v) / size) if size else 0.0


def is_constant(node: Node) -> bool:
  """Whether no symbol and no unknown function stands in a tree."""
  return all(kind in ('constant', 'decimal') for kind, _ in leaves(node))


def points(*nodes: Node) -> Iterator[Point]:
  """Points with values for the symbols of some trees; one where there is no symbol."""
  all_leaves = set().union(*map(leaves, nodes))
  names = _symbols(all_leaves)
  for i in range(NUM_POINTS if names else 1):
    yield draw(names, i, is_complex=('constant', 'i') in all_leaves)


def _symbols(kinds_and_names: set[tuple[str, str]]) -> list[str]:
  return sorted(name for kind, name in kinds_and_names if kind == 'symbol')


def constant_ratio(gold: Node, answer: Node) -> Value | None:
  """The number c with answer = c * gold everywhere, if there is one and it is not 0."""
  ratios = []
  try:
    for point in points(gold, answer):
      answer_value, gold_value = value_or_none(answer, point), value_or_none(gold, point)
      if answer_value and gold_value:
        ratios.append(answer_value / gold_value)
        if relative_difference(ratios[0], ratios[-1]) > _SAME:
          return None
  except UnreadableError:
    return None
  return ratios[0] if len(ratios) >= MIN_AGREEING else None


def has_other_roots(first: Node, second: Node) -> bool:
  """Whether a real root of one expression turns up that is none of the other.

  False says nothing: the expressions may have the same roots, or none turned up, or they are not
  comparable, because their symbols differ or a function in them is unknown.
  """
  first_leaves, second_leaves = leaves(first), leaves(second)
  names = _symbols(first_leaves)
  has_unknown = any(kind == 'unknown' for kind, _ in first_leaves | second_leaves)
  if has_unknown or names != _symbols(second_leaves):
    return False
  return _has_root_beside(first, second, names) or _has_root_beside(second, first, names)


def _has_root_beside(node: Node, other: Node, names: list[str]) -> bool:
  """Whether a root of `node` turns up that is none of `other`."""
  return any(_is_no_root(other, root) for root in _roots(node, names))


def _is_no_root(node: Node, point: Point) -> bool:
  """Whether the value is certainly not 0."""
  try:
    return abs(value_or_none(node, point) or 0) > _DIFFERENT
  except UnreadableError:
    return False


def _roots(node: Node, names: list[str]) -> Iterator[Point]:
  """A few real roots, each along one symbol, with the others fixed at a drawn point."""
  num_roots = 0
  for name in names:
    for i in range(_NUM_ROOTS):
      root = _root_along(node, draw(names, i, is_complex=False), name)
      if root is not None:
        num_roots += 1
        yield root
      if num_roots == _NUM_ROOTS:
        return


def _root_along(node: Node, point: Point, name: str) -> Point | None:
  """A root by the secant method from `point`, changing the value of `name` only.

  The line through (x, f(x)) and (y, f(y)) meets 0 at y - f(y) (y - x) / (f(y) - f(x)).
  """
  try:
    x, fx = point.values[name], value(node, point)
    y = x * 1.1  # the method needs two points to start from
    for _ in range(_MAX_STEPS):
      moved = point._replace(values={**point.values, name: y})
      # The method converges faster than linearly: the root is far closer than the last step.
      if abs(y - x) < _CONVERGED * abs(y):
        return moved
      fy = value(node, moved)
      if not fy:  # exactly a root
        return moved
      x, y, fx = y, y - fy * (y - x) / (fy - fx), fy
      if abs(y) > _MAX_ROOT:
        return None
  except (UnreadableError, ArithmeticError, UndefinedError):
    return None
  return None
