"""Rules for functions with names: roundings, extremes, counting functions, elementary ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from flint import acb, arb, fmpq, fmpz

from ds_jax.verify.math.arithmetic import MAX_FACTORIAL, factorial_of
from ds_jax.verify.math.balls import (
  UndecidedError,
  UndefinedError,
  Value,
  ball,
  holds_zero,
  is_whole,
  log2,
)
from ds_jax.verify.math.evaluation import MAX_DEAR_BITS, Context
from ds_jax.verify.math.expressions import Node

_NO_SHIFT = fmpq(0)
_MAX_ARGUMENT_LOG = 10_000  # log2 of a ball that a function takes
_MAX_GROWING_LOG = 40  # … that one of _GROWING takes
_GROWING = frozenset(('exp', 'sinh', 'cosh', 'tanh'))
_MAX_ZETA_LOG = 7
_MAX_FALLING = 60  # factors of n (n - 1) …

# arb's names of the inverse functions, and of those that are inverses of 1/x.
_METHODS = {f'arc{name}': f'a{name}' for name in ('sin', 'cos', 'tan', 'sinh', 'cosh', 'tanh')}
_RECIPROCALS = {
  'arccot': 'atan',
  'arcsec': 'acos',
  'arccsc': 'asin',
  'arccoth': 'atanh',
  'arcsech': 'acosh',
  'arccsch': 'asinh',
}


def call(context: Context, name: str, *operands: Node) -> Value:
  """The value of a function that is known."""
  context.work.spend(3 * context.cost)
  arguments = [context.inner(operand) for operand in operands]
  function = _FUNCTIONS.get(name)
  if function is not None:
    return function(context, *arguments)
  return _elementary(context, name, arguments[0])


def unknown(context: Context, name: str, *operands: Node) -> Value:
  """The value of a function that nobody knows: a number that hangs on its arguments only."""
  seed = name
  for operand in operands:
    x = context.inner(operand)
    text = str(x) if isinstance(x, fmpq) else x.str(20, radius=False)
    seed = f'{seed};{text}'
  digest = hashlib.blake2b(ascii(seed).encode(), digest_size=6).digest()
  return fmpq(1, 3) + fmpq(int.from_bytes(digest, 'big'), 1 << 47)


def _elementary(context: Context, name: str, argument: Value) -> Value:
  """A function that arb has, at a real number if it is real there."""
  x = ball(argument)
  if log2(x) > _MAX_ARGUMENT_LOG and not isinstance(argument, fmpq):
    raise UndecidedError('magnitude')
  if name in _GROWING and log2(x) > _MAX_GROWING_LOG:
    raise UndecidedError('magnitude')
  value = _apply(name, x)
  # Outside the real domain: arcsin 2 is a complex number.
  if not value.is_finite() and isinstance(x, arb) and context.is_complex:
    value = _apply(name, acb(x))
  if not value.is_finite():
    # A real function is nowhere near its pole or the end of its domain, or just there.
    if not x.is_finite() or x.rad() < 1e-9:
      raise UndefinedError
    raise UndecidedError(name)
  return value


def _apply(name: str, x: Value) -> Value:
  if name in _RECIPROCALS:  # arccot x = arctan 1/x
    return getattr(1 / x, _RECIPROCALS[name])()
  return getattr(x, _METHODS.get(name, name))()


def _logarithm(context: Context, x: Value) -> Value:
  if holds_zero(x):
    if isinstance(x, fmpq):
      raise UndefinedError
    raise UndecidedError('ln 0')
  # ln x = ln |x| + i pi for a negative x.
  enclosure = ball(x)
  if isinstance(enclosure, arb) and enclosure < 0:
    if not context.is_complex:
      raise UndefinedError
    enclosure = acb(enclosure)
  if x == 1:
    return fmpq(0)
  return enclosure.log()


# Roundings, signs and extremes.


def _absolute(context: Context, x: Value) -> Value:
  del context
  return abs(x)


def _floor(context: Context, x: Value, shift: fmpq = _NO_SHIFT) -> Value:
  """The largest integer not above x + shift."""
  x = context.real(x) + shift
  if isinstance(x, fmpq):
    return fmpq(x.floor())
  unique = x.floor().unique_fmpz()
  if unique is not None:
    return fmpq(unique)
  # The ball holds an integer: it is one, if the ball is far smaller than all that was met.
  nearest = (x + arb(0.5)).floor().unique_fmpz()
  if nearest is None or not context.is_narrow(x):
    raise UndecidedError('floor')
  return fmpq(nearest)


def _ceil(context: Context, x: Value) -> Value:
  return -_floor(context, -context.real(x))


def _round(context: Context, x: Value) -> Value:
  x = context.real(x)
  # Halves are rounded up by some and to even numbers by others.
  if isinstance(x, fmpq) and (2 * x).q == 1 and x.q != 1:
    raise UndecidedError('rounding of a half')
  return _floor(context, x, fmpq(1, 2))


def _sign(context: Context, x: Value) -> Value:
  x = context.real(x)
  # Only an exact 0 is known to have the sign 0.
  if holds_zero(x):
    if isinstance(x, fmpq):
      return fmpq(0)
    raise UndecidedError('sign')
  if x > 0:
    return fmpq(1)
  return fmpq(-1)


def _maximum(context: Context, *values: Value) -> Value:
  return _extreme(context, values, max, arb.max)


def _minimum(context: Context, *values: Value) -> Value:
  return _extreme(context, values, min, arb.min)


def _extreme(
  context: Context,
  values: Sequence[Value],
  of_numbers: Callable[[fmpq, fmpq], fmpq],
  of_balls: Callable[[arb, arb], arb],
) -> Value:
  """The largest or smallest value; a ball that holds it for any numbers in them, if one is none."""
  extreme = context.real(values[0])
  for x in values[1:]:
    x = context.real(x)
    if isinstance(x, fmpq) and isinstance(extreme, fmpq):
      extreme = of_numbers(extreme, x)
    else:
      extreme = of_balls(ball(extreme), ball(x))
  return extreme


# Whole numbers.


def _integers(context: Context, *values: Value) -> list[fmpz]:
  """Exact integers; what is none has no divisors."""
  reals = [context.real(x) for x in values]
  if not all(map(is_whole, reals)):
    raise UndefinedError
  return [x.p for x in reals]


def _gcd(context: Context, *values: Value) -> Value:
  first, *others = _integers(context, *values)
  for n in others:
    first = first.gcd(n)
  return fmpq(abs(first))


def _lcm(context: Context, *values: Value) -> Value:
  first, *others = _integers(context, *values)
  for n in others:
    first = first.lcm(n)
  return fmpq(abs(first))


def _modulo(context: Context, x: Value, y: Value) -> Value:
  x, y = _integers(context, x, y)
  if not y:
    raise UndefinedError
  # The remainder that is not negative.
  return fmpq(x % abs(y))


def _binomial(context: Context, n: Value, k: Value) -> Value:
  """n over k: a whole number, a polynomial in n for a small k, or by factorials."""
  if is_whole(n) and is_whole(k) and 0 <= n <= MAX_FACTORIAL:
    if not 0 <= k <= n:
      return fmpq(0)
    context.work.spend(int(n.p) / 20)
    return fmpq(fmpz.bin_uiui(int(n.p), int(k.p)))
  if is_whole(k) and 0 <= k <= _MAX_FALLING:
    product = fmpq(1)
    for j in range(int(k.p)):  # n (n - 1) … / k!
      context.work.spend(context.cost)
      product = product * (n - j) / (j + 1)
    return product
  # n! / (k! (n - k)!)
  top = factorial_of(context, n)
  return top / factorial_of(context, k) / factorial_of(context, n - k)


def _permutations(context: Context, n: Value, k: Value) -> Value:
  """n! / (n - k)!"""
  return factorial_of(context, n) / factorial_of(context, n - k)


# Of analysis.


def _gamma(context: Context, x: Value) -> Value:
  # Gamma(x) = (x - 1)!
  return factorial_of(context, context.real(x) - 1)


def _zeta(context: Context, x: Value) -> Value:
  x = ball(x)
  if log2(x) > _MAX_ZETA_LOG or context.bits > MAX_DEAR_BITS:
    raise UndecidedError('zeta')
  context.work.spend(50 * context.cost)
  return x.zeta()


def _real_part(context: Context, x: Value) -> Value:
  del context
  return x.real if isinstance(x, acb) else x


def _imaginary_part(context: Context, x: Value) -> Value:
  del context
  return x.imag if isinstance(x, acb) else fmpq(0)


def _conjugate(context: Context, x: Value) -> Value:
  del context
  return x.conjugate() if isinstance(x, acb) else x


def _argument(context: Context, x: Value) -> Value:
  del context
  return acb(ball(x)).arg()


def _cis(context: Context, x: Value) -> Value:
  """e^{i x}"""
  del context
  return (acb(0, 1) * ball(x)).exp()


def _atan2(context: Context, y: Value, x: Value) -> Value:
  return arb.atan2(ball(context.real(y)), ball(context.real(x)))


_FUNCTIONS: dict[str, Callable[..., Value]] = {
  'ln': _logarithm,
  'abs': _absolute,
  'floor': _floor,
  'ceil': _ceil,
  'round': _round,
  'sgn': _sign,
  'max': _maximum,
  'min': _minimum,
  'gcd': _gcd,
  'lcm': _lcm,
  'mod': _modulo,
  'binom': _binomial,
  'nPr': _permutations,
  'gamma': _gamma,
  'zeta': _zeta,
  'Re': _real_part,
  'Im': _imaginary_part,
  'conj': _conjugate,
  'arg': _argument,
  'cis': _cis,
  'atan2': _atan2,
}
