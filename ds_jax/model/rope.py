"""Rotary positions (arXiv:2104.09864), and how checkpoints stretch them to longer contexts.

Frequencies are constants of a config: computed once in numpy float32, in the order of operations
of transformers, because one unit in the last place is a visible angle at position 30,000.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class LinearScaling:
  """All frequencies divided by one factor (arXiv:2306.15595)."""

  factor: float


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
  """Slow frequencies divided, fast ones kept, a ramp between (Llama 3.1, arXiv:2407.21783)."""

  factor: float
  low_freq_factor: float  # fewer turns than this in the original context: divided
  high_freq_factor: float  # more turns than this: kept
  original_positions: int  # context of the pretraining


@dataclasses.dataclass(frozen=True)
class YarnScaling:
  """As Llama 3, with the ramp over frequency indices, and sharper attention (arXiv:2309.00071)."""

  factor: float
  original_positions: int  # context of the pretraining
  beta_fast: float  # turns in the original context above which a frequency is kept
  beta_slow: float  # turns below which it is divided
  attention_factor: float  # multiplies sine and cosine
  truncate: bool  # whether the ramp's ends are rounded outwards to whole indices


Scaling = LinearScaling | Llama3Scaling | YarnScaling


class Rotation(NamedTuple):
  """By how much heads are rotated."""

  frequency: ArrayLike  # [D / 2] float32, radians per position
  magnitude: ArrayLike  # of sine and cosine; 1 unless yarn sharpens attention


@functools.cache
def frequencies(width: int, theta: float, scaling: Scaling | None) -> Rotation:
  """The rotation of heads: theta^(-2i / D) radians per position for pair i, and its scaling.

  Args:
    width: D, even.
    theta: base of the wavelengths.
    scaling: None: as pretrained.
  """
  wavelengths = np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
  plain = np.float32(1) / wavelengths
  match scaling:
    case None:
      return Rotation(plain, 1.0)
    case LinearScaling(factor):
      return Rotation(plain / np.float32(factor), 1.0)
    case Llama3Scaling():
      return Rotation(_llama3(plain, scaling), 1.0)
    case YarnScaling():
      return Rotation(_yarn(wavelengths, theta, scaling), scaling.attention_factor)


def _llama3(plain: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  turns = scaling.original_positions / (np.float32(2 * math.pi) / plain)
  # 0: divided; 1: as pretrained.
  share_plain = np.clip((turns - low) / (high - low), 0, 1, dtype=np.float32)
  return (1 - share_plain) * plain / np.float32(scaling.factor) + share_plain * plain


def _yarn(wavelengths: np.ndarray, theta: float, scaling: YarnScaling) -> np.ndarray:
  width = 2 * len(wavelengths)

  def index_of(turns: float) -> float:
    """The frequency that turns so often in the original context, as an index (their Eq. 21)."""
    positions_per_radian = scaling.original_positions / (turns * 2 * math.pi)
    return width * math.log(positions_per_radian) / (2 * math.log(theta))

  # Frequencies below `low` stay, those above `high` are divided, with a ramp between.
  low, high = index_of(scaling.beta_fast), index_of(scaling.beta_slow)
  if scaling.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, width - 1)
  ramp = (np.arange(width // 2, dtype=np.float32) - low) / ((high - low) or 0.001)
  share_plain = 1 - np.clip(ramp, 0, 1, dtype=np.float32)
  divided = np.float32(1) / (np.float32(scaling.factor) * wavelengths)
  return divided * (1 - share_plain) + np.float32(1) / wavelengths * share_plain


def rotate(x: jax.Array, positions: jax.Array, rotation: Rotation) -> jax.Array:
  """Rotates the pairs (x_i, x_(i + D/2)) of each head by the angle of its position.

  Args:
    x: `[..., heads, D]`.
    positions: `[...]` int32.
    rotation: of `frequencies`.
  """
  half = x.shape[-1] // 2
  angle = positions[..., None, None].astype(jnp.float32) * rotation.frequency
  sin, cos = jnp.sin(angle) * rotation.magnitude, jnp.cos(angle) * rotation.magnitude
  first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
  rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
  return rotated.astype(x.dtype)
