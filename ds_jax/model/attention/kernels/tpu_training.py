"""Attention of the training form as TPU kernels, forward and backward: scores never leave the chip.

On v5p, whose two cores share a device, the compiler keeps no product of matrices in on-chip memory:
left to XLA, float32 scores of every block go through main memory, 80 GB of a layer and row of
18,432 tokens at 1.5B, where other TPUs move 17. That takes longer than the products. With these
kernels it is 3.5 GB, on all of them. A program holds a block of queries, of all the heads that read
the same keys, and a block of keys. The grid runs over a list of the pairs of blocks that have
something to attend, so that holes between the branches of a tree, other sequences of a row and what
is outside a window cost nothing (arXiv:2307.08691).

Scores lie with keys along sublanes and queries along lanes, [keys, queries]: what there is one of
per query (maximum, sum, normaliser) is one row, where the usual layout would hold it 128 times.
One backward kernel makes all gradients. It visits query after query and holds the sums of all keys
of its part of the row; parts, of which each has a gradient of the queries, are added up after it.

What jax ships was looked at first (0.10): splash attention's segment ids tell sequences apart, but
not the paths of a tree, and its fused backward pass writes a gradient of all queries for every
block of keys.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ds_jax.model.attention.partial import MASKED

# Scopes of the kernels, by which a plan knows them.
FORWARD, BACKWARD = 'tpu_attention_forward', 'tpu_attention_backward'

KEYS = 512  # of a block
# Bytes of a block of queries, and of the sums of keys that a program holds: with all that is beside
# them they fit the 16 MiB of a core of v4, the smallest on-chip memory of a TPU.
_QUERY_BYTES, _SUM_BYTES = 2**19, 5 * 2**20
# Heads that are written out one after another, for the compiler to do one's products while it does
# another's exponentials; more are a loop over as many.
_MAX_UNROLLED = 8

# What a program is told of its pair of blocks: their indices, and in the lowest bits whether some
# or all of the queries see the keys, and whether it is the first or the last of these queries.
_SOME, _ALL, _FIRST, _LAST = 1, 2, 4, 8
_KEY_SHIFT, _QUERY_SHIFT = 4, 16

# Dimensions of matrix products.
_PLAIN = (((1,), (0,)), ((), ()))  # a b
_OF_ROWS = (((1,), (1,)), ((), ()))  # a b'
_OF_COLUMNS = (((0,), (0,)), ((), ()))  # a' b


class _Marks(NamedTuple):
  """What masks are made of: arrays, or blocks of them, all int32."""

  key_end: Any  # [B, 1, S]
  window: Any = None  # [1]; None: there is none, and positions are not read
  key_position: Any = None  # [B, 1, S]
  query_position: Any = None  # [B, 1, S]


class _Inputs(NamedTuple):
  """What both kernels read: arrays, or blocks of them."""

  marks: _Marks
  q: Any  # [B, C, G, S, D]
  k: Any  # [B, C, S, D]
  v: Any  # [B, C, S, D]


class _Gradients(NamedTuple):
  """What the backward kernel reads besides."""

  d_out: Any  # [B, C, G, S, D]
  normalizer: Any  # [B, C, G, 1, S] float32
  delta: Any  # [B, C, G, 1, S] float32, sum(d_out * out) over D


class _Output(NamedTuple):
  """One result of a kernel."""

  shape: tuple[int, ...]
  dtype: Any
  block: pl.BlockSpec


def query_block(group: int, width: int, itemsize: int) -> int:
  """Queries of a block, of each of `group` heads of this width; 0: left to XLA."""
  bytes_of_query = group * width * itemsize
  fitting = [size for size in (512, 256, 128) if size * bytes_of_query <= _QUERY_BYTES]
  return fitting[0] if fitting and width % 64 == 0 else 0


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
    q_BxCxSxGxD: queries. k_BxCxSxD, v_BxCxSxD: keys and values; S is a multiple of KEYS.
    key_end: `[B, S]` int32; query i sees key j iff j <= i < key_end[j].
    positions: `[B, S]` int32; read with a window alone.
    window: `[]` int32, a query sees the keys that are fewer positions before it; None: all.
    interpret: whether to run as ordinary operations, on any device.

  Returns:
    The attention, and `[B, C, S, G]` float32; both 0 for a query that sees nothing.
  """
  grid = _Grid.of_queries(q_BxCxSxGxD)
  group, size, width = grid.group, grid.size, grid.width
  row = pltpu.VMEM((group, 1, size), jnp.float32)
  shape = (grid.rows, grid.heads, group)
  out, normalizer = _call(
    _forward_step,
    FORWARD,
    grid,
    marks=_make_marks(key_end, positions, window),
    tensors=(q_BxCxSxGxD, k_BxCxSxD, v_BxCxSxD),
    outputs=[
      _Output((*shape, grid.positions, width), q_BxCxSxGxD.dtype, grid.queries()),
      _Output((*shape, 1, grid.positions), jnp.float32, grid.query_numbers()),
    ],
    scratch=[row, row, pltpu.VMEM((group, width, size), jnp.float32)],
    num_products=2,
    interpret=interpret,
  )
  return out.swapaxes(2, 3), normalizer[:, :, :, 0].swapaxes(2, 3)


