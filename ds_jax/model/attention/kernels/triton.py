"""What the GPU's kernels share: Pallas for Triton, which also runs as ordinary operations on CPUs.

jax 0.11 still has it but says that it will go; Mosaic GPU, which is to follow it, asks for Hopper
or newer for most of what these kernels need.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ds_jax.model.attention.partial import MASKED

# Of X queries: weighted values [X, D], largest scores [X], sums of exponentials [X], all float32.
Carry = tuple[jax.Array, jax.Array, jax.Array]


# A tensor core multiplies tiles of at least 16 x 16.
FEWEST = 16
# Of keys that are multiplied at a time. Two stages of them and of values, with a tile of queries,
# fit the 100 KiB of shared memory of any GPU that has bfloat16.
TILE_BYTES = 2**14


def tile_sizes(width: int, itemsize: int) -> list[int]:
  """Rows that a tile of heads of this width may have, most first; none: the heads do not suit."""
  is_power = width & (width - 1) == 0 and width >= FEWEST
  return [n for n in (128, 64, 32, FEWEST) if is_power and n * width * itemsize <= TILE_BYTES]


def compiler_params() -> Any:
  """Four warps, and two stages of loads; chosen by what fits, never measured."""
  from jax.experimental.pallas import triton  # here: a jax without it shall run elsewhere

  return triton.CompilerParams(num_warps=4, num_stages=2)


def whole(x: jax.Array) -> pl.BlockSpec:
  """Every program may read all of it."""
  return pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)


def attend_nothing(query: jax.Array) -> Carry:
  """Attention of a tile of queries [X, D] over no keys."""
  none = jnp.zeros(query.shape[0], jnp.float32)
  return jnp.zeros(query.shape, jnp.float32), none + 0.1 * MASKED, none


def attend_tile(carry: Carry, scores: jax.Array, values: jax.Array) -> Carry:
  """Adds a tile of keys, of which masked scores [X, S] and values [S, D] are given."""
  total, highest, sum_exp = carry
  new = jnp.maximum(highest, scores.max(1))
  weights, scale = jnp.exp(scores - new[:, None]), jnp.exp(highest - new)
  total = total * scale[:, None] + product(weights.astype(values.dtype), values)
  return total, new, sum_exp * scale + weights.sum(1)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Of matrices, in float32; that of float32 is not rounded to 10 bits, as is the default."""
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
