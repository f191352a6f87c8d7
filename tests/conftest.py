"""Settings of the whole suite: the CPU as eight devices, quiet logs, and the shared data.

jax reads these variables when it is first imported, so they are set here, before any test is.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEVICES = '--xla_force_host_platform_device_count'

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
if _DEVICES not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_DEVICES}=8'.strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')  # silent in forked workers
os.environ.setdefault('HF_HUB_OFFLINE', '1')  # no test needs a network
os.environ.setdefault('MPLBACKEND', 'agg')

ROOT = Path(__file__).parents[1]


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
