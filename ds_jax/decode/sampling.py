"""Sampling from logits by per-row keys: temperature, top-p, top-k, greedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import check_shape
from ds_jax.model.decoder import for_logits, score_targets

# Keys of a node's children are fold_in(key(node), child index); the node's own tokens are drawn
# from fold_in(key(node), TOKEN_STREAM + place), a range that child indices never reach.
TOKEN_STREAM = 2**31

# Ids summed together when a token is drawn; the vocabularies of Qwen and Llama are multiples of it.
SUM_BLOCK = 128


class SamplingOptions(NamedTuple):
  """Traced: other values compile nothing."""

  temperature: jax.Array  # [] float32, or [B] as in SlotPlan; 0: greedy
  top_p: jax.Array  # [] float32 in (0, 1], 1: off
  top_k: jax.Array  # [] int32, 0: off


class Weights(NamedTuple):
  """Every id's weight, the probability over that of the most likely one; and how it was made."""

  full: jax.Array  # [B, W, V] float32
  kept: jax.Array  # [B, W, V] float32, 0 where top-k or top-p leaves an id out
  temperature: jax.Array  # [] or [B, 1] float32, 1 if greedy
  is_greedy: jax.Array  # likewise, bool: all but the largest logits have weight 0


class Draw(NamedTuple):
  """One token per row, and what is known of it; see interfaces.Segments."""

  token: jax.Array  # [B, W] int32
  logprob: jax.Array  # [B, W] float32, of the full softmax at the sampling temperature
  sampled_logprob: jax.Array  # [B, W] float32, after top-k and top-p; 0 if greedy
  entropy: jax.Array  # [B, W] float32, nats, of the full softmax at the sampling temperature


def sampling_options(
  temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0
) -> SamplingOptions:
  return SamplingOptions(np.float32(temperature), np.float32(top_p), np.int32(top_k))


def child_keys(key: jax.Array, first_child: jax.Array, num_children: int) -> jax.Array:
  """Keys `[B, W]` of the children `first_child + 0..W-1` of the nodes with key data `[B, 2]`."""
  index = first_child[:, None] + jnp.arange(num_children)
  fold_children = jax.vmap(jax.random.fold_in, (None, 0))
  return jax.vmap(fold_children)(jax.random.wrap_key_data(key), index)


def token_keys(node_keys: jax.Array, place: jax.Array) -> jax.Array:
  """Keys of the tokens at `place` ([] int32) of the segments of nodes with keys `[B, W]`."""
  stream = jnp.uint32(TOKEN_STREAM) + place.astype(jnp.uint32)

  def fold(key: jax.Array) -> jax.Array:
    return jax.random.fold_in(key, stream)

  return jax.vmap(jax.vmap(fold))(node_keys)


def draw_tokens(keys: jax.Array, logits: jax.Array, options: SamplingOptions) -> Draw:
  """Draws one token per row and scores it.

  One random number per row inverts the cumulative distribution: noise for every id (the Gumbel-max
  rule) would cost a hash per logit.

  Args:
    keys: `[B, W]` keys, consumed.
    logits: `[B, W, V]` float32.
    options: temperature 0 takes the largest logit.

  Raises:
    ValueError: if keys and logits do not belong together.
  """
  check_shape('keys', keys, logits.shape[:-1])
  weights = weigh(logits, options)
  # Not an argmax for greedy: on CPUs it takes six times as long as a sum. 0: the first of equals.
  uniform = jnp.where(weights.is_greedy, 0.0, draw_uniform(keys))
  token = invert(weights.kept, uniform).astype(jnp.int32)
  return score_draw(logits, token, weights)


def draw_uniform(keys: jax.Array) -> jax.Array:
  """The number in [0, 1) by which the key of a token draws it; of each of `[B, W]`."""
  return jax.vmap(jax.vmap(jax.random.uniform))(keys)


def weigh(logits: jax.Array, options: SamplingOptions) -> Weights:
  """Weights of every id from logits `[B, W, V]` float32, before and after top-k and top-p."""
  given = options.temperature
  if jnp.ndim(given):
    given = given[:, None]  # alike for the children of a slot
  is_greedy = given <= 0
  temperature = jnp.where(is_greedy, 1.0, given)
  # Not normalised: the most likely token has weight 1. So near 0, greedy leaves the others none.
  shifted = logits - logits.max(-1, keepdims=True)
  weights = jnp.exp(shifted / for_logits(jnp.where(is_greedy, 1e-30, temperature)))

  def top_k(weights: jax.Array) -> jax.Array:
    return keep_top_k(weights, options.top_k)

  def top_p(weights: jax.Array) -> jax.Array:
    return keep_top_p(weights, options.top_p)

  with jax.named_scope('top_k'):
    truncated = jax.lax.cond(options.top_k > 0, top_k, _keep_all, weights)
  with jax.named_scope('top_p'):
    truncated = jax.lax.cond(options.top_p < 1, top_p, _keep_all, truncated)
  return Weights(weights, truncated, temperature, is_greedy)


def score_draw(logits: jax.Array, token: jax.Array, weights: Weights) -> Draw:
  """Says what is known of tokens `[B, W]` int32 that were drawn by the weights of these logits."""
  logprob, entropy = score_targets(logits, token, weights.temperature)
  # Truncation divides every probability that it leaves by the share that it leaves.
  sampled_logprob = logprob - jnp.log(weights.kept.sum(-1) / weights.full.sum(-1))
  return Draw(
    token=token,
    logprob=logprob,
    sampled_logprob=jnp.where(weights.is_greedy, 0.0, sampled_logprob),
    entropy=entropy,
  )


