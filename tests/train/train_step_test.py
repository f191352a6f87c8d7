"""The update: the same on every mesh and split, compiled once, and safe against bad gradients."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import CONFIG, assert_same_state, random_examples, small_decoder

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig, WarmstartConfig
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.sharding import make_mesh, parameter_shardings
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance
from ds_jax.train import sft
from ds_jax.train.batch import micro_batches, pack, plain_examples, scatter
from ds_jax.train.optimizer import (
  decay_mask,
  frozen_mask,
  linear_warmup,
  make_optimizer,
  make_schedule,
  make_warmstart_optimizer,
)
from ds_jax.train.state import init_state, search_params
from ds_jax.train.step import make_learner, policy_loss_fn

ONE = (1, 1, 1)
TRAIN = TrainConfig(learning_rate=1e-2, warmup_steps=5, weight_decay=0.1, beta2=0.95)
# Roundings on the way to a gradient or a metric, and what they come to for a value of size 1; a
# log-probability is of size 5.
NUM_TERMS = decoder_terms(CONFIG, 16, 3) + 8 * 16
NOISE = tolerance('float32', NUM_TERMS)


def mesh_of(*shape):
  size = int(np.prod(shape))
  if len(jax.devices()) < size:
    pytest.skip(f'needs {size} devices, there are {len(jax.devices())}')
  return make_mesh(*shape, devices=jax.devices()[:size])


@functools.cache
def learner_on(shape, micro_rows=8):
  """Compiled once for all tests that use it."""
  return make_learner(
    make_optimizer(TRAIN), mesh_of(*shape), micro_rows=micro_rows, loss_fn=policy_loss_fn(TRAIN)
  )


def start_on(shape, decoder):
  return learner_on(shape), init_state(decoder, make_optimizer(TRAIN), mesh_of(*shape))


@contextlib.contextmanager
def counted_compilations():
  names = []

  def listen(name, seconds, **_):
    if name == '/jax/core/compile/backend_compile_duration':
      names.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield names
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope='module')
def decoder():
  return small_decoder()


@pytest.fixture(scope='module')
def batch():
  return pack(random_examples(40), 16)[0]


@pytest.fixture(scope='module')
def reference(decoder, batch):
  """State and metrics after two updates on one device."""
  learner, state = start_on(ONE, decoder)
  figures = []
  for _ in range(2):
    state, metrics = learner.update(state, batch)
    figures.append(metrics)
  return jax.device_get(state), figures


@pytest.mark.parametrize(
  'shape',
  [
    (2, 2, 2),
    (1, 8, 1),
    (1, 1, 2),
    *[pytest.param(shape, marks=pytest.mark.long) for shape in ((2, 1, 2), (1, 2, 2))],
  ],
)
def test_update_is_the_same_on_every_mesh(decoder, batch, reference, shape):
  learner, state = start_on(shape, decoder)
  for expected in reference[1]:
    state, metrics = learner.update(state, batch)
    assert metrics == pytest.approx(expected, rel=NOISE, abs=5 * NOISE)
  assert_same_state(jax.device_get(state), reference[0], TRAIN, num_updates=2)
  wanted = parameter_shardings(state, learner.mesh)

  def check(leaf, sharding):
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), f'{leaf.sharding} != {sharding}'

  jax.tree.map(check, state, wanted)


@pytest.mark.parametrize('shape', [(1, 8, 1), (2, 4, 1)])
def test_parameters_travel_and_rows_stay(shape, decoder):
  """What crosses devices has no axis of the rows' length, but for tokens and their embeddings."""
  length = 37  # no parameter has such an axis
  learner, state = start_on(shape, decoder)
  rows = jax.tree.map(lambda x: np.zeros((8, length), x.dtype), pack(random_examples(1), 16)[0])
  program = learner.accumulate.lower(state.params, learner.start(state.params), rows).compile()
  transfers = re.findall(
    r'= \(?(\w+)\[([\d,]*)\].* (all-gather|all-reduce|reduce-scatter|all-to-all|'
    r'collective-permute)(?:-start)?\(',
    program.as_text(),
  )
  assert {kind for *_, kind in transfers} >= {'all-gather', 'reduce-scatter', 'all-to-all'}
  moved = [(dtype, axes, kind) for dtype, axes, kind in transfers if str(length) in axes.split(',')]
  assert {(dtype, kind) for dtype, _, kind in moved} <= {
    ('s32', 'all-gather'),
    ('f32', 'all-to-all'),
  }, moved


def test_split_into_micro_batches_does_not_matter(decoder, batch, reference):
  _, state = start_on(ONE, decoder)
  assert len(batch.tokens) > 16  # at least three pieces of 8
  _, metrics = learner_on(ONE, micro_rows=64).update(state, batch)
  assert metrics == pytest.approx(reference[1][0], rel=NOISE, abs=5 * NOISE)


