"""Profiles of training steps: which are written, and by which process.

What whole runs name in theirs is in training_test.py.
"""

from __future__ import annotations

import contextlib
import dataclasses

import jax
import pytest
from profiles import files, spans_of

from ds_jax.checks import InputError
from ds_jax.config import check_training
from ds_jax.run.profiling import Profile
from ds_jax.run.session import Session
from ds_jax.run.stopping import Stopped
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run
from ds_jax.testing.notes import Notes


@dataclasses.dataclass(frozen=True)
class OfTwo:
  """The place of a process in a team of two."""

  index: int
  count: int = 2


def config(*steps):
  return tiny_run.config(curriculum=dict(round_steps=(3,)), log=dict(profile_steps=steps))


def test_steps_that_are_left_have_a_file_of_their_own(tmp_path):
  workdir, notes = Workdir(tmp_path), Notes()
  with pytest.raises(Stopped):
    with contextlib.closing(Profile(Session(config(2, 3), workdir, notes))) as profile:
      for number in (1, 2, 3):
        with profile.step(number):
          if number == 3:
            raise Stopped
  for number in (3, 4):
    with contextlib.closing(Profile(Session(config(2, 3), workdir, notes))) as profile:
      with profile.step(number):
        pass
  first, second = files(workdir)
  folder = workdir.profile / 'plugins' / 'profile'
  assert (first.parent, second.parent) == (folder / 'step_000002', folder / 'step_000003')
  assert [list(spans_of(path)) for path in files(workdir)] == [
    [('train', 2), ('train', 3)],
    [('train', 3)],
  ]
  assert notes.messages == [f'Profile: {first}', f'Profile: {second}']


def test_each_process_writes_a_file_of_its_own(tmp_path):
  notes, workdir = Notes(), Workdir(tmp_path)
  for index in range(2):
    session = Session(config(1, 2), workdir, notes, team=OfTwo(index))
    with contextlib.closing(Profile(session)) as profile:
      for number in range(4):
        with profile.step(number):
          pass
  first, second = files(workdir)
  assert first.parent == second.parent and first.name.endswith('.process_0.xplane.pb')
  assert second.name.endswith('.process_1.xplane.pb')
  assert [list(spans_of(path)) for path in (first, second)] == 2 * [[('train', 1), ('train', 2)]]
  assert notes.messages == [f'Profile: {first}', f'Profile: {second}']
  assert [path.name for path in workdir.profile.iterdir()] == ['plugins']


def test_a_profile_that_cannot_be_written_ends_no_run(tmp_path):
  notes, steps = Notes(), []
  with jax.profiler.trace(tmp_path / 'theirs'):
    with contextlib.closing(Profile(Session(config(1, 3), Workdir(tmp_path), notes))) as profile:
      for number in (1, 2, 3):
        with profile.step(number):
          steps.append(number)
  assert steps == [1, 2, 3] and len(notes.messages) == 1
  assert (
    'no profile is written (RuntimeError: Profile has already been started' in notes.messages[0]
  )
  (tmp_path / 'profile').write_text('a file')
  with contextlib.closing(Profile(Session(config(1, 1), Workdir(tmp_path), notes))) as profile:
    with profile.step(1):
      steps.append(1)
  assert steps[-1] == 1 and 'no profile is written' in notes.messages[1]


def test_steps_that_a_run_does_not_have_are_refused():
  with pytest.raises(InputError, match='begins with step 4, and the run has 3'):
    check_training(config(4, 5))
  check_training(config(3, 5))
