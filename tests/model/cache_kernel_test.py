"""The TPU's kernel, run as ordinary operations, and compiled for a TPU.

Pallas' simulation of a TPU (`pltpu.InterpretParams`) agrees where it ends, but its callbacks wait
for each other for ever on a machine of two cores.
"""

from __future__ import annotations

import functools
import importlib.util
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.decode.expand import ExpandShape, compile_expand
from ds_jax.model import caches
from ds_jax.model.attention.kernels import tpu_cache
from ds_jax.model.attention.path import attend_path
from ds_jax.model.attention.reader import (
  PATH_KERNEL,
  GpuReader,
  PlainReader,
  TpuReader,
  choose_reader,
)
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.plan import topology
from ds_jax.plan.hlo import parse, read_traffic
from ds_jax.plan.products import count_flops
from ds_jax.testing.tolerance import assert_close, decoder_terms

BLOCK, CAPACITY, ROWS = 8, 32, 6
# Sums are float32: of a score over a head's width, of weights and of values over positions. In
# bfloat16 each weight is rounded once.
NUM_TERMS = {'float32': 16 + 2 * CAPACITY, 'bfloat16': 1}
interpret = functools.partial(tpu_cache.attend_caches, name=PATH_KERNEL, interpret=True)
interpret_once = jax.jit(interpret, static_argnames=('block', 'rows'))

LENGTHS = {'spread': [0, 1, 8, 9, 31, 32], 'equal': [13] * ROWS, 'none': [0] * ROWS}


@pytest.fixture(scope='module')
def inputs():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return (draw(ROWS, 2, 3, 2, 16), draw(3, ROWS, 2, CAPACITY, 16), draw(3, ROWS, 2, CAPACITY, 16))