def _keep_all(weights: jax.Array) -> jax.Array:
  return weights


def keep_top_k(weights: jax.Array, top_k: jax.Array) -> jax.Array:
  """Sets all but the `top_k` largest of `[..., V]` weights to 0; equal ones stay together."""

  def has_enough(border: jax.Array) -> jax.Array:
    return (weights >= border).sum(-1, keepdims=True) >= top_k

  border = _largest_border(weights, has_enough)
  return jnp.where(weights >= border, weights, 0.0)


def keep_top_p(weights: jax.Array, top_p: jax.Array) -> jax.Array:
  """Keeps the nucleus (arXiv:1904.09751): the fewest weights with a share of at least `top_p`.

  Shares are of what `weights` has, so that after top-k they are renormalised (as in transformers).
  Equal weights stay together; the largest always stays.
  """
  needed = top_p * weights.sum(-1, keepdims=True)

  def keep_from(border: jax.Array) -> jax.Array:
    return jnp.where(weights >= border, weights, 0.0)

  def has_enough(border: jax.Array) -> jax.Array:
    return keep_from(border).sum(-1, keepdims=True) >= needed

  return keep_from(_largest_border(weights, has_enough))


def invert(weights: jax.Array, uniform: jax.Array) -> jax.Array:
  """The index at which the running sum of `[..., V]` weights passes `uniform` [...] of their sum.

  In two steps, blocks and then the chosen one's members: sums of few numbers are exact enough, and
  no running sum over V is formed. An index of weight 0 is never returned.
  """
  blocks = _in_blocks(weights)

  # The block in which the sum passes the level, and what of the level is left inside it.
  sums = blocks.sum(-1)
  block, level = _pass(sums, uniform * sums.sum(-1))

  # The member of that block.
  members = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
  start = block * SUM_BLOCK
  member, _ = _pass(members, level)
  return start + member


def invert_in_turn(weights: jax.Array, uniforms: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Draws n indices, each as `invert` does among the weights that those before it leave.

  V is read once, whatever n is: a draw changes the sum of one block.

  Args:
    weights: `[..., V]` float32.
    uniforms: `[..., n]` float32 in [0, 1).

  Returns:
    The indices `[..., n]` int32, and `[..., n]` float32 the sum of the weights among which each was
    drawn. Where that is 0 all have been drawn before, and the index means nothing.
  """
  blocks = _in_blocks(weights)
  sums, places = blocks.sum(-1), jnp.arange(SUM_BLOCK)
  drawn, left = [], []
  for draw in range(uniforms.shape[-1]):
    left.append(sums.sum(-1))
    block, level = _pass(sums, uniforms[..., draw] * left[-1])
    members = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    start = block * SUM_BLOCK
    for earlier in drawn:
      members = jnp.where(places == (earlier - start)[..., None], 0.0, members)
    member, _ = _pass(members, level)
    drawn.append(start + member)
    # Added anew, not subtracted from: what a confident policy leaves is far below one ulp of 1.
    others = jnp.where(places == member[..., None], 0.0, members).sum(-1)
    sums = jnp.where(jnp.arange(sums.shape[-1]) == block[..., None], others[..., None], sums)
  return jnp.stack(drawn, -1), jnp.stack(left, -1)


def _in_blocks(weights: jax.Array) -> jax.Array:
  """Weights `[..., V]` as `[..., blocks, SUM_BLOCK]`, the last block filled up with 0."""
  size = weights.shape[-1]
  # Not jnp.pad: of a vocabulary split over devices XLA would make a permutation among all of them,
  # for which they would wait, though each ends its loop when its own children have ended.
  padded = jnp.zeros((*weights.shape[:-1], size + -size % SUM_BLOCK), weights.dtype)
  padded = padded.at[..., :size].set(weights)
  return padded.reshape(*weights.shape[:-1], -1, SUM_BLOCK)


def _pass(weights: jax.Array, level: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Where the running sum passes `level`, and how far the level lies above the sum before.

  Rounding may leave the level above all sums: then it is the last index with a weight.
  """
  running = jnp.cumsum(weights, -1)
  last = jnp.where(weights > 0, jnp.arange(weights.shape[-1]), 0).max(-1)
  index = jnp.minimum(jnp.sum(running <= level[..., None], -1), last)

  def at_index(x: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, index[..., None], -1)[..., 0]

  return index, level - (at_index(running) - at_index(weights))


def _largest_border(weights: jax.Array, has_enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
  """The largest border `[..., 1]` in [0, 1] above which there is enough, exact to the bit.

  Bisection over the bits of floats, which for numbers >= 0 are in the order of the floats: 30
  passes over the weights and no sort of V.
  """
  shape = (*weights.shape[:-1], 1)

  def as_float(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)

  def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low, high = bounds
    middle = low + (high - low) // 2
    is_enough = has_enough(as_float(middle))
    return jnp.where(is_enough, middle, low), jnp.where(is_enough, high, middle)

  above_one = jnp.full(shape, np.float32(1).view(np.int32) + 1)
  low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros(shape, jnp.int32), above_one))
  return as_float(low)
