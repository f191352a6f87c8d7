"""All levers of learning that go together, at once, under each way to search."""

from __future__ import annotations

import pytest

from ds_jax.run.stopping import Stopped
from ds_jax.testing import tiny_run

OTHERS = {name: fields for name, fields in tiny_run.LEVERS.items() if name != 'prefix'}
SHORT = dict(
  curriculum=dict(round_steps=(4,)),
  evaluate=dict(num_problems=2, num_samples=1, further_temperatures=(1.4,)),
)
# Another part of the levers of `train`: contrast ends a step; tempered policies are trained.
CONTRAST = dict(epochs=2, success_weight=1.0, max_refills=2, contrast_groups=6)
PLAIN = dict(trained_policy='plain', importance_cap=1.1)
STEERED = dict(temperature='steered', target=1.0, factor=1.25)
FORK = dict(policy='fork', max_expansions=30, probe_share=1.0, num_trajectories=3)
WAYS = {
  'prefix': tiny_run.LEVERS,
  'deepsearch': OTHERS | dict(search={}),
  'faithful': OTHERS
  | dict(
    search=dict(policy='faithful', siblings='distinct'), train=CONTRAST | PLAIN, explore=STEERED
  ),
  'direct': OTHERS | dict(search=dict(policy='direct', max_expansions=12), train=CONTRAST),
  'fork_law': OTHERS | dict(search=FORK | dict(min_continuations=3)),
  'fork_strata': OTHERS
  | dict(
    search=FORK | dict(fork_rule='strata', min_continuations=3),
    budget=OTHERS['budget'] | dict(max_rollouts=8, first_wave_rate=0.4),
    explore=STEERED,
    curriculum=dict(round_steps=(6,)),  # until both strata are known
  ),
  'fork_sampling': OTHERS
  | dict(search=FORK | dict(fork_rule='sampling', forks_per_failure=2), train=CONTRAST),
}
AT_WORK = (
  'explore/contrast_share',
  'memory/further_updates',
  'memory/mass_share',
  'search/refills',
  'search/short_groups',
  'search/wave_contrasts',
  'train/passes',
)
# What is at work besides, by the way or by the settings of `train`.
ALSO_AT_WORK = {
  'fork_law': ('search/forks',),
  'fork_strata': ('search/forks',),
  'fork_sampling': ('search/forks', 'search/further_rollouts'),
  'prefix': ('prefix/contrast_share', 'prefix/failure_share', 'prefix/mass_share'),
}


LONG = [pytest.param(way, marks=pytest.mark.long) for way in WAYS if way != 'prefix']


@pytest.mark.parametrize('way', ['prefix', *LONG])
def test_all_levers_at_once_are_at_work_and_survive_stops(warm, tmp_path, way):
  cfg = tiny_run.config(**SHORT | WAYS[way])
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  compiled = tiny_run.train_counted(plain, cfg)
  rows = [row for row in tiny_run.metrics(plain) if row['kind'] == 'train']
  levers = [*AT_WORK, *ALSO_AT_WORK.get(way, ())]
  if cfg.train.waiting_groups:
    levers.append('search/waited_groups')
  if cfg.train.importance_cap:
    levers.append('train/importance_capped')
  idle = [name for name in levers if not max(row.get(name, 0) for row in rows)]
  assert not idle
  assert compiled[2:] == [0] * (len(rows) - 2)

  with_waiting = (i for i, row in enumerate(rows) if row.get('search/waited_groups'))
  stop_in = next(with_waiting, len(rows) - 1)
  with pytest.raises(Stopped):
    is_there = lambda: any((stopped.root / 'journal').glob(f'step_{stop_in:06d}*'))
    tiny_run.train(stopped, cfg, should_stop=is_there)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)
