"""The clipped policy loss, per token, and the weights that aggregate it.

Aggregation is a weight per token that the host computes over a whole minibatch, so that
loss = sum(weight * token loss) does not depend on how the minibatch is split for accumulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import check_choice, check_shape


class Clip(NamedTuple):
  """How far the ratio of policy over behaviour probability counts in the loss."""

  low: float  # below 1
  high: float  # above 1
  dual: float  # largest ratio that counts for a negative advantage, > 1


class ClippedLoss(NamedTuple):
  """Per token, in the shape of the arguments."""

  loss: jax.Array  # [...] float32
  log_ratio: jax.Array  # [...] float32, log of policy over behaviour probability
  is_clipped: jax.Array  # [...] bool, the clipped branch is strictly larger
  is_clipped_lower: jax.Array  # [...] bool, the dual clip bounds the loss of a bad token


def clipped_loss(
  logprobs: jax.Array, behavior_logprobs: jax.Array, advantages: jax.Array, *, clip: Clip
) -> ClippedLoss:
  """The clipped surrogate of PPO with asymmetric and dual clip.

  With rho = exp(logprob - behavior_logprob) and A the advantage,
    m = max(-A rho, -A clip(rho, 1 - low, 1 + high))     arXiv:1707.06347; arXiv:2503.14476
    loss = min(m, -A dual) where A < 0, else m           arXiv:1912.09729, Eq. 5
  It is positively homogeneous in A.

  Args:
    logprobs: `[...]` of the present policy.
    behavior_logprobs: `[...]` of the policy that sampled.
    advantages: `[...]`.
    clip: its three bounds.

  Raises:
    ValueError: if the shapes differ.
  """
  check_shape('behavior_logprobs', behavior_logprobs, logprobs.shape)
  check_shape('advantages', advantages, logprobs.shape)
  log_ratio = logprobs - behavior_logprobs
  ratio = jnp.exp(log_ratio)
  # m: a step that raises the objective gains nothing beyond the clip.
  plain = -advantages * ratio
  clipped = -advantages * jnp.clip(ratio, 1 - clip.low, 1 + clip.high)
  loss = jnp.maximum(plain, clipped)
  # A bad token whose probability has grown would have a loss without bound: the dual clip's.
  bound = -advantages * clip.dual
  is_bad = advantages < 0
  return ClippedLoss(
    loss=jnp.where(is_bad, jnp.minimum(loss, bound), loss),
    log_ratio=log_ratio,
    is_clipped=clipped > plain,
    is_clipped_lower=is_bad & (loss > bound),
  )


class Copies(NamedTuple):
  """Sums over the copies c of each distinct token, of weight w_c and advantage A_c."""

  positive: jax.Array  # [...] float32, sum of w_c max(A_c, 0)
  negative: jax.Array  # [...] float32, sum of w_c max(-A_c, 0)
  num_positive: jax.Array  # [...] float32, copies with A_c > 0
  num_negative: jax.Array  # [...] float32, copies with A_c < 0


class CollapsedLoss(NamedTuple):
  """Per distinct token: sums over its copies."""

  loss: jax.Array  # [...] float32, weighted
  num_clipped: jax.Array  # [...] float32
  num_clipped_lower: jax.Array  # [...] float32


def collapsed_loss(
  logprobs: jax.Array, behavior_logprobs: jax.Array, copies: Copies, *, clip: Clip
) -> CollapsedLoss:
  """`clipped_loss` summed over copies of each token that differ in weight and advantage alone.

  The loss L is positively homogeneous in the advantage, so
    sum_c w_c L(A_c) = L(1) sum_c w_c max(A_c, 0) + L(-1) sum_c w_c max(-A_c, 0).

  Args:
    logprobs: `[...]` of the present policy.
    behavior_logprobs: `[...]` of the policy that sampled.
    copies: their sums, `[...]` each.
    clip: as in `clipped_loss`.

  Raises:
    ValueError: if the shapes differ.
  """
  for name, sums in copies._asdict().items():
    check_shape(name, sums, logprobs.shape)
  # L(1) and L(-1): which branch of the clip is larger depends on the sign of A alone.
  up = clipped_loss(logprobs, behavior_logprobs, jnp.ones_like(copies.positive), clip=clip)
  down = clipped_loss(logprobs, behavior_logprobs, -jnp.ones_like(copies.negative), clip=clip)
  return CollapsedLoss(
    loss=copies.positive * up.loss + copies.negative * down.loss,
    num_clipped=copies.num_positive * up.is_clipped + copies.num_negative * down.is_clipped,
    num_clipped_lower=copies.num_negative * down.is_clipped_lower,
  )


def weighted_loss(
  logprobs: jax.Array, behavior_logprobs: jax.Array, copies: Copies, *, cap: float
) -> CollapsedLoss:
  """CISPO's loss (arXiv:2506.13585, Eq. 4 and 5), summed over the copies of each token.

  With rho = exp(logprob - behavior_logprob), of which no gradient is taken, and A the advantage,
    loss = -min(rho, cap) A logprob.
  The weight is bounded, and no token loses its gradient. It is linear in A.

  Args:
    logprobs: `[...]` of the present policy.
    behavior_logprobs: `[...]` of the policy that sampled.
    copies: their sums, `[...]` each.
    cap: bound of the weight, the paper's 1 + eps_high; it sets no lower one.

  Raises:
    ValueError: if the shapes differ.
  """
  check_shape('behavior_logprobs', behavior_logprobs, logprobs.shape)
  for name, sums in copies._asdict().items():
    check_shape(name, sums, logprobs.shape)
  ratio = jax.lax.stop_gradient(jnp.exp(logprobs - behavior_logprobs))
  advantages = copies.positive - copies.negative
  return CollapsedLoss(
    loss=-jnp.minimum(ratio, cap) * advantages * logprobs,
    num_clipped=(copies.num_positive + copies.num_negative) * (ratio > cap),
    num_clipped_lower=jnp.zeros_like(ratio),
  )


def sequence_loss(
  log_ratio: jax.Array, key_end: jax.Array, token_mask: jax.Array, *, ends: Copies, clip: Clip
) -> CollapsedLoss:
  """GSPO's loss (arXiv:2507.18071, Eq. 5 and 7), at the last token of each trajectory.

  Trajectory y with advantage A has the ratio s = (pi(y) / mu(y))^(1 / |y|), the geometric mean of
  its tokens' ratios, and the loss
    max(-A s, -A clip(s, 1 - low, 1 + high)),
  which the dual clip bounds where A < 0, as in `clipped_loss`. Trajectories may share tokens, and a
  gradient goes to each token of each.

  Args:
    log_ratio: `[R, S]`, log of policy over behaviour probability; 0 where nothing is scored.
    key_end: `[R, S]` int32, as in a Batch.
    token_mask: `[R, S]` bool, tokens of trajectories.
    ends: sums over the trajectories that end at each token, `[R, S]` each.
    clip: bounds of s.

  Raises:
    ValueError: if the shapes differ.
  """
  lengths = path_sums(token_mask.astype(log_ratio.dtype), key_end)
  mean_log_ratio = path_sums(log_ratio, key_end) / jnp.maximum(lengths, 1)
  # A path that no trajectory ends at has ratio 1 before exp, so that no inf meets a weight of 0.
  is_end = ends.num_positive + ends.num_negative > 0
  mean_log_ratio = jnp.where(is_end, mean_log_ratio, 0)
  return collapsed_loss(mean_log_ratio, jnp.zeros_like(mean_log_ratio), ends, clip=clip)


def path_sums(values: jax.Array, key_end: jax.Array) -> jax.Array:
  """Sum of values over the path from the root of its piece to each position, itself included.

  Position j is on the path to i iff j <= i < key_end[j]: its value is added from j on, and taken
  away from key_end[j] on.

  Args:
    values: `[R, S]`; 0 at padding.
    key_end: `[R, S]` int32, as in a Batch.

  Returns:
    `[R, S]`.
  """
  check_shape('key_end', key_end, values.shape)

  def of_row(values: jax.Array, key_end: jax.Array) -> jax.Array:
    left = jnp.zeros_like(values).at[key_end].add(values, mode='drop')
    return jnp.cumsum(values - left)

  return jax.vmap(of_row)(values, key_end)


def reference_kl(logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
  """KL(policy || reference) from the sampled token: r - log r - 1, r = reference / policy.

  Unbiased for samples of the policy and never negative (arXiv:2402.03300, Eq. 4).

  Args:
    logprobs: `[...]` of the present policy.
    reference_logprobs: `[...]` of the reference policy.

  Raises:
    ValueError: if the shapes differ.
  """
  check_shape('reference_logprobs', reference_logprobs, logprobs.shape)
  log_ratio = reference_logprobs - logprobs
  return jnp.exp(log_ratio) - log_ratio - 1


def token_weights(lengths: Sequence[int], aggregation: str) -> np.ndarray:
  """Returns the weight of each response token of each sequence of a minibatch.

  Args:
    lengths: response tokens of the R sequences.
    aggregation: token_mean: 1 / all tokens (DAPO, arXiv:2503.14476). sequence_mean: 1 / (R * the
      sequence's length) (GRPO, arXiv:2402.03300). sequence_sum: 1 / R (Dr. GRPO up to a constant,
      arXiv:2503.20783).

  Returns:
    `[R]` float64; 0 for a sequence without tokens, which still counts in R.

  Raises:
    InputError: if there is no such aggregation.
  """
  check_choice('aggregation', aggregation, AGGREGATIONS)
  lengths = np.asarray(lengths, np.int64)
  check_shape('lengths', lengths, [None])
  return np.where(lengths > 0, AGGREGATIONS[aggregation](lengths), 0.0)


def _token_mean(lengths: np.ndarray) -> np.ndarray:
  return np.full(lengths.shape, 1 / max(lengths.sum(), 1))


def _sequence_mean(lengths: np.ndarray) -> np.ndarray:
  return 1 / (len(lengths) * np.maximum(lengths, 1))


def _sequence_sum(lengths: np.ndarray) -> np.ndarray:
  return np.full(lengths.shape, 1 / max(len(lengths), 1))


AGGREGATIONS = {
  'token_mean': _token_mean,
  'sequence_mean': _sequence_mean,
  'sequence_sum': _sequence_sum,
}


def padded_sum_weights(lengths: Sequence[int], padded_width: int) -> np.ndarray:
  """Returns weights `[R]` as released in `seq-mean-token-sum-norm`: 1 / padded width of the batch.

  It is a sum over sequences in spite of its name, so the step grows with the batch; for
  comparisons only.
  """
  return np.where(np.asarray(lengths) > 0, 1 / padded_width, 0.0)
