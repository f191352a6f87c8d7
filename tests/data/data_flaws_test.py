"""Flawed rows, overlap with benchmarks, answer types; exact counts on the real data."""

from __future__ import annotations

import json

import pytest

from ds_jax.config import DataConfig
from ds_jax.data.describe import answer_type, describe_problems, spread
from ds_jax.data.flaws import FLAWS, flaw_of, flaws_between
from ds_jax.data.overlap import find_overlaps, grams
from ds_jax.data.sources import load_problems
from ds_jax.interfaces import SilentProgress
from ds_jax.types import Gold, Problem


def problem(prompt='What is it?', answer='7', name='p'):
  return Problem(name, prompt, answer)


@pytest.mark.parametrize(
  'prompt, answer, flaw',
  [
    ('What is it?', '7', None),
    ('Find x.', '=', 'no_answer'),
    ('Find x.', '$ $', 'no_answer'),
    ('Which sign?', '+', None),
    ('Empty?', r'\{\}', None),
    ('How many?', '∞', None),
    ('True or false: A ring A is B.', 'B', 'letter_without_options'),
    ('Which? (A) one (B) two', 'B', None),
    ('Which? A) one B) two', r'\text{A}', None),
    ('Which? A. one\nB. two', '(B)', None),
    ('Which? A.) one B.) two', 'A', None),
    (r'Which? \textbf{(A)} 1 \textbf{(B)} 2', 'A', None),
    ('(a) one (b) two', 'B', None),
    (r'Which? \((A)\ 1\quad(B)\,2\)', 'A', None),
    (r'Which?\n(A) 1\n(B) 2', 'B', None),
    (r'Let \(A\) be in \(B\).', 'A', 'letter_without_options'),
    ('Which? (A) one (B) two', 'C', 'letter_without_options'),
    ('Is P(A) = P(B) in f(B)?', 'A', 'letter_without_options'),
    ('Which? - one\n- two', 'A', 'letter_without_options'),
    ('What is f?', 'F', None),
    ('an angle \theta', '7', 'control_characters'),
    ('x', '\x0crac{1}{2}', 'control_characters'),
    ('the \nabla of f', '7', 'control_characters'),
    ('a\x00b', '7', 'control_characters'),
    ('a\tb\nc\r\nd', '7', None),
    ('one\nequation', '7', None),
  ],
)
def test_flaws_of_one_row(prompt, answer, flaw):
  assert flaw_of(problem(prompt, answer)) == flaw


def test_repeats_keep_the_first_and_contradictions_none():
  rows = [('q', 'Yes'), ('r', '1'), ('q ', 'yes'), ('r', '2'), ('s', '3'), ('r', '1')]
  found = flaws_between([problem(*row, name=str(i)) for i, row in enumerate(rows)])
  assert found == {
    1: 'conflicting_answers',
    2: 'repeated_question',
    3: 'conflicting_answers',
    5: 'conflicting_answers',
  }
  assert set(found.values()) < set(FLAWS)


def test_what_a_task_of_the_gym_asks_twice_is_a_repetition():
  entries = [('gym:a?max=3', '{"max": 3}'), ('gym:a?max=6', '{"max": 6}'), ('gym:b', '{}')]
  golds = [Gold(entry, verifier) for verifier, entry in entries]
  assert flaws_between([problem('q', gold) for gold in golds[:2]]) == {1: 'repeated_question'}
  assert set(flaws_between([problem('q', gold) for gold in golds]).values()) == {
    'conflicting_answers'
  }


