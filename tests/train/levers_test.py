"""One small update with each lever of learning, its numbers written out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from train_cases import trajectory

from ds_jax.config import Config, MemoryConfig, TrainConfig
from ds_jax.run.learning import _has_moved
from ds_jax.run.minibatches import PresentPolicy, memory_minibatch
from ds_jax.testing.tolerance import tolerance
from ds_jax.train.advantages import flat_group
from ds_jax.train.batch import RowShape
from ds_jax.train.memory import Memory, lessons
from ds_jax.train.replay import Solution, cached_trajectory
from ds_jax.train.trees import pack_minibatches

TRAIN = TrainConfig(
  advantage='q_mean',
  granularity='outcome',
  baseline_ends='all',
  ends='all',
  uniform_trees='drop',
  minibatch_problems=1,
)
SHAPES = [RowShape(4, 32)]
EXACT = tolerance('float32', 8)


def group(num_right, num_wrong):
  """Rollouts of one problem; right ones have 3 tokens, wrong ones 2."""
  right = dataclasses.replace(trajectory([0.0, 0.0], None, [0, 3]), is_correct=True, reward=1.0)
  wrong = dataclasses.replace(trajectory([0.0, 0.0], None, [0, 2]), is_correct=False, reward=-1.0)
  return flat_group([right] * num_right + [wrong] * num_wrong, 0)


def sums(batch):
  """Response tokens, weighted positive and negative advantages, over the whole minibatch."""
  return batch.num_copies.sum(), batch.positive.sum(), batch.negative.sum()


@pytest.mark.parametrize('packing', ['tree', 'flat'])
@pytest.mark.parametrize('success_weight', [0.0, 0.5])
def test_memory_and_weighted_successes_in_numbers(packing, success_weight):
  """1 of 4 rollouts is right: with outcomes -1 and 1 the mean is -1/2, advantages 3/2 and -1/2."""
  config = dataclasses.replace(TRAIN, packing=packing, success_weight=success_weight)
  solution = Solution((1, 2), (4, 5, 6, 7))
  remembered = [cached_trajectory('other', solution, np.full(4, -1.0, np.float32))]
  minibatch = lessons(remembered, MemoryConfig(when='at_once', advantage=0.75))
  packed = pack_minibatches([group(1, 3)], config, 4, shapes=SHAPES, lessons=[minibatch])
  num_tokens = 3 + 3 * 2 + 4
  count, positive, negative = sums(packed.batches[0])
  assert count == num_tokens and packed.num_trained == 5
  success = 3 * 1.5 * (1 + success_weight)
  np.testing.assert_allclose(positive, (success + 4 * 0.75) / num_tokens, rtol=EXACT)
  np.testing.assert_allclose(negative, 6 * 0.5 / num_tokens, rtol=EXACT)
  assert packed.lesson_tokens == 4
  np.testing.assert_allclose(packed.lesson_mass, 4 * 0.75 / num_tokens, rtol=EXACT)


def test_a_solution_weighs_like_its_tokens_in_every_aggregation():
  for aggregation, weight in (('sequence_mean', 1 / 5), ('sequence_sum', 4 / 5)):
    config = dataclasses.replace(TRAIN, loss_aggregation=aggregation)
    solution = Solution((1, 2), (4, 5, 6, 7))
    remembered = [cached_trajectory('other', solution, np.zeros(4, np.float32))]
    minibatch = lessons(remembered, MemoryConfig(when='at_once'))
    packed = pack_minibatches([group(1, 3)], config, 4, shapes=SHAPES, lessons=[minibatch])
    np.testing.assert_allclose(packed.lesson_mass, weight, rtol=EXACT)


def test_lessons_are_learnt_where_no_group_has_contrast():
  solution = Solution((1, 2), (4, 5, 6, 7))
  minibatch = lessons(
    [cached_trajectory('other', solution, np.zeros(4, np.float32))], MemoryConfig(when='at_once')
  )
  packed = pack_minibatches([], TRAIN, 4, shapes=SHAPES, lessons=[minibatch])
  assert len(packed.batches) == packed.num_trained == 1
  np.testing.assert_allclose(sums(packed.batches[0]), (4, 1.0, 0.0), rtol=EXACT)
  (nothing,) = pack_minibatches([], TRAIN, 4, shapes=SHAPES).batches
  assert not len(nothing.tokens)


class Scorer:
  """A learner whose policy gives every token the log-prob that stands for its parameters."""

  def score(self, params, batch):
    return np.full(batch.tokens.shape, params, np.float32), None


def test_updates_on_memory_alone_are_held_to_the_reference_policy_too():
  train = dataclasses.replace(TRAIN, kl_coefficient=0.1)
  config = Config(train=train, memory=MemoryConfig(when='at_once', rate_bound=2.0))
  solution = cached_trajectory('p', Solution((1, 2), (4, 5, 6)), np.zeros(3, np.float32))
  memory = Memory().add([[solution]], 0, config.memory)
  policy = PresentPolicy(config, Scorer(), params=-1.0, reference=-2.0, shapes=SHAPES)
  batch = memory_minibatch(policy, memory, step=1, index=0)
  assert batch.token_mask.sum() == 3
  assert set(batch.behavior_logprobs[batch.token_mask]) == {-1.0}
  assert set(batch.reference_logprobs[batch.token_mask]) == {-2.0}


def test_without_lessons_minibatches_are_as_they_were():
  groups = [group(1, 3), group(2, 2)]
  without = pack_minibatches(groups, TRAIN, 4, shapes=SHAPES)
  empty = pack_minibatches(groups, TRAIN, 4, shapes=SHAPES, lessons=[[], []])
  assert (without.lesson_tokens, without.lesson_mass) == (0, 0.0)
  for a, b in zip(without.batches, empty.batches, strict=True):
    for x, y in zip(a, b, strict=True):
      np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
  'clipped, distance, has_moved',
  [(0.1, 0.01, False), (0.3, 0.01, True), (0.1, 0.06, True), (0.1, -0.06, True)],
)
def test_passes_end_once_the_policy_has_moved(clipped, distance, has_moved):
  config = dataclasses.replace(TRAIN, epochs=4, max_clip_fraction=0.2, max_approx_kl=0.05)
  rows = [{'train/clip_fraction': clipped, 'train/approx_kl': distance}] * 2
  assert _has_moved(rows, config) == has_moved
  assert not _has_moved(rows, dataclasses.replace(TRAIN, epochs=4))  # no bounds
  assert not _has_moved([], config)  # before the first pass
