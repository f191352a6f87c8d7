r"""Points at which functions are compared: no answer can be written that agrees at them only.

Points that were the same for every pair would be known: an answer could be the gold plus a function
that is zero at all of them. Each answer here is built so, for the points 602/997 · (1, -1, 1/10, …)
and 4, 8 of x, or for the whole numbers of n.
"""

from __future__ import annotations

import itertools

import pytest
from flint import fmpq

from ds_jax.verify import grade_math
from ds_jax.verify.math import expression_reader
from ds_jax.verify.math.points import Chance, PointSource
from ds_jax.verify.math.tokens import tokenize

SCALED = ((602, 997), (-602, 997), (301, 4985), (6020, 997), (-6020, 997), (1806, 4985))
KNOWN = (*SCALED, (-1204, 4985), (4, 1), (8, 1))
ZERO_AT_KNOWN = ''.join(f'({bottom}x-({top}))' for top, bottom in KNOWN)
WHOLE = (*range(1, 14), 17, 30, 60, 97, 210)
ZERO_AT_WHOLE = ''.join(f'(n-{k})' for k in WHOLE)

DEAR = r'(\sum_{k=1}^{2900} \sqrt{k+n^2})'  # what spends the work of a comparison

# Known points of functions by cases: their ends, numbers beside them, and spread over the line.
BESIDE = r'(2^{40} 2x - 1)(2^{40} 2x + 1)'
ZERO_AT_SPREAD = f'x(3x-4)(x+1)(x-1){BESIDE}(7x-2)(4x-7)(3x-31)(8x-907)'

BUILT = (
  ('0', ZERO_AT_KNOWN),
  ('x', f'x + {ZERO_AT_KNOWN}'),
  (r'\sin x', rf'\sin x + {ZERO_AT_KNOWN}'),
  ('x', r'x + \sin(9970 \pi x)'),  # zero at all fractions with that denominator
  ('(-1)^n', f'(-1)^n + {ZERO_AT_WHOLE}'),
  ('(-1)^n', f'(-1)^n + {ZERO_AT_WHOLE} {DEAR}'),
  (r'\sum_{k=1}^n k', rf'\frac{{n(n+1)}}{{2}} + {ZERO_AT_WHOLE}'),
)


@pytest.mark.parametrize('gold, answer', BUILT)
def test_a_function_that_is_made_for_known_points_is_refused(gold, answer):
  assert not grade_math.is_equal(gold, answer)
  assert not grade_math.is_equal(answer, gold)


def test_an_equation_that_is_made_for_known_points_is_refused():
  assert not grade_math.is_equal('y = x', f'y = x + {ZERO_AT_KNOWN}')
  assert not grade_math.is_equal('y - x = 0', f'2y - 2x + {ZERO_AT_KNOWN} = 0')


def test_a_function_by_cases_that_is_made_for_known_points_is_refused():
  gold = r'\begin{cases} x & x > 0 \\ 0 & x \leq 0 \end{cases}'
  made = rf'\begin{{cases}} x + {ZERO_AT_SPREAD} & x > 0 \\ 0 & x \leq 0 \end{{cases}}'
  honest = r'\begin{cases} 2x - x & x > 0 \\ 0 & x \leq 0 \end{cases}'
  assert grade_math.is_equal(gold, honest)
  assert not grade_math.is_equal(gold, made)


def draw(*texts: str) -> list[dict]:
  source = PointSource([expression_reader.read(tokenize(text)) for text in texts])
  return [source.draw(index) for index in range(12)]


@pytest.mark.parametrize('first, second', [('x+1', '1+x'), ('xy', 'yx+1'), ('(-1)^n', 'n')])
def test_a_pair_has_the_same_points_either_way_round(first, second):
  assert draw(first, second) == draw(first, second) == draw(second, first)


def test_another_pair_has_other_points():
  points = [draw('x', answer) for answer in ('x+1', 'x+2', '2x', 'x')]
  for one, other in itertools.combinations(points, 2):
    assert not {point['x'] for point in one} & {point['x'] for point in other}


def test_coordinates_have_prime_denominators_and_their_size():
  for index in range(200):
    factor = Chance(('x', 'y')).factor(str(index))
    assert fmpq(29, 100) < factor < 1
    assert factor.q > 1 << 20 and factor.q.is_prime()


def test_letters_for_whole_numbers_get_small_ones_that_differ():
  values = [point['n'] for point in draw('(-1)^n', '(-1)^{n+2}')]
  assert len(set(values)) == len(values)
  assert all(value.q == 1 and 1 <= value <= 13 for value in values)
