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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ds_jax.model.attention.kernels import triton
from ds_jax.model.attention.kernels.triton import MIN_TILE
from ds_jax.model.attention.partial import MASKED

# Parts of a tile of keys at most, of which it is asked whether they are in a window.
_MAX_PARTS = 8


class _Visits(NamedTuple):
  """Which tiles each program visits, and what a score's mask is made of."""

  order: jax.Array  # [B, tiles, other tiles] int32, those to visit first
  count: jax.Array  # [B, tiles] int32, how many these are
  key_end: jax.Array  # [B, S] int32
  positions: jax.Array | None  # [B, S] int32, where there is a window
  window: jax.Array | None  # [1] int32


class _Queries(NamedTuple):
  """What the backward pass reads of queries: of all heads, or blocks of them."""

  q: Any  # [B, C, S, G, D]
  d_out: Any  # [B, C, S, G, D]
  normalizer: Any  # [B, C, S, G] float32
  delta: Any  # [B, C, S, G] float32, sum(d_out * out) over D


class _Output(NamedTuple):
  """One result of a kernel."""

  shape: tuple[int, ...]
  dtype: Any
  block: pl.BlockSpec


def tile_size(width: int, itemsize: int) -> int:
  """Queries, and keys, of a tile of heads of this width; 0: left to XLA."""
  return next((size for size in triton.tile_sizes(width, itemsize) if size <= 64), 0)


def forward(
  q_BxCxSxGxD: jax.Array,
  k_BxCxSxD: jax.Array,
  v_BxCxSxD: jax.Array,
  *,
  key_end: jax.Array,
  positions: jax.Array | None = None,
  window: jax.Array | int | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Attention `[B, C, S, G, D]` in the dtype of q, and the log of each query's normaliser.

  Args:
    q_BxCxSxGxD: queries. k_BxCxSxD, v_BxCxSxD: keys and values; S is a multiple of a tile.
    key_end: `[B, S]` int32; query i sees key j iff j <= i < key_end[j].
    positions: `[B, S]` int32; read with a window alone.
    window: `[]` int32, a query sees the keys that are fewer positions before it; None: all.
    interpret: whether to run as ordinary operations, on any device.

  Returns:
    The attention, and `[B, C, S, G]` float32; both 0 for a query that sees nothing.
  """
  tiles = _Tiles(q_BxCxSxGxD)
  visible = _Visible(key_end, positions, window)
  out, normalizer = _call(
    _forward_tile,
    'attention_forward',
    tiles.query_grid(),
    inputs=[
      _whole(visible.visits(visible.tiles(tiles.size))),
      (q_BxCxSxGxD, tiles.queries()),
      _whole(k_BxCxSxD),
      _whole(v_BxCxSxD),
    ],
    outputs=[
      _Output(q_BxCxSxGxD.shape, q_BxCxSxGxD.dtype, tiles.queries()),
      _Output(q_BxCxSxGxD.shape[:4], jnp.float32, tiles.query_numbers()),
    ],
    num_pairs=tiles.num_pairs(),
    flops=2 * tiles.product_flops(),
    interpret=interpret,
  )
  return out, normalizer


def backward(
  q_BxCxSxGxD: jax.Array,
  k_BxCxSxD: jax.Array,
  v_BxCxSxD: jax.Array,
  *,
  key_end: jax.Array,
  positions: jax.Array | None = None,
  window: jax.Array | int | None = None,
  out: jax.Array,
  normalizer: jax.Array,
  d_out: jax.Array,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gradients of q, k and v in their dtypes.

  With p the weights and delta = sum(d_out * out): dv = p' d_out, ds = p * (d_out v' - delta),
  dq = ds k, dk = ds' q (arXiv:2307.08691, algorithm 2).

  Args:
    q_BxCxSxGxD: queries. k_BxCxSxD, v_BxCxSxD: keys and values.
    key_end, positions, window: as in `forward`.
    out, normalizer: results of `forward`.
    d_out: gradient of `out`.
    interpret: as in `forward`.
  """
  tiles = _Tiles(q_BxCxSxGxD)
  visible = _Visible(key_end, positions, window)
  is_seen = visible.tiles(tiles.size)
  delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1)
  queries = _Queries(q_BxCxSxGxD, d_out, normalizer, delta)
  query_blocks = _Queries(
    tiles.queries(), tiles.queries(), tiles.query_numbers(), tiles.query_numbers()
  )
  (d_q,) = _call(
    _backward_queries,
    'attention_backward_q',
    tiles.query_grid(),
    inputs=[
      _whole(visible.visits(is_seen)),
      (queries, query_blocks),
      _whole(k_BxCxSxD),
      _whole(v_BxCxSxD),
    ],
    outputs=[_Output(q_BxCxSxGxD.shape, q_BxCxSxGxD.dtype, tiles.queries())],
    num_pairs=tiles.num_pairs(),
    flops=3 * tiles.product_flops(),
    interpret=interpret,
  )
  d_k, d_v = _call(
    functools.partial(_backward_keys, group=tiles.group),
    'attention_backward_kv',
    tiles.key_grid(),
    inputs=[
      _whole(visible.visits(is_seen.swapaxes(1, 2))),
      _whole(queries),
      (k_BxCxSxD, tiles.keys()),
      (v_BxCxSxD, tiles.keys()),
    ],
    outputs=[_Output(x.shape, x.dtype, tiles.keys()) for x in (k_BxCxSxD, v_BxCxSxD)],
    num_pairs=tiles.num_pairs(),
    flops=4 * tiles.product_flops(),
    interpret=interpret,
  )
  return d_q, d_k, d_v


