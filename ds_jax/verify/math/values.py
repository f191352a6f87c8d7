r"""The value of an expression at a point: an exact rational, or a ball that is sure to hold it.

What is rational stays exact (fmpq). Everything else is a ball of arb or acb, whose radius bounds
all rounding (Johansson 2017, arb): two disjoint balls are two different numbers, whatever the
precision. Letters are real, and so is every step unless `i` is written; odd roots of negative
numbers are the real ones.

Every step counts towards a `Work`, and numbers beyond the bounds below are not computed: hostile
answers end here, as UndecidedError.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flint
from flint import acb, arb, fmpq, fmpz

from ds_jax.verify.math.expressions import Node, walk

MAX_BITS = 150_000  # of an exact number
MAX_FACTORIAL = 12_000
MAX_TERMS = 3000  # of a sum
MARGIN = 100  # bits between what was met and what counts as nothing
_MAX_LOG = 1 << 40  # binary digits before the point
_MAX_NODES = 400
_MAX_GAMMA_BITS = 1000  # of the gamma and zeta functions and of integrals, which are dear

Value = Any  # fmpq, arb or acb
_NO_SHIFT = fmpq(0)


class UndefinedError(Exception):
  """The expression has no value at this point (a division by zero, the logarithm of zero)."""


class UndecidedError(Exception):
  """The value is beyond the bounds, or a ball is too wide to tell which case applies."""


class Work:
  """A budget of steps, in about microseconds."""

  def __init__(self, limit: int = 120_000):
    self.left = limit

  def spend(self, steps: float) -> None:
    self.left -= steps
    if self.left < 0:
      raise UndecidedError('work')


def log2(x: Value) -> int:
  """About log2 |x|; of a ball that holds 0, of its far end; 0 for 0."""
  if isinstance(x, fmpq):
    return 0 if not x else abs(x.p).bit_length() - x.q.bit_length()
  size = arb(x.abs_upper())
  if not size.is_finite():
    raise UndecidedError('magnitude')
  if size == 0:
    return 0
  mantissa, exponent = size.mid().man_exp()
  return int(exponent) + abs(mantissa).bit_length()


def check_size(node: Node) -> None:
  """Raises UndecidedError if a tree is too large to evaluate."""
  if len(walk(node)) > _MAX_NODES:
    raise UndecidedError('size')


@contextlib.contextmanager
def precision(bits: int) -> Iterator[None]:
  """Balls are computed with so many bits inside."""
  before = flint.ctx.prec
  flint.ctx.prec = bits
  try:
    yield
  finally:
    flint.ctx.prec = before


class Evaluation:
  """Evaluates trees at one point, with one precision.

  Attributes:
    height: the largest |log2| of a number that was met, bits that a difference may hide behind.
  """

  def __init__(
    self,
    work: Work,
    bits: int,
    *,
    values: Mapping[str, Value] | None = None,
    is_complex: bool = False,
    is_principal: bool = False,
    is_rounded: bool = False,
  ):
    self._work = work
    self._precision = bits
    self._values = dict(values or {})
    self._is_complex = is_complex  # else what is not real has no value
    self._is_principal = is_principal  # roots are the principal complex ones: `i` is written
    self._is_rounded = is_rounded  # long decimals are balls of half a unit of their last digit
    self._cost = 1 + bits / 100
    self.height = 0

  def value(self, node: Node) -> Value:
    """The value of a tree.

    Raises:
      UndefinedError: there is none.
      UndecidedError: it cannot be computed.
    """
    try:
      with precision(self._precision):
        return self._value(node)
    except (OverflowError, ValueError, NotImplementedError, TypeError) as error:
      # A function that flint does not have for a complex ball, or for one so large.
      raise UndecidedError(str(error)) from error
    except ZeroDivisionError as error:
      raise UndefinedError from error

  def _value(self, node: Node) -> Value:
    self._work.spend(self._cost)
    kind = node[0]
    if kind == 'number':
      return self._seen(node[1])
    rule = _RULES.get(kind)
    if rule is None:
      raise UndecidedError(kind)
    return self._seen(rule(self, *node[1:]))

  def _seen(self, x: Value) -> Value:
    """`x`, if it is a number within bounds that this evaluation may hold."""
    if isinstance(x, fmpq):
      bits = x.height_bits()
      if bits > MAX_BITS:
        raise UndecidedError('digits')
      if bits > 1000:  # long fractions are dear: each is reduced
        self._work.spend(bits / 50)
    elif not x.is_finite():
      raise UndecidedError('magnitude')
    elif isinstance(x, acb):
      if x.imag == 0:
        x = x.real
      elif not self._is_complex:
        raise UndefinedError
    size = log2(x)
    if abs(size) > self.height and not self._holds_zero(x):
      if abs(size) > _MAX_LOG:
        raise UndecidedError('magnitude')
      self.height = abs(size)
    return x

  def _holds_zero(self, x: Value) -> bool:
    return not x if isinstance(x, fmpq) else x.contains(0)

  def _ball(self, x: Value) -> Value:
    return arb(x) if isinstance(x, fmpq) else x

  def _real(self, x: Value) -> fmpq | arb:
    if isinstance(x, acb):
      if x.imag.contains(0) and not self._is_complex:
        return x.real
      raise UndefinedError
    return x

  # Leaves.

  def _decimal(self, value: fmpq, half: fmpq) -> Value:
    if not self._is_rounded:
      return value
    return arb(arb(value), arb(half) * 1.0001)

  def _constant(self, name: str) -> Value:
    if name == 'infinity':
      raise UndefinedError
    return {'pi': arb.pi, 'e': arb.const_e, 'i': lambda: acb(0, 1)}[name]()

  def _symbol(self, name: str) -> Value:
    if name not in self._values:
      raise UndecidedError(name)
    return self._values[name]

  # Arithmetic.

  def _sum(self, *terms: Node) -> Value:
    values = [self._value(term) for term in terms]
    total = values[0]
    for x in values[1:]:
      total = total + x
    return total

  def _negative(self, x: Node) -> Value:
    return -self._value(x)

  def _product(self, x: Node, y: Node) -> Value:
    return self._value(x) * self._value(y)

  def _quotient(self, x: Node, y: Node) -> Value:
    top, bottom = self._value(x), self._value(y)
    if self._holds_zero(bottom):
      raise UndefinedError if isinstance(bottom, fmpq) else UndecidedError('division')
    return top / bottom

  def _degrees(self, x: Node) -> Value:
    return self._value(x) * arb.pi() / 180

  def _power(self, base: Node, exponent: Node) -> Value:
    return self.power(self._value(base), self._value(exponent))

  def power(self, x: Value, y: Value) -> Value:
    """x^y; a negative base has real roots of odd order, unless `i` is about."""
    if isinstance(y, fmpq) and y.q == 1:
      return self._integer_power(x, int(y.p))
    if self._holds_zero(x):
      return self._power_of_zero(x, y)
    if isinstance(y, fmpq) and isinstance(x, fmpq):
      exact = self._exact_root(x, y)
      if exact is not None:
        return exact
    if isinstance(x, (fmpq, arb)) and isinstance(y, (fmpq, arb)):
      ball = self._ball(x)
      if ball > 0:
        if y == fmpq(1, 2):
          return ball.sqrt()
        return self._bounded_exp(self._ball(y) * ball.log())
      # (-x)^{p/q} = (-1)^p x^{p/q} for odd q.
      if isinstance(y, fmpq) and y.q % 2 == 1 and not self._is_principal:
        root = self._bounded_exp(self._ball(y) * (-ball).log())
        return -root if y.p % 2 else root
      if not self._is_complex:
        raise UndefinedError
    x, y = acb(self._ball(x)), acb(self._ball(y))
    return x.sqrt() if y == acb(0.5) else self._bounded_exp(y * x.log())

  def _integer_power(self, x: Value, n: int) -> Value:
    if n == 0 and self._holds_zero(x):
      raise UndefinedError if isinstance(x, fmpq) else UndecidedError('0^0')
    if n < 0 and self._holds_zero(x):
      raise UndefinedError if isinstance(x, fmpq) else UndecidedError('division')
    if isinstance(x, fmpq):
      if x in (0, 1, -1):
        return x if n % 2 or not x else fmpq(1)
      if x.height_bits() * abs(n) <= MAX_BITS:
        self._work.spend(x.height_bits() * abs(n) / 2000)
        return x**n
    ball = self._ball(x)
    if abs(n) > 1 << 62:
      if not isinstance(ball, arb) or not ball > 0:
        raise UndecidedError('exponent')
      return self._bounded_exp(ball.log() * n)
    return ball**n

  def _power_of_zero(self, x: Value, y: Value) -> Value:
    y = self._real(y)
    if isinstance(x, fmpq):
      if y > 0:
        return fmpq(0)
      raise UndefinedError
    if isinstance(y, fmpq) and y > 0 and isinstance(x, arb):
      # A root of a ball around 0 is between 0 and the root of its far end.
      if x < 0 and y.q % 2 == 0 and not self._is_complex:
        raise UndefinedError
      end = self._bounded_exp(self._ball(y) * arb(x.abs_upper()).log())
      return arb(0, end.upper())
    raise UndecidedError('0^x')

  def _exact_root(self, x: fmpq, y: fmpq) -> fmpq | None:
    """x^{p/q} where it is rational: where numerator and denominator of x are q-th powers."""
    order = int(y.q)
    if order > 64 or x.height_bits() > 4000 or abs(int(y.p)) > 4000:
      return None
    is_negative = x < 0
    if is_negative and (order % 2 == 0 or self._is_principal):
      return None
    top, bottom = (abs(n).root(order) for n in (x.p, x.q))
    if top**order != abs(x.p) or bottom**order != x.q:
      return None
    root = fmpq(top, bottom)
    return self._integer_power(-root if is_negative else root, int(y.p))

  def _bounded_exp(self, x: Value) -> Value:
    if log2(x) > 40:
      raise UndecidedError('magnitude')
    return x.exp()

  def _factorial(self, x: Node) -> Value:
    return self.factorial(self._real(self._value(x)))

  def factorial(self, x: Value) -> Value:
    if isinstance(x, fmpq) and x.q == 1:
      if x < 0:
        raise UndefinedError
      if x <= MAX_FACTORIAL:
        self._work.spend(int(x.p) / 20)
        return fmpq(fmpz.fac_ui(int(x.p)))
    if log2(x) > 30 or self._precision > _MAX_GAMMA_BITS:
      raise UndecidedError('factorial')
    self._work.spend(20 * self._cost)
    return (self._ball(x) + 1).gamma()

  def _double_factorial(self, x: Node) -> Value:
    n = self._integer(self._value(x), 0, 3000)
    product = fmpz(1)
    for k in range(n, 1, -2):
      product *= k
    return fmpq(product)

  def _integer(self, x: Value, low: int, high: int) -> int:
    """An exact integer within bounds."""
    x = self._real(x)
    if isinstance(x, arb):
      unique = x.unique_fmpz()
      if unique is None:
        raise UndefinedError
      if not self._is_narrow(x):
        raise UndecidedError('integer')
      x = fmpq(unique)
    if x.q != 1:
      raise UndefinedError
    if not low <= x <= high:
      raise UndecidedError('integer')
    return int(x.p)

  # Functions.

  def _call(self, name: str, *operands: Node) -> Value:
    self._work.spend(3 * self._cost)
    arguments = [self._value(operand) for operand in operands]
    rule = _FUNCTIONS.get(name)
    if rule is not None:
      return rule(self, *arguments)
    x = self._ball(arguments[0])
    if log2(x) > 10_000 and not isinstance(arguments[0], fmpq):
      raise UndecidedError('magnitude')
    if name in ('exp', 'sinh', 'cosh', 'tanh') and log2(x) > 40:
      raise UndecidedError('magnitude')
    value = _elementary(name, x)
    if not value.is_finite():
      if isinstance(x, arb) and self._is_complex:
        value = _elementary(name, acb(x))
      if not value.is_finite():
        # A real function is nowhere near its pole or the end of its domain, or just there.
        raise UndefinedError if not x.is_finite() or x.rad() < 1e-9 else UndecidedError(name)
    return value

  def logarithm(self, x: Value) -> Value:
    if self._holds_zero(x):
      raise UndefinedError if isinstance(x, fmpq) else UndecidedError('ln 0')
    ball = self._ball(x)
    if isinstance(ball, arb) and ball < 0:
      if not self._is_complex:
        raise UndefinedError
      ball = acb(ball)
    return fmpq(0) if x == 1 else ball.log()

  def floor(self, x: Value, shift: fmpq = _NO_SHIFT) -> Value:
    """The largest integer not above x + shift."""
    x = self._real(x) + shift
    if isinstance(x, fmpq):
      return fmpq(x.floor())
    unique = x.floor().unique_fmpz()
    if unique is not None:
      return fmpq(unique)
    # The ball holds an integer: it is one, if the ball is far smaller than all that was met.
    near = (x + arb(0.5)).floor().unique_fmpz()
    if near is None or not self._is_narrow(x):
      raise UndecidedError('floor')
    return fmpq(near)

  def _is_narrow(self, x: arb) -> bool:
    return log2(x.rad()) < -(2 * self.height + MARGIN)

  def round(self, x: Value) -> Value:
    x = self._real(x)
    if isinstance(x, fmpq) and (2 * x).q == 1 and x.q != 1:
      raise UndecidedError('rounding of a half')
    return self.floor(x, fmpq(1, 2))

  def sign(self, x: Value) -> Value:
    x = self._real(x)
    if self._holds_zero(x):
      if isinstance(x, fmpq):
        return fmpq(0)
      raise UndecidedError('sign')
    return fmpq(1 if x > 0 else -1)

  def absolute(self, x: Value) -> Value:
    return abs(x)

  def extreme(self, values: Sequence[Value], is_max: bool) -> Value:
    best = self._real(values[0])
    for x in values[1:]:
      x = self._real(x)
      if isinstance(x, fmpq) and isinstance(best, fmpq):
        best = max(best, x) if is_max else min(best, x)
      else:
        ends = self._ball(best), self._ball(x)
        best = ends[0].max(ends[1]) if is_max else ends[0].min(ends[1])
    return best

  def integers(self, values: Sequence[Value]) -> list[fmpz]:
    exact = [self._real(x) for x in values]
    if not all(isinstance(x, fmpq) and x.q == 1 for x in exact):
      raise UndefinedError
    return [x.p for x in exact]

  def modulo(self, x: Value, y: Value) -> Value:
    x, y = self.integers([x, y])
    if not y:
      raise UndefinedError
    return fmpq(x % abs(y))

  def binomial(self, n: Value, k: Value) -> Value:
    if all(isinstance(x, fmpq) and x.q == 1 for x in (n, k)) and 0 <= n <= MAX_FACTORIAL:
      if not 0 <= k <= n:
        return fmpq(0)
      self._work.spend(int(n.p) / 20)
      return fmpq(fmpz.bin_uiui(int(n.p), int(k.p)))
    if isinstance(k, fmpq) and k.q == 1 and 0 <= k <= 60:  # n (n - 1) … / k!
      product = fmpq(1)
      for j in range(int(k.p)):
        self._work.spend(self._cost)
        product = product * (n - j) / (j + 1)
      return product
    return self.factorial(n) / self.factorial(k) / self.factorial(n - k)

  def permutations(self, n: Value, k: Value) -> Value:
    return self.factorial(n) / self.factorial(n - k)

  def gamma(self, x: Value) -> Value:
    return self.factorial(self._real(x) - 1)

  def zeta(self, x: Value) -> Value:
    x = self._ball(x)
    if log2(x) > 7 or self._precision > _MAX_GAMMA_BITS:
      raise UndecidedError('zeta')
    self._work.spend(50 * self._cost)
    return x.zeta()

  def _unknown(self, name: str, *operands: Node) -> Value:
    """Equal arguments get the same number; nothing else is known of the function."""
    seed = name
    for operand in operands:
      x = self._value(operand)
      seed += ';' + (str(x) if isinstance(x, fmpq) else x.str(20, radius=False))
    digest = hashlib.blake2b(ascii(seed).encode(), digest_size=6).digest()
    return fmpq(1, 3) + fmpq(int.from_bytes(digest, 'big'), 1 << 47)

  # Series, limits and integrals.

  def _at(self, name: str, x: Value, body: Node) -> Value:
    """The value of `body` with x for a bound variable."""
    outer = self._values.get(name)
    self._values[name] = x
    try:
      return self._value(body)
    finally:
      del self._values[name]
      if outer is not None:
        self._values[name] = outer

  def _series(self, name: str, low: Node, high: Node, body: Node, is_sum: bool) -> Value:
    start = self._integer(self._value(low), -(10**6), 10**6)
    if high == ('constant', 'infinity'):
      return self._infinite_sum(name, start, body, is_sum)
    end = self._integer(self._value(high), -(10**6), 10**6)
    if end - start > MAX_TERMS:
      raise UndecidedError('terms')
    total: Value = fmpq(0 if is_sum else 1)
    for k in range(start, end + 1):
      term = self._at(name, fmpq(k), body)
      total = total + term if is_sum else total * term
      if isinstance(total, fmpq) and total.height_bits() > MAX_BITS:
        raise UndecidedError('digits')
    return total

  def _infinite_sum(self, name: str, start: int, body: Node, is_sum: bool) -> Value:
    """A geometric series, or c k^{-s}: known by terms that are exact, the first and far ones."""
    if not is_sum or not all(part[0] in _SMOOTH for part in walk(body)):
      raise UndecidedError('infinite series')
    terms = {k: self._at(name, fmpq(start + k), body) for k in (0, 1, 2, 3, 4, 7, 19, 53)}
    if not all(isinstance(term, fmpq) and term for term in terms.values()):
      raise UndecidedError('infinite series')
    first, ratio = terms[0], terms[1] / terms[0]
    if all(term == first * ratio**k for k, term in terms.items()):
      if abs(ratio) >= 1:
        raise UndefinedError
      return first / (1 - ratio)  # a + a r + a r^2 + …
    for s in range(2, 21 if 0 < start < 100 else 2):
      scale = first * fmpq(start) ** s
      if all(term * fmpq(start + k) ** s == scale for k, term in terms.items()):
        head = sum((fmpq(k) ** -s for k in range(1, start)), fmpq(0))
        return scale * (arb(s).zeta() - head)  # c (zeta(s) - 1 - … - 1 / (start - 1)^s)
    raise UndecidedError('infinite series')

  def _limit(self, name: str, target: Node, side: int, body: Node) -> Value:
    """Its value near the target, with a radius of the distance that is left.

    No proof: taken for the limit is what the function comes to at distances 2^-40 and 2^-80, on
    both sides.
    """
    infinite = {('constant', 'infinity'): 1, ('-', ('constant', 'infinity')): -1}.get(target, 0)
    if infinite:
      sides = [[fmpq(infinite * 2**bits) for bits in (40, 80)]]
    else:
      center = self._real(self._value(target))
      signs = [side] if side else [1, -1]
      sides = [[center + fmpq(sign, 2**bits) for bits in (40, 80)] for sign in signs]
    values, height = [], self.height
    for far, near in sides:
      far_value, near_value = (self._ball(self._real(self._at(name, x, body))) for x in (far, near))
      step = abs(far_value - near_value).abs_upper()
      if step > arb(2) ** -30:
        raise UndecidedError('limit')
      # The error shrinks with the distance, at least by 2^-35 where the distance does by 2^-40.
      values.append(arb(near_value.mid(), step * arb(2) ** -35 + arb(2) ** -75))
    self.height = height  # the distances themselves are no numbers of the expression
    if not values[0].overlaps(values[-1]):
      raise UndefinedError
    return values[0]

  def _integral(self, name: str, low: Node, high: Node, body: Node) -> Value:
    """A definite integral with a rigorous bound (Petras 2002, as arb has it)."""
    if self._precision > _MAX_GAMMA_BITS:
      raise UndecidedError('integral')
    ends = [self._ball(self._real(self._value(end))) for end in (low, high)]
    inner = Evaluation(self._work, self._precision, values=self._values, is_complex=True)
    has_branches = any(part[0] == 'call' and part[1] not in _ENTIRE for part in walk(body)) or any(
      part[0] == '^' and part[2][0] not in ('number', '-') and part[1] != ('constant', 'e')
      for part in walk(body)
    )
    is_spent = False

    def integrand(z: acb, must_be_analytic: bool) -> acb:
      nonlocal is_spent  # exceptions must not pass through the C code
      if is_spent or must_be_analytic and has_branches:
        return acb('nan')
      try:
        self._work.spend(self._cost)
        return acb(inner._ball(inner._at(name, z, body)))
      except (UndefinedError, UndecidedError, ArithmeticError, ValueError, TypeError):
        is_spent = self._work.left < 0
        return acb('nan')

    value = acb.integral(integrand, *ends, eval_limit=400)
    if is_spent:
      raise UndecidedError('work')
    return value.real if value.imag.contains(0) else value


# Kinds whose values at whole numbers, far ones included, tell a series.
_SMOOTH = frozenset(('number', 'symbol', '+', '-', '*', '/', '^', '!'))
_ENTIRE = frozenset(('exp', 'sin', 'cos', 'sinh', 'cosh'))

_FUNCTIONS: dict[str, Callable[..., Value]] = {
  'ln': Evaluation.logarithm,
  'abs': Evaluation.absolute,
  'floor': Evaluation.floor,
  'ceil': lambda e, x: -e.floor(-e._real(x)),
  'round': Evaluation.round,
  'sgn': Evaluation.sign,
  'max': lambda e, *x: e.extreme(x, is_max=True),
  'min': lambda e, *x: e.extreme(x, is_max=False),
  'mod': Evaluation.modulo,
  'binom': Evaluation.binomial,
  'nPr': Evaluation.permutations,
  'gamma': Evaluation.gamma,
  'zeta': Evaluation.zeta,
  'Re': lambda e, x: x.real if isinstance(x, acb) else x,
  'Im': lambda e, x: x.imag if isinstance(x, acb) else fmpq(0),
  'conj': lambda e, x: x.conjugate() if isinstance(x, acb) else x,
  'arg': lambda e, x: acb(e._ball(x)).arg(),
  'cis': lambda e, x: (acb(0, 1) * e._ball(x)).exp(),
  'atan2': lambda e, y, x: arb.atan2(e._ball(e._real(y)), e._ball(e._real(x))),
}


def _integer_fold(name: str) -> Callable[..., Value]:
  def fold(evaluation: Evaluation, *values: Value) -> Value:
    first, *others = evaluation.integers(values)
    for n in others:
      first = getattr(first, name)(n)
    return fmpq(abs(first))

  return fold


_FUNCTIONS |= {name: _integer_fold(name) for name in ('gcd', 'lcm')}

_RULES: dict[str, Callable[..., Value]] = {
  'decimal': Evaluation._decimal,
  'constant': Evaluation._constant,
  'symbol': Evaluation._symbol,
  '+': Evaluation._sum,
  '-': Evaluation._negative,
  '*': Evaluation._product,
  '/': Evaluation._quotient,
  '^': Evaluation._power,
  '!': Evaluation._factorial,
  '!!': Evaluation._double_factorial,
  'degree': Evaluation._degrees,
  'call': Evaluation._call,
  'apply': Evaluation._unknown,
  'sum': lambda e, *parts: e._series(*parts, is_sum=True),
  'prod': lambda e, *parts: e._series(*parts, is_sum=False),
  'lim': Evaluation._limit,
  'int': Evaluation._integral,
}


_METHODS = {f'arc{name}': f'a{name}' for name in ('sin', 'cos', 'tan', 'sinh', 'cosh', 'tanh')}
_RECIPROCALS = {'arccot': 'atan', 'arcsec': 'acos', 'arccsc': 'asin'}
_RECIPROCALS |= {'arccoth': 'atanh', 'arcsech': 'acosh', 'arccsch': 'asinh'}


def _elementary(name: str, x: Value) -> Value:
  if name in _RECIPROCALS:
    return getattr(1 / x, _RECIPROCALS[name])()
  return getattr(x, _METHODS.get(name, name))()
