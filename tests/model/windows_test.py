"""Local layers: what they see by the definition, and that no block outside of it is read."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.model import caches
from ds_jax.model.attention import partial as attention
from ds_jax.model.attention import training
from ds_jax.model.attention.kernels import gpu_cache, gpu_training, tpu_cache
from ds_jax.model.attention.path import attend_path
from ds_jax.model.attention.reader import GpuReader, PlainReader, TpuReader
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Rows, forward, init_decoder, layer_kind
from ds_jax.testing.tolerance import assert_close, decoder_terms

CONFIG = DecoderConfig(
  vocab_size=16,
  num_ids=16,
  num_layers=2,
  width=16,
  mlp_width=16,
  num_heads=4,
  num_kv_heads=2,
  head_width=16,
  family='gemma3_text',
  window=11,
  is_local=(True, True),
)


def draw(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def layouts(length):
  """(key_end, positions) of one sequence, of two with padding, and of a tree of two branches."""
  third, rest = length // 3, length - 7
  index = np.arange(length)
  packed = np.r_[[third] * third, [rest] * (rest - third), [0] * 7]
  restarted = np.r_[index[:third], index[: rest - third], [0] * 7]
  tree = np.r_[[length] * third, [2 * third] * third, [length] * (length - 2 * third)]
  of_branches = np.r_[index[: 2 * third], third + index[: length - 2 * third]]
  return {
    'causal': (np.full(length, length), index),
    'packed': (packed, restarted),
    'tree': (tree, of_branches),
  }


def seen(key_end, positions, window):
  """The definition, [B, queries, keys]."""
  index = np.arange(key_end.shape[1])
  is_seen = (index <= index[:, None]) & (index[:, None] < key_end[:, None, :])
  return is_seen & (positions[:, :, None] - positions[:, None, :] < window)


def dense(q, k, v, mask):
  """Softmax over the keys that a query sees; 0 where it sees none."""
  groups = q.shape[2] // k.shape[2]
  k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30))
  return jnp.einsum('bhqk,bkhd->bqhd', jnp.where(mask[:, None], weights, 0.0), v)


@pytest.mark.parametrize('block', [8, 64])  # in blocks, and in one piece
@pytest.mark.parametrize('layout', ['causal', 'packed', 'tree'])
def test_training_form_equals_the_definition_forward_and_backward(layout, block, monkeypatch):
  monkeypatch.setattr(training, 'BLOCK', block)
  length, window = 45, 6
  q, k, v, weight = (draw(i, 2, length, heads, 8) for i, heads in enumerate((4, 2, 2, 4)))
  rows = [layouts(length)[layout], layouts(length)['causal']]
  key_end, positions = (np.stack(arrays) for arrays in zip(*rows, strict=True))
  mask = seen(key_end, positions, window)

  def loss(attend, *qkv):
    out = attend(*qkv)
    return jnp.sum(weight * out), out

  ours = functools.partial(
    training.attend, key_end=jnp.asarray(key_end), positions=jnp.asarray(positions), window=window
  )
  theirs = functools.partial(dense, mask=mask)
  found, expected = (
    jax.jit(jax.grad(functools.partial(loss, attend), argnums=(0, 1, 2), has_aux=True))(q, k, v)
    for attend in (ours, theirs)
  )
  assert_close(found, expected, num_terms=3 * (8 + 2 * length))


@pytest.mark.parametrize('layout', ['causal', 'packed', 'tree'])
def test_blocks_outside_of_every_window_are_skipped(layout, monkeypatch):
  monkeypatch.setattr(training, 'BLOCK', 128)
  key_end, positions = layouts(1500)[layout]
  found = training.find_seen_blocks(
    jnp.asarray(key_end)[None], positions=jnp.asarray(positions)[None], window=150
  )
  padded = np.pad(seen(key_end[None], positions[None], 150)[0], ((0, 36), (0, 36)))
  has_pair = padded.reshape(12, 128, 12, 128).any((1, 3))
  assert not (has_pair & ~np.asarray(found)).any()
  assert found.sum() <= has_pair.sum() + 4  # a branch begins within a part of a tile
  assert found.sum() < 0.6 * 12 * 13 / 2


def test_the_training_kernel_and_its_gradients_are_those_of_the_loops():
  lengths = [layouts(1024)[name] for name in ('packed', 'tree')]
  key_end, positions = (jnp.asarray(np.stack(x), jnp.int32) for x in zip(*lengths, strict=True))
  q, k, v = (draw(i, 2, 2, 1024, *shape) for i, shape in enumerate([(3, 16), (16,), (16,)]))
  d_out, window = draw(9, *q.shape), jnp.int32(100)
  blocks = training.find_seen_blocks(key_end, positions=positions, window=window)
  visibility = training.Visibility(key_end, blocks, positions, window)
  want = out, normalizer = jax.jit(training.loop_forward)(q, k, v, visibility)
  residuals = training.Residuals(q, k, v, visibility, out, normalizer)
  want += jax.jit(training.loop_backward)(residuals, d_out)
  run = functools.partial(jax.jit, static_argnames='interpret')
  sight = dict(key_end=key_end, positions=positions, window=window, interpret=True)
  got = run(gpu_training.forward)(q, k, v, **sight)
  got += run(gpu_training.backward)(q, k, v, **sight, out=out, normalizer=normalizer, d_out=d_out)
  for a, b in zip(got, want, strict=True):
    assert_close(a, b, num_terms=3 * (16 + 2 * 1024), scale=1.0)
  _, count = gpu_training.list_first(
    gpu_training.seen_tiles(key_end, 64, positions=positions, window=window)
  )
  assert count.sum() < 2 * 16 * 4  # windows of 100 reach into three tiles, seldom four


ROWS, CAPACITY, BLOCK = 6, 64, 16
LENGTHS = np.array([0, 1, 17, 40, 64, 33])


@pytest.fixture(scope='module')
def cached():
  return draw(0, ROWS, 2, 3, 2, 16), draw(1, 2, ROWS, 2, CAPACITY, 16), draw(2, 2, ROWS, 2, 64, 16)


def expected_of(cached, length, start):
  """One pass over the whole caches of layer 1."""
  q, k, v = cached
  position = np.arange(CAPACITY)
  mask = (position < length[:, None])[:, None] & (position >= start[:, :, None])
  return attention.attend_part(q, k[1], v[1], jnp.asarray(mask))


@pytest.mark.parametrize('kind', ['loops', 'tpu', 'gpu'])
def test_paths_and_kernels_equal_one_pass_over_the_whole_cache(cached, kind):
  length = jnp.asarray(LENGTHS, jnp.int32)
  # Of a chunk each query's window begins one position later; the TPU's kernel reads no chunks.
  place = jnp.zeros(3, jnp.int32) if kind == 'tpu' else jnp.arange(3)
  start = length[:, None] + place - 20
  common = dict(layer=1, length=length)
  if kind == 'loops':
    got = attend_path(*cached, **common, block=BLOCK, start=start)
  elif kind == 'tpu':
    got = tpu_cache.attend_caches(
      *cached, **common, block=BLOCK, rows=2, start=start[:, 0], name='test', interpret=True
    )
  else:
    got = gpu_cache.attend_caches(*cached, **common, start=start, name='test', interpret=True)
  want = expected_of(cached, LENGTHS, np.asarray(start))
  has_any = LENGTHS > 0
  normal = lambda part: np.asarray(part.weighted_values / part.sum_exp[..., None])[has_any]
  assert_close(normal(got), normal(want), num_terms=16 + 2 * CAPACITY)
  assert (np.asarray(got.sum_exp)[~has_any] == 0).all()


def test_neighbours_do_not_change_a_bit(cached):
  results = []
  for others in (0, 7, 60):
    length = jnp.full(ROWS, others).at[2].set(39)
    start = jnp.broadcast_to(length[:, None] - 20, (ROWS, 3))
    part = attend_path(*cached, layer=1, length=length, block=BLOCK, start=start)
    results.append([np.asarray(x[2]) for x in part])
  for other in results[1:]:
    for a, b in zip(results[0], other, strict=True):
      np.testing.assert_array_equal(a, b)


def test_an_idle_slot_makes_its_group_read_no_more():
  """Two slots are read together; of the other's path all is NaN that its window leaves out."""
  length = jnp.zeros(16, jnp.int32).at[3].set(60)
  start = jnp.broadcast_to(length[:, None] - 20, (16, 3))
  is_left_out = jnp.arange(CAPACITY) < 32  # whole blocks before position 40
  keys, values = (
    jnp.where(is_left_out[:, None], jnp.nan, draw(i, 1, 16, 2, CAPACITY, 16)) for i in (1, 2)
  )
  part = attend_path(
    draw(0, 16, 2, 3, 2, 16), keys, values, layer=0, length=length, block=BLOCK, start=start
  )
  assert all(jnp.isfinite(x[3]).all() for x in part)


