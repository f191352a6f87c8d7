"""Per-token advantages of one group of trajectories: a tree, or a group of direct rollouts.

Pure numpy on the host. A node gives the same advantage to each of its tokens, and a node that
several trajectories share appears once in each of them: copies weigh as often as they occur.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.config import TrainConfig
from ds_jax.types import Trajectory

EPSILON = 1e-6  # added to sigma, as released


class GroupAdvantages(NamedTuple):
  """Aligned with the trajectories of the group; a group trains if any of them does."""

  per_token: tuple[np.ndarray, ...]  # one [S] float32 per trajectory, zeros where not trained
  is_trained: np.ndarray  # [R] bool


def group_advantages(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> GroupAdvantages:
  """Returns the advantage of every response token of one group.

  Args:
    trajectories: all verified ends of one tree, or one group of direct rollouts (`flat_group`).
    config: `ends` says which of them train, `uniform_trees` what becomes of a group without
      contrast, `advantage` the estimator, `granularity` whether each node has its own value.
    response_limit: max_depth * T, tokens; the overlong penalty counts back from it.

  Raises:
    ValueError: if the trajectories do not share one root, i.e. are not one group.
  """
  _check_one_root(trajectories)
  is_trained = np.array([t.is_collected or config.ends == 'all' for t in trajectories], bool)
  ends = [t for t, trained in zip(trajectories, is_trained, strict=True) if trained]
  if config.uniform_trees == 'drop' and is_uniform(ends):
    is_trained[:] = False
  if (
    config.advantage == 'q_mean'
    and config.baseline_ends == 'collected'
    and not any(t.is_collected for t in trajectories)
  ):
    is_trained[:] = False  # its baseline is the mean over collected ends: there is none
  if not is_trained.any():
    return GroupAdvantages(
      tuple(np.zeros(len(t.tokens), np.float32) for t in trajectories), is_trained
    )
  views = GRANULARITIES[config.granularity](trajectories)
  if config.uniform_trees == 'centre' and is_uniform(ends):
    per_node = centred_nodes(views, is_trained, config, response_limit)
  else:
    per_node = NODE_ADVANTAGES[config.advantage](views, config, response_limit)
  per_token = tuple(
    (np.repeat(values, view.node_lengths) * trained).astype(np.float32)
    for values, view, trained in zip(per_node, views, is_trained, strict=True)
  )
  return GroupAdvantages(per_token, is_trained)


def is_uniform(ends: Sequence[Trajectory]) -> bool:
  """Whether all ends have the same outcome, so that the group says nothing about which is better.

  The same test is DAPO's for groups of rollouts (arXiv:2503.14476, Eq. 11).
  """
  return len({t.is_correct for t in ends}) < 2


def soft_clip(values: np.ndarray, temperature: float, maximum: float) -> np.ndarray:
  """q' = q_max * tanh(q / eps_q) (arXiv:2509.25454, section 4.2); temperature 0 switches it off."""
  return maximum * np.tanh(values / temperature) if temperature else values


def overlong_penalty(length: int, response_limit: int, buffer: int, factor: float) -> float:
  """min(-(length - (R - buffer)) / buffer * factor, 0): soft overlong punishment.

  Eq. 13 of DAPO (arXiv:2503.14476) with R the response limit, as released: added to every token
  of the trajectory. buffer 0 switches it off.
  """
  return min(-(length - (response_limit - buffer)) / buffer * factor, 0.0) if buffer else 0.0


def node_rewards(trajectory: Trajectory, config: TrainConfig, response_limit: int) -> np.ndarray:
  """Soft-clipped q of inner nodes, the terminal's value as it is, plus the overlong penalty.

  A terminal's value is its q, which the backup leaves at 0 for ends that were not collected (the
  released code never trains on those): theirs is their reward.

  Returns:
    `[depth + 1]` float32, root first.
  """
  values = np.asarray(trajectory.node_values, np.float64)
  end = values[-1] if trajectory.is_collected else trajectory.reward
  values = np.append(soft_clip(values[:-1], config.q_temperature, config.q_max), end)
  return (values + _penalty(trajectory, config, response_limit)).astype(np.float32)


def baseline(end_rewards: np.ndarray, normalization: str) -> tuple[float, float]:
  """Mean and divisor of a group's advantages from the rewards `[K]` of its collected ends.

  mean_only: (mu, 1), arXiv:2503.20783 (Dr. GRPO) and the released DeepSearch scripts.
  standard: (mu, sigma + 1e-6), population sigma, arXiv:2402.03300 (GRPO); for K = 1 mu = 0 and
  sigma = 1. none: (0, 1).
  """
  if normalization == 'none':
    return 0.0, 1.0
  end_rewards = np.asarray(end_rewards, np.float64)
  mean, sigma = (end_rewards.mean(), end_rewards.std()) if len(end_rewards) > 1 else (0.0, 1.0)
  return float(mean), float(sigma + EPSILON) if normalization == 'standard' else 1.0