@pytest.mark.parametrize('name', LENGTHS)
@pytest.mark.parametrize('dtype, rows', [('float32', 1), ('bfloat16', 3)])
def test_it_equals_attention_over_paths(inputs, name, dtype, rows):
  arguments = [x.astype(dtype) for x in inputs]
  length = jnp.asarray(LENGTHS[name], jnp.int32)
  got = interpret_once(*arguments, layer=1, length=length, block=BLOCK, rows=rows)
  want = attend_path(*arguments, layer=1, length=length, block=BLOCK)
  for a, b in zip(got, want, strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    assert_close(a, b, num_terms=NUM_TERMS[dtype], dtype=dtype)


def test_neighbours_do_not_change_a_bit(inputs):
  results = []
  for others in (0, 7, 32):
    length = jnp.full(ROWS, others).at[2].set(19)
    part = interpret_once(*inputs, layer=1, length=length, block=BLOCK, rows=1)
    results.append([np.asarray(x[2]) for x in part])
  for other in results[1:]:
    for a, b in zip(results[0], other, strict=True):
      np.testing.assert_array_equal(a, b)


CONFIG = DecoderConfig(
  vocab_size=16,
  num_ids=16,
  num_layers=2,
  width=16,
  mlp_width=16,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
)


def test_a_decode_step_is_the_same_with_it(monkeypatch):
  """Blocks beyond a path, and beyond the step, are not read: they are NaN."""
  monkeypatch.setattr(tpu_cache, '_SEGMENT_BLOCK', 2)
  decoder = init_decoder(CONFIG, jax.random.key(0))
  empty = caches.init_slots(CONFIG, 3, width=2, segment_length=6, capacity=CAPACITY)
  keys = iter(jax.random.split(jax.random.key(1), 4))
  full = [
    jax.random.normal(next(keys), x.shape) if x.ndim > 1 else jnp.array([0, 20, 9]) for x in empty
  ]
  clean = caches.Slots(*full)
  tokens = jnp.arange(6, dtype=jnp.int32).reshape(3, 2)
  with_kernel, without = (
    jax.jit(functools.partial(caches.decode_step, reader=reader))
    for reader in (TpuReader(BLOCK, interpret=True), PlainReader(BLOCK))
  )
  beyond = jnp.arange(CAPACITY) >= -(-clean.path_length // BLOCK)[:, None] * BLOCK
  beyond = beyond[:, None, :, None]
  for step in (0, 1, 5):
    later = jnp.arange(6) >= -(-step // 2) * 2
    hidden = clean._replace(
      path_length=False,
      segment_keys=later[:, None],
      segment_values=later[:, None],
      path_keys=beyond,
      path_values=beyond,
    )
    poisoned = jax.tree.map(
      lambda x, hide: jnp.where(hide, jnp.nan, x).astype(x.dtype), clean, hidden
    )
    for a, b in zip(
      jax.tree.leaves(with_kernel(decoder, poisoned, tokens, step=step)),
      jax.tree.leaves(without(decoder, clean, tokens, step=step)),
      strict=True,
    ):
      assert_close(a, b, num_terms=decoder_terms(CONFIG, CAPACITY + 6))


def _mesh(platform: str, kind: str, tensor: int = 1):
  device = types.SimpleNamespace(platform=platform, device_kind=kind)
  return types.SimpleNamespace(devices=np.array([device]), shape={'tensor': tensor})


@pytest.mark.parametrize(
  'choice, mesh, reader',
  [
    ('auto', _mesh('tpu', 'TPU v5'), TpuReader(256)),
    ('auto', _mesh('tpu', 'TPU v5', 2), PlainReader(256)),
    ('auto', _mesh('tpu', 'TPU v5 lite'), PlainReader(256)),
    ('auto', _mesh('cpu', 'cpu'), PlainReader(256)),
    ('off', _mesh('tpu', 'TPU v5'), PlainReader(256)),
    ('on', _mesh('tpu', 'TPU v4'), TpuReader(256)),
    ('auto', _mesh('gpu', 'NVIDIA H200'), GpuReader()),
    ('auto', _mesh('gpu', 'NVIDIA H200', 2), PlainReader(256)),
    ('off', _mesh('gpu', 'NVIDIA H200'), PlainReader(256)),
  ],
)
def test_where_it_is_used(choice, mesh, reader):
  sizes = dict(block=256, capacity=512, segment_length=256, head_width=128)
  assert choose_reader(choice, mesh, **sizes) == reader


def test_it_is_refused_where_it_cannot_run():
  shape = ExpandShape(
    num_slots=2,
    width=2,
    segment_length=4,
    context_length=8,
    replay_chunk=4,
    replay_lanes=2,
    path_block=8,
    num_kv_heads=2,
    head_width=16,
    cache_kernel='on',
  )
  with pytest.raises(InputError, match='needs TPUs or GPUs and mesh.tensor = 1, got cpu'):
    compile_expand(sharding.make_mesh(devices=jax.devices()[:1]), shape)


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
def test_it_compiles_for_v5p_and_is_counted_by_what_it_reads():
  mesh = topology.open_place('v5p:2x2x1', topology.MeshConfig(1, -1, 1)).mesh
  of = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.replicated(mesh))
  cache = of((3, 4, 2, 1024, 128), jnp.bfloat16)
  run = jax.jit(
    jax.shard_map(
      lambda q, k, v, layer, length: tpu_cache.attend_caches(
        q, k, v, layer=layer, length=length, block=256, name=PATH_KERNEL
      ),
      mesh=mesh,
      in_specs=P(),
      out_specs=P(),
      check_vma=False,
    )
  )
  traced = run.trace(
    of((4, 2, 8, 6, 128), jnp.bfloat16), cache, cache, of((), jnp.int32), of((4,), jnp.int32)
  )
  text = traced.lower().compile().as_text()
  one_layer = 2 * 4 * 2 * 1024 * 128
  whole, half = (read_traffic(text, {PATH_KERNEL: share}, 1).bytes for share in (1.0, 0.5))
  assert whole - half == one_layer * 2 * 0.5
  assert one_layer * 2 < whole < 1.5 * one_layer * 2
  assert count_flops(traced.jaxpr, {PATH_KERNEL: 0.5}) == 0.5 * 2 * 48 * one_layer
  entry, computations = parse(text)
  assert not any(
    line.opcode == 'copy' and 'bf16[3,4' in line.result for line in computations[entry].values()
  )
