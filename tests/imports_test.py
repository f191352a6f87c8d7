"""The arrows between folders, the fence around third-party packages, and what imports cost."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import PROJECT, imports_of, module_file, module_name

# A part of ds_jax is a folder or a module at the top. Every part may import the parts named here.
BASE = {'types', 'checks', 'config', 'sharding'}
FOLDERS = {'data', 'model', 'decode', 'verify', 'search', 'train', 'evaluate', 'report'}
ASSEMBLY = {
  'attendant',
  'checkpoint',
  'commands',
  'data_command',
  'distributed',
  'evaluate_command',
  'experiment',
  'export',
  'grade_command',
  'groups',
  'plan',
  'run_state',
  'runtime',
  'search_command',
  'training',
  'warmstart',
  'workdir',
}
ARROWS = {
  'types': set(),
  'checks': set(),
  'config': {'checks', 'config_checks'},
  'config_checks': {'checks', 'config'},  # the latter for its types alone
  'sharding': {'checks', 'config', 'types'},
  'data': BASE,
  'model': BASE,
  'decode': BASE | {'model'},
  'verify': BASE,
  'search': BASE,  # it receives expand_fn and verify_fn
  'train': BASE | {'model'},
  'evaluate': BASE | {'decode', 'verify', 'data', 'search'},
  'report': BASE,
  'checkpoint': BASE,
  'workdir': BASE,
  'attendant': set(),
  'distributed': BASE | {'attendant', 'workdir'},
  'runtime': BASE | FOLDERS | {'workdir'},
  'run_state': {'search', 'train'},
  'groups': BASE | FOLDERS | {'run_state', 'runtime'},
  'training': BASE | FOLDERS | {'checkpoint', 'groups', 'run_state', 'runtime', 'workdir'},
  'warmstart': BASE | FOLDERS | {'checkpoint', 'runtime', 'workdir'},
  'export': BASE | FOLDERS | {'checkpoint', 'runtime', 'workdir'},
  'plan': BASE | {'model', 'decode', 'train', 'evaluate'},
  'experiment': BASE | FOLDERS | ASSEMBLY,
  'search_command': BASE | FOLDERS | ASSEMBLY,
  'data_command': BASE | {'data'},
  'evaluate_command': BASE | FOLDERS | ASSEMBLY,
  'grade_command': BASE | {'data', 'evaluate', 'verify', 'workdir', PROJECT},
  'commands': set(),
  'cli': BASE | FOLDERS | ASSEMBLY | {PROJECT},
  '__main__': {'cli'},
  PROJECT: BASE | FOLDERS | ASSEMBLY,  # ds_jax/__init__.py
}
# These import the rest on first use only, so that `--help` and `import ds_jax` are instant.
EAGER = {'cli': {'types', 'checks', 'config', 'commands', PROJECT}, PROJECT: set()}

# Third-party packages and the only places that may import them.
FENCE = {
  'transformers': ('ds_jax/data/', 'ds_jax/model/convert.py'),
  'tokenizers': ('ds_jax/data/',),
  'huggingface_hub': ('ds_jax/data/', 'ds_jax/model/hub.py'),
  'safetensors': ('ds_jax/model/tensor_files.py',),
  'tensorflow_datasets': ('ds_jax/data/',),
  'array_record': ('ds_jax/data/',),
  'datasets': ('ds_jax/data/',),
  'reasoning_gym': ('ds_jax/data/', 'ds_jax/verify/'),
  'flint': ('ds_jax/verify/',),
  'optax': ('ds_jax/train/',),
  'orbax': ('ds_jax/checkpoint.py',),
  'ml_collections': ('configs/', 'ds_jax/config.py', 'ds_jax/cli.py'),
  'matplotlib': ('ds_jax/report/',),
  'tensorboardX': ('ds_jax/report/',),
}
# Nowhere in ds_jax: these are for tests only.
FENCE |= dict.fromkeys(('torch', 'pytest', 'tensorflow'), ())

# The core works with these alone; the grader and the base have no jax.
CORE = {'jax', 'jaxlib', 'flax', 'optax', 'numpy'}
ONLY = {
  'types': {'numpy'},
  'checks': set(),
  'config': {'ml_collections'},
  'sharding': CORE,
  'model': CORE | {'transformers', 'safetensors', 'huggingface_hub'},  # fenced in above
  'decode': CORE,
  'search': CORE,
  'train': CORE,
  'verify': {'numpy', 'flint', 'reasoning_gym'},
}

HEAVY = ('jax', 'tensorflow_datasets', 'transformers', 'sympy', 'flax', 'orbax', 'matplotlib')


def part_of(module: str) -> str:
  """'search' for ds_jax.search.tree; 'ds_jax' for the package itself."""
  return module.split('.')[1] if '.' in module else module


def arrow_errors(root: Path) -> list[str]:
  """Imports between parts of ds_jax that ARROWS and EAGER do not allow."""
  errors = []
  for path in sorted((root / PROJECT).rglob('*.py')):
    part = part_of(module_name(path, root))
    where = path.relative_to(root)
    if part not in ARROWS:
      errors.append(f'{where}: {part!r} has no place in ARROWS; give it one')
      continue
    for found in imports_of(path, root):
      if found.top != PROJECT or part_of(found.module) == part:
        continue
      target = part_of(found.module)
      if target not in ARROWS[part]:
        errors.append(
          f'{where}:{found.line}: {part} must not import {target}; '
          f'it may import {sorted(ARROWS[part])}'
        )
      elif not found.is_lazy and not found.is_typing and target not in EAGER.get(part, {target}):
        errors.append(
          f'{where}:{found.line}: import {found.module} inside the function that '
          f'needs it; {part} is imported for every --help'
        )
  return errors


def fence_errors(root: Path) -> list[str]:
  """Third-party imports outside the places that FENCE and ONLY name."""
  errors = []
  paths = [p for folder in (PROJECT, 'configs') for p in sorted((root / folder).rglob('*.py'))]
  for path in paths:
    where = str(path.relative_to(root))
    part = part_of(module_name(path, root))
    for found in imports_of(path, root):
      places = FENCE.get(found.top)
      if places is not None and not where.startswith(places):
        errors.append(f'{where}:{found.line}: {found.top} belongs in {places or "tests only"}')
      is_ours = found.top in sys.stdlib_module_names or found.top == PROJECT
      if part in ONLY and not is_ours and not found.is_typing and found.top not in ONLY[part]:
        errors.append(
          f'{where}:{found.line}: {part} works with {sorted(ONLY[part])} alone, not {found.top}'
        )
  return errors


def run_fresh(code: str, root: Path) -> str:
  """Standard output of `code` in a new interpreter, as a user would start one."""
  environment = {**os.environ, 'PYTHONPATH': str(root)}
  return subprocess.run(
    [sys.executable, '-c', code],
    env=environment,
    check=True,
    text=True,
    capture_output=True,
    timeout=60,
  ).stdout


def loaded_by(imports: str, root: Path) -> set[str]:
  """Those of HEAVY that a fresh interpreter has loaded after the statement `imports`."""
  return set(
    run_fresh(
      f'import sys\n{imports}\nprint(*(m for m in {HEAVY} if m in sys.modules))', root
    ).split()
  )


def expect_none(errors: list[str]) -> None:
  if errors:
    pytest.fail('\n'.join(errors), pytrace=False)


def test_arrows(root):
  expect_none(arrow_errors(root))


def test_fence(root):
  expect_none(fence_errors(root))


def test_import_is_instant_and_light(root):
  code = (
    'import time; started = time.perf_counter(); import ds_jax; '
    'print(time.perf_counter() - started)'
  )
  assert min(float(run_fresh(code, root)) for _ in range(3)) < 0.3
  assert not loaded_by('import ds_jax', root)


def test_command_line_starts_light(root):
  if module_file('ds_jax.cli', root) is None:
    pytest.skip('ds_jax/cli.py does not exist')
  assert not loaded_by('import ds_jax.cli', root)


def test_grader_imports_no_jax(root):
  modules = sorted(module_name(p, root) for p in (root / PROJECT / 'verify').glob('*.py'))
  assert 'jax' not in loaded_by(f'import {", ".join(modules)}', root)


def test_public_names_resolve():
  import ds_jax

  for name in ds_jax.__all__:
    assert getattr(ds_jax, name) is not None
  assert set(ds_jax.__all__) <= set(dir(ds_jax))
  with pytest.raises(AttributeError, match='no attribute'):
    ds_jax.no_such_name  # noqa: B018


def test_folders_export_what_exists(root):
  for path in sorted((root / PROJECT).glob('*/__init__.py')):
    module = importlib.import_module(module_name(path, root))
    for name in getattr(module, '__all__', ()):
      assert getattr(module, name) is not None


# The checks can fail: one import in the wrong place at a time.


@pytest.mark.parametrize(
  ('path', 'code', 'message'),
  [
    ('ds_jax/search/x.py', 'from ds_jax.model.decoder import Decoder', 'must not import model'),
    ('ds_jax/search/x.py', 'from ds_jax import decode', 'must not import decode'),
    ('ds_jax/search/x.py', 'def f():\n  import ds_jax.verify.pool', 'must not import verify'),
    ('ds_jax/search/x.py', 'from ..train import step', 'must not import train'),
    ('ds_jax/train/x.py', 'from ds_jax.search import tree', 'must not import search'),
    ('ds_jax/train/x.py', 'import ds_jax.decode.expand', 'must not import decode'),
    ('ds_jax/report/x.py', 'from ds_jax.train import state', 'must not import train'),
    ('ds_jax/checkpoint.py', 'from ds_jax.train import state', 'must not import train'),
    ('ds_jax/types.py', 'from ds_jax.data import prompts', 'must not import data'),
    ('ds_jax/model/x.py', 'import ds_jax', 'must not import ds_jax'),
    ('ds_jax/helpers/x.py', '', "'helpers' has no place in ARROWS"),
    ('ds_jax/cli.py', 'from ds_jax import experiment', 'inside the function'),
    ('ds_jax/__init__.py', 'from ds_jax.types import Problem', 'inside the function'),
  ],
)
def test_wrong_arrow_is_reported(tmp_path, path, code, message):
  for name in ('model', 'decode', 'verify', 'search', 'train', 'data'):
    _write(tmp_path / PROJECT / name / '__init__.py', '')
  _write(tmp_path / PROJECT / 'experiment.py', '')
  assert not arrow_errors(tmp_path)
  _write(tmp_path / path, code)
  assert any(message in error for error in arrow_errors(tmp_path))


@pytest.mark.parametrize(
  ('path', 'code', 'message'),
  [
    ('ds_jax/search/x.py', 'import transformers', 'belongs in'),
    ('ds_jax/model/decoder.py', 'from transformers import AutoConfig', 'belongs in'),
    ('ds_jax/experiment.py', 'def f():\n  import orbax.checkpoint as ocp', 'belongs in'),
    ('ds_jax/evaluate/x.py', 'import optax', 'belongs in'),
    ('ds_jax/evaluate/x.py', 'import torch', 'tests only'),
    ('ds_jax/verify/x.py', 'import jax', 'verify works with'),
    ('ds_jax/types.py', 'import jax', 'types works with'),
    ('ds_jax/train/x.py', 'import rich', 'train works with'),
    ('configs/x.py', 'import orbax', 'belongs in'),
  ],
)
def test_breach_of_the_fence_is_reported(tmp_path, path, code, message):
  assert not fence_errors(tmp_path)
  _write(tmp_path / path, code)
  assert any(message in error for error in fence_errors(tmp_path))


def test_allowed_imports_pass(tmp_path):
  _write(
    tmp_path / 'ds_jax/types.py',
    'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import jax\nimport numpy as np',
  )
  _write(tmp_path / 'ds_jax/cli.py', 'def main():\n  from ds_jax import experiment')
  _write(tmp_path / 'ds_jax/experiment.py', 'from ds_jax import search, train')
  _write(tmp_path / 'ds_jax/model/convert.py', 'import transformers')
  _write(tmp_path / 'configs/x.py', 'import ml_collections')
  _write(tmp_path / 'ds_jax/search/__init__.py', '')
  _write(tmp_path / 'ds_jax/train/__init__.py', '')
  assert not arrow_errors(tmp_path) + fence_errors(tmp_path)


def test_a_heavy_import_is_seen(tmp_path):
  _write(tmp_path / 'heavy.py', 'import sympy')
  assert loaded_by('import heavy', tmp_path) == {'sympy'}


def _write(path: Path, code: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  ast.parse(code)
  path.write_text(code)