def q_mean(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = (r(s) - mu) / divisor, r the node reward, mu the mean of the ends' r.

  The released estimator (arXiv:2509.25454, Eq. 9) with mu over the collected ends;
  `baseline_ends` = 'all' takes all verified ends. Inner nodes of an all-wrong tree come out
  positive, since their soft-clipped q lies above the ends' mean of -1.
  """
  rewards = [node_rewards(t, config, response_limit) for t in trajectories]
  ends = [
    r[-1]
    for r, t in zip(rewards, trajectories, strict=True)
    if t.is_collected or config.baseline_ends == 'all'
  ]
  mean, divisor = baseline(np.array(ends), config.normalization)
  return [(r - mean) / divisor for r in rewards]


def tree_mean(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = m(s) - m(root), m(s) the mean outcome of the verified ends at or below s."""
  penalties = _centred_penalties(trajectories, config, response_limit)
  return [
    t.node_outcomes - t.node_outcomes[0] + penalty
    for t, penalty in zip(trajectories, penalties, strict=True)
  ]


def td(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = m(s) - m(parent of s): what the step to s changed; the sum along a path is tree_mean."""
  penalties = _centred_penalties(trajectories, config, response_limit)
  return [
    np.diff(t.node_outcomes, prepend=t.node_outcomes[:1]) + penalty
    for t, penalty in zip(trajectories, penalties, strict=True)
  ]


def leave_one_out(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = r(s) - mean of the other ends' r (RLOO, arXiv:2402.14740, Eq. 8).

  Other ends are those of `baseline_ends` without the trajectory's own; 0 where there is none.
  """
  rewards = [node_rewards(t, config, response_limit) for t in trajectories]
  counts = np.array([t.is_collected or config.baseline_ends == 'all' for t in trajectories])
  ends = np.array([r[-1] for r in rewards], np.float64)
  total, number = (ends * counts).sum() - ends * counts, counts.sum() - counts
  others = np.where(number > 0, total / np.maximum(number, 1), ends)
  return [r - mean for r, mean in zip(rewards, others, strict=True)]


NODE_ADVANTAGES = {
  'q_mean': q_mean,
  'tree_mean': tree_mean,
  'td': td,
  'leave_one_out': leave_one_out,
}


def centred_nodes(
  trajectories: Sequence[Trajectory],
  is_trained: np.ndarray,
  config: TrainConfig,
  response_limit: int,
) -> list[np.ndarray]:
  """A(s) = r(s) minus the mean of r over the trained tokens of the group, copies included.

  For trees of uniform outcome, whatever the estimator: what their nodes are worth is compared among
  themselves, so that the advantages of the tokens sum to zero and an all-wrong tree does not raise
  its own tokens.
  """
  rewards = [node_rewards(t, config, response_limit) for t in trajectories]
  trained = [
    np.repeat(r, t.node_lengths)
    for r, t, is_in in zip(rewards, trajectories, is_trained, strict=True)
    if is_in
  ]
  tokens = np.concatenate(trained)
  mean = float(tokens.astype(np.float64).mean()) if len(tokens) else 0.0
  return [r - mean for r in rewards]


def nodes(trajectories: Sequence[Trajectory]) -> Sequence[Trajectory]:
  """Fine-grained credit: every node has its own value."""
  return trajectories


def outcomes(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
  """Coarse credit: one node from the root to the end, so that all its tokens share the outcome."""
  return [
    dataclasses.replace(
      t,
      node_ids=t.node_ids[[0, -1]],
      node_lengths=np.array([0, len(t.tokens)], np.int32),
      node_values=np.array([0.0, t.node_values[-1] if t.is_collected else t.reward], np.float32),
      node_outcomes=t.node_outcomes[[0, -1]],
    )
    for t in trajectories
  ]


GRANULARITIES = {'node': nodes, 'outcome': outcomes}


def flat_group(trajectories: Sequence[Trajectory], group: int) -> list[Trajectory]:
  """Independent rollouts of one problem as one tree of depth 1: all their tokens share a value.

  With `q_mean` this is GRPO's group of outcomes, with `tree_mean` or `td` outcome minus mean
  outcome. Cached solutions and fresh rollouts are mixed the same way.
  """
  outcomes = np.array([1.0 if t.is_correct else -1.0 for t in trajectories], np.float32)
  return [
    dataclasses.replace(
      t,
      group=group,
      is_collected=True,
      node_ids=np.array([0, i + 1], np.int32),
      node_lengths=np.array([0, len(t.tokens)], np.int32),
      node_values=np.array([0.0, t.reward], np.float32),
      node_outcomes=np.array([outcomes.mean(), outcome], np.float32),
    )
    for i, (t, outcome) in enumerate(zip(trajectories, outcomes, strict=True))
  ]


def _penalty(trajectory: Trajectory, config: TrainConfig, response_limit: int) -> float:
  return overlong_penalty(
    len(trajectory.tokens), response_limit, config.overlong_buffer, config.overlong_factor
  )


def _centred_penalties(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> np.ndarray:
  """Overlong penalties [R] minus their mean: like outcomes, they are compared within the group."""
  penalties = np.array([_penalty(t, config, response_limit) for t in trajectories])
  return penalties - penalties.mean()


def _check_one_root(trajectories: Sequence[Trajectory]) -> None:
  roots = {(t.problem_id, t.group, float(t.node_outcomes[0])) for t in trajectories}
  if len(roots) > 1:
    raise ValueError(
      f'Expected trajectories of one group, got {len(roots)} roots '
      f'(problem, group, mean outcome): {sorted(roots)[:4]}; '
      'join independent rollouts with flat_group.'
    )
