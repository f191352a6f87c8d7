"""The one mesh: axes, the table that shards parameters, and the slot axis of the search.

Axes: `data` (replicas), `fsdp` (parameters and optimizer state are split over it), `tensor`
(heads and MLP width). Batches and decoder slots are split over data x fsdp. One device is a mesh
of one. Axis types are chosen here and nowhere else: Auto, because jax.make_mesh would make them
Explicit, where a product with a sharded contraction raises instead of inserting its all-reduce.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax.checks import InputError

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')

# (pattern over the parameter's path, partition of its axes). First match wins; every parameter
# must match. Layer parameters are stacked: their first axis is the layer and is never split.
PARAMETER_RULES: tuple[tuple[str, P], ...] = (
  (r'embedding$', P('tensor', 'fsdp')),  # [V, M]
  (r'head$', P('fsdp', 'tensor')),  # [M, V]
  (r'(query|key|value)_kernel$', P(None, 'fsdp', 'tensor', None)),  # [L, M, H|C, D]
  (r'(query|key|value)_bias$', P(None, 'tensor', None)),  # [L, H|C, D]
  (r'output_kernel$', P(None, 'tensor', None, 'fsdp')),  # [L, H, D, M]
  (r'(gate|up)_kernel$', P(None, 'fsdp', 'tensor')),  # [L, M, F]
  (r'down_kernel$', P(None, 'tensor', 'fsdp')),  # [L, F, M]
  (r'scale$', P()),  # norms
  # Adapters (model/lora.py): the kernel's axes, and the rank in place of those it lacks.
  (r'(query|key|value|gate|up)_kernel/lora_a$', P(None, 'fsdp', None)),  # [L, M, rank]
  (r'(query|key|value|gate|up)_kernel/lora_b$', P(None, 'fsdp', 'tensor')),  # [L, rank, H|C|F, …]
  (r'output_kernel/lora_a$', P(None, 'tensor', None, 'fsdp')),  # [L, H, D, rank]
  (r'down_kernel/lora_a$', P(None, 'tensor', 'fsdp')),  # [L, F, rank]
  (r'(output|down)_kernel/lora_b$', P(None, None, 'fsdp')),  # [L, rank, M]
  (r'ns_coeffs$', P()),  # constants in Muon's state
)


def make_mesh(
  data: int = 1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns the mesh of shape (data, fsdp, tensor); one size may be -1 and takes what is left.

  Raises:
    InputError: if the sizes do not use exactly the devices there are, or `data` not all slices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes, count = [data, fsdp, tensor], len(devices)
  if min(sizes) < 1 and (sizes.count(-1) != 1 or any(n < 1 and n != -1 for n in sizes)):
    raise InputError(
      f'Expected mesh sizes >= 1, at most one of them -1, got data={data}, '
      f'fsdp={fsdp}, tensor={tensor}.'
    )
  if -1 in sizes:
    num_others = -math.prod(sizes)
    sizes[sizes.index(-1)] = max(1, count // num_others)
  if math.prod(sizes) != count:
    raise InputError(
      f'mesh {sizes[0]} x {sizes[1]} x {sizes[2]} (data x fsdp x tensor) = {math.prod(sizes)} '
      f'devices, but there are {count}; set one size to -1 and choose the others among the '
      f'divisors of {count}: {[d for d in range(1, count + 1) if count % d == 0]}.'
    )
  if len(slices_of(devices)) > 1:
    return _auto_mesh(slice_mesh(sizes, devices))
  # jax.make_mesh would refuse fsdp=32 on a cube of 4 x 4 x 4: it splits no axis of a slice.
  placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  return _auto_mesh(placed)


def _auto_mesh(placed: np.ndarray) -> Mesh:
  return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slices_of(devices: Sequence[jax.Device]) -> set[int]:
  """Numbers of the TPU slices that the devices belong to; {0} where there are none."""
  return {getattr(device, 'slice_index', 0) for device in devices}


def slice_mesh(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
  """Devices of several slices: `data` goes over the slow network between them, the rest stays in.

  Args:
    sizes: data, fsdp, tensor; their product is the number of devices.
    devices: each knows its slice.

  Returns:
    `[data, fsdp, tensor]` devices; a slice holds data / number of slices rows in succession.

  Raises:
    InputError: if data is no multiple of the number of slices.
  """
  data, fsdp, tensor = sizes
  count = len(slices_of(devices))
  if data % count:
    inside = len(devices) // count
    fitting = [d for d in range(count, len(devices) + 1, count) if len(devices) % (d * tensor) == 0]
    raise InputError(
      f'mesh.data = {data} must be a multiple of the {count} slices (of {inside} devices): '
      f'fsdp and tensor stay inside a slice. With mesh.tensor={tensor} and mesh.fsdp=-1, '
      f'mesh.data may be {fitting or "nothing: lower mesh.tensor"}.'
    )
  return mesh_utils.create_hybrid_device_mesh(
    (data // count, fsdp, tensor), (count, 1, 1), devices, allow_split_physical_axes=True
  )


def search_mesh(mesh: Mesh) -> Mesh:
  """The part of a mesh on which this process searches.

  Its own part, without collectives between processes, if every group of `tensor` devices lies in
  one process; the groups are those of the whole mesh. Otherwise the whole, on which all processes
  search together.
  """
  groups = mesh.devices.reshape(-1, mesh.shape['tensor'])  # [data x fsdp, tensor]
  owners = [{device.process_index for device in group} for group in groups]
  if any(len(owner) > 1 for owner in owners):
    return mesh
  is_here = [owner == {jax.process_index()} for owner in owners]
  if all(is_here):
    return mesh
  return _auto_mesh(groups[np.array(is_here)][:, None])


def is_shared(mesh: Mesh) -> bool:
  """Whether devices of several processes belong to the mesh."""
  return len({device.process_index for device in mesh.devices.flat}) > 1


def local_view(tree: Any, mesh: Mesh, local: Mesh) -> Any:
  """Arrays in the form for search, seen from this process: the shards it holds, nothing copied.

  Args:
    tree: arrays on `mesh`, whole over data and fsdp.
    mesh: the whole mesh.
    local: from `search_mesh`.
  """
  if local is mesh:
    return tree

  def view(leaf):
    return jax.make_array_from_single_device_arrays(
      leaf.shape,
      NamedSharding(local, leaf.sharding.spec),
      [shard.data for shard in leaf.addressable_shards],
    )

  return jax.tree.map(view, tree)


def put_rows(tree: Any, mesh: Mesh) -> Any:
  """Host arrays that every process holds, on the mesh: first axis over data x fsdp."""
  target = batch_sharding(mesh)

  def put(x: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(x.shape, target, lambda index: x[index])

  return jax.tree.map(put, tree)


def gather_rows(tree: Any, mesh: Mesh) -> Any:
  """Device arrays that are split over data x fsdp, whole on every device of the mesh."""
  return _gather(mesh)(tree)


@functools.cache
def _gather(mesh: Mesh) -> Any:
  return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def num_slot_shards(mesh: Mesh) -> int:
  """Device groups that hold different slots (or batch rows): data x fsdp."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """First axis over data x fsdp, the rest whole."""
  return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def parameter_spec(path: str, shape: Sequence[int], mesh: Mesh) -> P:
  """Partition of one parameter by the first rule whose pattern matches its path.

  An axis that the mesh does not divide stays whole (few K/V heads, an odd vocabulary), and so does
  an array with fewer axes than its parameter (Adafactor's sums over rows and columns).

  Raises:
    ValueError: if no rule matches; all parameters must be covered.
  """
  for pattern, spec in PARAMETER_RULES:
    if re.search(pattern, path):
      return P() if len(shape) < len(spec) else _dividing(spec, shape, mesh)
  raise ValueError(f'No sharding rule matches parameter {path!r}; add one to PARAMETER_RULES.')


def _dividing(spec: P, shape: Sequence[int], mesh: Mesh) -> P:
  """The partition without the axes that the mesh does not divide; axes beyond it stay whole."""
  axes = tuple(spec) + (None,) * (len(shape) - len(spec))
  divided = []
  for axis, size in zip(axes, shape, strict=True):
    divides = axis is not None and size % mesh.shape[axis] == 0
    divided.append(axis if divides else None)
  return P(*divided)


def path_name(path: Sequence[Any]) -> str:
  """'layers/query_kernel' for a jax key path into a model (nnx's trailing `value` left out)."""
  names = []
  for key in path:  # of an attribute, a dictionary or a sequence
    name = getattr(key, 'name', getattr(key, 'key', getattr(key, 'idx', key)))
    if name != 'value':
      names.append(str(name))
  return '/'.join(names)


def parameter_shardings(abstract: Any, mesh: Mesh, *, search: bool = False) -> Any:
  """Shardings of a tree of parameters (or of optimizer state that mirrors them).

  Args:
    abstract: pytree of arrays or ShapeDtypeStructs. Scalars (step counters) are replicated.
    mesh: the mesh.
    search: the form that the search reads: whole over fsdp (no gather inside a decode step), split
      over `tensor` only.
  """

  def shard(path: Sequence[Any], leaf: Any) -> NamedSharding:
    if leaf.ndim == 0:
      return replicated(mesh)
    spec = parameter_spec(path_name(path), leaf.shape, mesh)
    if search:
      spec = P(*(None if axis == 'fsdp' else axis for axis in spec))
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(shard, abstract)


def describe(mesh: Mesh) -> str:
  """'data=1 fsdp=1 tensor=1 on 1 cpu device'."""
  count = math.prod(mesh.shape.values())
  kind = next(iter(mesh.devices.flat)).platform
  sizes = ' '.join(f'{name}={size}' for name, size in mesh.shape.items())
  return f'{sizes} on {count} {kind} device{"s" if count > 1 else ""}'
