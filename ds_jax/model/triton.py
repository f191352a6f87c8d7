"""What the GPU's kernels share: Pallas for Triton, which also runs as ordinary operations on CPUs.

jax 0.11 still has it but says that it will go; Mosaic GPU, which is to follow it, asks for Hopper
or newer for most of what these kernels need.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def compiler_params() -> Any:
  """Four warps, and two stages of loads; chosen by what fits, never measured."""
  from jax.experimental.pallas import triton  # here: a jax without it shall run elsewhere
  return triton.CompilerParams(num_warps=4, num_stages=2)


def whole(x: jax.Array) -> pl.BlockSpec:
  """Every program may read all of it."""
  return pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Of matrices, in float32; that of float32 is not rounded to 10 bits, as is the default."""
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
