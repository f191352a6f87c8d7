"""Attention of the training form as GPU kernels (Pallas, by Triton), forward and backward.

Left to XLA, scores of every block go through a GPU's memory: 61 of the 68 TB that an update of 8
rows of 18,432 tokens moves at 1.5B, five times what its products take (compiled for an H200). Here
a program holds a tile of queries (backward: of queries, then of keys) and visits the tiles that
they see, so that holes between the branches of a tree cost nothing (arXiv:2307.08691).

What jax ships was looked at first (0.10): `pallas.ops.gpu.attention` and cuDNN's tell sequences
apart, but not the paths of a tree.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ds_jax.model.attention.kernels.triton import (
  attend_nothing,
  attend_tile,
  compiler_params,
  product,
  tile_sizes,
  whole,
)
from ds_jax.model.attention.partial import MASKED


def tile_size(width: int, itemsize: int) -> int:
  """Queries, and keys, of a tile of heads of this width; 0: left to XLA."""
  return next((n for n in tile_sizes(width, itemsize) if n <= 64), 0)


def forward(
  q_BxCxSxGxD: jax.Array,
  k_BxCxSxD: jax.Array,
  v_BxCxSxD: jax.Array,
  key_end: jax.Array,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Attention `[B, C, S, G, D]` in the dtype of q, and the log of each query's normaliser.

  Args:
    q_BxCxSxGxD: queries. k_BxCxSxD, v_BxCxSxD: keys and values; S is a multiple of a tile.
    key_end: `[B, S]` int32; query i sees key j iff j <= i < key_end[j].
    interpret: whether to run as ordinary operations, on any device.

  Returns:
    The attention, and `[B, C, S, G]` float32; both 0 for a query that sees nothing.
  """
  tiles = _Tiles(q_BxCxSxGxD)
  scalars = (*_listed(seen_tiles(key_end, tiles.size)), key_end)
  out, normalizer = _call(
    _forward_tile,
    'attention_forward',
    tiles.query_grid(),
    scalars,
    [(q_BxCxSxGxD, tiles.queries()), (k_BxCxSxD, None), (v_BxCxSxD, None)],
    [
      (q_BxCxSxGxD.shape, q_BxCxSxGxD.dtype, tiles.queries()),
      (q_BxCxSxGxD.shape[:4], jnp.float32, tiles.query_numbers()),
    ],
    products=2,
    interpret=interpret,
  )
  return out, normalizer


def backward(
  q_BxCxSxGxD: jax.Array,
  k_BxCxSxD: jax.Array,
  v_BxCxSxD: jax.Array,
  key_end: jax.Array,
  out: jax.Array,
  normalizer: jax.Array,
  d_out: jax.Array,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gradients of q, k and v in their dtypes, from the results of `forward` and d_out.

  With p the weights and delta = sum(d_out * out): dv = p' d_out, ds = p * (d_out v' - delta).
  """
  tiles = _Tiles(q_BxCxSxGxD)
  is_seen = seen_tiles(key_end, tiles.size)
  delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1)
  of_query = [
    (q_BxCxSxGxD, tiles.queries()),
    (d_out, tiles.queries()),
    (normalizer, tiles.query_numbers()),
    (delta, tiles.query_numbers()),
  ]
  (d_q,) = _call(
    _backward_queries,
    'attention_backward_q',
    tiles.query_grid(),
    (*_listed(is_seen), key_end),
    [*of_query, (k_BxCxSxD, None), (v_BxCxSxD, None)],
    [(q_BxCxSxGxD.shape, q_BxCxSxGxD.dtype, tiles.queries())],
    products=3,
    interpret=interpret,
  )
  d_k, d_v = _call(
    functools.partial(_backward_keys, group=q_BxCxSxGxD.shape[3]),
    'attention_backward_kv',
    tiles.key_grid(),
    (*_listed(is_seen.swapaxes(1, 2)), key_end),
    [*((x, None) for x, _ in of_query), (k_BxCxSxD, tiles.keys()), (v_BxCxSxD, tiles.keys())],
    [(x.shape, x.dtype, tiles.keys()) for x in (k_BxCxSxD, v_BxCxSxD)],
    products=4,
    interpret=interpret,
  )
  return d_q, d_k, d_v


class _Tiles:
  """Grids and blocks over tiles of queries [B, C, S, G, D] and their keys.

  The last queries come first, as in `_query_tile`: they see most.
  """

  def __init__(self, q: jax.Array):
    self.rows, self.heads, positions, self.group, self.width = q.shape
    self.size = tile_size(self.width, q.dtype.itemsize)
    self.count = positions // self.size

  def query_grid(self) -> tuple[int, ...]:
    return self.count, self.heads * self.group, self.rows

  def key_grid(self) -> tuple[int, ...]:
    return self.count, self.heads, self.rows

  def queries(self) -> pl.BlockSpec:
    return pl.BlockSpec(
      (None, None, self.size, None, self.width),
      lambda i, h, b: (b, h // self.group, self.count - 1 - i, h % self.group, 0),
    )

  def query_numbers(self) -> pl.BlockSpec:
    return pl.BlockSpec(
      (None, None, self.size, None),
      lambda i, h, b: (b, h // self.group, self.count - 1 - i, h % self.group),
    )

  def keys(self) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, self.size, self.width), lambda j, c, b: (b, c, j, 0))


def _call(
  kernel: Any,
  name: str,
  grid: tuple[int, ...],
  scalars: tuple[jax.Array, ...],
  inputs: list,
  outputs: list,
  *,
  products: int,
  interpret: bool,
) -> list[jax.Array]:
  """One kernel; inputs are arrays with their blocks (None: whole), outputs shape, dtype, block."""
  arrays = [*scalars, *(x for x, _ in inputs)]
  rows, heads, positions, group, width = inputs[0][0].shape
  pairs = rows * heads * group * positions * positions // 2
  with jax.named_scope(name):
    return pl.pallas_call(
      kernel,
      grid=grid,
      in_specs=[*map(whole, scalars), *(spec or whole(x) for x, spec in inputs)],
      out_specs=[spec for *_, spec in outputs],
      out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype, _ in outputs],
      compiler_params=compiler_params(),
      cost_estimate=pl.CostEstimate(
        flops=2 * products * pairs * width,
        transcendentals=pairs,
        bytes_accessed=sum(x.nbytes for x in arrays),
      ),
      interpret=interpret,
      name=name,
    )(*arrays)


def seen_tiles(key_end: jax.Array, size: int) -> jax.Array:
  """`[B, query tiles, key tiles]` bool: False where no query of a tile sees a key of the other."""
  last_end = key_end.reshape(len(key_end), -1, size).max(-1)
  index = jnp.arange(last_end.shape[1])
  return (index <= index[:, None]) & (index[:, None] * size < last_end[:, None, :])


def _listed(chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Along the last axis: indices, those of what is chosen first, and the number of these."""
  return jnp.argsort(~chosen, axis=-1).astype(jnp.int32), chosen.sum(-1, dtype=jnp.int32)


