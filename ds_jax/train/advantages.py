"""Per-token advantages of one group of trajectories: a tree, or a group of direct rollouts.

Pure numpy on the host. A node gives the same advantage to each of its tokens, and a node that
several trajectories share appears once in each of them: copies weigh as often as they occur.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.checks import check_shape
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
      contrast, `advantage` the estimator, `granularity` whether each node has its own value,
      `normalization` whether the group's success rate divides (`success_rate`), `success_weight`
      how much more the nodes of correct ends weigh: with outcomes r in {0, 1} and p the group's
      mean, (r - p) + w r (1 - p).
    response_limit: max_depth * T, tokens; the overlong penalty counts back from it.

  Raises:
    ValueError: if the trajectories do not share one root, i.e. are not one group.
  """
  _check_one_root(trajectories)
  for t in trajectories:
    check_shape('node_values', t.node_values, t.node_lengths.shape)
    check_shape('node_outcomes', t.node_outcomes, t.node_lengths.shape)
  is_trained = trained_ends(trajectories, config)
  if not is_trained.any():
    zeros = [np.zeros(len(t.tokens), np.float32) for t in trajectories]
    return GroupAdvantages(tuple(zeros), is_trained)

  views = GRANULARITIES[config.granularity](trajectories)
  trained = list(itertools.compress(trajectories, is_trained))
  if config.uniform_trees == 'centre' and is_uniform(trained):
    per_node = centred_nodes(views, config, response_limit, is_trained=is_trained)
  else:
    per_node = NODE_ADVANTAGES[config.advantage](views, config, response_limit)
  if config.normalization == 'success_rate':
    per_node = over_success_rate(per_node, success_rate(views, config))

  per_token = []
  for values, view, flag in zip(per_node, views, is_trained, strict=True):
    if view.is_correct and config.success_weight:
      values = values + config.success_weight * np.maximum(values, 0)
    of_tokens = np.repeat(values, view.node_lengths)  # each token has that of its node
    per_token.append((of_tokens * flag).astype(np.float32))
  return GroupAdvantages(tuple(per_token), is_trained)


def trained_ends(trajectories: Sequence[Trajectory], config: TrainConfig) -> np.ndarray:
  """Returns which trajectories of a group train, `[R]` bool; all of them may be left out."""
  is_trained = _are_counted(trajectories, config.ends)
  trained = list(itertools.compress(trajectories, is_trained))
  if config.uniform_trees == 'drop' and is_uniform(trained):
    is_trained[:] = False
  # The baseline of q_mean is a mean over ends: where it has none, there is no advantage.
  in_baseline = _are_counted(trajectories, config.baseline_ends)
  if config.advantage == 'q_mean' and not in_baseline.any():
    is_trained[:] = False
  return is_trained


def is_uniform(ends: Sequence[Trajectory]) -> bool:
  """Returns whether all ends have the same outcome, so that none shows what is better.

  The same test is DAPO's for groups of rollouts (arXiv:2503.14476, Eq. 11).
  """
  return len({t.is_correct for t in ends}) < 2


def soft_clip(values: np.ndarray, temperature: float, maximum: float) -> np.ndarray:
  """q' = q_max * tanh(q / eps_q) (arXiv:2509.25454, section 4.2); temperature 0 switches it off."""
  if not temperature:
    return values
  return maximum * np.tanh(values / temperature)


def overlong_penalty(length: int, response_limit: int, *, buffer: int, factor: float) -> float:
  """min(-(length - (R - buffer)) / buffer * factor, 0): soft overlong punishment.

  Eq. 13 of DAPO (arXiv:2503.14476) with R the response limit, as released: added to every token
  of the trajectory. buffer 0 switches it off.
  """
  if not buffer:
    return 0.0
  return min(-(length - (response_limit - buffer)) / buffer * factor, 0.0)


def node_rewards(trajectory: Trajectory, config: TrainConfig, response_limit: int) -> np.ndarray:
  """r(s): soft-clipped q of inner nodes, the terminal's value as it is, plus the overlong penalty.

  A terminal's value is its q, which the backup leaves at 0 for ends that were not collected (the
  released code never trains on those): theirs is their reward.

  Returns:
    `[depth + 1]` float32, root first.
  """
  values = np.asarray(trajectory.node_values, np.float64)
  inner = soft_clip(values[:-1], config.q_temperature, config.q_max)
  end = values[-1] if trajectory.is_collected else trajectory.reward
  rewards = np.append(inner, end) + _penalty(trajectory, config, response_limit)
  return rewards.astype(np.float32)


