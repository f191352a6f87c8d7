"""Temperatures of groups in whole tiny runs, and evaluations at further temperatures."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
from pages import undocumented

from ds_jax.report.metrics import read_metrics
from ds_jax.report.summary import make_summary, summary_table
from ds_jax.run.evaluation import evaluate
from ds_jax.run.stopping import Stopped
from ds_jax.run.training import Training
from ds_jax.search.engine.keys import Purpose, base_key_data, root_key_data
from ds_jax.testing import tiny_run
from ds_jax.testing.tiny import CompileCounter

TEMPERATURES = (0.7, 1.0, 1.4)
BANDIT = {
  'explore': {'temperature': 'bandit', 'temperatures': TEMPERATURES},
  'train': {'max_refills': 1},
  'memory': {'when': 'at_once', 'per_update': 3, 'further_updates': 1, 'rate_bound': 2.0},
  'curriculum': {'round_steps': (3,)},
  'evaluate': {'further_temperatures': (1.4,)},
}
STEERED = {
  'explore': {'temperature': 'steered', 'target': 1.0, 'factor': 1.25},
  'train': {'trained_policy': 'plain', 'importance_cap': 1.1},
  'curriculum': {'round_steps': (2, 3)},
  'evaluate': {'every_steps': 2, 'further_temperatures': (0.0,)},
}


def rows_of(workdir, kind):
  return [row for row in tiny_run.metrics(workdir) if row['kind'] == kind]


def test_groups_draw_temperatures_and_a_stop_changes_nothing(warm, tmp_path, root):
  """Trees, direct rollouts, a refill in each step, and memory; it is stopped amid a search."""
  cfg = tiny_run.config(**BANDIT)
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  tiny_run.train(plain, cfg)
  drawn, brought = set(), set()
  for row in rows_of(plain, 'train'):
    shares = {t: row[f'explore/draw_share/t_{t:g}'] for t in TEMPERATURES}
    drawn |= {t for t, share in shares.items() if share}
    assert sum(shares.values()) == pytest.approx(1)
    mean = sum(t * share for t, share in shares.items())
    assert row['explore/temperature'] == pytest.approx(mean)
    assert row['search/refills'] == 1 and row['explore/contrast_share'] > 0
    assert row['train/ratio_first'] < 1.001  # each group is scored at its own
    brought |= {t for t in TEMPERATURES if row[f'explore/estimate/t_{t:g}'] > 0.5}
  assert len(drawn) == 3 and len(brought) >= 2  # several arms contributed
  assert row['memory/further_updates'] == 1 and row['memory/token_share'] > 0
  assert_both_temperatures_are_shown(plain)
  assert not undocumented(tiny_run.metrics(plain), root)
  assert_evaluate_measures_both(plain, cfg)

  with pytest.raises(Stopped):
    in_step_2 = lambda: any((stopped.root / 'journal').glob('step_000002*'))
    tiny_run.train(stopped, cfg, should_stop=in_step_2)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)


def assert_both_temperatures_are_shown(workdir):
  """evaluate.temperature = 1 and the further one side by side, each with a file of its own."""
  before, after = rows_of(workdir, 'evaluate')
  for row in (before, after):
    assert 'evaluate/pass_at_1' in row and 'evaluate/t_1.4/pass_at_1' in row
    assert row['evaluate/t_1.4/num_samples'] == row['evaluate/num_samples'] == 2
  names = sorted(path.name for path in (workdir.root / 'evaluations').iterdir())
  assert names == [
    'step_000000_before.jsonl',
    'step_000000_before.t_1.4.jsonl',
    'step_000003_after.jsonl',
    'step_000003_after.t_1.4.jsonl',
  ]
  responses = []
  for name in names[:2]:
    lines = (workdir.root / 'evaluations' / name).read_text().splitlines()
    responses.append([json.loads(line)['response'] for line in lines])
  assert len(responses[0]) == len(responses[1]) == 12 and responses[0] != responses[1]
  summary = make_summary(read_metrics(workdir.root / 'metrics.jsonl'))
  table = summary_table(summary)
  assert table.count('pass@1 (95 %') == table.count('pass@1 at temperature 1.4') == 1
  assert summary['after']['pass_at_1'] == after['evaluate/pass_at_1']
  assert not list((workdir.root / 'journal').iterdir())


def assert_evaluate_measures_both(workdir, cfg):
  """`ds-jax evaluate` of the run: the same samples again, from files that a second call reads."""
  _, after = rows_of(workdir, 'evaluate')
  session = tiny_run.session(workdir, cfg)
  summary, text = evaluate(session)
  hot = [line for line in text.splitlines() if 'temperature 1.4, top_p 1: pass@1' in line]
  assert len(hot) == 1
  for name in ('evaluate/pass_at_1', 'evaluate/t_1.4/pass_at_1', 'evaluate/t_1.4/num_problems'):
    assert name in summary
  assert summary['evaluate/num_problems'] == after['evaluate/num_problems']
  folder = pathlib.Path(summary['output'])
  lines = [(folder / name).read_text() for name in ('samples.jsonl', 't_1.4/samples.jsonl')]
  assert len(set(lines)) == 2
  assert evaluate(session)[0] == summary
  assert [(folder / n).read_text() for n in ('samples.jsonl', 't_1.4/samples.jsonl')] == lines
  shutil.rmtree(folder)


def test_a_steered_temperature_moves_and_nothing_compiles_from_the_second_step_on(
  warm, tmp_path, monkeypatch
):
  """With hybrid rollouts in the second round; the policy at temperature 1 is trained."""
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  for num_jobs in (16, 32):  # keys have a shape for every power of two
    root_key_data(base_key_data(0, Purpose.DIRECT, 0, 0), [0] * num_jobs, [0] * num_jobs)
  count, counts = CompileCounter(), []
  step = Training.train_step

  def counted(self):
    step(self)
    counts.append(count.compilations())

  monkeypatch.setattr(Training, 'train_step', counted)
  tiny_run.train(workdir, tiny_run.config(**STEERED))
  assert counts[1:] == [counts[1]] * 4  # with a filter, and evaluations before steps 3 and 5
  rows = rows_of(workdir, 'train')
  temperatures = [row['explore/temperature'] for row in rows]
  # No step has contrast in all groups, so each is hotter, up to the bound.
  assert all(row['explore/contrast_share'] < 1 for row in rows)
  np.testing.assert_allclose(temperatures, [1.0, 1.25, 1.5, 1.5, 1.5])
  assert any(row['search/cached_share'] for row in rows[2:])
  cold, *hot = rows
  assert cold['train/importance_mean'] == pytest.approx(1, abs=1e-4)  # 1 is both
  for row in hot:
    assert abs(row['train/importance_mean'] - 1) > 1e-3 and row['train/importance_capped'] > 0
    assert row['train/ratio_first'] < 1.001  # the clipped ratio begins at 1 all the same


@pytest.mark.long
@pytest.mark.parametrize('policy', ['deepsearch', 'faithful', 'direct', 'fork'])
@pytest.mark.parametrize('explore', ['steered', 'bandit'])
def test_every_search_policy_has_temperatures(warm, tmp_path, policy, explore):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  cfg = tiny_run.config(
    search={'policy': policy},
    explore={'temperature': explore, 'target': 1.0},
    curriculum={'round_steps': (2,), 'hard_threshold': 1.1},
  )
  tiny_run.train(workdir, cfg)
  rows = rows_of(workdir, 'train')
  assert all(row['explore/temperature'] > 0 for row in rows)
  assert all(row.get('train/ratio_first', 1.0) < 1.001 for row in rows)
