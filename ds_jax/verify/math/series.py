"""Rules for sums, products, limits and integrals over a bound variable."""

from __future__ import annotations

from flint import acb, arb, fmpq

from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, ball
from ds_jax.verify.math.evaluation import MAX_BITS, MAX_DEAR_BITS, Context
from ds_jax.verify.math.expressions import EULER, INFINITY, NEGATIVE_INFINITY, Node, walk

_MAX_TERMS = 3000  # of a sum
_MAX_INDEX = 10**6
_MAX_ZETA = 20  # exponent s of a series of k^-s
_MAX_INTERVALS = 400  # of an integral
# Kinds whose values at whole numbers, far ones included, tell a series.
_SMOOTH = frozenset(('number', 'symbol', '+', '-', '*', '/', '^', '!'))
_ENTIRE = frozenset(('exp', 'sin', 'cos', 'sinh', 'cosh'))  # functions without poles or branches
_TOLD_BY = (0, 1, 2, 3, 4, 7, 19, 53)  # terms, from the first one


def total(context: Context, name: str, low: Node, high: Node, body: Node) -> Value:
  """The sum of `body` from `low` to `high`."""
  start = context.integer(context.inner(low), -_MAX_INDEX, _MAX_INDEX)
  if high == INFINITY:
    return _infinite_sum(context, name, start, body)
  result = fmpq(0)
  for k in _indices(context, start, high):
    result = result + context.at(name, fmpq(k), body)
    _check_digits(result)
  return result


def product(context: Context, name: str, low: Node, high: Node, body: Node) -> Value:
  """The product of `body` from `low` to `high`."""
  start = context.integer(context.inner(low), -_MAX_INDEX, _MAX_INDEX)
  if high == INFINITY:
    raise UndecidedError('infinite series')
  result = fmpq(1)
  for k in _indices(context, start, high):
    result = result * context.at(name, fmpq(k), body)
    _check_digits(result)
  return result


def _indices(context: Context, start: int, high: Node) -> range:
  end = context.integer(context.inner(high), -_MAX_INDEX, _MAX_INDEX)
  if end - start > _MAX_TERMS:
    raise UndecidedError('terms')
  return range(start, end + 1)


def _check_digits(x: Value) -> None:
  if isinstance(x, fmpq) and x.height_bits() > MAX_BITS:
    raise UndecidedError('digits')


def _infinite_sum(context: Context, name: str, start: int, body: Node) -> Value:
  """A geometric series, or c k^{-s}: known by terms that are exact, the first and far ones."""
  if not all(part[0] in _SMOOTH for part in walk(body)):
    raise UndecidedError('infinite series')
  terms: dict[int, fmpq] = {}
  for k in _TOLD_BY:
    terms[k] = context.at(name, fmpq(start + k), body)
  if not all(isinstance(term, fmpq) and term for term in terms.values()):
    raise UndecidedError('infinite series')
  # Geometric: a + a r + a r^2 + … = a / (1 - r).
  first = terms[0]
  ratio = terms[1] / first
  if all(term == first * ratio**k for k, term in terms.items()):
    if abs(ratio) >= 1:
      raise UndefinedError
    return first / (1 - ratio)
  # Of powers: c (zeta(s) - 1 - … - 1 / (start - 1)^s).
  if 0 < start < 100:
    for s in range(2, _MAX_ZETA + 1):
      scale = first * fmpq(start) ** s
      if all(term * fmpq(start + k) ** s == scale for k, term in terms.items()):
        missing = sum((fmpq(k) ** -s for k in range(1, start)), fmpq(0))
        return scale * (arb(s).zeta() - missing)
  raise UndecidedError('infinite series')


def limit(context: Context, name: str, target: Node, side: int, body: Node) -> Value:
  """The value of `body` near the target, with a radius of the distance that is left.

  No proof: taken for the limit is what the function comes to at distances 2^-40 and 2^-80, on
  both sides.

  Args:
    context: the evaluation.
    name: the variable.
    target: where it goes to, infinities included.
    side: 1 from above, -1 from below, 0 from both sides.
    body: what the limit is taken of.
  """
  approaches = _approaches(context, target, side)
  height = context.height
  values = []
  for far, near in approaches:
    far_value = ball(context.real(context.at(name, far, body)))
    near_value = ball(context.real(context.at(name, near, body)))
    step = abs(far_value - near_value).abs_upper()
    if step > arb(2) ** -30:
      raise UndecidedError('limit')
    # The error shrinks with the distance, at least by 2^-35 where the distance does by 2^-40.
    radius = step * arb(2) ** -35 + arb(2) ** -75
    values.append(arb(near_value.mid(), radius))
  context.height = height  # the distances themselves are no numbers of the expression
  if not values[0].overlaps(values[-1]):
    raise UndefinedError
  return values[0]


def _approaches(context: Context, target: Node, side: int) -> list[list[fmpq]]:
  """For each side a point far from the target, and one near it."""
  if target == INFINITY:
    return [[fmpq(2**40), fmpq(2**80)]]
  if target == NEGATIVE_INFINITY:
    return [[fmpq(-(2**40)), fmpq(-(2**80))]]
  center = context.real(context.inner(target))
  approaches = []
  for sign in (side,) if side else (1, -1):
    approaches.append([center + fmpq(sign, 2**40), center + fmpq(sign, 2**80)])
  return approaches


def integral(context: Context, name: str, low: Node, high: Node, body: Node) -> Value:
  """A definite integral with a rigorous bound: Gauss-Legendre rules on bisected intervals.

  Johansson 2018, "Numerical integration in arbitrary-precision ball arithmetic"; the bounds need
  the integrand to be analytic around an interval, which `integrand` has to tell.
  """
  if context.bits > MAX_DEAR_BITS:
    raise UndecidedError('integral')
  ends = [ball(context.real(context.inner(end))) for end in (low, high)]
  inner = context.complex_copy()
  has_branches = any(map(_has_branches, walk(body)))
  is_spent = False

  def integrand(z: acb, must_be_analytic: bool) -> acb:
    nonlocal is_spent  # exceptions must not pass through the C code
    if is_spent or must_be_analytic and has_branches:
      return acb('nan')
    try:
      context.work.spend(context.cost)
      return acb(ball(inner.at(name, z, body)))
    except (UndefinedError, UndecidedError, ArithmeticError, ValueError, TypeError):
      is_spent = context.work.left < 0
      return acb('nan')

  value = acb.integral(integrand, *ends, eval_limit=_MAX_INTERVALS)
  if is_spent:
    raise UndecidedError('work')
  return value.real if value.imag.contains(0) else value


def _has_branches(part: Node) -> bool:
  """Whether a node may be no analytic function of what stands in it."""
  if part[0] == 'call':
    return part[1] not in _ENTIRE
  return part[0] == '^' and part[2][0] not in ('number', '-') and part[1] != EULER