def baseline(end_rewards: np.ndarray, normalization: str) -> tuple[float, float]:
  """Returns mean and divisor of a group's advantages.

  mean_only: (mu, 1), arXiv:2503.20783 (Dr. GRPO) and the released DeepSearch scripts.
  standard: (mu, sigma + 1e-6), population sigma, arXiv:2402.03300 (GRPO). none: (0, 1).
  success_rate: (mu, 1), which `over_success_rate` divides.

  Args:
    end_rewards: `[K]` of the group's ends. For K = 1, as released, mu = 0 and sigma = 1; but under
      success_rate mu is the mean of the one.
    normalization: `train.normalization`.
  """
  end_rewards = np.asarray(end_rewards, np.float64)
  check_shape('end_rewards', end_rewards, [None])
  if normalization == 'none':
    return 0.0, 1.0
  mean, sigma = 0.0, 1.0
  if len(end_rewards) > 1 or (normalization == 'success_rate' and len(end_rewards)):
    mean, sigma = float(end_rewards.mean()), float(end_rewards.std())
  if normalization == 'standard':
    return mean, sigma + EPSILON
  return mean, 1.0


def q_mean(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = (r(s) - mu) / divisor, r the node reward, mu the mean of the ends' r.

  The released estimator (arXiv:2509.25454, Eq. 9) with mu over the collected ends;
  `baseline_ends` = 'all' takes all verified ends. Inner nodes of an all-wrong tree come out
  positive, since their soft-clipped q lies above the ends' mean of -1.
  """
  rewards = [node_rewards(t, config, response_limit) for t in trajectories]
  end_rewards = np.array([r[-1] for r in rewards])
  in_baseline = _are_counted(trajectories, config.baseline_ends)
  mean, divisor = baseline(end_rewards[in_baseline], config.normalization)
  return [(r - mean) / divisor for r in rewards]


def tree_mean(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = m(s) - m(root), m(s) the mean outcome of the verified ends at or below s."""
  penalties = _centred_penalties(trajectories, config, response_limit)
  advantages = []
  for t, penalty in zip(trajectories, penalties, strict=True):
    advantages.append(t.node_outcomes - t.node_outcomes[0] + penalty)
  return advantages


def td(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = m(s) - m(parent of s): what the step to s changed; the sum along a path is tree_mean."""
  penalties = _centred_penalties(trajectories, config, response_limit)
  advantages = []
  for t, penalty in zip(trajectories, penalties, strict=True):
    # The root has no parent: its difference is 0, and it has no tokens.
    differences = np.diff(t.node_outcomes, prepend=t.node_outcomes[:1])
    advantages.append(differences + penalty)
  return advantages


def leave_one_out(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> list[np.ndarray]:
  """A(s) = r(s) - mean of the other ends' r (RLOO, arXiv:2402.14740, Eq. 8).

  Other ends are those of `baseline_ends` without the trajectory's own; 0 where there is none.
  """
  rewards = [node_rewards(t, config, response_limit) for t in trajectories]
  end_rewards = np.array([r[-1] for r in rewards], np.float64)
  in_baseline = _are_counted(trajectories, config.baseline_ends)
  # The sum over the baseline without the trajectory's own end, and how many ends that leaves.
  total = (end_rewards * in_baseline).sum() - end_rewards * in_baseline
  count = in_baseline.sum() - in_baseline
  # Where no other end is left, the own reward is the baseline: the end's advantage is 0.
  means = np.where(count > 0, total / np.maximum(count, 1), end_rewards)
  return [r - mean for r, mean in zip(rewards, means, strict=True)]


NODE_ADVANTAGES = {
  'q_mean': q_mean,
  'tree_mean': tree_mean,
  'td': td,
  'leave_one_out': leave_one_out,
}


def success_rate(trajectories: Sequence[Trajectory], config: TrainConfig) -> float:
  """Returns p, the share of right ends among those whose mean the advantage subtracts.

  These are the ends of `baseline_ends` for q_mean and leave_one_out, and all of the group for the
  estimators that subtract what nodes are worth.
  """
  has_baseline = config.advantage in ('q_mean', 'leave_one_out')
  is_counted = _are_counted(trajectories, config.baseline_ends if has_baseline else 'all')
  is_correct = np.array([t.is_correct for t in trajectories], bool)
  return float(is_correct[is_counted].mean()) if is_counted.any() else 0.0


def over_success_rate(per_node: Sequence[np.ndarray], rate: float) -> list[np.ndarray]:
  """A(s) / (2 p), and 0 where p = 0: with outcomes in {0, 1} it is (r - p) / p.

  That is MaxRL (arXiv:2602.02710, Algorithm 1): rewards here are -1 and 1, so r - mean is twice
  what it is there. p is of right answers, and not the mean of rewards, which may be negative.

  Args:
    per_node: advantages of the nodes of each trajectory.
    rate: p of the group.
  """
  divided = []
  for values in per_node:
    divided.append(values / (2 * rate) if rate else np.zeros_like(values))
  return divided


def centred_nodes(
  trajectories: Sequence[Trajectory],
  config: TrainConfig,
  response_limit: int,
  *,
  is_trained: np.ndarray,
) -> list[np.ndarray]:
  """A(s) = r(s) minus the mean of r over the trained tokens of the group, copies included.

  For trees of uniform outcome, whatever the estimator: what their nodes are worth is compared among
  themselves, so that the advantages of the tokens sum to zero and an all-wrong tree does not raise
  its own tokens.
  """
  rewards = [node_rewards(t, config, response_limit) for t in trajectories]
  of_trained_tokens = []
  for r, t in itertools.compress(zip(rewards, trajectories, strict=True), is_trained):
    of_trained_tokens.append(np.repeat(r, t.node_lengths))
  of_trained_tokens = np.concatenate(of_trained_tokens, dtype=np.float64)
  if not len(of_trained_tokens):
    return rewards
  mean = float(of_trained_tokens.mean())
  return [r - mean for r in rewards]


def node_views(trajectories: Sequence[Trajectory]) -> Sequence[Trajectory]:
  """Fine-grained credit: every node has its own value."""
  return trajectories


def outcome_views(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
  """Coarse credit: one node from the root to the end, so that all its tokens share the outcome."""
  views = []
  for t in trajectories:
    end_value = t.node_values[-1] if t.is_collected else t.reward
    view = dataclasses.replace(
      t,
      node_ids=t.node_ids[[0, -1]],
      node_lengths=np.array([0, len(t.tokens)], np.int32),
      node_values=np.array([0.0, end_value], np.float32),
      node_outcomes=t.node_outcomes[[0, -1]],
    )
    views.append(view)
  return views


GRANULARITIES = {'node': node_views, 'outcome': outcome_views}


def flat_group(trajectories: Sequence[Trajectory], group: int) -> list[Trajectory]:
  """Independent rollouts of one problem as one tree of depth 1: all their tokens share a value.

  With `q_mean` this is GRPO's group of outcomes, with `tree_mean` or `td` outcome minus mean
  outcome. Cached solutions and fresh rollouts are mixed the same way.
  """
  if not trajectories:  # all rollouts are masked
    return []
  is_correct = np.array([t.is_correct for t in trajectories], bool)
  outcomes = np.where(is_correct, 1.0, -1.0).astype(np.float32)
  mean_outcome = outcomes.mean()
  flat = []
  for i, (t, outcome) in enumerate(zip(trajectories, outcomes, strict=True)):
    end = dataclasses.replace(
      t,
      group=group,
      is_collected=True,
      node_ids=np.array([0, i + 1], np.int32),
      node_lengths=np.array([0, len(t.tokens)], np.int32),
      node_values=np.array([0.0, t.reward], np.float32),
      node_outcomes=np.array([mean_outcome, outcome], np.float32),
    )
    flat.append(end)
  return flat


def joined_group(trees: Sequence[Sequence[Trajectory]], group: int) -> list[Trajectory]:
  """Trees of one problem as one: they share the root, whose mean outcome is that of all ends.

  Nodes below the root keep their values and get new numbers.

  Args:
    trees: the ends of each tree, all of which start from the same prompt.
    group: number that the ends share.
  """
  ends = list(itertools.chain.from_iterable(trees))
  num_right = sum(t.is_correct for t in ends)
  mean_outcome = np.float32(2.0 * num_right / max(len(ends), 1) - 1.0)
  joined = []
  num_nodes = 0  # of the trees before, their roots left out
  for tree in trees:
    for t in tree:
      node_ids = np.where(t.node_ids > 0, t.node_ids + num_nodes, 0).astype(np.int32)
      node_outcomes = np.concatenate([[mean_outcome], t.node_outcomes[1:]]).astype(np.float32)
      end = dataclasses.replace(t, group=group, node_ids=node_ids, node_outcomes=node_outcomes)
      joined.append(end)
    num_nodes += max((int(t.node_ids.max()) for t in tree), default=0)
  return joined


def _are_counted(trajectories: Sequence[Trajectory], ends: str) -> np.ndarray:
  """Returns `[R]` bool: 'all' of a group's ends, or those that the search 'collected'."""
  is_collected = np.array([t.is_collected for t in trajectories], bool)
  return np.ones_like(is_collected) if ends == 'all' else is_collected


def _penalty(trajectory: Trajectory, config: TrainConfig, response_limit: int) -> float:
  return overlong_penalty(
    trajectory.num_given + len(trajectory.tokens),
    response_limit,
    buffer=config.overlong_buffer,
    factor=config.overlong_factor,
  )


def _centred_penalties(
  trajectories: Sequence[Trajectory], config: TrainConfig, response_limit: int
) -> np.ndarray:
  """Returns overlong penalties [R] minus their mean: like outcomes, they compare a group's ends."""
  penalties = np.array([_penalty(t, config, response_limit) for t in trajectories])
  return penalties - penalties.mean()


def _check_one_root(trajectories: Sequence[Trajectory]) -> None:
  roots = set()
  for t in trajectories:
    roots.add((t.problem_id, t.group, float(t.node_outcomes[0])))
  if len(roots) > 1:
    raise ValueError(
      f'Expected trajectories of one group, got {len(roots)} roots '
      f'(problem, group, mean outcome): {sorted(roots)[:4]}; '
      'join independent rollouts with flat_group.'
    )