READERS = {
  'loops': PlainReader(8),
  'tpu': TpuReader(8, interpret=True),
  'gpu': GpuReader(interpret=True),
}


@pytest.mark.parametrize('kind', READERS)
def test_a_decode_step_reads_no_block_before_the_windows(kind, monkeypatch):
  """Those blocks are NaN, of paths and of segments."""
  tile = 16 if kind == 'gpu' else 8
  monkeypatch.setattr(tpu_cache, '_SEGMENT_BLOCK', 8)
  monkeypatch.setattr(gpu_cache.triton, 'tile_sizes', lambda width, itemsize: [16])
  decoder = init_decoder(CONFIG, jax.random.key(0))
  capacity, segment = 64, 32
  slots = caches.init_slots(CONFIG, 4, width=2, segment_length=segment, capacity=capacity)
  lengths = jnp.array([5, 60, 31, 0])
  keys = iter(jax.random.split(jax.random.key(1), 5))
  clean = caches.Slots(*(jax.random.normal(next(keys), x.shape) for x in slots))._replace(
    path_length=lengths
  )
  tokens, reader = jnp.arange(8, dtype=jnp.int32).reshape(4, 2), READERS[kind]
  run = jax.jit(functools.partial(caches.decode_step, reader=reader))
  plain = jax.jit(functools.partial(caches.decode_step, reader=PlainReader(capacity)))
  for step in (0, 3, 29):
    first_of_path = jnp.maximum(lengths + step - CONFIG.window + 1, 0)[:, None] // tile * tile
    first_of_segment = max(step - CONFIG.window + 1, 0) // tile * tile
    before = (jnp.arange(capacity) < first_of_path)[None, :, None, :, None]
    # XLA's loops read paths in groups (of one slot here), but segments whole.
    is_cut = kind != 'loops'
    early = (jnp.arange(segment) < first_of_segment * is_cut)[None, None, None, None, :, None]
    hide = lambda cache, hidden: jnp.where(hidden, jnp.nan, cache)
    poisoned = clean._replace(
      path_keys=hide(clean.path_keys, before),
      path_values=hide(clean.path_values, before),
      segment_keys=hide(clean.segment_keys, early),
      segment_values=hide(clean.segment_values, early),
    )
    found, expected = (
      run(decoder, poisoned, tokens, step=step),
      plain(decoder, clean, tokens, step=step),
    )
    num_terms = decoder_terms(CONFIG, capacity + segment)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
      assert_close(a, b, num_terms=num_terms)


