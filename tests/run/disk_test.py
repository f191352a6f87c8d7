"""What a file system can do is found out before any work, and nothing is left of the trial."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys

import fake_mount
import pytest

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.interfaces import SilentProgress
from ds_jax.report.metrics import MetricsWriter
from ds_jax.run import disk
from ds_jax.run.disk import CannotWrite, probe, with_remedy
from ds_jax.run.durable import LineFile, write_atomically
from ds_jax.run.session import Session, probed
from ds_jax.run.stopping import Stopped
from ds_jax.run.warmstart import warmstart
from ds_jax.run.workdir import Workdir, lock
from ds_jax.testing import tiny_run


def refuse(patch, module, name, code):
  """A function of a module that raises."""
  patch.setattr(module, name, raising(code))


def raising(code):
  """A function that raises the system's error."""

  def raises(*arguments, **fields):
    raise OSError(code, os.strerror(code))

  return raises


def test_a_trial_leaves_nothing_behind(tmp_path):
  assert probe(tmp_path / 'deep/new') == ''
  assert not list(tmp_path.iterdir())
  (tmp_path / '.ds_jax_trial.killed/full').mkdir(parents=True)
  (tmp_path / 'mine').write_text('x')
  assert probe(tmp_path) == ''
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


@pytest.mark.parametrize('code', [errno.EMFILE, errno.EXDEV, errno.EBUSY, errno.EPERM])
def test_folders_that_cannot_be_renamed_are_told(tmp_path, monkeypatch, code):
  fake_mount.install(monkeypatch, tmp_path, code)
  assert f'[Errno {code}]' in probe(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'module, name, code, words',
  [
    (pathlib.Path, 'mkdir', errno.EROFS, 'Cannot make folders in .*mounted read-only'),
    (disk.tempfile, 'mkdtemp', errno.EACCES, 'Cannot make folders in .*let this user write'),
    (os, 'fsync', errno.ENOSPC, 'Cannot write files in .*disk is full; free some space'),
    (os, 'fsync', errno.EDQUOT, 'quota is used up'),
    (os, 'replace', errno.EIO, r'Cannot rename files in .*\[Errno 5\] Input/output error'),
  ],
)
def test_what_cannot_be_done_is_named_with_its_remedy(
  tmp_path, monkeypatch, module, name, code, words
):
  with monkeypatch.context() as patch:
    refuse(patch, module, name, code)
    with pytest.raises(CannotWrite, match=words):
      probe(tmp_path)
  assert not list(tmp_path.iterdir())


