r"""Where a function of one number has kinks or jumps, and where it is zero.

Between kinks a function is analytic, so that points on both sides of each kink, and between any two
of them, tell its pieces apart. A kink lies where an inner expression is zero: |x - 3| at the zero
of x - 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flint import arb, fmpq

from ds_jax.verify.math import expressions
from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, Work
from ds_jax.verify.math.enclosures import PRECISIONS
from ds_jax.verify.math.expressions import Node, subtract, walk
from ds_jax.verify.math.values import Evaluation

Point = Mapping[str, Value]
Function = Callable[[fmpq], Value | None]  # None where it has no value

_STEPPED = frozenset(('floor', 'ceil', 'round', 'mod'))
_BROKEN_AT_ZERO = frozenset(('abs', 'sgn', 'ln', 'atan2'))
_STEPS = (fmpq(0), fmpq(1), fmpq(-3))  # the jumps of a rounding that are looked at
_MAX_SHIFT = 5000  # bits
_MAX_HALVINGS = 200
# Numbers of all sizes, none of them special, between which changes of sign are looked for.
_POSITIVE_GRID = (
  '1/1000003 1/97 1/9 4/11 5/7 13/11 16/9 23/9 17/5 51/11 31/5 83/9 41/3 23 67/2 113/2 95 230 711 '
  '5003 100003 10000019'
).split()
_POSITIVE = [fmpq(*map(int, number.split('/'))) for number in _POSITIVE_GRID]
_GRID = sorted([fmpq(0), *_POSITIVE, *(-x for x in _POSITIVE)])
_LINE_AT = [fmpq(x) for x in (0, 1, 3, -1_000_003, 100_000_007)]  # a line is seen at


class Kink(NamedTuple):
  """An inner expression that breaks a function at its zeros, or at all its integers."""

  inner: Node
  is_stepped: bool


def find_kinks(node: Node) -> list[Kink]:
  """The inner expressions at whose zeros or integers a function may have kinks or jumps."""
  kinks: list[Kink] = []
  for part in walk(node):
    if part[0] == 'call':
      kinks += _kinks_of_call(*part[1:])
    elif part[0] == '^' and not expressions.is_integer(part[2]):
      kinks.append(Kink(part[1], is_stepped=False))
  return [kink for kink in kinks if expressions.symbols(kink.inner)]


def _kinks_of_call(name: str, *operands: Node) -> list[Kink]:
  if name in _STEPPED:
    return [Kink(operands[0], is_stepped=True)]
  if name in _BROKEN_AT_ZERO or name.startswith('arc'):
    return [Kink(operand, is_stepped=False) for operand in operands]
  if name in ('max', 'min'):
    differences = [subtract(operands[0], other) for other in operands[1:]]
    return [Kink(difference, is_stepped=False) for difference in differences]
  return []


def around_kinks(kinks: Sequence[Kink], name: str, base: Point, work: Work) -> list[fmpq]:
  """Coordinates close to each kink on both sides, and between and beyond the kinks.

  Args:
    kinks: of the functions that are compared.
    name: the symbol whose coordinate it is.
    base: values of the other symbols.
    work: the budget.
  """
  roots: set[fmpq] = set()
  for inner, is_stepped in kinks:
    for target in _STEPS if is_stepped else _STEPS[:1]:
      shifted = subtract(inner, ('number', target))
      for root in find_roots(shifted, name, base, work):
        roots.add(middle(root))
  return between(sorted(roots))


def between(roots: Sequence[fmpq]) -> list[fmpq]:
  """For each of some sorted numbers a neighbour on each side, and numbers between and beyond."""
  if not roots:
    return []
  # Beyond the first and the last.
  points = [roots[0] - 1 - abs(roots[0]) / 3, roots[-1] + 1 + abs(roots[-1]) / 3]
  # Between two neighbours, off the middle.
  for left, right in zip(roots, roots[1:], strict=False):
    points.append(left + (right - left) * fmpq(5, 11))
  # Close to each, on both sides.
  for root in roots:
    step = (1 + abs(root)) / 2**40
    points += [root - step, root + step]
  return points


def middle(x: Value) -> fmpq:
  """A rational number in a real ball."""
  if isinstance(x, fmpq):
    return x
  mantissa, exponent = x.mid().man_exp()
  if abs(int(exponent)) > _MAX_SHIFT:
    raise UndecidedError('magnitude')
  return fmpq(mantissa) * fmpq(2) ** int(exponent)


# Zeros.


def find_roots(node: Node, name: str, base: Point, work: Work) -> list[Value]:
  """Finds real zeros of a function of one symbol, not always all of them.

  Args:
    node: the function.
    name: the symbol.
    base: values of the other symbols.
    work: the budget.

  Returns:
    The zero of a line, exactly; else balls around changes of sign between the numbers of a grid.
  """
  if name not in expressions.symbols(node):
    return []

  def function(x: fmpq) -> Value | None:
    try:
      return Evaluation(work, PRECISIONS[0], values={**base, name: x}).value(node)
    except UndefinedError:
      return None
    except UndecidedError as error:
      if str(error) == 'work':
        raise
      return None

  linear = _linear_root(function)
  if linear is not None:
    return [linear]
  roots = []
  at_grid = [(x, function(x)) for x in _GRID]
  for (x, fx), (y, fy) in zip(at_grid, at_grid[1:], strict=False):
    if fx is None or fy is None:
      continue
    if bool(fx < 0) != bool(fy < 0):
      roots.append(_bisect(function, x, y, is_negative_below=bool(fx < 0)))
  return roots


def _linear_root(function: Function) -> fmpq | None:
  """The zero of a function that is linear with rational coefficients."""
  values = [function(x) for x in _LINE_AT]
  if not all(isinstance(y, fmpq) for y in values):
    return None
  # f(x) = f(0) + x (f(1) - f(0)), as far points confirm: no kink turns the line on the way.
  start = values[0]
  slope = values[1] - start
  if not slope:
    return None
  for x, y in zip(_LINE_AT, values, strict=True):
    if y != start + x * slope:
      return None
  return -start / slope


def _bisect(function: Function, low: fmpq, high: fmpq, *, is_negative_below: bool) -> Value:
  """Halves an interval with a change of sign until it is narrow for its place."""
  for _ in range(_MAX_HALVINGS):
    center = (low + high) / 2
    if high - low < abs(center) / 2**64:
      break
    value = function(center)
    if value is None:
      break
    if value == 0:
      return center
    # The sign changes in the half whose ends have different signs.
    if bool(value < 0) == is_negative_below:
      low = center
    else:
      high = center
  return arb(arb((low + high) / 2), arb(high - low))
