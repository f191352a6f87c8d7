"""Attention of every slot over its own path cache, whose lengths differ by orders of magnitude.

Reading every cache up to the longest path costs 2.5 times what is valid on searches of the paper's
shape (16 slots, depth 64). Here slots are read in groups of a fixed number, those of like length
together, each up to its own longest: a slot's result is then the same to the bit whatever the
others' lengths are, which it is not if the number of rows of a product follows from them. On CPUs
the scores of a group stay in the cache, those of all slots do not (three times slower).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.model.attention.partial import Partial, attend_nothing, attend_part, join

# A group is at most this share of the slots. Smaller ones read less in vain and loop longer.
_SHARE = 1 / 8


def group_size(num_slots: int) -> int:
  """Slots that read a block together; a divisor of all."""
  largest = max(1, int(num_slots * _SHARE))
  return max(d for d in range(1, largest + 1) if num_slots % d == 0)


def attend_path(
  q_RxCxQxGxD: jax.Array,
  k_LxBxCxSxD: jax.Array,
  v_LxBxCxSxD: jax.Array,
  layer: jax.Array | int,
  length: jax.Array,
  block: int,
  slot_index: jax.Array | None = None,
) -> Partial:
  """Partial attention over path caches that are filled to different lengths.

  Rows of length 0 see nothing and get weights of 0. A capacity of one block is read for all rows.

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
  num_heads, num_positions, head_width = k_LxBxCxSxD.shape[2:]
  size = min(block, num_positions)
  caches = k_LxBxCxSxD, v_LxBxCxSxD

  def attend_rows(
    q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array | int, lengths: jax.Array
  ) -> Partial:
    seen = start + jnp.arange(size)[None, None, :] < lengths[:, None, None]
    return attend_part(q, k, v, seen)

  if slot_index is None and num_positions <= block:
    whole = lambda cache: jax.lax.dynamic_index_in_dim(cache, layer, keepdims=False)
    return attend_rows(q_RxCxQxGxD, *map(whole, caches), 0, length)

  def read(slots: jax.Array, start: jax.Array | int) -> list[jax.Array]:
    # Not one gather: for that, v6e and tpu7x copy the whole caches into another layout.
    cut = lambda cache, slot: jax.lax.dynamic_slice(
      cache, (layer, slot, 0, start, 0), (1, 1, num_heads, size, head_width)
    )[0]
    return [jnp.concatenate([cut(cache, slot) for slot in slots]) for cache in caches]

  def attend_group(rows: jax.Array) -> Partial:
    q, lengths = q_RxCxQxGxD[rows], length[rows]
    slots = rows if slot_index is None else slot_index[rows]
    add = lambda i, whole: join(whole, attend_rows(q, *read(slots, i * block), i * block, lengths))
    num_blocks = (lengths.max() + block - 1) // block
    with jax.named_scope('path_blocks'):
      return jax.lax.fori_loop(0, num_blocks, add, attend_nothing(q))

  longest_first = jnp.argsort(-length, stable=True)
  with jax.named_scope('path_groups'):
    groups = jax.lax.map(attend_group, longest_first.reshape(-1, group_size(len(length))))
  place = jnp.argsort(longest_first)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[place], groups)


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
