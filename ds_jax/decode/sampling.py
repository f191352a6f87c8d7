"""Sampling from logits by per-row keys: temperature, top-p, top-k, greedy."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.model.attention import MASKED

# Keys of a node's children are fold_in(key(node), child index); the node's own tokens are drawn
# from fold_in(key(node), TOKEN_STREAM + place), a range that child indices never reach.
TOKEN_STREAM = 2**31


class SamplingOptions(NamedTuple):
  """Traced: other values compile nothing."""
  temperature: jax.Array  # [] float32, 0: greedy
  top_p: jax.Array  # [] float32 in (0, 1], 1: off
  top_k: jax.Array  # [] int32, 0: off


def sampling_options(temperature: float = 1.0, top_p: float = 1.0,
                     top_k: int = 0) -> SamplingOptions:
  return SamplingOptions(np.float32(temperature), np.float32(top_p), np.int32(top_k))


def child_keys(key: jax.Array, first_child: jax.Array, num_children: int) -> jax.Array:
  """Keys `[B, W]` of the children `first_child + 0..W-1` of the nodes with key data `[B, 2]`."""
  index = first_child[:, None] + jnp.arange(num_children)
  fold = lambda k, j: jax.random.fold_in(k, j)
  return jax.vmap(jax.vmap(fold, (None, 0)))(jax.random.wrap_key_data(key), index)


def token_keys(node_keys: jax.Array, place: jax.Array) -> jax.Array:
  """Keys of the tokens at `place` ([] int32) of the segments of nodes with keys `[B, W]`."""
  data = jnp.uint32(TOKEN_STREAM) + place.astype(jnp.uint32)
  fold = lambda k: jax.random.fold_in(k, data)
  return jax.vmap(jax.vmap(fold))(node_keys)


def sample_tokens(keys: jax.Array, logits: jax.Array, options: SamplingOptions) -> jax.Array:
  """Draws one token per row by the Gumbel-max rule.

  Args:
    keys: `[B, W]` keys, consumed.
    logits: `[B, W, V]` float32.
    options: temperature 0 takes the largest logit.

  Returns:
    `[B, W]` int32.
  """
  is_truncated = (options.top_p < 1) | (options.top_k > 0)
  kept = jax.lax.cond(is_truncated, lambda: truncate(logits, options), lambda: logits)
  noise = jax.vmap(jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[-1:])))(keys)
  # Dividing by the temperature and adding noise is the same as scaling the noise.
  return jnp.argmax(kept + options.temperature * noise, -1).astype(jnp.int32)


def truncate(logits: jax.Array, options: SamplingOptions) -> jax.Array:
  """Masks all but the top-k and the smallest set whose probability reaches top-p.

  The nucleus (arXiv:1904.09751) is taken at the sampling temperature; the most likely token always
  stays. Equal logits at the border stay together.
  """
  tempered = logits / jnp.maximum(options.temperature, 1e-6)
  descending = -jnp.sort(-tempered, axis=-1)
  probability = jax.nn.softmax(descending, -1)
  before = jnp.cumsum(probability, -1) - probability
  in_nucleus = before < options.top_p
  rank = jnp.arange(logits.shape[-1])
  in_top_k = (options.top_k <= 0) | (rank < options.top_k)
  border = jnp.where(in_nucleus & in_top_k, descending, jnp.inf).min(-1, keepdims=True)
  return jnp.where(tempered >= border, logits, MASKED)
