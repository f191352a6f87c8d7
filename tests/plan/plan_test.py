"""The planner: names of slices, bytes that add up, exit codes, and one real TPU compilation."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math

import jax
import pytest

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.config import Config, MeshConfig, ModelConfig
from ds_jax.model.attention.path import PATH_BLOCKS
from ds_jax.model.attention.reader import (
  PATH_KERNEL,
  SEGMENT_KERNEL,
  Caches,
  GpuReader,
  TpuReader,
)
from ds_jax.model.attention.training import BLOCK, KERNEL_SCOPES
from ds_jax.plan import capacity, command, parts, programs, slice_names, speed, topology
from ds_jax.plan.hlo import Collective, Traffic
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny as fakes
from ds_jax.testing import tiny_run


def test_a_plan_fetches_no_weights_of_a_model_on_the_hub(tmp_path, monkeypatch):
  import huggingface_hub

  fields = {'architectures': ['Qwen2ForCausalLM'], 'model_type': 'qwen2', 'vocab_size': 64}
  fields |= {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3}
  fields |= {'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 128}
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  asked = []
  monkeypatch.setattr(
    huggingface_hub,
    'snapshot_download',
    lambda name, allow_patterns, **_: asked.append((name, allow_patterns)) or str(tmp_path),
  )
  config = Config(model=ModelConfig(path='somebody/some-model'))
  assert command.decoder_of(config).num_layers == 3
  assert asked == [('somebody/some-model', ('config.json',))]


def test_names_of_slices():
  assert topology.parse_topology('v5p:2x2x1') == ('v5p', (2, 2, 1))
  assert topology.parse_topology('v5e:16x16') == ('v5e', (16, 16))
  assert topology.parse_topology('h200:8') == ('h200', (8,))


@pytest.mark.parametrize(
  'name', ['v5p', 'v5p:2', 'v5e:0x2', 'v5e:2x2x1', 'v9:2x2', 'v5e:2x2 ', 'h200:2x8', 'h200:0']
)
def test_bad_names_of_slices_are_refused(name):
  with pytest.raises(InputError):
    topology.parse_topology(name)


@pytest.mark.parametrize(
  'name, meant',
  [
    ('v5litepod-16', 'v5e:4x4'),
    ('v5litepod-1', 'v5e:1x1'),
    ('v5e-8', 'v5e:2x4'),
    ('v4-8', 'v4:2x2x1'),
    ('v4-64', 'v4:2x4x4'),
    ('v5p-8', 'v5p:2x2x1'),
    ('v5p-128', 'v5p:4x4x4'),
    ('v6e-8', 'v6e:2x4'),
    ('tpu-v6e-256', 'v6e:16x16'),
    ('tpu-v5litepod-32', 'v5e:4x8'),
    ('tpu-v5-lite-podslice:4x4', 'v5e:4x4'),
    ('tpu-v5p-slice:2x2x1', 'v5p:2x2x1'),
    ('v5p:2x2x1', 'v5p:2x2x1'),
    ('tpu7x:2x2x1', 'tpu7x:2x2x1'),
    ('h200:8', 'h200:8'),
    ('v9-4', 'v9-4'),
    ('', ''),
  ],
)
def test_names_of_accelerator_types_are_topologies(name, meant):
  assert slice_names.topology_of(name) == meant


@pytest.mark.parametrize('name', ['v5litepod-5', 'v5p-4', 'v4-12', 'v6e-512'])
def test_sizes_that_no_slice_has_are_refused_with_those_that_exist(name):
  with pytest.raises(InputError, match=r'with N of [\d, ]*, 256'):
    slice_names.topology_of(name)


@pytest.mark.parametrize('generation', slice_names._SLICES)
def test_shapes_of_slices_have_their_number_of_chips(generation):
  for count, shape in slice_names._SLICES[generation].items():
    _, axes = topology.parse_topology(f'{generation}:{shape}')
    assert math.prod(axes) == count


@pytest.fixture(scope='module')
def config_path(tmp_path_factory):
  return tiny_run.config_file(tmp_path_factory.mktemp('plan'))


def test_what_is_here_fits_and_the_split_adds_up(capsys, monkeypatch, config_path):
  monkeypatch.setattr(capacity, '_MAX_SLOTS', 1)  # more are not compiled
  assert main(['plan', f'--config={config_path}', '--json']) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert found['status'] == 'fits' and found['exit_code'] == 0
  assert set(found['parts']) == set(command.REMEDIES)
  for use in found['parts'].values():
    split = [use[field.name] for field in dataclasses.fields(parts.Use)]
    assert sum(split) == use['total'] and min(split) >= 0
  assert found['parts']['expand']['caches'] > 0
  assert not found['parts']['expand']['collectives']
  step = found['parts']['expand']['decode_step']
  assert 0 < step['flops'] < found['parts']['expand']['flops']
  assert 1 < found['update_flops_over_needed'] < 1.35
  slots = found['slots']['expand']
  assert slots['is_compiled'] and slots['largest'] >= slots['configured']


def test_every_length_that_rows_may_have_is_planned():
  config = tiny_run.config(train=dict(row_lengths=3))  # of 128 tokens
  mesh = make_mesh(devices=jax.devices()[:1])
  found = {part.name: part for part in programs.parts_of(config, fakes.DECODER, mesh)}
  for name in ('forward', 'forward and backward'):
    assert {name, f'{name}, rows of 48', f'{name}, rows of 88'} <= set(found)
  batch = found['forward, rows of 48'].trace().jaxpr.in_avals[-1]
  assert batch.shape[1] == 48


def test_planned_are_the_programs_of_the_settings():
  """Of temperatures, expansions read one per slot, passes over rows one per position unless 'plain'
  learns; where a loss goes by trajectories, passes read four sums of those that end somewhere."""
  mesh = make_mesh(devices=jax.devices()[:1])

  def inputs(**sections):
    counts, config = {}, tiny_run.config(**sections)
    for part in programs.parts_of(config, fakes.DECODER, mesh):
      counts[part.name] = len(part.trace().jaxpr.in_avals)
    return counts

  off, bandit = inputs(), {'temperature': 'bandit'}
  on = inputs(explore=bandit)
  plain = inputs(explore=bandit, train={'trained_policy': 'plain', 'importance_cap': 2.0})
  gspo = inputs(train={'policy_loss': 'gspo', 'granularity': 'outcome'})
  expansions, passes = ('expand', 'direct rollouts'), ('forward', 'forward and backward')
  assert {*expansions, *passes} < set(off)
  for name, count in off.items():
    assert on[name] == count + (name in expansions + passes), name
    assert plain[name] == count + (name in expansions), name
    assert gspo[name] == count + 4 * (name in passes), name


def test_planned_is_the_expansion_of_distinct_siblings():
  """With its loops of known length; direct rollouts stay what they are."""
  mesh = make_mesh(devices=jax.devices()[:1])

  def expansion(siblings):
    config = tiny_run.config(search=dict(siblings=siblings))
    found = {part.name: part for part in programs.parts_of(config, fakes.DECODER, mesh)}
    return parts.measure(found['expand']), str(found['direct rollouts'].trace().jaxpr)

  plain, plain_rollouts = expansion('independent')
  distinct, rollouts = expansion('distinct')
  assert rollouts == plain_rollouts
  assert distinct.work.traffic.loops_counted_once == plain.work.traffic.loops_counted_once
  assert distinct.decode_step.traffic.bytes > plain.decode_step.traffic.bytes
  assert distinct.decode_step.flops == plain.decode_step.flops


def test_local_layers_are_counted_by_what_they_see():
  """A third of the layers sees all, the others 512 positions, in blocks of paths and of keys."""
  assert programs.blocks_visited(4 * BLOCK, [None]) == (1 + 2 + 3 + 4) / 4
  assert programs.blocks_visited(4 * BLOCK, [BLOCK + 1]) == (1 + 2 + 2 + 2) / 4
  assert programs.blocks_visited(4 * BLOCK, [None, BLOCK + 1, BLOCK + 1]) == (10 + 2 * 7) / 12
  trips = programs.attention_trips(4 * BLOCK, [BLOCK + 1])
  assert trips['key_blocks'] == 7 / 4
  assert [trips[scope] for scope in KERNEL_SCOPES] == [7 / 10, 7 / 10]

  decoder = dataclasses.replace(
    fakes.DECODER, family='gemma3_text', num_layers=3, window=512, is_local=(True, True, False)
  )
  plain = dataclasses.replace(decoder, is_local=())
  config = tiny_run.config(
    data=dict(prompt_limit=1024),
    search=dict(segment_length=256, max_depth=8, path_block=256, num_slots=8),
  )
  mesh = make_mesh(devices=jax.devices()[:1])

  def expansion(decoder):
    found = {part.name: part for part in programs.parts_of(config, decoder, mesh)}
    return found['expand']

  # Paths have 1,536 positions, which are 6 blocks. In step n a local layer sees them from
  # 1,025 + n on: 2 blocks, and in the last of 256 steps one.
  assert expansion(plain).trips[PATH_BLOCKS] == 6
  assert expansion(decoder).trips[PATH_BLOCKS] == pytest.approx((2 * 2 + 6) / 3, abs=0.01)
  slots = 8 * (2 * 512 + 1536) / 3 - 8 * 1536
  position_bytes = 2 * 4 * 3 * decoder.num_kv_heads * decoder.head_width
  less = expansion(plain).expansion.unavoidable - expansion(decoder).expansion.unavoidable
  assert less == pytest.approx(-slots * position_bytes)


def test_kernels_read_the_tiles_that_a_window_touches():
  paths, segments = (
    Caches(x, x)
    for x in (
      jax.ShapeDtypeStruct((2, 8, 1, 2048, 64), 'bfloat16'),
      jax.ShapeDtypeStruct((2, 8, 4, 1, 256, 64), 'bfloat16'),
    )
  )
  for reader, tile in ((TpuReader(256), 256), (GpuReader(), 128)):
    segment_tile = 128
    for window in (None, 100, 700):
      counts = reader.scope_counts(1024, 8, paths, segments=segments, window=window)
      num_path, num_segment = 0, 0
      for n in range(256):
        seen = [i for i in range(1024) if window is None or 1024 + n - i < window]
        num_path += len({i // tile for i in seen})
        seen = [i for i in range(n) if window is None or n - i < window]
        num_segment += max(len({i // segment_tile for i in seen}), int(tile == 256))
      assert counts[PATH_KERNEL] == pytest.approx(num_path * tile / 2048 / 256)
      assert counts[SEGMENT_KERNEL] == pytest.approx(num_segment * segment_tile / 256**2)


def test_too_little_memory_is_exit_3(capsys, monkeypatch, config_path):
  monkeypatch.setattr(topology, '_memory_here', lambda: (1000, 'a test'))
  assert main(['plan', f'--config={config_path}']) == 3
  out = capsys.readouterr().out
  assert 'expand does not fit: lower search.num_slots' in out
  assert 'the largest number that fits is 0 (estimated' in out


def _expansion(num_slots, *, per_slot, extra, compiled):
  """A part whose size the compiler says is `extra` and per_slot * slots."""

  def with_slots(count):
    compiled.append(count)
    return _expansion(count, per_slot=per_slot, extra=extra, compiled=compiled)

  return parts.Part(
    'expand',
    None,
    parts.Resident(100, 50, num_slots * per_slot),
    expansion=parts.Expansion(num_slots, with_slots, unavoidable=0.0),
  )


@pytest.mark.parametrize(
  'extra, memory, largest',
  [(0, 1150, 96), (0, 220, 7), (0, 150, 0), (40, 1150, 96), (10**6, 1150, 0)],
)
def test_largest_number_of_slots_that_fits(monkeypatch, extra, memory, largest):
  use = lambda part: parts.Use(**dataclasses.asdict(part.resident), temporaries=extra)
  monkeypatch.setattr(capacity, 'measure', lambda part: parts.Measured(use(part), None, None))
  compiled = []
  part = _expansion(8, per_slot=10, extra=extra, compiled=compiled)
  slots, is_compiled = capacity.largest_slots(part, use(part), memory)
  assert slots <= largest and (slots > 0.5 * largest or not largest)
  assert len(compiled) <= 2 and is_compiled == (slots > 0)


def test_published_limits_are_those_of_a_device():
  v5e, ironwood = (topology.device_limits(topology.CHIPS[name]) for name in ('v5e', 'tpu7x'))
  assert v5e == speed.Limits(197e12, 819e9, 200e9)
  assert ironwood.flops == 2307e12 / 2


def test_the_scarcest_resource_is_the_bound():
  work = speed.Work(2e12, Traffic(1e9, {'all-gather': Collective(1, 4e9)}))
  assert work.bound(speed.Limits(1e12, 1e9, 1e9)) == ('network', 4.0)
  assert work.bound(speed.Limits(1e11, 1e9, 1e9)) == ('compute', 20.0)


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
def test_sensible_meshes_of_a_slice():
  sizes = [(m.data, m.fsdp, m.tensor) for m in topology.sensible_meshes('v5e:4x4', 2)]
  assert sizes == [(1, 16, 1), (1, 8, 2), (2, 8, 1)]
  many = [(m.data, m.fsdp, m.tensor) for m in topology.sensible_meshes('v5e:8x8', 1)]
  assert many == [(1, 64, 1), (8, 8, 1), (2, 32, 1)]
  cube = topology.open_place('v5p:4x4x4', MeshConfig(2, 32, 1)).mesh  # splits an axis of the slice
  assert cube.devices.shape == (2, 32, 1)


def test_a_compiler_that_does_not_know_a_gpu_is_named(capsys, monkeypatch, config_path):
  def refuse(*_, **__):
    assert topology.os.environ['JAX_SKIP_CUDA_CONSTRAINTS_CHECK'] == '1'
    raise NotImplementedError('topology not implemented for cuda')

  monkeypatch.setenv('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')  # and undone after the test
  monkeypatch.delenv('JAX_SKIP_CUDA_CONSTRAINTS_CHECK')
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', refuse)
  assert main(['plan', f'--config={config_path}', '--topology=h200:8']) == 2
  assert "CUDA plugin does not describe 'h200:8': topology not" in capsys.readouterr().err


@pytest.mark.parametrize(
  'name, extra', [('v5e:2x2', 'tpu'), ('v5litepod-4', 'tpu'), ('h200:8', 'cuda13')]
)
def test_a_missing_compiler_is_named(capsys, monkeypatch, config_path, name, extra):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  assert main(['plan', f'--config={config_path}', f'--topology={name}']) == 2
  assert f"pip install 'ds_jax[{extra}]'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
def test_programs_compile_for_a_tpu_that_is_not_here(capsys, config_path):
  assert (
    main(
      [
        'plan',
        f'--config={config_path}',
        '--topology=v5litepod-4',
        '--json',
        '--config.mesh.data=1',
        '--config.mesh.fsdp=-1',
      ]
    )
    == 0
  )
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert found['mesh'] == {'data': 1, 'fsdp': 4, 'tensor': 1}
  assert set(found['parts']) == set(command.REMEDIES)
