"""What an expansion does to its caches: nothing is copied, and only who needs a path reads it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.decode.expand import (
  ExpandShape,
  ReplayPass,
  compile_expand,
  compile_slots,
  replay,
)
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.decoder import MAX_UNROLLED, init_decoder
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny as fakes

SHAPE = ExpandShape(
  num_slots=4,
  width=2,
  segment_length=4,
  context_length=4096,
  replay_chunk=8,
  replay_lanes=4,
  path_block=64,
  num_kv_heads=fakes.DECODER.num_kv_heads,
  head_width=fakes.DECODER.head_width,
)
SLOTS = np.arange(SHAPE.num_slots)


def make_plan(keep_length, num_children, replay_length=0, copy_from=-1):
  of = lambda values: np.broadcast_to(np.asarray(values, np.int32), SLOTS.shape)
  return SlotPlan(
    append_child=of(-1),
    keep_length=of(keep_length),
    replay_length=of(replay_length),
    copy_from=of(copy_from),
    replay_tokens=np.full((len(SLOTS), SHAPE.replay_chunk), 7, np.int32),
    pending_token=of(5),
    num_children=of(num_children),
    first_child=of(0),
    key=np.zeros((len(SLOTS), 2), np.uint32),
  )


def make_program(num_layers, shape=SHAPE):
  """The compiled expansion, a decoder and empty slots."""
  config = dataclasses.replace(fakes.DECODER, num_layers=num_layers)
  mesh = make_mesh(devices=jax.devices()[:1])
  return (
    compile_expand(mesh, shape),
    init_decoder(config, jax.random.key(0)),
    compile_slots(config, mesh, shape)(),
  )


@pytest.mark.parametrize('num_layers', [2, MAX_UNROLLED + 1])
def test_caches_are_written_where_they_lie(num_layers):
  program, decoder, slots = make_program(num_layers)
  compiled = program.lower(
    decoder, slots, make_plan(0, 2), sampling_options(), np.array([0], np.int32)
  ).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < slots.path_keys.nbytes / 4


def test_a_path_is_read_only_for_children_that_are_running():
  """Paths of NaN tell: what reads them cannot have a finite state.

  Slot 0 runs to the end. Slot 1 has such a path: its first logits are NaN, whose largest is the
  stop token 0. Slots 2 and 3 have such paths too, but replay or rest.
  """
  program, decoder, slots = make_program(2)
  poison = lambda cache: cache.at[:, 1:, :, :100].set(jnp.nan)
  slots = slots._replace(path_keys=poison(slots.path_keys), path_values=poison(slots.path_values))
  plan = make_plan([0, 100, 100, 100], [2, 2, 0, 0], [0, 0, 8, 0])
  slots, segments = program(
    decoder, slots, plan, sampling_options(temperature=0.0), np.array([0], np.int32)
  )
  assert segments.length.tolist() == [[SHAPE.segment_length] * 2, [1] * 2, [0] * 2, [0] * 2]
  assert np.isnan(slots.path_keys[1, 1, :, 100]).all()  # the pending token did read
  assert np.isnan(slots.path_keys[1, 2, :, 100:108]).all()  # so did the replay
  assert np.isfinite(slots.path_keys[1, 2:, :, 108]).all()  # nothing pending
  assert np.isfinite(slots.path_keys[1, 3, :, 100:109]).all()  # nothing to replay
  assert np.isfinite(slots.segment_keys).all()  # no step read the paths of slots that had ended


@pytest.mark.parametrize(
  'chunk, lanes, expected',
  [
    (8, 4, [(4, 8)]),  # short: all lanes at once
    (32, 256, [(128, 32)]),
    (256, 8, [(4, 64), (1, 256)]),
    (2048, 4, [(2, 128), (1, 512), (1, 2048)]),
    (100, 4, [(3, 100)]),
  ],
)
def test_the_shapes_of_a_replay_are_few(chunk, lanes, expected):
  shape = dataclasses.replace(SHAPE, num_slots=512, replay_chunk=chunk, replay_lanes=lanes)
  assert shape.replay_passes() == [ReplayPass(*numbers) for numbers in expected]


WIDE = dataclasses.replace(
  SHAPE, num_slots=6, replay_chunk=256, replay_lanes=6, context_length=600, path_block=128
)
PROMPTS = np.random.default_rng(0).integers(4, 22, (6, WIDE.replay_chunk)).astype(np.int32)


def replay_plan(lengths, keep_length=0, copy_from=-1, num_children=0):
  of = lambda values: np.broadcast_to(np.asarray(values, np.int32), (6,))
  return SlotPlan(
    append_child=of(-1),
    keep_length=of(keep_length),
    replay_tokens=PROMPTS,
    replay_length=of(lengths),
    copy_from=of(copy_from),
    pending_token=of(5),
    num_children=of(num_children),
    first_child=of(0),
    key=np.arange(12, dtype=np.uint32).reshape(6, 2),
  )


def test_a_replay_does_not_depend_on_who_else_replays():
  """Passes of 4 and of 1 lanes; some hold one lane, some none, some are not full."""
  program, decoder, _ = make_program(2, WIDE)
  make_slots = compile_slots(decoder.config, make_mesh(devices=jax.devices()[:1]), WIDE)
  options, stop = sampling_options(temperature=0.0), np.array([30], np.int32)
  lengths = np.array([30, 256, 64, 65, 3, 50])
  together, _ = program(decoder, make_slots(), replay_plan(lengths), options, stop)
  for b in range(6):
    alone = np.where(np.arange(6) == b, lengths, 0)
    slots, _ = program(decoder, make_slots(), replay_plan(alone), options, stop)
    assert slots.path_length.tolist() == alone.tolist()
    for name in ('path_keys', 'path_values'):
      mine = np.asarray(getattr(slots, name))[:, b, :, : lengths[b]]
      assert mine.any(axis=(0, 1, 3)).all()
      np.testing.assert_array_equal(
        mine, np.asarray(getattr(together, name))[:, b, :, : lengths[b]]
      )
  # A second chunk leaves the first one as it was, lanes left over included.
  before = np.asarray(together.path_keys)
  more = replay_plan([0, 0, 10, 0, 100, 0], keep_length=lengths)
  after, _ = program(decoder, together, more, options, stop)
  for b in range(6):
    np.testing.assert_array_equal(
      before[:, b, :, : lengths[b]], np.asarray(after.path_keys)[:, b, :, : lengths[b]]
    )


def test_lanes_left_over_in_a_pass_write_into_no_path():
  """The second pass has room for two slots more than are left, and these were encoded before."""
  config, mesh = fakes.DECODER, make_mesh(devices=jax.devices()[:1])
  decoder, slots = init_decoder(config, jax.random.key(0)), compile_slots(config, mesh, WIDE)()
  lengths = np.array([30, 256, 64, 65, 3, 50])

  @jax.jit
  def encode(plan):
    passes = [ReplayPass(4, 64), ReplayPass(4, 256)]
    return replay(decoder, slots, plan, passes=passes, reader=WIDE.reader(mesh))

  start = 10  # of what is encoded, so that a lane that is none would be at the wrong place
  slots = slots._replace(path_length=jnp.full(6, start))
  together = encode(replay_plan(lengths, keep_length=start))
  for b in range(6):
    alone = np.where(np.arange(6) == b, lengths, 0)
    end = start + lengths[b]
    np.testing.assert_array_equal(
      np.asarray(together.path_keys)[:, b, :, start:end],
      np.asarray(encode(replay_plan(alone, keep_length=start)).path_keys)[:, b, :, start:end],
    )


def test_a_path_that_is_taken_over_is_as_good_as_ones_own():
  """Slots 2 and 5 get the prompt of slot 1 as it is encoded, and expand in the same round."""
  program, decoder, _ = make_program(2, WIDE)
  make_slots = compile_slots(decoder.config, make_mesh(devices=jax.devices()[:1]), WIDE)
  options, stop = sampling_options(), np.array([30], np.int32)
  takers, length = [2, 5], 200
  is_taker = np.isin(np.arange(6), takers)
  shared = replay_plan(
    np.where(np.arange(6) == 1, length, 0),
    keep_length=np.where(is_taker, length, 0),
    copy_from=np.where(is_taker, 1, -1),
    num_children=2,
  )
  slots, segments = program(decoder, make_slots(), shared, options, stop)
  each = shared._replace(
    keep_length=np.zeros(6, np.int32),
    replay_length=np.where(is_taker | (np.arange(6) == 1), length, 0).astype(np.int32),
    replay_tokens=np.broadcast_to(PROMPTS[1], PROMPTS.shape),
    copy_from=np.full(6, -1, np.int32),
  )
  own_slots, own_segments = program(decoder, make_slots(), each, options, stop)
  assert slots.path_length.tolist() == own_slots.path_length.tolist()
  for a, b in zip(segments, own_segments, strict=True):
    np.testing.assert_array_equal(np.asarray(a)[[1, *takers]], np.asarray(b)[[1, *takers]])
  for name in ('path_keys', 'path_values'):
    mine, own = np.asarray(getattr(slots, name)), np.asarray(getattr(own_slots, name))
    np.testing.assert_array_equal(
      mine[:, [1, *takers], :, : length + 1], own[:, [1, *takers], :, : length + 1]
    )
    assert not mine[:, [0, 3, 4], :, 1:length].any()  # nobody else's path was touched
