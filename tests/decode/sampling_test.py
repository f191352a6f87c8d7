"""Tokens follow the distribution asked for, and are scored under it and under the policy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.decode.sampling import (
  child_keys,
  draw_tokens,
  invert,
  keep_top_k,
  keep_top_p,
  sampling_options,
  token_keys,
)
from ds_jax.model.attention.partial import MASKED
from ds_jax.testing.tolerance import tolerance

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
LOGITS = jnp.log(jnp.asarray(PROBABILITIES))
CASES = [
  (dict(), PROBABILITIES),
  (dict(temperature=0.0), [1, 0, 0, 0, 0]),
  (dict(temperature=0.5), np.square(PROBABILITIES) / 0.285),
  (dict(top_k=2), [4 / 7, 3 / 7, 0, 0, 0]),
  (dict(top_p=0.8), np.array([0.4, 0.3, 0.15, 0, 0]) / 0.85),
  (dict(top_p=1e-6), [1, 0, 0, 0, 0]),
  (dict(top_p=0.8, top_k=1), [1, 0, 0, 0, 0]),
  (dict(temperature=0.5, top_k=3, top_p=0.8), np.array([0.16, 0.09, 0, 0, 0]) / 0.25),
]


def draw(options, count=20_000):
  keys = jax.random.split(jax.random.key(0), (count, 1))
  logits = jnp.broadcast_to(LOGITS, (count, 1, 5))
  return jax.device_get(jax.jit(draw_tokens)(keys, logits, options))


@pytest.mark.parametrize('options, expected', CASES)
def test_frequencies_and_scores_follow_the_options(options, expected):
  drawn = draw(sampling_options(**options))
  tokens = drawn.token.ravel()
  np.testing.assert_allclose(np.bincount(tokens, minlength=5) / len(tokens), expected, atol=0.015)
  # Logits, at most 3 and divided by the temperature, and sums over five tokens.
  limit = tolerance('float32', 4 * 5, 3 / (options.get('temperature') or 1.0))
  np.testing.assert_allclose(
    drawn.sampled_logprob.ravel(), np.log(np.array(expected)[tokens]), atol=limit
  )
  policy = PROBABILITIES ** (1 / (options.get('temperature') or 1.0))
  policy /= policy.sum()  # what truncation leaves out does not enter
  np.testing.assert_allclose(drawn.logprob.ravel(), np.log(policy)[tokens], atol=limit)
  np.testing.assert_allclose(drawn.entropy, -(policy * np.log(policy)).sum(), atol=limit)


def test_greedy_is_the_first_of_the_largest():
  """Neighbouring floats are told apart, equal ones are not drawn from."""
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 1e-3, (64, 1, 300)).astype(np.float32)
  logits[:, :, 150] = logits.max(-1)  # twice the largest, or alone
  logits[::2, :, 200] = np.nextafter(logits[::2, :, 150], np.float32(9))
  logits[:, :, 290:] = MASKED
  keys = jax.random.split(jax.random.key(0), (64, 1))
  drawn = jax.jit(draw_tokens)(keys, jnp.asarray(logits), sampling_options(temperature=0.0))
  np.testing.assert_array_equal(drawn.token, logits.argmax(-1))
  assert not np.asarray(drawn.sampled_logprob).any()


@pytest.mark.parametrize('size', [7, 128, 1000])
def test_kept_sets_are_those_of_a_sort(size):
  rng = np.random.default_rng(size)
  weights = np.exp(-np.abs(rng.normal(0, 3, (4, size)))).astype(np.float32)
  weights[1] = np.round(weights[1], 1)  # many that are equal: they stay together
  weights[2, 3:] = 0
  for top_k in (1, 3, size):
    kept = np.asarray(keep_top_k(weights, jnp.int32(top_k)))
    border = np.sort(weights, -1)[:, ::-1][:, top_k - 1 : top_k]
    np.testing.assert_array_equal(kept, np.where(weights >= border, weights, 0))
  for top_p in (1e-3, 0.3, 0.9, 0.999):
    kept = np.asarray(keep_top_p(weights, jnp.float32(top_p)))
    for row, kept_row in zip(weights.astype(np.float64), kept, strict=True):
      descending = np.sort(row)[::-1]
      first = np.argmax(np.cumsum(descending) >= top_p * row.sum() * (1 - 1e-6))
      np.testing.assert_array_equal(kept_row, np.where(row >= descending[first], row, 0))


def test_inverse_of_the_running_sum_is_exact_and_never_leaves_the_support():
  rng = np.random.default_rng(0)
  weights = rng.exponential(size=(1, 1000)) * (rng.random((1, 1000)) < 0.1)
  weights[:, :50] = weights[:, -50:] = 0
  uniform = np.append(np.linspace(0, 1, 4001)[:-1], np.float32(1 - 2**-24))
  index = np.asarray(
    invert(
      jnp.asarray(np.repeat(weights, len(uniform), 0), jnp.float32),
      jnp.asarray(uniform, jnp.float32),
    )
  )
  assert np.all(weights[0, index] > 0) and np.all(np.diff(index) >= 0)
  exact = np.searchsorted(np.cumsum(weights[0]), uniform * weights.sum(), side='right')
  assert np.mean(index == exact) > 0.999


def test_other_options_compile_nothing():
  sample = jax.jit(lambda *args: draw_tokens(*args))  # a cache of its own
  keys, logits = jax.random.split(jax.random.key(0), (3, 1)), jnp.zeros((3, 1, 5))
  for options in (dict(), dict(temperature=0.3, top_p=0.5), dict(top_k=3)):
    sample(keys, logits, sampling_options(**options))
  assert sample._cache_size() == 1


def test_a_large_vocabulary_is_neither_sorted_nor_hashed():
  """Sorting V and noise for every id are what a sampler must not do at 151,936 ids."""
  rows, size = 16, 151_936
  arguments = (
    jax.random.split(jax.random.key(0), (rows, 1)),
    jax.ShapeDtypeStruct((rows, 1, size), jnp.float32),
    sampling_options(),
  )
  compiled = jax.jit(draw_tokens).lower(*arguments).compile()
  assert ' sort(' not in compiled.as_text()
  # Copies of the logits: with jax 0.10.1 four, and five with noise; with 0.10.2 three, and seven.
  assert compiled.memory_analysis().temp_size_in_bytes < 4.5 * (4 * rows * size)


def test_children_count_on_and_never_share_a_stream_with_tokens():
  key = jax.random.key_data(jax.random.key(7))[None]
  data = lambda keys: np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist()
  four = data(child_keys(key, jnp.array([0]), 4))
  assert data(child_keys(key, jnp.array([2]), 2)) == four[2:]
  node = jax.random.wrap_key_data(key)[:, None]
  tokens = [data(token_keys(node, jnp.int32(t)))[0] for t in range(50)]
  assert len({tuple(k) for k in [*tokens, *four]}) == 54


def test_slots_have_temperatures_of_their_own():
  """Each row is drawn and scored as a batch of its temperature would be; one of them is greedy."""
  temperatures = np.array([0.5, 0.0, 1.0, 2.0], np.float32)
  rng = np.random.default_rng(0)
  logits = jnp.asarray(3 * rng.normal(size=(4, 3, 40)).astype(np.float32))
  keys = jax.random.split(jax.random.key(0), (4, 3))
  options = sampling_options(top_p=0.9)
  drawn = jax.jit(draw_tokens)(keys, logits, options._replace(temperature=temperatures))
  for row, temperature in enumerate(temperatures):
    alone = options._replace(temperature=temperature)
    expected = jax.jit(draw_tokens)(keys[row : row + 1], logits[row : row + 1], alone)
    for ours, theirs in zip(drawn, expected, strict=True):
      np.testing.assert_allclose(ours[row], theirs[0], atol=tolerance('float32', 4 * 40, 12))