class _Visible(NamedTuple):
  """What says which keys a query sees, as `forward` takes it."""

  key_end: jax.Array
  positions: jax.Array | None
  window: jax.Array | int | None

  def tiles(self, size: int) -> jax.Array:
    return seen_tiles(self.key_end, size, positions=self.positions, window=self.window)

  def visits(self, is_seen: jax.Array) -> _Visits:
    """The visits of tiles [B, tiles, other tiles]."""
    if self.window is None:
      return _Visits(*list_first(is_seen), self.key_end, None, None)
    window = jnp.reshape(jnp.asarray(self.window, jnp.int32), 1)
    return _Visits(*list_first(is_seen), self.key_end, self.positions, window)


class _Tiles:
  """Grids and blocks over tiles of queries [B, C, S, G, D] and their keys.

  The last queries come first, as in `_query_tile`: they see most.
  """

  def __init__(self, q: jax.Array):
    self.rows, self.heads, self.positions, self.group, self.width = q.shape
    self.size = tile_size(self.width, q.dtype.itemsize)
    self.count = self.positions // self.size

  def num_pairs(self) -> int:
    """Pairs of a query and a key at or before it."""
    return self.rows * self.heads * self.group * self.positions * self.positions // 2

  def product_flops(self) -> int:
    """FLOPs of one product of queries and keys."""
    return 2 * self.num_pairs() * self.width

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


def _whole(arrays: Any) -> tuple[Any, Any]:
  """An input of which every program may read all, with its blocks."""
  return arrays, jax.tree.map(triton.whole, arrays)


def _call(
  kernel: Any,
  name: str,
  grid: tuple[int, ...],
  *,
  inputs: list[tuple[Any, Any]],
  outputs: list[_Output],
  num_pairs: int,
  flops: int,
  interpret: bool,
) -> list[jax.Array]:
  """Runs one kernel; an input is an array, or a tuple of arrays, with its blocks."""
  arrays = [array for array, _ in inputs]
  with jax.named_scope(name):
    return pl.pallas_call(
      kernel,
      grid=grid,
      in_specs=[block for _, block in inputs],
      out_specs=[output.block for output in outputs],
      out_shape=[jax.ShapeDtypeStruct(output.shape, output.dtype) for output in outputs],
      compiler_params=triton.compiler_params(),
      cost_estimate=pl.CostEstimate(
        flops=flops,
        transcendentals=num_pairs,
        bytes_accessed=sum(x.nbytes for x in jax.tree.leaves(arrays)),
      ),
      interpret=interpret,
      name=name,
    )(*arrays)


