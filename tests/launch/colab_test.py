"""launch/colab.ipynb: whole, without outputs, and, in the long tier, run from the first cell on."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / 'launch/colab.ipynb'
WIDTH = 100  # columns of code
OF_EXTRA = 'the extra `test` has it'
# For a test: the learning is left out, the way is gone.
SMALL_SIZES = """
SIZES = dict(
  data={'chain': {'num_train': 64, 'num_heldout': 16, 'num_warmstart': 200}},
  warmstart={'num_steps': 20},
  search={'num_slots': 16},
  curriculum={'round_steps': (2,)},
  evaluate={'num_problems': 8, 'num_samples': 2, 'num_slots': 16, 'every_steps': 1},
)
"""


def cells(kind: str) -> dict[str, str]:
  """The sources of the cells of a kind, by their ids."""
  found = {}
  for cell in json.loads(NOTEBOOK.read_text())['cells']:
    if cell['cell_type'] == kind:
      found[cell['id']] = ''.join(cell['source'])
  return found


def test_it_is_a_notebook():
  nbformat = pytest.importorskip('nbformat', reason=OF_EXTRA)
  nbformat.validate(nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT))


def test_it_has_no_outputs():
  notebook = json.loads(NOTEBOOK.read_text())
  assert notebook['metadata']['kernelspec']['name'] == 'python3'
  for cell in notebook['cells']:
    assert not cell.get('outputs') and cell.get('execution_count') is None, cell['id']
    assert set(cell['metadata']) <= {'tags'}, cell['id']
  (tagged,) = [cell['id'] for cell in notebook['cells'] if cell['metadata']]
  assert tagged == 'sizes'


def test_its_code_parses_and_is_narrow():
  for name, source in cells('code').items():
    ast.parse(source)
    assert max(map(len, source.splitlines())) <= WIDTH, name


def test_what_it_names_exists():
  everything = '\n'.join([*cells('markdown').values(), *cells('code').values()])
  files = set(re.findall(r'configs/\w+\.py', everything))
  assert 'configs/quickstart.py' in files
  assert all((ROOT / file).is_file() for file in files), files


class Machine:
  """What the first cell finds installed, and what it runs."""

  def __init__(self, monkeypatch, tmp_path, versions, after):
    self.versions, self.after, self.ran = dict(versions), after, []
    monkeypatch.setattr(importlib.metadata, 'version', self.version)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(subprocess, 'run', self.run)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.chdir(tmp_path)

  def version(self, package):
    if package not in self.versions:
      raise importlib.metadata.PackageNotFoundError(package)
    return self.versions[package]

  def run(self, command, check):
    assert check
    self.ran.append([str(word) for word in command])
    if 'pip' in command:
      self.versions |= self.after

  def install(self):
    exec(cells('code')['install'], {})


@pytest.fixture
def machine(monkeypatch, tmp_path):
  versions = {'jax': '0.10.2', 'jaxlib': '0.10.2', 'numpy': '2.2'}
  return lambda after=(), **more: Machine(
    monkeypatch, tmp_path, versions | more, {'ds_jax': '0.1.0'} | dict(after)
  )


def make_checkout(folder):
  (folder / 'configs').mkdir(parents=True)
  (folder / 'configs/quickstart.py').touch()


def test_an_installed_checkout_is_left_alone(machine, tmp_path):
  make_checkout(tmp_path)
  here = machine(ds_jax='0.1.0')
  here.install()
  assert here.ran == [] and sys.path[0] == str(tmp_path)


def test_a_checkout_is_installed_with_what_the_machine_has(machine, tmp_path, monkeypatch):
  make_checkout(tmp_path)
  (tmp_path / 'launch').mkdir()
  tpu, laptop = machine(libtpu='0.0.30'), machine()
  monkeypatch.chdir(tmp_path / 'launch')
  for here, target in ((laptop, tmp_path), (tpu, f'{tmp_path}[tpu]')):
    monkeypatch.setattr(importlib.metadata, 'version', here.version)
    monkeypatch.setattr(subprocess, 'run', here.run)
    here.install()
    ((python, *_, last),) = here.ran
    assert python == sys.executable and last == str(target)


def test_elsewhere_a_checkout_is_fetched(machine, tmp_path):
  here = machine()
  here.install()
  clone, pip = here.ran
  assert clone[:2] == ['git', 'clone'] and clone[-1] == pip[-1] == str(tmp_path / 'ds_jax_checkout')
  make_checkout(tmp_path / 'ds_jax_checkout')
  here.install()
  assert len(here.ran) == 2


def test_a_restart_is_asked_for_where_pip_replaced_what_is_loaded(machine, tmp_path, monkeypatch):
  make_checkout(tmp_path)
  monkeypatch.setitem(sys.modules, 'numpy', sys)
  with pytest.raises(RuntimeError, match='numpy was in use .* Restart the session'):
    machine(after={'numpy': '2.3'}).install()


@pytest.mark.long
def test_it_runs(tmp_path):
  nbformat = pytest.importorskip('nbformat', reason=OF_EXTRA)
  nbclient = pytest.importorskip('nbclient', reason=OF_EXTRA)
  pytest.importorskip('ipykernel', reason=OF_EXTRA)
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  by_id = {cell['id']: cell for cell in notebook.cells}
  by_id['sizes'].source = SMALL_SIZES
  flags = ' '.join(f for f in os.environ['XLA_FLAGS'].split() if 'device_count' not in f)
  environment = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags}
  client = nbclient.NotebookClient(
    notebook, timeout=3600, kernel_name='python3', resources={'metadata': {'path': tmp_path}}
  )
  client.execute(env=environment)
  html = lambda name: ''.join(
    output.get('data', {}).get('text/html', '') for output in by_id[name].outputs
  )
  assert 'data:image/png;base64' in html('train') and 'pass@1' in html('train')
  for name in ('before', 'after'):
    assert '29 f2' in html(name) and '<details' in html(name)
  assert 'pass@1' in html('evaluate')
  assert {'README.md', 'config.json'} <= {path.name for path in (tmp_path / 'exported').iterdir()}
  card = by_id['export'].outputs[-1]['data']['text/markdown']
  assert card.lstrip().startswith('# notebook, step 2')
