"""Forks by what forks have brought: their counts, and the odds of depths that follow."""

from __future__ import annotations

import numpy as np
import pytest
from finished_trees import finished_tree

from ds_jax.search.policies.fork_sampling import (
  DECAY,
  ForkCounts,
  count_forks,
  fork_odds,
  fork_table,
  sampling_metrics,
)

# Two rollouts of three nodes fail. The first one is forked at depth 2 and twice at depth 1, one of
# these succeeds; a probe at depth 1 of the second counts for nothing; a new rollout succeeds.
#   0 - 1 - 2 - 3              wrong
#       |   + - 4              forked at 2, 5 tokens, wrong
#       + - 5 - 6              forked at 1, 3 + 4 tokens, correct
#       + - 7                  forked at 1, 2 tokens, wrong
#     - 8 - 9 - 10             wrong
#       + - 11                 probe, correct
#     - 12 - 13                new rollout, 6 + 1 tokens, correct
PARENT = [-1, 0, 1, 2, 2, 1, 5, 1, 0, 8, 9, 8, 0, 12]
LENGTHS = [0, 8, 8, 8, 5, 3, 4, 2, 8, 8, 8, 8, 6, 1]
CORRECT, CHOSEN = [6, 11, 13], [4, 5, 6, 7, 12, 13]


def tree():
  nodes = np.arange(len(PARENT))
  return finished_tree(
    PARENT,
    LENGTHS,
    is_correct=np.isin(nodes, CORRECT),
    is_outcome_chosen=np.isin(nodes, CHOSEN),
  )


def test_successes_and_tokens_by_the_depth_of_the_fork():
  np.testing.assert_array_equal(fork_table(tree(), 4), [[1, 1, 0, 0], [7, 9, 5, 0]])
  assert count_forks(tree()) == (3, 1)


def test_counts_decay_with_the_trees_of_a_step():
  counts = ForkCounts().add([tree()], 4).add([tree()] * 64, 4)
  decay = DECAY**2
  np.testing.assert_allclose(counts.successes, np.array([1, 1, 0, 0]) * (decay + 64))
  np.testing.assert_allclose(counts.tokens, np.array([7, 9, 5, 0]) * (decay + 64))
  assert ForkCounts.from_json(counts.to_json()) == counts
  assert ForkCounts.from_json({}) == ForkCounts()


def test_what_is_believed_of_a_depth_starts_from_the_prior():
  rate = sampling_metrics(ForkCounts((3.0, 0.0), (8_000.0, 0.0)), 2)
  assert rate['search/fork_successes_per_1000_tokens_depth_0'] == pytest.approx(0.35)  # 3.5 / 10
  assert rate['search/fork_successes_per_1000_tokens_depth_1'] == pytest.approx(0.25)  # .5 / 2


def odds_of(counts, max_depth):
  """`[D + 1, D]`: by the rollout's length, of each depth."""
  up_to = fork_odds(counts, max_depth).up_to
  return np.diff(up_to, axis=1, prepend=0)


def test_depths_of_which_nothing_is_known_are_alike():
  odds = odds_of(ForkCounts(), 4)
  assert (odds[0] == 0).all()
  for length in range(1, 5):
    np.testing.assert_allclose(odds[length, :length], 1 / length, atol=0.03)
    assert (odds[length, length:] == 0).all() and odds[length].sum() == 1


def test_odds_are_how_often_a_depth_has_the_highest_rate():
  counts = ForkCounts((2.0, 5.0, 0.0), (9_000.0, 12_000.0, 3_000.0))
  rng = np.random.default_rng(0)
  rates = rng.gamma([2.5, 5.5, 0.5], size=(100_000, 3)) / [11_000, 14_000, 5_000]
  wanted = np.bincount(rates.argmax(1), minlength=3) / 100_000
  np.testing.assert_allclose(odds_of(counts, 3)[3], wanted, atol=0.03)


def test_the_better_depth_is_drawn_more_and_more():
  """Forks at depth 2 succeed twice as often per token as all others."""
  rng = np.random.default_rng(1)
  rates = np.array([0.002, 0.002, 0.004, 0.002])
  counts, shares = np.zeros((2, 4)), []
  for _ in range(400):
    odds = odds_of(ForkCounts(*map(tuple, counts.tolist())), 4)[4]
    tokens = 100 * rng.multinomial(32, odds)
    counts = counts * DECAY + [rng.poisson(tokens * rates), tokens]
    shares.append(odds[2])
  assert shares[0] < 0.35 and np.mean(shares[-50:]) > 0.8


def test_deep_trees_pool_neighbouring_depths():
  counts = ForkCounts().add([tree()], 64)
  assert len(counts.tokens) == 16
  odds = odds_of(counts, 64)
  np.testing.assert_allclose(odds.sum(1), np.arange(65) > 0, atol=1e-6)
  assert (odds >= 0).all()
  assert odds[64, 3] > 0
  np.testing.assert_allclose(odds[64, 4], odds[64, 3], atol=1e-6)  # of one bin
