"""Split-depth counts, and the depths at which they allow forks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from finished_trees import finished_tree

from ds_jax.search.decode_cost import DecodeCost
from ds_jax.search.policies.fork_law import (
  MAX_BLOCKS,
  SplitHistory,
  depth_bins,
  fork_plan,
  split_counts,
  split_metrics,
  split_table,
)
from ds_jax.types import FinishedTree

COST = DecodeCost(
  row_bytes=10.0, position_bytes=1.0, num_siblings=1, segment_length=4, prompt_length=8.0
)


def random_tree(seed, num_nodes=40, max_depth=6) -> FinishedTree:
  """Nodes hang anywhere; leaves are ends of either outcome, some of them unverified."""
  rng = np.random.default_rng(seed)
  parent, depth = [-1], [0]
  while len(parent) < num_nodes:
    above = int(rng.integers(len(parent)))
    if depth[above] < max_depth:
      parent.append(above)
      depth.append(depth[above] + 1)
  parent, depth = np.array(parent, np.int32), np.array(depth, np.int32)
  is_end = ~np.isin(np.arange(num_nodes), parent)
  is_valid, is_correct = is_end & (rng.random(num_nodes) < 0.9), rng.random(num_nodes) < 0.4
  lengths = np.append(0, rng.integers(1, 6, num_nodes - 1))
  chosen = rng.random(num_nodes) < 0.1
  for node in range(1, num_nodes):
    chosen[node] |= chosen[parent[node]]
  return finished_tree(
    parent,
    lengths,
    problem_id=str(seed),
    is_valid=is_valid,
    is_correct=is_valid & is_correct,
    is_outcome_chosen=chosen,
  )


@pytest.mark.parametrize('seed', range(5))
def test_table_equals_counting_pairs(seed):
  tree = random_tree(seed)
  ends = np.flatnonzero((tree.num_ends > 0) & tree.is_terminal & ~tree.is_outcome_chosen)
  length = lambda nodes: sum(int(np.diff(tree.token_start)[n]) for n in nodes)
  wanted = np.zeros((3, 6))
  for i, a in enumerate(ends):
    for b in ends[:i]:
      shared = [x for x, y in zip(tree.path(a), tree.path(b), strict=False) if x == y]
      left = [length(tree.path(end)) - length(shared) for end in (a, b)]
      wanted[:, len(shared) - 1] += [1, tree.num_correct[a] != tree.num_correct[b], np.mean(left)]
  np.testing.assert_allclose(split_table(tree, 6), wanted)
  np.testing.assert_array_equal(split_counts(tree, 6), wanted[:2])


def test_outcome_chosen_forks_do_not_count():
  tree = random_tree(0)
  none = dataclasses.replace(tree, is_outcome_chosen=np.ones(len(tree.parent), bool))
  assert split_table(none, 6).sum() == 0


def history(ratios, pairs=2000, blocks=40, depth=8, noise=0.0, seed=0):
  """Blocks whose pooled U/x by depth is `ratios` (the root's is 1)."""
  rng = np.random.default_rng(seed)
  share = 1 - np.arange(depth) / depth
  rate = np.clip(0.1 * np.append(1, ratios) * share, 0, 1)
  count = np.full(depth, pairs // blocks)
  return SplitHistory(
    tuple(
      (
        tuple(count),
        tuple(rng.binomial(count, rate) if noise else count * rate),
        tuple(count * share * 100),
      )
      for _ in range(blocks)
    )
  )


def test_depths_that_clearly_pay_are_allowed():
  plan = fork_plan(history([0.5, 0.9, 1.0, 1.1, 1.4, 2.0, 3.0]), 8)
  assert np.flatnonzero(plan.is_allowed).tolist() == [5, 6, 7]
  assert plan.best_depth == 7 and not plan.is_steep
  assert fork_plan(history([1, 1, 1, 1, 1, 2.0, 4.5]), 8).is_steep


def test_noise_and_few_counts_allow_nothing():
  assert not fork_plan(SplitHistory(), 8).is_allowed.any()
  assert not fork_plan(history([5] * 7, blocks=1), 8).is_allowed.any()
  allowed = [
    fork_plan(history([1] * 7, pairs=400, noise=1, seed=s), 8).is_allowed.sum() for s in range(20)
  ]
  assert np.mean(allowed) < 0.1 * 7
  one_block = history([0.5] * 7).blocks[:-1] + history([9] * 7).blocks[:1]
  assert not fork_plan(SplitHistory(one_block), 8).is_allowed.any()


def test_deep_trees_pool_neighbouring_depths():
  bins = depth_bins(64)
  assert bins[0] == 0 and bins[1] == 1 and bins[-1] == 15 and (np.diff(bins) >= 0).all()
  assert depth_bins(16).tolist() == list(range(16))
  trees = [random_tree(s, 60, 40) for s in range(20)]
  plan = fork_plan(SplitHistory().add(trees, 40), 40)
  assert plan.is_allowed.shape == (40,) and not plan.is_allowed[0]


def test_history_forgets_and_comes_back_from_json():
  trees = [random_tree(s) for s in range(10)]
  seen = SplitHistory()
  for _ in range(30):
    seen = seen.add(trees, 6)
  assert len(seen.blocks) == MAX_BLOCKS
  assert SplitHistory.from_json(seen.to_json()) == seen
  total = 20 * sum(split_table(tree, 6) for tree in trees)
  np.testing.assert_allclose(np.array(seen.blocks).sum(0), total)
  shown = split_metrics(seen, 6, which='pooled', cost=COST)
  assert 'search/pooled_u_over_x_time_depth_5_high' in shown
  assert all(np.isfinite(v) for v in shown.values())
