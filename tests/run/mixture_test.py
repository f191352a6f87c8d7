"""A run on several sources: shares of a batch, figures by source, golds tried before any work."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.report.summary import result_line, table_rows
from ds_jax.run.batches import next_batch
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.evaluation import evaluate
from ds_jax.run.session import Session
from ds_jax.run.stopping import Stopped
from ds_jax.run.training import Training
from ds_jax.testing import tiny_run
from ds_jax.testing.notes import Notes


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return f'file:{path}'


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
  """The tiny run on the embedded task and a file of problems in its words; and its config."""
  folder = tmp_path_factory.mktemp('mixed')
  rows = [{'id': i, 'problem': f'{i + 9} from 2 3 {i + 1}', 'answer': str(i)} for i in range(5)]
  file = write(folder / 'mine.jsonl', rows)
  cfg = tiny_run.config(
    data=dict(source=f'2*countdown + {file}', eval_source=f'countdown + {file}', flaws='keep'),
    curriculum=dict(round_steps=(2,), hard_threshold=2.0, rehearsal_share=0.0),
    evaluate=dict(every_steps=1, set_samples='mine:3'),
    checkpoint=dict(keep=1, keep_best=1, best_by='mean'),
  )
  workdir = tiny_run.warmstart(folder / 'run', cfg)
  return workdir, cfg, tiny_run.train(workdir, cfg)


def test_metrics_tell_sources_apart(mixed):
  workdir, _, summary = mixed
  kinds = {}
  for row in tiny_run.metrics(workdir):
    kinds.setdefault(row['kind'], row)
  for source, count in (('countdown', 3), ('mine', 3)):  # evaluate.num_problems = 6, in turn
    assert 0 <= kinds['evaluate'][f'evaluate/pass_at_1/{source}'] <= 1
    assert kinds['evaluate'][f'evaluate/num_problems/{source}'] == count
    assert 0 <= kinds['train'][f'search/solve_rate/{source}'] <= 1
    assert -1 <= kinds['train'][f'search/reward/{source}'] <= 1
  assert [kinds['filter'][f'filter/num_problems/{s}'] for s in ('countdown', 'mine')] == [24, 5]
  labels = [row[0] for row in table_rows(summary)]
  assert labels[1:5] == ['pass@1 (95 % interval)', '  countdown', '  mine', '  mean over sets']
  assert 'problems solved, mine' in (workdir.root / 'report.html').read_text()


def test_an_evaluation_has_the_mean_over_sets_and_samples_by_set(mixed):
  workdir, _, summary = mixed
  evaluations = [row for row in tiny_run.metrics(workdir) if row['kind'] == 'evaluate']
  assert [row['when'] for row in evaluations] == ['before', 'step_000001', 'after']
  for row in evaluations:
    assert row['evaluate/num_samples/mine'] == 3 and row['evaluate/num_samples/countdown'] == 2
    rates = [row[f'evaluate/pass_at_1/{name}'] for name in ('countdown', 'mine')]
    assert row['evaluate/mean_pass_at_1'] == pytest.approx(np.mean(rates))
    low, high = (row[f'evaluate/mean_pass_at_1_{end}'] for end in ('low', 'high'))
    assert 0 <= low <= row['evaluate/mean_pass_at_1'] <= high <= 1
  samples = next(row for row in table_rows(summary) if row[0] == 'samples per problem')
  assert samples[1:3] == ('2 to 3', '2 to 3')
  assert result_line(summary).startswith('mean pass@1 over 2 sets')


def test_samples_of_sets_are_kept_and_shown(mixed):
  workdir, *_ = mixed
  lines = (workdir.root / 'evaluations/step_000002_after.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert collections.Counter(row['set'] for row in rows) == {'countdown': 6, 'mine': 9}
  assert all(row['id'].startswith(row['set']) for row in rows)
  page = (workdir.root / 'report.html').read_text()
  assert 'evaluations/step_000002_after.jsonl' in page
  for name in ('countdown', 'mine'):
    assert f': {name}/' in page


def test_the_best_checkpoint_is_that_of_the_highest_mean(mixed):
  workdir, cfg, _ = mixed
  found = {}
  for row in tiny_run.metrics(workdir):
    if row['kind'] == 'evaluate':
      found[row['step']] = row['evaluate/mean_pass_at_1'], row['evaluate/pass_at_1/mine']
  saved = {}
  for metric in ('evaluate/mean_pass_at_1', 'evaluate/pass_at_1/mine', 'evaluate/pass_at_1/none'):
    with contextlib.closing(Checkpointer(workdir.checkpoints, None, metric=metric)) as checkpoints:
      saved[metric] = {entry.step: entry.score for entry in checkpoints.saved()}
  by_mean, by_mine, by_none = saved.values()
  assert max(by_mean.values()) == max(mean for mean, _ in found.values())
  assert by_mine == {step: found[step][1] for step in by_mine}  # whatever was the score then
  assert set(by_none.values()) == {None}
  unknown = dataclasses.replace(cfg.checkpoint, best_by='none')
  unknown = dataclasses.replace(cfg, checkpoint=unknown)
  session = dataclasses.replace(tiny_run.session(workdir, unknown), step='best')
  with pytest.raises(InputError, match='has evaluate/pass_at_1/none, so none is the best'):
    evaluate(session)


def test_a_run_with_sets_goes_on_after_a_stop_amid_an_evaluation(mixed, tmp_path):
  workdir, cfg, _ = mixed
  stopped = tiny_run.Workdir(tmp_path / 'stopped')
  shutil.copytree(workdir.root, stopped.root)
  for path in (stopped.checkpoints, stopped.metrics, stopped.summary):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  evaluates = lambda: any((stopped.root / 'journal').glob('evaluate_step_000001*'))
  with pytest.raises(Stopped):
    tiny_run.train(stopped, cfg, should_stop=evaluates)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, workdir, cfg)


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(best_by='aime26'), 'best_by = aime26 .*: data.eval_source has the sets countdown, mine'),
    (dict(best_by='mean', num_problems=1), 'needs problems of each of 2 evaluation sets'),
    (dict(best_by='mean', eval_source='countdown'), 'data.eval_source names but one set'),
    (dict(best_by='mean', eval_source='', source='chain'), 'data.source names but one set'),
  ],
)
def test_a_best_that_no_evaluation_tells_is_refused_before_any_work(mixed, tmp_path, fields, words):
  _, cfg, _ = mixed
  sections = {}
  for section in ('data', 'evaluate', 'checkpoint'):
    before = getattr(cfg, section)
    changed = {name: value for name, value in fields.items() if hasattr(before, name)}
    sections[section] = dataclasses.replace(before, **changed)
  bad = dataclasses.replace(cfg, **sections)
  with pytest.raises(InputError, match=words):
    tiny_run.train(tiny_run.Workdir(tmp_path / 'run'), bad)
  assert not (tmp_path / 'run').exists()


def test_each_source_has_its_share_of_a_batch(mixed):
  workdir, cfg, _ = mixed
  with tiny_run.opened(tiny_run.session(workdir, cfg)) as training:
    host = training.host
    host.hard_ids = tuple(sorted(training.train_prompts))
    hard, _ = next_batch(cfg, training.train_prompts, host)
  assert [name.split('/')[0] for name in hard].count('mine') == 2  # a third of 6


def test_an_evaluation_prints_a_line_for_each_source(mixed):
  workdir, cfg, _ = mixed
  _, text = evaluate(tiny_run.session(workdir, cfg))
  lines = text.splitlines()
  assert len(lines) == 4 and lines[0].startswith('pass@1') and '6 problems' in lines[0]
  assert '6 problems, 2 to 3 samples each' in lines[0]
  assert lines[1].startswith('  countdown: pass@1') and '2 samples each' in lines[1]
  assert lines[2].startswith('  mine: pass@1') and '3 problems, 3 samples each' in lines[2]
  assert lines[3].startswith('  mean over sets: pass@1')


def test_evaluation_questions_that_are_trained_on_are_told(mixed):
  workdir, cfg, _ = mixed
  notes = Notes()
  with tiny_run.opened(Session(cfg, workdir, notes)):
    pass
  words = '3 of 6 evaluation questions are training questions, too (mine 3 of 3)'
  assert any(words in message for message in notes.messages)


@pytest.mark.parametrize('flaws', ['drop', 'keep'])
def test_golds_that_nobody_can_answer_end_a_run_before_any_work(mixed, tmp_path, flaws):
  workdir, cfg, _ = mixed
  rows = [{'problem': f'{i + 9} from 2 3', 'answer': f'{i}^3 \\times}} )'} for i in range(4)]
  rows += [{'problem': '7 from 1 2', 'answer': '7'}]
  bad = tiny_run.config(
    data=dict(source=write(tmp_path / 'bad.jsonl', rows), eval_source='countdown', flaws=flaws),
    model=dict(path=str(workdir.warmstart)),
    verify=dict(verifier='math'),
  )
  notes = Notes()
  with tiny_run.open_engines(Session(bad, tiny_run.Workdir(tmp_path / 'run'), notes)) as engines:
    if flaws == 'keep':
      Training(engines).close()
      sentence = next(message for message in notes.messages if 'golds tried' in message)
    else:
      with pytest.raises(InputError, match='data.answer_field') as error:
        Training(engines)
      sentence = str(error.value)
  assert '4 of 5 golds tried are not right for verifier math' in sentence and '; 2: ' in sentence
