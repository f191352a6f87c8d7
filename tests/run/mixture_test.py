"""A run on several sources: shares of a batch, figures by source, golds tried before any work."""

from __future__ import annotations

import json

import pytest

from ds_jax.checks import InputError
from ds_jax.report.summary import table_rows
from ds_jax.run.batches import next_batch
from ds_jax.run.evaluation import evaluate
from ds_jax.run.session import Session
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
  assert labels[1:4] == ['pass@1 (95 % interval)', '  countdown', '  mine']
  assert 'problems solved, mine' in (workdir.root / 'report.html').read_text()


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
  assert len(lines) == 3 and lines[0].startswith('pass@1') and '6 problems' in lines[0]
  assert lines[1].startswith('  countdown: pass@1') and lines[2].startswith('  mine: pass@1')


def test_evaluation_questions_that_are_trained_on_are_told(mixed):
  workdir, cfg, _ = mixed
  notes = Notes()
  with tiny_run.opened(Session(cfg, workdir, notes)):
    pass
  assert any('3 of 6 evaluation questions are training questions' in m for m in notes.messages)


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
