"""Several evaluation sets in the report: a curve and a row of each, their mean, their responses."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from ds_jax.checks import InputError
from ds_jax.report.curve import draw_curve
from ds_jax.report.page import render_page
from ds_jax.report.responses import choose_responses
from ds_jax.report.summary import (
  headline,
  make_summary,
  pass_rates_in_words,
  read_responses,
  summary_table,
  table_rows,
)

HOSTILE = '\x1b[2J<script>alert(1)</script>\u202e'


def evaluate_row(step: int, when: str, **shares: float) -> dict:
  """With a set of 30 problems, 32 samples each, and a large one with 4."""
  row = {'kind': 'evaluate', 'step': step, 'when': when, 'evaluate/num_samples': 4}
  for name, share in shares.items():
    for suffix, value in (('', share), ('_low', share - 0.1), ('_high', share + 0.1)):
      row[f'evaluate/pass_at_1{suffix}/{name}'] = value
    row[f'evaluate/num_samples/{name}'] = 32 if name == 'aime' else 4
  mean = sum(shares.values()) / len(shares)
  for suffix, value in (('', mean), ('_low', mean - 0.1), ('_high', mean + 0.1)):
    row[f'evaluate/mean_pass_at_1{suffix}'] = value
  return row | {'evaluate/pass_at_1': shares['math'], 'evaluate/pass_at_k': 0.9}


METRICS = [
  evaluate_row(0, 'before', aime=0.1, math=0.5),
  evaluate_row(5, 'step_000005', aime=0.2, math=0.6),
  evaluate_row(9, 'after', aime=0.4, math=0.6),
]


def test_each_set_has_a_curve_and_so_has_the_mean():
  axis = Figure().subplots()
  draw_curve(axis, METRICS, {})
  lines = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
  named = {name: [y for _, y in xy] for name, xy in lines.items() if name[0] != '_'}
  assert named == {
    'aime': [0.1, 0.2, 0.4],
    'math': [0.5, 0.6, 0.6],
    'mean over sets': pytest.approx([0.3, 0.4, 0.5]),
  }


def test_the_result_is_the_mean_and_each_set_has_a_row():
  summary = make_summary(METRICS)
  assert headline(summary) == 'mean pass@1 over 2 sets went from 30.0 % to 50.0 % (+20.0 points)'
  cells = {row[0].strip(): row[1:] for row in table_rows(summary)}
  assert cells['aime'] == ('10.0 % [0.0, 20.0]', '40.0 % [30.0, 50.0]', '+30.0 points')
  assert cells['math'][-1] == '+10.0 points' and cells['mean over sets'][-1] == '+20.0 points'
  assert cells['samples per problem'][1] == '4 to 32'
  assert (
    summary_table(summary)
    .splitlines()[-1]
    .startswith('mean pass@1 over 2 sets 50.0 % [40.0, 60.0], before training 30.0 %')
  )
  after = summary['after']
  assert pass_rates_in_words(after)[1:] == [
    'aime 40.0 % [30.0, 50.0]',
    'math 60.0 % [50.0, 70.0]',
    'mean over sets 50.0 % [40.0, 60.0]',
  ]


def test_evaluations_of_an_older_version_have_the_result_over_all_problems():
  older = [{k: v for k, v in row.items() if 'mean' not in k} for row in METRICS]
  assert headline(make_summary(older)).startswith('pass@1 went from 50.0 % to 60.0 %')
  mixed = [older[0], *METRICS[1:]]  # the run went on under this version
  assert headline(make_summary(mixed)).startswith('pass@1 went from 50.0 % to 60.0 %')


def sample(problem: str, number: int, verdict: str, **fields) -> dict:
  row = {'id': problem, 'sample': number, 'verdict': verdict, 'response': f'{problem} {number}'}
  return row | {'set': problem[0]} | fields


def test_the_first_right_and_wrong_responses_of_each_set_are_chosen():
  rows = [
    sample('b1', 0, 'error'),
    sample('b1', 1, 'wrong'),
    sample('b1', 2, 'wrong'),
    sample('a1', 0, 'correct'),
    sample('a1', 1, 'no_answer'),
    sample('a2', 0, 'correct'),
    sample('a3', 0, 'correct'),
  ]
  chosen = [(row['id'], row['sample']) for row in choose_responses(iter(rows), 2)]
  assert chosen == [('a1', 0), ('a2', 0), ('a1', 1), ('b1', 1)]


def test_responses_are_shown_as_text():
  long = 'begin' + 'x' * 90_000 + 'the end'
  rows = [sample('a1', 0, 'wrong', question=HOSTILE, gold='7', answer=HOSTILE, response=long)]
  page = render_page(METRICS, {'responses': {'file': 'evaluations/last.jsonl', 'rows': rows}}, b'')
  assert '<script' not in page and '&lt;script&gt;' in page
  assert all(character not in page for character in '\x1b\u202e')
  assert 'wrong: a1, sample 0' in page and 'right is 7' in page and 'evaluations/last.jsonl' in page
  assert 'begin' in page and 'the end' in page and len(page) < 30_000


@pytest.mark.parametrize('text', ['{', '[1]\n', '{"verdict": "wrong"}\n', '3\n'])
def test_a_damaged_file_of_responses_is_named(tmp_path, text):
  path = tmp_path / 'step_000009_after.jsonl'
  path.write_text(json.dumps(sample('a1', 0, 'wrong')) + '\n' + text)
  with pytest.raises(InputError, match='step_000009_after.jsonl cannot be read'):
    read_responses(path, 2)
