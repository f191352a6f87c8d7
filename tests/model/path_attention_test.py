"""Attention over paths of different lengths: what it equals, and how little it reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.model.attention import partial as attention
from ds_jax.model.attention.path import attend_path, group_size, positions_read
from ds_jax.model.attention.reader import PlainReader
from ds_jax.model.caches import decode_step, encode_chunk, init_slots
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.testing.tolerance import assert_close

BLOCK, CAPACITY = 4, 32


@pytest.fixture(scope='module')
def inputs():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return draw(16, 2, 3, 2, 8), draw(16, 2, CAPACITY, 8), draw(16, 2, CAPACITY, 8)


@pytest.fixture(scope='module')
def attend():
  return jax.jit(
    lambda q, k, v, length: attend_path(q, k[None], v[None], layer=0, length=length, block=BLOCK)
  )


LENGTHS = {
  'spread': np.arange(16) * 2,
  'equal': np.full(16, 13),
  'one': np.eye(16, dtype=int)[3] * 29,
  'none': np.zeros(16, int),
  'two': np.array([32, 0, 0, 0, 31] + [0] * 11),
  'random': np.random.default_rng(1).integers(0, 33, 16),
}


@pytest.mark.parametrize('name', LENGTHS)
def test_it_equals_one_pass_over_the_whole_cache(inputs, attend, name):
  q, k, v = inputs
  length = jnp.asarray(LENGTHS[name], jnp.int32)
  got = attend(q, k, v, length)
  seen = jnp.arange(CAPACITY)[None, None] < length[:, None, None]
  want = attention.attend_part(q, k, v, seen)
  has_any = np.asarray(length > 0)
  normal = lambda part: np.asarray(part.weighted_values / part.sum_exp[..., None])[has_any]
  assert_close(normal(got), normal(want), num_terms=q.shape[-1] + 2 * CAPACITY)
  assert (np.asarray(got.sum_exp)[~has_any] == 0).all()


def test_neighbours_do_not_change_a_bit(inputs, attend):
  q, k, v = inputs
  rng = np.random.default_rng(2)
  for row in range(0, 16, 5):
    results = []
    for _ in range(4):
      length = rng.integers(0, 33, 16)
      length[row] = 19
      results.append([np.asarray(x)[row] for x in attend(q, k, v, jnp.asarray(length, jnp.int32))])
    for other in results[1:]:
      for a, b in zip(results[0], other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_positions_read_counts_the_blocks():
  rng = np.random.default_rng(3)
  for _ in range(50):
    lengths = rng.integers(0, 33, 16)  # groups of two slots
    want = sum(2 * -(-(lengths > start).sum() // 2) * BLOCK for start in range(0, 32, BLOCK))
    assert positions_read(lengths, BLOCK, CAPACITY) == want
    assert positions_read(lengths, BLOCK, BLOCK - 1) == 16 * (BLOCK - 1)


@pytest.mark.parametrize('num_slots, size', [(1, 1), (7, 1), (16, 2), (48, 6), (52, 4), (64, 8)])
def test_groups_divide_the_slots(num_slots, size):
  assert group_size(num_slots) == size


def test_decoding_and_replay_leave_blocks_beyond_a_path_alone():
  """Those blocks are NaN here: weights of 0 would not hide that they were read."""
  config = DecoderConfig(
    vocab_size=16,
    num_ids=16,
    num_layers=2,
    width=8,
    mlp_width=8,
    num_heads=2,
    num_kv_heads=1,
    head_width=4,
  )
  decoder = init_decoder(config, jax.random.key(0))
  lengths = jnp.array([5, 20, 3, 0])
  slots = init_slots(config, 4, width=2, segment_length=4, capacity=CAPACITY)._replace(
    path_length=lengths
  )
  is_beyond = jnp.arange(CAPACITY) >= -(-lengths // BLOCK)[:, None] * BLOCK
  poison = lambda cache: jnp.where(is_beyond[None, :, None, :, None], jnp.nan, cache)
  slots = slots._replace(path_keys=poison(slots.path_keys), path_values=poison(slots.path_values))
  tokens = jnp.ones((4, 2), jnp.int32)
  reader = PlainReader(BLOCK)
  for found in (
    decode_step(decoder, slots, tokens, step=jnp.int32(0), reader=reader),
    encode_chunk(decoder, slots, tokens, slot_index=jnp.arange(4), reader=reader),
  ):
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found))
