"""Root keys: one per tree, from what the tree *is*, never from where or when it runs."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Sequence

import jax
import numpy as np


class Purpose(enum.IntEnum):
  """What a tree is grown for; part of its key."""

  FILTER = 0
  SEARCH = 1
  DIRECT = 2
  EVALUATE = 3


def problem_hash(problem_id: str) -> int:
  """A stable 32-bit number of a problem's id."""
  return zlib.crc32(problem_id.encode())


def base_key_data(seed: int, purpose: Purpose, round_index: int, step: int) -> np.ndarray:
  """Key data `[2]` uint32 that all trees of one phase share."""
  key = jax.random.key(seed)
  for number in (int(purpose), round_index, step):
    key = jax.random.fold_in(key, number)
  return np.asarray(jax.random.key_data(key))


def root_key_data(base: np.ndarray, hashes: Sequence[int], samples: Sequence[int]) -> np.ndarray:
  """Key data `[n, 2]` uint32 of the roots of n trees.

  Args:
    base: `[2]` uint32, see `base_key_data`.
    hashes: n problem hashes.
    samples: n sample indices (which of several trees of the same problem).
  """
  count = len(hashes)
  padded = max(16, 1 << (count - 1).bit_length())  # few shapes, few compilations
  padding = (0, padded - count)
  problems = np.pad(np.asarray(hashes, np.uint32), padding)
  trees = np.pad(np.asarray(samples, np.uint32), padding)
  return np.asarray(_fold(base, problems, trees))[:count]


@jax.jit
def _fold(base: jax.Array, hashes: jax.Array, samples: jax.Array) -> jax.Array:
  def fold(problem: jax.Array, sample: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.wrap_key_data(base), problem)
    return jax.random.key_data(jax.random.fold_in(key, sample))

  return jax.vmap(fold)(hashes, samples)
