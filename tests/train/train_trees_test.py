"""The tree-packed form: every path seen as if alone, and the gradients of the flattened form."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import CONFIG, arrays_of, random_tree, small_decoder, trajectory

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Rows, init_decoder, sequence_logprobs
from ds_jax.sharding import make_mesh
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance
from ds_jax.train.advantages import (
  GRANULARITIES,
  NODE_ADVANTAGES,
  GroupAdvantages,
  flat_group,
  group_advantages,
)
from ds_jax.train.batch import (
  Branch,
  micro_batches,
  row_shape,
  row_shapes,
  trained_branches,
)
from ds_jax.train.losses import AGGREGATIONS
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.rescore import importance_metrics, rescore, weigh_importance
from ds_jax.train.step import make_learner, policy_loss_fn
from ds_jax.train.trees import (
  PACKINGS,
  choose_shape,
  lay_out,
  pack_flat_rows,
  pack_tree_rows,
)

LIMIT = 12  # response tokens: depth 3, at most 4 a node
TRAIN = TrainConfig(
  learning_rate=4e-4,
  warmup_steps=5,
  weight_decay=0.0,
  beta2=0.95,
  advantage='tree_mean',
  ends='all',
  clip_low=0.1,
  clip_high=0.15,
  dual_clip=1.2,
  kl_coefficient=0.1,
  entropy_coefficient=0.01,
  uniform_trees='keep',
  packing='tree',
  row_length=24,
  tree_row_length=48,
)


# Roundings on the way to a gradient, with the sum over the rows' tokens.
NUM_TERMS = decoder_terms(CONFIG, 48, 3) + 8 * 48


@functools.cache
def tools():
  """The learner, its parameters, and those of a reference policy."""
  mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
  learner = make_learner(make_optimizer(TRAIN), mesh, micro_rows=8, loss_fn=policy_loss_fn(TRAIN))
  decoder = small_decoder()
  return learner, decoder, init_decoder(decoder.config, jax.random.key(5))


def minibatch(seed, config, num_groups=5):
  """Trees, a group of independent rollouts, and a trajectory that counts twice."""
  rng = np.random.default_rng(seed)
  groups = [random_tree(rng, group=i) for i in range(num_groups)]
  groups[1] = flat_group([t for t in groups[1] if len(t.tokens)], 1)
  groups[2] = [*groups[2], *groups[2][:1]]
  return [(group, group_advantages(group, config, LIMIT)) for group in groups]


def gradient(batch, config):
  """Gradient and sums of the whole minibatch."""
  learner, params, reference = tools()
  batch = rescore(learner, params, batch, reference=reference, config=config)
  total = learner.start(params)
  for rows in micro_batches(batch, learner.micro_rows):
    total = learner.accumulate(params, total, rows)
  return jax.device_get(total)


def assert_same_update(groups, config, tree_rows=48):
  trees = trained_branches(groups, config.loss_aggregation)
  flat, flat_sums = gradient(pack_flat_rows(trees, 24), config)
  tree, tree_sums = gradient(pack_tree_rows(trees, tree_rows), config)
  assert_close(tree, flat, num_terms=NUM_TERMS)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(flat)) > 1e-3
  for name, a, b in zip(flat_sums._fields, tree_sums, flat_sums, strict=True):
    if name != 'num_distinct':
      # Sums of what log-probabilities come to, which are about -5.
      limit = tolerance('float32', NUM_TERMS, max(5.0, float(np.abs(b).max())))
      np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=name)
  assert tree_sums.num_distinct <= flat_sums.num_distinct
  return flat_sums


SETTINGS = list(itertools.product(AGGREGATIONS, NODE_ADVANTAGES, ('collected', 'all'), (0, 6)))


@pytest.mark.parametrize('number', range(len(SETTINGS)))
def test_gradients_and_figures_are_those_of_the_flattened_form(number):
  aggregation, advantage, ends, buffer = SETTINGS[number]
  config = dataclasses.replace(
    TRAIN,
    loss_aggregation=aggregation,
    advantage=advantage,
    ends=ends,
    overlong_buffer=buffer,
    normalization=('mean_only', 'none', 'standard')[number % 3],
    uniform_trees=('keep', 'drop', 'drop')[number % 3] if number % 2 else 'centre',
    granularity=tuple(GRANULARITIES)[number // 3 % 2],
    baseline_ends=('collected', 'all')[number // 2 % 2],
    importance_cap=1.1 * (number % 5 == 0),
  )
  sums = assert_same_update(minibatch(number, config, num_groups=10), config)
  if not config.importance_cap:
    assert 0 < sums.num_clipped_lower < sums.num_clipped < sums.num_tokens


@functools.partial(jax.jit, static_argnums=1)
@jax.value_and_grad
def dapo(params, length, tokens, behavior, advantages, mask):
  """DAPO's objective as its paper writes it (arXiv:2503.14476, Eq. 8): every sequence alone."""
  rows = lambda x: jnp.broadcast_to(x, tokens.shape)
  logprobs, _ = sequence_logprobs(
    params, Rows(tokens, rows(jnp.arange(length)), rows(length), jnp.roll(tokens, -1, 1))
  )
  ratio = jnp.exp(jnp.where(mask, jnp.roll(logprobs, 1, 1) - behavior, 0.0))
  clipped = jnp.clip(ratio, 1 - TRAIN.clip_low, 1 + TRAIN.clip_high)
  gain = jnp.minimum(ratio * advantages[:, None], clipped * advantages[:, None])
  return -jnp.sum(mask * gain) / jnp.sum(mask)


