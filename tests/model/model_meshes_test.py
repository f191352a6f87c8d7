"""Every family decodes from its caches, and on every mesh, what a full forward pass scores."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax import sharding
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Rows, init_decoder, sequence_logprobs
from ds_jax.model.rope import LinearScaling, Llama3Scaling, YarnScaling
from ds_jax.model.sharded import mesh_logprobs
from ds_jax.testing.tolerance import assert_close, decoder_terms

_BASE = DecoderConfig(
  vocab_size=32,
  num_ids=29,
  num_layers=2,
  width=16,
  mlp_width=24,
  num_heads=8,
  num_kv_heads=2,
  head_width=4,
)
FAMILIES = {
  'qwen2': _BASE,
  'qwen3': dataclasses.replace(
    _BASE,
    family='qwen3',
    head_width=6,
    tie_embeddings=False,
    rope_scaling=YarnScaling(4.0, 8, 32.0, 1.0, 1.14, True),
  ),
  'llama': dataclasses.replace(
    _BASE,
    family='llama',
    num_kv_heads=1,
    num_layers=5,
    rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 16),
  ),
  # Paths have up to 20 positions: windows are passed in prompts and by what is sampled.
  'gemma3_text': dataclasses.replace(
    _BASE,
    family='gemma3_text',
    num_kv_heads=1,
    num_layers=5,
    window=5,
    is_local=(True, True, False, True, False),
    query_scalar=7,
    rope_theta=1e5,
    rope_scaling=LinearScaling(3.0),
  ),
}
# K/V heads (2, 2, 1) are fewer than the tensor axis (4 on the third mesh).
MESHES = ((1, 8, 1), (2, 2, 2), (1, 2, 4), (8, 1, 1))
NUM_SLOTS, WIDTH, LENGTH, PROMPT = 8, 3, 6, 9
CASES = [
  pytest.param(family, mesh, marks=() if i % 5 == 0 else pytest.mark.long)
  for i, (family, mesh) in enumerate((f, m) for m in MESHES for f in FAMILIES)
]


@functools.cache
def make_decoder(family):
  """Random, norms and biases too."""
  decoder = init_decoder(FAMILIES[family], jax.random.key(0))
  leaves, structure = jax.tree.flatten(decoder)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(
    structure, [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
  )


def make_prompts():
  rng = np.random.default_rng(0)
  return [rng.integers(0, 29, length) for length in (2, 9, 5, 7, 3, 9, 4, 8)]


@functools.cache
def expand_twice(family, mesh_shape):
  """Tokens, log-probs and entropies `[2, B, W, T]`: W children, and W of the second of them."""
  count = int(np.prod(mesh_shape))
  mesh = sharding.make_mesh(*mesh_shape, devices=jax.devices()[:count])
  decoder = make_decoder(family)
  shape = ExpandShape(
    num_slots=NUM_SLOTS // sharding.num_slot_shards(mesh),
    width=WIDTH,
    segment_length=LENGTH,
    context_length=PROMPT + 2 * LENGTH,
    replay_chunk=PROMPT,
    replay_lanes=NUM_SLOTS,
    path_block=8,
    num_kv_heads=decoder.config.num_kv_heads,
    head_width=decoder.config.head_width,
  )
  params = jax.device_put(decoder, sharding.parameter_shardings(decoder, mesh, search=True))
  expand = bind_sampling(compile_expand(mesh, shape), sampling_options(), [31])  # 31: never
  slots = compile_slots(decoder.config, mesh, shape)()
  prompts = make_prompts()
  chunk = np.stack([np.pad(p[:-1], (0, PROMPT - len(p) + 1)) for p in prompts]).astype(np.int32)
  keys = lambda seed: np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), 8)))
  every = lambda value: np.full(NUM_SLOTS, value, np.int32)
  lengths = np.array([len(p) for p in prompts], np.int32)
  plan = SlotPlan(
    append_child=every(-1),
    keep_length=every(0),
    replay_tokens=chunk,
    replay_length=lengths - 1,
    copy_from=every(-1),
    pending_token=np.array([p[-1] for p in prompts], np.int32),
    num_children=every(WIDTH),
    first_child=every(0),
    key=keys(2),
  )
  slots, first = expand(params, slots, plan)
  plan = plan._replace(
    append_child=every(1),
    keep_length=lengths + LENGTH - 1,
    replay_length=every(0),
    pending_token=np.asarray(first.tokens)[:, 1, -1],
    key=keys(3),
  )
  _, second = expand(params, slots, plan)
  return tuple(
    np.stack([getattr(s, name) for s in (first, second)])
    for name in ('tokens', 'logprobs', 'entropies')
  )


def rows_of(tokens):
  """Every child's whole sequence as a row `[2 * B * W, S]`, and where its own tokens begin."""
  rows, starts = [], []
  for slot, prompt in enumerate(make_prompts()):
    for before, segments in (([], tokens[0, slot]), (tokens[0, slot, 1], tokens[1, slot])):
      for segment in segments:
        row = np.concatenate([prompt, before, segment]).astype(np.int32)
        rows.append(np.pad(row, (0, PROMPT + 2 * LENGTH - len(row))))
        starts.append(len(prompt) + len(before))
  return np.stack(rows), starts


