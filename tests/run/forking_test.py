"""Forks in whole runs: by the counts of strata, and by what forks have brought."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from pages import undocumented

from ds_jax.checks import InputError
from ds_jax.config.rules import check_contradictions
from ds_jax.run.forking import known_plan, plan_apart
from ds_jax.run.state import RunState
from ds_jax.run.stopping import Stopped
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.policies.fork_law import SplitHistory, Strata
from ds_jax.search.policies.fork_sampling import ForkCounts, fork_odds
from ds_jax.testing import tiny_run
from ds_jax.types import Problem

STRATA = dict(
  search=dict(
    policy='fork', fork_rule='strata', probe_share=1.0, max_expansions=30, min_continuations=3
  ),
  curriculum=dict(round_steps=(6,)),
)
SAMPLING = dict(
  search=dict(policy='fork', fork_rule='sampling', forks_per_failure=2, max_expansions=30),
  curriculum=dict(round_steps=(4,)),
)


def train_rows(workdir):
  return [row for row in tiny_run.metrics(workdir) if row['kind'] == 'train']


def stop_and_go_on(workdir, cfg, *, in_step):
  """Stops amid the search of a step, and goes on."""
  searches = lambda: any((workdir.root / 'journal').glob(f'step_{in_step:06d}*'))
  with pytest.raises(Stopped):
    tiny_run.train(workdir, cfg, should_stop=searches)
  tiny_run.train(workdir, cfg)


@pytest.mark.long
def test_forks_by_stratum_are_at_work_and_survive_a_stop(warm, tmp_path):
  cfg = tiny_run.config(**STRATA)
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  tiny_run.train(plain, cfg)
  rows = train_rows(plain)
  assert max(row['search/forks'] for row in rows) > 0
  assert all(row['search/further_rollouts'] == 0 for row in rows)
  assert all(row['search/continuations_per_fork'] >= 3 for row in rows)
  assert max(row.get('search/solved_fork_depths', 0) for row in rows) > 0
  last = rows[-1]
  for which in ('pooled', 'unsolved', 'solved'):
    for name in ('u_over_x', 'u_over_x_time'):
      low, ratio, high = (
        last[f'search/{which}_{name}_depth_1{bound}'] for bound in ('_low', '', '_high')
      )
      assert low <= ratio <= high
  stop_and_go_on(stopped, cfg, in_step=5)
  tiny_run.assert_same_run(stopped, plain, cfg)


def test_forks_by_sampling_are_at_work_and_survive_a_stop(warm, tmp_path, root):
  cfg = tiny_run.config(**SAMPLING)
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  tiny_run.train(plain, cfg)
  rows = train_rows(plain)
  assert sum(row['search/forks'] for row in rows) > 0
  assert sum(row['search/further_rollouts'] for row in rows) > 0
  assert not undocumented(rows, root)
  at_root = [row['search/fork_successes_per_1000_tokens_depth_0'] for row in rows]
  assert len(set(at_root)) > 1 and min(at_root) > 0
  stop_and_go_on(stopped, cfg, in_step=3)
  tiny_run.assert_same_run(stopped, plain, cfg)


def test_a_state_comes_back_and_an_older_one_means_nothing_was_counted():
  table = ((3.0, 2.0), (1.0, 0.0), (9.0, 4.0))
  state = dataclasses.replace(
    RunState.new(2),
    solved=frozenset('ab'),
    strata=Strata(solved=SplitHistory((table,))),
    fork_counts=ForkCounts((1.0, 0.5), (20.0, 30.0)),
  )
  fields = json.loads(json.dumps(state.to_json()))
  assert RunState.from_json(fields) == state
  for name in ('solved', 'strata', 'fork_counts'):
    del fields[name]
  fields['found']['solutions'] = {'c': [[[1], [2]]]}
  older = RunState.from_json(fields)
  assert older.solved == {'c'}  # whose solution it holds
  assert older.strata == Strata() and older.fork_counts == ForkCounts()


def test_each_job_has_the_plan_of_its_stratum():
  late = tuple((tuple([100.0] * 2), (50.0, 50.0), (1600.0, 800.0)) for _ in range(4))
  early = tuple((tuple([100.0] * 2), (50.0, 0.0), (1600.0, 800.0)) for _ in range(4))
  state = dataclasses.replace(
    RunState.new(2),
    solved=frozenset('a'),
    splits=SplitHistory(early),
    strata=Strata(unsolved=SplitHistory(late), solved=SplitHistory(early)),
    fork_counts=ForkCounts((1.0, 0.0), (5.0, 7.0)),
  )
  jobs = [Job(Problem(name, '', ''), np.zeros(1, np.int32)) for name in 'ab']
  strata, sampling = tiny_run.config(**STRATA), tiny_run.config(**SAMPLING)
  law = tiny_run.config(search=dict(policy='fork'))
  allowed = [job.plan.is_allowed.tolist() for job in plan_apart(strata, state, jobs)]
  assert allowed == [[False, False], [False, True]] and known_plan(strata, state) is None
  assert plan_apart(law, state, jobs) is jobs
  assert not known_plan(law, state).is_allowed.any()
  np.testing.assert_array_equal(
    known_plan(sampling, state).up_to, fork_odds(state.fork_counts, 2).up_to
  )


@pytest.mark.parametrize(
  'fields', [dict(fork_rule='strata'), dict(fork_rule='sampling'), dict(min_continuations=2)]
)
@pytest.mark.parametrize('policy', ['deepsearch', 'direct'])
def test_other_policies_refuse_the_settings_of_forks(policy, fields):
  check_contradictions(tiny_run.config(search=dict(policy='fork', max_expansions=20, **fields)))
  with pytest.raises(InputError, match=f'search.{next(iter(fields))}.*set search.policy=fork'):
    check_contradictions(tiny_run.config(search=dict(policy=policy, max_expansions=20, **fields)))
