"""Arrows that may never be, the fence around third-party packages, and what imports cost."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from build_targets import load_build, reached_from
from import_graph import PROJECT, imports_of, module_file, module_name

# BUILD states which part of ds_jax imports which (build_file_test.py compares it with the imports),
# and the order of its targets states the layers. What follows is what BUILD cannot say: arrows that
# nobody may add to it, {part: {part it must not reach, directly or through others: why}}.
_ASSEMBLED = 'a folder is put together with others in run/; it does not know them'
FORBIDDEN = {
  'search': {
    'model': 'search receives expand_fn',
    'decode': 'search receives expand_fn',
    'verify': 'search receives verify_fn',
  },
  'train': {
    'search': 'training is given trajectories, of whatever sampler',
    'decode': 'training is given trajectories, of whatever sampler',
  },
  'run': {
    'plan': 'plan compiles what a run is made of; the run does not know it',
    'cli': 'a run knows no command line',
    'api': 'a run does not know who calls it',
  },
  'api': {'cli': 'both are ways to what run does'},
}
BASE = ('types', 'checks', 'interfaces', 'sharding', 'hub', 'config')
FOLDERS = ('search', 'data', 'verify', 'model', 'train', 'decode', 'evaluate', 'report')
for _part in FOLDERS:
  FORBIDDEN[_part] = dict.fromkeys(('run', 'plan', 'api', 'cli'), _ASSEMBLED) | FORBIDDEN.get(
    _part, {}
  )
for _part in BASE:
  FORBIDDEN[_part] = dict.fromkeys(
    (*FOLDERS, 'run', 'plan', 'api', 'cli'), 'the base knows no folder'
  )

# Third-party packages that take seconds to load.
HEAVY = (
  'jax',
  'flax',
  'optax',
  'orbax',
  'transformers',
  'tokenizers',
  'tensorflow_datasets',
  'sympy',
  'matplotlib',
)
# Files, and what must not be loaded as they are imported: `import ds_jax` and `--help` are instant,
# and a grader's worker has no jax.
LIGHT = {
  'ds_jax/__init__.py': HEAVY,
  'ds_jax/cli/__init__.py': HEAVY,
  'ds_jax/verify/*.py': ('jax', 'flax', 'optax', 'orbax', 'transformers'),
}

# Third-party packages and the only places that may import them.
FENCE = {
  'transformers': ('ds_jax/data/', 'ds_jax/model/huggingface/', 'ds_jax/examples/'),
  'tokenizers': ('ds_jax/data/',),
  'huggingface_hub': ('ds_jax/hub.py', 'ds_jax/run/model_card.py', 'ds_jax/run/uploading.py'),
  'safetensors': ('ds_jax/model/huggingface/tensors.py',),
  'tensorflow_datasets': ('ds_jax/data/',),
  'array_record': ('ds_jax/data/',),
  'datasets': ('ds_jax/data/',),
  'reasoning_gym': ('ds_jax/data/', 'ds_jax/verify/'),
  'flint': ('ds_jax/verify/',),
  'optax': ('ds_jax/train/',),
  'orbax': ('ds_jax/run/checkpoint.py',),
  'ml_collections': ('configs/', 'ds_jax/config/', 'ds_jax/cli/'),
  'matplotlib': ('ds_jax/report/',),
  'tensorboardX': ('ds_jax/report/',),
  'torch': ('ds_jax/examples/',),
}
# Nowhere in ds_jax: these are for tests only.
FENCE |= dict.fromkeys(('pytest', 'tensorflow'), ())

# The core works with these alone; the grader and the base have no jax.
CORE = {'jax', 'jaxlib', 'flax', 'optax', 'numpy'}
ONLY = {
  'types': {'numpy'},
  'checks': set(),
  'interfaces': CORE,
  'config': {'ml_collections'},
  'sharding': CORE,
  'hub': {'huggingface_hub'},
  'model': CORE | {'transformers', 'safetensors'},  # fenced in above
  'decode': CORE,
  'search': CORE,
  'train': CORE,
  'verify': {'numpy', 'flint', 'reasoning_gym'},
}


def part_of(module: str) -> str:
  """'search' for ds_jax.search.tree; 'ds_jax' for the package itself."""
  return module.split('.')[1] if '.' in module else module


def arrow_errors(root: Path) -> list[str]:
  """Parts that reach, by BUILD, what FORBIDDEN says they never may."""
  targets = load_build(root)
  errors = []
  for part, reasons in FORBIDDEN.items():
    for forbidden in sorted(reached_from(part, targets) & reasons.keys()):
      through = [d for d in targets[part].deps if forbidden in {d, *reached_from(d, targets)}]
      errors.append(
        f'BUILD: {part} must not reach {forbidden}, as it does by deps {through}: '
        f'{reasons[forbidden]}'
      )
  return errors


def weight_errors(root: Path) -> list[str]:
  """Chains of imports, outside functions, from a file of LIGHT to what it must not load."""
  errors = []
  for pattern, heavy in LIGHT.items():
    for path in sorted(root.glob(pattern)):
      errors += _heavy_chains(path, heavy, root)
  return errors


def _heavy_chains(start: Path, heavy: tuple[str, ...], root: Path) -> list[str]:
  """One message for each package of `heavy` that importing the file `start` loads."""
  chains = {start: ''}  # file: how importing `start` comes to import it
  errors = {}
  waiting = [start]
  while waiting:
    path = waiting.pop(0)
    for imported in imports_of(path, root):
      if imported.is_lazy or imported.is_typing:
        continue
      here = f'{chains[path]}{path.relative_to(root)}:{imported.line} imports {imported.module}'
      if imported.top in heavy:
        message = f'{here}; import it inside the function that needs it'
        errors.setdefault(imported.top, message)
      for file in _files_run_by(imported.module, root):
        if file not in chains:
          chains[file] = f'{here}, '
          waiting.append(file)
  return list(errors.values())


def _files_run_by(module: str, root: Path) -> list[Path]:
  """The file of a module of ours, and `__init__.py` of every package above it."""
  parts = module.split('.')
  names = ['.'.join(parts[: i + 1]) for i in range(len(parts))]
  files = [module_file(name, root) for name in names if parts[0] == PROJECT]
  return [file for file in files if file is not None]


def fence_errors(root: Path) -> list[str]:
  """Third-party imports outside the places that FENCE and ONLY name."""
  errors = []
  paths = [p for folder in (PROJECT, 'configs') for p in sorted((root / folder).rglob('*.py'))]
  for path in paths:
    where = str(path.relative_to(root))
    part = part_of(module_name(path, root))
    for imported in imports_of(path, root):
      places = FENCE.get(imported.top)
      if places is not None and not where.startswith(places):
        errors.append(
          f'{where}:{imported.line}: {imported.top} belongs in {places or "tests only"}'
        )
      is_ours = imported.top in sys.stdlib_module_names or imported.top == PROJECT
      if part in ONLY and not is_ours and not imported.is_typing and imported.top not in ONLY[part]:
        allowed = sorted(ONLY[part])
        errors.append(
          f'{where}:{imported.line}: {part} works with {allowed} alone, not {imported.top}'
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


def test_every_part_stands_in_the_rules(root):
  """A new part is a folder, or belongs to the base, or stands above the folders."""
  parts = {part_of(module_name(path, root)) for path in (root / PROJECT).rglob('*.py')}
  above = {'run', 'plan', 'api', 'cli', 'examples', 'testing', '__main__', PROJECT}
  assert parts == {*BASE, *FOLDERS, *above}, 'add the part to BASE or FOLDERS'


def test_fence(root):
  expect_none(fence_errors(root))


def test_light_modules_import_nothing_heavy(root):
  expect_none(weight_errors(root))


def test_import_is_instant(root):
  code = (
    'import time; started = time.perf_counter(); import ds_jax; '
    'print(time.perf_counter() - started)'
  )
  assert min(float(run_fresh(code, root)) for _ in range(3)) < 0.3


@pytest.mark.parametrize('pattern', sorted(LIGHT))
def test_light_files_load_nothing_heavy(root, pattern):
  modules = sorted(module_name(path, root) for path in root.glob(pattern))
  assert not loaded_by(f'import {", ".join(modules)}', root) & {*LIGHT[pattern]}


def lost_names(path: Path, root: Path) -> list[str]:
  """Modules of ours that the text of a file imports, in strings too, and that do not exist."""
  errors = []
  for number, line in enumerate(path.read_text().splitlines(), 1):
    for module in re.findall(rf'\b(?:from|import) ({PROJECT}(?:\.\w+)+)', line):
      if module_file(module, root) is None:
        errors.append(f'{path.relative_to(root)}:{number}: no module {module!r}')
  return errors


def test_code_in_strings_and_in_the_readme_imports_what_exists(root):
  errors = lost_names(root / 'README.md', root)
  for folder in ('tests', 'launch', PROJECT, 'configs'):
    for path in sorted((root / folder).rglob('*.py')):
      if path.name not in ('imports_test.py', 'build_file_test.py'):  # they name what is lost
        errors += lost_names(path, root)
  expect_none(errors)


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
  ('part', 'deps', 'message'),
  [
    ('search', ['model'], 'search must not reach model'),
    ('search', ['train'], "search must not reach model, as it does by deps ['train']"),
    ('search', ['verify'], 'search must not reach verify'),
    ('train', ['search'], 'train must not reach search'),
    ('train', ['model', 'decode'], 'train must not reach decode'),
    ('report', ['run'], 'report must not reach run'),
    ('types', ['data'], 'types must not reach data'),
    ('hub', ['model'], 'hub must not reach model'),
    ('run', ['plan'], 'run must not reach plan'),
  ],
)
def test_wrong_arrow_is_reported(tmp_path, part, deps, message):
  arrows = {'train': ['model'], 'decode': ['model'], 'plan': ['run']}
  parts = (*BASE, *FOLDERS, 'run', 'plan', 'api', 'cli')
  assert not _arrow_errors(tmp_path, {name: arrows.get(name, []) for name in parts})
  arrows |= {part: deps}
  errors = _arrow_errors(tmp_path, {name: arrows.get(name, []) for name in parts})
  assert any(message in error for error in errors)


def _arrow_errors(root: Path, arrows: dict[str, list[str]]) -> list[str]:
  rules = [f'py_library(name = {name!r}, deps = {deps})' for name, deps in arrows.items()]
  _write(root / 'BUILD', '\n'.join(rules))
  return arrow_errors(root)


@pytest.mark.parametrize(
  ('path', 'code', 'message'),
  [
    ('ds_jax/cli/__init__.py', 'import jax', '__init__.py:1 imports jax; import it inside'),
    ('ds_jax/cli/__init__.py', 'from ds_jax import search', 'imports ds_jax.search, ds_jax/search'),
    ('ds_jax/cli/__init__.py', 'from ds_jax.search import tree', '__init__.py:1 imports jax'),
    ('ds_jax/cli/__init__.py', 'import ds_jax.cli.search', 'cli/search.py:1 imports jax'),
    ('ds_jax/__init__.py', 'from ds_jax import types\nimport ds_jax.search', 'imports jax'),
    ('ds_jax/verify/x.py', 'import jax.numpy as jnp', 'imports jax.numpy'),
  ],
)
def test_heavy_chain_is_reported(tmp_path, path, code, message):
  _write(tmp_path / 'ds_jax/__init__.py', "_EXPORTS = {'f': 'ds_jax.search'}")
  _write(tmp_path / 'ds_jax/types.py', 'import numpy as np')
  _write(tmp_path / 'ds_jax/search/__init__.py', 'import jax')
  _write(tmp_path / 'ds_jax/search/tree.py', '')
  _write(tmp_path / 'ds_jax/cli/search.py', 'import jax')
  _write(tmp_path / 'ds_jax/cli/__init__.py', 'def f():\n  import ds_jax.cli.search')
  _write(tmp_path / 'ds_jax/verify/heavy.py', 'import sympy')
  assert not weight_errors(tmp_path)
  _write(tmp_path / path, code)
  assert any(message in error for error in weight_errors(tmp_path))


@pytest.mark.parametrize(
  ('path', 'code', 'message'),
  [
    ('ds_jax/search/x.py', 'import transformers', 'belongs in'),
    ('ds_jax/model/decoder.py', 'from transformers import AutoConfig', 'belongs in'),
    ('ds_jax/run/experiment.py', 'def f():\n  import orbax.checkpoint as ocp', 'belongs in'),
    ('ds_jax/evaluate/x.py', 'import optax', 'belongs in'),
    ('ds_jax/evaluate/x.py', 'import torch', 'belongs in'),
    ('ds_jax/evaluate/x.py', 'import pytest', 'tests only'),
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
  _write(tmp_path / 'ds_jax/model/huggingface/load.py', 'import transformers')
  _write(tmp_path / 'ds_jax/hub.py', 'import huggingface_hub')
  _write(tmp_path / 'configs/x.py', 'import ml_collections')
  assert not fence_errors(tmp_path)


def test_a_lost_name_is_reported(tmp_path):
  _write(tmp_path / 'ds_jax/types.py', '')
  _write(tmp_path / 'x.py', "CODE = 'import os; from ds_jax.types import Problem'")
  assert not lost_names(tmp_path / 'x.py', tmp_path)
  _write(tmp_path / 'x.py', "CODE = 'import os; from ds_jax.lost import Problem'")
  assert lost_names(tmp_path / 'x.py', tmp_path) == ["x.py:1: no module 'ds_jax.lost'"]


def test_a_heavy_import_is_seen(tmp_path):
  _write(tmp_path / 'heavy.py', 'import sympy')
  assert loaded_by('import heavy', tmp_path) == {'sympy'}


def _write(path: Path, code: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  ast.parse(code)
  path.write_text(code)
