"""Attention of the training form: interval visibility, memory that grows linearly with S.

Query i sees key j iff j <= i < key_end[j]; where there is a window, also only if positions[i] -
positions[j] < window, of positions along the sequence or the path. With `key_end` the end of the
key's sequence, several sequences share a row; with nodes of a tree in depth-first order and
`key_end` the end of the key's subtree, every path of the tree is forwarded at once. This is the one
place that chooses how it is computed: short rows in one piece, long ones in blocks of queries and
keys with the softmax carried along and recomputed in the backward pass (arXiv:2205.14135,
arXiv:2307.08691), by loops that XLA compiles or, on GPUs and TPUs, by kernels.

What jax ships was looked at first (0.10): `jax.nn.dot_product_attention` takes a dense mask, and
splash attention's segment ids tell sequences apart but not the paths of a tree: neither is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ds_jax.checks import check_shape
from ds_jax.model.attention.kernels import gpu_training, tpu_training
from ds_jax.model.attention.partial import (
  MASKED,
  Partial,
  attend_nothing,
  attend_part,
  group_heads,
  join,
  ungroup_heads,
)

# Rows of at most this many positions are done in one piece; else queries and keys per block.
BLOCK = 512

# Of kernels that tell a plan what they do, for rows without windows.
KERNEL_SCOPES = (tpu_training.FORWARD, tpu_training.BACKWARD)

# What a remat policy may keep of a layer, so that the backward pass need not attend again.
RESIDUALS = 'attention'

# TPUs on which memory bounds an update without the kernels, as `ds-jax plan` counts: on v5p two
# cores share a device, and scores go through main memory; v6e's products are fast for its memory.
_KERNEL_PAYS_ON = ('TPU v5', 'TPU v5p', 'TPU v6 lite', 'TPU v6e')

# Of `model.attention_kernel`: by a kernel where it pays, wherever there is one, or never.
KernelChoice = Literal['auto', 'on', 'off']

# Instead of 0, where a query that sees nothing divides by the sum of its weights.
_TINY = 1e-30


class Visibility(NamedTuple):
  """Which keys a query sees, and in which blocks there are any."""

  key_end: jax.Array  # [B, S] int32
  seen_blocks: jax.Array  # [queries / BLOCK, keys / BLOCK] bool, of `find_seen_blocks`
  positions: jax.Array | None = None  # [B, S] int32, where there is a window
  window: jax.Array | int | None = None  # [] int32


class Residuals(NamedTuple):
  """What the backward pass needs; S is a multiple of BLOCK."""

  q: jax.Array  # [B, C, S, G, D]
  k: jax.Array  # [B, C, S, D]
  v: jax.Array  # [B, C, S, D]
  visibility: Visibility
  out: jax.Array  # [B, C, S, G, D], the attention
  normalizer: jax.Array  # [B, C, S, G] float32, log of each query's softmax normaliser


class BlockAttention(NamedTuple):
  """How long rows are attended in blocks. Hashable: static under jit."""

  forward: Callable[..., tuple[jax.Array, jax.Array]]  # (q, k, v, visibility) -> (out, normalizer)
  backward: Callable[..., tuple[jax.Array, ...]]  # (Residuals, d_out) -> (dq, dk, dv)


def choose_block_attention(
  choice: KernelChoice, *, heads_are_whole: bool, device_kind: str = ''
) -> BlockAttention:
  """Returns LOOPS, KERNELS, or GPU_KERNELS.

  Args:
    choice: `model.attention_kernel`.
    heads_are_whole: False where heads are split over devices, since XLA cannot split a kernel.
    device_kind: of the devices that it is compiled for; '': not known.
  """
  if choice == 'off' or not heads_are_whole:
    return LOOPS
  return KERNELS if choice == 'on' or device_kind in _KERNEL_PAYS_ON else GPU_KERNELS


def attend(
  q_BxSxHxD: jax.Array,
  k_BxSxCxD: jax.Array,
  v_BxSxCxD: jax.Array,
  *,
  key_end: jax.Array,
  positions: jax.Array | None = None,
  window: jax.Array | int | None = None,
  seen_blocks: jax.Array | None = None,
  blocks: BlockAttention | None = None,
) -> jax.Array:
  """Attention of all positions of all rows at once.

  Args:
    q_BxSxHxD: queries, rotated. k_BxSxCxD, v_BxSxCxD: keys and values.
    key_end: `[B, S]` int32, one past the last query index that sees the key.
    positions: `[B, S]` int32; read with a window alone.
    window: `[]` int32, a query sees the keys that are fewer positions before it; None: all.
    seen_blocks: of `find_seen_blocks`, where a caller has many layers to attend in.
    blocks: how long rows are attended; None: KERNELS.

  Returns:
    `[B, S, H, D]` float32. Each query sees itself at least if `key_end[i] > i`; a query that sees
    nothing (padding) gets zeros.

  Raises:
    ValueError: if keys, values, `key_end` or positions do not belong to the queries.
  """
  num_rows, num_positions, _, width = q_BxSxHxD.shape
  check_shape('keys', k_BxSxCxD, (num_rows, num_positions, None, width))
  check_shape('values', v_BxSxCxD, k_BxSxCxD.shape)
  check_shape('key_end', key_end, (num_rows, num_positions))
  if window is not None:
    check_shape('positions', positions, key_end.shape)
  q = group_heads(q_BxSxHxD, k_BxSxCxD.shape[2])
  k, v = k_BxSxCxD.swapaxes(1, 2), v_BxSxCxD.swapaxes(1, 2)
  if num_positions <= BLOCK:
    mask = _mask(key_end, num_positions, query_start=0, key_start=0)
    if window is not None:
      mask &= _is_near(positions, positions, window)
    part = attend_part(q, k, v, mask)
    total = jnp.maximum(part.sum_exp, _TINY)[..., None]
    return ungroup_heads(part.weighted_values / total)
  if seen_blocks is None:
    seen_blocks = find_seen_blocks(key_end, positions=positions, window=window)
  padding = -num_positions % BLOCK

  def pad(x: jax.Array) -> jax.Array:  # along S, the third axis
    return jnp.pad(x, ((0, 0), (0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 3))

  key_end = jnp.pad(key_end, ((0, 0), (0, padding)))  # padded keys end at 0: nothing sees them
  if window is None:
    positions = None
  else:
    positions = jnp.pad(positions, ((0, 0), (0, padding)))
  visibility = Visibility(key_end, seen_blocks, positions, window)
  out = _attend_blocks(blocks or KERNELS, pad(q), pad(k), pad(v), visibility)
  return ungroup_heads(out[:, :, :num_positions].astype(jnp.float32))


def find_seen_blocks(
  key_end: jax.Array,
  *,
  positions: jax.Array | None = None,
  window: jax.Array | int | None = None,
) -> jax.Array:
  """`[queries / BLOCK, keys / BLOCK]` bool: whether any row has a pair to attend in a block.

  One small reduction over all rows; blocks without a pair are skipped, whatever the layout of the
  rows (causal, packed, trees).

  Args:
    key_end: `[B, S]` int32.
    positions, window: as `attend` has them.
  """
  padding = ((0, 0), (0, -key_end.shape[1] % BLOCK))
  if window is None:
    padded = jnp.pad(key_end.max(0, keepdims=True), padding)
    return gpu_training.seen_tiles(padded, BLOCK)[0]
  key_end, positions = jnp.pad(key_end, padding), jnp.pad(positions, padding)
  return gpu_training.seen_tiles(key_end, BLOCK, positions=positions, window=window).any(0)


def _mask(
  key_end: jax.Array,
  num_queries: int,
  *,
  query_start: jax.Array | int,
  key_start: jax.Array | int,
) -> jax.Array:
  """`[B, Q, K]` bool, whether a query sees a key; key_end being that of the K keys alone."""
  query = query_start + jnp.arange(num_queries)[None, :, None]
  key = key_start + jnp.arange(key_end.shape[1])[None, None, :]
  return (key <= query) & (query < key_end[:, None, :])


def _is_near(queries: jax.Array, keys: jax.Array, window: jax.Array | int) -> jax.Array:
  """`[B, Q, K]` bool, whether a key is in a query's window, by their positions."""
  return queries[:, :, None] - keys[:, None, :] < window


