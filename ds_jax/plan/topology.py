"""Names of TPU slices ('v5p:2x2x1') and GPU hosts ('h200:8'), their memory, meshes over them."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.checks import InputError, check_choice, first_line
from ds_jax.config import MeshConfig
from ds_jax.plan.gpu_target import TARGETS, target_config
from ds_jax.plan.speed import Limits


class Chip(NamedTuple):
  """Published limits of one chip."""

  memory: float  # GiB of HBM
  bandwidth: float  # GB/s of it
  flops: float  # TFLOP/s, bfloat16
  network: float  # GB/s to its neighbours, both directions together
  num_axes: int  # of the topology
  source: str
  num_devices: int = 1
  config: str = ''  # of libtpu; '': its default


# Looked up in November 2026. v4's page lacks the network: 6 links of 50 GB/s each way, from
# arXiv:2304.01433. The pages say GB where they mean GiB of memory.
_DOCS = 'docs.cloud.google.com/tpu/docs/'
CHIPS = {
  'v4': Chip(32, 1200, 275, 600, 3, _DOCS + 'v4', config='megacore'),  # as on a TPU VM
  'v5e': Chip(16, 819, 197, 400, 2, _DOCS + 'v5e'),
  'v5p': Chip(95, 2765, 459, 1200, 3, _DOCS + 'v5p'),
  'v6e': Chip(32, 1638, 918, 800, 2, _DOCS + 'v6e'),
  'tpu7x': Chip(192, 7380, 2307, 1200, 3, _DOCS + 'tpu7x', num_devices=2),
  # SXM modules of one host; FLOP/s without sparsity. Memory is what the device reports.
  'a100': Chip(79, 2039, 312, 600, 1, 'nvidia.com/en-us/data-center/a100'),
  'h100': Chip(79, 3350, 989, 900, 1, 'nvidia.com/en-us/data-center/h100'),
  'h200': Chip(141, 4800, 989, 900, 1, 'nvidia.com/en-us/data-center/h200'),
}


# There is no metadata server to ask, and no cuDNN or cuBLAS to be of the right version.
_NOT_HERE = {'TPU_SKIP_MDS_QUERY': '1', 'JAX_SKIP_CUDA_CONSTRAINTS_CHECK': '1'}


class Place(NamedTuple):
  """Where programs are compiled for."""

  name: str
  mesh: Mesh
  memory: int  # bytes per device
  source: str  # of that number
  limits: Limits | None = None  # None: not published for what is here
  num_chips: int = 1


def parse_topology(name: str) -> tuple[str, tuple[int, ...]]:
  """'v5p:2x2x1' -> ('v5p', (2, 2, 1)); 'h200:8' -> ('h200', (8,)).

  Raises:
    InputError: for another form, an unknown generation, or the wrong number of axes.
  """
  generation, _, sizes = name.partition(':')
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', sizes):
    raise InputError(
      f'Expected --topology=GENERATION:AxB or AxBxC, e.g. v5e:4x4 or v5p:2x2x1, an accelerator '
      f'type of Cloud TPU, e.g. v5litepod-16 or v6e-8, or GPU:COUNT, e.g. h200:8, got {name!r}.'
    )
  check_choice('the generation of --topology', generation, CHIPS)
  axes = tuple(map(int, sizes.split('x')))
  if len(axes) != CHIPS[generation].num_axes:
    raise InputError(
      f'The size of {generation} has {CHIPS[generation].num_axes} axes, got {name!r}.'
    )
  return generation, axes


def open_place(topology: str | None, config: MeshConfig) -> Place:
  """The mesh of the config over a slice that need not be here, or over the devices that are.

  Raises:
    InputError: for a bad name, without its compiler, or if the mesh does not fit the slice.
  """
  if topology is None:
    return _here(config)
  generation, _ = parse_topology(topology)
  for variable, value in _NOT_HERE.items():
    os.environ.setdefault(variable, value)
  find_devices = _gpu_devices if generation in TARGETS else _slice_devices
  devices, chip = find_devices(topology), CHIPS[generation]
  return Place(
    topology,
    mesh=sharding.make_mesh(config.data, config.fsdp, config.tensor, devices=devices),
    memory=int(chip.memory * 2**30) // chip.num_devices,
    source=chip.source,
    limits=device_limits(chip),
    num_chips=len(devices) // chip.num_devices,
  )


def _here(config: MeshConfig) -> Place:
  """The mesh over the devices of this machine."""
  devices, (memory, source) = jax.devices(), _memory_here()
  return Place(
    f'{len(devices)} {devices[0].platform} here',
    mesh=sharding.make_mesh(config.data, config.fsdp, config.tensor, devices=devices),
    memory=memory,
    source=source,
    num_chips=len(devices),
  )


def device_limits(chip: Chip) -> Limits:
  """Limits of one device of a chip, in FLOP/s and bytes/s; it sends half of both directions."""
  return Limits(
    flops=chip.flops * 1e12 / chip.num_devices,
    bandwidth=chip.bandwidth * 1e9 / chip.num_devices,
    network=chip.network * 1e9 / 2 / chip.num_devices,
  )


def sensible_meshes(topology: str | None, num_kv_heads: int) -> list[MeshConfig]:
  """Fully sharded, replicas of groups of 8 and 32, and those with K/V heads over `tensor`.

  A ring of more than 32 devices does not pay: over 64, XLA for v5e and v5p turns reduce-scatters
  and gathers of 1.5B's kernels into all-reduces, which send twice as much.

  Raises:
    InputError: as `open_place`.
  """
  count = open_place(topology, MeshConfig(1, -1, 1)).mesh.size
  splits = [t for t in (1, 2, 4, 8) if num_kv_heads % t == 0 and count % t == 0]
  meshes = [MeshConfig(data=1, fsdp=count // t, tensor=t) for t in splits]
  for fsdp in (8, 32):
    for tensor in splits:
      group = fsdp * tensor
      if count > group and count % group == 0:
        meshes.append(MeshConfig(data=count // group, fsdp=fsdp, tensor=tensor))
  return meshes


def _slice_devices(topology: str) -> list[jax.Device]:
  if importlib.util.find_spec('libtpu') is None:
    raise InputError(
      "--topology needs libtpu (no TPU): pip install 'ds_jax[tpu]'. Without "
      '--topology the devices of this machine are planned for.'
    )
  from jax.experimental import topologies

  try:
    generation, axes = parse_topology(topology)
    config = CHIPS[generation].config
    options = {'chip_config_name': config} if config else {}
    if math.prod(axes) == 1:  # libtpu takes hosts for several chips
      options['chips_per_host_bounds'] = [1, 1, 1]
    return topologies.get_topology_desc(platform='tpu', topology_name=topology, **options).devices
  except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as e:
    if 'lockfile' in str(e):
      raise InputError(
        'Another process uses libtpu (another plan, or a job on this TPU): wait for '
        'it, or plan on a machine without a TPU.'
      ) from e
    raise InputError(f'libtpu knows no slice {topology!r}: {first_line(e)}') from e


def _gpu_devices(topology: str) -> list[jax.Device]:
  if not any(importlib.util.find_spec(f'jax_cuda{version}_plugin') for version in (13, 12)):
    raise InputError(
      "--topology of GPUs needs jax's CUDA plugin (no GPU): pip install "
      "'ds_jax[cuda13]'. Without --topology the devices of this machine are "
      'planned for.'
    )
  from jax.experimental import topologies

  generation, (count,) = parse_topology(topology)
  chip = CHIPS[generation]
  target = target_config(generation, int(chip.memory * 2**30), chip.bandwidth * 1e9)
  try:
    return topologies.get_topology_desc(
      topology, 'cuda', target_config=target, topology=f'1x1x{count}'
    ).devices
  except (jax.errors.JaxRuntimeError, NotImplementedError) as e:
    raise InputError(f"jax's CUDA plugin does not describe {topology!r}: {first_line(e)}") from e


def _memory_here() -> tuple[int, str]:
  """Bytes per device of this machine; fake CPU devices share its memory."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit'], "the device's own limit"
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return total // jax.local_device_count(), 'memory of this machine'
