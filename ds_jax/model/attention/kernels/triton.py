"""What the GPU's kernels share: Pallas for Triton, which also runs as ordinary operations on CPUs.

jax 0.11 still has it but says that it will go; Mosaic GPU, which is to follow it, asks for Hopper
or newer for most of what these kernels need.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ds_jax.model.attention.partial import MASKED

# A tensor core multiplies tiles of at least 16 x 16.
MIN_TILE = 16
# Bytes of a tile of keys. Two stages of keys and values, with a tile of queries, fit the 100 KiB
# of shared memory of any GPU that has bfloat16.
MAX_TILE_BYTES = 2**14


class TileSums(NamedTuple):
  """Attention of a tile of X queries over part of the keys, not yet normalised; all float32."""

  weighted_values: jax.Array  # [X, D], sum of exp(score - max) * value
  max_score: jax.Array  # [X]
  sum_exp: jax.Array  # [X]


def tile_sizes(width: int, itemsize: int) -> list[int]:
  """Rows that a tile of heads may have, most first; empty if no tile suits the heads.

  Args:
    width: D, which must be a power of 2.
    itemsize: bytes of a number.
  """
  if width < MIN_TILE or width & (width - 1):
    return []
  return [rows for rows in (128, 64, 32, MIN_TILE) if rows * width * itemsize <= MAX_TILE_BYTES]


def compiler_params() -> Any:
  """Four warps, and two stages of loads; chosen by what fits, never measured."""
  from jax.experimental.pallas import triton  # here: a jax without it shall run elsewhere

  return triton.CompilerParams(num_warps=4, num_stages=2)


def whole(x: jax.Array) -> pl.BlockSpec:
  """The block of an array of which every program may read all."""
  return pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)


def attend_nothing(query: jax.Array) -> TileSums:
  """Attention of a tile of queries [X, D] over no keys."""
  zeros = jnp.zeros(query.shape[0], jnp.float32)
  return TileSums(jnp.zeros(query.shape, jnp.float32), zeros + 0.1 * MASKED, zeros)


def attend_tile(before: TileSums, scores: jax.Array, values: jax.Array) -> TileSums:
  """Adds a tile of keys, of which masked scores [X, S] and values [S, D] are given.

  With m' = max(m, scores): earlier sums are scaled by exp(m - m') and those over
  exp(scores - m') are added, so that no exponent is above 0 (arXiv:2205.14135, algorithm 1).
  """
  max_score = jnp.maximum(before.max_score, scores.max(1))
  weights = jnp.exp(scores - max_score[:, None])
  scale = jnp.exp(before.max_score - max_score)
  weighted_values = before.weighted_values * scale[:, None]
  weighted_values = weighted_values + product(weights.astype(values.dtype), values)
  return TileSums(weighted_values, max_score, before.sum_exp * scale + weights.sum(1))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Matrix product accumulated in float32; float32 inputs keep full precision.

  By default a GPU would round them to TF32's 10 bits.
  """
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
