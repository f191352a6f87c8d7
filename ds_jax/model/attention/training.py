"""Attention of the training form: interval visibility, memory that grows linearly with S.

Query i sees key j iff j <= i < key_end[j]. With `key_end` the end of the key's sequence, several
sequences share a row; with nodes of a tree in depth-first order and `key_end` the end of the key's
subtree, every path of the tree is forwarded at once. This is the one place that chooses how it is
computed: short rows in one piece, long ones in blocks of queries and keys with the softmax
carried along and recomputed in the backward pass (arXiv:2205.14135, arXiv:2307.08691), by loops
that XLA compiles or, on GPUs, by kernels.

What jax ships was looked at first (0.10): `jax.nn.dot_product_attention` takes a dense mask, and
splash attention's segment ids tell sequences apart but not the paths of a tree: neither is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ds_jax.model.attention.kernels import gpu_training as gpu_training_kernel
from ds_jax.model.attention.partial import (
  MASKED,
  attend_nothing,
  attend_part,
  group_heads,
  join,
  ungroup_heads,
)

# Rows of at most this many positions are done in one piece; else queries and keys per block.
BLOCK = 512

# What a remat policy may keep of a layer, so that the backward pass need not attend again.
RESIDUALS = 'attention'


def attend(
  q_BxSxHxD: jax.Array,
  k_BxSxCxD: jax.Array,
  v_BxSxCxD: jax.Array,
  key_end: jax.Array,
  seen_blocks: jax.Array | None = None,
  has_kernels: bool = True,
) -> jax.Array:
  """Attention of all positions of all rows at once.

  Args:
    q_BxSxHxD: queries, rotated. k_BxSxCxD, v_BxSxCxD: keys and values.
    key_end: `[B, S]` int32, one past the last query index that sees the key.
    seen_blocks: of `find_seen_blocks(key_end)`, where a caller has many layers to attend in.
    has_kernels: False where heads are split over devices, since XLA cannot split a kernel.

  Returns:
    `[B, S, H, D]` float32. Each query sees itself at least if `key_end[i] > i`; a query that sees
    nothing (padding) gets zeros.
  """
  num_positions = q_BxSxHxD.shape[1]
  q = group_heads(q_BxSxHxD, k_BxSxCxD.shape[2])
  k, v = k_BxSxCxD.swapaxes(1, 2), v_BxSxCxD.swapaxes(1, 2)
  if num_positions <= BLOCK:
    part = attend_part(q, k, v, _mask(key_end, 0, num_positions, 0))
    return ungroup_heads(part.weighted_values / jnp.maximum(part.sum_exp, 1e-30)[..., None])
  if seen_blocks is None:
    seen_blocks = find_seen_blocks(key_end)
  padding = -num_positions % BLOCK  # padded keys end at 0: nothing sees them
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 3))
  key_end = jnp.pad(key_end, ((0, 0), (0, padding)))
  has_kernels = has_kernels and gpu_training_kernel.tile_size(q.shape[-1], q.dtype.itemsize) > 0
  out = _attend_blocks(pad(q), pad(k), pad(v), key_end, seen_blocks, has_kernels)
  return ungroup_heads(out[:, :, :num_positions].astype(jnp.float32))


def find_seen_blocks(key_end: jax.Array) -> jax.Array:
  """`[queries / BLOCK, keys / BLOCK]` bool: whether any row has a pair to attend in a block.

  One small reduction over all rows; blocks without a pair are skipped, whatever the layout of the
  rows (causal, packed, trees).
  """
  padded = jnp.pad(key_end.max(0, keepdims=True), ((0, 0), (0, -key_end.shape[1] % BLOCK)))
  return gpu_training_kernel.seen_tiles(padded, BLOCK)[0]


def _mask(
  key_end: jax.Array, query_start: jax.Array | int, num_queries: int, key_start: jax.Array | int
) -> jax.Array:
  """`[B, Q, K]` bool, key_end being that of the K keys alone."""
  query = query_start + jnp.arange(num_queries)[None, :, None]
  key = key_start + jnp.arange(key_end.shape[1])[None, None, :]
  return (key <= query) & (query < key_end[:, None, :])


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend_blocks(q, k, v, key_end, seen_blocks, has_kernels):
  """[B, C, S, G, D] of q, in its dtype; k and v are [B, C, S, D], S a multiple of BLOCK."""
  return _choose(has_kernels, gpu_training_kernel.forward, _forward)(q, k, v, key_end, seen_blocks)[
    0
  ]


def _choose(has_kernels: bool, kernel: Callable, loops: Callable) -> Callable:
  """By the platform that is compiled for, which need not be here; a kernel finds its own tiles."""
  without_blocks = lambda q, k, v, key_end, _, *rest: kernel(q, k, v, key_end, *rest)
  return (
    functools.partial(jax.lax.platform_dependent, cuda=without_blocks, default=loops)
    if has_kernels
    else loops
  )


def _forward(q, k, v, key_end, seen_blocks):
  """The attention, and the log of each query's softmax normaliser [B, C, S, G] float32."""

  def of_queries(i):
    q_block = _block(q, i)

    def add(j, whole):
      mask = _mask(_block(key_end, j, axis=1), i * BLOCK, BLOCK, j * BLOCK)
      part = lambda: attend_part(q_block, _block(k, j), _block(v, j), mask)
      return jax.lax.cond(seen_blocks[i, j], lambda: join(whole, part()), lambda: whole)

    with jax.named_scope('key_blocks'):
      whole = jax.lax.fori_loop(0, i + 1, add, attend_nothing(q_block))
    total = jnp.maximum(whole.sum_exp, 1e-30)
    return (
      (whole.weighted_values / total[..., None]).astype(q.dtype),
      jnp.where(whole.sum_exp > 0, whole.max_score + jnp.log(total), 0.0),
    )

  out, normalizer = jax.lax.map(of_queries, jnp.arange(q.shape[2] // BLOCK))
  return _unblock(out), _unblock(normalizer)


def _attend_blocks_forward(q, k, v, key_end, seen_blocks, has_kernels):
  attend_fn = _choose(has_kernels, gpu_training_kernel.forward, _forward)
  out, normalizer = (
    checkpoint_name(x, RESIDUALS) for x in attend_fn(q, k, v, key_end, seen_blocks)
  )
  return out, (q, k, v, key_end, seen_blocks, out, normalizer)


def _attend_blocks_backward(has_kernels, residuals, d_out):
  gradients_fn = _choose(has_kernels, gpu_training_kernel.backward, _backward)
  return *gradients_fn(*residuals, d_out), None, None


def _backward(q, k, v, key_end, seen_blocks, out, normalizer, d_out):
  """With p the weights and delta = sum(d_out * out): dv = p' d_out, ds = p * (d_out v' - delta)."""
  scale = q.shape[-1] ** -0.5
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  zeros = jnp.zeros(k.shape, jnp.float32)

  def of_queries(sums, i):
    q_block, d_out_block, log_total = _block(q, i), _block(d_out, i), _block(normalizer, i)
    delta = jnp.sum(d_out_block.astype(jnp.float32) * _block(out, i).astype(jnp.float32), -1)

    def add(j, carry):
      dq_block, dk, dv = carry
      k_block, v_block = _block(k, j), _block(v, j)
      mask = _mask(_block(key_end, j, axis=1), i * BLOCK, BLOCK, j * BLOCK)[:, None, :, None, :]
      scores = jnp.where(mask, product('bcqgd,bcsd->bcqgs', q_block, k_block) * scale, MASKED)
      weights = jnp.exp(scores - log_total[..., None])
      d_weights = product('bcqgd,bcsd->bcqgs', d_out_block, v_block)
      d_scores = (weights * (d_weights - delta[..., None]) * scale).astype(q.dtype)
      dq_block += product('bcqgs,bcsd->bcqgd', d_scores, k_block)
      dk = _add_block(dk, j, product('bcqgs,bcqgd->bcsd', d_scores, q_block))
      dv = _add_block(dv, j, product('bcqgs,bcqgd->bcsd', weights.astype(q.dtype), d_out_block))
      return dq_block, dk, dv

    guarded = lambda j, carry: jax.lax.cond(seen_blocks[i, j], lambda: add(j, carry), lambda: carry)
    start = (jnp.zeros(q_block.shape, jnp.float32), *sums)
    with jax.named_scope('key_blocks'):
      dq_block, *sums = jax.lax.fori_loop(0, i + 1, guarded, start)
    return tuple(sums), dq_block.astype(q.dtype)

  (dk, dv), dq = jax.lax.scan(of_queries, (zeros, zeros), jnp.arange(q.shape[2] // BLOCK))
  return _unblock(dq), dk.astype(k.dtype), dv.astype(v.dtype)


_attend_blocks.defvjp(_attend_blocks_forward, _attend_blocks_backward)


def _block(x: jax.Array, index: jax.Array, axis: int = 2) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, index * BLOCK, BLOCK, axis)


def _add_block(total: jax.Array, index: jax.Array, block: jax.Array) -> jax.Array:
  """Adds to the positions of one block."""
  return jax.lax.dynamic_update_slice_in_dim(
    total, _block(total, index) + block, index * BLOCK, axis=2
  )


def _unblock(x: jax.Array) -> jax.Array:
  """[blocks, B, C, BLOCK, ...] -> [B, C, S, ...]."""
  x = jnp.moveaxis(x, 0, 2)
  return x.reshape(*x.shape[:2], -1, *x.shape[4:])
