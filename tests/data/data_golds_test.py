"""Golds and prompts as data sets really write them: read rightly, or refused by name."""

from __future__ import annotations

import decimal
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.config import DataConfig
from ds_jax.data.benchmarks import read_benchmark
from ds_jax.data.describe import describe_problems
from ds_jax.data.fields import RowError
from ds_jax.data.flaws import GOLD_FLAWS, flaw_of, gold_flaw
from ds_jax.data.layouts import read_problem, read_question
from ds_jax.data.sources import load_problems
from ds_jax.testing.notes import Notes
from ds_jax.types import Problem, Verdict
from ds_jax.verify import grade_math


def gold_of(answer):
  return read_problem({'problem': 'q', 'answer': answer}, DataConfig()).answer


def is_right(gold, answer):
  return grade_math.verify(gold, f'So \\boxed{{{answer}}}.') is Verdict.CORRECT


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return f'file:{path}'


def load(source, split='train', progress=None, **fields):
  config = DataConfig(source=source, eval_source=source, **fields)
  return load_problems(config, split, '/nowhere', progress=progress or Notes())


# Worked solutions.

WORKED = 'Tom has 48/2 = <<48/2=24>>24 eggs.\nTogether 48+24 = 72.'


@pytest.mark.parametrize(
  'answer, gold, solution',
  [
    (f'{WORKED}\n#### 72', '72', WORKED),
    (f'{WORKED}\r\n#### 72\n', '72', WORKED),
    (f'{WORKED}\n####72 ', '72', WORKED),
    (f'{WORKED}\n#### -1,234,567', '-1234567', WORKED),
    (f'{WORKED}\n#### 1,23', '1,23', WORKED),
    ('#### 5.5', '5.5', None),
    ('#### Step 1\nSo \\boxed{6}.', '6', None),
  ],
)
def test_gsm8k_as_published(answer, gold, solution):
  problem = read_problem({'question': 'How many?', 'answer': answer}, DataConfig())
  assert (problem.answer, problem.solution) == (gold, solution)
  row = {'question': 'How many?', 'solution': answer}
  assert read_problem(row, DataConfig()).answer == gold


def test_a_mark_without_an_answer_is_empty(tmp_path):
  rows = [{'problem': 'q', 'answer': 'text\n#### '}, {'problem': 'r', 'answer': '#### 1'}]
  loaded = load(write(tmp_path / 'a.jsonl', rows))
  assert loaded.counts == {'empty': 1} and '####' in loaded.skipped[0][1]


# Lists.


@pytest.mark.parametrize(
  'answer, gold',
  [
    (['5'], '5'),
    ('["5"]', '5'),
    (b'["5"]', '5'),
    ("['5']", '5'),
    ('["2", "-2"]', '2, -2'),
    (['2', '-2'], '2, -2'),
    (['$1$', '$100$'], '$1$; $100$'),
    ('["$1$", "$100$"]', '$1$; $100$'),
    (['1', '100'], '1; 100'),
    ([1, 100], '1; 100'),
    ([5, 125, 2], '5; 125; 2'),
    (np.array(['1', '1000']), '1; 1000'),
    (['1,000', '2'], '1,000; 2'),
    (['(1,2)', '(3,4)'], '(1,2); (3,4)'),
    (['\\boxed{1}', '\\boxed{2}'], '1, 2'),
    ('["\\\\frac{1}{2}", "3"]', '\\frac{1}{2}, 3'),
    ("['\\\\frac{1}{2}', '3']", '\\frac{1}{2}, 3'),
    ('[1, 2]', '[1, 2]'),  # an interval
    ('["a', '["a'),
    ("['\\frac12']", '\\frac12'),  # backslashes that were not doubled
    ('["\\frac12", "\\pi"]', '\\frac12, \\pi'),
  ],
)
def test_lists_of_answers(answer, gold):
  assert gold_of(answer) == gold


@pytest.mark.parametrize('answer', [['1', '100'], ['$1$', '$100$'], '["1", "100"]', [1, 100]])
def test_list_answers_are_not_thousands(answer):
  gold = gold_of(answer)
  assert is_right(gold, '100, 1') and is_right(gold, '\\{1, 100\\}')
  assert not any(is_right(gold, wrong) for wrong in ('1100', '1', '100'))


# Numbers.


