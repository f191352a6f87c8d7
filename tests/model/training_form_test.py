"""The training form: attention in blocks, remat policies, number formats, memory as compiled.

Memory is read off the compiled program (`memory_analysis`), which is what the device would need.
"""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model import decoder as decoder_lib
from ds_jax.model.attention.training import BLOCK, attend, find_seen_blocks
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import (
  REMAT_POLICIES,
  Rows,
  abstract_decoder,
  init_decoder,
  sequence_logprobs,
)
from ds_jax.sharding import make_mesh
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance

CONFIG = DecoderConfig(
  vocab_size=64,
  num_ids=61,
  num_layers=2,
  width=32,
  mlp_width=48,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
)
MB = 2**20


def layouts(length):
  """key_end of one causal sequence, of several packed with padding, and of a tree."""
  third = length // 3
  packed = np.r_[
    [third] * third, [length - 7] * (length - 7 - third), np.arange(length - 7, length)
  ]
  tree = np.r_[[length] * third, [2 * third] * third, [length] * (length - 2 * third)]
  return {'causal': np.full(length, length), 'packed': packed, 'tree': tree}


def dense(q, k, v, key_end):
  """The definition: every pair's score, softmax over the keys that a query sees."""
  groups = q.shape[2] // k.shape[2]
  k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
  index = jnp.arange(q.shape[1])
  mask = (index[None, None] <= index[None, :, None]) & (index[None, :, None] < key_end[:, None])
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, k) * q.shape[-1] ** -0.5
  weights = jnp.where(mask[:, None], jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30)), 0.0)
  return jnp.einsum('bhqk,bkhd->bqhd', weights, v)


@pytest.mark.parametrize('layout', ['causal', 'packed', 'tree'])
def test_blocks_equal_the_definition_forward_and_backward(layout, monkeypatch):
  monkeypatch.setattr('ds_jax.model.attention.training.BLOCK', 8)
  length = 29  # no multiple of the block
  q, k, v, weight = (
    jax.random.normal(jax.random.key(i), (2, length, heads, 8))
    for i, heads in enumerate((4, 2, 2, 4))
  )
  key_end = jnp.asarray(np.stack([layouts(length)[layout], layouts(length)['causal']]))

  def loss(form, *qkv):
    out = form(*qkv, key_end=key_end)
    return jnp.sum(weight * out), out

  gradient = jax.jit(jax.grad(loss, argnums=(1, 2, 3), has_aux=True), static_argnums=0)
  (ours, our_out), (theirs, their_out) = (gradient(form, q, k, v) for form in (attend, dense))
  num_terms = 8 + 2 * length  # a score over a head's width, weights and values over positions
  assert_close(our_out, their_out, num_terms=num_terms)
  assert_close(ours, theirs, num_terms=3 * num_terms)


def test_blocks_that_nobody_sees_are_skipped(monkeypatch):
  monkeypatch.setattr('ds_jax.model.attention.training.BLOCK', 4)
  key_end = np.r_[[4] * 4, [12] * 4, [12] * 4]
  expected = [[True, False, False], [False, True, False], [False, True, True]]
  np.testing.assert_array_equal(find_seen_blocks(jnp.asarray(key_end)[None]), expected)


def loss(decoder, tokens, positions, key_end, targets):
  logprobs, entropies = sequence_logprobs(decoder, Rows(tokens, positions, key_end, targets))
  return logprobs.sum(), entropies


def compiled(function, length, config):
  integers = jax.ShapeDtypeStruct((1, length), jnp.int32)
  lowered = jax.jit(function).lower(abstract_decoder(config), *[integers] * 4)
  # The code is made when the memory has been planned; making it slow saves a minute.
  return lowered.compile(compiler_options={'xla_backend_optimization_level': 0})


def temporaries(length, config):
  """Bytes of forward, and of forward with backward."""
  return [
    compiled(f, length, config).memory_analysis().temp_size_in_bytes
    for f in (loss, jax.grad(loss, has_aux=True))
  ]


def test_memory_grows_linearly_with_length():
  """At 18,432 positions the scores of one head alone would be 1,296 MiB."""
  config = dataclasses.replace(CONFIG, remat='full')
  lengths = (2048, 8192, 18_432)
  for used in zip(*[temporaries(length, config) for length in lengths], strict=True):
    slopes = np.diff(used) / np.diff(lengths)  # bytes per position
    assert slopes.max() < 2 * slopes.min(), (used, slopes)  # [S, S] would be 4.3 times
    assert used[-1] < 200 * MB


def test_log_probs_of_a_large_vocabulary_never_exist_in_full(monkeypatch):
  """Forward and backward: the bound of logits formed at once holds, not [R, S, V]."""
  config = dataclasses.replace(CONFIG, vocab_size=32_768, num_ids=32_768, remat='full')
  monkeypatch.setattr(decoder_lib, 'MAX_LOGITS', 2**21)  # 8 MiB
  whole = 4 * 2048 * config.vocab_size  # [1, 2048, V] float32: 256 MiB
  table = 4 * config.vocab_size * config.width
  forward, backward = temporaries(2048, config)
  assert forward < whole / 4 and backward < whole / 4 + 3 * table, (forward / MB, backward / MB)


