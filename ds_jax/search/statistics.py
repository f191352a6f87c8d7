"""What a finished tree says about the search: yield, shared tokens, and split-depth counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds_jax.search.policies.fork_law import split_counts, unresolved_over_cost
from ds_jax.types import FinishedTree, Verdict


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
  num_degenerate = sum(tree.verdict.count(Verdict.DEGENERATE.value) for tree in trees)
  metrics = {
    'search/trees': len(trees),
    'search/solve_rate': sum(tree.is_solved for tree in trees) / count,
    'search/reward': float(np.mean(rewards)) if rewards else 0.0,
    'search/expansions_per_tree': total('expansions') / count,
    'search/ends_per_tree': total('ends') / count,
    'search/collected_per_tree': sum(len(tree.collected) for tree in trees) / count,
    'search/tokens': total('generated_tokens'),
    'time/recomputed_share': total('recomputed_tokens') / generated,
    'search/yield': distinct / generated,
    'search/path_over_distinct': path / max(distinct, 1),
    'search/entropy': _mean_entropy(trees),
    'search/degenerate_share': num_degenerate / max(total('ends'), 1),
  }
  counts = [split_counts(tree, max_depth) for tree in trees]
  pairs, disagreements = (
    np.sum([c[i] for c in counts], axis=0) if counts else np.zeros(max_depth) for i in range(2)
  )
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
