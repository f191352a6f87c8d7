"""Whether two expressions have the same value everywhere, by their values at random points.

Two functions that agree at a few points drawn at random agree everywhere, but for unlucky draws
(Schwartz 1980, for polynomials); that takes a fraction of a millisecond where algebra takes a
hundred. Computed with DIGITS digits, numbers between 1/LIMIT and LIMIT only, so that what is added
to such a number and must not get lost (2^100 and 2^100 + 1) is seen. Undecided are, and therefore
None: values beyond that, decimals that nearly agree (is it rounding?), and expressions of different
domains (ln x^2 and 2 ln x). Letters are real, and so is every step unless `i` is written; odd roots
of negative numbers are the real ones.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ds_jax.verify.expression import Node, UnreadableError

DIGITS = 100
LIMIT = 1e40
NUM_POINTS = 9
ENOUGH = 4  # of them, where both have values
_NOISE = 1e-85  # below are rounding errors: products of two allowed numbers are above
_LOST = 1e-90  # of the largest term: a sum below is 0
_SAME, _DIFFERENT = 1e-80, 1e-30  # relative differences
_NEAR = 1e-3  # of decimals: perhaps rounded
_ROUNDED = 1e-9  # of long decimals: certainly rounded
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


def same_value(gold: Node, answer: Node, decimals: int = 0) -> bool | None:
  """Whether two expressions agree as functions of their symbols; None: undecided.

  Args:
    gold: tree of `expression.read`.
    answer: likewise.
    decimals: the most digits behind a decimal point that either text has.
  """
  num_agreeing = num_open = 0
  try:
    drawn = list(points(gold, answer))
  except UnreadableError:
    return None
  for point in drawn:
    try:
      u, v = value_or_none(gold, point), value_or_none(answer, point)
    except UnreadableError:  # too large here
      continue
    if u is None and v is None:
      continue
    is_same = None if u is None or v is None else _agree(u, v, decimals)
    if is_same is False and (len(drawn) == 1 or not (u.imag or v.imag)):
      return False  # with letters, complex values may differ by the branch of a root only
    num_agreeing += is_same is True
    num_open += is_same is not True
    if num_agreeing == ENOUGH:
      break
  return True if num_agreeing >= min(ENOUGH, len(drawn)) and not num_open else None


def constant_ratio(gold: Node, answer: Node) -> Value | None:
  """The number c with answer = c gold everywhere, if there is one and it is not 0."""
  ratios = []
  try:
    for point in points(gold, answer):
      top, bottom = value_or_none(answer, point), value_or_none(gold, point)
      if top and bottom:
        ratios.append(top / bottom)
  except UnreadableError:
    return None
  is_constant = len(ratios) >= ENOUGH and all(_difference(ratios[0], r) < _SAME for r in ratios)
  return ratios[0] if is_constant else None


def _agree(u: Value, v: Value, decimals: int) -> bool | None:
  difference = _difference(u, v)
  if difference < _SAME or (decimals >= 10 and difference < _ROUNDED):
    return True
  return None if difference < (_NEAR if decimals else _DIFFERENT) else False


def _difference(u: Value, v: Value) -> float:
  size = max(abs(u), abs(v))
  return float(abs(u - v) / size) if size else 0.0


def is_constant(node: Node) -> bool:
  """Whether no symbol stands in a tree."""
  return all(kind == 'constant' for kind, _ in _leaves(node))


def points(*nodes: Node) -> Iterator[Point]:
  """Values for the symbols of some trees, the same ones for each name always.

  One point where there is no symbol. They come in three sizes, since powers grow, and every other
  one is positive, where roots and logarithms are real.
  """
  leaves = set().union(*map(_leaves, nodes))
  names = sorted(name for kind, name in leaves if kind == 'symbol')
  is_complex = ('constant', 'i') in leaves
  for i in range(NUM_POINTS if names else 1):
    drawn = {}
    for name in names:
      rng = random.Random(f'{name} {i}')
      sign = rng.choice((-1, 1)) if i % 2 else 1
      drawn[name] = _context().mpf(sign * rng.uniform(0.2, 1.0) * (1, 0.5, 3)[i % 3])
    yield Point(drawn, is_complex)


def _leaves(node: Node) -> set[tuple[str, str]]:
  """Kind and name of the symbols and constants in a tree.

  Raises:
    UnreadableError: the tree is too large.
  """
  found, stack, num_nodes = set(), [node], 0
  while stack:
    node = stack.pop()
    num_nodes += 1
    if node[0] in ('symbol', 'constant'):
      found.add(node)
    stack += [part for part in node[1:] if isinstance(part, tuple)]
  if num_nodes > _MAX_NODES:
    raise UnreadableError('size')
  return found


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
  return (exponent[0] == '/' and exponent[1][0] == exponent[2][0] == 'number'
          and exponent[1][1].denominator == exponent[2][1].denominator == 1
          and exponent[2][1] % 2 == 1 and math.gcd(*(int(x[1]) for x in exponent[1:])) == 1)


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