def backward(
  q_BxCxSxGxD: jax.Array,
  k_BxCxSxD: jax.Array,
  v_BxCxSxD: jax.Array,
  *,
  key_end: jax.Array,
  out: jax.Array,
  normalizer: jax.Array,
  d_out: jax.Array,
  positions: jax.Array | None = None,
  window: jax.Array | int | None = None,
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
  grid = _Grid.of_keys(q_BxCxSxGxD)
  delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1)
  by_head = lambda x: x.swapaxes(2, 3)[:, :, :, None]  # [B, C, S, G] -> [B, C, G, 1, S]
  heads = (grid.rows, grid.heads)
  of_queries = (grid.num_parts, *heads, grid.group, grid.width, grid.positions)
  of_keys = (*heads, grid.keys_of_part, grid.num_parts, KEYS, grid.width)
  d_q, d_k, d_v = _call(
    _backward_step,
    BACKWARD,
    grid,
    marks=_make_marks(key_end, positions, window),
    tensors=(q_BxCxSxGxD, k_BxCxSxD, v_BxCxSxD),
    gradients=_Gradients(d_out.swapaxes(2, 3), by_head(normalizer), by_head(delta)),
    outputs=[
      _Output(of_queries, jnp.float32, grid.query_sums()),
      _Output(of_keys, jnp.float32, grid.key_sums()),
      _Output(of_keys, jnp.float32, grid.key_sums()),
    ],
    num_products=5,
    interpret=interpret,
  )
  scale = grid.width**-0.5
  whole = lambda x: x.reshape(*heads, -1, grid.width)[:, :, : grid.positions]
  return (
    jnp.moveaxis(d_q.sum(0) * scale, 4, 2).astype(q_BxCxSxGxD.dtype),
    (whole(d_k) * scale).astype(k_BxCxSxD.dtype),
    whole(d_v).astype(v_BxCxSxD.dtype),
  )


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Programs over (row, head of keys, part) and the pairs of blocks of that part, in order.

  Pairs are in parts so that their sums fit, and so that there is an even number of programs to run
  side by side: two cores that share a device take half of them each.
  """

  rows: int  # B
  heads: int  # C
  group: int  # G
  positions: int  # S
  width: int  # D
  itemsize: int  # bytes of a number of q, k and v
  size: int  # queries of a block, of each head
  num_parts: int
  is_split_by_keys: bool  # else by queries

  @classmethod
  def of_queries(cls, q: jax.Array) -> _Grid:
    """Every part has all keys of some queries."""
    rows, heads = q.shape[:2]
    return cls._of(q, num_parts=1 + rows * heads % 2, is_split_by_keys=False)

  @classmethod
  def of_keys(cls, q: jax.Array) -> _Grid:
    """Every part has some keys of all queries."""
    rows, heads, positions, _, width = q.shape
    num_keys = positions // KEYS
    keys_that_fit = max(_SUM_BYTES // (2 * 4 * KEYS * width), 1)  # of k and of v, in float32
    num_parts = -(-num_keys // keys_that_fit)
    num_parts += rows * heads * num_parts % 2
    return cls._of(q, num_parts=min(num_parts, num_keys), is_split_by_keys=True)

  @classmethod
  def _of(cls, q: jax.Array, **split: Any) -> _Grid:
    rows, heads, positions, group, width = q.shape
    itemsize = q.dtype.itemsize
    size = query_block(group, width, itemsize)
    return cls(rows, heads, group, positions, width, itemsize, size, **split)

  @property
  def num_queries(self) -> int:
    """Blocks of queries."""
    return self.positions // self.size

  @property
  def num_keys(self) -> int:
    """Blocks of keys."""
    return self.positions // KEYS

  @property
  def keys_of_part(self) -> int:
    """Blocks of keys of a part; the last parts may have one fewer."""
    return -(-self.num_keys // self.num_parts)

  def candidates(self) -> np.ndarray:
    """`[parts, query blocks, key blocks]` bool, the pairs that may be visited.

    Parts have about the same number of them. Each has a pair for each of its queries, whose sums
    are written even if they are 0.
    """
    query, key = np.arange(self.num_queries)[:, None], np.arange(self.num_keys)
    part = np.arange(self.num_parts)[:, None, None]
    is_causal = key * KEYS < (query + 1) * self.size
    if self.is_split_by_keys:
      return (key % self.num_parts == part) & (is_causal | (key == part))
    return ((query + 1) // 2 % self.num_parts == part) & is_causal  # 0, 1, 1, 0, 0, ...

  def place(self, program: Any) -> tuple[Any, Any, Any]:
    """Row, head and part of a program."""
    head, part = jax.lax.div(program, self.num_parts), jax.lax.rem(program, self.num_parts)
    return jax.lax.div(head, self.heads), jax.lax.rem(head, self.heads), part

  def pair(self, pairs: Any, program: Any, step: Any) -> tuple[Any, Any, Any]:
    """Blocks of queries and keys of a step, and its bits."""
    row, _, part = self.place(program)
    packed = pairs[row * self.num_parts + part, step]
    key = (packed & (2**_QUERY_SHIFT - 1)) >> _KEY_SHIFT
    return packed >> _QUERY_SHIFT, key, packed & (2**_KEY_SHIFT - 1)

  def queries(self) -> pl.BlockSpec:
    block = (None, None, self.group, self.size, self.width)
    return self._spec(block, lambda b, c, p, i, j: (b, c, 0, i, 0))

  def query_numbers(self) -> pl.BlockSpec:
    block = (None, None, self.group, 1, self.size)
    return self._spec(block, lambda b, c, p, i, j: (b, c, 0, 0, i))

  def query_sums(self) -> pl.BlockSpec:
    block = (None, None, None, self.group, self.width, self.size)
    return self._spec(block, lambda b, c, p, i, j: (p, b, c, 0, 0, i))

  def keys(self) -> pl.BlockSpec:
    return self._spec((None, None, KEYS, self.width), lambda b, c, p, i, j: (b, c, j, 0))

  def key_sums(self) -> pl.BlockSpec:
    block = (None, None, self.keys_of_part, None, KEYS, self.width)
    return self._spec(block, lambda b, c, p, i, j: (b, c, 0, p, 0, 0))

  def marks(self, has_window: bool) -> _Marks:
    of_keys = self._spec((None, 1, KEYS), lambda b, c, p, i, j: (b, 0, j))
    of_queries = self._spec((None, 1, self.size), lambda b, c, p, i, j: (b, 0, i))
    if not has_window:
      return _Marks(of_keys)
    return _Marks(of_keys, pl.BlockSpec(memory_space=pltpu.SMEM), of_keys, of_queries)

  def _spec(self, block: tuple[int | None, ...], index: Callable[..., Any]) -> pl.BlockSpec:
    """A block by (row, head, part, block of queries, block of keys)."""

    def of_step(program, step, pairs):
      return index(*self.place(program), *self.pair(pairs, program, step)[:2])

    return pl.BlockSpec(block, of_step)


def _call(
  kernel: Callable[..., None],
  name: str,
  grid: _Grid,
  *,
  marks: _Marks,
  tensors: tuple[jax.Array, jax.Array, jax.Array],
  gradients: _Gradients | None = None,
  outputs: list[_Output],
  scratch: list[Any] | None = None,
  num_products: int,
  interpret: bool,
) -> list[jax.Array]:
  """Runs one kernel over the pairs of blocks that have something to attend."""
  q, k, v = tensors
  inputs = (_Inputs(marks, q.swapaxes(2, 3), k, v), gradients)
  numbers = grid.query_numbers()
  blocks = (
    _Inputs(grid.marks(marks.window is not None), grid.queries(), grid.keys(), grid.keys()),
    gradients and _Gradients(grid.queries(), numbers, numbers),
  )
  pairs, num_steps = list_pairs(grid, marks)
  # What a row takes that is one sequence: queries are read once in every part, keys in every pair.
  num_pairs = grid.rows * grid.heads * int(grid.candidates().sum())
  num_scores = num_pairs * grid.group * grid.size * KEYS
  of_queries = sum(x.nbytes for x in jax.tree.leaves((q, gradients)))
  of_pair = 2 * KEYS * grid.width * grid.itemsize
  num_reads = grid.num_parts if grid.is_split_by_keys else 1
  with jax.named_scope(name):
    return pl.pallas_call(
      functools.partial(kernel, grid=grid),
      grid_spec=pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(grid.rows * grid.heads * grid.num_parts, num_steps),
        in_specs=list(blocks),
        out_specs=[output.block for output in outputs],
        scratch_shapes=scratch or [],
      ),
      out_shape=[jax.ShapeDtypeStruct(output.shape, output.dtype) for output in outputs],
      compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'arbitrary')),
      cost_estimate=pl.CostEstimate(
        flops=2 * num_products * num_scores * grid.width,
        transcendentals=num_scores,
        bytes_accessed=num_pairs * of_pair + num_reads * of_queries,
      ),
      interpret=interpret,
      name=name,
    )(pairs, *inputs)


def _make_marks(
  key_end: jax.Array, positions: jax.Array | None, window: jax.Array | int | None
) -> _Marks:
  if window is None:
    return _Marks(key_end[:, None])
  window = jnp.reshape(jnp.asarray(window, jnp.int32), 1)
  return _Marks(key_end[:, None], window, positions[:, None], positions[:, None])


def list_pairs(grid: _Grid, marks: _Marks) -> tuple[jax.Array, jax.Array]:
  """Which pairs of blocks have something to attend, of every row and part, in order.

  Returns:
    `[B * parts, candidates]` int32, a pair's indices and bits, the last pair without bits behind
    the others; and how many the longest list has.
  """
  candidates = grid.candidates()
  # The last one of each block of queries is there whatever the row is, to write its sums.
  is_last_candidate = np.cumsum(candidates[..., ::-1], -1)[..., ::-1] == 1
  kind = _kind_of_pairs(grid, marks)[:, None]
  is_chosen = candidates & ((kind > 0) | is_last_candidate)
  code = np.arange(kind[0].size).reshape(kind.shape[1:]) * 4 + kind

  def flat(x: jax.Array) -> jax.Array:
    return x.reshape(grid.rows * grid.num_parts, -1)

  longest = candidates.sum((1, 2)).max()
  beyond = np.iinfo(np.int32).max
  codes = jnp.sort(flat(jnp.where(is_chosen, code, beyond)), -1)[:, :longest]
  last = flat(jnp.where(is_chosen, code, 0)).max(-1, keepdims=True)
  count, step = flat(is_chosen).sum(-1, keepdims=True), np.arange(longest)
  codes = jnp.where(step < count, codes, last)
  query, key = codes // 4 // grid.num_keys, codes // 4 % grid.num_keys
  is_first = (step == 0) | (query != jnp.roll(query, 1, -1))
  is_last = (step == count - 1) | (query != jnp.roll(query, -1, -1))
  bits = codes % 4 + _FIRST * is_first + _LAST * is_last
  pairs = (query << _QUERY_SHIFT) + (key << _KEY_SHIFT) + jnp.where(step < count, bits, 0)
  return pairs.astype(jnp.int32), count.max().astype(jnp.int32)


def _kind_of_pairs(grid: _Grid, marks: _Marks) -> jax.Array:
  """`[B, query blocks, key blocks]` int32: _SOME or _ALL, or 0 where nothing is attended.

  It is asked of every query, but of a block of keys as a whole: what ends last and what is nearest
  may be different keys. The mask tells.
  """
  query = np.arange(grid.positions).reshape(-1, grid.size, 1)
  first_key = np.arange(grid.num_keys) * KEYS
  of_queries = lambda x: x.reshape(grid.rows, -1, grid.size, 1)
  of_keys = lambda x: x.reshape(grid.rows, 1, 1, -1, KEYS)
  ends = of_keys(marks.key_end)
  is_some = (first_key <= query) & (query < ends.max(-1))  # [B, query blocks, size, key blocks]
  is_all = (first_key + KEYS - 1 <= query) & (query < ends.min(-1))
  if marks.window is not None:
    position, of_key = of_queries(marks.query_position), of_keys(marks.key_position)
    is_some &= position - of_key.max(-1) < marks.window
    is_all &= position - of_key.min(-1) < marks.window
  return jnp.where(is_all.all(2), _ALL, jnp.where(is_some.any(2), _SOME, 0))


def _column(row: jax.Array) -> jax.Array:
  """[1, n] -> [n, 1]; a TPU turns whole tiles."""
  return jnp.broadcast_to(row, (128, row.shape[1])).T[:, :1]


def _attend_pair(
  grid: _Grid,
  pairs: Any,
  marks: _Marks,
  *,
  attend_head: Callable[[int, jax.Array | None], None],
) -> None:
  """Calls `attend_head` for every head, with what is added to its scores [keys, queries]."""
  i, j, bits = grid.pair(pairs, pl.program_id(0), pl.program_id(1))

  def attend(bias: jax.Array | None) -> None:
    def body(g, _):
      attend_head(g, bias)
      return ()

    jax.lax.fori_loop(0, grid.group, body, (), unroll=min(grid.group, _MAX_UNROLLED))

  @pl.when(bits & _ALL != 0)
  def _():
    attend(None)

  @pl.when(bits & _SOME != 0)
  def _():
    query = i * grid.size + jax.lax.broadcasted_iota(jnp.int32, (1, grid.size), 1)
    key = j * KEYS + jax.lax.broadcasted_iota(jnp.int32, (KEYS, 1), 0)
    is_seen = (key <= query) & (query < _column(marks.key_end[...]))
    if marks.window is not None:
      distance = marks.query_position[...] - _column(marks.key_position[...])
      is_seen &= distance < marks.window[0]
    attend(jnp.where(is_seen, 0.0, MASKED))


def _product(a: jax.Array, b: jax.Array, dimensions: Any = _PLAIN) -> jax.Array:
  return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _scores(keys: jax.Array, query: jax.Array, bias: jax.Array | None) -> jax.Array:
  """Scores [keys, queries]; far below all others where a bias says so."""
  scores = _product(keys, query, _OF_ROWS) * query.shape[-1] ** -0.5
  return scores if bias is None else scores + bias


def _forward_step(
  pairs: Any,
  inputs: _Inputs,
  _,
  out: Any,
  normalizer: Any,
  max_score: Any,
  sum_exp: Any,
  total: Any,
  *,
  grid: _Grid,
):
  """One program: a block of queries and one of keys.

  Args:
    pairs: of `list_pairs`.
    inputs: blocks.
    out, normalizer: results `[G, queries, D]` and `[G, 1, queries]`.
    max_score, sum_exp, total: carried along, `[G, 1, queries]` and `[G, D, queries]`: the largest
      score, and sums of exp(score - max) and of that times the value.
    grid: static.
  """
  bits = grid.pair(pairs, pl.program_id(0), pl.program_id(1))[2]

  @pl.when(bits & _FIRST != 0)
  def _():
    max_score[...] = jnp.full(max_score.shape, 0.1 * MASKED, jnp.float32)
    sum_exp[...] = jnp.zeros(sum_exp.shape, jnp.float32)
    total[...] = jnp.zeros(total.shape, jnp.float32)

  def attend_head(g: int, bias: jax.Array | None) -> None:
    # One step of the softmax: earlier sums are scaled to the new maximum.
    scores = _scores(inputs.k[...], inputs.q[g], bias)
    maximum = jnp.maximum(max_score[g], scores.max(0, keepdims=True))
    weights, scale = jnp.exp(scores - maximum), jnp.exp(max_score[g] - maximum)
    values = inputs.v[...]
    total[g] = total[g] * scale + _product(values, weights.astype(values.dtype), _OF_COLUMNS)
    sum_exp[g] = sum_exp[g] * scale + weights.sum(0, keepdims=True)
    max_score[g] = maximum

  _attend_pair(grid, pairs, inputs.marks, attend_head=attend_head)

  @pl.when(bits & _LAST != 0)
  def _():
    divisor = jnp.maximum(sum_exp[...], 1e-30)  # a query may see nothing
    normalizer[...] = jnp.where(sum_exp[...] > 0, max_score[...] + jnp.log(divisor), 0.0)
    for g in range(grid.group):
      out[g] = (total[g] / divisor[g]).T.astype(out.dtype)


def _backward_step(
  pairs: Any,
  inputs: _Inputs,
  gradients: _Gradients,
  d_q: Any,
  d_k: Any,
  d_v: Any,
  *,
  grid: _Grid,
):
  """One program: a block of queries and one of keys.

  Args:
    pairs: of `list_pairs`.
    inputs, gradients: blocks.
    d_q: sums over the keys of the part, `[G, D, queries]`.
    d_k, d_v: sums over all queries, of all keys of the part, `[key blocks, KEYS, D]`.
    grid: static.
  """
  _, j, bits = grid.pair(pairs, pl.program_id(0), pl.program_id(1))
  block = jax.lax.div(j, grid.num_parts)

  @pl.when(pl.program_id(1) == 0)
  def _():
    def clear(n, _):
      d_k[n] = jnp.zeros(d_k.shape[1:], jnp.float32)
      d_v[n] = jnp.zeros(d_v.shape[1:], jnp.float32)
      return ()

    jax.lax.fori_loop(0, grid.keys_of_part, clear, ())

  @pl.when(bits & _FIRST != 0)
  def _():
    d_q[...] = jnp.zeros(d_q.shape, jnp.float32)

  def attend_head(g: int, bias: jax.Array | None) -> None:
    keys, query, d_out = inputs.k[...], inputs.q[g], gradients.d_out[g]
    weights = jnp.exp(_scores(keys, query, bias) - gradients.normalizer[g])
    d_v[block] += _product(weights.astype(d_out.dtype), d_out)
    d_weights = _product(inputs.v[...], d_out, _OF_ROWS)
    d_scores = (weights * (d_weights - gradients.delta[g])).astype(query.dtype)
    d_k[block] += _product(d_scores, query)
    d_q[g] += _product(keys, d_scores, _OF_COLUMNS)

  _attend_pair(grid, pairs, inputs.marks, attend_head=attend_head)
