"""What the rules of an evaluation share: its point, its precision, its bounds, its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Self

from flint import acb, arb, fmpq

from ds_jax.verify.math.balls import (
  MARGIN,
  UndecidedError,
  UndefinedError,
  Value,
  Work,
  holds_zero,
  log2,
  precision,
)
from ds_jax.verify.math.expressions import Node

MAX_BITS = 150_000  # of an exact number
MAX_DEAR_BITS = 1000  # of the gamma and zeta functions and of integrals, which are dear
_MAX_LOG = 1 << 40  # binary digits before the point
_LONG = 1000  # bits from which each step with a fraction is dear

Rule = Callable[..., Value]


class Context:
  """Evaluates trees at one point, with one precision, by a rule for each kind of node.

  Attributes:
    rules: the function of each kind; it takes the context and the operands of the node.
    work: the budget of the whole comparison.
    bits: the precision of balls.
    values: the numbers that symbols stand for.
    is_complex: complex values are allowed; else what is not real has no value.
    is_principal: roots are the principal complex ones, as `i` is written somewhere.
    is_rounded: long decimals are balls of half a unit of their last digit.
    cost: of one operation on balls, in steps of work.
    height: the largest |log2| of a number that was met, bits that a difference may hide behind.
  """

  rules: ClassVar[Mapping[str, Rule]] = {}

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
    self.work = work
    self.bits = bits
    self.values = dict(values or {})
    self.is_complex = is_complex
    self.is_principal = is_principal
    self.is_rounded = is_rounded
    self.cost = 1 + bits / 100
    self.height = 0

  def complex_copy(self) -> Self:
    """The same point and precision, with complex values and a height of its own."""
    return type(self)(self.work, self.bits, values=self.values, is_complex=True)

  def value(self, node: Node) -> Value:
    """The value of a tree.

    Raises:
      UndefinedError: there is none.
      UndecidedError: it cannot be computed.
    """
    try:
      with precision(self.bits):
        return self.inner(node)
    except (OverflowError, ValueError, NotImplementedError, TypeError) as error:
      # A function that flint does not have for a complex ball, or for one so large.
      raise UndecidedError(str(error)) from error
    except ZeroDivisionError as error:
      raise UndefinedError from error

  def inner(self, node: Node) -> Value:
    """The value of a part of a tree, in the precision that is set."""
    self.work.spend(self.cost)
    kind = node[0]
    if kind == 'number':
      return self._within_bounds(node[1])
    rule = self.rules.get(kind)
    if rule is None:
      raise UndecidedError(kind)
    return self._within_bounds(rule(self, *node[1:]))

  def at(self, name: str, x: Value, body: Node) -> Value:
    """The value of `body` with x for a bound variable, which may hide a symbol of that name."""
    outer = self.values.get(name)
    self.values[name] = x
    try:
      return self.inner(body)
    finally:
      del self.values[name]
      if outer is not None:
        self.values[name] = outer

  def _within_bounds(self, x: Value) -> Value:
    """`x`, if it is a number within bounds that this evaluation may hold; its size is noted."""
    if isinstance(x, fmpq):
      num_bits = x.height_bits()
      if num_bits > MAX_BITS:
        raise UndecidedError('digits')
      if num_bits > _LONG:  # each step reduces the fraction
        self.work.spend(num_bits / 50)
    elif not x.is_finite():
      raise UndecidedError('magnitude')
    elif isinstance(x, acb):
      # A complex number whose imaginary part is exactly 0 is a real one.
      if x.imag == 0:
        x = x.real
      elif not self.is_complex:
        raise UndefinedError
    # The height is that of numbers: a ball around 0 has no size.
    size = abs(log2(x))
    if size > self.height and not holds_zero(x):
      if size > _MAX_LOG:
        raise UndecidedError('magnitude')
      self.height = size
    return x

  def real(self, x: Value) -> fmpq | arb:
    """`x` as a real number; a complex one has no value where a real one is needed."""
    if not isinstance(x, acb):
      return x
    # Where only real values are allowed, an imaginary part around 0 is rounding.
    if x.imag.contains(0) and not self.is_complex:
      return x.real
    raise UndefinedError

  def integer(self, x: Value, low: int, high: int) -> int:
    """`x` as an integer between bounds, both included."""
    x = self.real(x)
    if isinstance(x, arb):
      # A ball that holds one integer is that integer, if it is narrow enough.
      unique = x.unique_fmpz()
      if unique is None:
        raise UndefinedError
      if not self.is_narrow(x):
        raise UndecidedError('integer')
      x = fmpq(unique)
    if x.q != 1:
      raise UndefinedError
    if not low <= x <= high:
      raise UndecidedError('integer')
    return int(x.p)

  def is_narrow(self, x: arb) -> bool:
    """Whether a ball is far smaller than any difference of the numbers that were met."""
    return log2(x.rad()) < -(2 * self.height + MARGIN)