def dapo_of(groups, params, length=24):
  """Its value and gradient; advantages are Eq. 9's, with the released epsilon."""
  sequences = [t for group in groups for t in group]
  tokens = np.zeros((len(sequences), length), np.int32)
  behavior, mask = np.zeros(tokens.shape, np.float32), np.zeros(tokens.shape, bool)
  for row, t in enumerate(sequences):
    span = slice(len(t.prompt_tokens), len(t.prompt_tokens) + len(t.tokens))
    tokens[row, : span.stop] = np.append(t.prompt_tokens, t.tokens)
    behavior[row, span], mask[row, span] = t.behavior_logprobs, True
  rewards = [np.array([1.0 if t.is_correct else -1.0 for t in group]) for group in groups]
  advantages = np.concatenate([(r - r.mean()) / (r.std() + 1e-6) for r in rewards])
  return dapo(params, length, tokens, behavior, advantages.astype(np.float32), mask)


@pytest.mark.parametrize('packing', PACKINGS)
def test_outcomes_with_standard_normalization_are_dapo(packing):
  config = dataclasses.replace(
    TRAIN,
    advantage='q_mean',
    granularity='outcome',
    normalization='standard',
    ends='all',
    baseline_ends='all',
    uniform_trees='drop',
    dual_clip=1e9,
    kl_coefficient=0.0,
    entropy_coefficient=0.0,
  )
  trees = [random_tree(np.random.default_rng([8, i]), group=i) for i in range(8)]
  mixed = [t for t in trees if 0 < sum(x.is_correct for x in t) < len(t)]
  assert 2 <= len(mixed) < len(trees)  # dynamic sampling leaves the others out
  learner = make_learner(
    make_optimizer(config), tools()[0].mesh, micro_rows=8, loss_fn=policy_loss_fn(config)
  )
  params = tools()[1]
  groups = [(t, group_advantages(t, config, LIMIT)) for t in trees]
  batch = PACKINGS[packing](trained_branches(groups, 'token_mean'), 48)
  total = learner.start(params)
  for rows in micro_batches(batch, 8):
    total = learner.accumulate(params, total, rows)
  loss, gradient = dapo_of(mixed, params)
  np.testing.assert_allclose(total[1].loss, loss, atol=tolerance('float32', NUM_TERMS))
  assert_close(total[0], gradient, num_terms=NUM_TERMS)
  assert total[1].num_clipped > 0 and abs(loss) > 1e-3


