"""The decoder's training form: packed rows, trees in one row, masked ids, chunks and blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.model.attention.training import attend
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Rows, compute_logits, forward, init_decoder, sequence_logprobs
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance

CONFIG = DecoderConfig(
  vocab_size=61,
  num_ids=57,
  num_layers=2,
  width=32,
  mlp_width=48,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
  tie_embeddings=False,
)


@pytest.fixture(scope='module')
def decoder():
  return init_decoder(CONFIG, jax.random.key(0))


def one_row(tokens, targets=None):
  length = len(tokens)
  return Rows(
    jnp.asarray(tokens)[None], jnp.arange(length)[None], jnp.full((1, length), length), targets
  )


def test_sequences_packed_in_one_row_score_as_alone(decoder):
  rng = np.random.default_rng(1)
  a, b = rng.integers(0, 57, 9), rng.integers(0, 57, 6)
  target = lambda x: jnp.asarray(np.append(x[1:], 0))
  alone = [sequence_logprobs(decoder, one_row(x, target(x)[None]))[0][0] for x in (a, b)]
  tokens = jnp.asarray(np.concatenate([a, b, [0, 0]]))[None]
  positions = jnp.asarray([*range(9), *range(6), 0, 0])[None]
  key_end = jnp.asarray([9] * 9 + [15] * 6 + [15, 16])[None]
  targets = jnp.concatenate([target(a), target(b), jnp.zeros(2, int)])[None]
  packed, entropies = sequence_logprobs(decoder, Rows(tokens, positions, key_end, targets))
  assert_close(packed[0, :15], np.concatenate(alone), num_terms=decoder_terms(CONFIG, 9))
  assert np.isfinite(packed).all() and np.isfinite(entropies).all()


def test_tree_in_depth_first_order_scores_as_its_paths(decoder):
  rng = np.random.default_rng(2)
  trunk, left, right = rng.integers(0, 57, 4), rng.integers(0, 57, 3), rng.integers(0, 57, 5)
  row = np.concatenate([trunk, left, right])
  positions = np.array([*range(4), *range(4, 7), *range(4, 9)])
  key_end = np.array([12] * 4 + [7] * 3 + [12] * 5)
  rows = Rows(*(jnp.asarray(x)[None] for x in (row, positions, key_end)))
  hidden = forward(decoder, rows)[0]
  paths = (([*trunk, *left], [*range(7)]), ([*trunk, *right], [*range(4), *range(7, 12)]))
  for path, where in paths:
    alone = forward(decoder, one_row(path))[0]
    assert_close(hidden[np.array(where)], alone, num_terms=decoder_terms(CONFIG, 9))


def test_masked_ids_have_no_probability_and_entropy_is_exact(decoder):
  logits = compute_logits(decoder, forward(decoder, one_row([5, 6, 7])))
  probabilities = jax.nn.softmax(logits)
  assert np.all(np.asarray(probabilities)[..., 57:] == 0)
  _, entropies = sequence_logprobs(decoder, one_row([5, 6, 7], jnp.zeros((1, 3), int)))
  p = np.asarray(probabilities, np.float64)[0, :, :57]
  entropy = -(p * np.log(p)).sum(-1)
  np.testing.assert_allclose(entropies[0], entropy, rtol=tolerance('float32', 3 * 57))


def test_chunked_head_equals_whole_head(decoder, monkeypatch):
  tokens = jnp.asarray(np.random.default_rng(3).integers(0, 57, (2, 10)))
  positions = jnp.broadcast_to(jnp.arange(10), (2, 10))
  rows = Rows(tokens, positions, jnp.full((2, 10), 10), jnp.roll(tokens, -1, 1))
  whole = sequence_logprobs(decoder, rows)
  monkeypatch.setattr('ds_jax.model.decoder.MAX_LOGITS', 2 * 61 * 3)
  for a, b in zip(sequence_logprobs(decoder, rows), whole, strict=True):
    assert_close(a, b, num_terms=CONFIG.width + CONFIG.vocab_size)


def test_blockwise_attention_equals_dense(monkeypatch):
  q, k, v = (
    jax.random.normal(jax.random.key(i), (2, 24, heads, 8)) for i, heads in enumerate((4, 2, 2))
  )
  key_end = jnp.asarray(np.r_[[10] * 10, [24] * 14])[None].repeat(2, 0)
  dense = attend(q, k, v, key_end=key_end)
  monkeypatch.setattr('ds_jax.model.attention.training.BLOCK', 8)
  assert_close(attend(q, k, v, key_end=key_end), dense, num_terms=8 + 2 * 24)