@pytest.mark.parametrize(
  'answer, gold',
  [
    (1e-05, '0.00001'),
    ('1e-05', '0.00001'),
    ('2.5e+16', '25000000000000000'),
    (-0.0, '0'),
    (4.5e33, '45' + '0' * 32),
    (0.1, '0.1'),
    (12345678.9, '12345678.9'),
    (decimal.Decimal('2.50'), '2.5'),
    (decimal.Decimal('3.000'), '3'),
    (decimal.Decimal('1E+3'), '1000'),
    (decimal.Decimal('1E-7'), '0.0000001'),
    (decimal.Decimal('12345678901234567890.123456789012345678'),) * 2,
    (np.float32(0.1), '0.1'),
    (np.float64(1e-7), '0.0000001'),
    (np.int64(100), '100'),
    ('4.5e33', '4.5e33'),  # a person's
    ('3.9e-10', '3.9e-10'),
    ('1e+999', '1e+999'),
  ],
)
def test_numbers_keep_their_digits(answer, gold):
  assert gold_of(answer) == str(gold)


@pytest.mark.parametrize(
  'answer', [float('inf'), decimal.Decimal('NaN'), decimal.Decimal('1E+1000000'), np.bool_(True)]
)
def test_what_is_no_number(answer):
  with pytest.raises(RowError, match='expected text or a number'):
    gold_of(answer)


def test_a_small_number_is_met_in_other_spellings():
  assert is_right(gold_of(1e-05), '10^{-5}') and is_right(gold_of(1e-05), '\\frac{1}{100000}')


def test_numbers_of_files(tmp_path):
  answers = ['1e-05', '0.12345678901234567890123', '2.0', '1e400', '1e99999999999999999999', 'NaN']
  lines = [f'{{"problem": "{i}", "answer": {answer}}}' for i, answer in enumerate(answers)]
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
  (tmp_path / 'a.json').write_text(f'[{",".join(lines)}]')
  golds = ['0.00001', '0.12345678901234567890123', '2', '1' + '0' * 400]
  for name in ('a.jsonl', 'a.json'):
    loaded = load(f'file:{tmp_path / name}')
    assert [p.answer for p in loaded.problems] == golds
    assert [number for number, _ in loaded.skipped] == [5, 6]

  table = pyarrow.table(
    {
      'problem': ['a', 'b', 'c'],
      'answer': pyarrow.array([0.1, 1e-5, None], pyarrow.float32()),
      'final_answer': pyarrow.array([None, None, decimal.Decimal('7.1000')]),
      'difficulty': pyarrow.array([decimal.Decimal('4.5')] * 3),
    }
  )
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  loaded = load(f'file:{tmp_path / "a.parquet"}')
  assert [p.answer for p in loaded.problems] == ['0.1', '0.00001', '7.1']
  assert loaded.problems[0].metadata == {'difficulty': 4.5}
  assert type(loaded.problems[0].metadata['difficulty']) is float


# Golds that are no answers.

WORKED_BADLY = (
  'First both sides are squared,\nthen all is moved to one side, so that two terms $x^2$ stay.'
)


@pytest.mark.parametrize(
  'answer, flaw',
  [
    ('N/A', 'no_answer'),
    ('n/a.', 'no_answer'),
    ('\\text{N/A}', 'no_answer'),
    ('None', 'no_answer'),
    ('null', 'no_answer'),
    ('NaN', 'no_answer'),
    ('not found', 'no_answer'),
    ('-', 'no_answer'),
    ('$-$', 'no_answer'),
    ('—', 'no_answer'),
    ('\\boxed{}', 'no_answer'),
    ('$\\boxed{ }$', 'no_answer'),
    ('\\text{}', 'no_answer'),
    ('[]', 'no_answer'),
    ('""', 'no_answer'),
    ('See solution', 'proof_or_reference'),
    ('see the solution above.', 'proof_or_reference'),
    ('\\text{See solution.}', 'proof_or_reference'),
    ('Proof omitted.', 'proof_or_reference'),
    ('proof', 'proof_or_reference'),
    ('Proof. Let $n$ be even.', 'proof_or_reference'),
    ('The proof is left to the reader.', 'proof_or_reference'),
    ('Left as an exercise', 'proof_or_reference'),
    ('As shown above', 'proof_or_reference'),
    ('Answers may vary.', 'proof_or_reference'),
    ('Solution omitted', 'proof_or_reference'),
    ('\\boxed{5} or \\boxed{6}', 'unclear_box'),
    ('\\boxed{5', 'unclear_box'),
    ('By symmetry we may assume that both sides are equal.', 'prose'),
    ('The sequence is bounded and therefore converges.', 'prose'),
    ('\\text{It depends on the sign of the number }a', 'prose'),
    (WORKED_BADLY, 'prose'),
  ],
)
def test_golds_without_an_answer(answer, flaw):
  assert flaw_of(Problem('p', 'What is 1+1?', answer)) == flaw and flaw in GOLD_FLAWS


