"""What is around the work of a command, whoever calls it: a shell or a program."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ds_jax.run.program_cache import Programs
from ds_jax.run.session import Session
from ds_jax.run.stopping import StopRequest
from ds_jax.run.workdir import lock


@contextlib.contextmanager
def at_work(
  session: Session,
  stop: StopRequest,
  programs: Programs,
  *,
  holds_lock: bool,
  runs_model: bool,
) -> Iterator[None]:
  """Within it, signals ask to stop, and nobody else works in the workdir if `holds_lock`.

  Compiled programs are at hand; where a model is run, compilations are told.

  Args:
    session: whose progress hears of it; the first process of its team has the lock for all.
    stop: takes the signals; the session's `should_stop`.
    programs: of the session's workdir.
    holds_lock: whether the workdir is locked.
    runs_model: whether programs are compiled.

  Raises:
    InputError: if another process works in the workdir.
    CannotWrite: if its lock cannot be made.
  """
  note, is_first = session.progress.note, session.team.is_first
  with contextlib.ExitStack() as stack:
    stack.enter_context(stop.installed())
    if holds_lock and is_first:
      stack.enter_context(lock(session.workdir, note))
    stack.enter_context(programs.brought(note, writes=is_first))
    if runs_model:
      from ds_jax.run.compiling import compilations_told

      stack.enter_context(compilations_told(note))
    yield
