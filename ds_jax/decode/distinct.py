"""Siblings that differ: the children of a node, sampled without replacement token by token.

This is stochastic beam search (Kool, van Hoof, Welling 2019, arXiv:1903.06059), told as a race.
Every continuation of a node, up to the end of a segment, arrives after an exponential time at the
rate of its probability. Those that arrive first are a sample without replacement: whatever has
arrived, the next one is drawn by the probabilities of the others. (The paper's perturbed log-prob
is minus the logarithm of the time.)

The beginning of a continuation arrives with the first that begins so, at the rate of its own
probability. One of its next tokens arrives together with it, drawn by the policy; the next one
after a further exponential time at the rate of what is left, and so on. So W of V next tokens are
drawn of each beginning, and the W first ones of all are what goes on: no noise for every id, no
sorting of V.

Times count from the first arrival, since what comes after it has no memory of it. So the first
sibling is the one that independent sampling draws, to the bit, and those after it avoid it. They
stand in the order of their arrival: ties that go to the first in pre-order go to a plain sample of
the policy, as without this; later siblings are rarer ones.

Log-probs are those of the policy, token by token. How likely a path is to be in such a tree is
another number, larger, and nothing is weighed by it: the update is that of the policy, on a more
diverse sample, as with a higher temperature.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import check_shape
from ds_jax.decode.sampling import (
  Draw,
  SamplingOptions,
  draw_uniform,
  invert_in_turn,
  score_draw,
  weigh,
)

# Draws of a token beyond the first come from fold_in(the token's key, FURTHER).
FURTHER = 1
_SMALLEST = np.finfo(np.float32).tiny


class Race(NamedTuple):
  """The siblings of every slot as far as they are sampled, in the order of their arrival."""

  # [B, W] float32, of the arrival; -inf: the first; inf: there is no such sibling (it is a copy of
  # the first, or not asked for)
  log_time: jax.Array
  log_rate: jax.Array  # [B, W] float32, log of the probability of its tokens, after top-k and top-p


class Heat(NamedTuple):
  """What one more token makes of the siblings."""

  draw: Draw  # the token of each
  parent: jax.Array  # [B, W] int32, the sibling before that it goes on from
  race: Race


def start_race(is_asked: jax.Array) -> Race:
  """The race before any token: one beginning, which is empty, in slots that ask for children.

  Args:
    is_asked: `[B, W]` bool, the first so many siblings of a slot.
  """
  is_first = jnp.arange(is_asked.shape[1]) == 0
  log_time = jnp.where(is_first & is_asked, -jnp.inf, jnp.inf)
  return Race(log_time, jnp.zeros(is_asked.shape))


def draw_distinct(
  keys: jax.Array,
  logits: jax.Array,
  options: SamplingOptions,
  *,
  race: Race,
  is_ended: jax.Array,
  is_asked: jax.Array,
) -> Heat:
  """Draws the next tokens of all siblings, no two of which are alike after it.

  Where top-k and top-p leave fewer continuations than children are asked for, the others are copies
  of the first, until there are more.

  Args:
    keys: `[B, W]` keys, consumed.
    logits: `[B, W, V]` float32, after the siblings as they were.
    options: as of `draw_tokens`.
    race: of the siblings as they were.
    is_ended: `[B, W]` bool, siblings that stay as they are.
    is_asked: `[B, W]` bool, the first so many siblings of a slot.

  Raises:
    ValueError: if keys and logits do not belong together.
  """
  check_shape('keys', keys, logits.shape[:-1])
  num_slots, width = keys.shape
  rank = jnp.arange(width)
  weights = weigh(logits, options)

  # W next tokens of each sibling [B, W, W], as they arrive. One that has ended arrives alone.
  uniforms, waits = _random_numbers(keys)
  tokens, left = invert_in_turn(weights.kept, uniforms)
  log_left = race.log_rate[..., None] + jnp.log(left / left[..., :1])
  log_waits = jnp.log(waits) - log_left[..., 1:]
  times = [race.log_time]
  for further in range(width - 1):  # not lax.cumlogsumexp: on CPUs it takes six times as long
    times.append(jnp.logaddexp(times[-1], log_waits[..., further]))
  log_time = jnp.stack(times, -1)
  log_time = jnp.where(is_ended[..., None] & (rank > 0), jnp.inf, log_time)
  drawn = jax.vmap(score_draw, in_axes=(None, 2, None), out_axes=2)(logits, tokens, weights)
  added = jnp.where(is_ended[..., None], 0.0, drawn.sampled_logprob)
  log_rate = race.log_rate[..., None] + added

  # The first W of these W * W.
  negated, place = jax.lax.top_k(-log_time.reshape(num_slots, -1), width)
  is_none = jnp.isneginf(negated) | ~is_asked
  place = jnp.where(is_none, place[:, :1], place)

  def pick(candidates: jax.Array) -> jax.Array:
    return jnp.take_along_axis(candidates.reshape(num_slots, -1), place, axis=1)

  return Heat(
    draw=jax.tree.map(pick, drawn),
    # What is a copy of the first now was one before.
    parent=jnp.where(is_none, rank, place // width),
    race=Race(jnp.where(is_none, jnp.inf, -negated), pick(log_rate)),
  )


def _random_numbers(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
  """By `[B, W]` keys: uniform numbers `[B, W, W]`, the first of them as independent siblings have
  it, and exponential ones `[B, W, W - 1]`."""
  shape = (2, keys.shape[1] - 1)

  def draw(key: jax.Array) -> jax.Array:
    # Never 0, of which a wait would be infinite.
    return jax.random.uniform(jax.random.fold_in(key, FURTHER), shape, minval=_SMALLEST)

  further = jax.vmap(jax.vmap(draw))(keys)
  uniforms = jnp.concatenate([draw_uniform(keys)[..., None], further[:, :, 0]], -1)
  return uniforms, -jnp.log(further[:, :, 1])
