"""Loops multiplied out: FLOPs, bytes and collectives against programs without loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax.plan.hlo import Collective, group_size, read_traffic
from ds_jax.plan.products import count_flops

WIDTH, LAYERS = 64, 6


def _layers(x, kernels, *, unroll):
  return jax.lax.scan(lambda x, k: (jnp.tanh(x @ k), None), x, kernels, unroll=unroll)[0]


def _dynamic(x, kernels, length):
  with jax.named_scope('steps'):
    return jax.lax.fori_loop(0, length, lambda i, x: jnp.tanh(x @ kernels[i]), x)


ARGUMENTS = (jnp.ones((128, WIDTH)), jnp.ones((LAYERS, WIDTH, WIDTH)))


@functools.cache
def _unrolled():
  return jax.jit(functools.partial(_layers, unroll=LAYERS)).lower(*ARGUMENTS).compile()


def _programs():
  """The same work in a scan, and in a loop whose length only the caller knows."""
  return [
    (jax.jit(functools.partial(_layers, unroll=1)).trace(*ARGUMENTS), {}),
    (jax.jit(_dynamic).trace(*ARGUMENTS, LAYERS), {'steps': LAYERS}),
  ]


@pytest.mark.parametrize('traced, trips', _programs(), ids=['scan', 'while'])
def test_flops_are_those_of_the_unrolled_program(traced, trips):
  products = 2 * 128 * WIDTH * WIDTH * LAYERS
  assert count_flops(traced.jaxpr, trips) == products
  assert _unrolled().cost_analysis()['flops'] == pytest.approx(products, rel=0.02)  # and tanh
  assert traced.lower().compile().cost_analysis()['flops'] < products / 2  # why we count


@pytest.mark.parametrize('traced, trips', _programs(), ids=['scan', 'while'])
def test_bytes_are_those_of_the_unrolled_program(traced, trips):
  found = read_traffic(traced.lower().compile().as_text(), trips, 1)
  assert not found.loops_counted_once
  whole = read_traffic(_unrolled().as_text(), {}, 1).bytes
  assert whole == pytest.approx(_unrolled().cost_analysis()['bytes accessed'], rel=0.1)
  # The loop's counter and its copies come on top; a loop counted once would be a sixth.
  assert 0.95 * whole < found.bytes < 1.5 * whole


def test_recomputation_counts_as_often_as_it_happens():
  def loss(x, kernels):
    body = jax.checkpoint(lambda x, k: (jnp.tanh(x @ k), None), prevent_cse=False)
    return jax.lax.scan(body, x, kernels)[0].sum()

  traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*ARGUMENTS)
  forward = 2 * 128 * WIDTH * WIDTH * LAYERS
  assert count_flops(traced.jaxpr, {}) == 4 * forward  # forward, again, and two gradients


def test_what_differs_between_platforms_counts_for_that_of_the_devices():
  twice, once = (lambda x, k: x @ k @ k), (lambda x, k: x @ k)
  traced = jax.jit(functools.partial(jax.lax.platform_dependent, cuda=twice, default=once)).trace(
    ARGUMENTS[0], ARGUMENTS[1][0]
  )
  product = 2 * 128 * WIDTH * WIDTH
  assert count_flops(traced.jaxpr, {}, platform='gpu') == 2 * product
  assert count_flops(traced.jaxpr, {}, platform='tpu') == product


def test_a_loop_of_unknown_length_is_named():
  with pytest.raises(ValueError, match="'steps'"):
    count_flops(jax.jit(_dynamic).trace(*ARGUMENTS, LAYERS).jaxpr, {})
  text = jax.jit(_dynamic).lower(*ARGUMENTS, LAYERS).compile().as_text()
  assert read_traffic(text, {}, 1).loops_counted_once == 1
  with pytest.raises(ValueError, match="'other'"):
    read_traffic(text, {}, 1, loop='other')


def test_one_run_of_a_loop_body():
  text = jax.jit(_dynamic).lower(*ARGUMENTS, LAYERS).compile().as_text()
  once = read_traffic(text, {}, 1, loop='steps').bytes
  whole = read_traffic(text, {'steps': LAYERS}, 1).bytes
  assert once * LAYERS == pytest.approx(whole, rel=0.5) and once < whole / 3


def test_collectives_in_loops_and_their_bytes():
  num = min(jax.device_count(), 4)
  if num < 2:
    pytest.skip('one device: run with XLA_FLAGS=--xla_force_host_platform_device_count=4')
  mesh = jax.make_mesh((num,), ('fsdp',), devices=jax.devices()[:num], axis_types=(AxisType.Auto,))

  def local(x, kernels):
    body = lambda x, k: (jnp.tanh(x @ jax.lax.all_gather(k, 'fsdp', tiled=True)), None)
    x = jax.lax.scan(body, x, kernels)[0]
    return jax.lax.psum(x, 'fsdp'), jax.lax.psum_scatter(x, 'fsdp', tiled=True)

  mapped = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(P('fsdp'), P(None, 'fsdp')),
    out_specs=(P(), P('fsdp')),
    check_vma=False,
  )
  of = lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
  x, kernels = ARGUMENTS
  text = jax.jit(mapped).lower(of(x, P('fsdp')), of(kernels, P(None, 'fsdp'))).compile().as_text()
  found = read_traffic(text, {}, num).collectives
  away = (num - 1) / num
  rows = 128 // num * WIDTH * 4
  assert found['all-gather'] == Collective(LAYERS, LAYERS * WIDTH * WIDTH * 4 * away)
  assert found['all-reduce'] == Collective(1, 2 * rows * away)
  assert found['reduce-scatter'] == Collective(1, rows * away)


# How 7x writes: collectives run on its sparse cores, layouts change inside fusions.
SPARSE_CORES = """
%relayout (whole: bf16[64,128]) -> bf16[64,128] {
  %whole = bf16[64,128]{1,0:T(16,128)(2,1)} parameter(0)
  ROOT %copy.1 = bf16[64,128]{1,0:T(8,128)(2,1)} copy(%whole)
}
%cut (cache: bf16[64,128], at: s32[]) -> bf16[8,128] {
  %cache = bf16[64,128]{1,0:T(16,128)(2,1)} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %fusion.1 = bf16[64,128]{1,0:T(8,128)(2,1)} fusion(%cache), kind=kLoop, calls=%relayout
  ROOT %slice.1 = bf16[8,128]{1,0} dynamic-slice(%fusion.1, %at, %zero)
}
%offloaded (part: f32[8]) -> f32[32] {
  %part = f32[8]{0} parameter(0)
  ROOT %all-gather.1 = f32[32]{0} all-gather(%part), channel_id=1, replica_groups={{0,1,2,3}}
}
ENTRY %main (caches: bf16[64,128], position: s32[], mine: f32[8]) -> bf16[8,128] {
  %caches = bf16[64,128]{1,0:T(16,128)(2,1)} parameter(0)
  %position = s32[] parameter(1)
  %mine = f32[8]{0} parameter(2)
  %start = ((f32[8]{0}), f32[32]{0}, u32[]) call-start(%mine), to_apply=%offloaded
  %done = f32[32]{0} call-done(%start)
  ROOT %out = bf16[8,128]{1,0} fusion(%caches, %position), kind=kLoop, calls=%cut
}
"""


def test_what_sparse_cores_send_and_what_a_slice_reads_of_another_layout():
  found = read_traffic(SPARSE_CORES, {}, 4)
  assert found.collectives == {'all-gather': Collective(1, 3 * 8 * 4)}
  assert found.bytes == 2 * (8 * 128 * 2) + 4 + (8 + 32) * 4  # the slice, its place, the gathered


@pytest.mark.parametrize(
  'text, size',
  [
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, x", 4),
    ("replica_groups=mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}, dims={1}", 4),
    ('replica_groups={{0,1,2},{3,4,5}}, x', 3),
    ('replica_groups=[2,4]<=[8]', 4),
    ('replica_groups={}', 8),
  ],
)
def test_sizes_of_replica_groups(text, size):
  assert group_size(text, 8) == size
