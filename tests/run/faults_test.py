"""Faults in the middle of a run: each has one outcome, and nothing already computed is lost.

Gradients that are not finite: training_test.py. Kills: kill_test.py.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal

import numpy as np
import pytest

from ds_jax.interfaces import SilentProgress
from ds_jax.report.metrics import read_metrics
from ds_jax.run import training as training_lib
from ds_jax.run.checkpoint import Checkpointer, SaveError
from ds_jax.run.growing import Journal
from ds_jax.run.session import Session
from ds_jax.run.stopping import Stopped, StoppedAlone
from ds_jax.run.training import Training
from ds_jax.run.workdir import Workdir
from ds_jax.search.engine import engine as engine_lib
from ds_jax.search.engine.engine import Interrupted
from ds_jax.search.engine.host_tree import Job
from ds_jax.testing import tiny_run

CONFIG = tiny_run.config(curriculum=dict(round_steps=(4,)), checkpoint=dict(every_steps=1))


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A warm-started workdir to copy, and an uninterrupted run."""
  root = tmp_path_factory.mktemp('faults')
  warm = tiny_run.warmstart(root / 'warm', CONFIG)
  shutil.copytree(warm.root, root / 'done')
  tiny_run.train(Workdir(root / 'done'), CONFIG)
  return warm, Workdir(root / 'done')


@pytest.fixture
def workdir(done, tmp_path):
  shutil.copytree(done[0].root, tmp_path / 'run')
  return Workdir(tmp_path / 'run')


def stop_in(workdir, step):
  """Trains until trees of a step are journaled; returns that journal's paths."""
  found = lambda: [
    p for p in (workdir.root / 'journal').glob(f'step_{step:06d}.search*') if p.stat().st_size
  ]
  with pytest.raises(Stopped):
    tiny_run.train(workdir, CONFIG, should_stop=lambda: bool(found()))
  return found()


def notes_of(workdir):
  """Trains to the end; the notes that a person saw."""
  notes = []
  progress = SilentProgress()
  progress.note = notes.append
  with tiny_run.opened(Session(CONFIG, workdir, progress)) as training:
    training.run()
  return notes


def request_in_update(monkeypatch, *, is_mid_step):
  """A `should_stop` that says so from the first, or the second, minibatch of step 2 on."""
  asked, poll = [], Training.poll

  def ask(training):
    if training.host.step == 2 and training.learning.is_mid_step == is_mid_step:
      asked.append(True)
    poll(training)

  monkeypatch.setattr(Training, 'poll', ask)
  return lambda: bool(asked)


def saved_step(workdir):
  """Steps in the newest checkpoint."""
  newest = max(int(p.name) for p in workdir.checkpoints.iterdir())
  path = workdir.checkpoints / str(newest) / 'host/data.json'
  return json.loads(path.read_text())['host']['step']


