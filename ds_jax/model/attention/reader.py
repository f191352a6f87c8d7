"""How caches are read on each kind of device: by XLA's programs, a TPU's kernel or a GPU's.

Paths and written segments are read through one object, a `CacheReader`. It is chosen here and
nowhere else, and everything that differs between the kinds of devices is a method of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh

from ds_jax.checks import InputError
from ds_jax.model.attention import path
from ds_jax.model.attention.kernels import gpu_cache, tpu_cache
from ds_jax.model.attention.kernels.triton import MIN_TILE
from ds_jax.model.attention.partial import Partial, attend_part

# Scopes of the kernels, by which a plan knows how much of what they may read they do read.
PATH_KERNEL, SEGMENT_KERNEL = 'path_kernel', 'segment_kernel'

# TPUs for which a decode step compiled with the kernel moves fewer bytes than one without it, as
# `ds-jax plan` counts them.
_KERNEL_PAYS_ON = ('TPU v5', 'TPU v5p')

# Of `search.cache_kernel`: by a kernel where it moves fewer bytes, always, or never.
KernelChoice = Literal['auto', 'on', 'off']


class Caches(NamedTuple):
  """Keys and values of slots (paths `[L, B, C, S, D]`) or children (`[L, B, W, C, T, D]`)."""

  keys: jax.Array
  values: jax.Array


# (queries [N, C, 1, G, D] of N = B * W children, what the scan has cut out, layer [] int32,
# start=where the window begins in segments, [] int32 or None) -> partial attention of each child
# over its own segment.
AttendSegments = Callable[..., Partial]


class CacheReader(Protocol):
  """Reads the caches of slots. Hashable: compiled programs are kept by it."""

  splits_layers: bool  # whether a decode step takes the layers one by one (decoder.split_layers)

  def attend_chunk_paths(
    self,
    q_RxCxQxGxD: jax.Array,
    paths: Caches,
    *,
    layer: jax.Array,
    length: jax.Array,
    slot_index: jax.Array | None,
    start: jax.Array | None,
  ) -> Partial:
    """Partial attention of a chunk's queries over the paths that it extends.

    Args:
      q_RxCxQxGxD: queries of R lanes.
      paths: of all layers and slots.
      layer: `[]` int32, whose caches are read.
      length: `[R]` int32, positions of each lane's path.
      slot_index: `[R]` int32, the slot of each lane; None: lanes are the B slots.
      start: `[R, Q]` int32, where each query's window begins; None: there is none.
    """
    ...

  def attend_paths(
    self,
    q_BxCxWxGxD: jax.Array,
    paths: Caches,
    *,
    layer: jax.Array,
    length: jax.Array,
    start: jax.Array | None,
  ) -> Partial:
    """Partial attention of one query of each child over the path of its slot, read once.

    `start` [B, W] int32 says where the children's windows begin, which are those of one position
    in every slot; None: there are none.
    """
    ...

  def read_segments(
    self, segments: Caches, step: jax.Array
  ) -> tuple[tuple[jax.Array, ...], AttendSegments]:
    """What children have written of their segments, and how it is attended to.

    Args:
      segments: of all layers.
      step: `[]` int32, positions that are written.

    Returns:
      Arrays whose layers the scan over layers is to cut out (none where a kernel reads a layer
      where it lies), and the function that takes what was cut out.
    """
    ...

  def keep_layout(self, cache: jax.Array) -> jax.Array:
    """A cache that has just been written, laid out as it is going to be read."""
    ...

  def scope_counts(
    self,
    path_length: int,
    num_slots: int,
    paths: Caches,
    *,
    segments: Caches,
    window: int | None = None,
  ) -> dict[str, float]:
    """What a plan must know of a layer in a decode step, by named scope.

    Of loops, how often they run; of kernels, the share that they read of the caches that they may
    read; where it differs between steps, on average over all of them.

    Args:
      path_length: positions of every slot's path.
      num_slots: B of a device.
      paths, segments: described by shape and dtype.
      window: positions that the layer sees; None: all.
    """
    ...


@dataclasses.dataclass(frozen=True)
class PlainReader:
  """Reads caches by programs that XLA makes of ordinary operations, on any device."""

  block: int  # path positions that are read at a time
  splits_layers = False

  def attend_chunk_paths(self, q, paths, *, layer, length, slot_index, start):
    return path.attend_path(
      q, *paths, layer=layer, length=length, block=self.block, slot_index=slot_index, start=start
    )

  def attend_paths(self, q, paths, *, layer, length, start):
    return path.attend_path(q, *paths, layer=layer, length=length, block=self.block, start=start)

  def read_segments(self, segments, step):
    positions = jnp.arange(segments.keys.shape[4])
    is_written = (positions < step)[None, None]

    def attend(q, of_layer, layer, *, start):
      del layer
      keys, values = (x.reshape(-1, *x.shape[2:]) for x in of_layer)  # [B * W, C, T, D]
      is_seen = is_written if start is None else is_written & (positions >= start)
      return attend_part(q, keys, values, is_seen)

    return tuple(segments), attend

  def keep_layout(self, cache):
    return cache

  def scope_counts(self, path_length, num_slots, paths, *, segments, window=None):
    del paths
    steps = range(segments.keys.shape[4])
    return {
      path.PATH_BLOCKS: _path_blocks(path_length, steps, self.block, window=window),
      path.PATH_GROUPS: num_slots // path.group_size(num_slots),
    }


@dataclasses.dataclass(frozen=True)
class TpuReader(PlainReader):
  """Reads the caches of decode steps by a TPU's kernel; chunks read paths as XLA's programs do."""

  interpret: bool = False  # whether the kernel runs as ordinary operations, on any device

  def attend_paths(self, q, paths, *, layer, length, start):
    return tpu_cache.attend_caches(
      q,
      *paths,
      layer=layer,
      length=length,
      block=self.block,
      start=None if start is None else start[:, 0],
      name=PATH_KERNEL,
      interpret=self.interpret,
    )

  def read_segments(self, segments, step):
    width, segment_length = segments.keys.shape[2], segments.keys.shape[4]

    def attend(q, of_layer, layer, *, start):
      del of_layer
      return tpu_cache.attend_caches(
        q,
        *_by_child(segments),
        layer=layer,
        length=jnp.full(len(q), step),
        block=tpu_cache.segment_block(segment_length),
        rows=width,  # the children of a slot together
        start=None if start is None else jnp.full(len(q), start),
        name=SEGMENT_KERNEL,
        interpret=self.interpret,
      )

    return (), attend

  def keep_layout(self, cache):
    return _row_major(cache)

  def scope_counts(self, path_length, num_slots, paths, *, segments, window=None):
    capacity, segment_length = paths.keys.shape[3], segments.keys.shape[4]
    path_block, segment_block = min(self.block, capacity), tpu_cache.segment_block(segment_length)
    loops_of_chunks = super().scope_counts(
      path_length, num_slots, paths, segments=segments, window=window
    )
    num_blocks = _path_blocks(path_length, range(segment_length), path_block, window=window)
    return loops_of_chunks | {
      PATH_KERNEL: num_blocks * path_block / capacity,
      SEGMENT_KERNEL: _mean_share(segment_length, segment_block, least=1, window=window),
    }


@dataclasses.dataclass(frozen=True)
class GpuReader:
  """Reads all caches by a GPU's kernel, which cuts them into tiles of its own."""

  interpret: bool = False  # whether the kernel runs as ordinary operations, on any device
  splits_layers = True

  def attend_chunk_paths(self, q, paths, *, layer, length, slot_index, start):
    return gpu_cache.attend_caches(
      q,
      *paths,
      layer=layer,
      length=length,
      slot_index=slot_index,
      start=start,
      name=PATH_KERNEL,
      interpret=self.interpret,
    )

  def attend_paths(self, q, paths, *, layer, length, start):
    return self.attend_chunk_paths(
      q, paths, layer=layer, length=length, slot_index=None, start=start
    )

  def read_segments(self, segments, step):
    def attend(q, of_layer, layer, *, start):
      del of_layer
      return gpu_cache.attend_caches(
        q,
        *_by_child(segments),
        layer=layer,
        length=jnp.full(len(q), step),
        start=None if start is None else jnp.full((len(q), 1), start),
        name=SEGMENT_KERNEL,
        interpret=self.interpret,
      )

    return (), attend

  def keep_layout(self, cache):
    return _row_major(cache)

  def scope_counts(self, path_length, num_slots, paths, *, segments, window=None):
    del num_slots
    capacity, segment_length = paths.keys.shape[3], segments.keys.shape[4]
    width, itemsize = paths.keys.shape[4], paths.keys.dtype.itemsize
    path_tile = gpu_cache.tile_positions(capacity, width, itemsize)
    segment_tile = gpu_cache.tile_positions(segment_length, width, itemsize)
    num_tiles = _path_blocks(path_length, range(segment_length), path_tile, window=window)
    return {
      PATH_KERNEL: num_tiles * path_tile / capacity,
      SEGMENT_KERNEL: _mean_share(segment_length, segment_tile, least=0, window=window),
    }