def test_gradient_is_that_of_the_loss(decoder, batch):
  learner = learner_on(ONE)
  total = learner.start(decoder)
  for rows in micro_batches(batch, 8):
    total = learner.accumulate(decoder, total, rows)

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    scored = sequence_logprobs(
      params,
      Rows(batch.tokens, batch.positions, batch.key_end, batch.tokens, batch.predecessor),
    )
    return policy_loss_fn(TRAIN)(*scored, batch)[0]

  value, grads = loss(decoder)
  assert float(total[1].loss) == pytest.approx(float(value), rel=NOISE, abs=NOISE)
  assert_close(total[0], grads, num_terms=NUM_TERMS)


def test_second_update_compiles_nothing(decoder, batch):
  learner, state = start_on((2, 2, 2), decoder)
  state, _ = learner.update(state, batch)
  search_params(state, learner.mesh, 'bfloat16')
  learner.score(state.params, batch)
  with counted_compilations() as counted:
    jax.jit(lambda x: x * 3 + len(counted))(1.0)
  assert counted  # the counter counts
  other, _ = pack(random_examples(25, seed=1), 16)
  with counted_compilations() as counted:
    state, _ = learner.update(state, other)
    search_params(state, learner.mesh, 'bfloat16')
    learner.score(state.params, other)
  assert not counted


def test_bad_gradient_is_skipped_and_counted(decoder, batch):
  learner, state = start_on(ONE, decoder)
  state, _ = learner.update(state, batch)
  before = jax.device_get(state)
  broken = batch._replace(positive=np.full_like(batch.positive, np.nan))
  state, metrics = learner.update(state, broken)
  assert metrics['train/skipped'] == 1
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)
  state, metrics = learner.update(state, batch)
  assert metrics['train/skipped'] == 0 and int(state.step) == 2


def test_infinite_gradient_is_skipped(decoder):
  learner, state = start_on(ONE, decoder)
  before = jax.device_get(state)
  grads = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), learner.start(state.params)[0])
  state, _, is_applied = learner.apply(state, grads)
  assert not is_applied
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)


def test_batch_without_rows_changes_nothing(decoder):
  learner, state = start_on(ONE, decoder)
  same, metrics = learner.update(state, pack([], 16)[0])
  assert same is state and metrics['train/num_tokens'] == 0


def test_rows_that_do_not_divide_the_mesh_are_refused():
  with pytest.raises(InputError, match=r'train.micro_rows = 6 .* use 4 or 8'):
    learner_on((2, 2, 1), micro_rows=6)


def test_fresh_samples_have_ratio_one_and_scores_come_back(decoder):
  learner, state = start_on(ONE, decoder)
  examples = random_examples(30)
  scored, origin = pack(examples, 16)
  logprobs, entropies = learner.score(state.params, scored)
  assert logprobs.shape == entropies.shape == scored.tokens.shape and (entropies > 0).all()
  scores = scatter(logprobs, origin, [len(e.response_tokens) for e in examples])
  fresh_examples = []
  for example, score in zip(examples, scores, strict=True):
    fresh_examples.append(example._replace(behavior_logprobs=score))
  fresh, _ = pack(fresh_examples, 16)
  _, metrics = learner.update(state, fresh)
  assert metrics['train/ratio_max_log'] < 5 * NOISE
  assert metrics['train/clip_fraction'] == 0
  assert metrics['train/num_tokens'] == sum(map(len, scores))


def test_improves_the_tokens_with_advantage(decoder):
  learner, state = start_on(ONE, decoder)
  examples = random_examples(16)
  batch, _ = pack(examples, 16)
  before, _ = learner.score(state.params, batch)
  batch = batch._replace(behavior_logprobs=before * batch.token_mask)
  for _ in range(3):
    state, _ = learner.update(state, batch)
  after, _ = learner.score(state.params, batch)
  gain = (after - before)[batch.token_mask]
  advantage = (batch.positive - batch.negative)[batch.token_mask]
  assert np.corrcoef(gain, advantage)[0, 1] > 0.2


def test_decoder_outlives_the_donated_state(decoder, batch):
  learner, state = start_on(ONE, decoder)
  copy = search_params(state, learner.mesh, 'float32')
  learner.update(state, batch)
  for tree in (decoder, copy):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_search_form_is_whole_over_fsdp(decoder):
  mesh = mesh_of(2, 2, 2)
  params = search_params(init_state(decoder, make_optimizer(TRAIN), mesh), mesh, 'bfloat16')
  for leaf in jax.tree.leaves(params):
    assert leaf.dtype == jnp.bfloat16 and 'fsdp' not in jax.tree.leaves(tuple(leaf.sharding.spec))
  assert 'tensor' in tuple(params.layers.query_kernel[...].sharding.spec)


def test_decay_spares_norms_and_biases(decoder):
  mask = decay_mask(decoder)
  assert mask.layers.query_kernel.get_value() and mask.embedding.get_value()
  assert not mask.layers.query_bias.get_value() and not mask.final_scale.get_value()
  optimizer = make_optimizer(dataclasses.replace(TRAIN, warmup_steps=1))
  step = jax.jit(lambda params, zeros: optimizer.update(zeros, optimizer.init(params), params)[0])
  updates = step(decoder, jax.tree.map(np.zeros_like, decoder))
  assert np.abs(updates.layers.query_kernel[...]).max() > 0
  assert not np.any(updates.final_scale[...])