@contextlib.contextmanager
def file_limit(size):
  """Writes beyond `size` bytes of a file fail, as on a full disk."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_full_disk_ends_the_run_and_it_goes_on_where_there_is_space(done, workdir, monkeypatch):
  begin = Checkpointer.begin_save

  def begin_on_a_full_disk(self, step, *arguments):
    if step < 4:
      return begin(self, step, *arguments)
    with file_limit(2000):
      begin(self, step, *arguments)
      self.wait()

  monkeypatch.setattr(Checkpointer, 'begin_save', begin_on_a_full_disk)
  with pytest.raises(SaveError, match='disk is full.*Checkpoint 3 is still good'):
    tiny_run.train(workdir, CONFIG)
  kept = list((workdir.root / 'journal').iterdir())
  assert kept  # trees of the step that was not saved
  monkeypatch.undo()
  assert 'Continuing at round 0, step 1.' in notes_of(workdir)
  tiny_run.assert_same_run(workdir, done[1], CONFIG)


def test_a_truncated_newest_checkpoint_is_passed_over(done, workdir):
  stop_in(workdir, 2)
  newest = max(
    (p for p in workdir.checkpoints.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
  )
  victim = max((newest / 'state/d').iterdir(), key=lambda p: p.stat().st_size)
  os.truncate(victim, victim.stat().st_size // 2)
  notes = notes_of(workdir)
  assert any(f'checkpoint {newest.name} is damaged and passed over' in note for note in notes)
  assert (workdir.checkpoints / f'damaged.{newest.name}').is_dir()
  tiny_run.assert_same_run(workdir, done[1], CONFIG)


def test_broken_tails_of_files_are_cut_and_whole_lines_used(done, workdir):
  (path,) = stop_in(workdir, 2)
  whole = Journal(path).read()
  lines = path.read_bytes()
  path.write_bytes(lines + lines.splitlines()[0][:100])  # no end of line
  with (workdir.root / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 2, "kind": "tr')
  (workdir.root / 'replay.jsonl').write_text('{"problem_id": "coun')  # an export, never read
  assert whole
  grown, append = [], Journal.append
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      Journal,
      'append',
      lambda self, tree: (grown.append((self.path.name, tree.problem_id)), append(self, tree)),
    )
    notes_of(workdir)
  assert not {(path.name, tree.problem_id) for tree in whole} & set(grown)
  tiny_run.assert_same_run(workdir, done[1], CONFIG)
  assert len(read_metrics(workdir.root / 'metrics.jsonl')) == 7


def test_killed_verifier_workers_are_replaced(done, workdir):
  kills, pools = [], []

  def kill_workers():
    pool = pools[0]
    answered = sum(pool.counts.values())
    # One that has answered: a worker that cannot even start is another fault.
    if len(kills) < 8 and answered > (kills[-1][1] if kills else 0):
      for pid in pool.worker_pids:
        with contextlib.suppress(ProcessLookupError):  # one killed before has just been waited for
          os.kill(pid, signal.SIGKILL)
          kills.append((pid, answered))
    return False

  with tiny_run.opened(tiny_run.session(workdir, CONFIG, kill_workers)) as training:
    pools.append(training.engines.pool)
    training.run()
  assert len({pid for pid, _ in kills}) >= 3
  tiny_run.assert_same_run(workdir, done[1], CONFIG)


@pytest.mark.parametrize(
  'is_mid_step, grace, error, step',
  [
    (False, 0, Stopped, 2),  # nothing has been changed: the state before the step is saved
    (True, 60, Stopped, 3),  # there is time to finish the step
    (True, 0, StoppedAlone, 0),
  ],
)  # there is not: the newest checkpoint and the journals are good
def test_a_request_to_stop_is_heard_inside_an_update(
  done, workdir, monkeypatch, is_mid_step, grace, error, step
):
  rare = tiny_run.config(curriculum=dict(round_steps=(4,)), checkpoint=dict(every_steps=9))
  should_stop = request_in_update(monkeypatch, is_mid_step=is_mid_step)
  monkeypatch.setattr(training_lib, 'UPDATE_GRACE', grace)
  with pytest.raises(Stopped) as raised:
    tiny_run.train(workdir, rare, should_stop=should_stop)
  assert raised.type is error and saved_step(workdir) == step
  monkeypatch.undo()
  grown, append = [], Journal.append
  monkeypatch.setattr(
    Journal, 'append', lambda self, tree: (grown.append(self.path.name[:11]), append(self, tree))
  )
  notes_of(workdir)
  assert set(grown) == {'step_000003', 'evaluate_af'}  # all trees of the steps before were kept
  tiny_run.assert_same_run(workdir, done[1], CONFIG)


def test_a_request_to_stop_is_heard_while_verdicts_are_awaited(workdir):
  started, asked = [], []

  def verdicts_that_never_come(items):
    started.append(len(items))
    return [concurrent.futures.Future() for _ in items]

  def should_stop():
    asked.append(bool(started))
    return sum(asked) > 3

  with tiny_run.opened(tiny_run.session(workdir, CONFIG, should_stop)) as training:
    engine = training.engines.search_engine
    engine = dataclasses.replace(engine, verify_fn=verdicts_that_never_come)
    jobs = [Job(*prompt) for prompt in training.eval_prompts[:2]]
    with pytest.raises(Interrupted):
      engine_lib.run(
        engine,
        training.learning.params(),
        jobs,
        np.zeros(2, np.uint32),
        on_finish=lambda tree: None,
        should_stop=should_stop,
      )
  assert started
