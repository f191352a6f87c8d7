"""Attention of a decode step over its caches as one TPU kernel: scores never leave the chip.

On v5p the compiler keeps no product of matrices in on-chip memory, so that float32 scores, and
blocks of caches collected from several slots, go through main memory: 4.7 times the bytes that a
decode step at 1.5B must move, 1.1 times on v5e. The kernel moves each block of each cache once.

What jax ships was looked at first (0.10): paged attention takes the caches of one layer, which
would be cut out of the whole, and gives no maximum and sum to merge two caches by.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh

from ds_jax.checks import InputError
from ds_jax.model.attention.kernels import gpu_cache as gpu_cache_kernel
from ds_jax.model.attention.kernels.triton import FEWEST
from ds_jax.model.attention.partial import MASKED, Partial

# TPUs on which it moves fewer bytes than XLA's programs do (README, 'What fits where').
_PAYS_ON = ('TPU v5', 'TPU v5p')


# Names by which a plan knows how much of what they may read they do read.
PATH_KERNEL, SEGMENT_KERNEL = 'path_kernel', 'segment_kernel'

_SEGMENT_BLOCK = 128


def kernel_for(choice: str, mesh: Mesh) -> str:
  """The kernel by which a mesh reads caches: 'tpu', 'gpu' or ''; the one place that chooses.

  Args:
    choice: 'auto': where it moves fewer bytes; 'on'; 'off'.
    mesh: XLA cannot split a kernel, so that caches split over `tensor` are left to it.

  Raises:
    InputError: for 'on' where none can run.
  """
  device, tensor = mesh.devices.flat[0], mesh.shape['tensor']
  can_run = device.platform in ('tpu', 'gpu') and tensor == 1
  if choice == 'on' and not can_run:
    raise InputError(
      f"search.cache_kernel = 'on' needs TPUs or GPUs and mesh.tensor = 1, got "
      f"{device.platform} and mesh.tensor = {tensor}; set it to 'auto'."
    )
  pays = device.platform == 'gpu' or device.device_kind in _PAYS_ON
  return device.platform if can_run and (choice == 'on' or choice == 'auto' and pays) else ''


def kernel_that_fits(kernel: str, choice: str, lengths: Sequence[int], width: int) -> str:
  """`kernel`, or '' for a GPU's that cannot read caches of these capacities and this head width.

  Raises:
    InputError: if it was asked for by `choice`.
  """
  if kernel != 'gpu' or gpu_cache_kernel.can_read(lengths, width):
    return kernel
  if choice == 'on':
    raise InputError(
      f"search.cache_kernel = 'on' needs segments and path blocks of a multiple of "
      f'{FEWEST} tokens and heads whose width is a power of 2 from '
      f'{FEWEST}, got capacities {", ".join(map(str, lengths))} and width '
      f"{width}; change search.segment_length or search.path_block, or set it to 'auto'."
    )
  return ''


def segment_block(segment_length: int) -> int:
  """Positions of segment caches that the kernel reads at a time; divides their length."""
  return segment_length if segment_length % _SEGMENT_BLOCK else _SEGMENT_BLOCK


def attend_caches(
  q_RxCxQxGxD: jax.Array,
  k_LxRxCxSxD: jax.Array,
  v_LxRxCxSxD: jax.Array,
  layer: jax.Array | int,
  length: jax.Array,
  *,
  block: int,
  rows: int = 1,
  name: str = PATH_KERNEL,
  interpret: bool = False,
) -> Partial:
  """Partial attention of every row over the first `length[r]` positions of its own cache.

  As `path_attention.attend_path`, up to the order of summation.

  Args:
    q_RxCxQxGxD: queries; all queries of a row see the same positions.
    k_LxRxCxSxD, v_LxRxCxSxD: caches of all layers; S is a multiple of `block`, or at most one.
    layer: `[]` int32, whose caches are read.
    length: `[R]` int32; rows of length 0 get weights of 0.
    block: positions read at a time.
    rows: how many rows are read at a time, a divisor of R.
    name: of the kernel in compiled programs.
    interpret: whether to run as ordinary operations, on any device.
  """
  num_rows, num_heads, num_queries, group, width = q_RxCxQxGxD.shape
  num_positions, queries = k_LxRxCxSxD.shape[3], num_queries * group
  size = min(block, num_positions)
  num_blocks = num_positions // size
  longest = length.reshape(-1, rows).max(1)

  def cache_index(r, i, layer, longest, length):
    # What is asked for again is not read again.
    return layer[0], r, 0, jnp.minimum(i, jnp.maximum(longest[r] - 1, 0) // size), 0

  row_index = lambda r, i, *_: (r, 0, 0, 0)
  of_queries = lambda last: pl.BlockSpec((rows, num_heads, queries, last), row_index)
  cache = pl.BlockSpec((None, rows, num_heads, size, width), cache_index)
  as_output = lambda last: jax.ShapeDtypeStruct((num_rows, num_heads, queries, last), jnp.float32)
  numbers = num_rows * num_heads * queries * num_positions
  with jax.named_scope(name):
    weighted, max_score, sum_exp = pl.pallas_call(
      functools.partial(_attend_block, rows=rows, size=size),
      grid_spec=pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=3,
        grid=(num_rows // rows, num_blocks),
        in_specs=[of_queries(width), cache, cache],
        out_specs=[of_queries(width), of_queries(1), of_queries(1)],
      ),
      out_shape=[as_output(width), as_output(1), as_output(1)],
      compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'arbitrary')),
      cost_estimate=pl.CostEstimate(
        flops=4 * numbers * width,
        transcendentals=numbers,
        bytes_accessed=2 * k_LxRxCxSxD.nbytes // k_LxRxCxSxD.shape[0],
      ),
      interpret=interpret,
      name=name,
    )(
      jnp.reshape(layer, 1).astype(jnp.int32),
      longest,
      length,
      q_RxCxQxGxD.reshape(num_rows, num_heads, queries, width),
      k_LxRxCxSxD,
      v_LxRxCxSxD,
    )
  grouped = lambda x: x.reshape(num_rows, num_heads, num_queries, group, *x.shape[3:])
  return Partial(grouped(weighted), grouped(max_score[..., 0]), grouped(sum_exp[..., 0]))


def _attend_block(
  layer, longest, length, q, k, v, weighted, max_score, sum_exp, *, rows: int, size: int
):
  """One block of `rows` caches [rows, C, size, D]; the outputs are carried along the blocks."""
  del layer
  row, start = pl.program_id(0), pl.program_id(1) * size

  @pl.when(start == 0)
  def _():
    weighted[...] = jnp.zeros(weighted.shape, jnp.float32)
    max_score[...] = jnp.full(max_score.shape, 0.1 * MASKED, jnp.float32)
    sum_exp[...] = jnp.zeros(sum_exp.shape, jnp.float32)

  def attend(n):
    scores = jnp.einsum('cxd,csd->cxs', q[n], k[n], preferred_element_type=jnp.float32)
    position = start + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
    scores = jnp.where(position < length[row * rows + n], scores * q.shape[-1] ** -0.5, MASKED)
    new_max = jnp.maximum(max_score[n], scores.max(-1, keepdims=True))
    weights, scale = jnp.exp(scores - new_max), jnp.exp(max_score[n] - new_max)
    weighted[n] = weighted[n] * scale + jnp.einsum(
      'cxs,csd->cxd', weights.astype(v.dtype), v[n], preferred_element_type=jnp.float32
    )
    sum_exp[n] = sum_exp[n] * scale + weights.sum(-1, keepdims=True)
    max_score[n] = new_max

  @pl.when(start < longest[row])
  def _():
    for n in range(rows):
      attend(n)