@pytest.mark.parametrize('packing', PACKINGS)
def test_gradients_do_not_depend_on_the_split(packing):
  groups = minibatch(11, TRAIN, num_groups=9)
  batch = PACKINGS[packing](trained_branches(groups, 'sequence_mean'), 48)
  learner, params, _ = tools()
  gradients = []
  for micro_rows in (1, 3, len(batch.tokens) + 2):
    total = learner.start(params)
    for rows in micro_batches(batch, micro_rows):
      total = learner.accumulate(params, total, rows)
    gradients.append(jax.device_get(total))
  assert len(batch.tokens) > 3
  for other in gradients[1:]:
    for ours, theirs in zip(other, gradients[0], strict=True):
      assert_close(ours, theirs, num_terms=NUM_TERMS)


def test_advantages_of_any_sign_collapse_exactly():
  """Copies of a token may weigh and count differently in every trajectory."""
  rng = np.random.default_rng(0)
  for seed in range(4):
    groups = []
    for i in range(4):
      tree = random_tree(np.random.default_rng([seed, i]), group=i)
      values = [np.round(rng.normal(size=len(t.tokens)), 1).astype(np.float32) for t in tree]
      groups.append((tree, GroupAdvantages(tuple(values), rng.random(len(tree)) < 0.8)))
    assert_same_update(groups, dataclasses.replace(TRAIN, loss_aggregation='sequence_mean'))


def test_trees_too_large_for_a_row_are_split():
  trees = [random_tree(np.random.default_rng([3, i]), width=4, group=i) for i in range(4)]
  groups = [(tree, group_advantages(tree, TRAIN, LIMIT)) for tree in trees]
  batches = [
    pack_tree_rows(trained_branches(groups, 'token_mean'), length) for length in (20, 48, 400)
  ]
  distinct = [int(b.token_mask.sum()) for b in batches]
  assert distinct[0] > distinct[1] > distinct[2]
  assert len({float(np.sum(b.num_copies)) for b in batches}) == 1
  assert_same_update(groups, TRAIN, tree_rows=20)


def seen_by(batch, row, i):
  """Positions that position i of a row sees."""
  return [j for j in range(i + 1) if i < batch.key_end[row, j]]


def test_every_token_sees_its_own_path_and_nothing_else():
  groups = minibatch(7, TRAIN)
  batch = pack_tree_rows(trained_branches(groups, 'token_mean'), 48)
  paths = [(t.prompt_tokens, t.tokens, t.behavior_logprobs) for group, _ in groups for t in group]
  wanted = {tuple(np.append(p, r[:n])) for p, r, _ in paths for n in range(len(r) + 1)}
  found = set()
  for row in range(len(batch.tokens)):
    for i in range(batch.tokens.shape[1]):
      seen = seen_by(batch, row, i)
      if not seen:
        assert not batch.token_mask[row, i]
        continue
      assert seen[-1] == i
      np.testing.assert_array_equal(batch.positions[row, seen], np.arange(len(seen)))
      text = tuple(batch.tokens[row, seen])
      if batch.token_mask[row, i]:
        found.add(text)
        assert seen_by(batch, row, batch.predecessor[row, i]) == seen[:-1]
      assert text in wanted or any(text == w[: len(text)] for w in wanted)
  assert found >= {tuple(np.append(p, r)) for p, r, _ in paths}
  copies = {}
  for p, r, _ in paths:
    for n in range(1, len(r) + 1):
      copies[tuple(np.append(p, r[:n]))] = copies.get(tuple(np.append(p, r[:n])), 0) + 1
  assert batch.num_copies.sum() == sum(copies.values())


def test_distinct_tokens_are_forwarded_once():
  tree = random_tree(np.random.default_rng(1))
  group = GroupAdvantages(
    tuple(np.ones(len(t.tokens), np.float32) for t in tree), np.ones(len(tree), bool)
  )
  batch = pack_tree_rows(trained_branches([(tree, group)], 'token_mean'), 400)
  nodes = {i: n for t in tree for i, n in zip(t.node_ids.tolist(), t.node_lengths, strict=True)}
  assert len(batch.tokens) == 1 and batch.token_mask.sum() == sum(nodes.values())
  used = (batch.key_end[0] > np.arange(400)).sum()
  assert used == len(tree[0].prompt_tokens) + sum(nodes.values())