def seen_tiles(
  key_end: jax.Array,
  size: int,
  *,
  positions: jax.Array | None = None,
  window: jax.Array | int | None = None,
) -> jax.Array:
  """`[B, query tiles, key tiles]` bool: False where no query of a tile sees a key of the other.

  With a window it is asked of every query and of parts of the tiles of keys, so that little is left
  of what a tile seems to hold in which one branch ends and another begins.
  """
  num_parts = 1 if window is None else max(1, min(_MAX_PARTS, size // MIN_TILE))
  of_parts = lambda x: x.reshape(len(x), -1, size // num_parts).max(-1)
  last_end = of_parts(key_end)
  index = jnp.arange(last_end.shape[1])
  if window is None:
    return (index <= index[:, None]) & (index[:, None] * size < last_end[:, None, :])
  query = jnp.arange(key_end.shape[1])[:, None]
  is_seen = (index * (size // num_parts) <= query) & (query < last_end[:, None, :])
  is_seen &= positions[:, :, None] - of_parts(positions)[:, None, :] < window
  num_tiles = key_end.shape[1] // size
  return is_seen.reshape(-1, num_tiles, size, num_tiles, num_parts).any((2, 4))


def list_first(chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Along the last axis: indices, those of what is chosen first, and the number of these."""
  return jnp.argsort(~chosen, axis=-1).astype(jnp.int32), chosen.sum(-1, dtype=jnp.int32)


def _scores(
  query: jax.Array,
  keys: jax.Array,
  key_end: jax.Array,
  *,
  query_start: Any,
  key_start: Any,
  is_near: jax.Array | None,
) -> jax.Array:
  """Scores [queries, keys] of two tiles, masked; the tiles begin at these positions."""
  scores = triton.product(query, keys.T) * query.shape[-1] ** -0.5
  query_index = query_start + jnp.arange(len(query))[:, None]
  key_index = key_start + jnp.arange(len(keys))[None, :]
  is_seen = (key_index <= query_index) & (query_index < key_end[None, :])
  if is_near is not None:
    is_seen &= is_near
  return jnp.where(is_seen, scores, MASKED)


def _near(
  visits: _Visits, row: Any, size: int, *, query_start: Any, key_start: Any
) -> jax.Array | None:
  """`[queries, keys]` bool, whether a key is in a query's window; None: there is no window."""
  if visits.window is None:
    return None
  queries = visits.positions[row, pl.ds(query_start, size)]
  keys = visits.positions[row, pl.ds(key_start, size)]
  return queries[:, None] - keys[None, :] < visits.window[0]


def _query_tile(k: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Row, head of keys, and tile of queries of a program of `_Tiles.query_grid`."""
  head = pl.program_id(1) * k.shape[1] // pl.num_programs(1)
  return pl.program_id(2), head, pl.num_programs(0) - 1 - pl.program_id(0)


def _forward_tile(visits: _Visits, q: Any, k: Any, v: Any, out: Any, normalizer: Any):
  """One program: a tile of queries of one head over the tiles of keys that it sees."""
  row, head, i = _query_tile(k)
  query = q[...]
  size = len(query)

  def attend(n, before):
    start = visits.order[row, i, n] * size
    at = pl.ds(start, size)
    keys, ends = k[row, head, at, :], visits.key_end[row, at]
    place = {'query_start': i * size, 'key_start': start}
    scores = _scores(query, keys, ends, **place, is_near=_near(visits, row, size, **place))
    return triton.attend_tile(before, scores, v[row, head, at, :])

  total = jax.lax.fori_loop(0, visits.count[row, i], attend, triton.attend_nothing(query))
  divisor = jnp.maximum(total.sum_exp, 1e-30)  # a query may see nothing
  out[...] = (total.weighted_values / divisor[:, None]).astype(out.dtype)
  normalizer[...] = jnp.where(total.sum_exp > 0, total.max_score + jnp.log(divisor), 0.0)


def _backward_queries(visits: _Visits, queries: _Queries, k: Any, v: Any, d_q: Any):
  """One program: the gradient of one tile of queries of one head."""
  row, head, i = _query_tile(k)
  query, d_out, normalizer, delta = (ref[...] for ref in queries)
  size = len(query)

  def add(n, total):
    start = visits.order[row, i, n] * size
    at = pl.ds(start, size)
    keys = k[row, head, at, :]
    ends = visits.key_end[row, at]
    place = {'query_start': i * size, 'key_start': start}
    scores = _scores(query, keys, ends, **place, is_near=_near(visits, row, size, **place))
    weights = jnp.exp(scores - normalizer[:, None])
    d_scores = _d_scores(weights, delta, d_out, v[row, head, at, :])
    return total + triton.product(d_scores.astype(query.dtype), keys)

  zeros = jnp.zeros(query.shape, jnp.float32)
  total = jax.lax.fori_loop(0, visits.count[row, i], add, zeros)
  d_q[...] = total.astype(d_q.dtype)


def _backward_keys(
  visits: _Visits, queries: _Queries, k: Any, v: Any, d_k: Any, d_v: Any, *, group: int
):
  """One program: the gradients of one tile of keys and values, from all its query heads."""
  j, head, row = (pl.program_id(axis) for axis in range(3))
  keys, values = k[...], v[...]
  size = len(keys)
  ends = visits.key_end[row, pl.ds(j * size, size)]

  def add(n, totals):
    d_keys, d_values = totals
    start, g = visits.order[row, j, jax.lax.div(n, group)] * size, jax.lax.rem(n, group)
    at = pl.ds(start, size)
    query, d_out = queries.q[row, head, at, g, :], queries.d_out[row, head, at, g, :]
    place = {'query_start': start, 'key_start': j * size}
    scores = _scores(query, keys, ends, **place, is_near=_near(visits, row, size, **place))
    weights = jnp.exp(scores - queries.normalizer[row, head, at, g][:, None])
    d_scores = _d_scores(weights, queries.delta[row, head, at, g], d_out, values)
    return (
      d_keys + triton.product(d_scores.astype(query.dtype).T, query),
      d_values + triton.product(weights.astype(d_out.dtype).T, d_out),
    )

  zeros = jnp.zeros(keys.shape, jnp.float32)
  num_visits = visits.count[row, j] * group
  d_keys, d_values = jax.lax.fori_loop(0, num_visits, add, (zeros, zeros))
  d_k[...], d_v[...] = d_keys.astype(d_k.dtype), d_values.astype(d_v.dtype)


def _d_scores(
  weights: jax.Array, delta: jax.Array, d_out: jax.Array, values: jax.Array
) -> jax.Array:
  """Gradient of the unscaled products of queries and keys, [queries, keys]."""
  d_weights = triton.product(d_out, values.T)
  return weights * (d_weights - delta[:, None]) * d_out.shape[-1] ** -0.5
