"""What a run sets in its process."""

from __future__ import annotations

import ctypes
import resource

import pytest

from ds_jax.runtime import keep_freed_memory


def test_freed_memory_is_kept():
  """Of 64 MiB that malloc gives again, next to no page comes from the kernel again."""
  libc = ctypes.CDLL(None)
  if not hasattr(libc, 'mallopt'):
    pytest.skip('no mallopt: the C library is not glibc')
  libc.malloc.restype = ctypes.c_void_p
  libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
  keep_freed_memory()
  size = 64 * 2**20

  def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

  faults()
  assert faults() < size / resource.getpagesize() / 10
