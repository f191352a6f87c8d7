"""The devices of a run: their mesh, and what a run sets in a process that computes on CPUs."""

from __future__ import annotations

import ctypes
import os

import jax

from ds_jax import sharding
from ds_jax.checks import check_divides
from ds_jax.config import Config

# Options of glibc's malloc (malloc.h): free memory at its end, and requests, that go to the kernel.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def open_mesh(config: Config) -> jax.sharding.Mesh:
  """The mesh of the config on all devices; InputError if sizes do not fit it."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
  if mesh.devices.flat[0].platform == 'cpu':
    keep_freed_memory()
  check_divides(
    'train.micro_rows', config.train.micro_rows, 'mesh data x fsdp', sharding.num_slot_shards(mesh)
  )
  return mesh


def keep_freed_memory() -> None:
  """Lets this process keep memory that it frees, up to 1 GiB, for its next use.

  XLA's CPU programs ask malloc for their temporaries in every call. glibc gets what is larger than
  32 MiB from the kernel each time and gives it back, page by page: a third of the quickstart's warm
  start. Other C libraries are left alone, and so is who sets MALLOC_TRIM_THRESHOLD_ (bytes).
  """
  set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
  if set_option is not None and 'MALLOC_TRIM_THRESHOLD_' not in os.environ:
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
      set_option(option, 2**30)
