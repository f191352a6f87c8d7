"""The replay buffer and the order of problems: pure, lossless, and the same after a resume."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from train_cases import trajectory

from ds_jax.config import TrainConfig
from ds_jax.run.durable import write_atomically
from ds_jax.testing.tolerance import tolerance
from ds_jax.train.advantages import flat_group, group_advantages
from ds_jax.train.curriculum import (
  batch_of,
  hard_problems,
  mixed_batch,
  problem_order,
  source_places,
)
from ds_jax.train.replay import ReplayBuffer, cached_trajectory

IDS = [f'p{i}' for i in range(10)]


def solved(tokens, problem='p', correct=True):
  return trajectory(
    [0.0, 1.0], lengths=[0, len(tokens)], tokens=tokens, correct=correct, problem=problem
  )


def filled():
  return ReplayBuffer(2).add(
    [
      solved([1, 2]),
      solved([3], problem='ü'),
      solved([1, 2]),
      solved([4], correct=False),
      solved([5]),
      solved([6]),
    ]
  )


def test_keeps_correct_new_oldest_first_up_to_the_cap():
  buffer = filled()
  assert [s.response_tokens for s in buffer.get('p')] == [(1, 2), (5,)]
  assert len(buffer) == 3 and buffer.get('unknown') == ()


def test_changes_return_new_buffers():
  empty = ReplayBuffer(2)
  empty.add([solved([1])])
  assert len(empty) == 0


def test_retain_keeps_only_problems_that_still_fail():
  assert set(filled().retain(['p', 'q']).solutions) == {'p'}


def test_json_is_lossless():
  buffer = filled()
  assert ReplayBuffer.from_json(json.loads(json.dumps(buffer.to_json()))) == buffer


def test_export_is_readable(tmp_path):
  path = tmp_path / 'replay.jsonl'
  for _ in range(2):
    write_atomically(path, filled().to_jsonl(lambda tokens: ' '.join(map(str, tokens))))
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [(line['problem_id'], line['response']) for line in lines] == [
    ('p', '1 2'),
    ('p', '5'),
    ('ü', '3'),
  ]
  assert list(tmp_path.iterdir()) == [path]


def test_cached_solution_joins_fresh_rollouts():
  solution = filled().get('p')[0]
  cached = cached_trajectory('p', solution, np.zeros(2, np.float32))
  group = flat_group([cached, trajectory([-1.0, -1.0]), trajectory([-1.0, -1.0])], group=3)
  result = group_advantages(group, TrainConfig(advantage='tree_mean', ends='all'), 100)
  advantages = [a[0] for a in result.per_token]
  np.testing.assert_allclose(advantages, [4 / 3, -2 / 3, -2 / 3], rtol=tolerance('float32', 8))


def test_hard_problems_are_strictly_below_the_threshold():
  assert hard_problems({'b': 0.0, 'a': 0.2, 'c': 0.25, 'd': 1.0}, 0.25) == ('a', 'b')
  assert hard_problems({}, 0.25) == ()


def test_order_depends_on_round_epoch_and_seed_only():
  order = problem_order(IDS, 0, 0, epoch=0)
  assert sorted(order) == sorted(IDS) and order == problem_order(reversed(IDS), 0, 0, epoch=0)
  others = [
    problem_order(IDS, 1, 0, epoch=0),
    problem_order(IDS, 0, 1, epoch=0),
    problem_order(IDS, 0, 0, epoch=1),
  ]
  assert len({order, *others}) == 4


def test_batches_go_through_each_epoch_once():
  batches = [batch_of(IDS, 4, seed=0, round_index=1, step=step) for step in range(5)]
  assert all(len(batch) == 4 for batch in batches)
  counts = Counter(name for batch in batches for name in batch)
  assert set(counts.values()) == {2} and len(counts) == 10
  assert batches[3] == batch_of(IDS, 4, seed=0, round_index=1, step=3)  # needs no history


def test_fewer_problems_than_the_batch_repeat():
  assert Counter(batch_of(['a', 'b'], 4, seed=0, round_index=0, step=0)) == {'a': 2, 'b': 2}


def test_no_problem_is_an_error():
  with pytest.raises(ValueError, match='no hard problem'):
    batch_of([], 4, seed=0, round_index=0, step=0)


# Several sources.


def mixed(ids_of, weights, size, step):
  return mixed_batch(ids_of, weights, size, seed=0, round_index=1, step=step)


@pytest.mark.parametrize(
  'weights, size',
  [([1, 1], 3), ([2, 1], 4), ([0.5, 0.3, 0.2], 7), ([1, 1, 1, 1, 1], 2), ([9, 1], 1)],
)
def test_sources_get_their_share_of_the_places_after_any_number_of_steps(weights, size):
  before = [0] * len(weights)
  for step in range(60):
    places = source_places(weights, size, step)
    assert [p.start for p in places] == before and sum(map(len, places)) == size
    before = [p.stop for p in places]
    due = np.array(weights) / sum(weights) * size * (step + 1)
    assert np.abs(before - due).max() <= 1 + 1e-9, step


def test_a_mixed_batch_goes_through_each_source_in_epochs():
  ids_of = {'a': [f'a{i}' for i in range(5)], 'b': ['b0', 'b1']}
  batches = [mixed(ids_of, {'a': 3.0, 'b': 1.0}, 4, step) for step in range(10)]
  counts = Counter(name for batch in batches for name in batch)
  assert set(counts.values()) == {6, 5} and counts['b0'] == 5 and len(counts) == 7
  assert all(sum(name.startswith('b') for name in batch) == 1 for batch in batches)
  assert all(batch[0][0] == 'a' == batch[-1][0] for batch in batches)  # the b is amid them
  assert batches[7] == mixed(ids_of, {'a': 3.0, 'b': 1.0}, 4, 7)


def test_a_source_without_problems_leaves_its_places_to_others():
  assert mixed({'a': IDS}, {'a': 1.0, 'b': 5.0}, 4, 2) == batch_of(
    IDS, 4, seed=0, round_index=1, step=2
  )
  assert mixed({'': IDS}, {'': 1.0}, 4, 0) == batch_of(IDS, 4, seed=0, round_index=1, step=0)
  with pytest.raises(ValueError, match='no hard problem'):
    mixed({}, {'a': 1.0, 'b': 1.0}, 4, 0)
