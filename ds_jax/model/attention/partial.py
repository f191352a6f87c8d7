"""Partial attention, merged by log-sum-exp: what training and decoding are both made of.

Suffixes give layouts: B slots or rows, Q queries of a slot, S keys, C key/value heads, G query
heads per key/value head, D head width. Scores, softmax and sums are float32 throughout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ds_jax.checks import check_shape

# Below every score, but finite: a row that sees nothing gives weights of zero, not NaN.
MASKED = -1e30


class Partial(NamedTuple):
  """Attention over part of the keys, not yet normalised."""

  weighted_values: jax.Array  # [B, C, Q, G, D] float32, sum of exp(score - max) * value
  max_score: jax.Array  # [B, C, Q, G] float32
  sum_exp: jax.Array  # [B, C, Q, G] float32


def group_heads(q_BxQxHxD: jax.Array, num_kv_heads: int) -> jax.Array:
  """[B, Q, H, D] -> [B, C, Q, G, D].

  Queries are turned once, so that both products of attention come out in the order in which a
  matrix product makes them: on CPU they take a quarter of the time.
  """
  num_rows, num_queries, _, width = q_BxQxHxD.shape
  return q_BxQxHxD.reshape(num_rows, num_queries, num_kv_heads, -1, width).swapaxes(1, 2)


def ungroup_heads(x_BxCxQxGxD: jax.Array) -> jax.Array:
  """[B, C, Q, G, D] -> [B, Q, H, D]."""
  x = x_BxCxQxGxD.swapaxes(1, 2)
  return x.reshape(*x.shape[:2], -1, x.shape[-1])


def attend_part(
  q_BxCxQxGxD: jax.Array, k_BxCxSxD: jax.Array, v_BxCxSxD: jax.Array, mask: jax.Array
) -> Partial:
  """Partial attention of every query over the keys that its mask shows.

  Args:
    q_BxCxQxGxD: queries. k_BxCxSxD, v_BxCxSxD: keys and values.
    mask: `[B or 1, Q or 1, S]` bool, True where a query sees a key.

  Raises:
    ValueError: if keys, values or mask do not belong to the queries.
  """
  num_rows, num_heads, _, _, width = q_BxCxQxGxD.shape
  check_shape('keys', k_BxCxSxD, (num_rows, num_heads, None, width))
  check_shape('values', v_BxCxSxD, k_BxCxSxD.shape)
  check_shape('mask', mask, (None, None, k_BxCxSxD.shape[2]))
  scale = q_BxCxQxGxD.shape[-1] ** -0.5
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = product('bcqgd,bcsd->bcqgs', q_BxCxQxGxD, k_BxCxSxD) * scale
  scores = jnp.where(mask[:, None, :, None, :], scores, MASKED)
  # Above MASKED, so that the weights of a query that sees nothing are 0.
  max_score = jnp.maximum(scores.max(-1), 0.1 * MASKED)
  weights = jnp.exp(scores - max_score[..., None])
  weighted_values = product('bcqgs,bcsd->bcqgd', weights.astype(v_BxCxSxD.dtype), v_BxCxSxD)
  return Partial(weighted_values, max_score, weights.sum(-1))


def attend_nothing(q_BxCxQxGxD: jax.Array) -> Partial:
  """Partial attention over no keys: what partial attentions are joined to."""
  zeros = jnp.zeros(q_BxCxQxGxD.shape, jnp.float32)
  return Partial(zeros, zeros[..., 0] + 0.1 * MASKED, zeros[..., 0])


def merge(parts: Sequence[Partial]) -> jax.Array:
  """Normalised attention [B, Q, H, D] float32 over the union of the parts' keys."""
  whole = functools.reduce(join, parts)
  return ungroup_heads(whole.weighted_values / whole.sum_exp[..., None])


def join(a: Partial, b: Partial) -> Partial:
  """Partial attention over the keys of both.

  With m = max(m_a, m_b), sums over a's keys are scaled by exp(m_a - m), those over b's by
  exp(m_b - m), and added.
  """
  max_score = jnp.maximum(a.max_score, b.max_score)
  scale_a = jnp.exp(a.max_score - max_score)
  scale_b = jnp.exp(b.max_score - max_score)
  return Partial(
    a.weighted_values * scale_a[..., None] + b.weighted_values * scale_b[..., None],
    max_score,
    a.sum_exp * scale_a + b.sum_exp * scale_b,
  )
