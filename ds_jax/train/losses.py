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

from ds_jax.checks import check_choice


class ClippedLoss(NamedTuple):
  """Per token, in the shape of the arguments."""

  loss: jax.Array  # [...] float32
  log_ratio: jax.Array  # [...] float32, log of policy over behaviour probability
  is_clipped: jax.Array  # [...] bool, the clipped branch is strictly larger
  is_clipped_lower: jax.Array  # [...] bool, the dual clip bounds the loss of a bad token


def clipped_loss(
  logprobs: jax.Array,
  behavior_logprobs: jax.Array,
  advantages: jax.Array,
  *,
  clip_low: float,
  clip_high: float,
  dual_clip: float,
) -> ClippedLoss:
  """The clipped surrogate of PPO with asymmetric and dual clip.

  With rho = exp(logprob - behavior_logprob) and A the advantage,
    m = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high))   arXiv:1707.06347; arXiv:2503.14476
    loss = min(m, -A dual_clip) where A < 0, else m              arXiv:1912.09729, Eq. 5
  It is positively homogeneous in A.

  Args:
    logprobs: `[...]` of the present policy.
    behavior_logprobs: `[...]` of the policy that sampled.
    advantages: `[...]`.
    clip_low: how far below 1 the ratio counts.
    clip_high: how far above 1 the ratio counts.
    dual_clip: bound of the ratio for negative advantages, > 1.
  """
  log_ratio = logprobs - behavior_logprobs
  ratio = jnp.exp(log_ratio)
  plain = -advantages * ratio
  clipped = -advantages * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
  loss, bound = jnp.maximum(plain, clipped), -advantages * dual_clip
  is_bad = advantages < 0
  return ClippedLoss(
    loss=jnp.where(is_bad, jnp.minimum(loss, bound), loss),
    log_ratio=log_ratio,
    is_clipped=clipped > plain,
    is_clipped_lower=is_bad & (loss > bound),
  )


class CollapsedLoss(NamedTuple):
  """Per distinct token: sums over its copies."""

  loss: jax.Array  # [...] float32, weighted
  num_clipped: jax.Array  # [...] float32
  num_clipped_lower: jax.Array  # [...] float32


def collapsed_loss(
  logprobs: jax.Array,
  behavior_logprobs: jax.Array,
  positive: jax.Array,
  negative: jax.Array,
  num_positive: jax.Array,
  num_negative: jax.Array,
  *,
  clip_low: float,
  clip_high: float,
  dual_clip: float,
) -> CollapsedLoss:
  """`clipped_loss` summed over copies of each token that differ in weight and advantage alone.

  The loss L is positively homogeneous in the advantage, so
    sum_c w_c L(A_c) = L(1) sum_c w_c max(A_c, 0) + L(-1) sum_c w_c max(-A_c, 0).

  Args:
    logprobs: `[...]` of the present policy.
    behavior_logprobs: `[...]` of the policy that sampled.
    positive: `[...]` sum of w_c max(A_c, 0). negative: `[...]` sum of w_c max(-A_c, 0).
    num_positive: `[...]` copies with A_c > 0. num_negative: `[...]` copies with A_c < 0.
    clip_low, clip_high, dual_clip: as in `clipped_loss`.
  """
  clip = {'clip_low': clip_low, 'clip_high': clip_high, 'dual_clip': dual_clip}
  up = clipped_loss(logprobs, behavior_logprobs, jnp.ones_like(positive), **clip)
  down = clipped_loss(logprobs, behavior_logprobs, -jnp.ones_like(negative), **clip)
  return CollapsedLoss(
    loss=positive * up.loss + negative * down.loss,
    num_clipped=num_positive * up.is_clipped + num_negative * down.is_clipped,
    num_clipped_lower=num_negative * down.is_clipped_lower,
  )


def reference_kl(logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
  """KL(policy || reference) from the sampled token: r - log r - 1, r = reference / policy.

  Unbiased for samples of the policy and never negative (arXiv:2402.03300, Eq. 4).
  """
  log_ratio = reference_logprobs - logprobs
  return jnp.exp(log_ratio) - log_ratio - 1


def token_weights(lengths: Sequence[int], aggregation: str) -> np.ndarray:
  """Weight of each response token of each sequence of a minibatch.

  Args:
    lengths: response tokens of the R sequences.
    aggregation: token_mean: 1 / all tokens (DAPO). sequence_mean: 1 / (R * own length) (GRPO).
      sequence_sum: 1 / R (Dr. GRPO up to a constant).

  Returns:
    `[R]` float64; 0 for a sequence without tokens, which still counts in R.
  """
  check_choice('aggregation', aggregation, AGGREGATIONS)
  lengths = np.asarray(lengths, np.int64)
  return np.where(lengths > 0, AGGREGATIONS[aggregation](lengths), 0.0)


AGGREGATIONS = {
  'token_mean': lambda lengths: np.full(lengths.shape, 1 / max(lengths.sum(), 1)),
  'sequence_mean': lambda lengths: 1 / (len(lengths) * np.maximum(lengths, 1)),
  'sequence_sum': lambda lengths: np.full(lengths.shape, 1 / max(len(lengths), 1)),
}


def padded_sum_weights(lengths: Sequence[int], padded_width: int) -> np.ndarray:
  """Weights `[R]` of the released mode `seq-mean-token-sum-norm`: 1 / padded width of the batch.

  It is a sum over sequences in spite of its name, so the step grows with the batch; for
  comparisons only.
  """
  return np.where(np.asarray(lengths) > 0, 1 / padded_width, 0.0)
