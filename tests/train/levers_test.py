"""One small update with each lever of learning, its numbers written out."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_cases import CONFIG, small_decoder, trajectory

from ds_jax.config import Config, MemoryConfig, PrefixConfig, TrainConfig
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.run.learning import _has_moved
from ds_jax.run.minibatches import PresentPolicy, memory_minibatch
from ds_jax.sharding import make_mesh
from ds_jax.testing.tolerance import decoder_terms, tolerance
from ds_jax.train.advantages import flat_group, group_advantages, node_rewards
from ds_jax.train.batch import RowShape
from ds_jax.train.memory import Memory, lessons
from ds_jax.train.prefixes import successful_starts
from ds_jax.train.replay import Solution, cached_trajectory
from ds_jax.train.step import make_learner, policy_loss_fn
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


def prefix_group(num_right, num_wrong, given=(8, 9)):
  """Rollouts that share the first tokens of a solution; right ones add 3 tokens, wrong ones 2."""
  group_of = group(num_right, num_wrong)
  prompt = np.concatenate([group_of[0].prompt_tokens, np.array(given, np.int32)])
  return [
    dataclasses.replace(t, prompt_tokens=prompt, num_given=len(given), is_given_right=True)
    for t in group_of
  ]


def taught(batch):
  """Of each trained position: token, position, token before it, positive and negative sums."""
  rows = []
  for r, s in zip(*np.nonzero(batch.token_mask), strict=True):
    before = batch.tokens[r, batch.predecessor[r, s]]
    values = (batch.tokens[r, s], batch.positions[r, s], before)
    rows.append((*map(int, values), float(batch.positive[r, s]), float(batch.negative[r, s])))
  return sorted(rows)


@pytest.mark.parametrize('advantage', [0.0, 0.25])
def test_a_prefix_is_not_trained_on_or_has_its_own_advantage(advantage):
  """1 of 3 continuations is right: with outcomes -1 and 1 the mean is -1/3."""
  rollouts = prefix_group(1, 2)
  prefixes = [[]]
  if advantage:
    ((name, start),) = successful_starts([rollouts])
    scored = cached_trajectory(name, start, np.full(2, -1.0, np.float32))
    prefixes = [lessons([scored], PrefixConfig(advantage=advantage))]
  num_tokens = 3 + 2 * 2 + (2 if advantage else 0)
  found = []
  for packing in ('tree', 'flat'):
    config = dataclasses.replace(TRAIN, packing=packing)
    packed = pack_minibatches([rollouts], config, 16, shapes=SHAPES, prefixes=prefixes)
    (batch,) = packed.batches
    count, positive, negative = sums(batch)
    assert count == num_tokens
    np.testing.assert_allclose(positive, (3 * 4 / 3 + 2 * advantage) / num_tokens, rtol=EXACT)
    np.testing.assert_allclose(negative, 4 * 2 / 3 / num_tokens, rtol=EXACT)
    expected = (2, 2 * advantage / num_tokens) if advantage else (0, 0)
    np.testing.assert_allclose((packed.prefix_tokens, packed.prefix_mass), expected, rtol=EXACT)
    assert (packed.lesson_tokens, packed.lesson_mass) == (0, 0.0)
    found.append(taught(batch))
  assert found[0] == found[1]
  # The prompt is 1 2 3, and 8 9 were given: what follows stands at 5 and is predicted from the 9.
  first = [row for row in found[0] if row[1] == 5]
  assert len(first) == 3 and {row[2] for row in first} == {9}
  given = [row[:3] for row in found[0] if row[1] in (3, 4)]
  assert given == ([(8, 3, 3), (9, 4, 8)] if advantage else [])


def test_the_gradient_of_a_prefix_group_is_that_of_a_plain_sum():
  """Tree and flat rows against sequences one by one, with loss and gradient of -A log p."""
  rollouts = prefix_group(1, 2)
  rollouts = [
    dataclasses.replace(t, tokens=np.arange(20, 20 + len(t.tokens), dtype=np.int32) + 5 * i)
    for i, t in enumerate(rollouts)
  ]
  advantages = group_advantages(rollouts, TRAIN, 16).per_token
  num_tokens = sum(len(t.tokens) for t in rollouts)

  def plain(params):
    total = 0.0
    for t, advantage in zip(rollouts, advantages, strict=True):
      whole = np.concatenate([t.question_tokens, t.response_tokens])[None]
      index = np.broadcast_to(np.arange(whole.shape[1]), whole.shape)
      ends = np.full(whole.shape, whole.shape[1])
      logprobs, _ = sequence_logprobs(params, Rows(whole, index, ends, np.roll(whole, -1, 1)))
      scored = logprobs[0, len(t.prompt_tokens) - 1 : -1]
      # On fresh samples the ratio is 1, and its gradient that of the log-prob.
      ratio = jnp.exp(scored - jax.lax.stop_gradient(scored))
      total -= jnp.sum(ratio * advantage)
    return total / num_tokens

  params = small_decoder()
  loss, expected = jax.jit(jax.value_and_grad(plain))(params)
  learner = make_learner(
    optax.sgd(1.0),
    make_mesh(devices=jax.devices()[:1]),
    micro_rows=4,
    loss_fn=policy_loss_fn(TRAIN),
  )
  for packing in ('tree', 'flat'):
    config = dataclasses.replace(TRAIN, packing=packing)
    (batch,) = pack_minibatches([rollouts], config, 16, shapes=SHAPES).batches
    logprobs, _ = learner.score(params, batch)
    batch = batch._replace(behavior_logprobs=logprobs)
    total = learner.start(params)
    for micro in learner.passes(batch):
      total = learner.accumulate(params, total, micro)
    grads, statistics = total
    limit = tolerance('float32', decoder_terms(CONFIG, 16, 3))
    np.testing.assert_allclose(float(statistics.loss), float(loss), atol=limit)
    assert float(statistics.num_tokens) == num_tokens
    for found, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(found, wanted, atol=limit * float(jnp.abs(wanted).max()) + limit)


def test_what_was_given_counts_for_the_length_of_a_response():
  config = dataclasses.replace(TRAIN, overlong_buffer=2, advantage='leave_one_out')
  (short, *_), (long, *_) = prefix_group(1, 1), prefix_group(1, 1, given=(8, 9, 9, 9))
  for t, penalty in ((short, 0.0), (long, -1.0)):  # 3 tokens sampled, 5 and 7 in all, of 7
    rewards = node_rewards(t, config, 7)
    np.testing.assert_allclose(rewards[-1], 1 + penalty, rtol=EXACT)