@pytest.mark.parametrize('name', ['adamw', 'adafactor', 'muon'])
def test_every_optimizer_learns_alike_on_every_mesh(decoder, batch, name):
  config = dataclasses.replace(TRAIN, optimizer=name, schedule='cosine', warmup_steps=1)
  optimizer, ends, losses = make_optimizer(config, num_updates=10), [], []
  for shape in (ONE, (1, 4, 2)):
    mesh = mesh_of(*shape)
    learner = make_learner(optimizer, mesh, micro_rows=16, loss_fn=policy_loss_fn(config))
    state = init_state(decoder, optimizer, mesh)
    for _ in range(3):
      state, figures = learner.update(state, batch)
      losses.append(figures['train/loss'])
    ends.append(jax.device_get(state.params))
  assert losses[2] < losses[1] < losses[0]
  # Optimizers divide by norms, which magnifies noise where a gradient is small.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), *ends)
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ends[0], jax.device_get(decoder))
  assert min(jax.tree.leaves(moved)) > 0


def test_frozen_parameters_stay_and_have_no_moments(decoder, batch):
  config = dataclasses.replace(TRAIN, frozen=r'embedding|_bias$')
  optimizer = make_optimizer(config)
  learner = make_learner(
    optimizer, mesh_of(*ONE), micro_rows=64, loss_fn=policy_loss_fn(config), frozen=config.frozen
  )
  state = init_state(decoder, optimizer, learner.mesh)
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  mask = frozen_mask(decoder, config.frozen)
  frozen = sum(itertools.compress(map(np.size, jax.tree.leaves(decoder)), jax.tree.leaves(mask)))
  assert frozen > 0 and count(state.opt_state) < 2 * (count(decoder) - frozen) + 8
  gradients, _ = learner.accumulate(decoder, learner.start(decoder), next(micro_batches(batch, 64)))
  state, _ = learner.update(state, batch)
  for before, after, gradient, is_frozen in zip(
    *map(jax.tree.leaves, (decoder, jax.device_get(state.params), gradients, mask)), strict=True
  ):
    assert (np.array_equal(before, after) and not np.any(gradient)) == is_frozen


@pytest.mark.parametrize('pattern, words', [('nothing_like_it', 'none'), ('', 'all')])
def test_a_pattern_that_freezes_all_or_nothing_is_refused(decoder, pattern, words):
  with pytest.raises(InputError, match=f'finds {words} of the parameters embedding'):
    frozen_mask(decoder, pattern)


@pytest.mark.parametrize('name, middle', [('linear', 0.6), ('cosine', 0.6), ('constant', 1.0)])
def test_schedules_of_the_policy(name, middle):
  config = TrainConfig(learning_rate=1.0, warmup_steps=4, schedule=name, final_rate_share=0.2)
  rate = make_schedule(config, 24)
  assert [float(rate(n)) for n in (0, 3, 4)] == [0.25, 1.0, 1.0]
  assert float(rate(14)) == pytest.approx(middle)
  assert float(rate(24)) == float(rate(99)) == pytest.approx(0.2 if middle < 1 else 1.0)
  if middle < 1:
    with pytest.raises(ValueError, match='num_updates'):
      make_schedule(config, 0)


def test_schedules():
  assert [float(linear_warmup(2.0, 4)(n)) for n in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
  assert float(linear_warmup(2.0, 0)(0)) == 2.0
  config = WarmstartConfig(num_steps=100, learning_rate=1.0, weight_decay=0.0)
  optimizer = make_warmstart_optimizer(config)
  params, sizes, update = {'kernel': jnp.ones(())}, [], jax.jit(optimizer.update)
  state = optimizer.init(params)
  for _ in range(100):
    updates, state = update({'kernel': jnp.ones(())}, state, params)
    sizes.append(-float(updates['kernel']))
  assert sizes[0] == pytest.approx(0.2, rel=1e-3) and max(sizes) == pytest.approx(1.0, rel=1e-3)
  assert sizes[-1] == pytest.approx(0.1, rel=0.02) and np.argmax(sizes) in (4, 5)


def test_imitation_learns_and_its_loss_is_the_cross_entropy(decoder):
  mesh = mesh_of(1, 1, 1)
  optimizer = make_warmstart_optimizer(WarmstartConfig(num_steps=20, learning_rate=1e-2))
  learner = make_learner(optimizer, mesh, micro_rows=8, loss_fn=sft.imitation_loss)
  state = init_state(decoder, optimizer, mesh)
  pairs = [(e.prompt_tokens, e.response_tokens) for e in random_examples(16)]
  batch, _ = pack(plain_examples(pairs), 16)
  logprobs, _ = learner.score(state.params, batch)
  expected = -logprobs[batch.token_mask].mean()
  losses = []
  for _ in range(20):
    state, figures = sft.sft_update(learner, state, pairs, 16)
    losses.append(figures['sft/loss'])
  assert losses[0] == pytest.approx(expected, rel=NOISE)
  assert losses[-1] < 0.7 * losses[0]
  assert set(figures) == {
    f'sft/{n}' for n in ('loss', 'entropy', 'grad_norm', 'num_tokens', 'skipped')
  }
