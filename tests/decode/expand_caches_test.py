"""What an expansion does to its caches: nothing is copied, and only who needs a path reads it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.decode.expand import ExpandShape, compile_expand, compile_slots
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


def make_program(num_layers):
  """The compiled expansion, a decoder and empty slots."""
  config = dataclasses.replace(fakes.DECODER, num_layers=num_layers)
  mesh = make_mesh(devices=jax.devices()[:1])
  return (
    compile_expand(mesh, SHAPE),
    init_decoder(config, jax.random.key(0)),
    compile_slots(config, mesh, SHAPE)(),
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
