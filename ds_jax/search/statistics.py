"""What a finished tree says about the search: yield, shared tokens, and split-depth counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from ds_jax.search.policies.fork_law import split_counts, unresolved_over_cost
from ds_jax.types import FinishedTree, Verdict


def summarize(
  trees: Sequence[FinishedTree], max_depth: int, *, stop_ids: Collection[int]
) -> dict[str, float]:
  """Metrics of a set of trees; names: report/README.md. A mean or share of nothing is absent.

  yield: tokens in collected trajectories, shared ones once, over tokens generated.
  path_over_distinct: tokens of the collected paths over the distinct ones among them.

  Args:
    trees: any number.
    max_depth: of the search, segments.
    stop_ids: any of these ids ends a response.
  """
  num_trees = len(trees)
  num_ends = _total(trees, 'ends')
  num_tokens = num_generated(trees)
  num_degenerate = sum(tree.verdict.count(Verdict.DEGENERATE.value) for tree in trees)
  path_tokens, distinct_tokens = 0, 0
  pairs, disagreements = np.zeros(max_depth), np.zeros(max_depth)
  for tree in trees:
    on_paths, distinct = _collected_tokens(tree)
    path_tokens += on_paths
    distinct_tokens += distinct
    tree_pairs, tree_disagreements = split_counts(tree, max_depth)
    pairs += tree_pairs
    disagreements += tree_disagreements
  metrics = {'search/trees': num_trees, 'search/tokens': num_tokens}
  if num_trees:
    metrics |= {
      'search/solve_rate': solve_rate(trees),
      'search/expansions_per_tree': _total(trees, 'expansions') / num_trees,
      'search/ends_per_tree': num_ends / num_trees,
      'search/collected_per_tree': sum(len(tree.collected) for tree in trees) / num_trees,
    }
  if num_tokens:
    metrics |= {
      'time/recomputed_share': _total(trees, 'recomputed_tokens') / num_tokens,
      'search/yield': distinct_tokens / num_tokens,
      'search/entropy': _mean_entropy(trees),
    }
  if num_ends:
    metrics['search/degenerate_share'] = num_degenerate / num_ends
  num_further, num_copies = count_siblings(trees)
  if num_further:
    metrics['search/duplicate_share'] = num_copies / num_further
  if cut := cut_ends(trees, stop_ids):
    metrics['search/cut_share'] = float(np.mean(cut))
    num_cut_correct = sum(tree.num_cut_correct(stop_ids) for tree in trees)
    metrics['search/cut_correct_share'] = num_cut_correct / len(cut)
  reward = mean_reward(trees)
  if reward is not None:
    metrics['search/reward'] = reward
  if distinct_tokens:
    metrics['search/path_over_distinct'] = path_tokens / distinct_tokens
  for depth, ratio in enumerate(unresolved_over_cost(pairs, disagreements)):
    if depth > 0 and np.isfinite(ratio):
      metrics[f'search/u_over_x_depth_{depth}'] = float(ratio)
  return metrics


def from_root(trees: Iterable[FinishedTree]) -> list[FinishedTree]:
  """The trees that start from the prompt alone; others say nothing of the rate of right ends."""
  return [tree for tree in trees if not tree.num_given]


def num_generated(trees: Iterable[FinishedTree]) -> int:
  """Returns the tokens that were sampled for the trees."""
  return _total(trees, 'generated_tokens')


def count_siblings(trees: Iterable[FinishedTree]) -> tuple[int, int]:
  """Siblings beyond the first of an expansion, and those of them that copy an earlier one.

  Of trees whose children came together: where they came one by one there are more expansions than
  parents, or no siblings.
  """
  num_further, num_copies = 0, 0
  for tree in trees:
    parents = tree.parent[1:].tolist()
    num_parents = len(set(parents))
    if tree.statistics['expansions'] == num_parents:
      children = [
        tree.tokens[tree.node_slice(node)].tobytes() for node in range(1, len(tree.parent))
      ]
      num_further += len(parents) - num_parents
      num_copies += len(parents) - len(set(zip(parents, children, strict=True)))
  return num_further, num_copies


def cut_ends(trees: Iterable[FinishedTree], stop_ids: Collection[int]) -> list[bool]:
  """Whether each end of the trees was cut off at the depth limit, whatever its verdict.

  Args:
    trees: any number.
    stop_ids: any of these ids ends a response.
  """
  is_cut = []
  for tree in trees:
    ends = [node for node, verdict in enumerate(tree.verdict) if verdict is not None]
    is_cut += [tree.is_cut(end, stop_ids) for end in ends]
  return is_cut


def solve_rate(trees: Sequence[FinishedTree]) -> float:
  """Returns the share of trees with a correct end; of at least one tree."""
  return sum(tree.is_solved for tree in trees) / len(trees)


def mean_reward(trees: Sequence[FinishedTree]) -> float | None:
  """Returns the mean over trees of the mean value of their collected ends; None of none."""
  rewards = [tree.reward[tree.collected].mean() for tree in trees if len(tree.collected)]
  return float(np.mean(rewards)) if rewards else None


def _total(trees: Iterable[FinishedTree], name: str) -> float:
  return sum(tree.statistics[name] for tree in trees)


def _collected_tokens(tree: FinishedTree) -> tuple[int, int]:
  """Tokens on the paths to the collected ends, and how many of them are distinct."""
  lengths = np.diff(tree.token_start)
  on_paths, distinct_nodes = 0, set()
  for end in tree.collected.tolist():
    path = tree.path(end)
    on_paths += int(lengths[path].sum())
    distinct_nodes.update(path)
  return on_paths, int(lengths[sorted(distinct_nodes)].sum())


def _mean_entropy(trees: Sequence[FinishedTree]) -> float:
  entropies = [tree.entropies for tree in trees if len(tree.entropies)]
  return float(np.concatenate(entropies).mean(dtype=np.float64)) if entropies else 0.0
