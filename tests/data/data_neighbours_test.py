r"""Layouts of public sets for reinforcement learning: the gold is an answer, or the row refused.

One row each as published; what fails here pays no reward, in silence.
"""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

from ds_jax.cli import main
from ds_jax.config import DataConfig
from ds_jax.data.fields import RowError
from ds_jax.data.flaws import flaw_of
from ds_jax.data.gradable import SAMPLE, try_golds
from ds_jax.data.layouts import read_problem, read_question
from ds_jax.types import Gold, Problem, Verdict

WORK = 'Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nThat makes 48+24 = 72 clips altogether.'
USER = [{'role': 'user', 'content': 'How many?'}]
CHOICES = ['a1', 'b2', 'c3', 'd4']
OPTIONS = '\nA. a1\nB. b2\nC. c3\nD. d4'


@pytest.mark.parametrize(
  'row',
  [
    {'question': 'How many?', 'answer': f'{WORK}\n#### 72'},  # GSM8K
    {'query': 'How many?', 'response': f'{WORK}\n#### 72\nThe answer is: 72'},  # MetaMathQA
    {'question': 'How many?', 'answer': f'{WORK} The answer is 72.'},
    {'question': 'How many?', 'answer': f'{WORK} So, the final answer is $\\boxed{{72}}$.'},
    {'question': 'How many?', 'answer': f'{WORK}\n\n**Final Answer:** 72'},
    {'question': 'How many?', 'answer': f'<think>{WORK}</think>\n<answer> 72 </answer>'},
    {'question': 'How many?', 'answer': '<answer>72</answer>'},
    {'problem': 'How many?', 'solution': f'{WORK}\nAnswer: 72'},
    {'problem': 'How many?', 'solution': f'{WORK} \\boxed{{72}}', 'answer': '72', 'messages': USER},
    {'problem': 'How many?', 'solution': f'{WORK} $\\boxed{{72}}$.', 'level': 'Level 5'},
    {'prompt': USER, 'reward_model': {'ground_truth': '72'}, 'extra_info': {'answer': WORK}},
    {'prompt': USER, 'reward_model': {'ground_truth': '["72"]'}},
    {'question': 'How many?', 'final_answer': '72', 'r1_solution_1': WORK},
    {'messages': USER, 'ground_truth': '72', 'dataset': 'gsm8k'},
    {'prompt': 'How many?', 'verification_info': '{"ground_truth": "72"}'},
    {'question': 'How many?', 'target': 72},
    {'input': 'How many?', 'target': '72'},
    {'question': 'How many?', 'answers': ['72', ' 72']},
    {'question': 'How many?', 'answers': {'text': ['72', '72'], 'answer_start': [3, 3]}},
  ],
)
def test_the_gold_of_public_layouts_is_the_answer(row):
  problem = read_problem(row, DataConfig())
  answer = problem.answer.strip('$')
  assert (problem.prompt, answer, flaw_of(problem)) == ('How many?', '72', None)


@pytest.mark.parametrize(
  'fields, letter',
  [
    ({'choices': CHOICES, 'answer': 2}, 'C'),  # MMLU
    ({'choices': json.dumps(CHOICES), 'answer': '2'}, 'C'),
    ({'choices': CHOICES, 'answer': 'C'}, 'C'),
    ({'choices': CHOICES, 'answer': 'c3'}, 'C'),
    ({'options': CHOICES, 'answer': 'D', 'answer_index': 3}, 'D'),  # MMLU-Pro
    ({'choices': {'text': CHOICES, 'label': list('ABCD')}, 'answerKey': 'D'}, 'D'),  # ARC
    ({'options': ['A)a1', 'B)b2', 'C) c3', 'D)d4'], 'correct': 'B'}, 'B'),  # AQuA
    (dict(zip('ABCD', CHOICES, strict=True)) | {'Answer': 'D'}, 'D'),  # MMLU as CSV, CMMLU
    (
      dict(zip(['option_a', 'option_b', 'option_c', 'option_d'], CHOICES, strict=True))
      | {'answer': 'c3'},
      'C',
    ),
    ({'options': dict(zip('ABCD', CHOICES, strict=True)), 'answer': 'b2', 'answer_idx': 'B'}, 'B'),
  ],
)
def test_options_follow_their_question_and_the_gold_is_a_letter(fields, letter):
  problem = read_problem({'question': 'Which?'} | fields, DataConfig())
  assert (problem.prompt, problem.answer) == (f'Which?{OPTIONS}', letter)
  assert flaw_of(problem) is None


def test_options_that_a_question_has_already_are_not_repeated():
  text = 'Which? (A) a1 (B) b2 (C) c3 (D) d4'
  row = {'question': text, 'choices': CHOICES, 'answer': 1}
  assert read_problem(row, DataConfig()).prompt == text
  assert read_question({'question': 'Which?', 'choices': CHOICES}, DataConfig()).prompt == (
    f'Which?{OPTIONS}'
  )