def _block_mask(visibility: Visibility, i: jax.Array, j: jax.Array) -> jax.Array:
  """`[B, BLOCK, BLOCK]` bool, which keys of block j are seen by queries of block i."""
  ends = _block(visibility.key_end, j, axis=1)
  mask = _mask(ends, BLOCK, query_start=i * BLOCK, key_start=j * BLOCK)
  if visibility.window is None:
    return mask
  queries, keys = (_block(visibility.positions, n, axis=1) for n in (i, j))
  return mask & _is_near(queries, keys, visibility.window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_blocks(blocks: BlockAttention, q, k, v, visibility: Visibility):
  """[B, C, S, G, D] of q, in its dtype; k and v are [B, C, S, D], S a multiple of BLOCK."""
  return blocks.forward(q, k, v, visibility)[0]


def _attend_blocks_forward(blocks: BlockAttention, q, k, v, visibility: Visibility):
  out, normalizer = blocks.forward(q, k, v, visibility)
  out, normalizer = checkpoint_name(out, RESIDUALS), checkpoint_name(normalizer, RESIDUALS)
  return out, Residuals(q, k, v, visibility, out, normalizer)


def _attend_blocks_backward(blocks: BlockAttention, residuals: Residuals, d_out: jax.Array):
  return *blocks.backward(residuals, d_out), None


_attend_blocks.defvjp(_attend_blocks_forward, _attend_blocks_backward)


def loop_forward(
  q: jax.Array, k: jax.Array, v: jax.Array, visibility: Visibility
) -> tuple[jax.Array, jax.Array]:
  """The forward pass of a BlockAttention by loops, which XLA compiles anywhere."""

  def attend_queries(i):
    q_block = _block(q, i)

    def add(j, before: Partial) -> Partial:
      mask = _block_mask(visibility, i, j)
      part = lambda: attend_part(q_block, _block(k, j), _block(v, j), mask)
      return jax.lax.cond(
        visibility.seen_blocks[i, j], lambda: join(before, part()), lambda: before
      )

    with jax.named_scope('key_blocks'):
      whole = jax.lax.fori_loop(0, i + 1, add, attend_nothing(q_block))
    total = jnp.maximum(whole.sum_exp, _TINY)
    out = (whole.weighted_values / total[..., None]).astype(q.dtype)
    return out, jnp.where(whole.sum_exp > 0, whole.max_score + jnp.log(total), 0.0)

  out, normalizer = jax.lax.map(attend_queries, jnp.arange(q.shape[2] // BLOCK))
  return _unblock(out), _unblock(normalizer)


def loop_backward(residuals: Residuals, d_out: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The backward pass of a BlockAttention by loops.

  With p the weights and delta = sum(d_out * out): dv = p' d_out, ds = p * (d_out v' - delta),
  dq = ds k, dk = ds' q (arXiv:2307.08691, algorithm 2).
  """
  q, k, v, visibility, out, normalizer = residuals
  scale = q.shape[-1] ** -0.5
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  zeros = jnp.zeros(k.shape, jnp.float32)

  def add_queries(sums, i):
    q_block, d_out_block, log_total = _block(q, i), _block(d_out, i), _block(normalizer, i)
    delta = jnp.sum(d_out_block.astype(jnp.float32) * _block(out, i).astype(jnp.float32), -1)

    def add(j, carry):
      dq_block, dk, dv = carry
      k_block, v_block = _block(k, j), _block(v, j)
      mask = _block_mask(visibility, i, j)[:, None, :, None, :]
      # The weights again, from the normaliser.
      scores = product('bcqgd,bcsd->bcqgs', q_block, k_block) * scale
      scores = jnp.where(mask, scores, MASKED)
      weights = jnp.exp(scores - log_total[..., None])
      # Their gradient, and that of the scores before they are scaled.
      d_weights = product('bcqgd,bcsd->bcqgs', d_out_block, v_block)
      d_scores = (weights * (d_weights - delta[..., None]) * scale).astype(q.dtype)
      dq_block += product('bcqgs,bcsd->bcqgd', d_scores, k_block)
      dk = _add_block(dk, j, product('bcqgs,bcqgd->bcsd', d_scores, q_block))
      dv = _add_block(dv, j, product('bcqgs,bcqgd->bcsd', weights.astype(q.dtype), d_out_block))
      return dq_block, dk, dv

    def add_if_seen(j, carry):
      return jax.lax.cond(visibility.seen_blocks[i, j], lambda: add(j, carry), lambda: carry)

    start = (jnp.zeros(q_block.shape, jnp.float32), *sums)
    with jax.named_scope('key_blocks'):
      dq_block, *sums = jax.lax.fori_loop(0, i + 1, add_if_seen, start)
    return tuple(sums), dq_block.astype(q.dtype)

  (dk, dv), dq = jax.lax.scan(add_queries, (zeros, zeros), jnp.arange(q.shape[2] // BLOCK))
  return _unblock(dq), dk.astype(k.dtype), dv.astype(v.dtype)


def _block(x: jax.Array, index: jax.Array, axis: int = 2) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, index * BLOCK, BLOCK, axis)


def _add_block(total: jax.Array, index: jax.Array, block: jax.Array) -> jax.Array:
  """`total` [B, C, S, ...] with `block` added to the positions of block `index`."""
  added = _block(total, index) + block
  return jax.lax.dynamic_update_slice_in_dim(total, added, index * BLOCK, axis=2)


def _unblock(x: jax.Array) -> jax.Array:
  """[blocks, B, C, BLOCK, ...] -> [B, C, S, ...]."""
  x = jnp.moveaxis(x, 0, 2)
  return x.reshape(*x.shape[:2], -1, *x.shape[4:])


def _keys_seen(visibility: Visibility) -> dict[str, Any]:
  """What kernels are told; they find for themselves which tiles have anything to attend."""
  return {
    'key_end': visibility.key_end,
    'positions': visibility.positions,
    'window': visibility.window,
  }


def _gpu_forward(q, k, v, visibility: Visibility):
  return gpu_training.forward(q, k, v, **_keys_seen(visibility))


def _gpu_backward(residuals: Residuals, d_out: jax.Array):
  q, k, v, visibility, out, normalizer = residuals
  return gpu_training.backward(
    q, k, v, **_keys_seen(visibility), out=out, normalizer=normalizer, d_out=d_out
  )


def _tpu_forward(q, k, v, visibility: Visibility):
  return tpu_training.forward(q, k, v, **_keys_seen(visibility))


def _tpu_backward(residuals: Residuals, d_out: jax.Array):
  q, k, v, visibility, out, normalizer = residuals
  return tpu_training.backward(
    q, k, v, **_keys_seen(visibility), out=out, normalizer=normalizer, d_out=d_out
  )


_BY_PLATFORM = {
  'cuda': BlockAttention(_gpu_forward, _gpu_backward),
  'tpu': BlockAttention(_tpu_forward, _tpu_backward),
}


def find_kernels(q: jax.Array) -> dict[str, BlockAttention]:
  """The kernels that can attend with heads of such queries `[B, C, S, G, D]`, by platform."""
  group, width, itemsize = *q.shape[3:], q.dtype.itemsize
  tiles = {
    'cuda': gpu_training.tile_size(width, itemsize),
    'tpu': tpu_training.query_block(group, width, itemsize),
  }
  return {platform: kernel for platform, kernel in _BY_PLATFORM.items() if tiles[platform]}


def kernel_forward(
  q: jax.Array, k: jax.Array, v: jax.Array, visibility: Visibility, *, platforms: Sequence[str]
) -> tuple[jax.Array, jax.Array]:
  """The forward pass by the kernel of the platform that is compiled for, which need not be here.

  By loops on other platforms, and where no kernel can do such heads.
  """
  kernels = {name: kernel.forward for name, kernel in find_kernels(q).items() if name in platforms}
  return _run_on_platform(kernels, loop_forward, q, k, v, visibility)


def kernel_backward(
  residuals: Residuals, d_out: jax.Array, *, platforms: Sequence[str]
) -> tuple[jax.Array, ...]:
  """The backward pass, in the same way."""
  found = find_kernels(residuals.q)
  kernels = {name: kernel.backward for name, kernel in found.items() if name in platforms}
  return _run_on_platform(kernels, loop_backward, residuals, d_out)


def _run_on_platform(kernels: Mapping[str, Callable], loops: Callable, *arguments: Any) -> Any:
  """Runs the kernel of the platform that is compiled for, else loops."""
  if not kernels:
    return loops(*arguments)
  return jax.lax.platform_dependent(*arguments, default=loops, **kernels)


def _by_kernels(*platforms: str) -> BlockAttention:
  return BlockAttention(
    functools.partial(kernel_forward, platforms=platforms),
    functools.partial(kernel_backward, platforms=platforms),
  )


LOOPS = BlockAttention(loop_forward, loop_backward)
KERNELS, GPU_KERNELS = _by_kernels('cuda', 'tpu'), _by_kernels('cuda')
