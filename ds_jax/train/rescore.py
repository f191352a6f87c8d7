"""Forward passes before the first update of a step: reference, importance, cached solutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds_jax.checks import check_shape
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Decoder
from ds_jax.train.batch import Batch, pack, plain_examples, scatter
from ds_jax.train.replay import Solution, cached_trajectory
from ds_jax.train.state import Policy
from ds_jax.train.step import Learner
from ds_jax.types import Trajectory


def rescore(
  learner: Learner,
  params: Policy,
  batch: Batch,
  *,
  reference: Decoder | None,
  config: TrainConfig,
) -> Batch:
  """Adds to a batch what the settings ask for; returns the same batch if they ask for nothing.

  Args:
    learner: whose forward pass is used.
    params: of the present policy, before the step's first update.
    batch: `[R, S]` on the host.
    reference: parameters of the reference policy; read where `kl_coefficient` > 0.
    config: `kl_coefficient` and `importance_cap`, 0 switches either off; `importance_outliers` and
      `importance_floor`.
  """
  if config.kl_coefficient:
    reference_logprobs, _ = learner.score(reference, batch)
    batch = batch._replace(reference_logprobs=reference_logprobs)
  if config.importance_cap:
    logprobs, _ = learner.score(params, batch)
    batch = weigh_importance(batch, logprobs, config)
  return batch


def weigh_importance(batch: Batch, logprobs: np.ndarray, config: TrainConfig) -> Batch:
  """Importance weights for samples of an older or otherwise different policy.

  With mu the policy that sampled and pi_0 the present one, a token's advantage is multiplied by
  `importance_weights` of pi_0 / mu and the clipped ratio is pi / pi_0: it starts at 1 however stale
  the sample is. The split into two ratios is that of arXiv:2110.00641.

  Args:
    batch: its `behavior_logprobs` are mu's.
    logprobs: `[R, S]` float32, pi_0's.
    config: `importance_cap`, > 0, and what becomes of weights beyond it.

  Raises:
    ValueError: if `logprobs` has another shape than the batch.
  """
  check_shape('logprobs', logprobs, batch.tokens.shape)
  mask = batch.token_mask
  log_weight = np.where(mask, logprobs - batch.behavior_logprobs, 0)  # 0 where nothing is scored
  weight = importance_weights(log_weight, config).astype(np.float32)
  # No weight is negative, so it scales the sums of positive and of negative advantages alike.
  batch = batch._replace(
    positive=batch.positive * weight,
    negative=batch.negative * weight,
    behavior_logprobs=np.where(mask, logprobs, batch.behavior_logprobs),
  )
  if config.importance_outliers == 'masked':
    # What teaches nothing is not counted as clipped either.
    is_learnt = weight > 0
    batch = batch._replace(
      num_positive=batch.num_positive * is_learnt, num_negative=batch.num_negative * is_learnt
    )
  return batch


def importance_weights(log_weight: np.ndarray, config: TrainConfig) -> np.ndarray:
  """Returns bounded importance weights from the logarithms of w = pi_0 / mu.

  truncated: min(w, cap), which bounds the variance (Ionides 2008, doi:10.1198/106186008X320456).
  masked: w if floor <= w <= cap, else 0: tokens on which the two policies differ so much teach
  nothing (IcePop, arXiv:2510.18855).

  Args:
    log_weight: of each token.
    config: `importance_outliers`, `importance_cap`, `importance_floor`.
  """
  # In logarithms, so that exp cannot overflow.
  weight = np.exp(np.minimum(log_weight, np.log(config.importance_cap)))
  if config.importance_outliers == 'truncated':
    return weight
  return np.where(_is_outlier(log_weight, config), 0, weight)


def _is_outlier(log_weight: np.ndarray, config: TrainConfig) -> np.ndarray:
  """Which weights are beyond the bounds."""
  is_large = log_weight > np.log(config.importance_cap)
  if config.importance_outliers == 'truncated' or not config.importance_floor:
    return is_large
  return is_large | (log_weight < np.log(config.importance_floor))


def score_solutions(
  learner: Learner,
  params: Policy,
  solutions: Sequence[tuple[str, Solution]],
  *,
  row_length: int,
  temperature: float | None = None,
) -> list[Trajectory]:
  """Returns cached solutions as trajectories with the present policy's log-probs as behaviour.

  Args:
    learner: whose forward pass is used.
    params: of the present policy.
    solutions: (problem id, solution) pairs.
    row_length: of the packed rows; that of the updates, so that nothing new is compiled.
    temperature: that they are scored at, as they will be in updates; None: the learner's.
  """
  pairs = []
  for _, solution in solutions:
    prompt = np.array(solution.prompt_tokens, np.int32)
    response = np.array(solution.response_tokens, np.int32)
    pairs.append((prompt, response))
  batch, origin = pack(plain_examples(pairs, temperature), row_length)
  logprobs, _ = learner.score(params, batch)
  lengths = [len(response) for _, response in pairs]
  trajectories = []
  for (name, solution), values in zip(solutions, scatter(logprobs, origin, lengths), strict=True):
    trajectories.append(cached_trajectory(name, solution, values))
  return trajectories


def importance_metrics(
  before: Sequence[Batch], after: Sequence[Batch], config: TrainConfig
) -> dict[str, float]:
  """Returns metrics of the weights that `weigh_importance` gave a step.

  There are none if it is off, or nothing is trained on.

  Means over copies of response tokens. importance_mean: of the weight. importance_capped: share
  whose weight was cut to `importance_cap`; importance_masked: to 0.

  Args:
    before: the minibatches of the step as packed.
    after: the same minibatches, rescored.
    config: `importance_cap`, `importance_outliers`, `importance_floor`.
  """
  if not config.importance_cap:
    return {}
  copies, log_weights = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
  for packed, rescored in zip(before, after, strict=True):
    mask = packed.token_mask
    copies.append(packed.num_copies[mask])
    # Rescoring made pi_0's log-prob the behaviour's: the difference is log(pi_0 / mu), not cut.
    log_weights.append((rescored.behavior_logprobs - packed.behavior_logprobs)[mask])
  copies, log_weights = np.concatenate(copies), np.concatenate(log_weights)
  if not copies.sum():
    return {}
  weights = importance_weights(log_weights, config)
  outliers = copies[_is_outlier(log_weights, config)]
  total = copies.sum()
  share = 'capped' if config.importance_outliers == 'truncated' else 'masked'
  return {
    'train/importance_mean': float((copies * weights).sum() / total),
    f'train/importance_{share}': float(outliers.sum() / total),
  }
