"""The rules of each verifier, on hand-written tables, hostile ones included."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time

import pytest

from ds_jax.checks import InputError
from ds_jax.config import CountdownConfig
from ds_jax.data import countdown
from ds_jax.types import Verdict
from ds_jax.verify import (
  explain,
  extract,
  grade_countdown,
  grade_exact,
  grade_math,
  verifiers,
)
from ds_jax.verify.math import reader, structures

CORRECT, WRONG, NO_ANSWER = Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER


@pytest.mark.parametrize(
  'text, expected',
  [
    (r'so \boxed{5}', '5'),
    (r'\boxed{1} then \boxed{ 2 }', '2'),
    (r'\boxed{1} then \fbox{2}', '2'),
    (r'\boxed{\frac{1}{2}} units', r'\frac{1}{2}'),
    (r'\boxed {7}', '7'),
    (r'\boxed{\{1,2\}}', r'\{1,2\}'),
    (r'\boxed{\left\{ x \right.}', r'\left\{ x \right.'),  # the escaped brace does not count
    (r'\boxed{\boxed{3}}', '3'),
    (r'\boxed{}', ''),
    (r'\boxed{1} and put it in \boxed', '1'),  # a mention, not a box
    (r'\boxed{1} then \boxed{2', None),  # cut off in its last box
    (r'\boxed{1} then \boxed{\frac{1}{2}', None),
    (r'\boxedtext{1}', None),
    ('no box', None),
    ('', None),
  ],
)
def test_last_boxed(text, expected):
  assert extract.last_boxed(text) == expected


def test_last_boxed_finds_any_balanced_content():
  rng = random.Random(0)

  def content(depth: int) -> str:
    return ''.join(
      rng.choice(['a', '1', r'\frac', r'\{', r'\}', '\\\\', ' b'])
      + ('{' + content(depth - 1) + '}' if depth and rng.random() < 0.5 else '')
      for _ in range(rng.randrange(4))
    )

  for _ in range(300):
    inner = content(3)
    assert extract.last_boxed(rf'\boxed{{0}} x \boxed{{{inner}}} }}}} tail') == inner.strip()
    assert extract.last_boxed(rf'\boxed{{0}} x \boxed{{{inner}') is None


@pytest.mark.parametrize(
  'text',
  [
    '\\boxed{' * 150_000,
    '\\boxed' + ' ' * 10**6,
    '{' * 10**6,
    '\\' * 10**6,
    '\\boxed{' + '{' * 10**6,
    '$' * 10**6,
    'answer is ' * 10**5,
    '1,' * 5 * 10**5,
    '\\boxed{1}, ' * 10**5,
    ' ' * 10**6,
  ],
)
@pytest.mark.parametrize('function', [extract.last_boxed, extract.final_answer])
def test_extraction_is_linear(function, text):
  start = time.process_time()
  function(text)
  assert time.process_time() - start < 1.5


def boxed(answer: str) -> str:
  return rf'Thus \boxed{{{answer}}}.'


EQUAL = [
  ('5', '5'),
  ('5', ' 5 '),
  ('1/2', r'\frac{1}{2}'),
  (r'\frac12', '0.5'),
  ('0.50', '.5'),
  ('-1/2', r'-\frac{1}{2}'),
  (r'\frac{-1}{2}', r'-\dfrac{1}{2}'),
  ('7,425,000', '7425000'),
  ('1 000', '1000'),
  ('1{,}000', '1000'),
  ('2.5', r'2\frac{1}{2}'),
  ('042', '42'),
  ('12', '١٢'),
  ('12', '１２'),
  (r'\frac12', '½'),
  (r'\sqrt{2}', '√2'),
  ('x^2', 'x²'),
  ('-5', '−5'),
  (r'\pi', 'π'),
  (r'2\pi', r'2 \pi'),
  ('1/3', '0.333333'),
  ('$10', r'\$10'),
  ('10', '10 cm'),
  ('10', r'10\text{ cm}^2'),
  ('45', r'45^\circ'),
  ('28', r'28\%'),
  ('0.28', '28%'),
  ('5 miles', r'5\text{ mile}'),
  ('C', '(C)'),
  ('C', r'\text{C}'),
  ('C', 'C. the third'),
  ('Yes', 'yes'),
  ('True', r'\text{yes}'),
  (r'\text{odd}', 'odd'),
  ('The cat sat', 'the  cat sat'),
  ('5', 'x=5'),
  ('x = 5', '5'),
  ('2', r'\sqrt{4} = 2'),
  ('(3,2)', '(p,q)=(3,2)'),
  ('x^2+2x+1', '(x+1)^2'),
  (r'\sin^2 x + \cos^2 x', '1'),
  (r'\{1,2\}', r'\{2,1\}'),
  ('(1,2)', r'\left(1, 2\right)'),
  (r'x \in [-4,0]', '[-4,0]'),
  ('x>3', '3<x'),
  (r'\begin{pmatrix}1\\2\end{pmatrix}', r'\begin{bmatrix}1\\2\end{bmatrix}'),
  (r'2^{10}', '1024'),
  (r'\binom{5}{2}', '10'),
  ('5!', '120'),
  (r'2^{2^{3}}', '256'),
  (r'e^{-x^2}', r'\frac{1}{e^{x^2}}'),
  ('(0,\\infty)', '(0, ∞)'),
  (r'9^{9^{9^9}}', r'9^{9^{9^{9}}}'.replace('{9}}}', '9}}')),  # the same text costs nothing
]

DIFFERENT = [
  ('5', '6'),
  ('5', '50'),
  ('0.5', '0.51'),
  ('1/3', '0.33'),
  ('12', '21'),
  ('1 2', '12'),
  ('', ''),
  ('', '0'),
  ('5', 'x'),
  ('-5', '5'),
  ('5.001', '5'),
  ('8', '8.00000001'),
  ('0.0000001', '0'),
  ('5 km', '5 miles'),
  ('28%', '0.29'),
  ('C', '(D)'),
  ('C', 'the third'),
  ('Yes', 'no'),
  ('Yes', 'maybe'),
  ('True', '1'),
  ('red', 'blue'),
  ('stressed', 'desserts'),
  ('(e+a)(e-a)=0', '0'),
  ('0', 'a^2+b=0'),
  ('7 = 11a+c', '11a+c'),
  ('x > 5', '5'),
  ('x>5', 'x<5'),
  ('x^2+1', 'y^2+1'),
  ('[0,9)', '[0,9]'),
  ('(1,2)', '(2,1)'),
  (r'1, 2, \ldots, n', r'1, 3, \ldots, n'),
  (r'f(x)=0', r'\forall x>0, f(x)=0'),
  ('4', r'4\sqrt(2)'),
  ('0.5', r'\frac{1}{3}'),
  ('1/0', '0/0'),
  ('nan', '0'),
]

HOSTILE = [
  '9^{9^{9^9}}',
  '9**9**9**9',
  '10^{10^{10}}',
  '2^{2^{100}}',
  '(10^8)!',
  '((9!)!)!',
  '100000000!',
  r'\binom{10^9}{5 \cdot 10^8}',
  r'\prod_{n=1}^{100000000} n',
  '(x+y+z)^{500}',
  r'\sum_{k=1}^{1000000000} k^k',
  '1e999999999',
  '9' * 10**5,
  'x+' * 50_000 + 'x',
  '{' * 5000 + '1' + '}' * 5000,
  '(' * 400 + '1' + ')' * 400,
  r'\frac{1}{' * 400 + '1' + '}' * 400,
  r'\sqrt{' * 400 + '2' + '}' * 400,
  '$' * 9000,
  '1,' * 4000,
  '\\' * 9000,
  'a' * 9000,
  '}}}{{{',
  r'\frac',
  r'\left(',
  '\x00',
  '\ud800',
  '\u202e5',
  'None',
  '²' * 9000,
  '½' * 5000,
  '10^{-1000000000}',
  r'\sin(10^{10^8})',
  '!' * 5000,
  '5' + '!' * 40,
  '^' * 5000,
  '_' * 5000,
  '1/' * 4000,
  r'\text{' * 1000,
  '=' * 5000,
  ',' * 9000,
  '(1,' * 300,
  '9' * 900 + '%',
]


@pytest.mark.parametrize('gold, answer', EQUAL)
def test_equal(gold, answer):
  assert grade_math.verify(gold, boxed(answer)) is CORRECT


@pytest.mark.parametrize('gold, answer', DIFFERENT)
def test_different(gold, answer):
  assert grade_math.verify(gold, boxed(answer)) in (WRONG, NO_ANSWER)


@pytest.mark.parametrize('answer', HOSTILE)
def test_hostile_text_is_stopped_before_the_algebra(answer):
  start = time.process_time()
  for gold in ('1', 'x+1', answer + '+1'):
    assert grade_math.verify(gold, boxed(answer)) is not CORRECT
  assert not grade_math.is_equal(answer, 'x+1')
  assert time.process_time() - start < 2  # the engine's import included


@pytest.mark.parametrize(
  'text',
  [
    '2^{10}',
    'x^{2019}',
    '(x+1)^{10}',
    '20!',
    '(n-1)!',
    r'\binom{100}{3}',
    '2^{n^2}',
    'e^{x^2}',
    r'\sum_{k=1}^{n} k^2',
    r'2^{2^3}',
    r'10^{-6}',
    r'\frac{1}{1+\frac{1}{1+\frac{1}{x}}}',
    r'3\times 10^{8}',
    'x^{a+b}',
    '2^x',
    r'\sqrt[3]{7}',
    '-4^{1/3}',
  ],
)
def test_ordinary_answers_keep_the_bounds(text):
  assert not isinstance(reader.read(text).answer, structures.Unread)


@pytest.mark.parametrize('response', ['', 'the answer is 5', r'\boxed{}', r'\boxed{5', r'\boxed'])
def test_without_a_box_there_is_no_answer(response):
  assert grade_math.verify('5', response) is NO_ANSWER


def test_the_prompts_box_does_not_count_but_a_boxed_gold_does():
  assert grade_math.verify(r'$\boxed{5}$', boxed('5')) is CORRECT


@pytest.mark.parametrize(
  'prediction',
  [
    '33',
    'The answer is 33.',
    'Answer: $33$',
    r'\boxed{33}',
    '33 eggs.',
    r'Answer \[ 33 \]',
    'Final Answer: The volume is 33. I hope it is correct.',
    r'we get $3 \cdot 11 = 33$',
  ],
)
def test_bare_predictions(prediction):
  assert grade_math.verify_bare('33', prediction) is CORRECT


def test_a_gold_of_words_is_not_searched_for_a_number():
  assert grade_math.verify_bare('Player 2', r'So it is \boxed{Player 2}.') is CORRECT
  assert grade_math.verify_bare('The answer is 33', '33') is CORRECT


@pytest.mark.parametrize(
  'gold, response, verdict',
  [
    ('1200', 'First 3 * 400. So she pays $1,200 a month.', CORRECT),
    ('72', 'It is 71, or rather 72.', CORRECT),
    ('72', '72, or rather 71.', WRONG),
    ('-4', 'the sum is -4', CORRECT),
    ('1/2', 'about 0.5', CORRECT),
    ('5', r'so \boxed{5}', CORRECT),
    ('5', 'five', NO_ANSWER),
    ('5', '', NO_ANSWER),
    ('5', '5</think> none', NO_ANSWER),
    ('5', '1' * 20_000, WRONG),
  ],
)
def test_the_last_number_of_prose(gold, response, verdict):
  assert verifiers.resolve('last_number')(gold, response) is verdict
  assert bool(explain.explain('last_number', gold, response).answer) is (verdict is not NO_ANSWER)


def test_equality_of_simple_answers_is_symmetric():
  answers = ['1/2', '0.5', r'\frac12', '½', '50%', '2', 'x', 'Yes', 'A', r'\text{odd}', '1,000']
  for left, right in itertools.combinations(answers, 2):
    assert grade_math.is_equal(left, right) == grade_math.is_equal(right, left), (left, right)


GOLD = '24 from 4 6 1 2'


@pytest.mark.parametrize(
  'response, expected',
  [
    ('4 * 6 = 24 | 24 1 2 2 - 1 = 1 | 24 1 24 * 1 = 24', CORRECT),
    ('4 * 6 = 24 | 1 2 24 . . . 2 - 1 = 1 | 1 24 . 24 / 1 = 24 . .', CORRECT),  # any order, fillers
    ('4 * 6 = 24 | 24 1 2\n2 - 1 = 1 | 24 1\n24 * 1 = 24', CORRECT),
    ('4 * 6 = 24 | 24 1 2 2 - 1 = 1 | 24 1 24 * 1 = 24 | 24 .', CORRECT),  # a right last bar
    ('4 * 6 = 24 | 24 1 2 2 - 1 = 1 | 24 1 24 * 1 = 24 | 23', WRONG),
    ('4 * 6 = 24 | 24 1 2 2 - 1 = 1 | 24 1 24 + 1 = 25', WRONG),  # not the target
    ('4 * 6 = 25 | 25 1 2', WRONG),  # wrong arithmetic
    ('4 * 6 = 24 | 24 1 3', WRONG),  # wrong remaining numbers
    ('4 * 6 = 24 | 24 1 2 24 - 4 = 20', WRONG),  # 4 is spent
    ('4 * 4 = 16 | 16 1 2', WRONG),  # only one 4
    ('1 - 2 = -1 | 4 6 -1', WRONG),
    ('6 / 4 = 1 | 1 1 2', WRONG),  # not exact
    ('6 - 4 = 2 | 2 1 2 2 - 2 = 0 | 0 1 1 / 0 = 0', WRONG),
    ('4 * 6 = 24 . . 2 - 1 = 1', WRONG),  # no bar
    ('4 * 6 = 24 | 24 1 2 2 - 1 = 1 | 24 1 24 * 1 = 24 24', WRONG),  # something behind the end
    ('4 ** 6 = 24 | 24 1 2', WRONG),
    ('04 * 6 = 24 | 24 1 2', WRONG),
    ('٤ * 6 = 24 | 24 1 2', WRONG),
    ('I think 24', WRONG),
    ('', NO_ANSWER),
    ('4 * 6 = 24 | 24 1 2 . .', NO_ANSWER),
    ('4 * 6 = 24 | 24 1', NO_ANSWER),
    ('4 * 6', NO_ANSWER),
    ('4 * 6 = 24', NO_ANSWER),
    ('9 * 6', WRONG),  # stopped, but the error is there
    ('1 ' * 10**6, WRONG),
    ('9' * 9000, WRONG),
  ],
)
def test_countdown(response, expected):
  assert grade_countdown.verify(GOLD, response) is expected


def test_countdown_accepts_what_a_solver_writes_and_no_damaged_copy():
  rng = random.Random(0)
  for _ in range(200):
    numbers = [rng.randint(1, 15) for _ in range(rng.randint(2, 5))]
    given, lines = list(numbers), []
    while len(numbers) > 1:
      left, right = numbers.pop(rng.randrange(len(numbers))), numbers.pop()
      left, right = max(left, right), min(left, right)
      choices = ['+', '-', '*'] + (['/'] if right and left % right == 0 else [])
      operation = rng.choice(choices)
      result = {
        '+': left + right,
        '-': left - right,
        '*': left * right,
        '/': left // max(right, 1),
      }[operation]
      numbers.append(result)
      bar = f' | {" ".join(map(str, numbers))}' if len(numbers) > 1 else ''
      lines.append(f'{left} {operation} {right} = {result}{bar}' + ' .' * rng.randrange(3))
    gold, text = f'{numbers[0]} from {" ".join(map(str, given))}', ' '.join(lines)
    assert grade_countdown.verify(gold, text) is CORRECT, (gold, text)
    tokens = text.rstrip(' .').split()
    spot = rng.randrange(len(tokens))
    damaged = [*tokens[:spot], '977', *tokens[spot + 1 :]]
    if tokens[spot] != '.':
      assert grade_countdown.verify(gold, ' '.join(damaged)) is WRONG
    for cut in range(len(tokens)):
      assert grade_countdown.verify(gold, ' '.join(tokens[:cut])) is not WRONG


def test_countdown_accepts_the_worked_solutions_of_the_embedded_task():
  problems = countdown.generate_problems(CountdownConfig(), 'warmstart')
  for problem in itertools.islice(problems, 300):
    assert grade_countdown.verify(problem.answer, problem.solution) is CORRECT


def test_a_malformed_countdown_gold_is_our_fault():
  with pytest.raises(ValueError, match='24 from 4 6 1'):
    grade_countdown.verify('24', '4 * 6 = 24')


@pytest.mark.parametrize(
  'response, expected',
  [
    ('Paris', CORRECT),
    ('  Paris \n', CORRECT),
    (r'so \boxed{Paris}', CORRECT),
    ('paris', WRONG),
    (r'Paris \boxed{Rome}', WRONG),
    ('', NO_ANSWER),
    (r'\boxed{}', NO_ANSWER),
    (r'\boxed{Paris', NO_ANSWER),
  ],
)
def test_exact(response, expected):
  assert grade_exact.verify('Paris', response) is expected


def test_exact_normalizes_white_space_only():
  assert grade_exact.verify('a  b', 'a\nb') is CORRECT
  assert grade_exact.verify('a b', 'ab') is WRONG


def says_yes(gold: str, response: str) -> bool:
  return gold == response


def names_a_verdict(gold: str, response: str) -> str:
  del gold
  return response


def test_user_verifiers():
  verifier = verifiers.resolve(f'python:{__name__}.says_yes')
  assert (verifier('a', 'a'), verifier('a', 'b')) == (CORRECT, WRONG)
  verifier = verifiers.resolve(f'python:{__name__}.names_a_verdict')
  assert verifier('', 'no_answer') is NO_ANSWER
  with pytest.raises(ValueError):
    verifier('', 'nonsense')


@pytest.mark.parametrize('name', ['Math', 'gym', 'python:x', f'python:{__name__}.nothing'])
def test_unknown_verifiers_name_the_known_ones(name):
  with pytest.raises(InputError):
    verifiers.resolve(name)


def test_light_verifiers_import_neither_sympy_nor_jax(root):
  code = (
    'import sys; from ds_jax.verify import pool, verifiers; '
    "[verifiers.resolve(n) for n in ('math', 'countdown', 'exact')]; "
    "print({'sympy', 'math_verify', 'jax', 'flax'} & set(sys.modules))"
  )
  output = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True
  ).stdout
  assert output.strip() == 'set()'
