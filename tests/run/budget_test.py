"""How much a step samples: who gets more rollouts, when it has enough, what is learnt from."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from train_cases import trajectory

from ds_jax.checks import InputError
from ds_jax.config import BudgetConfig, TrainConfig, config_from
from ds_jax.run.budget import (
  Standing,
  Tally,
  begins_short,
  divide,
  first_rollouts,
  further_rollouts,
  most_rollouts,
  wants_batch,
  worth,
)
from ds_jax.run.sampled import Group, Sampled
from ds_jax.run.waiting import Waiting
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.testing import tiny_run
from ds_jax.testing.tolerance import tolerance
from ds_jax.train.advantages import flat_group, group_advantages, joined_group
from ds_jax.train.memory import Memory, Rate
from ds_jax.types import Given, Problem

EXACT = tolerance('float32', 8)
FLAT = TrainConfig(advantage='tree_mean', ends='all')


def config(budget=None, **train):
  return tiny_run.config(budget=budget or {}, train=train)  # K = 4, batches of 6


def tally(*standings, num_batches=1, num_tokens=0, num_waiting=0):
  return Tally(standings, num_waiting, num_batches, num_tokens, rollout_tokens=10.0)


NOTHING = Standing(0, 0, 4, 0.2)
ALL_WRONG = Standing(0, 4, 4, 0.1)
ALL_RIGHT = Standing(4, 0, 4, 0.9)
BOTH = Standing(1, 3, 4, 0.3)
STEP = (NOTHING, ALL_WRONG, ALL_RIGHT, BOTH)


@pytest.mark.parametrize(
  'budget, counts',
  [
    ({}, [0, 0, 0, 0]),
    (dict(max_rollouts=16, wave=5), [5, 5, 5, 0]),
    (dict(max_rollouts=16, wave=5, until='success'), [5, 5, 0, 0]),
    (dict(max_rollouts=6, wave=5), [2, 2, 2, 0]),  # 4 of 6 were asked for
    (dict(max_rollouts=4, wave=5, first_wave=1), [0, 0, 0, 0]),
  ],
)
def test_problems_without_what_is_wanted_get_more_rollouts(budget, counts):
  assert further_rollouts(tally(*STEP), config(budget)) == counts


def test_a_problem_leaves_with_its_first_success_and_at_its_bound():
  cfg = config(dict(max_rollouts=9, wave=2, until='success', first_wave=1, first_wave_rate=0.0))
  asked, counts = first_rollouts(0.0, 0, cfg), []
  while counts != [0]:
    counts = further_rollouts(tally(Standing(0, asked, asked, 0.1)), cfg)
    asked += counts[0]
  assert asked == 9
  assert further_rollouts(tally(Standing(1, 4, 5, 0.1)), cfg) == [0]


def test_what_more_rollouts_are_worth():
  """P(contrast) p (1 - p)^2, by hand."""
  for standing, count, expected in (
    (Standing(0, 4, 4, 0.25), 2, (1 - 0.75**2) * 0.25 * 0.75**2),
    (Standing(4, 0, 4, 0.75), 2, (1 - 0.75**2) * 0.75 * 0.25**2),
    (Standing(0, 0, 4, 0.5), 2, 0.5 * 0.5 * 0.25),
    (Standing(0, 0, 4, 0.5), 0, 0.0),
    (Standing(0, 4, 4, 0.0), 9, 0.0),
    (Standing(4, 0, 4, 1.0), 9, 0.0),
  ):
    assert worth(standing, count) == pytest.approx(expected)


def test_the_last_tokens_go_to_the_worthiest_problems():
  """Hopeless and solved problems come last: their rates are 0 and 1, the others' .1, .3, .95."""
  rates = (0.0, 0.1, 0.3, 0.95, 1.0)
  standings = [Standing(0, 4, 4, rate) for rate in rates]
  budget = dict(max_rollouts=16, wave=3, max_tokens=1000)

  def counts(num_tokens):
    return further_rollouts(tally(*standings, num_tokens=num_tokens), config(budget))

  assert counts(0) == [3, 3, 3, 3, 3]
  assert counts(900) == [1, 3, 3, 3, 0]  # 100 tokens are 10 rollouts
  assert counts(955) == [0, 1, 3, 0, 0]
  assert counts(991) == counts(1000) == counts(5000) == [0] * 5


@pytest.mark.parametrize(
  'train, found, is_wanted',
  [
    (dict(max_refills=0), dict(), False),
    (dict(max_refills=2), dict(), True),
    (dict(max_refills=2), dict(num_batches=2), True),
    (dict(max_refills=2), dict(num_batches=3), False),  # the first, and two more
    (dict(max_refills=2), dict(num_waiting=5), False),  # 1 + 5 of 6 have contrast
    (dict(max_refills=2), dict(num_waiting=4), True),
    (dict(max_refills=2, contrast_groups=1), dict(), False),
    (dict(max_refills=2, contrast_groups=2), dict(), True),
    (dict(max_refills=2), dict(num_tokens=500), False),
    (dict(max_refills=2), dict(num_tokens=499), True),
  ],
)
def test_batches_are_drawn_until_enough_groups_have_contrast(train, found, is_wanted):
  cfg = config(dict(max_tokens=500, max_rollouts=5), **train)
  assert wants_batch(tally(*STEP, **found), cfg) == is_wanted