def choose_reader(
  choice: KernelChoice,
  mesh: Mesh,
  *,
  block: int,
  capacity: int,
  segment_length: int,
  head_width: int,
) -> CacheReader:
  """Returns the reader of caches for the devices of a mesh.

  XLA cannot split a kernel, so that caches split over `tensor` are left to it.

  Args:
    choice: `search.cache_kernel`; 'auto': a kernel where it moves fewer bytes.
    mesh: where the caches are.
    block: path positions that are read at a time.
    capacity: positions of a slot's path cache.
    segment_length: T, positions of a child's segment cache.
    head_width: D.

  Raises:
    InputError: for 'on' where no kernel can run, or none can read such caches.
  """
  if choice == 'off':
    return PlainReader(block)
  device, tensor = mesh.devices.flat[0], mesh.shape['tensor']
  if tensor > 1 or device.platform not in ('tpu', 'gpu'):
    if choice == 'on':
      raise InputError(
        f"search.cache_kernel = 'on' needs TPUs or GPUs and mesh.tensor = 1, got "
        f"{device.platform} and mesh.tensor = {tensor}; set it to 'auto'."
      )
    return PlainReader(block)
  if device.platform == 'tpu':
    has_kernel = choice == 'on' or device.device_kind in _KERNEL_PAYS_ON
    return TpuReader(block) if has_kernel else PlainReader(block)
  if gpu_cache.can_read((capacity, segment_length), head_width):
    return GpuReader()
  if choice == 'on':
    raise InputError(
      f"search.cache_kernel = 'on' needs segments and path blocks of a multiple of "
      f'{MIN_TILE} tokens and heads whose width is a power of 2 from '
      f'{MIN_TILE}, got capacities {capacity}, {segment_length} and width {head_width}; '
      "change search.segment_length or search.path_block, or set it to 'auto'."
    )
  return PlainReader(block)


