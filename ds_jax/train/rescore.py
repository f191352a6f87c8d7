"""What a step needs from further forward passes, before its first update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Decoder
from ds_jax.train.batch import Batch, pack, plain_examples, scatter
from ds_jax.train.replay import Solution, cached_trajectory
from ds_jax.train.step import Learner
from ds_jax.types import Trajectory


def rescore(
  learner: Learner, params: Decoder, reference: Decoder | None, batch: Batch, config: TrainConfig
) -> Batch:
  """Adds what the settings ask for; the batch itself if they ask for nothing.

  Args:
    learner: whose forward pass is used.
    params: of the present policy, before the step's first update.
    reference: parameters of the reference policy; read where `kl_coefficient` > 0.
    batch: `[R, S]` on the host.
    config: `kl_coefficient` and `importance_cap`; 0 switches either off.
  """
  if config.kl_coefficient:
    batch = batch._replace(reference_logprobs=learner.score(reference, batch)[0])
  if config.importance_cap:
    batch = truncate_importance(batch, learner.score(params, batch)[0], config.importance_cap)
  return batch


def truncate_importance(batch: Batch, logprobs: np.ndarray, cap: float) -> Batch:
  """Truncated importance weights for samples of an older or otherwise different policy.

  With mu the policy that sampled and pi_0 the present one, a token's advantage is multiplied by
    min(pi_0 / mu, cap)
  and the clipped ratio is pi / pi_0: it starts at 1 however stale the sample is. The truncation
  bounds the variance (Ionides 2008, doi:10.1198/106186008X320456); the split into two ratios is
  that of arXiv:2110.00641.

  Args:
    batch: its `behavior_logprobs` are mu's.
    logprobs: `[R, S]` float32, pi_0's.
    cap: upper bound of the weight, > 0.
  """
  mask = batch.token_mask
  log_weight = np.where(mask, logprobs - batch.behavior_logprobs, 0)
  weight = np.exp(np.minimum(log_weight, np.log(cap))).astype(np.float32)
  return batch._replace(
    positive=batch.positive * weight,
    negative=batch.negative * weight,
    behavior_logprobs=np.where(mask, logprobs, batch.behavior_logprobs),
  )


def score_solutions(
  learner: Learner, params: Decoder, wanted: Sequence[tuple[str, Solution]], row_length: int
) -> list[Trajectory]:
  """Cached solutions as trajectories whose behaviour log-probs are the present policy's.

  Args:
    learner: whose forward pass is used.
    params: of the present policy.
    wanted: (problem, solution) pairs.
    row_length: of the packed rows; that of the updates, so that nothing new is compiled.
  """
  pairs = [
    (np.array(s.prompt_tokens, np.int32), np.array(s.response_tokens, np.int32)) for _, s in wanted
  ]
  batch, origin = pack(plain_examples(pairs), row_length)
  lengths = [len(response) for _, response in pairs]
  logprobs, _ = learner.score(params, batch)
  scores = scatter(logprobs, origin, lengths)
  return [
    cached_trajectory(name, solution, score)
    for (name, solution), score in zip(wanted, scores, strict=True)
  ]


def importance_metrics(
  before: Sequence[Batch], after: Sequence[Batch], config: TrainConfig
) -> dict[str, float]:
  """The weights that `truncate_importance` gave the minibatches of a step; none if it is off.

  Means over copies of response tokens. importance_mean: of the weight. importance_capped: share
  whose weight was cut to `importance_cap`.
  """
  if not config.importance_cap:
    return {}
  copies, logs = (
    np.concatenate([x[a.token_mask] for a, x in pairs] or [np.zeros(0)])
    for pairs in (
      [(a, a.num_copies) for a in before],
      [(a, b.behavior_logprobs - a.behavior_logprobs) for a, b in zip(before, after, strict=True)],
    )
  )
  total = max(copies.sum(), 1.0)
  weights = np.exp(np.minimum(logs, np.log(config.importance_cap)))
  return {
    'train/importance_mean': float((copies * weights).sum() / total),
    'train/importance_capped': float(copies[logs > np.log(config.importance_cap)].sum() / total),
  }