def test_training_problems_lose_flawed_rows_and_evaluation_sets_do_not(tmp_path):
  rows = [('q1', 'B'), ('q2', '='), ('q3', '3'), ('q3', '4'), ('q4', '4'), ('q4', '4'), ('q5', '')]
  path = tmp_path / 'data.jsonl'
  path.write_text(
    ''.join(
      json.dumps({'id': i, 'problem': q, 'answer': a}) + '\n' for i, (q, a) in enumerate(rows)
    )
  )
  config = DataConfig(source=f'file:{path}', eval_source=f'file:{path}')
  loaded = load_problems(config, 'train', '', progress=SilentProgress())
  assert [p.id for p in loaded.problems] == ['4'] and loaded.num_rows == 7
  assert loaded.counts == {
    'letter_without_options': 1,
    'no_answer': 1,
    'conflicting_answers': 2,
    'repeated_question': 1,
    'empty': 1,
  }
  assert sorted(number for number, _ in loaded.skipped) == [1, 2, 3, 4, 6, 7]
  whole = load_problems(config, 'eval', '', progress=SilentProgress())
  assert len(whole.problems) == 6 and whole.counts == {'empty': 1}


def test_every_row_of_deepmath_is_accounted_for(shared):
  folder = shared / 'data/deepmath'
  if not folder.is_dir():
    pytest.skip(f'no DeepMath data: {folder} does not exist')
  config = DataConfig(source=f'file:{folder}/deepmath103k_round*/*.parquet')
  loaded = load_problems(config, 'train', '', progress=SilentProgress())
  assert loaded.num_rows == 34_162 and len(loaded.problems) == 19_468
  # A repeat of a flawed row is a repeat: round 1 lies within round 0.
  assert loaded.counts == {
    'repeated': 13_658,
    'letter_without_options': 932,
    'repeated_question': 79,
    'control_characters': 23,
    'empty': 1,
    'no_answer': 1,
  }
  assert loaded.num_rows == len(loaded.problems) + sum(loaded.counts.values())


def test_grams_need_thirteen_words_in_a_row():
  words = [f'w{i}' for i in range(20)]
  assert len(list(grams(' '.join(words)))) == 8 and not list(grams('$ + $'))
  benchmark = [problem(' '.join(words), name='b'), problem('What is one plus one?', name='short')]
  near = problem('Now: ' + ', '.join(words[3:17]).upper(), name='near')
  far = problem(' '.join(words[:12] + ['x'] + words[12:]), name='far')
  same = problem(
    "what is ONE plus one? Let's think step by step and output the final answer within \\boxed{}.",
    name='same',
  )
  found = find_overlaps([far, near, same], benchmark)
  assert [(o.problem_id, o.benchmark_id, o.share) for o in found] == [
    ('same', 'short', 1.0),
    ('near', 'b', 2 / 8),
  ]


@pytest.mark.parametrize(
  'answer, kind',
  [
    ('Yes', 'yes/no, true/false'),
    ('-1,024', 'integer'),
    ('B', 'letter A-E'),
    (r'\frac{1}{2}', 'fraction'),
    ('0.5', 'decimal'),
    (r'\infty', 'infinity'),
    (r'\begin{pmatrix} 1 \end{pmatrix}', 'matrix'),
    (r'\{1, 2\}', 'set'),
    ('x = 2', 'equation or inequality'),
    ('(0, 1]', 'tuple or interval'),
    ('a circle', 'words'),
    ('x^2+1', 'expression with variables'),
    (r'\frac{\pi}{\sqrt{2}}', 'closed-form constant'),
    ('$7$', 'integer'),
    (r'\text{No}', 'yes/no, true/false'),
  ],
)
def test_answer_types(answer, kind):
  assert answer_type(answer) == kind


def test_description_counts():
  rows = [
    Problem('a', r'\boxed \boxed', '1', metadata={'difficulty': -1.0}),
    Problem('b', 'q', '2', metadata={'extra_info.difficulty': 4.0}),
  ]
  found = describe_problems(rows)
  assert found['answer_types'] == {'integer': 2} and found['difficulty']['max'] == 4
  assert [*found['peculiar'].values()] == [1, 1, 0]
  assert spread([]) is None and spread([1, 2, 9])['p50'] == 2
