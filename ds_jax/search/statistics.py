"""What a finished tree says about the search: yield, shared tokens, and split-depth counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds_jax.types import FinishedTree


def split_counts(tree: FinishedTree, max_depth: int) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of verified ends by the depth of the node where their paths split.

  Args:
    tree: the finished tree.
    max_depth: bins 0..max_depth - 1.

  Returns:
    Pairs and disagreeing pairs (one correct, one not), `[max_depth]` int64. A node with n ends of
    which s are correct has n (n - 1) / 2 pairs at or below it and s (n - s) disagreements; what its
    children hold is not split at it.
  """
  n, s = tree.num_ends.astype(np.int64), tree.num_correct.astype(np.int64)
  pairs, disagreements = n * (n - 1) // 2, s * (n - s)
  at_node = [values.copy() for values in (pairs, disagreements)]
  children = np.flatnonzero(tree.parent >= 0)
  for own, values in zip(at_node, (pairs, disagreements), strict=True):
    np.subtract.at(own, tree.parent[children], values[children])
  inner = np.flatnonzero(tree.depth < max_depth)
  return tuple(np.bincount(tree.depth[inner], own[inner], max_depth).astype(np.int64)
               for own in at_node)


def unresolved_over_cost(pairs: np.ndarray, disagreements: np.ndarray) -> np.ndarray:
  """U_d / x by depth d, `[D]` float64; NaN where no pair was seen.

  U_d: disagreement of end pairs that split at depth d over that of pairs that split at the root;
  x = 1 - d / D: share of tokens left. Forking at depth d beats restarting iff this exceeds 1
  (docs: allocation law).
  """
  with np.errstate(invalid='ignore', divide='ignore'):
    rate = disagreements / pairs
    share_left = 1 - np.arange(len(pairs)) / len(pairs)
    return rate / rate[0] / share_left


def summarize(trees: Sequence[FinishedTree], max_depth: int) -> dict[str, float]:
  """Metrics of a set of trees; names are documented in README.

  yield: tokens in collected trajectories, shared ones once, over tokens generated.
  path_over_distinct: tokens of the collected paths over the distinct ones among them.
  """
  total = lambda name: sum(tree.statistics[name] for tree in trees)
  collected = [_collected_tokens(tree) for tree in trees]
  path, distinct = (sum(c[i] for c in collected) for i in range(2))
  generated, count = max(total('generated_tokens'), 1), max(len(trees), 1)
  rewards = [tree.reward[tree.collected].mean() for tree in trees if len(tree.collected)]
  metrics = {
      'search/trees': len(trees),
      'search/solve_rate': sum(tree.is_solved for tree in trees) / count,
      'search/reward': float(np.mean(rewards)) if rewards else 0.0,
      'search/expansions_per_tree': total('expansions') / count,
      'search/ends_per_tree': total('ends') / count,
      'search/collected_per_tree': sum(len(tree.collected) for tree in trees) / count,
      'search/tokens': total('generated_tokens'),
      'search/recomputed_share': total('recomputed_tokens') / generated,
      'search/yield': distinct / generated,
      'search/path_over_distinct': path / max(distinct, 1),
      'search/entropy': _mean_entropy(trees)}
  counts = [split_counts(tree, max_depth) for tree in trees]
  pairs, disagreements = (np.sum([c[i] for c in counts], axis=0) if counts
                          else np.zeros(max_depth) for i in range(2))
  for depth, ratio in enumerate(unresolved_over_cost(pairs, disagreements)):
    if 0 < depth and np.isfinite(ratio):
      metrics[f'search/u_over_x_depth_{depth}'] = float(ratio)
  return metrics


def _collected_tokens(tree: FinishedTree) -> tuple[int, int]:
  lengths = np.diff(tree.token_start)
  paths = [tree.path(end) for end in tree.collected.tolist()]
  distinct = sorted({node for path in paths for node in path})
  return sum(int(lengths[path].sum()) for path in paths), int(lengths[distinct].sum())


def _mean_entropy(trees: Sequence[FinishedTree]) -> float:
  entropies = [tree.entropies for tree in trees if len(tree.entropies)]
  return float(np.concatenate(entropies).mean(dtype=np.float64)) if entropies else 0.0
