"""From a finished tree to the trajectories that the learner trains on."""

from __future__ import annotations

import numpy as np

from ds_jax.types import FinishedTree, Trajectory, Verdict


def trajectories(tree: FinishedTree, group: int) -> list[Trajectory]:
  """All verified ends of a tree as trajectories: the collected ones in order, then the others.

  Args:
    tree: the finished tree.
    group: number that its trajectories share.
  """
  collected = set(tree.collected.tolist())
  outcomes = mean_outcomes(tree)
  return [_trajectory(tree, end, group, outcomes, end in collected) for end in tree.ends()]


def mean_outcomes(tree: FinishedTree) -> np.ndarray:
  """Mean outcome (+1 correct, -1 otherwise) of the verified ends at or below each node, `[N]`."""
  return (2.0 * tree.num_correct / np.maximum(tree.num_ends, 1) - 1.0).astype(np.float32)


def _trajectory(
  tree: FinishedTree, end: int, group: int, outcomes: np.ndarray, is_collected: bool
) -> Trajectory:
  path = np.array(tree.path(end), np.int32)
  return Trajectory(
    problem_id=tree.problem_id,
    group=group,
    prompt_tokens=tree.prompt_tokens,
    tokens=tree.along_path(tree.tokens, end),
    behavior_logprobs=tree.along_path(tree.logprobs, end),
    node_ids=path,
    node_lengths=(tree.token_start[path + 1] - tree.token_start[path]),
    node_values=tree.value_sum[path],
    node_outcomes=outcomes[path],
    reward=float(tree.reward[end]),
    is_correct=tree.verdict[end] == Verdict.CORRECT.value,
    is_collected=is_collected,
    num_given=tree.num_given,
    is_given_right=tree.is_given_right,
    temperature=tree.temperature,
  )
