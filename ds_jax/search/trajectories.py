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
  others = sorted(set(np.flatnonzero(tree.is_terminal).tolist()) - set(collected))
  outcomes = mean_outcomes(tree)
  found = []
  for i, end in enumerate(collected + others):
    if Verdict(tree.verdict[end]).is_masked:
      continue
    path = np.array(tree.path(end), np.int32)
    slices = [tree.node_slice(node) for node in path]
    trajectory = Trajectory(
      problem_id=tree.problem_id,
      group=group,
      prompt_tokens=tree.prompt_tokens,
      tokens=np.concatenate([tree.tokens[s] for s in slices]),
      behavior_logprobs=np.concatenate([tree.logprobs[s] for s in slices]),
      node_ids=path,
      node_lengths=tree.token_start[path + 1] - tree.token_start[path],
      node_values=tree.value_sum[path],
      node_outcomes=outcomes[path],
      reward=float(tree.reward[end]),
      is_correct=tree.verdict[end] == Verdict.CORRECT.value,
      is_collected=i < len(collected),
    )
    found.append(trajectory)
  return found


def mean_outcomes(tree: FinishedTree) -> np.ndarray:
  """Mean outcome (+1 correct, -1 otherwise) of the verified ends at or below each node, `[N]`."""
  return (2.0 * tree.num_correct / np.maximum(tree.num_ends, 1) - 1.0).astype(np.float32)
