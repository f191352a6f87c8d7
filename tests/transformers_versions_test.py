"""The tests of tokenizers and Hugging Face folders with other versions of transformers.

The suite runs with the newest; here the oldest that pyproject.toml admits, and one that rebuilds
byte-level files by the rules of Llama 2. Each is installed once, into a folder of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

TESTS = (
  'data/tokenizer_files_test.py',
  'data/end_ids_test.py',
  'data/chat_template_test.py',
  'data/data_prompts_test.py',
  'model/model_families_test.py',
  'model/model_folders_test.py',
  'run/export_test.py',
  'run/prompts_test.py',
)
# What a version needs otherwise than the newest does; all else is common to both.
_OF_ITS_OWN = ('tokenizers', 'huggingface-hub')
_OF_HUB = ('httpx', 'httpcore', 'typer', 'shellingham')


def admitted(root: pathlib.Path) -> SpecifierSet:
  project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
  requirements = map(Requirement, project['dependencies'])
  return next(r.specifier for r in requirements if r.name == 'transformers')


def oldest(root: pathlib.Path) -> str:
  return next(s.version for s in admitted(root) if s.operator == '>=')


def installed(folder: pathlib.Path, version: str) -> pathlib.Path:
  """The folder with this version of transformers; skips where packages cannot be had."""
  if not (folder / 'complete').exists():
    pip_install(folder, f'transformers=={version}')
    (metadata,) = importlib.metadata.distributions(name='transformers', path=[str(folder)])
    needs = [Requirement(text) for text in metadata.requires or ()]
    needs = [str(n).partition(';')[0] for n in needs if n.name in _OF_ITS_OWN and not n.marker]
    pip_install(folder, *needs, *_OF_HUB)
    (folder / 'complete').touch()
  return folder


def pip_install(folder: pathlib.Path, *packages: str) -> None:
  pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-compile']
  command = [*pip, '--disable-pip-version-check', '--target', str(folder), *packages]
  result = subprocess.run(command, capture_output=True, text=True)
  if result.returncode:
    reason = result.stderr.strip().splitlines()[-1:] or ['']
    pytest.skip(f'cannot install {", ".join(packages)}: {reason[0]}')


@pytest.mark.long
@pytest.mark.parametrize('name', ['oldest', '5.3.0'])
def test_tokenizers_and_folders_with_another_version(root, pytestconfig, name):
  version = oldest(root) if name == 'oldest' else name
  assert version in admitted(root)
  cache = pytestconfig.cache.mkdir('transformers')
  folder = installed(cache / version, version)
  path = os.pathsep.join([str(folder), str(root)])
  code = f'import transformers; assert transformers.__version__ == {version!r}'
  env = {**os.environ, 'PYTHONPATH': path}
  subprocess.run([sys.executable, '-c', code], env=env, check=True)
  tests = [str(root / 'tests' / test) for test in TESTS]
  command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *tests]
  result = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True)
  assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
  assert re.search(r'\d+ passed', result.stdout)
