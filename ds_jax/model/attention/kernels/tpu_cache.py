"""Attention of a decode step over its caches as one TPU kernel: scores never leave the chip.

On v5p the compiler keeps no product of matrices in on-chip memory, so that float32 scores, and
blocks of caches collected from several slots, go through main memory: 4.7 times the bytes that a
decode step at 1.5B must move, 1.1 times on v5e. The kernel moves each block of each cache once.

What jax ships was looked at first (0.10): paged attention takes the caches of one layer, which
would be cut out of the whole, and gives no maximum and sum to merge two caches by.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ds_jax.checks import check_shape
from ds_jax.model.attention import path
from ds_jax.model.attention.partial import MASKED, Partial

_SEGMENT_BLOCK = 128


def segment_block(segment_length: int) -> int:
  """Positions of segment caches that the kernel reads at a time; divides their length."""
  return segment_length if segment_length % _SEGMENT_BLOCK else _SEGMENT_BLOCK


def attend_caches(
  q_RxCxQxGxD: jax.Array,
  k_LxRxCxSxD: jax.Array,
  v_LxRxCxSxD: jax.Array,
  *,
  layer: jax.Array | int,
  length: jax.Array,
  block: int,
  rows: int = 1,
  start: jax.Array | None = None,
  name: str,
  interpret: bool = False,
) -> Partial:
  """Partial attention of every row over the first `length[r]` positions of its own cache.

  It is `path.attend_path`, up to the order of summation.

  Args:
    q_RxCxQxGxD: queries; all queries of a row see the same positions.
    k_LxRxCxSxD, v_LxRxCxSxD: caches of all layers; S is a multiple of `block`, or at most one.
    layer: `[]` int32, whose caches are read.
    length: `[R]` int32; rows of length 0 get weights of 0.
    block: positions read at a time.
    rows: how many rows are read at a time, a divisor of R.
    start: `[R]` int32, where the windows of rows begin, blocks before which are not read; None:
      there are no windows.
    name: of the kernel in compiled programs.
    interpret: whether to run as ordinary operations, on any device.

  Raises:
    ValueError: if values or lengths do not belong to the keys and queries.
  """
  num_rows, num_heads, num_queries, group, width = q_RxCxQxGxD.shape
  check_shape('values', v_LxRxCxSxD, k_LxRxCxSxD.shape)
  check_shape('length', length, (num_rows,))
  num_positions, queries = k_LxRxCxSxD.shape[3], num_queries * group
  size = min(block, num_positions)
  num_blocks = num_positions // size
  lengths = [length.reshape(-1, rows).max(1), length]
  if start is not None:
    first = path.first_position(length, start[:, None]).reshape(-1, rows).min(1)
    lengths += [first, start]
  num_scalars = 1 + len(lengths)

  def cache_block(r, i, layer, longest, length, *window):
    del length
    # What is asked for again is not read again.
    last = jnp.maximum(longest[r] - 1, 0) // size
    if window:
      i = jnp.maximum(i, window[0][r] // size)
    return layer[0], r, 0, jnp.minimum(i, last), 0

  def query_spec(last: int) -> pl.BlockSpec:
    return pl.BlockSpec((rows, num_heads, queries, last), lambda r, *_: (r, 0, 0, 0))

  def query_shape(last: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((num_rows, num_heads, queries, last), jnp.float32)

  cache_spec = pl.BlockSpec((None, rows, num_heads, size, width), cache_block)
  num_scores = num_rows * num_heads * queries * num_positions
  with jax.named_scope(name):
    sums = pl.pallas_call(
      functools.partial(_attend_block, rows=rows, size=size, num_scalars=num_scalars),
      grid_spec=pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=num_scalars,
        grid=(num_rows // rows, num_blocks),
        in_specs=[query_spec(width), cache_spec, cache_spec],
        out_specs=Partial(query_spec(width), query_spec(1), query_spec(1)),
      ),
      out_shape=Partial(query_shape(width), query_shape(1), query_shape(1)),
      compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'arbitrary')),
      cost_estimate=pl.CostEstimate(
        flops=4 * num_scores * width,
        transcendentals=num_scores,
        bytes_accessed=2 * k_LxRxCxSxD.nbytes // k_LxRxCxSxD.shape[0],
      ),
      interpret=interpret,
      name=name,
    )(
      jnp.reshape(layer, 1).astype(jnp.int32),
      *lengths,
      q_RxCxQxGxD.reshape(num_rows, num_heads, queries, width),
      k_LxRxCxSxD,
      v_LxRxCxSxD,
    )
  ungroup = lambda x: x.reshape(num_rows, num_heads, num_queries, group, *x.shape[3:])
  return Partial(
    ungroup(sums.weighted_values), ungroup(sums.max_score[..., 0]), ungroup(sums.sum_exp[..., 0])
  )


def _attend_block(*refs, rows: int, size: int, num_scalars: int):
  """One program: one block of `rows` caches; the sums are carried along the blocks.

  Args:
    *refs: scalars; queries `[rows, C, X, D]`, keys and values `[rows, C, size, D]`; and the fields
      of a Partial over queries `[rows, C, X]`. Scalars are the layer `[1]`, which the blocks' index
      has used, the longest length `[R / rows]` of each program's rows, all lengths `[R]`, and where
      there are windows, the first position `[R / rows]` that each program reads, and where each
      window begins `[R]`.
    rows, size, num_scalars: static.
  """
  (_, longest, length, *window), (q, k, v, *sums) = refs[:num_scalars], refs[num_scalars:]
  sums = Partial(*sums)
  row, start = pl.program_id(0), pl.program_id(1) * size

  @pl.when(start == 0)
  def _():
    sums.weighted_values[...] = jnp.zeros(sums.weighted_values.shape, jnp.float32)
    sums.max_score[...] = jnp.full(sums.max_score.shape, 0.1 * MASKED, jnp.float32)
    sums.sum_exp[...] = jnp.zeros(sums.sum_exp.shape, jnp.float32)

  def attend(n: int) -> None:
    scores = jnp.einsum('cxd,csd->cxs', q[n], k[n], preferred_element_type=jnp.float32)
    position = start + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
    is_seen = position < length[row * rows + n]
    if window:
      is_seen &= position >= window[1][row * rows + n]
    scores = jnp.where(is_seen, scores * q.shape[-1] ** -0.5, MASKED)
    # One step of the softmax: earlier sums are scaled to the new maximum.
    max_score = jnp.maximum(sums.max_score[n], scores.max(-1, keepdims=True))
    weights, scale = jnp.exp(scores - max_score), jnp.exp(sums.max_score[n] - max_score)
    sums.weighted_values[n] = sums.weighted_values[n] * scale + jnp.einsum(
      'cxs,csd->cxd', weights.astype(v.dtype), v[n], preferred_element_type=jnp.float32
    )
    sums.sum_exp[n] = sums.sum_exp[n] * scale + weights.sum(-1, keepdims=True)
    sums.max_score[n] = max_score

  is_read = start < longest[row]
  if window:
    is_read &= start + size > window[0][row]

  @pl.when(is_read)
  def _():
    for n in range(rows):
      attend(n)
