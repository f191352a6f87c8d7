"""Attention: one function for training, and partial attention merged by log-sum-exp for decoding.

Suffixes give layouts: B slots or rows, Q queries of a slot, S keys, C key/value heads, G query
heads per key/value head, D head width. Scores, softmax and sums are float32 throughout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Below every score, but finite: a row that sees nothing gives weights of zero, not NaN.
MASKED = -1e30

# Training forms scores of this many queries at a time, so that memory grows linearly with S.
QUERY_BLOCK = 512


class Partial(NamedTuple):
  """Attention over part of the keys, not yet normalised."""
  weighted_values: jax.Array  # [B, Q, C, G, D] float32, sum of exp(score - max) * value
  max_score: jax.Array  # [B, Q, C, G] float32
  sum_exp: jax.Array  # [B, Q, C, G] float32


def group_heads(q: jax.Array, num_kv_heads: int) -> jax.Array:
  """[..., H, D] -> [..., C, G, D]."""
  return q.reshape(*q.shape[:-2], num_kv_heads, -1, q.shape[-1])


def attend_part(q_BxQxCxGxD: jax.Array, k_BxCxSxD: jax.Array, v_BxCxSxD: jax.Array,
                mask_BxQxS: jax.Array) -> Partial:
  """Partial attention of every query over the keys that its mask shows."""
  scale = q_BxQxCxGxD.shape[-1] ** -0.5
  scores = jnp.einsum('bqcgd,bcsd->bcqgs', q_BxQxCxGxD, k_BxCxSxD,
                      preferred_element_type=jnp.float32) * scale
  mask = mask_BxQxS[:, None, :, None, :]
  scores = jnp.where(mask, scores, MASKED)
  max_score = scores.max(-1)
  weights = jnp.where(mask, jnp.exp(scores - max_score[..., None]), 0.0)
  weighted = jnp.einsum('bcqgs,bcsd->bqcgd', weights.astype(v_BxCxSxD.dtype), v_BxCxSxD,
                        preferred_element_type=jnp.float32)
  return Partial(weighted, max_score.swapaxes(1, 2), weights.sum(-1).swapaxes(1, 2))


def merge(parts: Sequence[Partial]) -> jax.Array:
  """Normalised attention [B, Q, H, D] float32 over the union of the parts' keys."""
  whole = functools.reduce(_join, parts)
  out = whole.weighted_values / whole.sum_exp[..., None]
  return out.reshape(*out.shape[:2], -1, out.shape[-1])


def _join(a: Partial, b: Partial) -> Partial:
  max_score = jnp.maximum(a.max_score, b.max_score)
  scale_a = jnp.exp(a.max_score - max_score)
  scale_b = jnp.exp(b.max_score - max_score)
  return Partial(
      a.weighted_values * scale_a[..., None] + b.weighted_values * scale_b[..., None],
      max_score, a.sum_exp * scale_a + b.sum_exp * scale_b)


def attend_path(q_BxQxCxGxD: jax.Array, k_BxCxSxD: jax.Array, v_BxCxSxD: jax.Array,
                length: jax.Array, block: int) -> Partial:
  """Partial attention over path caches that are filled to different lengths.

  Reads the cache in blocks of `block` positions, up to the longest of the B paths: a short batch
  does not pay for the capacity S.

  Args:
    q_BxQxCxGxD: queries; every query of slot b sees the first `length[b]` positions.
    k_BxCxSxD: keys; S is a multiple of `block`, or at most one block.
    v_BxCxSxD: values.
    length: `[B]` int32.
    block: positions read at a time.
  """
  num_positions = k_BxCxSxD.shape[2]
  num_queries = q_BxQxCxGxD.shape[1]

  def part(start, size):
    seen = start + jnp.arange(size)[None, None, :] < length[:, None, None]
    k, v = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=2) for x in (k_BxCxSxD, v_BxCxSxD))
    return attend_part(q_BxQxCxGxD, k, v,
                       jnp.broadcast_to(seen, (length.shape[0], num_queries, size)))

  if num_positions <= block:
    return part(0, num_positions)
  num_blocks = (length.max() + block - 1) // block
  return jax.lax.fori_loop(1, num_blocks, lambda i, whole: _join(whole, part(i * block, block)),
                           part(0, block))


def attend(q_BxSxHxD: jax.Array, k_BxSxCxD: jax.Array, v_BxSxCxD: jax.Array,
           key_end: jax.Array) -> jax.Array:
  """Training attention: query i sees key j iff j <= i < key_end[j].

  With `key_end` the end of the key's sequence, several sequences share a row; with nodes of a tree
  in depth-first order and `key_end` the end of the key's subtree, every path of the tree is
  forwarded at once.

  Args:
    q_BxSxHxD: queries, rotated. k_BxSxCxD, v_BxSxCxD: keys and values.
    key_end: `[B, S]` int32, one past the last query index that sees the key.

  Returns:
    `[B, S, H, D]` float32. Each query sees itself at least if `key_end[i] > i`; a query that sees
    nothing (padding) gets zeros.
  """
  num_rows, num_positions, num_heads, width = q_BxSxHxD.shape
  q = group_heads(q_BxSxHxD, k_BxSxCxD.shape[2])
  k, v = k_BxSxCxD.swapaxes(1, 2), v_BxSxCxD.swapaxes(1, 2)
  key_index = jnp.arange(num_positions)

  def rows_from(start, q_block):
    query_index = start + jnp.arange(q_block.shape[1])
    mask = ((key_index[None, None, :] <= query_index[None, :, None])
            & (query_index[None, :, None] < key_end[:, None, :]))
    part = attend_part(q_block, k, v, mask)
    return part.weighted_values / jnp.maximum(part.sum_exp, 1e-30)[..., None]

  if num_positions <= QUERY_BLOCK or num_positions % QUERY_BLOCK:
    out = rows_from(0, q)
  else:
    blocks = q.reshape(num_rows, -1, QUERY_BLOCK, *q.shape[2:]).swapaxes(0, 1)
    starts = jnp.arange(blocks.shape[0]) * QUERY_BLOCK
    # Scores are recomputed in the backward pass: kept, they would be [S, S] after all.
    out = jax.lax.map(jax.checkpoint(lambda x: rows_from(*x)), (starts, blocks)).swapaxes(0, 1)
  return out.reshape(num_rows, num_positions, num_heads, width)
