"""The verifier `gym:TASK` with the real package: its scores, and no `eval` of model output."""

from __future__ import annotations

import itertools
import json

import pytest

from ds_jax.checks import InputError
from ds_jax.config import VerifyConfig
from ds_jax.data.gym_entries import draw, plain_value
from ds_jax.types import Verdict
from ds_jax.verify import verifiers
from ds_jax.verify.pool import VerifierPool

pytest.importorskip('reasoning_gym', reason="needs the extra 'gym': pip install reasoning-gym")

# Scorers that read literals by eval, that use sympy, that evaluate the entry, and plain ones.
TASKS = (
  'n_queens',
  'spiral_matrix',
  'puzzle24',
  'simple_integration',
  'bitwise_arithmetic',
  'leg_counting',
  'rearc',
  'advanced_geometry',
)


def gym_rows(task, count):
  rows = []
  for _, entry in itertools.islice(draw(task, 'train', count), count):
    rows.append({'answer': json.dumps(entry, sort_keys=True, default=plain_value)})
  return rows


def answer_of(row):
  return json.loads(row['answer'])['answer']


@pytest.mark.parametrize('task', TASKS)
def test_answers_of_the_gym_are_correct_and_others_are_not(task):
  verify = verifiers.resolve(f'gym:{task}')
  for row in gym_rows(task, 4):
    gold, answer = row['answer'], answer_of(row)
    assert verify(gold, f'so <answer>{answer}</answer>') is Verdict.CORRECT
    assert verify(gold, 'so <answer>nonsense</answer>') is Verdict.WRONG
    assert verify(gold, ' ') is Verdict.NO_ANSWER


def test_the_last_number_of_prose_is_read_where_the_source_says_so():
  gold = gym_rows('chain_sum', 1)[0]['answer']
  answer = answer_of({'answer': gold})
  prose = f'Adding from left to right, the sum is {answer}.'
  assert verifiers.resolve('gym:chain_sum')(gold, prose) is Verdict.WRONG
  verify = verifiers.resolve('gym:chain_sum?reads=last_number')
  assert verify(gold, prose) is Verdict.CORRECT
  assert verify(gold, f'{prose} Or 1{answer}?') is Verdict.WRONG
  assert verify(gold, f'<answer>{answer}</answer>, of 2 terms') is Verdict.CORRECT
  assert verify(gold, 'I do not know.') is Verdict.NO_ANSWER


def test_reads_is_no_option_of_the_gym():
  (entry,), (other,) = (
    list(itertools.islice(draw(task, 'train', 1), 1))
    for task in ('chain_sum?min_terms=3', 'chain_sum?reads=last_number&min_terms=3')
  )
  assert entry[1]['question'] == other[1]['question']
  with pytest.raises(InputError, match="all or last_number, got 'first'"):
    verifiers.resolve('gym:chain_sum?reads=first')


@pytest.mark.parametrize('task', TASKS)
def test_hostile_answers_do_not_run(task, tmp_path):
  trace = tmp_path / 'trace'
  codes = [
    f"__import__('pathlib').Path({str(trace)!r}).touch()",
    f"open({str(trace)!r}, 'w')",
    f"[open({str(trace)!r}, 'w')]",
    f"(1).__class__ and open({str(trace)!r}, 'w')",
    '9**9**9**9',
    '(' * 900 + '1' + ')' * 900,
  ]
  (row,) = gym_rows(task, 1)
  config = VerifyConfig(verifier=f'gym:{task}', num_workers=1, cpu_seconds=2.0)
  with VerifierPool(config) as pool:
    for future in pool.verify([(row['answer'], code) for code in codes]):
      assert future.result(60) is not Verdict.CORRECT
    (good,) = pool.verify([(row['answer'], answer_of(row))])
    assert good.result(60) is Verdict.CORRECT
  assert not trace.exists()


def test_unknown_tasks_are_named():
  with pytest.raises(InputError, match='leg_counting'):
    verifiers.resolve('gym:leg_countin')
