"""Where forks paid: verified successes per token of the forks of failed rollouts, by their depth.

Thompson sampling: a fork at depth d is taken with the probability that d is the best of the depths
there are, given what forks have brought so far. With s_d successes in t_d tokens the rate of a
depth is believed to be
  Gamma(s_d + 1/2) / (t_d + 2000);
depth 0 is a new rollout. Counts are of what the rule itself has drawn, in trees without a right
end before: all depths are compared on the same problems. They decay, since the policy changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax.search.policies.base import ForkOdds, no_odds
from ds_jax.search.policies.fork_law import depth_bins
from ds_jax.types import FinishedTree

PRIOR_SUCCESSES = 0.5
PRIOR_TOKENS = 2000.0
DECAY = 0.995  # of earlier counts, …
GROUPS_PER_DECAY = 32  # … whenever so many trees were searched
NUM_DRAWS = 4096  # of all rates, which the odds are counted in


def fork_table(tree: FinishedTree, max_depth: int) -> np.ndarray:
  """Successes and tokens of what an outcome asked for, by depth of the node that was forked.

  Args:
    tree: the finished tree.
    max_depth: bins 0..max_depth - 1; 0 is of rollouts.

  Returns:
    `[2, max_depth]` float64: correct ends, tokens beyond the forked node.
  """
  start_depth = np.zeros(len(tree.parent), np.int64)
  for node in np.flatnonzero(tree.is_outcome_chosen):
    parent = tree.parent[node]
    is_start = not tree.is_outcome_chosen[parent]
    start_depth[node] = tree.depth[parent] if is_start else start_depth[parent]
  is_success = tree.is_outcome_chosen & tree.is_terminal & (tree.num_correct > 0)
  num_tokens = np.diff(tree.token_start) * tree.is_outcome_chosen
  rows = (is_success, num_tokens)
  return np.stack([np.bincount(start_depth, row, max_depth) for row in rows])


def count_forks(tree: FinishedTree) -> tuple[int, int]:
  """Forks and new rollouts that an outcome asked for."""
  is_start = tree.is_outcome_chosen & ~tree.is_outcome_chosen[tree.parent]
  num_rollouts = int((is_start & (tree.parent == 0)).sum())
  return int(is_start.sum()) - num_rollouts, num_rollouts


@dataclasses.dataclass(frozen=True)
class ForkCounts:
  """Decayed counts by bins of depths; part of a checkpoint."""

  successes: tuple[float, ...] = ()  # (): nothing was counted yet
  tokens: tuple[float, ...] = ()

  def add(self, trees: Sequence[FinishedTree], max_depth: int) -> ForkCounts:
    """The counts after one more step, which searched these trees."""
    bins = depth_bins(max_depth)
    counts = self.table(max_depth) * DECAY ** (len(trees) / GROUPS_PER_DECAY)
    for tree in trees:
      for row, values in zip(counts, fork_table(tree, max_depth), strict=True):
        np.add.at(row, bins, values)
    successes, tokens = counts.tolist()
    return ForkCounts(tuple(successes), tuple(tokens))

  def table(self, max_depth: int) -> np.ndarray:
    """Successes and tokens by bin, `[2, bins]` float64."""
    if not self.successes:
      return np.zeros((2, depth_bins(max_depth)[-1] + 1))
    return np.array([self.successes, self.tokens])

  def to_json(self) -> dict[str, Any]:
    return {'successes': list(self.successes), 'tokens': list(self.tokens)}

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> ForkCounts:
    return cls(tuple(fields['successes']), tuple(fields['tokens'])) if fields else cls()


def fork_odds(counts: ForkCounts, max_depth: int) -> ForkOdds:
  """The probability of each depth to be the best of those above the end of a rollout.

  They are frequencies among `NUM_DRAWS` draws of all rates, from a seed of their own: what a tree
  draws is an index, and depends on nothing but its key and the counts. Depths of one bin share its
  probability. Deterministic.
  """
  bins = depth_bins(max_depth)
  successes, tokens = counts.table(max_depth)
  rng = np.random.default_rng(NUM_DRAWS)
  draws = rng.gamma(successes + PRIOR_SUCCESSES, size=(NUM_DRAWS, len(successes)))
  rates = draws / (tokens + PRIOR_TOKENS)
  up_to = no_odds(max_depth).up_to
  for length in range(1, max_depth + 1):
    of_depths = bins[:length]
    num_bins = of_depths[-1] + 1
    wins = np.bincount(rates[:, :num_bins].argmax(1), minlength=num_bins)
    depths_in_bin = np.bincount(of_depths)
    odds = (wins / depths_in_bin)[of_depths] / NUM_DRAWS
    up_to[length] = 1
    up_to[length, : length - 1] = np.cumsum(odds)[:-1]
  return ForkOdds(up_to)


def sampling_metrics(counts: ForkCounts, max_depth: int) -> dict[str, float]:
  """Believed successes per 1,000 tokens of forks by depth; a bin is named by its first depth."""
  bins = depth_bins(max_depth)
  successes, tokens = counts.table(max_depth)
  rates = (successes + PRIOR_SUCCESSES) / (tokens + PRIOR_TOKENS)
  metrics = {}
  for i, rate in enumerate(rates.tolist()):
    depth = int(np.argmax(bins == i))
    metrics[f'search/fork_successes_per_1000_tokens_depth_{depth}'] = 1000 * rate
  return metrics
