"""Runs that are killed without warning end in the same bits as a run that never was."""

from __future__ import annotations

import shutil
import time

import pytest

from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

PATIENCE = 240  # seconds, on a loaded machine


def finish(config_path, workdir):
  process = tiny_run.start(config_path, workdir.root)
  _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, err
  return err


def kill_once(config_path, workdir, is_time):
  """Starts the run and sends SIGKILL as soon as `is_time()`."""
  process = tiny_run.start(config_path, workdir.root)
  deadline = time.monotonic() + PATIENCE
  while not is_time():
    assert process.poll() is None and time.monotonic() < deadline, process.communicate()
    time.sleep(0.002)
  process.kill()
  process.communicate(timeout=PATIENCE)
  assert process.returncode == -9


@pytest.fixture(scope='module', autouse=True)
def compiled_for_users():
  """Whole runs with XLA's own optimisations, which other tests do without."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XLA_FLAGS', '')
    yield


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """Config file, a warm-started workdir to copy, and an uninterrupted run."""
  root = tmp_path_factory.mktemp('kill')
  path = tiny_run.config_file(root)
  warm = tiny_run.warmstart(root / 'warm', tiny_run.config())
  shutil.copytree(warm.root, root / 'done')
  finish(path, Workdir(root / 'done'))
  return path, warm, Workdir(root / 'done')


def test_a_run_that_is_killed_twice_ends_in_the_same_bits(done, tmp_path):
  path, warm, uninterrupted = done
  shutil.copytree(warm.root, tmp_path / 'run')
  workdir = Workdir(tmp_path / 'run')
  journal = workdir.root / 'journal'
  has_trees_of = lambda name: any(f.stat().st_size for f in journal.glob(name))
  # In the filter of the first round, and in a search three checkpoints later.
  kill_once(path, workdir, lambda: has_trees_of('filter_0*'))
  kill_once(path, workdir, lambda: has_trees_of('step_000004.search*'))
  assert 'Continuing' in finish(path, workdir)
  tiny_run.assert_same_run(workdir, uninterrupted, tiny_run.config())
