r"""Numbers that enclose: exact rationals of FLINT, balls of arb and acb, and the work they cost.

A ball is a midpoint with a radius that bounds all rounding on the way to it (Johansson 2017, "Arb:
efficient arbitrary-precision midpoint-radius interval arithmetic"). The true number lies inside:
two disjoint balls are two different numbers, whatever the precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import flint
from flint import acb, arb, fmpq

MARGIN = 100  # bits between what was met and what counts as nothing
_BUDGET = 120_000  # steps of one comparison

Value = Any  # fmpq, arb or acb


class UndefinedError(Exception):
  """The expression has no value at this point (a division by zero, the logarithm of zero)."""


class UndecidedError(Exception):
  """The value is beyond the bounds, or a ball is too wide to tell which case applies."""


class Work:
  """A budget of steps, in about microseconds."""

  def __init__(self, limit: int = _BUDGET):
    self.left = limit

  def spend(self, steps: float) -> None:
    """Takes steps from the budget; raises UndecidedError where it is spent."""
    self.left -= steps
    if self.left < 0:
      raise UndecidedError('work')


@contextlib.contextmanager
def precision(bits: int) -> Iterator[None]:
  """Balls are computed with so many bits inside."""
  before = flint.ctx.prec
  flint.ctx.prec = bits
  try:
    yield
  finally:
    flint.ctx.prec = before


def ball(x: Value) -> arb | acb:
  """A number as a ball."""
  return arb(x) if isinstance(x, fmpq) else x


def holds_zero(x: Value) -> bool:
  """Whether a number is 0, or a ball around it may be."""
  return not x if isinstance(x, fmpq) else x.contains(0)


def is_whole(x: Value) -> bool:
  """Whether x is an exact integer."""
  return isinstance(x, fmpq) and x.q == 1


def log2(x: Value) -> int:
  """About log2 |x|; of a ball that holds 0, of its far end; 0 for 0."""
  if isinstance(x, fmpq):
    return 0 if not x else abs(x.p).bit_length() - x.q.bit_length()
  size = arb(x.abs_upper())
  if not size.is_finite():
    raise UndecidedError('magnitude')
  if size == 0:
    return 0
  # size = mantissa 2^exponent
  mantissa, exponent = size.mid().man_exp()
  return int(exponent) + abs(mantissa).bit_length()
