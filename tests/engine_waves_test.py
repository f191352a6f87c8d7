"""Policies in waves: many expansions of a tree under way, and nothing depends on when they come."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import threading

import fakes
import numpy as np
import pytest

from ds_jax.search.rollouts import ForkPlan
from ds_jax.search.trajectories import trajectories

EVERYWHERE = ForkPlan(np.array([False, True, True, True]), np.int32(2), np.bool_(False))
DIRECT = dataclasses.replace(fakes.SEARCH, policy='direct', width=1, num_trajectories=6,
                             max_expansions=60)
FORK = dataclasses.replace(DIRECT, policy='fork', probe_share=0.5)


def assert_same(a, b):
  for field in dataclasses.fields(a):
    x, y = getattr(a, field.name), getattr(b, field.name)
    if field.name == 'statistics':
      x, y = ({k: v for k, v in s.items() if k != 'recomputed_tokens'} for s in (x, y))
    if not isinstance(x, np.ndarray):
      assert x == y, field.name
    elif x.dtype.kind == 'f':
      np.testing.assert_allclose(x, y, atol=1e-4, err_msg=field.name)
    else:
      np.testing.assert_array_equal(x, y, err_msg=field.name)


def tardy_verify(items):
  """Verdicts that come in an order of their own."""
  futures = [concurrent.futures.Future() for _ in items]
  for future, known in zip(futures, fakes.scripted_verify(items), strict=True):
    threading.Timer(random.random() * 0.3, future.set_result, [known.result()]).start()
  return futures


@pytest.mark.parametrize('config', [DIRECT, FORK], ids=['direct', 'fork'])
def test_slots_order_and_slow_verdicts_do_not_change_a_tree(config):
  jobs = fakes.make_jobs(5)
  trees, counters = fakes.grow(fakes.make_engine(config), jobs, plan=EVERYWHERE)
  alone, _ = fakes.grow(fakes.make_engine(dataclasses.replace(config, num_slots=1)), jobs[:3],
                        plan=EVERYWHERE)
  tardy, _ = fakes.grow(fakes.make_engine(config, verify_fn=tardy_verify), jobs[::-1],
                        plan=EVERYWHERE)
  for other in (alone, tardy):
    for name, tree in other.items():
      assert_same(trees[name], tree)
  assert counters.trees == len(jobs) and len(tardy) == len(jobs)
  assert counters.generated_tokens == sum(
      t.statistics['generated_tokens'] for t in trees.values())


def test_rollouts_of_a_tree_run_side_by_side():
  _, counters = fakes.grow(fakes.make_engine(DIRECT), fakes.make_jobs(1))
  assert counters.rounds < counters.expansions / 2


def test_rollouts_stay_in_their_slots():
  """Slots that are scarce are not taken from paths that go on."""
  config = dataclasses.replace(DIRECT, num_trajectories=12)
  trees, _ = fakes.grow(fakes.make_engine(config), fakes.make_jobs(3))
  for tree in trees.values():
    prompts = len(tree.prompt_tokens) * 12
    assert tree.statistics['recomputed_tokens'] <= prompts


def test_forks_are_where_the_plan_says_and_marked():
  config = dataclasses.replace(FORK, probe_share=0.0, num_trajectories=8)
  plan = ForkPlan(np.array([False, False, True, False]), np.int32(2), np.bool_(False))
  trees, _ = fakes.grow(fakes.make_engine(config), fakes.make_jobs(6), plan=plan)
  num_forks = 0
  for tree in trees.values():
    forked = [n for n in range(len(tree.parent))
              if tree.parent[n] > 0 and n - 1 != tree.parent[n]]
    solved = sum(tree.verdict[n] == 'correct' for n in rollout_ends(tree))
    if solved != 1:  # with one of eight correct, its forks are at all depths
      assert set(tree.depth[tree.parent[forked]].tolist()) <= {2}
    assert tree.is_outcome_chosen[forked].all()
    assert (~tree.is_outcome_chosen[rollout_ends(tree)]).all()
    assert set(tree.collected.tolist()) == set(np.flatnonzero(tree.is_terminal).tolist())
    assert {how for _, how in tree.selections} <= {'root', 'rollout', 'fork'}
    num_forks += len(forked)
  assert num_forks >= 10
  assert len(trajectories(trees['p0'], 0)) == trees['p0'].statistics['ends']


def test_without_a_plan_fork_is_direct():
  jobs = fakes.make_jobs(4)
  direct, _ = fakes.grow(fakes.make_engine(DIRECT), jobs)
  fork, _ = fakes.grow(fakes.make_engine(dataclasses.replace(FORK, probe_share=0.0)), jobs)
  for name in direct:
    assert_same(direct[name], fork[name])


@pytest.mark.parametrize('config', [DIRECT, FORK], ids=['direct', 'fork'])
def test_budgets_bound_a_tree(config):
  few = dataclasses.replace(config, max_expansions=9)
  trees, _ = fakes.grow(fakes.make_engine(few), fakes.make_jobs(4), plan=EVERYWHERE)
  assert all(t.statistics['expansions'] <= 9 and t.statistics['ends'] >= 2 for t in trees.values())
  long = dataclasses.replace(config, max_tokens=150, max_expansions=200)
  trees, _ = fakes.grow(fakes.make_engine(long), fakes.make_jobs(4), plan=EVERYWHERE)
  bound = 150 + 20 * 4  # what one wave may exceed its expectation by
  assert all(t.statistics['generated_tokens'] <= bound for t in trees.values())
  if config.policy == 'fork':
    assert min(t.statistics['generated_tokens'] for t in trees.values()) > 100


def rollout_ends(tree):
  """Ends whose path takes the first child everywhere below the root."""
  first = {}
  for n in range(1, len(tree.parent)):
    first.setdefault(int(tree.parent[n]), n)
  return [n for n in np.flatnonzero(tree.is_terminal).tolist()
          if all(first[a] == b for a, b in zip(tree.path(n)[1:], tree.path(n)[2:], strict=False))]
