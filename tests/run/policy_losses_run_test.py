"""Whole tiny runs with each loss and weight that peers have: at work, and safe to stop."""

from __future__ import annotations

import pytest

from ds_jax.run.stopping import Stopped
from ds_jax.testing import tiny_run

SHORT = dict(
  curriculum=dict(round_steps=(3,), filter_samples=0, rehearsal_share=0.0),
  evaluate=dict(num_problems=2, num_samples=1),
)
MOVING = dict(epochs=2, learning_rate=4e-3)  # a second pass meets ratios that are not 1
WAYS = {
  'gspo': dict(
    train=MOVING
    | dict(
      policy_loss='gspo',
      granularity='outcome',
      loss_aggregation='sequence_mean',
      normalization='success_rate',
    ),
  ),
  'cispo': dict(
    train=MOVING
    | dict(
      policy_loss='cispo',
      cispo_cap=1.02,
      normalization='success_rate',
      trained_policy='plain',
      importance_cap=1.2,
      importance_outliers='masked',
      importance_floor=0.8,
    ),
    sampling=dict(temperature=1.3),
  ),
}
AT_WORK = {
  'gspo': ('train/clip_fraction',),
  'cispo': ('train/clip_fraction', 'train/importance_masked'),
}


@pytest.mark.parametrize('way', ['gspo', pytest.param('cispo', marks=pytest.mark.long)])
def test_each_loss_is_at_work(warm, tmp_path, way):
  workdir, cfg = tiny_run.copy(warm, tmp_path / 'run'), tiny_run.config(**SHORT | WAYS[way])
  compiled = tiny_run.train_counted(workdir, cfg)
  rows = [row for row in tiny_run.metrics(workdir) if row['kind'] == 'train']
  assert len(rows) == 3 and all(row['train/passes'] == 2 for row in rows)
  for name in AT_WORK[way]:
    assert all(0 < row[name] < 1 for row in rows), name
  assert all(row['train/grad_norm'] > 0 and row['train/skipped'] == 0 for row in rows)
  assert 'train/importance_capped' not in rows[0]
  if way == 'gspo':
    assert all(row['train/copies_per_token'] > 1.05 for row in rows)  # trajectories share tokens
    assert all(row['train/ratio_first'] < 1.0001 for row in rows)
  assert not any(compiled[2:])


@pytest.mark.long
@pytest.mark.parametrize('way', WAYS)
def test_each_loss_survives_a_stop(warm, tmp_path, way):
  cfg = tiny_run.config(**SHORT | WAYS[way])
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  tiny_run.train(plain, cfg)
  is_there = lambda: any((stopped.root / 'journal').glob('step_000002*'))
  with pytest.raises(Stopped):
    tiny_run.train(stopped, cfg, should_stop=is_there)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)
