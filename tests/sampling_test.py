"""Tokens follow the distribution that was asked for; keys belong to nodes, not to slots."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.decode.sampling import child_keys, sample_tokens, sampling_options, token_keys

LOGITS = jnp.log(jnp.asarray([0.4, 0.3, 0.15, 0.1, 0.05]))


def frequencies(options, count=20_000):
  keys = jax.random.split(jax.random.key(0), (count, 1))
  tokens = jax.jit(sample_tokens)(keys, jnp.broadcast_to(LOGITS, (count, 1, 5)), options)
  return np.bincount(np.asarray(tokens).ravel(), minlength=5) / count


@pytest.mark.parametrize('options, expected', [
    (dict(), [0.4, 0.3, 0.15, 0.1, 0.05]),
    (dict(temperature=0.0), [1, 0, 0, 0, 0]),
    (dict(temperature=0.5), np.square([0.4, 0.3, 0.15, 0.1, 0.05]) / 0.285),
    (dict(top_k=2), [4 / 7, 3 / 7, 0, 0, 0]),
    (dict(top_p=0.8), np.array([0.4, 0.3, 0.15, 0, 0]) / 0.85),
    (dict(top_p=1e-6), [1, 0, 0, 0, 0]),
    (dict(top_p=0.8, top_k=1), [1, 0, 0, 0, 0])])
def test_frequencies_follow_the_options(options, expected):
  np.testing.assert_allclose(frequencies(sampling_options(**options)), expected, atol=0.015)


def test_other_options_compile_nothing():
  sample = jax.jit(lambda *args: sample_tokens(*args))  # a cache of its own
  keys, logits = jax.random.split(jax.random.key(0), (3, 1)), jnp.zeros((3, 1, 5))
  for options in (dict(), dict(temperature=0.3, top_p=0.5), dict(top_k=3)):
    sample(keys, logits, sampling_options(**options))
  assert sample._cache_size() == 1


def test_children_count_on_and_never_share_a_stream_with_tokens():
  key = jax.random.key_data(jax.random.key(7))[None]
  data = lambda keys: np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist()
  four = data(child_keys(key, jnp.array([0]), 4))
  assert data(child_keys(key, jnp.array([2]), 2)) == four[2:]
  node = jax.random.wrap_key_data(key)[:, None]
  tokens = [data(token_keys(node, jnp.int32(t)))[0] for t in range(50)]
  assert len({tuple(k) for k in [*tokens, *four]}) == 54
