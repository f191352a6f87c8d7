"""Rules for leaves, sums, products, powers and factorials, exact where they can be."""

from __future__ import annotations

from flint import acb, arb, fmpq, fmpz

from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, ball, holds_zero, log2
from ds_jax.verify.math.evaluation import MAX_BITS, MAX_DEAR_BITS, Context
from ds_jax.verify.math.expressions import Node

MAX_FACTORIAL = 12_000
_MAX_DOUBLE_FACTORIAL = 3000
_MAX_ROOT = 64  # order of an exact root
_MAX_ROOT_BITS = 4000  # of what it is taken from
_MAX_EXPONENT_LOG = 40  # log2 of what exp takes
_HALF = fmpq(1, 2)
_JUST_WIDER = 1.0001  # so that the end of a rounding interval is inside the ball


# Leaves.


def decimal(context: Context, value: fmpq, half: fmpq) -> Value:
  """A long decimal as it stands, or as all numbers that round to it."""
  if not context.is_rounded:
    return value
  return arb(arb(value), arb(half) * _JUST_WIDER)


def constant(context: Context, name: str) -> Value:
  del context
  if name == 'pi':
    return arb.pi()
  if name == 'e':
    return arb.const_e()
  if name == 'i':
    return acb(0, 1)
  raise UndefinedError  # infinity


def symbol(context: Context, name: str) -> Value:
  if name not in context.values:
    raise UndecidedError(name)
  return context.values[name]


# Arithmetic.


def add(context: Context, *terms: Node) -> Value:
  values = [context.inner(term) for term in terms]
  total = values[0]
  for x in values[1:]:
    total = total + x
  return total


def negate(context: Context, x: Node) -> Value:
  return -context.inner(x)


def multiply(context: Context, x: Node, y: Node) -> Value:
  return context.inner(x) * context.inner(y)


def divide(context: Context, x: Node, y: Node) -> Value:
  top = context.inner(x)
  bottom = context.inner(y)
  if holds_zero(bottom):
    raise _no_value(bottom, 'division')
  return top / bottom


def degrees(context: Context, x: Node) -> Value:
  return context.inner(x) * arb.pi() / 180


def _no_value(x: Value, reason: str) -> Exception:
  """The error for an operation that 0 does not have: of an exact 0 for sure, of a ball perhaps."""
  if isinstance(x, fmpq):
    return UndefinedError()
  return UndecidedError(reason)


# Powers.


def power(context: Context, base: Node, exponent: Node) -> Value:
  """x^y; a negative base has real roots of odd order, unless `i` is about."""
  x = context.inner(base)
  y = context.inner(exponent)
  if isinstance(y, fmpq) and y.q == 1:
    return integer_power(context, x, int(y.p))
  if holds_zero(x):
    return _power_of_zero(context, x, y)
  if isinstance(y, fmpq) and isinstance(x, fmpq):
    exact = _exact_root(context, x, y)
    if exact is not None:
      return exact
  if not isinstance(x, acb) and not isinstance(y, acb):
    real = _real_power(context, ball(x), y)
    if real is not None:
      return real
  # The principal value: exp(y ln x).
  x = acb(ball(x))
  y = acb(ball(y))
  if y == acb(0.5):
    return x.sqrt()
  return _exp(y * x.log())


def _real_power(context: Context, x: arb, y: fmpq | arb) -> arb | None:
  """x^y as a real number; None: it is a complex one, and those are allowed."""
  if x > 0 and y == _HALF:
    return x.sqrt()
  if x > 0:
    return _exp(ball(y) * x.log())
  # (-x)^{p/q} = (-1)^p x^{p/q} for odd q.
  if isinstance(y, fmpq) and y.q % 2 == 1 and not context.is_principal:
    root = _exp(ball(y) * (-x).log())
    if y.p % 2:
      root = -root
    return root
  if not context.is_complex:
    raise UndefinedError
  return None


def integer_power(context: Context, x: Value, n: int) -> Value:
  """x^n, exact for a rational x unless it has too many digits."""
  if n <= 0 and holds_zero(x):
    raise _no_value(x, '0^0' if n == 0 else 'division')
  if isinstance(x, fmpq):
    if x == 0 or x == 1:
      return x
    if x == -1:
      return x if n % 2 else fmpq(1)
    num_bits = x.height_bits() * abs(n)
    if num_bits <= MAX_BITS:
      context.work.spend(num_bits / 2000)
      return x**n
  base = ball(x)
  if abs(n) <= 1 << 62:
    return base**n
  # Beyond the integers of the machine: exp(n ln x), for a positive x.
  if not isinstance(base, arb) or not base > 0:
    raise UndecidedError('exponent')
  return _exp(base.log() * n)


def _power_of_zero(context: Context, x: Value, y: Value) -> Value:
  """x^y of an x that is 0, or of a ball around 0; y is no integer."""
  y = context.real(y)
  if isinstance(x, fmpq):
    if y > 0:
      return fmpq(0)
    raise UndefinedError
  if not isinstance(y, fmpq) or not y > 0 or not isinstance(x, arb):
    raise UndecidedError('0^x')
  if x < 0 and y.q % 2 == 0 and not context.is_complex:
    raise UndefinedError
  # A root of a ball around 0 is between 0 and the root of its far end.
  end = _exp(ball(y) * arb(x.abs_upper()).log())
  return arb(0, end.upper())


def _exact_root(context: Context, x: fmpq, y: fmpq) -> fmpq | None:
  """x^{p/q} where it is rational: where numerator and denominator of x are q-th powers."""
  order = int(y.q)
  if order > _MAX_ROOT or x.height_bits() > _MAX_ROOT_BITS or abs(int(y.p)) > _MAX_ROOT_BITS:
    return None
  is_negative = x < 0
  if is_negative and (order % 2 == 0 or context.is_principal):
    return None
  # Roots rounded down, which are the roots if their powers are what they were taken from.
  top = abs(x.p).root(order)
  bottom = x.q.root(order)
  if top**order != abs(x.p) or bottom**order != x.q:
    return None
  root = fmpq(top, bottom)
  if is_negative:
    root = -root
  return integer_power(context, root, int(y.p))


def _exp(x: Value) -> Value:
  if log2(x) > _MAX_EXPONENT_LOG:
    raise UndecidedError('magnitude')
  return x.exp()


# Factorials.


def factorial(context: Context, x: Node) -> Value:
  return factorial_of(context, context.real(context.inner(x)))


def factorial_of(context: Context, x: Value) -> Value:
  """x!, exact for an integer that is not too large; else Gamma(x + 1)."""
  if isinstance(x, fmpq) and x.q == 1:
    if x < 0:
      raise UndefinedError
    if x <= MAX_FACTORIAL:
      context.work.spend(int(x.p) / 20)
      return fmpq(fmpz.fac_ui(int(x.p)))
  if log2(x) > 30 or context.bits > MAX_DEAR_BITS:
    raise UndecidedError('factorial')
  context.work.spend(20 * context.cost)
  return (ball(x) + 1).gamma()


def double_factorial(context: Context, x: Node) -> Value:
  """n!! = n (n - 2) (n - 4) …"""
  n = context.integer(context.inner(x), 0, _MAX_DOUBLE_FACTORIAL)
  product = fmpz(1)
  for k in range(n, 1, -2):
    product *= k
  return fmpq(product)
