"""Names of TPU slices ('v5p:2x2x1'), the memory of their devices, and meshes over them."""

from __future__ import annotations

import importlib.util
import os
import re
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.checks import InputError, check_choice
from ds_jax.config import MeshConfig


class Chip(NamedTuple):
  """Published limits of one device; a 7x chip is two devices."""
  memory: int  # bytes of HBM
  num_axes: int  # of the topology
  source: str


_DOCS = 'cloud.google.com/tpu/docs/'
CHIPS = {
    'v4': Chip(32 * 2**30, 3, _DOCS + 'v4'), 'v5e': Chip(16 * 2**30, 2, _DOCS + 'v5e'),
    'v5p': Chip(95 * 2**30, 3, _DOCS + 'v5p'), 'v6e': Chip(32 * 2**30, 2, _DOCS + 'v6e'),
    'tpu7x': Chip(96 * 2**30, 3, _DOCS + 'tpu7x'),
}


class Place(NamedTuple):
  """Where programs are compiled for."""
  name: str
  mesh: Mesh
  memory: int  # bytes per device
  source: str  # of that number


def parse_topology(name: str) -> tuple[str, tuple[int, ...]]:
  """'v5p:2x2x1' -> ('v5p', (2, 2, 1)).

  Raises:
    InputError: for another form, an unknown generation, or the wrong number of axes.
  """
  generation, _, sizes = name.partition(':')
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)+', sizes):
    raise InputError(f'Expected --topology=GENERATION:AxB or AxBxC, e.g. v5e:4x4 or v5p:2x2x1, '
                     f'got {name!r}.')
  check_choice('the generation of --topology', generation, CHIPS)
  axes = tuple(map(int, sizes.split('x')))
  if len(axes) != CHIPS[generation].num_axes:
    raise InputError(f'A slice of {generation} has {CHIPS[generation].num_axes} axes, got '
                     f'{name!r}.')
  return generation, axes


def open_place(topology: str | None, config: MeshConfig) -> Place:
  """The mesh of the config over a slice that need not be here, or over the devices that are.

  Raises:
    InputError: for a bad name, without libtpu, or if the mesh does not fit the slice.
  """
  if topology is None:
    devices, memory, source = jax.devices(), *_memory_here()
    name = f'{len(devices)} {devices[0].platform} here'
  else:
    generation, _ = parse_topology(topology)
    devices, name = _slice_devices(topology), topology
    memory, source = CHIPS[generation].memory, CHIPS[generation].source
  mesh = sharding.make_mesh(config.data, config.fsdp, config.tensor, devices)
  return Place(name, mesh, memory, source)


def _slice_devices(topology: str) -> list[jax.Device]:
  if importlib.util.find_spec('libtpu') is None:
    raise InputError("--topology needs libtpu (no TPU): pip install 'ds_jax[tpu]'. Without "
                     '--topology the devices of this machine are planned for.')
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no metadata server to ask
  from jax.experimental import topologies
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as e:
    raise InputError(f'libtpu knows no slice {topology!r}: {str(e).splitlines()[0]:.300}') from e


def _memory_here() -> tuple[int, str]:
  """Bytes per device of this machine; fake CPU devices share its memory."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit'], "the device's own limit"
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return total // jax.local_device_count(), 'memory of this machine'
