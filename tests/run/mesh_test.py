"""What a run sets in its process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# 64 MiB from malloc, twice; prints the pages that came from the kernel the second time.
COUNT_FAULTS = """
import ctypes, resource
from ds_jax.run.mesh import keep_freed_memory
libc, size = ctypes.CDLL(None), 2**26
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
keep_freed_memory()
for _ in range(2):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = libc.malloc(size)
  ctypes.memset(block, 1, size)
  libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='malloc of glibc')
@pytest.mark.parametrize('threshold, is_kept', [(None, True), (str(2**17), False)])
def test_freed_memory_is_kept_unless_the_user_says_otherwise(root, threshold, is_kept):
  env = {k: v for k, v in os.environ.items() if k != 'MALLOC_TRIM_THRESHOLD_'}
  if threshold:
    env['MALLOC_TRIM_THRESHOLD_'] = threshold
  done = subprocess.run(
    [sys.executable, '-c', COUNT_FAULTS],
    env=env,
    cwd=root,
    check=True,
    capture_output=True,
    text=True,
  )
  assert (int(done.stdout) < 2**26 / os.sysconf('SC_PAGESIZE') / 10) == is_kept