@pytest.mark.parametrize(
  'question, answer',
  [
    ('Which are prime? If none, write None.', 'None'),
    ('Which are prime?', '\\text{None}'),
    ('Which are prime?', 'none'),
    ('Which sign belongs between them?', '-'),
    ('Which sign belongs between them?', '+'),
    ('What is it?', '\\{\\}'),
    ('What is it?', '\\emptyset'),
    ('What is it?', 'a circle'),
    ('What is it?', 'skew group ring'),
    ('Does the limit exist?', 'The limit does not exist.'),
    ('Are there any?', 'There are no non-trivial integer solutions to the equation $x=y$.'),
    ('How many?', 'The number of ways to do so is 12'),
    ('How many?', 'The number of ways to do so is $12$.'),
    ('Which games?', '\\text{Softball, Kickball, Picnic, Tennis, Golf, Chess, Go}'),
    ('Which f?', '$f(x)=ax+b$, where $b$ is an arbitrary integer and $a$ is any positive one'),
    ('Which?', 'The set of all positive real numbers'),
    ('Which way?', 'left to right'),
    ('What is it?', 'Seesaw'),
    ('What is it?', 'solution set'),
    ('What is it?', '80 proof'),
    ('leg_counting', json.dumps({'question': 'How many ' + 'is it ' * 40, 'answer': '4'})),
  ],
)
def test_good_golds_stay(question, answer):
  assert gold_flaw(answer, question) is None


def test_flawed_golds_are_counted_with_their_rows_and_can_be_kept(tmp_path):
  answers = ['7', 'N/A', 'Proof omitted.', '\\boxed{5} or \\boxed{6}', '8']
  rows = [{'problem': f'What is {i}?', 'answer': answer} for i, answer in enumerate(answers)]
  source, notes = write(tmp_path / 'a.jsonl', rows), Notes()
  loaded = load(source, progress=notes)
  assert [p.answer for p in loaded.problems] == ['7', '8']
  assert loaded.counts == {'no_answer': 1, 'proof_or_reference': 1, 'unclear_box': 1}
  assert [number for number, _ in loaded.skipped] == [2, 3, 4]
  assert "3: proof or reference in 'Proof omitted.'" in notes.messages[0]
  assert len(load(source, flaws='keep').problems) == len(load(source, 'eval').problems) == 5
  with pytest.raises(InputError, match=r'1 no answer.*data.flaws=keep'):
    load(write(tmp_path / 'b.jsonl', rows[1:4]))


def run(capsys, *argv):
  code = main(['data', *argv])
  captured = capsys.readouterr()
  return code, captured.out + captured.err


def test_description_says_when_most_golds_are_no_answers(capsys, tmp_path):
  equations = [{'problem': f'e{i}', 'answer': f'x^2+{i} = y'} for i in range(5)]
  prose = [
    {'problem': f'p{i}', 'answer': 'Hence both sides are equal to each other.'} for i in 'ab'
  ]
  numbers = [{'problem': f'n{i}', 'answer': str(i)} for i in range(3)]
  source = write(tmp_path / 'a.jsonl', equations + prose + numbers)
  code, text = run(capsys, 'describe', f'--source={source}')
  assert code == 0 and 'most golds are equations, prose or no answers at all' in text
  assert 'equation or inequality 50.0%, prose 20.0%' in text and '--answer_field' in text
  code, text = run(capsys, 'describe', f'--source={write(tmp_path / "b.jsonl", numbers)}')
  assert code == 0 and 'most golds' not in text
  kept = describe_problems([Problem(str(i), 'q', 'N/A') for i in range(2)])
  assert kept['answer_types'] == {'no answer': 2} and 'no answer 100.0%' in kept['doubtful_golds']


