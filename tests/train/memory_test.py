"""Memory at once: rates, which solutions are kept, who lends them, and what is drawn."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import Config, MemoryConfig
from ds_jax.config.rules import check_contradictions
from ds_jax.train.memory import Memory, Rate, draw, likeliest
from ds_jax.train.replay import Solution, cached_trajectory

CONFIG = MemoryConfig(when='at_once', max_per_problem=2)


def end(name, response, is_correct=True, logprob=-1.0):
  solution = Solution((1, 2), tuple(response))
  t = cached_trajectory(name, solution, np.full(len(response), logprob, np.float32))
  return dataclasses.replace(t, is_correct=is_correct)


def responses(memory, name):
  return [one.solution.response_tokens for one in memory.solutions.get(name, ())]


def test_a_memory_that_lends_nothing_is_refused():
  with pytest.raises(InputError, match='memory.per_update = 0 and memory.further_updates = 0'):
    check_contradictions(Config(memory=MemoryConfig(when='at_once', per_update=0)))
  for lends in (
    MemoryConfig(when='at_once', per_update=0, further_updates=1),
    MemoryConfig(per_update=0),
  ):
    check_contradictions(Config(memory=lends))


def test_the_newest_different_solutions_are_kept_with_their_step():
  memory = Memory().add([[end('a', [5]), end('a', [5]), end('a', [6], False)]], 0, CONFIG)
  assert responses(memory, 'a') == [(5,)]
  memory = memory.add([[end('a', [7]), end('a', [8]), end('a', [5])]], 3, CONFIG)
  assert responses(memory, 'a') == [(8,), (5,)]
  assert [one.step for one in memory.solutions['a']] == [3, 3]
  assert memory.num_found == {'a': 3}  # [5] had been forgotten when it came again
  assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory


def test_a_memory_of_before_it_knew_digests_is_read():
  memory = Memory().add([[end('a', [5])]], 0, CONFIG)
  fields = memory.to_json()
  del fields['digests']
  again = Memory.from_json(fields).add([[end('a', [6])]], 1, CONFIG)
  assert again.num_found == {'a': 2} and responses(again, 'a') == [(5,), (6,)]


def test_rates_are_discounted_per_visit_and_lean_towards_all_problems():
  groups = [[end('a', [5]), end('a', [6], False)], [end('b', [7], False)] * 4, []]
  memory = Memory().add(groups, 0, CONFIG)
  assert memory.overall == Rate(1, 6)
  assert memory.rate('a') == pytest.approx((1 + 2 / 6) / (2 + 2))
  assert memory.rate('unseen') == pytest.approx(1 / 6)
  memory = memory.add([[end('a', [5])]], 1, CONFIG)
  assert memory.rates['a'] == pytest.approx((0.7 * 1 + 1, 0.7 * 2 + 1))
  assert memory.rates['b'] == Rate(0, 4)  # not visited
  mean = (0.7 * 1 + 1) / (0.7 * 6 + 1)
  assert memory.rate('a') == pytest.approx((1.7 + 2 * mean) / (2.4 + 2))


def failing(names, num_found=1):
  """Problems with that many solutions each among many failures."""
  groups = []
  for name in names:
    solved = [end(name, [i + 3]) for i in range(num_found)]
    groups.append([*solved, *[end(name, [2], False)] * 20])
  return Memory().add(groups, 0, CONFIG)


def test_problems_that_are_solved_by_now_lend_nothing():
  memory = failing(['a', 'b'])
  assert memory.candidates(CONFIG) == ['a', 'b']
  memory = memory.add([[end('a', [9])] * 60], 1, CONFIG)
  assert memory.candidates(CONFIG) == ['b']


def test_a_policy_that_solves_too_little_learns_from_no_luck():
  memory = failing(['a'])
  assert memory.candidates(dataclasses.replace(CONFIG, min_rate=0.04)) == ['a']
  assert memory.candidates(dataclasses.replace(CONFIG, min_rate=0.06)) == []


def test_problems_of_many_right_answers_may_be_left_out():
  memory = failing(['a'], num_found=3)
  assert memory.candidates(dataclasses.replace(CONFIG, max_distinct=3)) == ['a']
  assert memory.candidates(dataclasses.replace(CONFIG, max_distinct=2)) == []


def test_draws_depend_on_nothing_but_their_arguments():
  memory = failing([f'p{i:02d}' for i in range(40)])

  def names(update):
    drawn = draw(memory, CONFIG, 10, seed=0, step=5, update=update)
    return [name for name, _ in drawn]

  assert names(0) == names(0) != names(1)
  assert len(set(names(0))) == 10
  assert len(draw(memory, CONFIG, 100, seed=0, step=5, update=0)) == 40
  assert draw(Memory(), CONFIG, 10, seed=0, step=0, update=0) == []


def test_one_solution_is_drawn_or_all_to_choose_from():
  memory = failing(['a'], num_found=2)
  ((_, newest),) = draw(memory, CONFIG, 1, seed=0, step=0, update=0)
  assert [one.solution.response_tokens for one in newest] == [(4,)]
  config = dataclasses.replace(CONFIG, choice='likeliest')
  ((_, choices),) = draw(memory, config, 1, seed=0, step=0, update=0)
  assert len(choices) == 2


def test_the_likeliest_solution_per_token_is_chosen():
  short = end('a', [3], logprob=-1.5)
  long = end('a', [3, 4, 5], logprob=-1.0)
  other = end('b', [3], logprob=-9.0)
  assert likeliest([short, long, other]) == [1, 2]
  assert likeliest([long, short, long]) == [0]


def test_it_comes_back_whole_from_json():
  memory = failing(['a', 'b'], num_found=3)
  assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory
