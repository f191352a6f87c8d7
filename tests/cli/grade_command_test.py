"""`ds-jax grade`: figures, verdicts that are kept, bad rows, and going on after a stop."""

from __future__ import annotations

import json

import pytest

from ds_jax.cli import grading, main
from ds_jax.run.stopping import ExitCode
from ds_jax.verify import verifiers

ROWS = [
  ('1/2', r'The answer is \boxed{0.5}', True),
  ('2', '3', False),
  ('x+1', '1+x', True),
  ('4', r'\boxed{4}', False),  # what is said to be right is wrong: a false positive
  ('7', '8', True),  # likewise a false negative
  ('9', '9', None),
]


def write(path, rows):
  lines = [
    json.dumps({'gold': g, 'prediction': p} | ({} if e is None else {'equivalent': e}))
    for g, p, e in rows
  ]
  path.write_text('\n'.join(lines) + '\n')
  return path


def grade(capsys, *arguments):
  code = main(['grade', *map(str, arguments), '--json'])
  out = capsys.readouterr()
  return code, json.loads(out.out.splitlines()[-1]), out.err


def test_figures_and_verdicts(tmp_path, capsys):
  file = write(tmp_path / 'rows.jsonl', ROWS)
  code, summary, _ = grade(capsys, file)
  assert code == ExitCode.DONE and summary['num_rows'] == 6 and summary['num_known'] == 5
  assert summary['verdicts'] == {'correct': 4, 'wrong': 2}
  assert summary['accuracy'] == pytest.approx(3 / 5)
  assert (summary['false_positives'], summary['false_negatives']) == (1, 1)
  assert set(summary['ms']) == {'p50', 'p99', 'max'}
  lines = (tmp_path / 'rows.math_bare.jsonl').read_text().splitlines()
  verdicts = [json.loads(line).get('verdict') for line in lines]
  assert [v == 'correct' for v in verdicts if v] == [True, False, True, True, False, True]


def test_it_goes_on_behind_the_last_verdict(tmp_path, capsys):
  file = write(tmp_path / 'rows.jsonl', ROWS)
  _, expected, _ = grade(capsys, file)
  output = tmp_path / 'rows.math_bare.jsonl'
  lines = output.read_text().splitlines(keepends=True)
  output.write_text(''.join(lines[:3]) + lines[3][:9])  # a torn line
  code, summary, err = grade(capsys, file)
  assert code == ExitCode.DONE and 'graded already' in err
  for name in ('verdicts', 'accuracy', 'num_rows'):
    assert summary[name] == expected[name]
  write(file, ROWS[:2])
  assert main(['grade', str(file)]) == ExitCode.BAD_INPUT  # the verdicts there are of other rows


def test_released_mode_and_bad_rows(tmp_path, capsys):
  file = write(tmp_path / 'rows.jsonl', [('0.5', '0.5', True), ('a', 'b', False)])
  with file.open('a') as f:
    f.write(
      '{"gold": true, "prediction": "3"}\nnot json\n{"gold": "1", "prediction": "1", '
      '"equivalent": "yes"}\n'
    )
  code, summary, err = grade(capsys, file, '--mode=released')
  assert code == ExitCode.DONE and summary['num_skipped'] == 3 and summary['num_rows'] == 2
  assert summary['mode'] == 'released' and summary['accuracy'] == 1
  assert '3: gold is bool, expected text' in err and 'equivalent is neither' in err


@pytest.mark.parametrize(
  'content, said', [('{"gold": "1"}\n', 'no row can be graded'), (None, 'rows.jsonl')]
)
def test_nothing_to_grade_is_bad_input(tmp_path, capsys, content, said):
  file = tmp_path / 'rows.jsonl'
  if content:
    file.write_text(content)
  assert main(['grade', str(file)]) == ExitCode.BAD_INPUT
  assert said in capsys.readouterr().err
  assert main(['grade', str(file), '--mode=guess']) == ExitCode.BAD_INPUT


def write_lines(path, *rows):
  path.write_text(''.join(f'{row}\n' for row in rows))
  return path


