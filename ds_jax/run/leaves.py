"""The arrays of a state: names that files give them, checksums, and whether they are finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ds_jax.sharding import path_name


class Examined(NamedTuple):
  """What is known of an array."""

  checksum: jax.Array  # [] uint32
  is_finite: jax.Array  # [] bool; True of integers


def named_leaves(tree: Any) -> dict[str, Any]:
  """{'params.layers.query_kernel': leaf}, in leaf order: files do not depend on our classes."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = {path_name(path).replace('/', '.'): leaf for path, leaf in leaves}
  if len(named) != len(leaves):
    raise ValueError('Expected every leaf of the state to have a name of its own.')
  return named


@jax.jit
def examine(named: Mapping[str, jax.Array]) -> dict[str, Examined]:
  """Looks at every array, on the devices where it lies."""
  return {name: Examined(checksum(x), jnp.isfinite(x).all()) for name, x in named.items()}


def checksum(array: jax.Array) -> jax.Array:
  """Sum of bits times odd weights modulo 2^32: exact in any order, so equal on every mesh."""
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[array.dtype.itemsize]
  bits = array if array.dtype == bool else jax.lax.bitcast_convert_type(array, width)
  weight = jnp.uint32(1)
  for axis in range(array.ndim):
    index = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    weight = weight * jnp.uint32(2654435761) + 2 * index
  return jnp.sum(bits.astype(jnp.uint32) * weight, dtype=jnp.uint32)
