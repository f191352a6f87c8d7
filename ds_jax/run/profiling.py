"""A profile of some training steps: what devices and host did when, for TensorBoard and xprof.

Steps, and their phases 'search', 'verify' (within it: the wait for verdicts), 'score' and 'update',
are named on the host's time line; without a profile a name costs half a microsecond.

Each process writes WORKDIR/profile/plugins/profile/step_NNNNNN/HOST.process_I.xplane.pb. A run that
is stopped amid the profiled steps closes its file, and the next start writes one of those that are
left, under the name of its own first step.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
from collections.abc import Iterator

import jax

from ds_jax.checks import first_line
from ds_jax.run.session import Session


class Profile:
  """Profiles the steps that `log.profile_steps` names; use `contextlib.closing`."""

  def __init__(self, session: Session):
    """Begins with nothing."""
    self._steps = session.config.log.profile_steps
    self._folder, self._team = session.workdir.profile, session.team
    self._note = session.progress.note
    self._first: int | None = None  # step of the profile under way; None: there is none

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Within it, a training step is done, counted as in metrics.jsonl."""
    first, last = self._steps or (0, 0)
    if self._first is None and first <= number <= last:
      self._start(number)
    with jax.profiler.StepTraceAnnotation('train', step_num=number):
      yield
    if number == last:
      self.close()

  def close(self) -> None:
    """Ends the profile under way, if there is one, and writes it."""
    if self._first is None:
      return
    name, self._first = f'step_{self._first:06d}', None
    try:
      jax.profiler.stop_trace()
      path = self._kept(name)
      shutil.rmtree(self._unfinished)
    except Exception as error:
      self._say_failure(error)
    else:
      self._note(f'Profile: {path}')

  @property
  def _unfinished(self) -> pathlib.Path:
    """Where the profiler writes: processes of one host would write the same file."""
    return self._folder / f'unfinished.process_{self._team.index}'

  def _start(self, number: int) -> None:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of the search would be millions
    options.raise_error_on_start_failure = True
    try:
      shutil.rmtree(self._unfinished, ignore_errors=True)
      jax.profiler.start_trace(self._unfinished, profiler_options=options)
    except Exception as error:
      self._say_failure(error)
      self._steps = ()
    else:
      self._first = number

  def _kept(self, name: str) -> pathlib.Path:
    """Moves what the profiler has written to where viewers look for it."""
    (written,) = self._unfinished.glob('plugins/profile/*/*.xplane.pb')
    path = self._folder / 'plugins' / 'profile' / name
    path.mkdir(parents=True, exist_ok=True)
    path /= f'{socket.gethostname()}.process_{self._team.index}.xplane.pb'
    written.replace(path)
    return path

  def _say_failure(self, error: Exception) -> None:
    self._note(
      f'log.profile_steps: no profile is written ({type(error).__name__}: {first_line(error)}); '
      'the run goes on without.'
    )
