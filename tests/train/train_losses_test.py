"""The clipped loss: value and gradient against the released numbers, and its properties."""

from __future__ import annotations

import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig
from ds_jax.testing.tolerance import tolerance
from ds_jax.train.batch import add_copy, empty_batch
from ds_jax.train.losses import Clip, clipped_loss, padded_sum_weights, token_weights
from ds_jax.train.step import policy_loss_fn

MODES = {
  'token-mean': 'token_mean',
  'seq-mean-token-mean': 'sequence_mean',
  'seq-mean-token-sum': 'sequence_sum',
  'seq-mean-token-sum-norm': None,
}
CLIP = Clip(low=0.2, high=0.28, dual=10.0)
# A ratio, its clips and their gradient in float32; sums over a recorded case in float64.
FEW = tolerance('float32', 8)
RECORDED = tolerance('float64', 8 * 16)


def check_cases(data):
  """All cases, padded to one shape so that one program serves them."""
  settings = data['settings']
  clip = Clip(settings['clip_low'], settings['clip_high'], settings['dual_clip_c'])

  @jax.jit
  def evaluate(new, old, advantage, weights):
    loss_of = lambda x: jnp.sum(weights * clipped_loss(x, old, advantage, clip=clip).loss)
    return jax.value_and_grad(loss_of)(new), clipped_loss(new, old, advantage, clip=clip)

  def padded(values):
    values = np.asarray(values, float)
    return np.pad(values, [(0, 8 - values.shape[0]), (0, 16 - values.shape[1])])

  with jax.enable_x64(True):
    for case in data['cases']:
      old, new, advantage, mask = (
        padded(case[name]) for name in ('old_log_prob', 'log_prob', 'advantages', 'mask')
      )
      num_rows, width = np.shape(case['mask'])
      lengths = np.sum(case['mask'], axis=1)
      for mode, aggregation in MODES.items():
        weights = (
          token_weights(lengths, aggregation) if aggregation else padded_sum_weights(lengths, width)
        )
        weights = np.pad(weights, (0, 8 - num_rows))[:, None] * mask
        (loss, grad), got = evaluate(new, old, advantage, weights)
        results = case['results'][mode]
        np.testing.assert_allclose(loss, results['loss'], rtol=RECORDED, atol=RECORDED)
        np.testing.assert_allclose(grad, padded(results['grad']), rtol=RECORDED, atol=RECORDED)
      for name, values in (
        ('clipfrac', got.is_clipped),
        ('clipfrac_lower', got.is_clipped_lower),
        ('approx_kl', -got.log_ratio),
      ):
        np.testing.assert_allclose(np.asarray(values)[mask > 0].mean(), case[name], atol=RECORDED)


def test_released_losses(root):
  data = json.loads((root / 'tests/golden/policy_loss.json').read_text())
  assert len(data['cases']) == 4
  check_cases(data)


def test_every_released_loss(shared):
  check_cases(json.loads((shared / 'oracle/policy_loss.json').read_text()))


def test_loss_is_positively_homogeneous_in_the_advantage():
  rng = np.random.default_rng(0)
  old, new, advantage = rng.normal(size=(3, 1000))
  loss = lambda scale: np.asarray(clipped_loss(new, old, scale * advantage, clip=CLIP).loss)
  np.testing.assert_allclose(loss(2.5), 2.5 * loss(1.0), rtol=FEW)


def test_on_policy_gradient_is_the_policy_gradient():
  logprobs, advantages = jnp.array([-1.0, -2.0, -0.1]), jnp.array([0.5, -0.5, 2.0])
  grad = jax.grad(lambda x: clipped_loss(x, logprobs, advantages, clip=CLIP).loss.sum())(logprobs)
  np.testing.assert_allclose(grad, -advantages, rtol=FEW)


def test_kl_and_entropy_terms_are_their_definitions():
  rng = np.random.default_rng(1)
  batch = empty_batch(2, 6)
  for row, start in enumerate((2, 3)):
    add_copy(
      jax.tree.map(operator.itemgetter(row), batch),
      slice(start, None),
      weight=0.1 + row,
      advantage=0.0,
    )
  new, reference, entropies = rng.normal(-1, 0.5, (3, 2, 6)).astype(np.float32)
  batch = batch._replace(reference_logprobs=reference)
  config = TrainConfig(kl_coefficient=0.3, entropy_coefficient=0.2)
  loss_of = lambda x, h: policy_loss_fn(config)(x, h, batch)[0]
  loss, (by_logprob, by_entropy) = jax.value_and_grad(loss_of, (0, 1))(new, entropies)
  ratio = np.exp(reference - new)  # KL(policy || reference): r - log r - 1
  kl = ratio - np.log(ratio) - 1
  expected = np.sum(batch.weight * (0.3 * kl - 0.2 * entropies))
  size = np.sum(batch.weight * (0.3 * ratio + 0.2 * np.abs(entropies)))  # the terms cancel
  np.testing.assert_allclose(loss, expected, atol=tolerance('float32', 4 * 12, size))
  size = 0.3 * (batch.weight * ratio).max()
  wanted = batch.weight * 0.3 * (1 - ratio)
  np.testing.assert_allclose(by_logprob, wanted, atol=tolerance('float32', 8, size))
  np.testing.assert_allclose(by_entropy, -0.2 * batch.weight, rtol=FEW)


def test_weights_sum_as_their_names_say():
  lengths = [3, 1, 6]
  for name, total in (('token_mean', 1.0), ('sequence_mean', 1.0), ('sequence_sum', 10 / 3)):
    np.testing.assert_allclose(np.dot(token_weights(lengths, name), lengths), total)
  assert token_weights([2, 0], 'sequence_mean').tolist() == [0.25, 0.0]
  assert token_weights([], 'token_mean').shape == (0,)


def test_unknown_aggregation_is_named():
  with pytest.raises(InputError, match="Did you mean 'token_mean'"):
    token_weights([1], 'token_men')