@pytest.mark.parametrize('field', ['system', 'system_prompt', 'System_Message'])
def test_a_system_message_may_have_a_field_of_its_own(field):
  row = {field: 'Be brief.', 'question': 'How many?', 'answer': '72'}
  assert read_problem(row, DataConfig()).preamble == (('system', 'Be brief.'),)
  assert read_question(row | {'answer': None}, DataConfig()).preamble == (('system', 'Be brief.'),)
  chat = [{'role': 'system', 'content': 'Among the messages.'}, *USER]
  row = {field: 'Be brief.', 'messages': chat, 'answer': '72'}
  assert read_problem(row, DataConfig()).preamble == (('system', 'Among the messages.'),)
  for empty in ('', ' ', None):
    row = {field: empty, 'question': 'How many?', 'answer': '72'}
    assert read_problem(row, DataConfig()).preamble == ()


def test_the_body_of_a_word_problem_belongs_to_it():
  row = {'Body': 'A pack costs 76. ', 'Question': 'What do 2 cost?', 'Answer': 152.0}
  assert read_problem(row, DataConfig()).prompt == 'A pack costs 76. What do 2 cost?'


@pytest.mark.parametrize(
  'row, kind',
  [
    ({'question': 'q', 'choices': CHOICES, 'answer': 'e'}, 'unclear_choice'),
    ({'question': 'q', 'choices': CHOICES, 'answer': 4}, 'unclear_choice'),
    ({'question': 'q', 'choices': ['2', '1', '3'], 'answer': 1}, None),  # as text and number
    ({'question': 'q', 'choices': ['2', '3', '1'], 'answer': '1'}, 'unclear_choice'),
    ({'question': 'q', 'answers': ['72', 'seventy-two']}, 'several_answers'),
    ({'prompt': 'q', 'target': 72, 'nums': [1, 2]}, 'missing_field'),  # of Countdown
    ({'problem': 'q', 'solution': WORK}, 'unreadable'),
  ],
)
def test_ambiguous_rows_are_refused(row, kind):
  if kind is None:
    assert read_problem(row, DataConfig()).answer == 'B'
    return
  with pytest.raises(RowError) as error:
    read_problem(row, DataConfig())
  assert error.value.kind == kind


def test_short_answers_stay_as_they_are():
  for answer in ('The answer is $5$', 'Answer: 5', 'Yes. The answer is 5'):
    assert read_problem({'question': 'q', 'answer': answer}, DataConfig()).answer == answer


def test_tests_of_programs_are_no_golds():
  gold = '{"inputs": ["1"], "outputs": ["2"]}'
  assert flaw_of(Problem('p', 'q', gold)) == 'no_answer'
  assert flaw_of(Problem('p', 'q', '{"question": "q", "answer": "1"}')) is None  # of a gym
  assert flaw_of(Problem('p', 'q', Gold(gold, 'gym:a'))) is None


# Golds tried out.


def judged(accepts):
  def verify(items):
    futures = [Future() for _ in items]
    for future, item in zip(futures, items, strict=True):
      future.set_result(Verdict.CORRECT if accepts(*item) else Verdict.WRONG)
    return futures

  return verify


def problems_of(answers):
  return [Problem(f'p{i}', 'q', answer, row=str(i)) for i, answer in enumerate(answers)]


def test_golds_are_tried_in_a_box_and_bare():
  golds = problems_of(['1', '2', '', '3', Gold('17 from 3 5', 'countdown')])
  assert not try_golds(golds, judged(lambda gold, text: text == f'\\boxed{{{gold}}}')).failures
  assert not try_golds(golds, judged(lambda gold, text: text == gold)).failures
  trial = try_golds(golds, judged(lambda gold, text: gold == '2' == text))
  assert trial.num_judged == 3 and trial.most_fail
  assert trial.failures == (('0', '1', 'wrong'), ('3', '3', 'wrong'))
  assert '2 of 3 golds tried' in trial.describe('train', 'math') and "3: '3'" in (
    trial.describe('train', 'math')
  )
  entry = Gold(json.dumps({'answer': '7', 'question': 'q'}), 'gym:a')
  tagged = judged(lambda gold, text: text == '<answer>7</answer>')
  assert try_golds(problems_of([entry]), tagged).num_judged == 1


def test_a_sample_of_golds_is_spread_and_bounded():
  asked = []
  trial = try_golds(problems_of(map(str, range(1000))), judged(lambda *item: asked.append(item)))
  golds = {gold for gold, _ in asked}
  assert trial.num_judged == SAMPLE == len(golds) and {'0', '995'} <= golds


def test_describe_tells_of_golds_that_nobody_can_answer(capsys, tmp_path):
  path = tmp_path / 'a.jsonl'
  rows = [{'question': f'How many is {i}?', 'answer': f'{i} \\times}} )'} for i in range(3)]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  assert main(['data', 'describe', f'--source=file:{path}']) == 0
  assert '3 of 3 golds tried are not right for verifier math' in capsys.readouterr().out
  assert main(['data', 'describe', f'--source=file:{path}', '--verifier=exact']) == 0
  assert 'golds tried' not in capsys.readouterr().out
