"""The learner's part of an oracle folder: free-standing advantages, loss values and gradients.

Each record goes the way of a minibatch: `group_advantages`, rows of packed sequences, and the loss
function of the update. `oracle_replay.py` runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.config import TrainConfig
from ds_jax.testing.tolerance import tolerance
from ds_jax.train.advantages import group_advantages
from ds_jax.train.batch import Example, micro_batches, pack
from ds_jax.train.losses import padded_sum_weights, token_weights
from ds_jax.train.step import policy_loss_fn
from ds_jax.types import Trajectory

NORMALIZATIONS = {'sibling_mean': 'mean_only', 'sibling_mean_std': 'standard', 'none': 'none'}
AGGREGATIONS = {  # and seq-mean-token-sum-norm, which is `padded_sum_weights`
  'token-mean': 'token_mean',
  'seq-mean-token-mean': 'sequence_mean',
  'seq-mean-token-sum': 'sequence_sum',
}
ROWS, ROW_LENGTH = 8, 16  # of packed loss cases: one program serves all


# Recorded numbers are sums of some twenty terms of size 1 to 4, ours are rounded to float32.
RECORDED = tolerance('float32', 20, 4.0)


def close(name: str, got: Any, wanted: Any, atol: float = RECORDED, rtol: float = 0.0) -> None:
  """Raises AssertionError unless `got` is `wanted`, where None stands for NaN."""
  got = np.atleast_1d(np.asarray(got, float))
  wanted = [np.nan if x is None else x for x in np.atleast_1d(wanted).tolist()]
  np.testing.assert_allclose(got, np.array(wanted, float), atol=atol, rtol=rtol, err_msg=name)


def equal(name: str, got: Any, wanted: Any) -> None:
  """Raises AssertionError unless `got` equals `wanted`."""
  if got != wanted:
    raise AssertionError(f'{name}: expected {wanted!r}, got {got!r}')


def flat_trajectory(values: np.ndarray, logprobs: np.ndarray, group: int = 0) -> Trajectory:
  """A response with one node per token; its nodes have these values `[S]`."""
  size = len(values)
  return Trajectory(
    problem_id='',
    group=group,
    prompt_tokens=np.zeros(1, np.int32),
    tokens=np.zeros(size, np.int32),
    behavior_logprobs=np.asarray(logprobs, np.float32),
    node_ids=np.arange(size + 1, dtype=np.int32),
    node_lengths=np.array([0] + [1] * size, np.int32),
    node_values=np.append(0.0, values).astype(np.float32),
    node_outcomes=np.zeros(size + 1, np.float32),
    reward=0.0,
    is_correct=False,
    is_collected=True,
  )


def replay_advantage(case: dict[str, Any]) -> None:
  """Token scores as node values: the group's baseline is over the scores of its last tokens."""
  scores, mask = np.array(case['scores'], float), np.array(case['mask'], bool)
  groups = np.array(case['groups'])
  for name, normalization in NORMALIZATIONS.items():
    config = TrainConfig(
      advantage='q_mean',
      ends='collected',
      uniform_trees='keep',
      q_temperature=0.0,
      normalization=normalization,
    )
    for group in set(case['groups']):
      rows = np.flatnonzero(groups == group)
      trajectories = []
      for row in rows:
        values, is_token = scores[row], mask[row]
        trajectories.append(flat_trajectory(values[is_token], is_token[is_token], group))
      ours = group_advantages(trajectories, config, scores.shape[1])
      for row, per_token in zip(rows, ours.per_token, strict=True):
        padded = np.zeros(scores.shape[1])
        padded[mask[row]] = per_token
        close(f'{name} of row {row}', padded, case['results'][name][row], rtol=RECORDED)


@functools.cache
def jitted_loss(clip_low: float, clip_high: float, dual_clip: float) -> Callable[..., Any]:
  """Value, statistics and gradient of the policy loss; compiled once per clip."""
  loss_fn = policy_loss_fn(TrainConfig(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip))

  def loss_of(logprobs, batch):
    return loss_fn(logprobs, jnp.zeros_like(logprobs), batch)

  return jax.jit(jax.value_and_grad(loss_of, has_aux=True))


def replay_policy_loss(case: dict[str, Any], settings: dict[str, float]) -> None:
  """The packed loss of the update: value, gradient and figures under every aggregation."""
  old = np.array(case['old_log_prob'], float)
  new = np.array(case['log_prob'], float)
  advantages = np.array(case['advantages'], float)
  mask = np.array(case['mask'], bool)
  lengths = mask.sum(1).astype(int)
  weights = {mode: token_weights(lengths, name) for mode, name in AGGREGATIONS.items()}
  weights['seq-mean-token-sum-norm'] = padded_sum_weights(lengths, mask.shape[1])
  evaluate = jitted_loss(settings['clip_low'], settings['clip_high'], settings['dual_clip_c'])
  for mode, row_weights in weights.items():
    examples = []
    for row, is_token in enumerate(mask):
      prompt, response = np.zeros(1, np.int32), np.zeros(lengths[row], np.int32)
      example = Example(
        prompt, response, row_weights[row], advantages[row][is_token], old[row][is_token]
      )
      examples.append(example)
    batch, origin = pack(examples, ROW_LENGTH)
    (batch,) = micro_batches(batch, ROWS)
    spans = []
    for row, start, length in zip(*origin, lengths, strict=True):
      spans.append((row, slice(start, start + length)))
    logprobs = np.zeros(batch.tokens.shape, np.float32)
    for span, values, is_token in zip(spans, new, mask, strict=True):
      logprobs[span] = values[is_token]
    (loss, statistics), gradient = evaluate(logprobs, batch)
    close(f'{mode} loss', loss, case['results'][mode]['loss'], rtol=RECORDED)
    for i, (span, is_token) in enumerate(zip(spans, mask, strict=True)):
      wanted = np.array(case['results'][mode]['grad'][i], float)
      close(f'{mode} gradient of row {i}', gradient[span], wanted[is_token], rtol=RECORDED)
      equal(f'{mode} gradient beyond row {i}', bool(wanted[~is_token].any()), False)
  for name, total in (
    ('clipfrac', statistics.num_clipped),
    ('approx_kl', statistics.approx_kl),
    ('clipfrac_lower', statistics.num_clipped_lower),
  ):
    close(name, float(total) / max(lengths.sum(), 1), case[name], rtol=RECORDED)
