"""`fork` on a scripted model with known success probabilities: the law of its docstring.

Numbers are compared with what the law says within standard errors of these trees.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from ds_jax.config import SearchConfig
from ds_jax.search.policies.base import ForkPlan
from ds_jax.search.policies.fork_law import SplitHistory, fork_plan, share_of_tokens, split_table
from ds_jax.testing import scripted_model

DEPTH, ROLLOUTS = 16, 8
PRICE = DEPTH * scripted_model.TOKENS  # of a rollout
SUCCESS = 0.05
CONFIG = SearchConfig(
  policy='fork',
  num_slots=128,
  width=1,
  max_depth=DEPTH,
  segment_length=scripted_model.TOKENS,
  num_trajectories=ROLLOUTS,
  max_expansions=ROLLOUTS * DEPTH * 3,
  replay_chunk=32,
  replay_lanes=48,
  probe_share=0.0,
  cut_ends='graded',  # scripted paths have no end token
)
NUM_TREES = pytest.mark.parametrize('num_trees', [96, pytest.param(960, marks=pytest.mark.long)])


def unresolved(family):
  """U by depth, `[DEPTH]`."""
  return 1 - getattr(scripted_model, family)(DEPTH)[:DEPTH]


def grow(family, success, num_trees, plan=None, seed=0, **changes):
  trees, _ = scripted_model.grow(
    dataclasses.replace(CONFIG, **changes),
    getattr(scripted_model, family)(DEPTH),
    success,
    num_trees,
    plan=plan,
    seed=seed,
  )
  return trees


@functools.cache
def pilot(family):
  """Trees with a random fork on every rollout."""
  return grow(family, 0.3, 64, probe_share=1.0)


def learnt_plan(family):
  return fork_plan(SplitHistory().add(pilot(family), DEPTH), DEPTH)


@pytest.mark.parametrize('depth', [4, 15])
def test_a_fork_of_a_failed_rollout_succeeds_with_p_times_u(depth):
  plan = ForkPlan(np.arange(DEPTH) == depth, np.int32(depth), np.bool_(False))
  tries = hits = 0
  for tree in grow('late', 0.3, 24, plan):
    for end in np.flatnonzero(tree.is_terminal & tree.is_outcome_chosen):
      start = tree.path(end)[depth]
      failed = tree.verdict[start + DEPTH - depth] == 'wrong'  # the first line below the node
      tries, hits = tries + failed, hits + (failed and tree.verdict[end] == 'correct')
  wanted = 0.3 * unresolved('late')[depth]
  assert tries > 200
  assert abs(hits / tries - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / tries)


@pytest.mark.parametrize('family', ['late', 'early'])
def test_probes_measure_u(family):
  pairs, disagreements, tokens = sum(split_table(tree, DEPTH) for tree in pilot(family))
  np.testing.assert_allclose(share_of_tokens(pairs, tokens), 1 - np.arange(DEPTH) / DEPTH)
  rate = 2 * 0.3 * 0.7 * unresolved(family)
  # Root pairs share ends: 64 trees of 8 rollouts are worth at least as many pairs as rollouts.
  spread = np.sqrt(rate * (1 - rate) / np.minimum(pairs, 64 * ROLLOUTS))
  assert pairs[1:].min() > 20
  assert (np.abs(disagreements / pairs - rate) < 4 * spread).all()


def test_plans_follow_what_was_measured():
  late, early = learnt_plan('late'), learnt_plan('early')
  assert late.best_depth == 14 and late.is_steep  # at 15 only 6 % of the tokens are left
  assert not late.is_allowed[[0, 15]].any() and late.is_allowed[[12, 13, 14]].all()
  assert not early.is_allowed.any()


def solved(trees):
  return np.array([tree.is_solved for tree in trees], float)


def tokens(trees):
  return np.mean([tree.statistics['generated_tokens'] for tree in trees])


@NUM_TREES
def test_late_errors_fork_gains_what_the_law_says_at_equal_tokens(num_trees):
  budget = dict(seed=3, max_tokens=ROLLOUTS * PRICE)
  direct = grow('late', SUCCESS, num_trees, policy='direct', **budget)
  fork = grow('late', SUCCESS, num_trees, learnt_plan('late'), num_trajectories=4, **budget)
  assert tokens(direct) == ROLLOUTS * PRICE >= tokens(fork)

  # Four rollouts with four forks each at depth 14, and the rest pays for two more rollouts.
  still_open = unresolved('late')[14]
  failed = still_open * (1 - SUCCESS) ** 5 + (1 - still_open) * (1 - SUCCESS)
  error = np.sqrt(0.25 / num_trees)
  assert abs(solved(direct).mean() - (1 - (1 - SUCCESS) ** ROLLOUTS)) < 3 * error
  assert abs(solved(fork).mean() - (1 - failed**4 * (1 - SUCCESS) ** 2)) < 3 * error
  gain = solved(fork) - solved(direct)  # of the same problems, which share rollouts
  assert gain.mean() > 2 * gain.std() / np.sqrt(num_trees)


@NUM_TREES
def test_decisive_early_fork_is_direct(num_trees):
  budget = dict(seed=3, max_tokens=ROLLOUTS * PRICE)
  direct = grow('early', SUCCESS, num_trees // 3, policy='direct', **budget)
  fork = grow('early', SUCCESS, num_trees // 3, learnt_plan('early'), num_trajectories=4, **budget)
  assert tokens(fork) == tokens(direct)
  np.testing.assert_array_equal(solved(fork), solved(direct))
