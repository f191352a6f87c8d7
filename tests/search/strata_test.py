"""Counts by what was solved before: where failures are decided late, and pooled counts hide it."""

from __future__ import annotations

import dataclasses

import numpy as np
from finished_trees import finished_tree

from ds_jax.config import SearchConfig
from ds_jax.search.policies.fork_law import SplitHistory, Strata, fork_plan, split_table
from ds_jax.search.policies.fork_sampling import count_forks
from ds_jax.testing import scripted_model

DEPTH, ROLLOUTS = 4, 8


def simulated(rng, name, success, is_decided_late):
  """Rollouts of four nodes, each with a probe at depth 1, 2 or 3.

  Decided late: what a path comes to is drawn with its last node. Else with its first one: a probe
  comes to what the rollout does.
  """
  parent, correct = [-1], {}
  for _ in range(ROLLOUTS):
    first = len(parent)
    parent += [0, first, first + 1, first + 2]
    rollout_is_correct = correct[first + 3] = rng.random() < success
    split = int(rng.integers(1, DEPTH))
    above = first + split - 1
    for _ in range(DEPTH - split):
      parent.append(above)
      above = len(parent) - 1
    correct[above] = rng.random() < success if is_decided_late else rollout_is_correct
  is_correct = np.array([correct.get(node, False) for node in range(len(parent))])
  lengths = [0] + [2] * (len(parent) - 1)
  return finished_tree(parent, lengths, problem_id=name, is_correct=is_correct)


def counted():
  """Ten steps of 12 problems that were solved before, decided early, and 6 that were not."""
  rng = np.random.default_rng(0)
  solved = frozenset(f's{i}' for i in range(12))
  pooled, strata = SplitHistory(), Strata()
  for _ in range(10):
    trees = [simulated(rng, name, 0.5, is_decided_late=False) for name in sorted(solved)]
    trees += [simulated(rng, f'u{i}', 0.1, is_decided_late=True) for i in range(6)]
    pooled, strata = pooled.add(trees, DEPTH), strata.add(trees, solved, DEPTH)
  return pooled, strata


def test_each_tree_counts_in_its_stratum():
  rng = np.random.default_rng(0)
  a, b, c = (simulated(rng, name, 0.5, is_decided_late=True) for name in 'abc')
  strata = Strata().add([a, b, c], {'b', 'z'}, DEPTH)
  of = lambda history: np.sum(history.blocks, axis=0)
  np.testing.assert_array_equal(of(strata.solved), split_table(b, DEPTH))
  np.testing.assert_array_equal(of(strata.unsolved), split_table(a, DEPTH) + split_table(c, DEPTH))
  assert Strata.from_json(strata.to_json()) == strata and Strata.from_json({}) == Strata()


def test_strata_fork_where_the_pooled_law_does_not():
  pooled, strata = counted()
  law, unsolved, solved = (
    fork_plan(history, DEPTH) for history in (pooled, strata.unsolved, strata.solved)
  )
  assert not law.is_allowed.any() and not solved.is_allowed.any()
  assert unsolved.is_allowed.tolist() == [False, False, True, True]  # U = 1 at half the price

  config = SearchConfig(
    policy='fork',
    width=1,
    max_depth=DEPTH,
    segment_length=scripted_model.TOKENS,
    num_trajectories=ROLLOUTS,
    max_expansions=100,
    replay_chunk=32,
    probe_share=0.0,
  )

  def forks(rule, **plans):
    grown, _ = scripted_model.grow(
      dataclasses.replace(config, fork_rule=rule), scripted_model.late(DEPTH), 0.5, 8, **plans
    )
    return [count_forks(tree)[0] for tree in grown]

  assert forks('law', plan=law) == [0] * 8
  by_stratum = forks('strata', plans=[unsolved, solved] * 4)
  assert by_stratum[1::2] == [0] * 4 and min(by_stratum[0::2]) >= ROLLOUTS
