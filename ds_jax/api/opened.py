"""What a session's methods work with, and how their work ends."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from ds_jax.checks import InputError
from ds_jax.config import config_from
from ds_jax.config.load import with_overrides
from ds_jax.run.disk import CannotWrite, refusal
from ds_jax.run.loaded import LoadedRun
from ds_jax.run.program_cache import Programs
from ds_jax.run.session import Session, check_step
from ds_jax.run.stopping import ExitCode, Stopped, StopRequest
from ds_jax.run.working import at_work

P = ParamSpec('P')
T = TypeVar('T')


def with_short_errors(function: Callable[P, T]) -> Callable[P, T]:
  """The function, whose InputErrors do not show where they were found: their words are enough.

  So it is at the shell, and after Ctrl-C.
  """

  @functools.wraps(function)
  def call(*args: P.args, **kwargs: P.kwargs) -> T:
    try:
      return function(*args, **kwargs)
    except (InputError, KeyboardInterrupt) as e:
      raise e.with_traceback(None) from None

  return call


class Opened:
  """A session of a command, with what its methods share.

  Attributes:
    session: as it was opened.
    is_closed: whether nothing can be done with it any more.
  """

  def __init__(self, session: Session, stop: StopRequest, programs: Programs):
    """Loads nothing yet.

    Args:
      session: of one process; its `should_stop` is `stop`.
      stop: takes the signals.
      programs: of the session's workdir.
    """
    self.session, self.is_closed = session, False
    self._stop, self._programs, self._loaded = stop, programs, LoadedRun()

  def close(self) -> None:
    """Frees what is loaded. May be called twice."""
    self.is_closed = True
    self._loaded.close()

  @contextlib.contextmanager
  def at_work(
    self,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    step: int | str | None = None,
    holds_lock: bool = False,
    changes_parameters: bool = False,
    keeps_work: bool = True,
  ) -> Iterator[tuple[Session, LoadedRun]]:
    """Yields the session of a method, and what is loaded for it.

    Args:
      overrides: settings of this method alone, by section.
      step: of the checkpoint that it reads; None: the session's.
      holds_lock: whether nobody else may work in the workdir meanwhile.
      changes_parameters: what is loaded is closed, for it would be old, and takes up memory.
      keeps_work: whether what is finished when the method is stopped is kept.

    Raises:
      InputError, CannotWrite, KeyboardInterrupt, SystemExit: see OpenSession.
    """
    session = self._session_with(overrides or {}, step)
    if changes_parameters:
      self._loaded.close()
    try:
      with at_work(session, self._stop, self._programs, holds_lock=holds_lock, runs_model=True):
        yield session, self._loaded
    except Stopped as e:
      words = e.words if keeps_work else 'Stopped.'
      session.progress.note(f'{words} The same call {"goes on" if keeps_work else "begins anew"}.')
      if self._stop.exit_code == ExitCode.TERMINATED:
        raise SystemExit(int(ExitCode.TERMINATED)) from None
      raise KeyboardInterrupt from None
    except KeyboardInterrupt:
      session.progress.note('Interrupted; the same call goes on from what is saved.')
      raise
    except (CannotWrite, OSError) as e:
      raise refusal(e) from e
    finally:
      session.progress.finish()

  def _session_with(
    self, overrides: Mapping[str, Mapping[str, Any]], step: int | str | None
  ) -> Session:
    session = self.session
    if self.is_closed:
      root = session.workdir.root
      raise InputError(f'The session of {root} is closed; ds_jax.open_session opens it.')
    if any(overrides.values()):
      fields = with_overrides(dataclasses.asdict(session.config), overrides)
      session = dataclasses.replace(session, config=config_from(fields))
    if step is not None:
      session = dataclasses.replace(session, step=step_name(step))
    return session


def step_name(step: int | str) -> str:
  """The text that names a checkpoint.

  Raises:
    InputError: if it names none.
  """
  name = str(step)
  check_step('step', name)
  return name
