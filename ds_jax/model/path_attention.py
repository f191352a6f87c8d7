"""Attention of every slot over its own path cache, whose lengths differ by orders of magnitude.

Reading every cache up to the longest path costs 2.5 times what is valid on searches of the paper's
shape (16 slots, depth 64). Here each block of positions is read for those slots alone that reach
it, their number rounded up to one of a few row counts (shapes are static): 1.2 times.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.model.attention import Partial, attend_part, join

# A block is read for one of these shares of the slots; finer ones save little more and compile
# longer.
_SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)


def row_counts(num_slots: int) -> tuple[int, ...]:
  """Slots that a block may be read for, ascending; the last is all of them."""
  return tuple(sorted({max(1, round(share * num_slots)) for share in _SHARES}))


def attend_path(q_BxCxQxGxD: jax.Array, k_BxCxSxD: jax.Array, v_BxCxSxD: jax.Array,
                length: jax.Array, block: int) -> Partial:
  """Partial attention over path caches that are filled to different lengths.

  Slots of length 0 see nothing and get weights of 0. A slot's result does not depend on the
  others', to the bit: a block that is not read is one whose weights would all be 0.

  Args:
    q_BxCxQxGxD: queries; every query of slot b sees the first `length[b]` positions.
    k_BxCxSxD: keys; S is a multiple of `block`, or at most one block.
    v_BxCxSxD: values.
    length: `[B]` int32.
    block: positions read at a time.
  """
  num_slots, _, num_positions, _ = k_BxCxSxD.shape
  size = min(block, num_positions)
  counts = row_counts(num_slots)
  longest_first = jnp.argsort(-length, stable=True)

  def attend_rows(q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array | int,
                  lengths: jax.Array) -> Partial:
    seen = start + jnp.arange(size)[None, None, :] < lengths[:, None, None]
    return attend_part(q, k, v, seen)

  def everyone(start: jax.Array | int, whole: Partial | None) -> Partial:
    k, v = (jax.lax.dynamic_slice_in_dim(x, start, size, 2) for x in (k_BxCxSxD, v_BxCxSxD))
    part = attend_rows(q_BxCxQxGxD, k, v, start, length)
    return part if whole is None else join(whole, part)

  def longest(count: int, start: jax.Array, whole: Partial) -> Partial:
    rows = longest_first[:count]
    read = lambda cache: jax.vmap(lambda row: jax.lax.dynamic_slice(
        cache, (row, 0, start, 0), (1, cache.shape[1], size, cache.shape[3]))[0])(rows)
    part = attend_rows(q_BxCxQxGxD[rows], read(k_BxCxSxD), read(v_BxCxSxD), start, length[rows])
    joined = join(jax.tree.map(lambda x: x[rows], whole), part)
    return jax.tree.map(lambda x, new: x.at[rows].set(new, unique_indices=True), whole, joined)

  if num_positions <= block:
    return everyone(0, None)
  reading = [lambda start, whole, count=count: longest(count, start, whole)
             for count in counts[:-1]] + [everyone]

  def read_block(i: jax.Array, whole: Partial) -> Partial:
    num_rows = (length > i * block).sum()
    return jax.lax.switch(jnp.searchsorted(jnp.array(counts), num_rows), reading, i * block, whole)

  num_blocks = (length.max() + block - 1) // block
  return jax.lax.fori_loop(1, num_blocks, read_block, everyone(0, None))


def positions_read(lengths: np.ndarray, block: int) -> int:
  """Cache positions that one call of `attend_path` reads for slots of `lengths` `[B]`.

  A cache that is shorter than a block counts as one.
  """
  counts = np.array(row_counts(len(lengths)))
  starts = np.arange(block, max(int(lengths.max()), 1), block)
  num_rows = (lengths[None, :] > starts[:, None]).sum(1)
  return block * int(len(lengths) + counts[np.searchsorted(counts, num_rows)].sum())