def test_rows_are_full_where_pieces_can_be_cut():
  groups = [
    (
      tree,
      GroupAdvantages(
        tuple(np.ones(len(t.tokens), np.float32) for t in tree), np.ones(len(tree), bool)
      ),
    )
    for tree in (random_tree(np.random.default_rng(s), group=s) for s in range(60))
  ]
  batch = pack_tree_rows(trained_branches(groups, 'token_mean'), 64)
  used = batch.key_end > np.arange(64)
  assert used.mean() > 0.85


def test_minibatch_without_trained_trajectory_has_no_rows():
  tree = random_tree(np.random.default_rng(1))
  none = GroupAdvantages(tuple(np.zeros(len(t.tokens)) for t in tree), np.zeros(len(tree), bool))
  for form in PACKINGS.values():
    assert form(trained_branches([(tree, none)], 'token_mean'), 48).tokens.shape == (0, 48)
    assert form(trained_branches([], 'token_mean'), 48).tokens.shape == (0, 48)


def test_nodes_shared_in_name_only_are_refused():
  a, b = (trajectory([0.0, 1.0], seed=seed) for seed in (0, 1))
  with pytest.raises(ValueError, match='number nodes uniquely'):
    lay_out([Branch(t, 1.0, np.ones(2)) for t in (a, b)], 5)


def test_shared_log_probs_that_are_no_numbers_are_the_same():
  """They are found where they are sampled; here they leave a gradient that is not applied."""
  t = trajectory([0.0, 1.0])
  t = dataclasses.replace(t, behavior_logprobs=np.full_like(t.behavior_logprobs, np.nan))
  piece = lay_out([Branch(t, 1.0, np.ones(2)), Branch(t, 1.0, np.ones(2))], 5)
  assert np.isnan(piece.behavior_logprobs[3:]).all()


def test_too_long_a_trajectory_is_named():
  groups = minibatch(0, TRAIN)
  with pytest.raises(InputError, match='raise train.row_length'):
    pack_tree_rows(trained_branches(groups, 'token_mean'), 8)


def test_importance_weights_are_truncated_and_ratios_start_at_one():
  batch = pack_tree_rows(trained_branches(minibatch(0, TRAIN), 'token_mean'), 48)
  learner, params, _ = tools()
  logprobs, _ = learner.score(params, batch)
  config = dataclasses.replace(TRAIN, importance_cap=1.1)
  after = weigh_importance(batch, logprobs, config)
  mask = batch.token_mask & (batch.positive > 0)
  weight = (after.positive / np.where(mask, batch.positive, 1))[mask]
  expected = np.exp(logprobs - batch.behavior_logprobs)[mask]
  np.testing.assert_allclose(weight, np.minimum(expected, 1.1), rtol=tolerance('float32', 16))
  assert (expected > 1.1).any() and (expected < 1.1).any()
  mask, copies = batch.token_mask, batch.num_copies[batch.token_mask]
  ratio = np.exp(logprobs - batch.behavior_logprobs)[mask]
  figures = importance_metrics([batch], [after], config)
  assert figures == pytest.approx(
    {
      'train/importance_mean': np.average(np.minimum(ratio, 1.1), weights=copies),
      'train/importance_capped': np.average(ratio > 1.1, weights=copies),
    },
    rel=tolerance('float32', 16),
  )
  assert not importance_metrics([batch], [batch], TRAIN)
  _, sums = gradient(after, dataclasses.replace(TRAIN, kl_coefficient=0.0))
  assert sums.max_log_ratio < tolerance('float32', NUM_TERMS, 5)  # log-probabilities are about -5


def test_row_shape_keeps_the_tokens_per_pass():
  assert row_shape(TrainConfig(packing='flat', row_length=36, micro_rows=64), 1) == (64, 36)
  rows, length = row_shape(TrainConfig(row_length=36, micro_rows=64), 1)
  assert length >= 36 and 0.9 * 64 * 36 <= rows * length <= 64 * 36
  assert row_shape(TrainConfig(row_length=18_432, micro_rows=8), 8) == (8, 18_432)
  assert row_shape(TrainConfig(row_length=8, micro_rows=4, tree_row_length=64), 4) == (4, 64)


