"""Prefixes: how their length is steered, what is kept, where responses are cut, what is drawn."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ds_jax.config import MemoryConfig, PrefixConfig, SearchConfig
from ds_jax.train.memory import Memory, Rate
from ds_jax.train.prefixes import (
  Prefixes,
  Source,
  draw_starts,
  longest_prefix,
  successful_starts,
  with_revisits,
)
from ds_jax.train.replay import ReplayBuffer, Solution, cached_trajectory

CONFIG = PrefixConfig(target_rate=0.5, step=0.4, first_share=0.5, withdraw_rate=0.25)
MASTERED = dataclasses.replace(CONFIG, failure_rate=0.8)
LENGTH, DEPTH = 4, 3
SEARCH = SearchConfig(segment_length=LENGTH, max_depth=DEPTH)


def end(name, response, is_correct, given=(), of_right=True):
  """An end of the prompt (1, 2); `given` are the first tokens of its response."""
  prompt, rest = Solution((1, 2), tuple(response)).prompt_tokens, tuple(response)[len(given) :]
  t = cached_trajectory(name, Solution((*prompt, *given), rest), np.zeros(len(rest), np.float32))
  return dataclasses.replace(
    t, is_correct=is_correct, num_given=len(given), is_given_right=bool(given) and of_right
  )


def visit(name, num_right, num_wrong, given=(), of_right=True):
  right = [end(name, [*given, 10 + i], True, given, of_right) for i in range(num_right)]
  return [*right, *[end(name, [*given, 50], False, given, of_right)] * num_wrong]


def share(prefixes, name='a'):
  return prefixes.solutions[name].share


def test_the_share_is_steered_to_the_target_by_numbers():
  prefixes = Prefixes().add([visit('a', 1, 3)], CONFIG)
  assert share(prefixes) == 0.5  # a new solution
  prefixes = prefixes.add([visit('a', 0, 4, given=(10,))], CONFIG)
  assert share(prefixes) == pytest.approx(0.5 + 0.4 * (0.5 - 0))
  prefixes = prefixes.add([visit('a', 3, 1, given=(10,))], CONFIG)
  assert share(prefixes) == pytest.approx(0.7 + 0.4 * (0.5 - 0.75))
  assert share(prefixes.add([visit('a', 0, 4)], CONFIG)) == pytest.approx(0.6)  # from the root
  for _ in range(3):
    prefixes = prefixes.add([visit('a', 4, 0, given=(10,))], CONFIG)
  assert share(prefixes) == pytest.approx(0.0)
  # The root is its prefix now, so that visits from there move the share.
  assert share(prefixes.add([visit('a', 4, 0)], CONFIG)) == 0
  assert share(prefixes.add([visit('a', 1, 3)], CONFIG)) == pytest.approx(0.4 * (0.5 - 0.25))
  for _ in range(6):
    prefixes = prefixes.add([visit('a', 0, 4, given=(10,))], CONFIG)
  assert share(prefixes) == 1


def test_a_prefix_is_withdrawn_as_the_rate_from_the_root_rises():
  prefixes = Prefixes().add([visit('a', 1, 7), visit('b', 0, 8)], CONFIG)
  assert prefixes.overall == Rate(1, 16)
  assert prefixes.rate('a') == pytest.approx((1 + 2 / 16) / (8 + 2))
  assert not prefixes.is_withdrawn('a', CONFIG)
  before = prefixes
  prefixes = prefixes.add([visit('a', 8, 0, given=(10,))], CONFIG)  # says nothing of the root
  assert (prefixes.rates, prefixes.overall.wins) == (before.rates, pytest.approx(0.7))
  prefixes = prefixes.add([visit('a', 4, 4)], CONFIG)
  assert prefixes.rates['a'] == pytest.approx((0.7 * 1 + 4, 0.7 * 8 + 8))
  assert prefixes.is_withdrawn('a', CONFIG) and not prefixes.is_withdrawn('b', CONFIG)


def test_solutions_are_whole_and_the_newest_are_kept():
  config = dataclasses.replace(CONFIG, max_per_problem=2)
  group = [end('a', [5, 6, 7], True, given=(5, 6)), end('a', [5, 6, 7], True, given=(5, 6))]
  prefixes = Prefixes().add([group], config)
  assert prefixes.solutions['a'].responses == ((5, 6, 7),)
  prefixes = prefixes.add([[end('a', [8], True), end('a', [9], True)], []], config)
  assert prefixes.solutions['a'].responses == ((8,), (9,))
  # The other caches keep whole ones, too; and a visit within a solution is none of the root's.
  whole = Solution((1, 2), (5, 6, 7))
  assert ReplayBuffer(2).add(group).get('a') == (whole,)
  memory = Memory().add([group], 0, MemoryConfig())
  assert [one.solution for one in memory.solutions['a']] == [whole]
  assert memory.rates == {} and memory.overall == Rate()


def test_failures_of_mastered_problems_are_kept_and_steered_the_other_way():
  hard = Prefixes().add([visit('a', 1, 7)], MASTERED)
  assert not hard.failures  # nobody will ask for them
  prefixes = Prefixes().add([visit('a', 15, 1)], MASTERED)
  assert prefixes.is_mastered('a', MASTERED) and not prefixes.is_mastered('a', CONFIG)
  assert prefixes.failures == {'a': Source(((50,),), 0.5)}
  prefixes = prefixes.add([visit('a', 4, 0, given=(50,), of_right=False)], MASTERED)
  assert prefixes.failures['a'].share == pytest.approx(0.5 + 0.4 * (1 - 0.5))
  assert share(prefixes) == 0.5  # solutions have a share of their own
  prefixes = prefixes.add([visit('a', 1, 3, given=(50,), of_right=False)], MASTERED)
  assert prefixes.failures['a'].share == pytest.approx(0.7 + 0.4 * (0.25 - 0.5))


def as_text(words):
  """Decodes ids 0, 1, …; the last of `words` is an end token, which has no text."""
  return lambda tokens: ''.join((*words[:-1], '')[i] for i in tokens)


@pytest.mark.parametrize(
  'words, longest',
  [
    (['a', '\n', 'b', 'c', '\n', 'd', 'e', '<eos>'], 5),  # before the last line
    (['a', '\n', 'b', '\n', '\n', '<eos>'], 2),  # blank lines at the end are none
    (['a', 'b\nc', 'd', '<eos>'], 1),  # a token that holds a bit of the last line
    (['a'] * 4 + ['<eos>'], 4),  # no lines: before the last segment
    (['a'] * 3 + ['<eos>'], 0),
    (['a\n'] * 20 + ['b', '<eos>'], (DEPTH - 1) * LENGTH),  # one segment is left to sample
    (['<eos>'], 0),
    ([], 0),
  ],
)
def test_the_last_line_or_segment_is_never_given(words, longest):
  assert longest_prefix(tuple(range(len(words))), SEARCH, as_text(words)) == longest


def draw(prefixes, names, config=CONFIG, *, step=0, worked=None, longest=len):
  return draw_starts(
    prefixes, config, names, worked=worked or {}, longest=longest, draw=(0, step, 0)
  )


def solved(names):
  """Problems with two solutions of four tokens among many failures."""
  groups = []
  for name in names:
    right = [end(name, [i, 7, 8, 9], True) for i in (5, 6)]
    groups.append([*right, *[end(name, [2], False)] * 38])
  return Prefixes().add(groups, CONFIG)


def test_a_share_of_each_batch_starts_from_the_root_and_draws_repeat():
  names = [f'p{i}' for i in range(10)]
  prefixes = solved(names)
  starts = draw(prefixes, names)
  assert sum(start is None for start in starts) == 3  # a quarter of ten, rounded up
  given = {tuple(start.tokens.tolist()) for start in starts if start}
  assert given == {(5, 7), (6, 7)}  # half of a solution, whichever
  assert all(start.is_right for start in starts if start)

  def plain(starts):
    return [start and start.tokens.tolist() for start in starts]

  assert plain(draw(prefixes, names)) == plain(starts)
  assert any(plain(draw(prefixes, names, step=step)) != plain(starts) for step in (1, 2))


def test_who_has_no_solution_or_is_solved_starts_from_the_root():
  names = ['a', 'b', 'c', 'd']
  prefixes = solved(['a', 'b']).add([[end('b', [5, 7, 8, 9], True)] * 80], CONFIG)
  began = set()
  for step in range(20):
    starts = draw(prefixes, names, step=step)
    began |= {name for name, start in zip(names, starts, strict=True) if start}
  assert began == {'a'}
  rounded_up = draw(prefixes, names, longest=lambda response: 1)
  assert all(len(start.tokens) == 1 for start in rounded_up if start)
  nothing_may_be_given = draw(prefixes, names, longest=lambda response: 0)
  assert nothing_may_be_given == [None] * 4


def test_problems_with_a_prefix_come_back_out_of_turn():
  names = [f'new{i}' for i in range(7)]
  prefixes = solved(['a', 'b', 'c', 'd', 'easy', 'new0']).add([visit('easy', 80, 0)], CONFIG)

  def revisit(step, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    among = {*names, 'a', 'b', 'd', 'easy', 'unsolved'}
    return with_revisits(prefixes, config, names, among=among, draw=(0, step, 0))

  came = [set(revisit(step)) - set(names) for step in range(20)]
  assert all(len(batch) == 3 and batch == {'a', 'b', 'd'} for batch in came)  # half of 7
  assert all(len(set(revisit(step))) == 7 for step in range(20))
  assert revisit(0) == revisit(0) and any(revisit(0) != revisit(step) for step in (1, 2))
  assert {name for s in range(20) for name in revisit(s, revisit_share=0.15)} >= {'a', 'b', 'd'}
  assert revisit(0, revisit_share=0.0) == names


def test_worked_solutions_stand_in_for_those_of_unsolved_problems():
  prefixes, worked = solved(['a']), {'a': (30, 31), 'b': (40, 41)}
  began = {}
  for step in range(20):
    for name, start in zip('ab', draw(prefixes, ['a', 'b'], step=step, worked=worked), strict=True):
      if start:
        began.setdefault(name, set()).add(tuple(start.tokens.tolist()))
  assert began == {'a': {(5, 7), (6, 7)}, 'b': {(40,)}}
  # Its share is steered as that of any solution, before the problem has one of its own.
  steered = prefixes.add([visit('b', 0, 4, given=(40,))], CONFIG)
  assert steered.solutions['b'] == Source((), 0.5 + 0.4 * 0.5)


def test_mastered_problems_start_within_failures():
  prefixes = Prefixes().add([visit('a', 30, 1)], MASTERED)
  starts = [draw(prefixes, ['a', 'a'], MASTERED, step=step) for step in range(5)]
  given = [start for pair in starts for start in pair if start]
  assert given and all(start.tokens.tolist() == [50] and not start.is_right for start in given)


def test_prefixes_of_solutions_that_led_to_a_right_end_are_named_once():
  groups = [
    visit('a', 2, 1, given=(10, 11)),
    visit('b', 0, 3, given=(10,)),
    visit('c', 1, 1, given=(50,), of_right=False),
    visit('d', 1, 1),
    [],
  ]
  assert successful_starts(groups) == [('a', Solution((1, 2), (10, 11)))]


def test_they_come_back_whole_from_json():
  prefixes = solved(['a', 'b']).add([visit('c', 15, 1)], MASTERED)
  assert prefixes.solutions and prefixes.failures and prefixes.rates
  assert Prefixes.from_json(json.loads(json.dumps(prefixes.to_json()))) == prefixes
  assert Prefixes.from_json({}) == Prefixes()  # of an older version
