"""Policies in waves: many expansions of a tree under way, and nothing depends on when they come."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import threading

import numpy as np
import pytest

from ds_jax.search.policies.base import ForkPlan, no_forks
from ds_jax.search.policies.fork_sampling import ForkCounts, count_forks, fork_odds
from ds_jax.search.trajectories import trajectories
from ds_jax.testing import scripted_model
from ds_jax.testing import tiny as fakes
from ds_jax.testing.tolerance import decoder_terms, tolerance

EVERYWHERE = ForkPlan(np.array([False, True, True, True]), np.int32(2), np.bool_(False))
# Numbers that fit both the scripted model and the decoder of `fakes`.
DIRECT = dataclasses.replace(
  fakes.SEARCH,
  policy='direct',
  width=1,
  num_trajectories=6,
  max_expansions=60,
  segment_length=scripted_model.TOKENS,
)
FORK = dataclasses.replace(DIRECT, policy='fork', probe_share=0.5)
GROUPS = dataclasses.replace(FORK, min_continuations=3, max_expansions=120)
SAMPLING = dataclasses.replace(FORK, fork_rule='sampling', forks_per_failure=3, max_expansions=120)
STRATA = dataclasses.replace(FORK, fork_rule='strata')
UNKNOWN = fork_odds(ForkCounts(), 4)  # nothing was counted: all depths are alike


def assert_same(a, b):
  for field in dataclasses.fields(a):
    x, y = getattr(a, field.name), getattr(b, field.name)
    if field.name == 'statistics':
      x, y = ({k: v for k, v in s.items() if k != 'recomputed_tokens'} for s in (x, y))
    if not isinstance(x, np.ndarray):
      assert x == y, field.name
    elif x.dtype.kind == 'f':
      # Sums over a segment of log-probabilities and entropies, at most 4 a token.
      limit = tolerance(
        'float32', decoder_terms(fakes.DECODER, 40), 4 * fakes.SEARCH.segment_length
      )
      np.testing.assert_allclose(x, y, atol=limit, err_msg=field.name)
    else:
      np.testing.assert_array_equal(x, y, err_msg=field.name)


def tardy_verify(items):
  """Verdicts that come in an order of their own."""
  futures = [concurrent.futures.Future() for _ in items]
  for future, known in zip(futures, scripted_model.verify(items), strict=True):
    threading.Timer(random.random() * 0.1, future.set_result, [known.result()]).start()
  return futures


def grow(config, num_trees, **kwargs):
  return scripted_model.grow(
    config, scripted_model.late(config.max_depth), 0.3, num_trees, end_rate=0.1, **kwargs
  )


@pytest.mark.parametrize(
  'config, plan',
  [(DIRECT, EVERYWHERE), (FORK, EVERYWHERE), (GROUPS, EVERYWHERE), (SAMPLING, UNKNOWN)],
  ids=['direct', 'fork', 'groups', 'sampling'],
)
def test_slots_order_and_slow_verdicts_do_not_change_a_tree(config, plan):
  trees, counters = grow(config, 12, plan=plan)
  alone, _ = grow(dataclasses.replace(config, num_slots=1), 12, plan=plan)
  tardy, _ = grow(config, 12, plan=plan, verify_fn=tardy_verify, order=-1)
  for tree, *others in zip(trees, alone, tardy, strict=True):
    for other in others:
      assert_same(tree, other)
  assert counters.trees == 12
  assert counters.generated_tokens == sum(t.statistics['generated_tokens'] for t in trees)


def test_a_decoder_grows_the_same_trees_in_one_slot_and_in_many():
  """Caches are appended to, rewound and replayed rightly whatever the slots."""
  config = dataclasses.replace(FORK, num_trajectories=4)
  trees, _ = fakes.grow(fakes.make_engine(config), fakes.make_jobs(2), plan=EVERYWHERE)
  alone, _ = fakes.grow(
    fakes.make_engine(dataclasses.replace(config, num_slots=1)), fakes.make_jobs(2), plan=EVERYWHERE
  )
  assert any(tree.is_outcome_chosen.any() for tree in trees.values())
  for name in trees:
    assert_same(trees[name], alone[name])


def test_rollouts_of_a_tree_run_side_by_side():
  _, counters = grow(DIRECT, 1)
  assert counters.rounds < counters.expansions / 2


def test_rollouts_stay_in_their_slots():
  """Slots that are scarce are not taken from paths that go on."""
  trees, _ = grow(dataclasses.replace(DIRECT, num_trajectories=12), 3)
  for tree in trees:
    assert tree.statistics['recomputed_tokens'] <= len(tree.prompt_tokens) * 12


def test_forks_are_where_the_plan_says_and_marked():
  config = dataclasses.replace(FORK, probe_share=0.0, num_trajectories=8)
  plan = ForkPlan(np.array([False, False, True, False]), np.int32(2), np.bool_(False))
  trees, _ = grow(config, 12, plan=plan)
  num_forks = 0
  for tree in trees:
    forked = [n for n in range(len(tree.parent)) if tree.parent[n] > 0 and n - 1 != tree.parent[n]]
    solved = sum(tree.verdict[n] == 'correct' for n in rollout_ends(tree))
    if solved != 1:  # with one of eight correct, its forks are at all depths
      assert set(tree.depth[tree.parent[forked]].tolist()) <= {2}
    assert tree.is_outcome_chosen[forked].all()
    assert (~tree.is_outcome_chosen[rollout_ends(tree)]).all()
    assert set(tree.collected.tolist()) == set(np.flatnonzero(tree.is_terminal).tolist())
    assert {how for _, how in tree.selections} <= {'root', 'rollout', 'fork'}
    assert len(trajectories(tree, 0)) == tree.statistics['ends']
    num_forks += len(forked)
  assert num_forks >= 20


def test_without_a_plan_fork_is_direct():
  direct, _ = grow(DIRECT, 8)
  fork, _ = grow(dataclasses.replace(FORK, probe_share=0.0), 8)
  for a, b in zip(direct, fork, strict=True):
    assert_same(a, b)


def test_each_tree_forks_by_its_own_plan():
  plans = [EVERYWHERE, no_forks(4), None] * 4
  apart, _ = grow(STRATA, 12, plans=plans)
  by_law, _ = grow(FORK, 12, plan=EVERYWHERE)
  unknown, _ = grow(FORK, 12)
  for i, tree in enumerate(apart):
    assert_same(tree, by_law[i] if plans[i] is EVERYWHERE else unknown[i])
  assert any(tree.is_outcome_chosen.any() for tree in apart)


def test_a_forked_node_has_as_many_continuations_as_are_asked_for():
  for least in (2, 3, 5):
    config = dataclasses.replace(FORK, min_continuations=least, max_expansions=600)
    counts = []
    for tree in grow(config, 12, plan=EVERYWHERE)[0]:
      num_children = np.bincount(tree.parent[1:], minlength=len(tree.parent))[1:]
      counts += num_children[num_children > 1].tolist()
    assert len(counts) > 20 and min(counts) == least


def test_a_group_that_the_budget_does_not_reach_is_not_begun():
  """Seven expansions are left after six rollouts: three forks of two, or no group of five."""
  plan = ForkPlan(np.array([False, False, True, False]), np.int32(2), np.bool_(False))
  config = dataclasses.replace(FORK, probe_share=0.0, max_expansions=24 + 8 - 1)
  grown = scripted_model.grow
  fails = dict(resolved=scripted_model.late(4), success=0.0, num_trees=1, plan=plan)
  ((tree,), _) = grown(config, **fails)
  assert count_forks(tree) == (3, 0)
  ((tree,), _) = grown(dataclasses.replace(config, min_continuations=5), **fails)
  assert count_forks(tree) == (0, 0)


def test_sampling_forks_all_wrong_groups_and_nothing_twice():
  config = dataclasses.replace(SAMPLING, probe_share=0.0, max_expansions=400)
  failed, _ = scripted_model.grow(config, scripted_model.late(4), 0.0, 8, plan=UNKNOWN)
  for tree in failed:  # no end is early: each of six rollouts draws thrice
    forks, rollouts = count_forks(tree)
    assert forks + rollouts == 6 * 3
    starts = np.flatnonzero(tree.is_outcome_chosen & ~tree.is_outcome_chosen[tree.parent])
    below = tree.parent[np.flatnonzero(tree.is_outcome_chosen)]
    assert len(set(below.tolist()) - set(tree.parent[starts].tolist())) == len(below) - len(starts)
  drawn = np.concatenate([_start_depths(tree) for tree in failed])
  shares = np.bincount(drawn, minlength=4) / len(drawn)
  np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / len(drawn)))

  mixed, _ = grow(config, 12, plan=UNKNOWN)
  direct, _ = grow(DIRECT, 12)
  solved = 0
  for tree, rollouts in zip(mixed, direct, strict=True):
    assert (tree.is_outcome_chosen.any()) == (not rollouts.is_solved)
    solved += rollouts.is_solved
  assert 0 < solved < 12


def test_sampling_draws_by_the_odds():
  counts = ForkCounts((0.0, 0.0, 50.0, 0.0), (1e6, 1e6, 1000.0, 1e6))
  config = dataclasses.replace(SAMPLING, probe_share=0.0, max_expansions=400)
  grown, _ = scripted_model.grow(
    config, scripted_model.late(4), 0.0, 4, plan=fork_odds(counts, 4), end_rate=0.0
  )
  assert set(np.concatenate([_start_depths(tree) for tree in grown]).tolist()) == {2}
  nothing, _ = scripted_model.grow(config, scripted_model.late(4), 0.0, 4)
  assert not any(tree.is_outcome_chosen.any() for tree in nothing)  # without a plan


def _start_depths(tree):
  """Depths of the nodes that were forked because of an outcome, once for each fork."""
  starts = np.flatnonzero(tree.is_outcome_chosen & ~tree.is_outcome_chosen[tree.parent])
  return tree.depth[tree.parent[starts]]


@pytest.mark.parametrize('config', [DIRECT, FORK], ids=['direct', 'fork'])
def test_budgets_bound_a_tree(config):
  trees, _ = grow(dataclasses.replace(config, max_expansions=9), 8, plan=EVERYWHERE)
  assert all(t.statistics['expansions'] <= 9 and t.statistics['ends'] >= 2 for t in trees)
  # 6 rollouts of 4 x 2 tokens fit in 60, and forks, but not 4 rounds of that.
  trees, _ = grow(
    dataclasses.replace(config, max_tokens=60, max_expansions=200), 8, plan=EVERYWHERE
  )
  tokens = [t.statistics['generated_tokens'] for t in trees]
  assert max(tokens) <= 60 + 4 * 8  # forks may be longer than what they were forked from
  if config.policy == 'fork':
    assert min(tokens) > 40


def rollout_ends(tree):
  """Ends whose path takes the first child everywhere below the root."""
  first = {}
  for n in range(1, len(tree.parent)):
    first.setdefault(int(tree.parent[n]), n)
  return [
    n
    for n in np.flatnonzero(tree.is_terminal).tolist()
    if all(first[a] == b for a, b in zip(tree.path(n)[1:], tree.path(n)[2:], strict=False))
  ]