# Prompts.

MESSAGES = [{'role': 'user', 'content': 'What is 1+1?'}]


@pytest.mark.parametrize(
  'row',
  [
    {'prompt': MESSAGES, 'answer': '2'},
    {'prompt': json.dumps(MESSAGES), 'answer': '2'},
    {'prompt': json.dumps(MESSAGES).encode(), 'answer': '2'},
    {'prompt': repr(MESSAGES), 'answer': '2'},
    {'prompt': MESSAGES[0], 'answer': '2'},
    {'prompt': [{'role': 'system', 'content': ''}, *MESSAGES], 'answer': '2'},
    {'prompt': [[*MESSAGES[0].items()]], 'answer': '2'},
    {
      'prompt': [{'role': 'user', 'content': [{'type': 'text', 'text': 'What is 1+1?'}]}],
      'answer': '2',
    },
    {'prompt': [{'role': 'user', 'content': ['What is 1+1?']}], 'answer': '2'},
    {'Problem': 'What is 1+1?', 'Answer': 2, 'ID': 7},
    {'QUESTION': 'What is 1+1?', 'FINAL_ANSWER': '2'},
    {'prompt': MESSAGES, 'reward_model': '{"style": "rule", "ground_truth": "2"}'},
    {'prompt': MESSAGES, 'reward_model': "{'style': 'rule', 'ground_truth': '2'}"},
    {'prompt': MESSAGES, 'reward_model': [('style', 'rule'), ('ground_truth', '2')]},
    {'Prompt': MESSAGES, 'Reward_Model': {'Ground_Truth': '["2"]'}},
  ],
)
def test_layouts_of_exports(row):
  problem = read_problem(row, DataConfig())
  assert (problem.prompt, problem.answer) == ('What is 1+1?', '2')
  assert problem.id == '7' or 'ID' not in row


def test_exact_names_win_over_capitals():
  row = {'Problem': 'no', 'problem': 'q', 'answer': 'a', 'ANSWER': 'no', 'x': 'X', 'X': 'Y'}
  problem = read_problem(row, DataConfig(answer_field='x'))
  assert (problem.prompt, problem.answer) == ('q', 'X')


def test_parts_are_joined_by_lines():
  parts = [{'type': 'text', 'text': 'one'}, {'type': 'text', 'text': 'two', 'image_url': None}]
  row = {'prompt': [{'role': 'user', 'content': parts}], 'answer': 'a'}
  assert read_problem(row, DataConfig()).prompt == 'one\ntwo'


def test_map_columns_of_parquet(tmp_path):
  texts = pyarrow.map_(pyarrow.string(), pyarrow.string())
  table = pyarrow.table(
    {
      'prompt': pyarrow.array([[[('role', 'user'), ('content', 'q')]]], pyarrow.list_(texts)),
      'reward_model': pyarrow.array([[('ground_truth', '5')]], texts),
      'extra_info': ['{"index": 3, "difficulty": 2.5}'],
      'data_source': ['mine'],
    }
  )
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  (problem,) = load(f'file:{tmp_path / "a.parquet"}').problems
  assert (problem.id, problem.prompt, problem.answer) == ('mine/3', 'q', '5')
  assert problem.metadata == {'data_source': 'mine', 'extra_info.difficulty': 2.5}