def _scores(
  query: jax.Array, keys: jax.Array, query_start: Any, key_start: Any, key_end: jax.Array
) -> jax.Array:
  """Scores [queries, keys] of two tiles, masked."""
  scores = product(query, keys.T) * query.shape[-1] ** -0.5
  place = query_start + jnp.arange(len(query))[:, None]
  is_seen = (key_start + jnp.arange(len(keys))[None, :] <= place) & (place < key_end[None, :])
  return jnp.where(is_seen, scores, MASKED)


def _query_tile(k: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Row, head of keys, and tile of queries of a program of `_Tiles.query_grid`."""
  head = pl.program_id(1) * k.shape[1] // pl.num_programs(1)
  return pl.program_id(2), head, pl.num_programs(0) - 1 - pl.program_id(0)


def _forward_tile(order, count, key_end, q, k, v, out, normalizer):
  """One tile of queries of one head over the tiles of keys that it sees."""
  row, head, i = _query_tile(k)
  query = q[...]
  size = len(query)

  def attend(n, carry):
    start = order[row, i, n] * size
    at = pl.ds(start, size)
    scores = _scores(query, k[row, head, at, :], i * size, start, key_end[row, at])
    return attend_tile(carry, scores, v[row, head, at, :])

  total, highest, sum_exp = jax.lax.fori_loop(0, count[row, i], attend, attend_nothing(query))
  divisor = jnp.maximum(sum_exp, 1e-30)
  out[...] = (total / divisor[:, None]).astype(out.dtype)
  normalizer[...] = jnp.where(sum_exp > 0, highest + jnp.log(divisor), 0.0)


def _backward_queries(order, count, key_end, q, d_out, normalizer, delta, k, v, d_q):
  """The gradient of one tile of queries of one head."""
  row, head, i = _query_tile(k)
  query, d_out, normalizer, delta = q[...], d_out[...], normalizer[...], delta[...]
  size = len(query)

  def add(n, total):
    start = order[row, i, n] * size
    at = pl.ds(start, size)
    keys = k[row, head, at, :]
    scores = _scores(query, keys, i * size, start, key_end[row, at])
    weights = jnp.exp(scores - normalizer[:, None])
    d_scores = _d_scores(weights, delta, d_out, v[row, head, at, :])
    return total + product(d_scores.astype(query.dtype), keys)

  d_q[...] = jax.lax.fori_loop(0, count[row, i], add, jnp.zeros(query.shape, jnp.float32)).astype(
    d_q.dtype
  )


def _backward_keys(
  order, count, key_end, q, d_out, normalizer, delta, k, v, d_k, d_v, *, group: int
):
  """The gradients of one tile of keys and values of one head, from all its query heads."""
  j, head, row = (pl.program_id(axis) for axis in range(3))
  keys, values = k[...], v[...]
  size = len(keys)
  ends = key_end[row, pl.ds(j * size, size)]

  def add(n, carry):
    d_k, d_v = carry
    start, g = order[row, j, jax.lax.div(n, group)] * size, jax.lax.rem(n, group)
    at = pl.ds(start, size)
    query, d_out_tile = q[row, head, at, g, :], d_out[row, head, at, g, :]
    scores = _scores(query, keys, start, j * size, ends)
    weights = jnp.exp(scores - normalizer[row, head, at, g][:, None])
    d_scores = _d_scores(weights, delta[row, head, at, g], d_out_tile, values)
    return (
      d_k + product(d_scores.astype(query.dtype).T, query),
      d_v + product(weights.astype(d_out_tile.dtype).T, d_out_tile),
    )

  none = jnp.zeros(keys.shape, jnp.float32)
  totals = jax.lax.fori_loop(0, count[row, j] * group, add, (none, none))
  d_k[...], d_v[...] = (total.astype(x.dtype) for total, x in zip(totals, (d_k, d_v), strict=True))


def _d_scores(
  weights: jax.Array, delta: jax.Array, d_out: jax.Array, values: jax.Array
) -> jax.Array:
  """Gradient of the products of queries and keys."""
  return weights * (product(d_out, values.T) - delta[:, None]) * d_out.shape[-1] ** -0.5