def test_nobody_gets_more_once_a_step_has_enough():
  budget = dict(max_rollouts=8, wave=4)
  assert further_rollouts(tally(*STEP), config(budget, contrast_groups=1)) == [0] * 4
  assert further_rollouts(tally(*STEP), config(budget, contrast_groups=2)) == [4, 4, 4, 0]


def test_problems_that_are_nearly_always_solved_begin_with_few():
  cfg = config(dict(first_wave=2, first_wave_rate=0.8))
  assert [first_rollouts(rate, 0, cfg) for rate in (0.79, 0.8)] == [4, 2]
  # Solutions take the place of K rollouts, not of few: else the rate would never fall again.
  assert [first_rollouts(rate, 3, cfg) for rate in (0.79, 0.8)] == [1, 2]
  assert first_rollouts(0.0, 5, cfg) == 0
  assert not begins_short(1.0, BudgetConfig())
  assert most_rollouts(cfg) == 4 and most_rollouts(config(dict(max_rollouts=9))) == 9


@pytest.mark.parametrize(
  'train, num_waiting, lengths',
  [
    (dict(max_refills=1), 0, (6, 0, 3)),
    (dict(max_refills=1, waiting_groups=2), 0, (6, 2, 1)),
    (dict(max_refills=1, waiting_groups=2), 2, (4, 2, 3)),
    (dict(max_refills=1, waiting_groups=6), 6, (0, 6, 3)),
    (dict(max_refills=1, contrast_groups=2), 0, (9, 0, 0)),
  ],
)
def test_groups_beyond_a_batch_wait_or_are_unused(train, num_waiting, lengths):
  drawn = list('abcdefghi')
  division = divide(drawn, num_waiting, config(**train).train)
  assert tuple(map(len, division)) == lengths
  assert list(itertools.chain(*division)) == drawn


@pytest.mark.parametrize(
  'sections, said',
  [
    (dict(train=dict(contrast_groups=2)), 'contrast_groups = 2 says when nothing more is drawn'),
    (dict(budget=dict(max_tokens=9)), 'budget.max_tokens = 9 bounds further draws'),
    (dict(budget=dict(max_rollouts=4)), 'a problem begins with 4'),
    (dict(budget=dict(max_rollouts=2, first_wave=2)), 'a problem begins with 2'),
    (
      dict(budget=dict(first_wave=2), train=dict(objective='imitation')),
      'train.objective = imitation has none',
    ),
    (dict(train=dict(waiting_groups=2)), 'that takes train.max_refills > 0'),
    (
      dict(train=dict(waiting_groups=2, max_refills=1, contrast_groups=2)),
      'train.contrast_groups = 0',
    ),
    (dict(train=dict(waiting_groups=7, max_refills=1)), 'train.batch_problems = 6; lower it'),
  ],
)
def test_contradictions_are_refused_by_name(sections, said):
  with pytest.raises(InputError, match=said):
    config_from(dataclasses.asdict(tiny_run.config(**sections)))
  config_from(dataclasses.asdict(config(dict(max_rollouts=5), contrast_groups=2)))


def rollouts(outcomes):
  """A group of rollouts of one token each, that are right (1) or wrong (0)."""
  ends = []
  for outcome in outcomes:
    t = trajectory([0.0, 0.0], None, [0, 1])
    ends.append(dataclasses.replace(t, is_correct=bool(outcome), reward=2.0 * outcome - 1))
  return flat_group(ends, 0)


def test_a_group_of_several_waves_has_one_baseline():
  """A success after three failures and a wave of two: outcomes -1, mean -3/5, and 1."""
  first, *later = rollouts([0, 0, 0]), *rollouts([0, 1])
  group = flat_group([*first, *later], 0)
  advantages = np.concatenate(group_advantages(group, FLAT, 9).per_token)
  np.testing.assert_allclose(advantages, [-2 / 5] * 4 + [8 / 5], rtol=EXACT)
  assert [t.node_ids.tolist() for t in group] == [[0, i] for i in range(1, 6)]


@pytest.mark.filterwarnings('error')
def test_a_group_whose_rollouts_are_all_masked_is_empty():
  assert flat_group([], 0) == joined_group([[], []], 0) == []