def score(decoder, rows):
  positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
  key_end = jnp.full(rows.shape, rows.shape[1])
  return sequence_logprobs(decoder, Rows(rows, positions, key_end, jnp.roll(rows, -1, 1)))


@pytest.mark.parametrize('family', FAMILIES)
def test_children_from_caches_score_as_sequences_of_their_own(family):
  tokens, logprobs, entropies = expand_twice(family, (1, 1, 1))
  assert tokens.shape == (2, NUM_SLOTS, WIDTH, LENGTH) and (tokens < 29).all()
  rows, starts = rows_of(tokens)
  full = jax.jit(score)(make_decoder(family), rows)
  num_terms = decoder_terms(FAMILIES[family], rows.shape[1])
  for found, expected in zip((logprobs, entropies), full, strict=True):
    of_rows = found.transpose(1, 0, 2, 3).reshape(len(rows), LENGTH)
    for row, start, values in zip(np.asarray(expected), starts, of_rows, strict=True):
      assert_close(values, row[start - 1 : start - 1 + LENGTH], num_terms=num_terms)


@pytest.mark.parametrize('family, mesh_shape', CASES)
def test_a_mesh_grows_the_same_children(family, mesh_shape):
  tokens, logprobs, entropies = expand_twice(family, (1, 1, 1))
  found = expand_twice(family, mesh_shape)
  np.testing.assert_array_equal(found[0], tokens)
  num_terms = decoder_terms(FAMILIES[family], PROMPT + 2 * LENGTH)
  assert_close(found[1:], (logprobs, entropies), num_terms=num_terms)


@functools.partial(jax.jit, static_argnames='mesh')
def loss_and_gradient(decoder, rows, mesh):
  positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
  rows = Rows(
    rows,
    positions,
    jnp.full(rows.shape, rows.shape[1]),
    jnp.roll(rows, -1, 1),
    positions,
  )
  return jax.value_and_grad(lambda d: mesh_logprobs(d, rows, mesh=mesh)[0].mean())(decoder)


@pytest.mark.parametrize('family, mesh_shape', CASES)
def test_a_mesh_learns_the_same(family, mesh_shape):
  decoder = make_decoder(family)
  mesh = sharding.make_mesh(*mesh_shape, devices=jax.devices()[:8])
  rows = np.random.default_rng(0).integers(0, 29, (8, 20)).astype(np.int32)
  one = sharding.make_mesh(devices=jax.devices()[:1])
  expected = loss_and_gradient(decoder, rows, one)
  found = loss_and_gradient(
    jax.device_put(decoder, sharding.parameter_shardings(decoder, mesh)),
    jax.device_put(rows, sharding.batch_sharding(mesh)),
    mesh,
  )
  assert_close(found, expected, num_terms=decoder_terms(FAMILIES[family], rows.shape[1], 3))