def verdicts(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_verifier_that_rewards_reads_boxes_alone(tmp_path, capsys):
  file = write(tmp_path / 'rows.jsonl', [('5', '5', None), ('5', r'so \boxed{5}', None)])
  for mode, verifier, expected in [
    ('math', 'math', ['no_answer', 'correct']),
    ('math_bare', 'math_bare', ['correct', 'correct']),
    ('released', 'released_bare', ['correct', 'correct']),
    ('exact', 'exact', ['correct', 'correct']),
    ('last_number', 'last_number', ['correct', 'correct']),
  ]:
    _, summary, err = grade(capsys, file, f'--mode={mode}')
    rows = verdicts(tmp_path / f'rows.{mode}.jsonl')
    assert summary['verifier'] == verifier and [row['verdict'] for row in rows] == expected
    has_note = '1 of 2 predictions have no' in err and '--mode=math_bare reads' in err
    assert has_note == (mode == 'math')
  main(['grade', str(file), '--mode=math'])
  assert 'verifier: math, the verifier that rewards' in capsys.readouterr().out


def test_lines_tell_what_was_read_and_what_decided(tmp_path, capsys):
  file = write(tmp_path / 'rows.jsonl', [*ROWS, ('5', r'\boxed{6 = 5}', False), ('5', '', None)])
  grade(capsys, file)
  rows = verdicts(tmp_path / 'rows.math_bare.jsonl')
  for row, (gold, prediction, equivalent) in zip(rows, ROWS, strict=False):
    assert (row['gold'], row['prediction']) == (gold, prediction)
    assert row.get('equivalent') is equivalent and row['gold_reading'] and row['ms'] > 0
  assert rows[0]['answer'] == '0.5' and rows[0]['answer_reading'] == '1/2'
  assert rows[0]['stage'] == 'exact numbers' and rows[2]['stage'] == 'points'
  assert (rows[6]['stage'], rows[6]['verdict']) == ('a false statement', 'wrong')
  assert (rows[7]['stage'], rows[7]['verdict']) == ('no answer', 'no_answer')
  grade(capsys, file, '--mode=released')
  assert verdicts(tmp_path / 'rows.released.jsonl')[0]['gold_reading'] == '1/2'


def test_golds_are_numbers_lists_and_text(tmp_path, capsys):
  file = write_lines(
    tmp_path / 'rows.jsonl',
    r'{"gold": 72, "prediction": "\\boxed{72}"}',
    r'{"gold": 1e-05, "prediction": "0.00001"}',
    r'{"gold": 3.14159265358979323846, "prediction": "3.14159265358979323846"}',
    r'{"gold": 3.14159265358979323846, "prediction": "3.14159265358979311600"}',
    r'{"gold": 12345678901234567890123, "prediction": 12345678901234567890123}',
    r'{"gold": ["1", "100"], "prediction": "\\boxed{100, 1}"}',
    r'{"gold": ["1", "100"], "prediction": "1100"}',
    r'{"gold": [2, -2.5], "prediction": "-5/2, 2"}',
    r'{"gold": [], "prediction": "1"}',
  )
  _, summary, err = grade(capsys, file)
  rows = verdicts(tmp_path / 'rows.math_bare.jsonl')
  expected = [True, True, True, False, True, True, False, True]
  assert [row['verdict'] == 'correct' for row in rows] == expected
  assert rows[2]['gold'] == '3.14159265358979323846' and rows[1]['gold'] == '0.00001'
  assert summary['num_skipped'] == 1 and 'gold is an empty list' in err


def test_golds_of_a_column(tmp_path, capsys):
  import pyarrow
  import pyarrow.parquet

  golds = pyarrow.array([72.0, 0.1, 1e-05, 1e300], pyarrow.float64())
  table = pyarrow.table({'gold': golds, 'prediction': ['72', '1/10', '0.00001', '10^{300}']})
  pyarrow.parquet.write_table(table, tmp_path / 'rows.parquet')
  _, summary, _ = grade(capsys, tmp_path / 'rows.parquet')
  assert summary['verdicts'] == {'correct': 4}
  file = write_lines(
    tmp_path / 'x.csv', 'gold,prediction,equivalent', '1,1,true', '1,2,False', '1,1,'
  )
  _, summary, _ = grade(capsys, file)
  assert summary['num_known'] == 2 and summary['accuracy'] == 1


def test_fields_have_names(tmp_path, capsys):
  file = write_lines(
    tmp_path / 'rows.jsonl',
    '{"answer": 1, "response": "1", "reward_model": {"ground_truth": "2"}, "mine": "2", "ok": 1}',
  )
  _, summary, _ = grade(capsys, file)
  assert summary['verdicts'] == {'correct': 1} and summary['num_known'] == 0
  names = ['--prediction_field=mine', '--equivalent_field=ok']
  output = f'--output={tmp_path / "named.jsonl"}'
  _, summary, _ = grade(capsys, file, '--gold_field=reward_model.ground_truth', *names, output)
  assert summary['accuracy'] == 1 and verdicts(tmp_path / 'named.jsonl')[0]['gold'] == '2'
  # The gold of an evaluation may be unknown; its answer is the model's and never taken for it.
  evaluated = write_lines(tmp_path / 'e.jsonl', '{"gold": null, "answer": "3", "response": "3"}')
  assert main(['grade', str(evaluated)]) == ExitCode.BAD_INPUT
  assert '--gold_field' in capsys.readouterr().err


def test_verdicts_of_other_code_are_refused(tmp_path, capsys, monkeypatch):
  file = write(tmp_path / 'rows.jsonl', ROWS)
  _, first, _ = grade(capsys, file)
  output = tmp_path / 'rows.math_bare.jsonl'
  kept = output.read_bytes()
  monkeypatch.setattr(grading, 'source_digest', lambda name: 'another')
  assert main(['grade', str(file)]) == ExitCode.BAD_INPUT
  err = capsys.readouterr().err
  assert 'other code of the verifier' in err and first['code'] in err and 'remove it' in err
  assert output.read_bytes() == kept
  output.unlink()
  assert grade(capsys, file)[1]['code'] == 'another'


def test_the_code_of_a_verifier_is_its_files(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'graders').mkdir()
  path = tmp_path / 'graders' / 'mine.py'
  path.write_text('raise ImportError  # is not imported\n')
  first = verifiers.source_digest('python:graders.mine.verify')
  assert first == verifiers.source_digest('python:graders.mine.verify')
  path.write_text('def verify(gold, response): return True\n')
  assert first != verifiers.source_digest('python:graders.mine.verify')
  assert verifiers.source_digest('math') != first
  assert verifiers.source_digest('python:nowhere.verify')  # the pool says what is wrong


def explain(capsys, gold, prediction, *arguments):
  code = main(['grade', '--explain', f'--gold={gold}', f'--prediction={prediction}', *arguments])
  captured = capsys.readouterr()
  assert code == ExitCode.DONE, captured.err
  return captured.out


def test_a_pair_is_explained_stage_by_stage(capsys):
  text = explain(capsys, 'x=1, y=2', r'so \boxed{y=2, x=3}')
  lines = text.splitlines()
  assert lines[0].startswith('verifier      math_bare')
  assert 'do not apply  unread, same_structure' in text
  assert any(line.startswith('decides       assignments: x = 1, y = 2 !=') for line in lines)
  assert any(line.strip().startswith('quantities: 1 != 3') for line in lines)
  assert lines[-1].startswith('verdict       wrong, decided by: assignments')
  text = explain(capsys, '1/2', '0.5', '--mode=math', '--json')
  assert 'none was found' in text
  assert json.loads(text.splitlines()[-1])['explanation']['stage'] == 'no answer'
  assert 'decided by: same string' in explain(capsys, '5', r'\boxed{5}', '--mode=released')
  assert 'no stages are known' in explain(capsys, '24 from 4 6', '5', '--mode=countdown')
