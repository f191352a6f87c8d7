r"""What a comparison finds, and what balls tell of two numbers.

Balls that do not meet are different numbers, which is a proof. Balls that still overlap when they
are smaller than 2^-(2h + 100) of the numbers are taken for equal, where 2^h and 2^-h are the
largest and smallest number met on the way. That is no proof: it says that a difference, if there is
one, is far smaller than anything that was written down (for sums of a few roots of small numbers
the known separation bounds are met: Burnikel et al. 2000; for arbitrary ones they are not).
"""

from __future__ import annotations

from typing import NamedTuple

from flint import arb, fmpq

from ds_jax.verify.math.balls import MARGIN, Value, holds_zero, log2
from ds_jax.verify.math.expressions import Node, walk

PRECISIONS = (128, 640, 3200, 16_000)  # bits, each five times the one before


class Finding(NamedTuple):
  """A decision and the stage that reached it; `is_equal` is None where nothing is shown."""

  is_equal: bool | None
  stage: str


def compare_values(u: Value, v: Value, height: int) -> bool | None:
  """Compares two numbers that are rational or enclosed, in the precision that is set.

  Args:
    u: a number.
    v: another one.
    height: h above, of the evaluations that led to them.

  Returns:
    False if they differ; True if they are the same as far as `height` asks; None: the balls are too
    wide.
  """
  difference = u - v
  if isinstance(difference, fmpq):
    return not difference
  # Disjoint balls: 0 is no difference of theirs.
  if not difference.contains(0):
    return False
  if not difference.is_finite():
    return None
  # |u - v| <= bound, for certain.
  bound = arb(difference.abs_upper())
  if bound == 0:
    return True
  # Is the bound 2^(2h + 100) times smaller than the larger of the two? Zeros have no size: 2^-h.
  sizes = [log2(x) for x in (u, v) if not holds_zero(x)]
  scale = max(sizes, default=-height)
  if log2(bound) <= scale - 2 * height - MARGIN:
    return True
  return None


def has_long_decimal(node: Node) -> bool:
  """Whether a decimal of six digits or more stands in a tree, which may be rounded."""
  return any(part[0] == 'decimal' for part in walk(node))
