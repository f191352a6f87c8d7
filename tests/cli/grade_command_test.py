"""`ds-jax grade`: figures, verdicts that are kept, bad rows, and going on after a stop."""

from __future__ import annotations

import json

import pytest

from ds_jax.cli import main
from ds_jax.run.stopping import ExitCode

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
  lines = (tmp_path / 'rows.math.jsonl').read_text().splitlines()
  verdicts = [json.loads(line).get('verdict') for line in lines]
  assert [v == 'correct' for v in verdicts if v] == [True, False, True, True, False, True]


def test_it_goes_on_behind_the_last_verdict(tmp_path, capsys):
  file = write(tmp_path / 'rows.jsonl', ROWS)
  _, expected, _ = grade(capsys, file)
  output = tmp_path / 'rows.math.jsonl'
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
      '{"gold": 3, "prediction": "3"}\nnot json\n{"gold": "1", "prediction": "1", '
      '"equivalent": "yes"}\n'
    )
  code, summary, err = grade(capsys, file, '--mode=released')
  assert code == ExitCode.DONE and summary['num_skipped'] == 3 and summary['num_rows'] == 2
  assert summary['mode'] == 'released' and summary['accuracy'] == 1
  assert '3: gold is no text' in err and 'equivalent is neither' in err


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