def _by_child(segments: Caches) -> Caches:
  """[L, B, W, C, T, D] -> [L, B * W, C, T, D]."""
  return Caches(*(x.reshape(x.shape[0], -1, *x.shape[3:]) for x in segments))


def _row_major(cache: jax.Array) -> jax.Array:
  """XLA would lay a cache out for the write, and copy all of it for the kernel in every step."""
  return with_layout_constraint(cache, Layout(tuple(range(cache.ndim))))


def _blocks_read(length: int, size: int, *, at: int, window: int | None) -> int:
  """Blocks of `size` positions, of the first `length`, that a query at position `at` sees."""
  first = 0 if window is None else max(0, at - window + 1)
  return max(0, -(-length // size) - first // size)


def _path_blocks(path_length: int, steps: range, size: int, *, window: int | None) -> float:
  """Blocks of a path that are read, on average over the steps after it."""
  counts = [_blocks_read(path_length, size, at=path_length + n, window=window) for n in steps]
  return sum(counts) / len(counts)


def _mean_share(segment_length: int, block: int, *, least: int, window: int | None) -> float:
  """Share of a segment that a kernel reads, on average over all steps.

  Step n has n positions to read, in whole blocks, of which it reads `least` even if n is 0.
  """
  num_blocks = 0
  for n in range(segment_length):
    num_blocks += max(least, _blocks_read(n, block, at=n, window=window))
  return num_blocks * block / segment_length**2
