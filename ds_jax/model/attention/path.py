"""Attention of every slot over its own path cache, whose lengths differ by orders of magnitude.

Reading every cache up to the longest path costs 2.5 times what is valid on searches of the paper's
shape (16 slots, depth 64). Here slots are read in groups of a fixed number, those of like length
together, each up to its own longest: a slot's result is then the same to the bit whatever the
others' lengths are, which it is not if the number of rows of a product follows from them. On CPUs
the scores of a group stay in the cache, those of all slots do not (three times slower).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import check_shape
from ds_jax.model.attention.partial import Partial, attend_nothing, attend_part, join

# Named scopes of the two loops, by which a plan knows how often they run.
PATH_GROUPS, PATH_BLOCKS = 'path_groups', 'path_blocks'

# A group is at most this share of the slots. Smaller ones read less in vain and loop longer.
_SHARE = 1 / 8


def group_size(num_slots: int) -> int:
  """Slots that read a block together; a divisor of all."""
  largest = max(1, int(num_slots * _SHARE))
  return max(size for size in range(1, largest + 1) if num_slots % size == 0)


def attend_path(
  q_RxCxQxGxD: jax.Array,
  k_LxBxCxSxD: jax.Array,
  v_LxBxCxSxD: jax.Array,
  *,
  layer: jax.Array | int,
  length: jax.Array,
  block: int,
  slot_index: jax.Array | None = None,
  start: jax.Array | None = None,
) -> Partial:
  """Partial attention over path caches that are filled to different lengths.

  Rows of length 0 see nothing and get weights of 0. A capacity of one block is read for all rows.

  Args:
    q_RxCxQxGxD: queries; every query of row r sees the first `length[r]` positions, or those of
      them from its `start` on.
    k_LxBxCxSxD: keys of all layers; S is a multiple of `block`, or at most one block. Blocks are
      cut out of the whole: a layer cut out first would be copied, at whatever length.
    v_LxBxCxSxD: values.
    layer: `[]` int32, whose caches are read.
    length: `[R]` int32.
    block: positions read at a time.
    slot_index: `[R]` int32, the slot whose path each row sees; None: rows are the B slots.
    start: `[R, Q]` int32, where each query's window begins; blocks before it are not read. None:
      there is no window.

  Raises:
    ValueError: if values, lengths or slots do not belong to the keys and queries.
  """
  num_rows = len(q_RxCxQxGxD)
  check_shape('values', v_LxBxCxSxD, k_LxBxCxSxD.shape)
  check_shape('length', length, (num_rows,))
  num_heads, num_positions, head_width = k_LxBxCxSxD.shape[2:]
  size = min(block, num_positions)

  def attend_block(q, keys, values, *, index: jax.Array | int, rows: _Rows) -> Partial:
    position = index * block + jnp.arange(size)[None, None, :]
    is_seen = position < rows.length[:, None, None]
    if rows.start is not None:
      is_seen &= position >= rows.start[:, :, None]
    return attend_part(q, keys, values, is_seen)

  if slot_index is None and num_positions <= block:
    keys = jax.lax.dynamic_index_in_dim(k_LxBxCxSxD, layer, keepdims=False)
    values = jax.lax.dynamic_index_in_dim(v_LxBxCxSxD, layer, keepdims=False)
    return attend_block(q_RxCxQxGxD, keys, values, index=0, rows=_Rows(length, start))

  def read_block(slots: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, sizes = index * block, (1, 1, num_heads, size, head_width)

    def read(cache: jax.Array) -> jax.Array:
      # Not one gather: for that, v6e and tpu7x copy the whole caches into another layout.
      cut = lambda slot: jax.lax.dynamic_slice(cache, (layer, slot, 0, first, 0), sizes)[0]
      return jnp.concatenate([cut(slot) for slot in slots])

    return read(k_LxBxCxSxD), read(v_LxBxCxSxD)

  def attend_group(index_of_rows: jax.Array) -> Partial:
    q, lengths = q_RxCxQxGxD[index_of_rows], length[index_of_rows]
    slots = index_of_rows if slot_index is None else slot_index[index_of_rows]
    rows = _Rows(lengths, None if start is None else start[index_of_rows])

    def add_block(index: jax.Array, before: Partial) -> Partial:
      return join(before, attend_block(q, *read_block(slots, index), index=index, rows=rows))

    num_blocks = (lengths.max() + block - 1) // block
    first_block = 0 if start is None else first_position(rows.length, rows.start).min() // block
    with jax.named_scope(PATH_BLOCKS):
      return jax.lax.fori_loop(first_block, num_blocks, add_block, attend_nothing(q))

  longest_first = jnp.argsort(-length, stable=True)
  with jax.named_scope(PATH_GROUPS):
    grouped = jax.lax.map(attend_group, longest_first.reshape(-1, group_size(num_rows)))
  # Back into the order of the rows.
  place = jnp.argsort(longest_first)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[place], grouped)


class _Rows(NamedTuple):
  """What rows see of their paths, as `attend_path` takes it."""

  length: jax.Array
  start: jax.Array | None


def first_position(length: jax.Array, start: jax.Array) -> jax.Array:
  """`[R]` int32, where a row's reading begins; nowhere, if its path is empty.

  Args:
    length: `[R]` int32, positions of the paths.
    start: `[R, Q]` int32, where each query's window begins.
  """
  nowhere = jnp.iinfo(jnp.int32).max
  return jnp.where(length > 0, jnp.maximum(start.min(1), 0), nowhere)


def positions_read(lengths: np.ndarray, block: int, capacity: int) -> int:
  """Cache positions that one call of `attend_path` reads for slots of `lengths` `[B]`.

  Args:
    lengths: of the paths, `[B]`.
    block: as there.
    capacity: positions of a slot's cache.
  """
  if capacity <= block:
    return len(lengths) * capacity
  width = group_size(len(lengths))
  longest = np.sort(lengths)[::-1][::width]
  return width * block * int(np.sum(-(-longest // block)))
