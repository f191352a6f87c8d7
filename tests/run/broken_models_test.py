"""A model that computes no numbers ends a command where that appears; nothing is lost by it."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds_jax.checks import NotFinite
from ds_jax.cli import main
from ds_jax.run import checkpoint
from ds_jax.run.broken import not_finite
from ds_jax.run.evaluation import evaluate
from ds_jax.run.exporting import export
from ds_jax.run.learning import Learning
from ds_jax.run.searching import search_problem
from ds_jax.run.workdir import Workdir
from ds_jax.sharding import path_name
from ds_jax.testing import tiny_run

CONFIG = tiny_run.config(
  curriculum=dict(round_steps=(3,), filter_samples=0), checkpoint=dict(every_steps=1)
)
# The same with no checkpoint on the way.
RARELY_SAVED = dataclasses.replace(
  CONFIG, checkpoint=dataclasses.replace(CONFIG.checkpoint, every_steps=10)
)


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  return tiny_run.warmstart(tmp_path_factory.mktemp('broken') / 'warm', CONFIG)


@pytest.fixture
def workdir(warm, tmp_path):
  shutil.copytree(warm.root, tmp_path / 'run')
  return Workdir(tmp_path / 'run')


def change(params, name, change_leaf):
  """The parameters, one of them changed."""

  def changed(path, leaf):
    return change_leaf(leaf) if path_name(path) == name else leaf

  return jax.tree_util.tree_map_with_path(changed, params)


def spoil_number(x):
  return x.at[0, 3, 5].set(jnp.nan)


def spoil_step(monkeypatch, number):
  """The updates of one step leave a NaN in a parameter, though their gradients are finite."""
  update, count = Learning.update, []

  def spoiled(learning, batches, skipped_in_row):
    result = update(learning, batches, skipped_in_row)
    count.append(len(batches))
    if len(count) == number:
      params = change(learning.state.params, 'layers/up_kernel', spoil_number)
      learning.state = learning.state._replace(params=params)
    return result

  monkeypatch.setattr(Learning, 'update', spoiled)


def saved_steps(workdir):
  """Training steps in the checkpoints."""
  files = workdir.checkpoints.glob('*/host/data.json')
  return sorted(json.loads(file.read_text())['host']['step'] for file in files)


@pytest.mark.long
def test_parameters_that_are_not_finite_are_never_saved(workdir, monkeypatch, tmp_path):
  spoil_step(monkeypatch, 2)
  with pytest.raises(NotFinite, match=r'layers\.up_kernel of the state to be saved.*not saved'):
    tiny_run.train(workdir, CONFIG)
  assert saved_steps(workdir)[-1] == 1
  spoil_step(monkeypatch, 1)
  with monkeypatch.context() as patched:  # as versions before this check saved them
    patched.setattr(checkpoint, '_not_finite', lambda examined: [])
    with pytest.raises(NotFinite):
      tiny_run.train(workdir, CONFIG)
  assert saved_steps(workdir)[-1] == 2
  session = tiny_run.session(workdir, CONFIG)
  commands = {
    'evaluate': lambda: evaluate(session),
    'search': lambda: search_problem(session, text='6 from 1 2 3', answer=None, select='vote'),
    'export': lambda: export(session, checkpoint=workdir.root, output=tmp_path / 'out'),
    'train': lambda: tiny_run.train(workdir, CONFIG),
  }
  for command in commands.values():
    with pytest.raises(NotFinite, match=r'Checkpoint \d+ in .* holds layers\.up_kernel'):
      command()
  assert not (tmp_path / 'out').exists()
  monkeypatch.undo()
  newest = max(workdir.checkpoints.iterdir(), key=lambda path: int(path.name))
  shutil.rmtree(newest)  # as the message says
  assert tiny_run.train(workdir, CONFIG)['steps'] == 3


def test_a_search_with_them_says_so_and_what_to_do(workdir, monkeypatch):
  spoil_step(monkeypatch, 1)
  words = r'log-probs .* are not finite: parameters are not, layers/up_kernel.*after step 1.*whole'
  with pytest.raises(NotFinite, match=words):
    tiny_run.train(workdir, RARELY_SAVED)
  assert saved_steps(workdir)[-1] == 0


def test_a_model_that_computes_none_is_bad_input(workdir, tmp_path, capsys):
  """Activations that overflow are told apart from weights that are no numbers."""
  folder = shutil.copytree(workdir.warmstart, workdir.root / 'other')
  argv = ['evaluate', f'--config={tiny_run.config_file(tmp_path)}', f'--workdir={workdir.root}']
  argv += [f'--config.model.path={folder}', '--config.evaluate.num_problems=1']

  def said_of(change):
    tensors = load_file(folder / 'model.safetensors')
    for name in tensors:
      if 'up_proj' in name or 'gate_proj' in name:
        change(tensors[name])
    save_file(tensors, folder / 'model.safetensors')
    assert main(argv) == 2
    return ' '.join(capsys.readouterr().err.split())

  said = said_of(lambda x: np.multiply(x, np.float32(1e30), out=x))  # their product is infinite
  assert 'are not finite, though its parameters are: activations overflow' in said
  said = said_of(lambda x: np.put(x, 0, np.nan))
  assert 'model.layers.0.mlp.gate_proj.weight: 1 NaN; model.layers.0.mlp.up_proj' in said
  assert 'Traceback' not in said


def test_not_finite_names_leaves():
  tree = {'a': np.float32([1, np.inf]), 'b': jnp.ones(3, jnp.bfloat16), 'c': np.float32(np.nan)}
  assert not_finite(tree) == ['a', 'c']
  assert not not_finite(jax.tree.map(jnp.zeros_like, tree))
