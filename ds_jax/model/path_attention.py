"""Attention of every slot over its own path cache, whose lengths differ by orders of magnitude.

Reading every cache up to the longest path costs 2.5 times what is valid on searches of the paper's
shape (16 slots, depth 64). Here a block of positions is read for those slots alone that reach it,
in groups of a fixed number of slots: a slot's result is then the same to the bit whatever the
others' lengths are, which it is not if the number of rows of a product follows from them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.model.attention import Partial, attend_part, join

# A group is at most this share of the slots. Smaller ones read less in vain and loop longer.
_SHARE = 1 / 8


def group_size(num_slots: int) -> int:
  """Slots that read a block together; a divisor of all."""
  largest = max(1, int(num_slots * _SHARE))
  return max(d for d in range(1, largest + 1) if num_slots % d == 0)


def attend_path(q_RxCxQxGxD: jax.Array, k_LxBxCxSxD: jax.Array, v_LxBxCxSxD: jax.Array,
                layer: jax.Array | int, length: jax.Array, block: int,
                slot_index: jax.Array | None = None) -> Partial:
  """Partial attention over path caches that are filled to different lengths.

  Rows of length 0 see nothing and get weights of 0. The first block is read for all rows.

  Args:
    q_RxCxQxGxD: queries; every query of row r sees the first `length[r]` positions.
    k_LxBxCxSxD: keys of all layers; S is a multiple of `block`, or at most one block. Blocks are
      cut out of the whole: a layer cut out first would be copied, at whatever length.
    v_LxBxCxSxD: values.
    layer: `[]` int32, whose caches are read.
    length: `[R]` int32.
    block: positions read at a time.
    slot_index: `[R]` int32, the slot whose path each row sees; None: rows are the B slots.
  """
  _, num_slots, num_heads, num_positions, head_width = k_LxBxCxSxD.shape
  width, size = group_size(len(length)), min(block, num_positions)
  longest_first = jnp.argsort(-length, stable=True)

  def attend_rows(q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array | int,
                  lengths: jax.Array) -> Partial:
    seen = start + jnp.arange(size)[None, None, :] < lengths[:, None, None]
    return attend_part(q, k, v, seen)

  def read(slots: jax.Array, start: jax.Array | int) -> list[jax.Array]:
    # Not one gather: for that, v6e and 7x copy the whole caches into another layout.
    cut = lambda cache: jax.lax.map(lambda slot: jax.lax.dynamic_slice(
        cache, (layer, slot, 0, start, 0), (1, 1, num_heads, size, head_width))[0, 0], slots)
    return [cut(cache) for cache in (k_LxBxCxSxD, v_LxBxCxSxD)]

  def read_group(rows: jax.Array, start: jax.Array, whole: Partial) -> Partial:
    slots = rows if slot_index is None else slot_index[rows]
    part = attend_rows(q_RxCxQxGxD[rows], *read(slots, start), start, length[rows])
    joined = join(jax.tree.map(lambda x: x[rows], whole), part)
    return jax.tree.map(lambda x, new: x.at[rows].set(new, unique_indices=True), whole, joined)

  def read_block(i: jax.Array, whole: Partial) -> Partial:
    num_rows = (length > i * block).sum()
    group = lambda j, whole: read_group(
        jax.lax.dynamic_slice_in_dim(longest_first, j * width, width), i * block, whole)
    with jax.named_scope('path_groups'):
      return jax.lax.fori_loop(0, (num_rows + width - 1) // width, group, whole)

  first_of_all = lambda cache: jax.lax.dynamic_slice(
      cache, (layer, 0, 0, 0, 0), (1, num_slots, num_heads, size, head_width))[0]
  first = attend_rows(
      q_RxCxQxGxD, *(map(first_of_all, (k_LxBxCxSxD, v_LxBxCxSxD)) if slot_index is None
                     else read(slot_index, 0)), 0, length)
  if num_positions <= block:
    return first
  num_blocks = (length.max() + block - 1) // block
  with jax.named_scope('path_blocks'):
    return jax.lax.fori_loop(1, num_blocks, read_block, first)


def positions_read(lengths: np.ndarray, block: int) -> int:
  """Cache positions that one call of `attend_path` reads for slots of `lengths` `[B]`.

  `block`: as there, or the cache's capacity where that is smaller.
  """
  width = group_size(len(lengths))
  starts = np.arange(block, max(int(lengths.max()), 1), block)
  num_rows = (lengths[None, :] > starts[:, None]).sum(1)
  return block * int(len(lengths) + (-(-num_rows // width) * width).sum())