def test_stopping_at_the_first_success_changes_weights_but_no_direction():
  """All courses of a problem with three answers, of which the first is right, to at most 3 draws.

  The gradient by the logits of answer a is 1[a] - softmax. What is expected after n draws is
  (n - 1) / n / (p (1 - p)) grad p if they end in the success, and nothing if they have none.
  """
  probabilities = np.array([0.2, 0.5, 0.3])
  p = probabilities[0]
  scores = np.eye(3) - probabilities
  success_gradient = p * scores[0]
  expected, by_length = np.zeros(3), {1: np.zeros(3), 2: np.zeros(3), 3: np.zeros(3)}
  for length in (1, 2, 3):
    for answers in itertools.product(range(3), repeat=length):
      if 0 in answers[:-1] or (length < 3 and answers[-1] != 0):
        continue  # no such course: it stops with the first success, or after three
      outcomes = [answer == 0 for answer in answers]
      advantages = group_advantages(rollouts(outcomes), FLAT, 9).per_token
      update = sum(a[0] / 2 * scores[i] for a, i in zip(advantages, answers, strict=True))
      share = np.prod(probabilities[list(answers)])
      expected += share * update
      by_length[length] += share * update
  for length in (1, 2, 3):
    share = (1 - p) ** (length - 1) * p  # of courses that end in a success after so many draws
    wanted = share * (length - 1) / length / (p * (1 - p)) * success_gradient
    np.testing.assert_allclose(by_length[length], wanted, atol=1e-7)
  np.testing.assert_allclose(expected / success_gradient, (expected / success_gradient)[0])
  assert (expected / success_gradient)[0] > 0


def end(outcomes, ids, lengths):
  t = trajectory(outcomes, None, lengths, correct=outcomes[-1] > 0)
  return dataclasses.replace(t, node_ids=np.array(ids, np.int32))


def test_rollouts_join_a_tree_at_its_root():
  """Ends of a tree, one right of three, and two right rollouts: tree means by hand."""
  tree = [
    end([-1 / 3, 0.0, 1.0], [0, 1, 2], [0, 1, 1]),
    end([-1 / 3, 0.0, -1.0], [0, 1, 3], [0, 1, 1]),
    end([-1 / 3, -1.0], [0, 4], [0, 2]),
  ]
  rollout = end([1.0, 1.0, 1.0], [0, 1, 2], [0, 1, 1])
  group = joined_group([tree, [rollout], [], [rollout]], 7)
  assert [t.node_ids.tolist() for t in group] == [
    [0, 1, 2],
    [0, 1, 3],
    [0, 4],
    [0, 5, 6],
    [0, 7, 8],
  ]
  assert all(t.group == 7 for t in group)
  config = TrainConfig(advantage='tree_mean', ends='all', baseline_ends='all')
  advantages = group_advantages(group, config, 9).per_token
  mean = 1 / 5  # of outcomes 1, -1, -1, 1, 1
  expected = [[0 - mean, 1 - mean], [0 - mean, -1 - mean], [-1 - mean] * 2, *[[1 - mean] * 2] * 2]
  for found, wanted in zip(advantages, expected, strict=True):
    np.testing.assert_allclose(found, wanted, rtol=EXACT)


def test_further_rollouts_from_a_prefix_have_a_rate_of_their_own():
  """Nothing of four is right from the root, one of two from a prefix."""
  job = Job(Problem('p', '', ''), np.zeros(1, np.int32))
  given = Given(np.ones(1, np.int32), is_right=True)
  from_root = rolled_out(job, rollouts([0, 0, 0, 0]))
  within = [dataclasses.replace(t, num_given=1) for t in rollouts([1, 0])]
  from_prefix = rolled_out(dataclasses.replace(job, sample=1, given=given), within)
  sampled = Sampled([from_root, from_prefix], [], Counters(), Counters(), 0, 0)
  cfg = tiny_run.config(prefix=dict(target_rate=0.8))
  standings = sampled.tally(Memory(), cfg, num_waiting=0).standings
  assert standings[0] == Standing(0, 4, 4, 0.0)
  assert standings[1] == Standing(1, 1, 2, (1 + 2 * 0.8) / (2 + 2))


def rolled_out(job, ends):
  return Group(job, 0, ends, num_asked=len(ends), num_tokens=len(ends))


def test_rates_are_taken_in_without_solutions():
  group = rollouts([1, 0, 0, 0])
  memory = Memory().visit([group, []], 0.5)
  assert memory.rates == {'p': Rate(1, 4)} and memory.overall == Rate(1, 4)
  assert memory.visit([group], 0.5).rates == {'p': Rate(1.5, 6)}
  assert not memory.solutions and not memory.num_found


def test_waiting_groups_come_back_bit_by_bit():
  group = [
    dataclasses.replace(t, behavior_logprobs=np.array([-np.pi * (i + 1)], np.float32))
    for i, t in enumerate(rollouts([1, 0]))
  ]
  waiting = Waiting.of([group, group[:1]])
  restored = Waiting.from_json(json.loads(json.dumps(waiting.to_json())))
  assert len(restored) == 2
  for before, after in zip(waiting.groups, restored.groups, strict=True):
    for x, y in zip(before, after, strict=True):
      for field in dataclasses.fields(x):
        left, right = getattr(x, field.name), getattr(y, field.name)
        np.testing.assert_array_equal(left, right)
        assert getattr(left, 'dtype', type(left)) == getattr(right, 'dtype', type(right))
