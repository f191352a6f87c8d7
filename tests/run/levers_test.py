"""All levers of learning that go together, at once, under each way to search."""

from __future__ import annotations

import shutil

import pytest

from ds_jax.run.stopping import Stopped
from ds_jax.run.training import Training
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run
from ds_jax.testing.tiny import CompileCounter

SHARED = dict(
  budget=dict(
    max_rollouts=6, wave=2, until='success', first_wave=1, first_wave_rate=0.5, max_tokens=1500
  ),
  memory=dict(when='at_once', per_update=4, further_updates=1, rate_bound=2.0),
  curriculum=dict(round_steps=(4,)),
  evaluate=dict(num_problems=2, num_samples=1, further_temperatures=(1.4,)),
)
TRAIN = dict(epochs=2, success_weight=1.0, max_refills=2)
WAITING = TRAIN | dict(waiting_groups=2)
CONTRAST = TRAIN | dict(contrast_groups=6)
PLAIN = dict(trained_policy='plain', importance_cap=1.1)
BANDIT = dict(temperature='bandit', temperatures=(0.8, 1.0, 1.3))
STEERED = dict(temperature='steered', target=1.0, factor=1.25)
FORK = dict(policy='fork', max_expansions=30, probe_share=1.0)
PREFIX = dict(
  search=dict(policy='prefix', max_expansions=12),
  prefix=dict(
    root_share=0.2, first_share=0.8, withdraw_rate=0.6, failure_rate=0.6, advantage=0.5, worked=True
  ),
)
WAYS = {
  'deepsearch': dict(train=WAITING, explore=BANDIT),
  'faithful': dict(search=dict(policy='faithful'), train=CONTRAST | PLAIN, explore=STEERED),
  'direct': dict(
    search=dict(policy='direct', max_expansions=12), train=CONTRAST | PLAIN, explore=BANDIT
  ),
  'fork_law': dict(search=FORK | dict(min_continuations=3), train=WAITING, explore=BANDIT),
  'fork_strata': dict(
    search=FORK | dict(fork_rule='strata', min_continuations=3),
    train=WAITING | PLAIN,
    explore=STEERED,
  ),
  'fork_sampling': dict(
    search=FORK | dict(fork_rule='sampling', forks_per_failure=2), train=CONTRAST, explore=BANDIT
  ),
  'prefix': PREFIX | dict(train=WAITING | PLAIN, explore=BANDIT),
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


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  """A workdir with data and a warm-started decoder; tests copy it."""
  workdir = tiny_run.warmstart(tmp_path_factory.mktemp('warm') / 'run', tiny_run.config())
  (workdir.root / 'config.json').unlink()
  return workdir


def copy(warm: Workdir, path) -> Workdir:
  shutil.copytree(warm.root, path)
  return Workdir(path)


@pytest.mark.parametrize('way', WAYS)
def test_all_levers_at_once_are_at_work_and_survive_stops(warm, tmp_path, monkeypatch, way):
  sections = SHARED | WAYS[way]
  cfg = tiny_run.config(**sections)
  plain, stopped = (copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  count, compiled, train_step = CompileCounter(), [], Training.train_step

  def counted(training):
    before = count.compilations()
    train_step(training)
    compiled.append(count.compilations() - before)

  with monkeypatch.context() as patch:
    patch.setattr(Training, 'train_step', counted)
    tiny_run.train(plain, cfg)
  rows = [row for row in tiny_run.metrics(plain) if row['kind'] == 'train']

  print(compiled)
  for name in sorted({n for r in rows for n in r}):
    if (
      name.split('/')[0] in ('memory', 'explore', 'prefix')
      or name in AT_WORK
      or 'wait' in name
      or 'fork' in name
      or 'import' in name
      or 'ratio' in name
      or 'unused' in name
      or 'contrast' in name
    ):
      print(name, [round(r[name], 3) if name in r else None for r in rows])
  levers = [*AT_WORK, *ALSO_AT_WORK.get(way, ())]
  if cfg.train.waiting_groups:
    levers.append('search/waited_groups')
  if cfg.train.importance_cap:
    levers.append('train/importance_capped')
  idle = [name for name in levers if not max(row.get(name, 0) for row in rows)]
  assert not idle
  assert compiled[2:] == [0] * (len(rows) - 2)

  def waves_of_the_last_step():
    return any((stopped.root / 'journal').glob(f'step_{len(rows) - 1:06d}*.wave_*'))

  with pytest.raises(Stopped):
    tiny_run.train(stopped, cfg, should_stop=waves_of_the_last_step)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)
