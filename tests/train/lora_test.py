"""Adapters of frozen kernels: what is merged, the gradients, and updates on every mesh."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import CONFIG, assert_same_state, random_examples, small_decoder

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.model.lora import (
  Adapted,
  Adapters,
  Lora,
  adapted_kernels,
  each_adapter,
  init_adapters,
  measure_change,
  merge,
  num_trained,
)
from ds_jax.sharding import make_mesh, parameter_shardings
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance
from ds_jax.train.batch import micro_batches, pack
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import init_state, search_form, search_params
from ds_jax.train.step import Learner, make_learner, policy_loss_fn

ONE = (1, 1, 1)
LORA = Lora(rank=8, alpha=12.0, targets='layers/.*_kernel')
TRAIN = TrainConfig(
  learning_rate=1e-2, warmup_steps=1, weight_decay=0.1, beta2=0.95, lora_rank=8, lora_alpha=12.0
)
NUM_TERMS = decoder_terms(CONFIG, 16, 3) + 8 * 16
NOISE = tolerance('float32', NUM_TERMS)


def mesh_of(*shape):
  return make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])


def random_adapters(decoder, lora=LORA, scale=0.1) -> Adapters:
  """Adapters that change something."""
  adapters = init_adapters(decoder, lora, jax.random.key(7))
  keys = iter(jax.random.split(jax.random.key(8), 64))
  return jax.tree.map(lambda x: x + scale * jax.random.normal(next(keys), x.shape), adapters)


@pytest.fixture(scope='module')
def decoder():
  return small_decoder()


@pytest.fixture(scope='module')
def adapters(decoder):
  return random_adapters(decoder)


@pytest.fixture(scope='module')
def batch():
  return pack(random_examples(40), 16)[0]


@functools.cache
def learner_on(shape) -> Learner:
  """Compiled once for all tests that use it."""
  return make_learner(
    make_optimizer(TRAIN), mesh_of(*shape), micro_rows=8, loss_fn=policy_loss_fn(TRAIN)
  )


def start_on(shape, decoder, adapters):
  """A learner whose frozen weights lie on the mesh, and its first state."""
  learner = learner_on(shape)
  base = jax.device_put(decoder, parameter_shardings(decoder, learner.mesh))
  learner = dataclasses.replace(learner, base=base)
  return learner, init_state(adapters, make_optimizer(TRAIN), learner.mesh)


def rows_of(batch) -> Rows:
  return Rows(batch.tokens, batch.positions, batch.key_end, batch.tokens, batch.predecessor)


def in_compute_dtype(decoder, dtype):
  cast = jax.tree.map(lambda x: x.astype(dtype), decoder)
  cast.config = dataclasses.replace(decoder.config, compute_dtype=dtype)
  return cast


def test_new_adapters_change_nothing_and_follow_from_the_key(decoder):
  adapters = init_adapters(decoder, LORA, jax.random.key(1))
  jax.tree.map(np.testing.assert_array_equal, merge(Adapted(decoder, adapters), 'float32'), decoder)
  assert num_trained(adapters) == sum(x.size for x in jax.tree.leaves(adapters)) > 0
  fewer = dataclasses.replace(LORA, targets='(key|up)_kernel')
  found = dict(each_adapter(init_adapters(decoder, fewer, jax.random.key(1))))
  assert list(found) == ['layers/key_kernel', 'layers/up_kernel']
  for path, adapter in each_adapter(adapters):
    bound = np.prod(adapter.lora_a.shape[1:-1]) ** -0.5
    assert 0.9 * bound < np.abs(adapter.lora_a).max() <= bound and not adapter.lora_b.any()
    if path in found:
      np.testing.assert_array_equal(adapter.lora_a, found[path].lora_a)
  other = init_adapters(decoder, LORA, jax.random.key(2)).layers.key_kernel.lora_a
  assert not np.any(other == adapters.layers.key_kernel.lora_a)


def test_the_merged_kernel_is_written_out(decoder, adapters):
  merged = merge(Adapted(decoder, adapters), 'float32')
  for name, axes in (('query_kernel', 1), ('output_kernel', 2), ('down_kernel', 1)):
    adapter = getattr(adapters.layers, name)
    kernel = np.asarray(getattr(decoder.layers, name)[...], np.float64)
    for i in range(CONFIG.num_layers):
      a, b = np.asarray(adapter.lora_a[i], np.float64), np.asarray(adapter.lora_b[i], np.float64)
      expected = kernel[i] + 12 / 8 * np.tensordot(a, b, 1)
      np.testing.assert_allclose(
        getattr(merged.layers, name)[i], expected, rtol=0, atol=tolerance('float32', 8 + axes)
      )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_sampler_and_learner_score_with_the_same_numbers(decoder, adapters, batch, dtype):
  policy = Adapted(in_compute_dtype(decoder, dtype), adapters)
  learner = learner_on(ONE)
  form = search_form(policy, mesh=learner.mesh, dtype=dtype)
  assert {x.dtype for x in jax.tree.leaves(form)} == {jnp.dtype(dtype)}
  ours, theirs = learner.score(policy, batch), learner.score(form, batch)
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a, b)
  plain, _ = learner.score(policy.base, batch)
  assert np.abs(plain - ours[0]).max() > 0.05


@pytest.mark.parametrize('remat', ['none', 'full', 'attention', 'dots'])
def test_gradients_are_those_of_the_merged_kernels(decoder, adapters, batch, remat):
  base = in_compute_dtype(decoder, 'float32')
  base.config = dataclasses.replace(base.config, remat=remat)
  loss_fn = policy_loss_fn(TRAIN)

  @jax.jit
  @jax.grad
  def through_the_merge(adapters):
    merged = merge(Adapted(base, adapters), 'float32')
    return loss_fn(*sequence_logprobs(merged, rows_of(batch)), batch)[0]

  @jax.jit
  @jax.grad
  def ours(adapters):
    return loss_fn(*sequence_logprobs(base, rows_of(batch), adapters=adapters), batch)[0]

  assert_close(ours(adapters), through_the_merge(adapters), num_terms=NUM_TERMS)


@pytest.fixture(scope='module')
def reference(decoder, adapters, batch):
  """State and metrics after two updates on one device."""
  learner, state = start_on(ONE, decoder, adapters)
  figures = []
  for _ in range(2):
    state, metrics = learner.update(state, batch)
    figures.append(metrics)
  return jax.device_get(state), figures


@pytest.mark.parametrize('shape', [(2, 2, 2), (1, 8, 1), (1, 1, 2)])
def test_update_is_the_same_on_every_mesh(decoder, adapters, batch, reference, shape):
  learner, state = start_on(shape, decoder, adapters)
  for expected in reference[1]:
    state, metrics = learner.update(state, batch)
    assert metrics == pytest.approx(expected, rel=NOISE, abs=5 * NOISE)
  assert_same_state(jax.device_get(state), reference[0], TRAIN, num_updates=2)
  is_split = [not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params)]
  assert any(is_split) and (shape[1] == 1 or all(is_split))
  form = search_params(state, learner.mesh, 'float32', learner.base)
  wanted = parameter_shardings(form, learner.mesh, search=True)
  jax.tree.map(
    lambda x, at: np.testing.assert_(x.sharding.is_equivalent_to(at, x.ndim)), form, wanted
  )


def test_the_frozen_weights_stay_and_have_no_state(decoder, adapters, batch):
  learner, state = start_on(ONE, decoder, adapters)
  sizes = sum(x.size for x in jax.tree.leaves(state.opt_state))
  assert sizes <= 2 * num_trained(adapters) + 8
  before, _ = learner.score(Adapted(learner.base, state.params), batch)
  for _ in range(3):
    state, metrics = learner.update(state, batch)
  jax.tree.map(np.testing.assert_array_equal, learner.base, decoder)
  after, _ = learner.score(Adapted(learner.base, state.params), batch)
  gain = (after - before)[batch.token_mask]
  advantage = (batch.positive - batch.negative)[batch.token_mask]
  assert np.corrcoef(gain, advantage)[0, 1] > 0.2 and metrics['train/skipped'] == 0


def test_weight_decay_shrinks_adapters(adapters):
  optimizer = make_optimizer(TRAIN)
  zeros = jax.tree.map(np.zeros_like, adapters)
  updates, _ = optimizer.update(zeros, optimizer.init(adapters), adapters)
  rate = TRAIN.learning_rate * TRAIN.weight_decay
  jax.tree.map(
    lambda update, x: np.testing.assert_allclose(update, -rate * x, rtol=1e-5), updates, adapters
  )


def test_gradients_have_no_product_of_the_size_of_a_kernel(decoder, adapters, batch):
  """Gradients of frozen kernels, which would be as dear as the forward pass, are not formed."""
  learner, state = start_on(ONE, decoder, adapters)
  rows = next(micro_batches(batch, 8))
  text = learner.accumulate.lower(state.params, learner.start(state.params), rows, learner.base)
  products = [line for line in text.as_text().splitlines() if 'dot_general' in line]
  num_rows = rows.tokens.size
  of_rows = [x for x in products if f'tensor<{num_rows}x' in x or f'x{num_rows}xf32' in x]
  kernels = {'tensor<32x48xf32>', 'tensor<48x32xf32>'}
  whole = [x for x in of_rows if any(x.rstrip().endswith(f'-> {kernel}') for kernel in kernels)]
  assert of_rows and not whole


def test_the_change_is_measured(decoder, adapters):
  change = measure_change(Adapted(decoder, adapters))
  merged = merge(Adapted(decoder, adapters), 'float32')
  squares = jax.tree.map(lambda a, b: float(((a - b) ** 2).sum()), merged, decoder)
  assert float(change.norm) == pytest.approx(sum(jax.tree.leaves(squares)) ** 0.5, rel=1e-4)
  assert float(change.moved_share) > 0.99
  tiny = jax.tree.map(lambda x: 1e-3 * x, adapters)
  rounded = measure_change(Adapted(in_compute_dtype(decoder, 'bfloat16'), tiny))
  assert 0 < float(rounded.moved_share) < 0.1 < measure_change(Adapted(decoder, tiny)).moved_share


@pytest.mark.parametrize(
  'targets, words',
  [('embedding|key_kernel', 'finds embedding;'), ('nowhere', 'finds no parameter')],
)
def test_targets_that_cannot_be_are_refused(decoder, targets, words):
  with pytest.raises(InputError, match=words):
    adapted_kernels(decoder, targets)
