"""The verifier `chain`: only the one right chain is correct."""

from __future__ import annotations

import pytest

from ds_jax.types import Verdict
from ds_jax.verify import verifiers
from ds_jax.verify.grade_chain import MAX_RESPONSE, verify

GOLD = '7 f2 40 40 f0 3'


@pytest.mark.parametrize(
  'response, verdict',
  [
    ('7 f2 40 . 40 f0 3', Verdict.CORRECT),
    (' . 7 f2 40 40 . . f0 3 .', Verdict.CORRECT),
    ('7 f2 40 . 40 f0', Verdict.NO_ANSWER),
    ('', Verdict.NO_ANSWER),
    ('7 f2 41', Verdict.WRONG),
    ('7 f2 40 . 40 f0 4', Verdict.WRONG),
    ('7 f2 40 . 40 f0 3 3', Verdict.WRONG),
    ('7 f2 40 . 40 f0 03', Verdict.WRONG),
    ('7 f2 40 . 40 f0 3' + ' .' * MAX_RESPONSE, Verdict.WRONG),
  ],
)
def test_only_the_right_chain_is_correct(response, verdict):
  assert verify(GOLD, response) == verdict
  assert verifiers.resolve('chain')(GOLD, response) == verdict


@pytest.mark.parametrize('gold', ['', '7 f2', '7 f2 40 40', '24 from 3 5', '7 f2 40 40 f0 3\n'])
def test_other_golds_are_refused(gold):
  with pytest.raises(ValueError, match='Expected a chain'):
    verify(gold, '7')
