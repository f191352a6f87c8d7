"""DeepSearch (arXiv:2509.25454) native to JAX: tree search inside the training of reasoning models.

Names are loaded on first use, so that `import ds_jax` costs milliseconds and grader workers never
import jax.
"""

from __future__ import annotations

import importlib

__version__ = '0.1.0'

_EXPORTS = {
  'open_session': 'ds_jax.api.open',
  'Problem': 'ds_jax.types',
  'Verdict': 'ds_jax.types',
  'Trajectory': 'ds_jax.types',
  'FinishedTree': 'ds_jax.types',
  'InputError': 'ds_jax.checks',
  'CannotWrite': 'ds_jax.run.disk',
  'Config': 'ds_jax.config',
  'load_config': 'ds_jax.config',
  'make_mesh': 'ds_jax.sharding',
  'load_decoder': 'ds_jax.model.huggingface.load',
  'load_tokenizer': 'ds_jax.data.prompts',
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
  if name in _EXPORTS:
    return getattr(importlib.import_module(_EXPORTS[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *_EXPORTS])