SYSTEM = [{'role': 'system', 'content': 'Think.'}, *MESSAGES]
EXAMPLES = [
  {'role': 'user', 'content': 'What is 2+2?'},
  {'role': 'assistant', 'content': [{'type': 'text', 'text': '4'}]},
]
UNANSWERED = [*MESSAGES, *MESSAGES]
LATE_SYSTEM = [*EXAMPLES, *SYSTEM]
TOOL = [*MESSAGES, {'role': 'assistant', 'content': 'x', 'tool_calls': [{'id': 1}]}, *MESSAGES]
IMAGE = [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': 'x.png'}]}]


@pytest.mark.parametrize(
  'prompt, kind, remedy',
  [
    (UNANSWERED, 'several_messages', 'ends with a message of the user'),
    (LATE_SYSTEM, 'several_messages', 'one system message at its beginning'),
    (json.dumps(EXAMPLES), 'several_messages', 'ends with a message of the user'),
    (TOOL, 'not_text', 'leave out rows with images'),
    (IMAGE, 'not_text', 'leave out rows with images'),
  ],
)
def test_prompts_that_cannot_be_used_are_refused_by_name(tmp_path, prompt, kind, remedy):
  bad, good = {'prompt': prompt, 'answer': '2'}, {'prompt': 'q', 'answer': '3'}
  with pytest.raises(
    InputError, match=f'none of 1 rows.*1 {kind.replace("_", " ")}.*{remedy}'
  ) as e:
    load(write(tmp_path / 'a.jsonl', [bad]))
  assert 'prompt_field' not in str(e.value)
  notes = Notes()
  loaded = load(write(tmp_path / 'b.jsonl', [good, bad]), progress=notes)
  assert loaded.counts == {kind: 1} and loaded.skipped[0][0] == 2
  rows = [{'problem': f'q{i}', 'answer': i} for i in range(29)]
  with pytest.raises(InputError, match=remedy):
    path = write(tmp_path / 'c.jsonl', [*rows, bad]).removeprefix('file:')
    read_benchmark('aime2024', path, DataConfig())


@pytest.mark.parametrize('as_written', [list, json.dumps, str])
def test_a_system_message_and_examples_stand_before_the_question(tmp_path, as_written):
  row = {'prompt': as_written([SYSTEM[0], *EXAMPLES, *MESSAGES]), 'answer': '2'}
  problem = read_problem(row, DataConfig(instruction='Box it.'))
  assert (problem.prompt, problem.answer) == ('What is 1+1? Box it.', '2')
  assert problem.preamble == (
    ('system', 'Think.'),
    ('user', 'What is 2+2?'),
    ('assistant', '4'),
  )
  assert hash(problem.preamble)
  assert read_question({'prompt': row['prompt']}, DataConfig()).preamble == problem.preamble
  other = {'prompt': [*SYSTEM], 'answer': '2', 'id': 1}
  path = write(tmp_path / 'a.jsonl', [row | {'id': 1}, other, other])
  loaded = load(path, flaws='keep')
  assert [p.id for p in loaded.problems] == ['1', '1#2'] and loaded.counts == {'repeated': 1}


def test_prepared_problems_keep_their_messages(capsys, tmp_path):
  rows = [{'prompt': SYSTEM, 'answer': '2'}, {'prompt': 'What is 1+2?', 'answer': '3'}]
  path = write(tmp_path / 'a.jsonl', rows).removeprefix('file:')
  code, _ = run(capsys, 'prepare', f'--from={path}', f'--data_dir={tmp_path}', '--name=mine')
  assert code == 0
  loaded = load(f'tfds:{tmp_path}/mine/1.0.0')
  assert [(p.prompt, p.preamble) for p in loaded.problems] == [
    ('What is 1+1?', (('system', 'Think.'),)),
    ('What is 1+2?', ()),
  ]


@pytest.mark.parametrize(
  'prompt, words',
  [
    ('[{"role": "user", "content": ', 'begins like chat messages, but is not JSON'),
    ([[]], 'not of chat messages'),
    ([[([], 1)]], 'not of chat messages'),
    ({'text': 'q'}, 'expected one user message'),
    ([{'role': 'user', 'content': [{'type': 'text'}]}], "a part of type 'text'"),
  ],
)
def test_broken_messages(prompt, words):
  with pytest.raises(RowError, match=words):
    read_problem({'prompt': prompt, 'answer': 'a'}, DataConfig())


def test_texts_that_only_look_like_lists_are_questions():
  for text in ('[1, 2] is what?', '["a"] is what?', '{1} is what?', '[{1}] is what?'):
    assert read_problem({'prompt': text, 'answer': 'a'}, DataConfig()).prompt == text


def test_hints_name_the_flags_of_the_command(capsys, tmp_path):
  source = write(tmp_path / 'a.jsonl', [{'text': 'q', 'label': '1'}])
  with pytest.raises(InputError, match=r'Set data\.prompt_field and data\.answer_field'):
    load(source)
  code, text = run(capsys, 'describe', f'--source={source}')
  assert code == 2 and 'Set --prompt_field and --answer_field' in text and 'data.p' not in text
  code, text = run(
    capsys, 'prepare', f'--from={source.removeprefix("file:")}', f'--data_dir={tmp_path}'
  )
  assert code == 2 and 'Set --prompt_field and --answer_field' in text
