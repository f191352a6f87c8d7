"""Numbers of a checkpoint that no model can compute with: NaN, and what overflows a format."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

_BLOCK = 2**18  # numbers looked at a time


@dataclasses.dataclass(frozen=True)
class Unusable:
  """How many numbers of a tensor are unusable; parts of it add up."""

  nan: int = 0
  overflowing: int = 0  # infinite, or beyond what a format holds

  def __bool__(self) -> bool:
    return bool(self.nan or self.overflowing)

  def __add__(self, other: Unusable) -> Unusable:
    return Unusable(self.nan + other.nan, self.overflowing + other.overflowing)

  def describe(self, format_name: str) -> str:
    """As a person reads it, e.g. '3 NaN, 1 beyond float32'."""
    counts = []
    if self.nan:
      counts.append(f'{self.nan} NaN')
    if self.overflowing:
      counts.append(f'{self.overflowing} infinite or beyond {format_name}')
    return ', '.join(counts)


def narrowest(*dtypes: Any) -> np.dtype:
  """The format of those given whose largest number is smallest."""
  return min(map(np.dtype, dtypes), key=largest)


def largest(dtype: Any) -> float:
  """The largest number of a float format."""
  return float(jnp.finfo(dtype).max)


def find_unusable(x: np.ndarray, limit: float) -> Unusable:
  """Counts the numbers of a contiguous array that are not finite or exceed `limit`.

  It takes a few hundredths of the time of reading the numbers from a file, and no memory to speak
  of.
  """
  total, flat = Unusable(), x.reshape(-1)
  for start in range(0, flat.size, _BLOCK):
    block = flat[start : start + _BLOCK]
    if not _all_usable(block, limit):
      total += _count(block, limit)
  return total


def _all_usable(block: np.ndarray, limit: float) -> bool:
  if block.dtype == jnp.bfloat16:  # its comparisons are slow, while its bits say as much
    exponents = block.view(np.uint16) & np.uint16(0x7F80)
    return not (exponents == 0x7F80).any()
  return bool(block.max() <= limit and block.min() >= -limit)  # NaN compares as false


def _count(block: np.ndarray, limit: float) -> Unusable:
  wide = np.abs(block.astype(np.float64))
  return Unusable(int(np.isnan(wide).sum()), int((wide > limit).sum()))
