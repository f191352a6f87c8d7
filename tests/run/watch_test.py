"""What a run says where nothing can be learnt: the cause, what to do, and not at every step."""

from __future__ import annotations

import collections
import dataclasses

import pytest

from ds_jax.config import Config, VerifyConfig
from ds_jax.run.signs import Ends, sign_of_ends, sign_of_skips
from ds_jax.run.watch import Vigil
from ds_jax.types import Verdict

CONFIG = Config(verify=VerifyConfig(verifier='math'))


def ends(num_cut=0, num_cut_correct=0, **counts):
  return Ends(collections.Counter(counts), num_cut, num_cut_correct)


@pytest.mark.parametrize(
  'found, words',
  [
    (ends(no_answer=9), 'verify.verifier=math read no answer in any of 9 responses'),
    (ends(no_answer=8, incomplete=1, num_cut=1), r'\boxed'),
    (ends(incomplete=9, num_cut=9), 'cut off at the limit of 16,384 tokens, 0 of them with the'),
    (ends(correct=2, wrong=7, num_cut=9, num_cut_correct=2), '2 of them with the right answer: '),
    (ends(incomplete=9, num_cut=9, num_cut_correct=2), 'the right answer, which does not count ('),
    (ends(incomplete=3, wrong=6, num_cut=4, num_cut_correct=2), '4 of 9 responses were cut off'),
    (ends(error=4), 'through our fault'),
    (ends(timeout=4), 'verify.cpu_seconds'),
    (ends(degenerate=4), 'chat template'),
    (ends(wrong=7, no_answer=2), 'None of 9 responses is right (7 wrong, 2 no_answer)'),
    (ends(wrong=8, error=1), 'None of 9 responses is right'),
  ],
)
def test_ends_that_failed_alike_are_a_sign(found, words):
  assert words in sign_of_ends(found, CONFIG)


@pytest.mark.parametrize(
  'found',
  [
    ends(),
    ends(correct=1, wrong=8),
    ends(correct=9),
    ends(ungraded=9, num_cut=9),
    ends(correct=1, incomplete=8, num_cut=8, num_cut_correct=8),
  ],
)
def test_others_are_none(found):
  assert sign_of_ends(found, CONFIG) == ''


def test_every_verdict_is_thought_of():
  """A sign for all of one kind, but for those that are right or unknown."""
  for verdict in Verdict:
    sign = sign_of_ends(ends(**{verdict.value: 3}), CONFIG)
    assert bool(sign) != (verdict in (Verdict.CORRECT, Verdict.UNGRADED)), verdict


@dataclasses.dataclass(frozen=True)
class Finished:
  is_correct: bool


def test_skipped_updates_are_explained():
  right, wrong = Finished(True), Finished(False)
  groups = [[right, right], [wrong], [], [wrong, right]]
  skips = sign_of_skips(groups, CONFIG, num_updates=3, num_empty=3)
  assert 'of 3 updates 3 had nothing to train on' in skips
  for words in ('1 with only right ends', '1 with only wrong ends', '1 without a verified end'):
    assert words in skips
  none = sign_of_skips([], CONFIG, num_updates=1, num_empty=1)
  assert 'of 1 updates 1 had nothing to train on. No problem has right and wrong ends in 1' in none
  broken = sign_of_skips(groups, CONFIG, num_updates=3, num_empty=0)
  assert '3 had a gradient that is not finite' in broken and 'only wrong' not in broken
  both = sign_of_skips(groups, CONFIG, num_updates=3, num_empty=1)
  assert '1 had nothing to train on, 2 had a gradient' in both


def test_signs_are_told_at_once_and_then_more_and_more_seldom():
  told = []
  vigil = Vigil(told.append)
  for step in range(1, 101):
    vigil.see('skipped', f'Step {step}', 'so it is' if step != 50 else '')
    vigil.see('other', f'Step {step}', '')
  assert [line.split(':')[0] for line in told] == [
    'Step 1',
    *(f'Step {n}, {n} times in a row' for n in (5, 10, 20, 40)),
    *(f'Step {50 + n}, {n} times in a row' for n in (5, 10, 20, 40)),
  ]