def test_what_cannot_be_removed_is_named(tmp_path, monkeypatch):
  remove = shutil.rmtree

  def refuse_once(path, ignore_errors=False):
    if not ignore_errors:
      raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    remove(path)

  monkeypatch.setattr(disk.shutil, 'rmtree', refuse_once)
  with pytest.raises(CannotWrite, match='Cannot remove files and folders'):
    probe(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('command', ['train', 'warmstart'])
def test_a_command_that_cannot_write_ends_with_74_before_any_work(
  command, capsys, tmp_path, monkeypatch
):
  path = tiny_run.config_file(tmp_path)
  refuse(monkeypatch, disk.tempfile, 'mkdtemp', errno.EROFS)
  argv = [command, f'--config={path}', f'--workdir={tmp_path / "new/run"}', '--json']
  assert main(argv) == 74
  captured = capsys.readouterr()
  assert 'mounted read-only; choose another place' in captured.err
  assert json.loads(captured.out.splitlines()[-1])['status'] == 'cannot_write'
  assert [p.name for p in tmp_path.iterdir()] == ['tiny.py']


def test_commands_that_write_no_checkpoints_try_nothing(tmp_path, monkeypatch, capsys):
  refuse(monkeypatch, disk.tempfile, 'mkdtemp', errno.EROFS)
  assert main(['report', f'--workdir={tmp_path}']) == 2
  assert 'no metrics.jsonl' in capsys.readouterr().err


def test_a_lock_on_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
  refuse(monkeypatch, os, 'write', errno.ENOSPC)
  with pytest.raises(CannotWrite, match='Cannot write files in .*/run: .*disk is full'):
    with lock(Workdir(tmp_path / 'deep/run'), print):
      pass
  assert not list(tmp_path.iterdir())


def fill_up(file):
  """From now on nothing fits into an open file."""
  with open('/dev/full', 'wb') as full:
    os.dup2(full.fileno(), file.fileno())


def test_a_disk_that_fills_up_is_told_with_file_and_remedy(tmp_path, monkeypatch):
  words = "No space left on device: '{}'. The disk is full; free some space"

  with pytest.raises(OSError) as caught, LineFile(tmp_path / 'lines', None) as lines:
    fill_up(lines._file)
    lines.append({'id': 1})
  assert words.format(tmp_path / 'lines') in with_remedy(caught.value)

  with pytest.raises(OSError) as caught:
    with contextlib.closing(MetricsWriter(tmp_path)) as metrics:
      fill_up(metrics._file)
      metrics.write(1, 'train', {'loss': 1.0})
  assert words.format(tmp_path / 'metrics.jsonl') in with_remedy(caught.value)

  refuse(monkeypatch, os, 'fsync', errno.ENOSPC)
  with pytest.raises(OSError) as caught:
    write_atomically(tmp_path / 'whole', 'text')
  assert words.format(tmp_path / 'whole') in with_remedy(caught.value)


def test_a_command_tells_the_remedy_of_a_full_disk(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr('ds_jax.cli.report.run', raising(errno.ENOSPC))
  (tmp_path / 'metrics.jsonl').touch()
  assert main(['report', f'--workdir={tmp_path}']) == 74
  assert 'The disk is full; free some space' in capsys.readouterr().err


def test_the_first_process_tries_for_all(tmp_path, monkeypatch):
  tried = []
  monkeypatch.setattr('ds_jax.run.session.probe', lambda folder: tried.append(folder) or 'refused')

  class Second:
    index, count, is_first = 1, 2, False
    answer = b'["", "[Errno 24]"]'

    def gather(self, data):
      return [self.answer, data]

  def session(team):
    return Session(None, Workdir(tmp_path), SilentProgress(), team=team)

  assert not probed(session(Second())).workdir.renames_folders and not tried
  Second.answer = b'["Cannot write files in x.", ""]'
  with pytest.raises(CannotWrite, match='in x'):
    probed(session(Second()))
  assert not probed(Session(None, Workdir(tmp_path), SilentProgress())).workdir.renames_folders
  assert tried == [tmp_path]


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys):
  refuse(monkeypatch, fcntl, 'flock', errno.ENOSYS)
  notes = []
  with lock(Workdir(tmp_path / 'run'), notes.append):
    assert (tmp_path / 'run/lock').exists()
  assert len(notes) == 1 and 'knows no locks' in notes[0]
  with LineFile(tmp_path / 'rows.jsonl', 'a run') as file:
    file.append({'id': 1})
  assert 'rows.jsonl knows no locks' in capsys.readouterr().err
  monkeypatch.undo()
  refuse(monkeypatch, fcntl, 'flock', errno.EIO)  # another fault is no lack of locks
  with pytest.raises(OSError), lock(Workdir(tmp_path / 'run'), notes.append):
    pass


def test_a_warm_start_where_folders_cannot_be_renamed(tmp_path, monkeypatch):
  """Neither the problems nor a checkpoint nor the model that is written need such a rename."""
  fake_mount.install(monkeypatch, tmp_path)
  config = tiny_run.config(warmstart=dict(num_steps=1))
  with pytest.raises(Stopped):
    warmstart(tiny_run.session(Workdir(tmp_path / 'run'), config, should_stop=lambda: True))
  assert (tmp_path / 'run/warmstart_checkpoints').exists()
  workdir = tiny_run.warmstart(tmp_path / 'run', config)
  assert (workdir.warmstart / 'config.json').exists()


@pytest.mark.long
def test_a_run_where_folders_cannot_be_renamed_ends_in_the_same_bits(tmp_path, monkeypatch):
  """It is stopped, and killed amid a checkpoint."""
  config = tiny_run.config(curriculum=dict(round_steps=(3,)), checkpoint=dict(every_steps=1))
  usual = tiny_run.warmstart(tmp_path / 'usual', config)
  tiny_run.train(usual, config)
  fake_mount.install(monkeypatch, tmp_path / 'mount')
  workdir = tiny_run.warmstart(tmp_path / 'mount/run', config)
  steps = lambda: [p for p in workdir.checkpoints.glob('*') if (p / 'commit_success.txt').exists()]
  with pytest.raises(Stopped):
    tiny_run.train(workdir, config, should_stop=lambda: len(steps()) == 2)
  newest = max(workdir.checkpoints.iterdir(), key=lambda path: int(path.name))
  killed = newest.with_name(str(int(newest.name) + 1))
  shutil.copytree(newest, killed)
  (killed / 'commit_success.txt').unlink()
  fields = json.loads((killed / '_CHECKPOINT_METADATA').read_text())
  fields['commit_timestamp_nsecs'] = None
  (killed / '_CHECKPOINT_METADATA').write_text(json.dumps(fields))
  summary = tiny_run.train(workdir, config)
  assert summary['status'] == 'done'
  tiny_run.assert_same_run(workdir, usual, config)
  assert main(['export', f'--checkpoint={workdir.root}', f'--output={tmp_path}/mount/out']) == 0


@pytest.mark.long
def test_the_commands_work_on_such_a_mount(tmp_path, root):
  """In processes of their own, as on a bucket that gcsfuse has mounted without a limit."""
  config = tiny_run.config_file(tmp_path, curriculum=dict(round_steps=(2,)))
  (tmp_path / 'site').mkdir()
  (tmp_path / 'mount').mkdir()
  refused = fake_mount.environment_of(tmp_path / 'site', tmp_path / 'mount', root)
  for command in ('warmstart', 'train'):
    argv = [sys.executable, '-m', 'ds_jax', command]
    argv += [f'--config={config}', f'--workdir={tmp_path}/mount/run']
    done = subprocess.run(argv, env=os.environ | refused, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'Too many open files' in done.stderr and '--rename-dir-limit=200000' in done.stderr
  assert (tmp_path / 'mount/run/report.html').exists()


def test_lines_that_have_the_run_as_it_was_typed_are_gone_on_with(tmp_path):
  path = tmp_path / 'rows.jsonl'
  with LineFile(path, 'runs/mine/checkpoints (step 3), settings 0a') as file:
    file.append({'id': 1})
  with LineFile(path, '/home/me/runs/mine/checkpoints (step 3), settings 0a') as file:
    assert [row['id'] for row in file.rows] == [1]
    file.append({'id': 2})
  with pytest.raises(InputError, match='other settings or other parameters'):
    LineFile(path, '/home/me/runs/mine/checkpoints (step 4), settings 0a')
