"""From a finished tree to the trajectories that the learner trains on."""

from __future__ import annotations

import numpy as np

from ds_jax.types import FinishedTree, Trajectory, Verdict


def trajectories(tree: FinishedTree, group: int) -> list[Trajectory]:
  """All verified ends of a tree as trajectories: the collected ones in order, then the others.

  Masked ends are left out: verification failed through our fault, or the text is degenerate (the
  paper keeps garbled and endlessly repeating texts out of its negatives).

  Args:
    tree: the finished tree.
    group: number that its trajectories share.
  """
  collected = tree.collected.tolist()
  others = [i for i in np.flatnonzero(tree.is_terminal).tolist() if i not in set(collected)]
  outcomes = mean_outcomes(tree)
  return [
    _trajectory(tree, end, group, outcomes, end in set(collected))
    for end in collected + others
    if not Verdict(tree.verdict[end]).is_masked
  ]


def mean_outcomes(tree: FinishedTree) -> np.ndarray:
  """Mean outcome (+1 correct, -1 otherwise) of the verified ends at or below each node, `[N]`."""
  return (2.0 * tree.num_correct / np.maximum(tree.num_ends, 1) - 1.0).astype(np.float32)


def _trajectory(
  tree: FinishedTree, end: int, group: int, outcomes: np.ndarray, is_collected: bool
) -> Trajectory:
  path = np.array(tree.path(end), np.int32)
  join = lambda values: np.concatenate([values[tree.node_slice(i)] for i in path])
  return Trajectory(
    problem_id=tree.problem_id,
    group=group,
    prompt_tokens=tree.prompt_tokens,
    tokens=join(tree.tokens),
    behavior_logprobs=join(tree.logprobs),
    node_ids=path,
    node_lengths=(tree.token_start[path + 1] - tree.token_start[path]),
    node_values=tree.value_sum[path],
    node_outcomes=outcomes[path],
    reward=float(tree.reward[end]),
    is_correct=tree.verdict[end] == Verdict.CORRECT.value,
    is_collected=is_collected,
  )
