"""The values of expressions at points, with so many digits that nothing written gets lost.

Computed with DIGITS digits, and with numbers between 1/LIMIT and LIMIT only, so that what is added
to such a number is seen (10^39 and 10^39 + 1). Letters are real, and so is every step unless `i` is
written; odd roots of negative numbers are the real ones.
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
_LOST = 1e-90  # of the largest term: a sum below is 0
_MAX_EXPONENT = 90.0  # e^90 < LIMIT
_MAX_GAMMA = 40.0
_MAX_NODES = 400

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
  found, stack, num_nodes = set(), [node], 0
  while stack:
    node = stack.pop()
    num_nodes += 1
    if node[0] in ('symbol', 'constant', 'unknown', 'decimal'):
      found.add((node[0], str(node[1])))
    stack += [part for part in node[1:] if isinstance(part, tuple)]
  if num_nodes > _MAX_NODES:
    raise UnreadableError('size')
  return found


def draw(names: list[str], number: int, is_complex: bool) -> Point:
  """Point `number`: a name's value there is always the same one.

  They come in three sizes, since powers grow, and every other one is positive, where roots and
  logarithms are real.
  """
  drawn = {}
  for name in names:
    rng = random.Random(f'{name} {number}')
    sign = rng.choice((-1, 1)) if number % 2 else 1
    size = (1, 0.5, 3)[number % 3] * rng.uniform(0.2, 1.0)
    drawn[name] = _context().mpf(sign * size)
  return Point(drawn, is_complex)


def value_or_none(node: Node, point: Point) -> Value | None:
  try:
    return value(node, point)
  except UndefinedError:
    return None


def value(node: Node, point: Point) -> Value:
  """The value at a point.

  Raises:
    UndefinedError: there is none.
    UnreadableError: a number on the way is too large or too small.
  """
  kind, *operands = node
  mp = _context()
  if kind == 'number':
    return _bounded(mp.mpf(operands[0].numerator) / operands[0].denominator)
  if kind == 'decimal':
    x = operands[0] + point.rounding * operands[1]
    return _bounded(mp.mpf(x.numerator) / x.denominator)
  if kind == 'constant':
    return {'pi': +mp.pi, 'e': +mp.e, 'i': mp.mpc(0, 1)}[operands[0]]
  if kind == 'symbol':
    return point.values[operands[0]]
  arguments = [value(x, point) for x in operands if isinstance(x, tuple)]
  if kind == 'unknown':
    # Equal arguments get the same number; nothing else is known of the function.
    rng = random.Random(f'{operands[0]} {mp.nstr(arguments[0], 40)}')
    return mp.mpf(rng.uniform(0.3, 3.0))
  if kind == '^' and not point.is_complex and arguments[0] < 0 and _is_odd_root(operands[1]):
    sign = -1 if operands[1][1][1] % 2 else 1  # the real root: (-8)^{2/3} = 4
    x = _bounded(sign * _power(-arguments[0], arguments[1]))
  else:
    x = _bounded(_call(operands[0], arguments) if kind == 'call' else _combine(kind, arguments))
  if x.imag and not point.is_complex:
    raise UndefinedError
  return x


def _bounded(x: Value) -> Value:
  """`x`, with rounding errors removed."""
  size = abs(x)
  if size < _NOISE:
    return x * 0
  if not 1 / LIMIT < size < LIMIT:
    raise UnreadableError('magnitude')
  if x.imag and abs(x.imag) < _LOST * size:
    return x.real
  return x


def _combine(kind: str, x: list[Value]) -> Value:
  if kind == '+':
    total = sum(x)
    return total * 0 if abs(total) < _LOST * max(map(abs, x)) else total
  if kind == '*':
    return x[0] * x[1]
  if kind == '-':
    return -x[0]
  if kind == '/':
    if not x[1]:
      raise UndefinedError
    return x[0] / x[1]
  if kind == '^':
    return _power(*x)
  return _gamma(x[0] + 1)  # '!'


def _is_odd_root(exponent: Node) -> bool:
  """Whether an exponent is written as a fraction p/q with odd q."""
  return (
    exponent[0] == '/'
    and exponent[1][0] == exponent[2][0] == 'number'
    and exponent[1][1].denominator == exponent[2][1].denominator == 1
    and exponent[2][1] % 2 == 1
    and math.gcd(*(int(x[1]) for x in exponent[1:])) == 1
  )


def _power(base: Value, exponent: Value) -> Value:
  mp = _context()
  if not base:
    if exponent.imag or exponent.real <= 0:
      raise UndefinedError
    return base
  if float(abs(exponent)) * abs(math.log(float(abs(base)))) > _MAX_EXPONENT:
    raise UnreadableError('power')
  return mp.sqrt(base) if exponent == 0.5 else mp.power(base, exponent)


def _gamma(x: Value) -> Value:
  if abs(x) > _MAX_GAMMA:
    raise UnreadableError('factorial')
  if not x.imag and x.real <= 0 and x.real == round(float(x.real)):
    raise UndefinedError
  return _context().gamma(x)


def _call(function: str, x: list[Value]) -> Value:
  mp = _context()
  if function in ('ln', 'log'):
    if not x[0]:
      raise UndefinedError
    return mp.log(x[0])
  if function == 'cbrt':
    return _power(x[0], mp.mpf(1) / 3)
  if function == 'sqrt':
    return mp.sqrt(x[0])
  if function in ('floor', 'ceil', 'round', 'atan2', 'binom'):
    return _real_call(function, x)
  if abs(x[0]) > _MAX_EXPONENT:
    raise UnreadableError('argument')
  try:
    return getattr(mp, {'abs': 'fabs'}.get(function, function.replace('arc', 'a')))(x[0])
  except (ZeroDivisionError, ValueError):
    raise UndefinedError from None


def _real_call(function: str, x: list[Value]) -> Value:
  mp = _context()
  if any(a.imag for a in x):
    raise UndefinedError
  if function == 'binom':
    return _gamma(x[0] + 1) / _gamma(x[1] + 1) / _gamma(x[0] - x[1] + 1)
  if function == 'atan2':
    return mp.atan2(*x)
  near = mp.nint(x[0])
  if abs(x[0] - near) < _NOISE:  # an integer but for rounding
    return near
  if function == 'round' and abs(abs(x[0] - mp.floor(x[0])) - 0.5) < _NOISE:
    raise UnreadableError('rounding of a half')
  return {'floor': mp.floor, 'ceil': mp.ceil, 'round': mp.nint}[function](x[0])


@functools.cache
def _context() -> Any:
  """Arithmetic of our own: the precision of mpmath's global one belongs to sympy."""
  import mpmath

  context = mpmath.mp.clone()
  context.dps = DIGITS
  return context
