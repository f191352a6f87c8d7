"""The GPU's kernels, run as ordinary operations, and compiled for GPUs that are not here."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import MeshConfig, load_config
from ds_jax.decode.expand import ExpandShape, expand
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model import caches, decoder
from ds_jax.model.attention import training as training_attention
from ds_jax.model.attention.kernels import gpu_cache, gpu_training
from ds_jax.model.attention.path import attend_path
from ds_jax.model.attention.reader import GpuReader, PlainReader, TpuReader, choose_reader
from ds_jax.model.config import DecoderConfig
from ds_jax.plan import command, parts, programs, topology
from ds_jax.plan.hlo import read_traffic
from ds_jax.plan.products import declared_bytes
from ds_jax.testing.tolerance import assert_close, decoder_terms

BLOCK, CAPACITY, ROWS = 128, 512, 6
# Sums are float32: of a score over a head's width, of weights and of values over positions. In
# bfloat16 each weight is rounded once.
NUM_TERMS = {'float32': 16 + 2 * CAPACITY, 'bfloat16': 1}
attend = functools.partial(gpu_cache.attend_caches, name='test', interpret=True)
attend_once = jax.jit(attend)
has_plugin = importlib.util.find_spec('jax_cuda13_plugin') is not None


def draw(seed: int, *shape: int) -> jax.Array:
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope='module')
def inputs():
  return (
    draw(0, ROWS, 2, 3, 2, 16),
    draw(1, 3, ROWS, 2, CAPACITY, 16),
    draw(2, 3, ROWS, 2, CAPACITY, 16),
  )


@pytest.mark.parametrize('lengths', [[0, 1, 127, 128, 300, 512], [130] * ROWS, [0] * ROWS])
@pytest.mark.parametrize('slots', [None, [3, 0, 5, 1, 2, 4]])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_it_equals_attention_over_paths(inputs, lengths, slots, dtype):
  arguments = [x.astype(dtype) for x in inputs]
  length = jnp.asarray(lengths, jnp.int32)
  index = None if slots is None else jnp.asarray(slots)
  got = attend_once(*arguments, layer=1, length=length, slot_index=index)
  want = attend_path(*arguments, layer=1, length=length, block=BLOCK, slot_index=index)
  for a, b in zip(got, want, strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    assert_close(a, b, num_terms=NUM_TERMS[dtype], dtype=dtype)


def test_queries_beyond_a_tile_are_done_in_tiles(inputs):
  query, length = draw(3, ROWS, 2, 50, 2, 16), jnp.arange(ROWS) * 100  # 100 rows: two tiles of 64
  got = attend_once(query, *inputs[1:], layer=0, length=length)
  want = attend_path(query, *inputs[1:], layer=0, length=length, block=BLOCK)
  for a, b in zip(got, want, strict=True):
    assert_close(a, b, num_terms=NUM_TERMS['float32'])


def test_neighbours_do_not_change_a_bit(inputs):
  results = []
  for others in (0, 7, 512):
    part = attend_once(*inputs, layer=1, length=jnp.full(ROWS, others).at[2].set(390))
    results.append([np.asarray(x[2]) for x in part])
  for other in results[1:]:
    for a, b in zip(results[0], other, strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  'positions, width, itemsize, tile',
  [(18432, 128, 2, 64), (18432, 128, 4, 32), (256, 64, 2, 128), (48, 16, 4, 16), (9, 32, 4, 0)],
)
def test_tiles_divide_the_cache_and_fit_shared_memory(positions, width, itemsize, tile):
  assert gpu_cache.tile_positions(positions, width, itemsize) == tile


def test_caches_that_it_cannot_read_are_left_to_xla_or_refused():
  def choose(platform, choice, segment_length, head_width):
    device = types.SimpleNamespace(platform=platform, device_kind='')
    mesh = types.SimpleNamespace(devices=np.array([device]), shape={'tensor': 1})
    return choose_reader(
      choice,
      mesh,
      block=BLOCK,
      capacity=CAPACITY,
      segment_length=segment_length,
      head_width=head_width,
    )

  assert choose('gpu', 'auto', 256, 128) == choose('gpu', 'on', 256, 128) == GpuReader()
  assert choose('gpu', 'auto', 9, 128) == choose('gpu', 'auto', 16, 96) == PlainReader(BLOCK)
  assert choose('tpu', 'on', 9, 96) == TpuReader(BLOCK)
  with pytest.raises(InputError, match='capacities 512, 9 and width 32; change search.segment_'):
    choose('gpu', 'on', 9, 32)


def test_a_plan_counts_the_share_of_the_caches_that_is_read(inputs):
  traced = jax.jit(attend).trace(*inputs, layer=1, length=jnp.full(ROWS, 5))
  declared = declared_bytes(traced.jaxpr)
  assert declared == {'test': 2 * inputs[1].nbytes / 3}
  call = (
    'ENTRY %main (p: f32[4]) -> f32[8] {\n  %p = f32[4]{0} parameter(0)\n'
    '  ROOT %k = f32[8]{0} custom-call(%p), custom_call_target="triton", '
    'metadata={op_name="jit(f)/test/test/pallas_call"}\n}'
  )
  found = read_traffic(call, {'test': 0.25}, 1, declared=declared)
  assert found.bytes == 0.25 * declared['test'] + 8 * 4


CONFIG = DecoderConfig(
  vocab_size=16,
  num_ids=16,
  num_layers=2,
  width=32,
  mlp_width=16,
  num_heads=4,
  num_kv_heads=2,
  head_width=16,
)


READERS = GpuReader(interpret=True), PlainReader(BLOCK)


@pytest.fixture
def slots():
  empty = caches.init_slots(CONFIG, 3, width=2, segment_length=16, capacity=CAPACITY)
  return caches.Slots(
    *(draw(i, *x.shape) if x.ndim > 1 else jnp.array([0, 200, 9]) for i, x in enumerate(empty))
  )


@pytest.mark.parametrize('is_split', [False, True])
@pytest.mark.parametrize('step', [0, 1, 15])
def test_a_decode_step_is_the_same_with_it(slots, is_split, step):
  model = decoder.init_decoder(CONFIG, jax.random.key(0))
  layers = decoder.split_layers(model) if is_split else None
  tokens = jnp.arange(6, dtype=jnp.int32).reshape(3, 2)
  run = jax.jit(caches.decode_step, static_argnames='reader')
  with_it = run(model, slots, tokens, step=step, reader=READERS[0], layers=layers)
  without = run(model, slots, tokens, step=step, reader=READERS[1])
  assert_close(with_it, without, num_terms=decoder_terms(CONFIG, CAPACITY))


@pytest.mark.parametrize('lanes', [None, [2, 0]])
def test_a_chunk_is_the_same_with_it(slots, lanes):
  model = decoder.init_decoder(CONFIG, jax.random.key(0))
  index = None if lanes is None else jnp.asarray(lanes)
  tokens = jnp.arange(4 * len(lanes or range(3)), dtype=jnp.int32).reshape(-1, 4)
  run = jax.jit(caches.encode_chunk, static_argnames='reader')
  with_it, without = (
    run(model, slots, tokens, slot_index=index, reader=reader) for reader in READERS
  )
  assert_close(with_it, without, num_terms=decoder_terms(CONFIG, CAPACITY))


@pytest.mark.parametrize('replay_length', [[0, 3, 4], [0, 0, 0]])
def test_an_expansion_is_the_same_with_it(slots, replay_length):
  """Replay in a loop of one round, layers one by one, kernels: what a GPU does otherwise."""
  model = decoder.init_decoder(CONFIG, jax.random.key(0))
  shape = ExpandShape(
    num_slots=3,
    width=2,
    segment_length=16,
    context_length=400,
    replay_chunk=4,
    replay_lanes=2,
    path_block=BLOCK,
    num_kv_heads=2,
    head_width=16,
  )
  plan = SlotPlan(
    append_child=jnp.array([1, -1, -1]),
    keep_length=jnp.array([15, 200, 9]),
    replay_tokens=jnp.arange(12, dtype=jnp.int32).reshape(3, 4),
    replay_length=jnp.array(replay_length),
    copy_from=jnp.full(3, -1),
    pending_token=jnp.array([1, 2, 3]),
    num_children=jnp.array([2, 1, 0]),
    first_child=jnp.zeros(3, jnp.int32),
    key=jax.random.key_data(jax.random.split(jax.random.key(1), 3)),
  )
  run = jax.jit(
    functools.partial(expand, options=sampling_options(), stop_ids=jnp.array([5]), shape=shape),
    static_argnames='reader',
  )
  with_it, without = (run(model, slots, plan, reader=reader) for reader in READERS)
  np.testing.assert_array_equal(with_it[1].tokens, without[1].tokens)
  for a, b in zip(jax.tree.leaves(with_it), jax.tree.leaves(without), strict=True):
    assert_close(a, b, num_terms=2 * decoder_terms(CONFIG, CAPACITY))  # replay, then decoding


def training_inputs(dtype: str = 'float32') -> tuple[jax.Array, ...]:
  """Two rows of 1,024: sequences and padding; a tree, whose branches are holes to each other."""
  ends = np.zeros((2, 1024), np.int32)
  ends[0, :300], ends[0, 300:700] = 300, 700
  ends[1, :200], ends[1, 200:500], ends[1, 500:800], ends[1, 800:] = 1024, 500, 800, 1024
  ends[1, 500:520] = 640
  q, k, v = (
    draw(i, 2, 2, 1024, *shape).astype(dtype) for i, shape in enumerate([(3, 16), (16,), (16,)])
  )
  return q, k, v, jnp.asarray(ends)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_training_attention_and_its_gradients_are_those_of_the_loops(dtype):
  q, k, v, ends = training_inputs(dtype)
  d_out = draw(9, *q.shape).astype(dtype)
  seen = training_attention.find_seen_blocks(ends)
  run = functools.partial(jax.jit, static_argnames='interpret')
  visibility = training_attention.Visibility(ends, seen)
  want = out, normalizer = jax.jit(training_attention.loop_forward)(q, k, v, visibility)
  got = run(gpu_training.forward)(q, k, v, key_end=ends, interpret=True)
  residuals = training_attention.Residuals(q, k, v, visibility, out, normalizer)
  gradients = jax.jit(training_attention.loop_backward)(residuals, d_out)
  got += run(gpu_training.backward)(
    q, k, v, key_end=ends, out=out, normalizer=normalizer, d_out=d_out, interpret=True
  )
  for a, b in zip(got, (*want, *gradients), strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    # In bfloat16 weights and their gradients are rounded, and so are the results.
    num_terms = {'float32': 3 * (16 + 2 * 1024), 'bfloat16': 3}[dtype]
    assert_close(a, b, num_terms=num_terms, dtype=dtype, scale=1.0)


@pytest.mark.parametrize(
  'width, itemsize, size',
  [(128, 2, 64), (128, 4, 32), (16, 4, 64), (512, 4, 0), (96, 2, 0), (8, 4, 0)],
)
def test_tiles_of_the_training_form_fit_shared_memory(width, itemsize, size):
  assert gpu_training.tile_size(width, itemsize) == size


def test_only_tiles_that_are_seen_are_visited():
  *_, ends = training_inputs()
  order, count = gpu_training.list_first(gpu_training.seen_tiles(ends, 64))
  index = np.arange(1024)
  is_seen = (index <= index[:, None]) & (index[:, None] < np.asarray(ends)[:, None, :])
  tiles = is_seen.reshape(2, 16, 64, 16, 64).any((2, 4))
  for row in range(2):
    for i in range(16):
      listed = set(np.asarray(order[row, i, : count[row, i]]).tolist())
      assert listed >= set(np.flatnonzero(tiles[row, i]).tolist())
  assert count[1].sum() < 16 * 17 / 2 - 20  # the holes of the tree


def test_heads_that_are_split_and_odd_ones_are_left_to_xla():
  q, k, v, ends = training_inputs()
  rows = [x.swapaxes(1, 2).reshape(2, 1024, -1, 16) for x in (q, k, v)]
  text = lambda *arguments, width=16, **options: str(
    jax.make_jaxpr(functools.partial(training_attention.attend, **options))(
      *(x[..., :width] for x in arguments), key_end=ends
    )
  )
  assert 'pallas_call' in text(*rows)
  assert 'pallas_call' not in text(*rows, blocks=training_attention.LOOPS)
  assert 'pallas_call' not in text(*rows, width=12)


def test_updates_can_be_left_to_xla():
  model = decoder.abstract_decoder(CONFIG)
  ends = jnp.full((1, 1024), 1024)
  for choice, is_there in (('auto', True), ('off', False)):
    model.config = dataclasses.replace(CONFIG, attention_kernel=choice)
    text = str(jax.make_jaxpr(decoder.forward)(model, decoder.Rows(ends, ends, ends)))
    assert ('pallas_call' in text) == is_there


@pytest.mark.skipif(not has_plugin, reason="jax's CUDA plugin is not installed")
@pytest.mark.parametrize(
  'name, dtype', [('a100', 'bfloat16'), ('h100', 'float32'), ('h200', 'bfloat16')]
)
def test_programs_compile_for_a_gpu_that_is_not_here(name, dtype, root):
  place = topology.open_place(f'{name}:2', MeshConfig(1, -1, 1))
  small = load_config(str(root / 'configs/countdown.py'))
  config = dataclasses.replace(
    small,
    model=dataclasses.replace(small.model, compute_dtype=dtype),
    search=dataclasses.replace(small.search, segment_length=16, num_slots=4),
    train=dataclasses.replace(small.train, row_length=1024, micro_rows=2),
  )
  found = {
    part.name: parts.measure(part)
    for part in programs.parts_of(config, command.decoder_of(config), place.mesh)
  }
  assert {'expand', 'forward and backward'} <= set(found)
  # By kernels every loop's length is known, and no score goes through memory.
  assert all(one.work.traffic.loops_counted_once == 0 for one in found.values())
