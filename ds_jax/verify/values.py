"""Evaluates expressions at points, with enough digits to tell any two written numbers apart.

Numbers have DIGITS digits and lie between 1/LIMIT and LIMIT, so that adding 1 to the largest of
them changes its value (10^39 and 10^39 + 1 differ). Symbols have real values. Every step of the
evaluation must be real too, unless the constant `i` is in the expression; odd roots of negative
numbers are the real ones.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from ds_jax.verify.expression import Node, UnreadableError

DIGITS = 100
LIMIT = 1e40
_NOISE = 1e-85  # below are rounding errors: products of two allowed numbers are above
_LOST = 1e-90  # relative to the largest term: a sum below is 0
_MAX_EXPONENT = 90.0  # e^90 < LIMIT
_MAX_GAMMA = 40.0
_MAX_NODES = 400
_SIZES = (1, 0.5, 3)  # of the values at points, in turn

Value = Any  # mpf or mpc of `_context`


class UndefinedError(Exception):
  """The expression has no value at this point (a division by zero, the logarithm of zero)."""


class Point(NamedTuple):
  """Where expressions are evaluated."""

  values: Mapping[str, Value]
  is_complex: bool  # else what is not real has no value
  rounding: int = 0  # -1, 1: long decimals are half a unit of their last digit lower, higher


def leaves(node: Node) -> set[tuple[str, str]]:
  """Kind and name of all symbols, constants, unknown functions and decimals in a tree.

  Raises:
    UnreadableError: the tree is too large.
  """
  kinds_and_names: set[tuple[str, str]] = set()
  stack, num_nodes = [node], 0
  while stack:
    kind, *operands = stack.pop()
    num_nodes += 1
    if kind in ('symbol', 'constant', 'unknown', 'decimal'):
      kinds_and_names.add((kind, str(operands[0])))
    stack += [operand for operand in operands if isinstance(operand, tuple)]
  if num_nodes > _MAX_NODES:
    raise UnreadableError('size')
  return kinds_and_names


def draw(names: list[str], number: int, is_complex: bool) -> Point:
  """Draws point `number`, in which a name always has the same value.

  Points come in three sizes, since powers grow. In every other one all values are positive, where
  roots and logarithms are real.
  """
  values = {}
  for name in names:
    rng = random.Random(f'{name} {number}')
    sign = rng.choice((-1, 1)) if number % 2 else 1
    size = _SIZES[number % len(_SIZES)] * rng.uniform(0.2, 1.0)
    values[name] = _context().mpf(sign * size)
  return Point(values, is_complex)


def value_or_none(node: Node, point: Point) -> Value | None:
  """The value at a point; None if there is none."""
  try:
    return value(node, point)
  except UndefinedError:
    return None


def value(node: Node, point: Point) -> Value:
  """The value of an expression at a point.

  Raises:
    UndefinedError: there is none.
    UnreadableError: a number on the way is too large or too small.
  """
  kind, *operands = node
  mp = _context()
  # Leaves have a value by themselves.
  if kind == 'number':
    return _bounded(mp.mpf(operands[0].numerator) / operands[0].denominator)
  if kind == 'decimal':
    x = operands[0] + point.rounding * operands[1]
    return _bounded(mp.mpf(x.numerator) / x.denominator)
  if kind == 'constant':
    return {'pi': +mp.pi, 'e': +mp.e, 'i': mp.mpc(0, 1)}[operands[0]]
  if kind == 'symbol':
    return point.values[operands[0]]
  # Other nodes have one by the values of their operands.
  arguments = [value(operand, point) for operand in operands if isinstance(operand, tuple)]
  if kind == 'unknown':
    # Equal arguments get the same number; nothing else is known of the function.
    rng = random.Random(f'{operands[0]} {mp.nstr(arguments[0], 40)}')
    return mp.mpf(rng.uniform(0.3, 3.0))
  if kind == 'call':
    result = _bounded(_call(operands[0], arguments))
  elif kind == '^' and not point.is_complex and arguments[0] < 0 and _is_odd_root(operands[1]):
    result = _bounded(_real_power(*arguments, operands[1]))
  else:
    result = _bounded(_combine(kind, arguments))
  if result.imag and not point.is_complex:
    raise UndefinedError
  return result


def _bounded(x: Value) -> Value:
  """Returns `x` with rounding errors removed: a tiny value is 0, a tiny imaginary part too.

  Raises:
    UnreadableError: `x` is too large or too small to be computed with.
  """
  size = abs(x)
  if size < _NOISE:
    return x * 0
  if not 1 / LIMIT < size < LIMIT:
    raise UnreadableError('magnitude')
  if x.imag and abs(x.imag) < _LOST * size:
    return x.real
  return x


def _combine(kind: str, operands: list[Value]) -> Value:
  """The value of a node with an operator, from the values of its operands."""
  if kind == '+':
    total = sum(operands)
    # What is left of terms that cancel is their rounding error.
    is_noise = abs(total) < _LOST * max(map(abs, operands))
    return total * 0 if is_noise else total
  if kind == '*':
    return operands[0] * operands[1]
  if kind == '-':
    return -operands[0]
  if kind == '/':
    if not operands[1]:
      raise UndefinedError
    return operands[0] / operands[1]
  if kind == '^':
    return _power(*operands)
  return _gamma(operands[0] + 1)  # n! = Gamma(n + 1)


def _is_odd_root(exponent: Node) -> bool:
  """Whether an exponent is written as a fraction p/q in lowest terms with odd q."""
  if exponent[0] != '/' or exponent[1][0] != 'number' or exponent[2][0] != 'number':
    return False
  p, q = exponent[1][1], exponent[2][1]
  are_integers = p.denominator == q.denominator == 1
  return are_integers and q % 2 == 1 and math.gcd(int(p), int(q)) == 1


def _real_power(base: Value, exponent: Value, fraction: Node) -> Value:
  """A negative base to the power p/q with odd q: (-8)^{1/3} = -2, (-8)^{2/3} = 4.

  Its absolute value is that of the positive base; it is negative where p is odd.
  """
  is_odd = fraction[1][1] % 2
  return (-1 if is_odd else 1) * _power(-base, exponent)


def _power(base: Value, exponent: Value) -> Value:
  """The principal value of a power."""
  mp = _context()
  if not base:  # 0^x is 0 for x > 0 and undefined else
    if exponent.imag or exponent.real <= 0:
      raise UndefinedError
    return base
  # |b^x| = e^(x ln |b|) for real x.
  if float(abs(exponent)) * abs(math.log(float(abs(base)))) > _MAX_EXPONENT:
    raise UnreadableError('power')
  return mp.sqrt(base) if exponent == 0.5 else mp.power(base, exponent)


def _gamma(x: Value) -> Value:
  """The gamma function, which has poles at 0, -1, -2, …"""
  if abs(x) > _MAX_GAMMA:
    raise UnreadableError('factorial')
  is_pole = not x.imag and x.real <= 0 and x.real == round(float(x.real))
  if is_pole:
    raise UndefinedError
  return _context().gamma(x)


def _call(function: str, arguments: list[Value]) -> Value:
  """The value of a function of `expression.FUNCTIONS`."""
  mp = _context()
  if function in ('floor', 'ceil', 'round', 'atan2', 'binom'):
    return _real_call(function, arguments)
  (x,) = arguments
  if function in ('ln', 'log'):
    if not x:
      raise UndefinedError
    return mp.log(x)
  if function == 'cbrt':
    return _power(x, mp.mpf(1) / 3)
  if function == 'sqrt':
    return mp.sqrt(x)
  if abs(x) > _MAX_EXPONENT:
    raise UnreadableError('argument')
  # Other functions have the names of mpmath: asin for arcsin.
  name = 'fabs' if function == 'abs' else function.replace('arc', 'a')
  try:
    return getattr(mp, name)(x)
  except (ZeroDivisionError, ValueError):
    raise UndefinedError from None


def _real_call(function: str, arguments: list[Value]) -> Value:
  """The value of a function that is defined for real arguments only."""
  mp = _context()
  if any(argument.imag for argument in arguments):
    raise UndefinedError
  if function == 'binom':  # n! / (k! (n - k)!)
    n, k = arguments
    return _gamma(n + 1) / _gamma(k + 1) / _gamma(n - k + 1)
  if function == 'atan2':
    return mp.atan2(*arguments)
  (x,) = arguments
  nearest = mp.nint(x)
  if abs(x - nearest) < _NOISE:  # an integer but for rounding
    return nearest
  if function == 'round' and abs(abs(x - mp.floor(x)) - 0.5) < _NOISE:
    raise UnreadableError('rounding of a half')
  return {'floor': mp.floor, 'ceil': mp.ceil, 'round': mp.nint}[function](x)


@functools.cache
def _context() -> Any:
  """Arithmetic of its own: the precision of mpmath's global one belongs to sympy."""
  import mpmath

  context = mpmath.mp.clone()
  context.dps = DIGITS
  return context