def test_shorter_rows_are_few_and_keep_the_tokens_per_pass():
  config = TrainConfig(row_length=288, micro_rows=16, row_lengths=4)
  assert row_shapes(config, 1) == [(64, 72), (32, 144), (21, 216), (16, 288)]
  assert row_shapes(config, 8) == [(64, 72), (32, 144), (16, 216), (16, 288)]
  assert row_shapes(dataclasses.replace(config, row_lengths=1), 8) == [(16, 288)]
  tiny = TrainConfig(packing='flat', row_length=12, micro_rows=4, row_lengths=8)
  assert row_shapes(tiny, 1) == [(6, 8), (4, 12)]  # lengths are multiples of 8


def line(group, prompt, response):
  """A tree of one trajectory."""
  zeros = np.zeros(response, np.float32)
  return [
    Branch(
      dataclasses.replace(
        trajectory([1], [0]),
        group=group,
        prompt_tokens=np.ones(prompt, np.int32),
        tokens=np.ones(response, np.int32),
        behavior_logprobs=zeros,
        node_ids=np.array([0, 1], np.int32),
        node_lengths=np.array([0, response], np.int32),
      ),
      1.0,
      zeros,
    )
  ]


@pytest.mark.parametrize('packing', PACKINGS)
@pytest.mark.parametrize(
  'lengths, expected',
  [
    ([150] * 128, 216),  # two of them never fit a row
    ([100] * 128, 216),  # two fit
    ([130] * 64, 288),  # two fit the longest alone
    ([150] * 127 + [288], 288),  # one is too long for the others
    ([70] * 64, 288),  # in three lengths one full pass: of equals the longest
    ([], 288),
  ],
)
def test_an_update_takes_the_rows_that_it_fills(packing, lengths, expected):
  shapes = row_shapes(TrainConfig(row_length=288, micro_rows=16, row_lengths=4), 1)
  trees = [line(i, 10, length - 10) for i, length in enumerate(lengths)]
  shape = choose_shape(trees, shapes, packing)
  assert shape in shapes and shape.row_length == expected
  assert choose_shape(trees, shapes[-1:], packing) == shapes[-1]


def test_an_update_in_shorter_rows_is_the_same_but_for_the_order_of_sums():
  config = dataclasses.replace(TRAIN, row_lengths=4)
  shapes = [shape for shape in row_shapes(config, 1) if shape.row_length > 16]  # 24, 40 and 48
  groups = minibatch(0, config)
  trees = trained_branches(groups, config.loss_aggregation)
  mesh = tools()[0].mesh
  learner = make_learner(
    make_optimizer(config),
    mesh,
    micro_rows=shapes[-1].micro_rows,
    loss_fn=policy_loss_fn(dataclasses.replace(config, kl_coefficient=0.0)),
    short_rows=shapes[:-1],
  )
  found = []
  for shape in shapes:
    batch = pack_tree_rows(trees, shape.row_length)
    total = learner.start(tools()[1])
    for rows in learner.passes(batch):
      assert rows.tokens.shape == shape
      total = learner.accumulate(tools()[1], total, rows)
    found.append(jax.device_get(total[0]))
  for gradients in found[:-1]:
    assert_close(gradients, found[-1], num_terms=NUM_TERMS)


def test_types_are_those_of_the_flattened_form():
  trees = trained_branches(minibatch(0, TRAIN), 'token_mean')
  tree, flat = (form(trees, 48) for form in PACKINGS.values())
  assert arrays_of(tree).keys() == arrays_of(flat).keys()
  for name, a in arrays_of(tree).items():
    b = getattr(flat, name)
    assert a.dtype == b.dtype and a.dtype == (
      np.int32 if name in ('tokens', 'positions', 'key_end', 'predecessor') else np.float32
    )
