"""Settings of the suite: the CPU as eight devices, kept compilations, quiet logs, shared data.

jax reads these variables when it is first imported, so they are set here, before any test is.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_FLAGS = os.environ.get('XLA_FLAGS', '')
_DEVICES = '--xla_force_host_platform_device_count'
_OPTIMIZATION = '--xla_backend_optimization_level'

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
if _DEVICES not in _FLAGS:
  # XLA aborts the process when eight devices on two busy cores do not all come to a collective in
  # time; 40 seconds are its default.
  _FLAGS += f' {_DEVICES}=8 --xla_cpu_collective_call_terminate_timeout_seconds=300'
if _OPTIMIZATION not in _FLAGS:
  # Four fifths of the suite's work was XLA compiling programs that run for milliseconds. Without
  # LLVM's optimisations and without the fusion emitters it is a quarter of that. The runs of
  # kill_test.py compile as users do, and so does all of `launch/test.sh --all`.
  _FLAGS += f' {_OPTIMIZATION}=0'
  if importlib.metadata.version('jaxlib').startswith('0.10.'):  # later ones abort at the flag
    _FLAGS += ' --xla_cpu_use_fusion_emitters=false'
os.environ['XLA_FLAGS'] = _FLAGS.strip()
# Programs compiled by one test file, worker or subprocess are found by the next. The size limit is
# there for the lock that comes with it: without, a reader may meet a half-written entry.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.pytest_cache' / 'jax'))
os.environ.setdefault('JAX_COMPILATION_CACHE_MAX_SIZE', str(2**30))  # bytes
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')
# A process that runs hundreds of tests would keep 4 GB; the value is glibc's own.
os.environ.setdefault('MALLOC_TRIM_THRESHOLD_', str(2**17))
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # workers compile beside each other
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')  # silent in forked workers
os.environ.setdefault('HF_HUB_OFFLINE', '1')  # no test needs a network
os.environ.setdefault('MPLBACKEND', 'agg')

_MOST_MAPPINGS = 20_000  # after a file of tests


# Files that take longest, in that order. A file stays on one worker, so these start first: else the
# last worker would work at one of them alone.
_SLOWEST = (
  'training_test.py',
  'engine_waves_test.py',
  'distributed_test.py',
  'search_fuzz_test.py',
  'oracle_traces_test.py',
  'deepmath_test.py',
  'cli_test.py',
  'kill_test.py',
  'engine_test.py',
  'train_step_test.py',
  'model_meshes_test.py',
  'baselines_test.py',
  'faults_test.py',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  rank = {name: index for index, name in enumerate(_SLOWEST)}
  items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True, scope='module')
def programs_leave_room_for_more():
  """Drops a worker's compiled programs before they are too many for it.

  Each program on the CPU is some ten mappings of memory, of which Linux lets a process have
  `vm.max_map_count`, 65,530; at the next one XLA dies of a segmentation fault.
  """
  yield
  if len(Path('/proc/self/maps').read_bytes().splitlines()) > _MOST_MAPPINGS:
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope='session')
def root() -> Path:
  """The checkout."""
  return ROOT


@pytest.fixture(scope='session')
def shared() -> Path:
  """The folder of shared data and oracles beside the checkout; skips where there is none."""
  path = ROOT.parent / 'shared'
  if not path.is_dir():
    pytest.skip(f'no shared data: {path} does not exist')
  return path


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  """A workdir with data and a warm-started decoder, of no config yet; tests copy it."""
  from ds_jax.testing import tiny_run

  workdir = tiny_run.warmstart(tmp_path_factory.mktemp('warm') / 'run', tiny_run.config())
  workdir.config.unlink()
  return workdir
