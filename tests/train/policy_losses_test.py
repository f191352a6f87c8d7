"""GSPO, CISPO, masked importance weights and MaxRL: numbers written out, and plain references."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import CONFIG, random_tree, small_decoder, trajectory

from ds_jax.checks import InputError
from ds_jax.config import Config, TrainConfig
from ds_jax.config.rules import check_contradictions
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.sharding import make_mesh
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance
from ds_jax.train.advantages import flat_group, group_advantages
from ds_jax.train.batch import Example, RowShape, empty_batch, pack, trained_branches
from ds_jax.train.losses import path_sums
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.rescore import importance_metrics, weigh_importance
from ds_jax.train.step import make_learner, policy_loss_fn, policy_metrics_fn
from ds_jax.train.trees import PACKINGS, pack_minibatches, pack_trees

# Ratios, their clips and sums of a few of them in float32.
FEW = tolerance('float32', 16)
NUM_TERMS = decoder_terms(CONFIG, 24, 3) + 8 * 48
LIMIT = 12  # response tokens
ROWS = RowShape(8, 48)
TRAIN = TrainConfig(
  learning_rate=1e-2,
  advantage='q_mean',
  granularity='outcome',
  baseline_ends='all',
  ends='all',
  uniform_trees='drop',
  row_length=24,
  tree_row_length=48,
  # Wide, since the behaviour of the cases is far from the decoder's.
  gspo_clip_low=0.1,
  gspo_clip_high=0.15,
  dual_clip=1.3,
  cispo_cap=1.2,
)
GSPO = dataclasses.replace(TRAIN, policy_loss='gspo')
CISPO = dataclasses.replace(TRAIN, policy_loss='cispo')
LOSSES = {'gspo': GSPO, 'cispo': CISPO}


def rows_of(log_ratios, advantages, weight, *, has_ends):
  """Sequences of these log ratios in one row; returns the batch, log-probs and their places."""
  examples = []
  for values, advantage in zip(log_ratios, advantages, strict=True):
    size = len(values)
    example = Example(
      np.ones(2, np.int32),
      np.ones(size, np.int32),
      weight,
      advantage=np.full(size, advantage, np.float32),
      behavior_logprobs=np.full(size, -1.0, np.float32),
    )
    examples.append(example)
  batch, origin = pack(examples, 16, has_ends=has_ends)
  logprobs = np.zeros(batch.tokens.shape, np.float32)
  places = []
  for values, row, start in zip(log_ratios, *origin, strict=True):
    place = row, slice(start, start + len(values))
    logprobs[place] = np.array(values) - 1.0
    places.append(place)
  return batch, logprobs, places


def evaluate(config, batch, logprobs):
  """Loss, gradient by the log-probs, and figures."""
  loss_fn = policy_loss_fn(config)
  loss_of = lambda x: loss_fn(x, jnp.zeros_like(x), batch)
  (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(logprobs)
  return float(loss), gradient, policy_metrics_fn(config)(statistics)


def test_gspo_in_numbers():
  """Three sequences of weight 1/8 a token, whose ratios s are exp(.02), exp(.3) and exp(.4)."""
  log_ratios = [(0.1, -0.06), (0.2, 0.3, 0.4), (0.4,)]
  config = dataclasses.replace(GSPO, gspo_clip_low=3e-4, gspo_clip_high=0.05)
  batch, logprobs, places = rows_of(log_ratios, (2.0, 1.0, -1.5), 1 / 8, has_ends=True)
  loss, gradient, figures = evaluate(config, batch, logprobs)
  # The first is within the clip, the second above it; the third's bad ratio is at the dual clip.
  terms = [-2 * 2.0 * math.exp(0.02), -3 * 1.05, 1 * 1.5 * 1.3]
  np.testing.assert_allclose(loss, sum(terms) / 8, rtol=FEW)
  # d(|y| s) / d log pi_t = s for each token; what is clipped has none.
  by_token = (-2.0 * math.exp(0.02) / 8, 0.0, 0.0)
  for place, values, expected in zip(places, log_ratios, by_token, strict=True):
    np.testing.assert_allclose(gradient[place], [expected] * len(values), rtol=FEW)
  assert np.count_nonzero(gradient) == 2
  assert figures['train/clip_fraction'] == 3 / 6  # tokens of the second; the third is not clipped
  assert figures['train/clip_fraction_lower'] == 1 / 6


def test_gspo_has_the_clip_range_of_its_paper():
  """Of 2 tokens a ratio of exp(.0003) is within 4e-4, one of exp(.0005) is not."""
  for log_ratio, is_clipped in ((3e-4, False), (5e-4, True), (-2e-4, False), (-5e-4, True)):
    advantage = math.copysign(1.0, log_ratio)
    config = dataclasses.replace(TrainConfig(), policy_loss='gspo')
    batch, logprobs, _ = rows_of([(2 * log_ratio, 0.0)], [advantage], 1.0, has_ends=True)
    _, gradient, figures = evaluate(config, batch, logprobs)
    assert figures['train/clip_fraction'] == is_clipped == (not np.any(gradient))


def test_cispo_in_numbers():
  """Weights of 1/4: ratios exp(.1) and exp(.5), which 1.2 bounds, for either sign."""
  batch, logprobs, places = rows_of([(0.1, 0.5), (0.5, -0.7)], (2.0, -1.0), 1 / 4, has_ends=False)
  loss, gradient, figures = evaluate(CISPO, batch, logprobs)
  weights = [math.exp(0.1), 1.2, 1.2, math.exp(-0.7)]
  logprobs_of = [-0.9, -0.5, -0.5, -1.7]
  advantages = [2.0, 2.0, -1.0, -1.0]
  terms = [-w * a * x / 4 for w, a, x in zip(weights, advantages, logprobs_of, strict=True)]
  np.testing.assert_allclose(loss, sum(terms), rtol=FEW)
  # No gradient goes through the weight, and a token whose weight is cut keeps its own.
  expected = [-w * a / 4 for w, a in zip(weights, advantages, strict=True)]
  found = np.concatenate([gradient[place] for place in places])
  np.testing.assert_allclose(found, expected, rtol=FEW)
  assert figures['train/clip_fraction'] == 2 / 4 and figures['train/clip_fraction_lower'] == 0


def test_sums_over_paths_are_those_of_a_loop():
  rng = np.random.default_rng(0)
  trees = [random_tree(rng, group=i) for i in range(4)]
  groups = [(tree, group_advantages(tree, GSPO, LIMIT)) for tree in trees]
  batch = PACKINGS['tree'](trained_branches(groups, 'token_mean'), 48)
  values = rng.normal(size=batch.tokens.shape).astype(np.float32)
  values *= batch.key_end > np.arange(48)  # not at padding
  expected = np.zeros(values.shape)
  for row in range(len(values)):
    for i in range(48):
      on_path = [j for j in range(i + 1) if i < batch.key_end[row, j]]
      expected[row, i] = values[row, on_path].sum()
  found = jax.jit(path_sums)(values, batch.key_end)
  # A running sum over a row of values of size 1 is rounded once per position.
  np.testing.assert_allclose(found, expected, atol=tolerance('float32', 2 * 48, 8.0))


def minibatch(config, num_groups=8):
  """Trees with right and wrong ends that share tokens; one has an end that counts twice."""
  groups = []
  for seed in range(4 * num_groups):
    tree = random_tree(np.random.default_rng([5, seed]), group=seed)
    if 0 < sum(t.is_correct for t in tree) < len(tree):
      groups.append([_likelier(t) for t in tree])
  groups = groups[:num_groups]
  groups[0] = [*groups[0], *groups[0][:1]]
  groups[1] = flat_group(groups[1], groups[1][0].group)
  return [(group, group_advantages(group, config, LIMIT)) for group in groups]


def _likelier(t):
  """A trajectory whose ratios to the decoder are about 1."""
  return dataclasses.replace(t, behavior_logprobs=t.behavior_logprobs - np.float32(0.45))


@functools.cache
def learner_of(name, micro_rows=8, shape=(1, 1, 1)):
  config = LOSSES[name]
  mesh = make_mesh(*shape, devices=jax.devices()[: math.prod(shape)])
  return make_learner(
    make_optimizer(config), mesh, micro_rows=micro_rows, loss_fn=policy_loss_fn(config)
  )


def gradient_of(learner, params, batch):
  """Gradient and sums of a whole minibatch."""
  total = learner.start(params)
  for rows in learner.passes(batch):
    total = learner.accumulate(params, total, rows)
  return jax.device_get(total)


def literal(config, ratio, logprobs, advantages, mask):
  """The two losses as their papers write them, `[B, S]` per token; one sequence per row."""
  if config.policy_loss == 'cispo':
    weight = jax.lax.stop_gradient(jnp.minimum(ratio, config.cispo_cap))
    return -weight * advantages[:, None] * logprobs
  log_ratio = jnp.sum(jnp.where(mask, jnp.log(ratio), 0.0), 1) / jnp.sum(mask, 1)
  s = jnp.exp(log_ratio)
  clipped = jnp.clip(s, 1 - config.gspo_clip_low, 1 + config.gspo_clip_high)
  loss = -jnp.minimum(s * advantages, clipped * advantages)
  bound = -config.dual_clip * advantages
  loss = jnp.where(advantages < 0, jnp.minimum(loss, bound), loss)
  return jnp.broadcast_to(loss[:, None], mask.shape)


def reference(config, params, groups, aggregation, length=24):
  """Value and gradient with every sequence in a row of its own."""
  sequences, advantages = [], []
  for group, (per_token, is_trained) in groups:
    for t, values, flag in zip(group, per_token, is_trained, strict=True):
      if flag:
        sequences.append(t)
        advantages.append(values[0])
  tokens = np.zeros((len(sequences), length), np.int32)
  behavior, mask = np.zeros(tokens.shape, np.float32), np.zeros(tokens.shape, bool)
  for row, t in enumerate(sequences):
    span = slice(len(t.prompt_tokens), len(t.prompt_tokens) + len(t.tokens))
    tokens[row, : span.stop] = np.append(t.prompt_tokens, t.tokens)
    behavior[row, span], mask[row, span] = t.behavior_logprobs, True
  weights = np.full(len(sequences), 1 / mask.sum())
  if aggregation == 'sequence_mean':
    weights = 1 / (len(sequences) * mask.sum(1))

  @jax.jit
  @jax.value_and_grad
  def loss_of(params):
    rows = lambda x: jnp.broadcast_to(x, tokens.shape)
    scored, _ = sequence_logprobs(
      params, Rows(tokens, rows(jnp.arange(length)), rows(length), jnp.roll(tokens, -1, 1))
    )
    logprobs = jnp.roll(scored, 1, 1)
    ratio = jnp.exp(jnp.where(mask, logprobs - behavior, 0.0))
    loss = literal(config, ratio, logprobs, jnp.array(advantages), mask)
    return jnp.sum(jnp.where(mask, weights[:, None] * loss, 0.0))

  return loss_of(params)


@pytest.mark.parametrize('aggregation', ['sequence_mean', 'token_mean'])
@pytest.mark.parametrize('name', LOSSES)
def test_rows_of_trees_and_of_sequences_are_the_papers_update(name, aggregation):
  """Loss and gradient, where trajectories share tokens and where each stands alone."""
  config, params = LOSSES[name], small_decoder()
  groups = minibatch(config)
  trees = trained_branches(groups, aggregation)
  loss, expected = reference(config, params, groups, aggregation)
  shares, statistics = {}, {}
  for packing in PACKINGS:
    packed = pack_trees(trees, dataclasses.replace(config, packing=packing), [ROWS])
    grads, statistics[packing] = gradient_of(learner_of(name), params, packed)
    shares[packing] = packed.num_copies.sum() / packed.token_mask.sum()
    limit = tolerance('float32', NUM_TERMS, 5.0)
    np.testing.assert_allclose(statistics[packing].loss, loss, rtol=0, atol=limit)
    assert_close(grads, expected, num_terms=NUM_TERMS)
  assert shares['tree'] > shares['flat'] == 1  # tokens were shared
  tree, flat = statistics['tree'], statistics['flat']
  assert tree.num_clipped == flat.num_clipped and 0 < flat.num_clipped < flat.num_tokens
  if name == 'gspo':
    assert tree.num_clipped_lower == flat.num_clipped_lower > 0


@pytest.mark.parametrize(
  'name, micro_rows, shape',
  [
    ('gspo', 32, (1, 1, 1)),
    ('gspo', 8, (2, 4, 1)),
    pytest.param('gspo', 8, (1, 4, 2), marks=pytest.mark.long),
    pytest.param('cispo', 32, (1, 1, 1), marks=pytest.mark.long),
    pytest.param('cispo', 8, (2, 4, 1), marks=pytest.mark.long),
  ],
)
def test_the_split_of_rows_does_not_matter(name, micro_rows, shape):
  """Passes of 8 rows on one device, and all rows at once, or rows over 8 devices."""
  config, params = LOSSES[name], small_decoder()
  packed = pack_trees(trained_branches(minibatch(config, 12), 'token_mean'), config, [ROWS])
  assert len(packed.tokens) > 8
  if len(jax.devices()) < math.prod(shape):
    pytest.skip(f'needs {math.prod(shape)} devices')
  expected = gradient_of(learner_of(name), params, packed)
  found = gradient_of(learner_of(name, micro_rows, shape), params, packed)
  assert_close(found[0], expected[0], num_terms=NUM_TERMS)
  for ours, theirs in zip(found[1], expected[1], strict=True):
    limit = tolerance('float32', NUM_TERMS, max(5.0, float(np.abs(theirs).max())))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


def test_ratios_of_trajectories_are_found_where_their_rows_are():
  """No sum along a row crosses devices."""
  shape = (2, 4, 1)
  if len(jax.devices()) < math.prod(shape):
    pytest.skip('needs 8 devices')
  length = 37  # no parameter has such an axis
  params = small_decoder()

  def moved(name):
    learner = learner_of(name, 8, shape)
    rows = empty_batch(8, length, has_ends=name == 'gspo')
    program = learner.accumulate.lower(params, learner.start(params), rows).compile()
    transfers = re.findall(
      r'= \(?(\w+)\[([\d,]*)\].* (all-gather|all-reduce|reduce-scatter|all-to-all|'
      r'collective-permute)(?:-start)?\(',
      program.as_text(),
    )
    return sorted(x for x in transfers if str(length) in x[1].split(','))

  assert moved('gspo') == moved('cispo')


def test_a_trajectory_stands_whole_in_one_row():
  """Trees are cut between trajectories, so that each has its end, and all its tokens before it."""
  groups = minibatch(GSPO)
  trajectories = [t for group, _ in groups for t in group]
  packed = pack_trees(trained_branches(groups, 'token_mean'), GSPO, [RowShape(8, 20)])
  lengths = packed.ends.num_positive + packed.ends.num_negative
  found = []
  for row, end in zip(*np.nonzero(lengths), strict=True):
    path = [j for j in range(end + 1) if end < packed.key_end[row, j]]
    found.append((tuple(packed.tokens[row, path]), float(lengths[row, end])))
  expected = {}
  for t in trajectories:
    text = tuple(np.append(t.prompt_tokens, t.tokens))
    expected[text] = expected.get(text, 0.0) + len(t.tokens)
  assert dict(found) == expected and len(found) == len(expected)


def test_off_a_batch_has_no_ends():
  packed = pack_trees(trained_branches(minibatch(CISPO), 'token_mean'), CISPO, [ROWS])
  assert packed.ends is None and len(jax.tree.leaves(packed)) == 12


def masked(**options):
  return dataclasses.replace(
    TrainConfig(importance_cap=5.0, importance_outliers='masked', importance_floor=0.5), **options
  )


def test_importance_weights_beyond_the_bounds_are_masked():
  """Weights .4, .6, 1, 4.9 and 5.1 under [.5, 5]; advantages are 2 or -2 with a weight of 1/10."""
  ratios = [0.4, 0.6, 1.0, 4.9, 5.1]
  batch, logprobs, _ = rows_of([np.log(ratios)] * 2, (2.0, -2.0), 1 / 10, has_ends=False)
  for config, kept in ((masked(), [0, 0.6, 1, 4.9, 0]), (masked(importance_floor=0.0), None)):
    kept = kept or [0.4, 0.6, 1, 4.9, 0]
    after = weigh_importance(batch, logprobs, config)
    mask = batch.token_mask
    np.testing.assert_allclose(after.positive[mask][:5], np.array(kept) * 0.2, rtol=FEW)
    np.testing.assert_allclose(after.negative[mask][5:], np.array(kept) * 0.2, rtol=FEW)
    assert not after.positive[mask][5:].any() and not after.negative[mask][:5].any()
    assert after.num_positive[mask].tolist() == [float(w > 0) for w in kept] + [0.0] * 5
    assert after.num_copies.sum() == 10  # the mean is over all tokens still
    np.testing.assert_array_equal(after.behavior_logprobs[mask], logprobs[mask])
    figures = importance_metrics([batch], [after], config)
    assert figures.keys() == {'train/importance_mean', 'train/importance_masked'}
    np.testing.assert_allclose(figures['train/importance_mean'], np.mean(kept), rtol=FEW)
    assert figures['train/importance_masked'] == pytest.approx(kept.count(0) / 5)


def group_of(num_right, num_wrong):
  right = dataclasses.replace(trajectory([0.0, 0.0], None, [0, 3]), is_correct=True, reward=1.0)
  wrong = dataclasses.replace(trajectory([0.0, 0.0], None, [0, 2]), is_correct=False, reward=-1.0)
  return flat_group([right] * num_right + [wrong] * num_wrong, 0)


@pytest.mark.parametrize('advantage', ['q_mean', 'tree_mean', 'td'])
@pytest.mark.parametrize('num_right, num_wrong', [(1, 3), (1, 7), (3, 1), (2, 2)])
def test_division_by_the_success_rate_is_maxrl(advantage, num_right, num_wrong):
  """(r - p) / p with r in {0, 1}: 3 and -1 where 1 of 4 is right."""
  config = dataclasses.replace(TRAIN, advantage=advantage, normalization='success_rate')
  rewards = np.array([1.0] * num_right + [0.0] * num_wrong)
  expected = (rewards - rewards.mean()) / rewards.mean()
  found = group_advantages(group_of(num_right, num_wrong), config, LIMIT).per_token
  np.testing.assert_allclose([values[0] for values in found], expected, rtol=FEW)
  assert all((values == values[0]).all() for values in found)


def test_a_group_without_success_has_no_advantage_by_maxrl():
  for uniform_trees in ('keep', 'centre'):
    config = dataclasses.replace(TRAIN, normalization='success_rate', uniform_trees=uniform_trees)
    for group in (group_of(0, 4), group_of(4, 0), group_of(1, 0)):
      found = group_advantages(group, config, LIMIT)
      assert found.is_trained.all() and not any(values.any() for values in found.per_token)


def test_the_success_rate_is_that_of_the_baseline():
  """Two right ends of four, but one of the three that are collected."""
  ends = [
    trajectory([0.0, 1.0], correct=True),
    trajectory([0.0, 1.0], correct=True, collected=False),
    trajectory([0.0, -1.0]),
    trajectory([0.0, -1.0]),
  ]
  for baseline_ends, mean, rate in (('all', 0.0, 1 / 2), ('collected', -1 / 3, 1 / 3)):
    config = dataclasses.replace(
      TRAIN, normalization='success_rate', baseline_ends=baseline_ends, granularity='node'
    )
    found = group_advantages(ends, config, LIMIT).per_token
    expected = [(r - mean) / (2 * rate) for r in (1, 1, -1, -1)]
    np.testing.assert_allclose([values[0] for values in found], expected, rtol=FEW)


def test_rare_successes_weigh_more_in_trees_too():
  """A node that half of the ends below solve, where 1 of 4 is right: (1/2 - 1/4) / (1/4) = 1."""
  ends = [
    trajectory([-0.5, 0.0, 1.0], correct=True),
    trajectory([-0.5, 0.0, -1.0]),
    trajectory([-0.5, -1.0]),
    trajectory([-0.5, -1.0]),
  ]
  config = dataclasses.replace(
    TRAIN, advantage='tree_mean', granularity='node', normalization='success_rate'
  )
  found = group_advantages(ends, config, LIMIT).per_token
  expected = [[1, 1, 3, 3], [1, 1, -1, -1], [-1, -1], [-1, -1]]
  for values, wanted in zip(found, expected, strict=True):
    np.testing.assert_allclose(values, wanted, rtol=FEW)


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(policy_loss='gspo'), 'granularity = node .* set train.granularity=outcome'),
    (
      dict(policy_loss='gspo', granularity='outcome', importance_cap=2.0),
      'importance_cap = 2.0 weighs each token .* set train.importance_cap=0',
    ),
    (dict(policy_loss='cispo', objective='imitation'), 'policy_loss = cispo .* imitation has none'),
    (dict(importance_outliers='masked'), 'importance_cap = 0 leaves them out'),
    (dict(importance_floor=0.5, importance_cap=5.0), 'truncated masks none'),
    (
      dict(importance_floor=2.0, importance_cap=2.0, importance_outliers='masked'),
      'importance_floor = 2.0 is not below',
    ),
  ],
)
def test_contradictions_are_refused_by_name(fields, words):
  with pytest.raises(InputError, match=words):
    check_contradictions(Config(train=TrainConfig(**fields)))


def test_what_goes_together_is_taken():
  for train in (GSPO, CISPO, masked(policy_loss='cispo'), dataclasses.replace(GSPO, epochs=2)):
    check_contradictions(Config(train=train))


def test_prefixes_and_lessons_have_ends_like_other_trajectories():
  """A lesson of 4 tokens and advantage 3/4 beside a group: its end carries all four."""
  group = group_of(1, 3)
  lesson = dataclasses.replace(
    trajectory([0.0, 0.0], None, [0, 4], problem='other'), is_correct=True, reward=1.0
  )
  advantages = group_advantages(group, GSPO, LIMIT)
  minibatch_of_lessons = [
    ([lesson], advantages._replace(per_token=(np.full(4, 0.75),), is_trained=np.ones(1, bool)))
  ]
  config = dataclasses.replace(GSPO, minibatch_problems=1)
  packed = pack_minibatches([group], config, LIMIT, shapes=[ROWS], lessons=[minibatch_of_lessons])
  (batch,) = packed.batches
  num_tokens = 3 + 3 * 2 + 4
  np.testing.assert_allclose(batch.ends.positive.sum(), (3 * 1.5 + 4 * 0.75) / num_tokens, rtol=FEW)
  np.testing.assert_allclose(batch.ends.negative.sum(), 6 * 0.5 / num_tokens, rtol=FEW)
  assert batch.ends.num_positive.sum() == 3 + 4 and batch.ends.num_negative.sum() == 6