@pytest.mark.long
def test_remat_saves_memory_and_changes_no_gradient():
  length, used, gradients = BLOCK + 88, {}, {}
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 61, (1, length)), jnp.int32)
  arguments = (
    tokens,
    jnp.arange(length)[None],
    jnp.full((1, length), length),
    jnp.roll(tokens, -1, 1),
  )
  deep = dataclasses.replace(CONFIG, num_layers=6)
  leaves = jax.tree.leaves(init_decoder(deep, jax.random.key(0)))
  for remat in ('none', *REMAT_POLICIES):
    config = dataclasses.replace(deep, remat=remat)
    gradient = compiled(jax.grad(loss, has_aux=True), length, config)
    used[remat] = gradient.memory_analysis().temp_size_in_bytes
    gradients[remat] = jax.tree.leaves(gradient(of_leaves(config, leaves), *arguments)[0])
  assert used['full'] <= used['attention'] < used['dots'] < used['none'], used
  for remat in REMAT_POLICIES:
    assert_close(gradients[remat], gradients['none'], num_terms=decoder_terms(deep, length, 3))


def of_leaves(config, leaves):
  return jax.tree.unflatten(jax.tree.structure(abstract_decoder(config)), leaves)


def test_bfloat16_computes_and_float32_remains():
  """bf16 products; parameters, gradients, logits, log-probs and softmax sums stay float32."""
  config = dataclasses.replace(CONFIG, compute_dtype='bfloat16')
  integers = [jax.ShapeDtypeStruct((2, 12), jnp.int32)] * 4
  decoder = abstract_decoder(config)
  assert jax.eval_shape(decoder_lib.forward, decoder, Rows(*integers[:3])).dtype == jnp.bfloat16
  gradients, entropies = jax.eval_shape(jax.grad(loss, has_aux=True), decoder, *integers)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((decoder, gradients, entropies)))
  lines = str(jax.make_jaxpr(loss)(decoder, *integers)).splitlines()
  for operation in ('exp', 'log', 'rsqrt', 'reduce_max', 'reduce_sum'):
    found = [line for line in lines if re.search(rf' = {operation}[ \[]', line)]
    assert found and not [line for line in found if ':bf16' in line.split(' = ')[0]], operation
  assert any(':bf16' in line and 'dot_general' in line for line in lines)


@functools.cache
def expansion(compute_dtype, temperature_and_more, length=24):
  """A sharp decoder, the tokens it sampled [B, W, prompt + T], and their Segments."""
  slots, width, prompt = 3, 4, 9
  config = dataclasses.replace(CONFIG, compute_dtype=compute_dtype)
  shape = ExpandShape(
    num_slots=slots,
    width=width,
    segment_length=length,
    context_length=prompt + length,
    replay_chunk=prompt,
    replay_lanes=slots,
    path_block=8,
    num_kv_heads=config.num_kv_heads,
    head_width=config.head_width,
  )
  mesh = make_mesh(devices=jax.devices()[:1])
  decoder = init_decoder(config, jax.random.key(0))
  decoder.final_scale[...] = jnp.full(config.width, 3.0)  # logits three times as far apart
  tokens = np.random.default_rng(0).integers(0, config.num_ids, (slots, prompt)).astype(np.int32)
  full = lambda value: np.full(slots, value, np.int32)
  plan = SlotPlan(
    full(-1),
    full(0),
    tokens,
    full(prompt - 1),
    full(-1),
    tokens[:, -1],
    full(width),
    full(0),
    np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), slots))),
  )
  options = sampling_options(**dict(temperature_and_more))
  expand_fn = bind_sampling(compile_expand(mesh, shape), options, [999])
  _, segments = expand_fn(decoder, compile_slots(config, mesh, shape)(), plan)
  rows = np.concatenate([np.repeat(tokens[:, None], width, 1), segments.tokens], -1)
  return decoder, rows, jax.device_get(segments)


def fresh_log_ratio(compute_dtype, options):
  """|log ratio| of sampled tokens under the learner's forward [B, W, T], and their Segments."""
  decoder, rows, segments = expansion(compute_dtype, tuple(options.items()))
  *lead, total = rows.shape
  rows = rows.reshape(-1, total)
  scored = jax.jit(
    functools.partial(sequence_logprobs, temperature=options.get('temperature') or 1.0)
  )(
    decoder,
    Rows(
      rows,
      np.broadcast_to(np.arange(total), rows.shape),
      np.full_like(rows, total),
      np.roll(rows, -1, 1),
    ),
  )
  length = segments.tokens.shape[-1]
  logprobs, entropies = (np.asarray(x)[:, -1 - length : -1].reshape(*lead, length) for x in scored)
  if compute_dtype == 'float32':
    assert_close(entropies, segments.entropies, num_terms=decoder_terms(CONFIG, total))
  return np.abs(logprobs - segments.logprobs), segments


@pytest.mark.parametrize(
  'options',
  [
    dict(),
    dict(temperature=0.6),
    dict(top_p=0.7, temperature=1.3),
    dict(top_k=3),
    dict(temperature=0.0),
  ],
)
def test_ratio_of_fresh_samples_is_one_whatever_is_truncated(options):
  ratio, segments = fresh_log_ratio('float32', options)
  size = np.abs(segments.logprobs).max()
  assert ratio.max() <= tolerance('float32', decoder_terms(CONFIG, 9 + 24), size)
  kept = segments.logprobs - segments.sampled_logprobs
  assert kept.max() < tolerance('float32', CONFIG.vocab_size, size)  # log of the share kept
  assert (kept.min() < -0.05) == bool(
    {'top_p', 'top_k'} & set(options) or options.get('temperature') == 0
  )


def test_ratio_of_fresh_samples_in_bfloat16_is_small():
  ratio, _ = fresh_log_ratio('bfloat16', {})
  assert 1e-5 < ratio.max() < 0.2 and ratio.mean() < 0.02
