"""`fork` on a scripted model with known success probabilities: the law of its docstring."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import scripted_model

from ds_jax.config import SearchConfig
from ds_jax.search.rollouts import ForkPlan
from ds_jax.search.split_depths import (
  SplitHistory,
  fork_plan,
  share_of_tokens,
  split_table,
  unresolved_over_cost,
)

DEPTH, ROLLOUTS = 16, 8
PRICE = DEPTH * scripted_model.TOKENS  # of a rollout
CONFIG = SearchConfig(
    policy='fork', num_slots=128, width=1, max_depth=DEPTH, segment_length=scripted_model.TOKENS,
    num_trajectories=ROLLOUTS, max_expansions=ROLLOUTS * DEPTH * 3, probe_share=0.0)


def settings(**changes):
  return dataclasses.replace(CONFIG, **changes)


def at(*depths, steep=False):
  is_allowed = np.isin(np.arange(DEPTH), depths)
  return ForkPlan(is_allowed, np.int32(depths[-1]), np.bool_(steep))


@functools.cache
def pilot(family):
  """What 120 trees with a random fork on every rollout say of U."""
  trees, _ = scripted_model.grow(settings(probe_share=1.0), getattr(scripted_model, family)(DEPTH),
                              0.3, 120)
  return trees, SplitHistory().add(trees, DEPTH)


@pytest.mark.parametrize(('depth', 'unresolved'), [(4, 1 - 0.2 * 4 / 14), (14, 0.8), (15, 0.4)])
def test_a_fork_of_a_failed_rollout_succeeds_with_p_times_u(depth, unresolved):
  trees, _ = scripted_model.grow(CONFIG, scripted_model.late(DEPTH), 0.3, 60, plan=at(depth))
  tries = hits = 0
  for tree in trees:
    for end in np.flatnonzero(tree.is_terminal & tree.is_outcome_chosen):
      start = tree.path(end)[depth]
      failed = tree.verdict[start + DEPTH - depth] == 'wrong'  # the first line below the node
      tries, hits = tries + failed, hits + (failed and tree.verdict[end] == 'correct')
  wanted = 0.3 * unresolved
  assert tries > 200
  assert abs(hits / tries - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / tries)


def test_probes_measure_u_and_the_plan_follows():
  for family, wanted in (('late', {14, 15}), ('early', set())):
    trees, history = pilot(family)
    table = sum(split_table(tree, DEPTH) for tree in trees)
    np.testing.assert_allclose(share_of_tokens(table[0], table[2]), 1 - np.arange(DEPTH) / DEPTH)
    ratios = unresolved_over_cost(*table)
    exact = (1 - getattr(scripted_model, family)(DEPTH)[:DEPTH]) / (1 - np.arange(DEPTH) / DEPTH)
    assert np.median(np.abs(ratios / exact - 1)[1:]) < 0.35
    allowed = set(np.flatnonzero(fork_plan(history, DEPTH).is_allowed).tolist())
    assert wanted - {15} <= allowed and (wanted or not allowed)  # 6 % of tokens are left at 15
    assert SplitHistory.from_json(history.to_json()) == history


def solved(policy, family, plan, num_trees, success=0.05):
  """P(any correct) and tokens per tree at a budget of 8 rollouts."""
  rollouts = ROLLOUTS if policy == 'direct' else 4
  config = settings(policy=policy, max_tokens=ROLLOUTS * PRICE, num_trajectories=rollouts)
  trees, _ = scripted_model.grow(config, getattr(scripted_model, family)(DEPTH), success, num_trees,
                              plan=plan, seed=3)
  return (np.mean([tree.is_solved for tree in trees]),
          np.mean([tree.statistics['generated_tokens'] for tree in trees]))


NUM_TREES = pytest.mark.parametrize('num_trees', [96, pytest.param(960, marks=pytest.mark.long)])


@NUM_TREES
def test_late_errors_fork_gains_at_equal_tokens(num_trees):
  plan = fork_plan(pilot('late')[1], DEPTH)
  direct, direct_tokens = solved('direct', 'late', None, num_trees)
  fork, fork_tokens = solved('fork', 'late', plan, num_trees)
  assert direct_tokens == ROLLOUTS * PRICE >= 0.98 * fork_tokens
  error = np.sqrt(0.5 / num_trees)
  assert fork > direct + 3 * error
  assert abs(direct - (1 - 0.95 ** ROLLOUTS)) < 3 * error


@NUM_TREES
def test_decisive_early_fork_equals_direct(num_trees):
  plan = fork_plan(pilot('early')[1], DEPTH)
  direct, direct_tokens = solved('direct', 'early', None, num_trees)
  fork, fork_tokens = solved('fork', 'early', plan, num_trees)
  assert fork_tokens <= direct_tokens
  assert abs(fork - direct) < 3 * np.sqrt(0.5 / num_trees)