@pytest.mark.parametrize('kind', ['loops', 'gpu'])
def test_a_chunk_after_a_path_is_a_sequence(kind):
  """Both longer than two windows; also in chunks that the windows of layers do not fill."""
  config = dataclasses.replace(CONFIG, window=7, is_local=(True, False), query_scalar=24)
  decoder = init_decoder(config, jax.random.key(0))
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 48)), jnp.int32)
  positions = jnp.broadcast_to(jnp.arange(48), tokens.shape)
  whole = jax.jit(forward)(decoder, Rows(tokens, positions, jnp.full(tokens.shape, 48)))
  slots = caches.init_slots(config, 2, width=1, segment_length=16, capacity=64)
  encode = jax.jit(functools.partial(caches.encode_chunk, reader=READERS[kind]))
  for start, end in ((0, 20), (20, 40), (40, 43), (43, 48)):
    new, hidden = encode(decoder, slots, tokens[:, start:end])
    assert_close(hidden, whole[:, start:end], num_terms=decoder_terms(config, 48))
    slots = caches.write_path(slots, new, jnp.arange(2))
    slots = slots._replace(path_length=slots.path_length + end - start)


def test_branches_of_a_tree_in_one_row_are_sequences_of_their_own():
  """Windows count positions along a path: a branch's prefix is near, whatever lies between."""
  config = dataclasses.replace(CONFIG, is_local=(True, False))
  decoder = init_decoder(config, jax.random.key(0))
  rng = np.random.default_rng(0)
  prefix, first, second = (rng.integers(0, 16, n).astype(np.int32) for n in (9, 30, 8))
  row = np.r_[prefix, first, second]
  positions = np.r_[np.arange(39), 9 + np.arange(8)]
  key_end = np.r_[[47] * 9, [39] * 30, [47] * 8]
  run = jax.jit(lambda *rows: forward(decoder, Rows(*(jnp.asarray(x)[None] for x in rows)))[0])
  tree = run(row, positions, key_end)
  sequence = np.r_[prefix, second]
  alone = run(sequence, np.arange(17), np.full(17, 17))
  num_terms = decoder_terms(config, 47)
  assert_close(tree[-8:], alone[-8:], num_terms=num_terms)


def test_layers_have_their_own_windows_and_wavelengths():
  config = dataclasses.replace(CONFIG, is_local=(True, False), rope_theta=1e6)
  local, whole = (layer_kind(config, i) for i in range(2))
  assert local.window == 11 and whole.window > 2**30
  np.testing.assert_allclose(local.rotation.frequency[1] ** 8, 1 / 1e4, rtol=1e-5)
  np.testing.assert_allclose(whole.rotation.frequency[1] ** 8, 1 / 1e6, rtol=1e-5)
  assert layer_kind(dataclasses.replace(config, is_local=())).window is None
