"""Runs a command with its team and its lock, so that every outcome has an exit code."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ds_jax.cli.flags import Invocation
from ds_jax.cli.result import Result
from ds_jax.run.program_cache import Programs, programs_of

if TYPE_CHECKING:
  from ds_jax.interfaces import Team
  from ds_jax.run.session import Session
  from ds_jax.run.stopping import StopRequest

# Outcomes that the other processes of a team may know nothing of.
_LONELY = ('interrupted', 'cannot_write')


def execute(invocation: Invocation) -> Result | None:
  """Runs the command, alone or in a team. None: another process of the team reports.

  Raises:
    InputError: for bad input. (A process of a team tells it and ends.)
  """
  programs = programs_of(invocation.workdir)
  programs.tell_jax()
  if not invocation.command.NEEDS.team:
    return _outcome(invocation, programs)

  from ds_jax.run import cluster

  team = cluster.join(cluster.cluster_from(invocation.team))
  with cluster.ending_together(team):
    result = _outcome(invocation, programs, team)
  if team.count > 1 and result.summary['status'] in _LONELY:
    cluster.leave(result.exit_code)
  return result if team.is_first else None


def _outcome(invocation: Invocation, programs: Programs, team: Team | None = None) -> Result:
  """Runs the command with signal handlers; a stop and a full disk are results too."""
  from ds_jax.run.disk import CannotWrite, with_remedy
  from ds_jax.run.stopping import ExitCode, Stopped, StoppedAlone, StopRequest

  stop = StopRequest()
  session = _session(invocation, stop, team)
  note = session.progress.note
  try:
    with (
      stop.installed(),
      _held(invocation, session),
      programs.brought(note, writes=session.team.is_first),
      _compilations_told(invocation, note),
    ):
      return invocation.command.run(session, invocation.args)
  except StoppedAlone:
    if session.team.count > 1:
      raise
    note(
      'Stopped amid the updates of a step, which would have taken too long. Finished '
      'trees are kept. The same command continues from the last checkpoint.'
    )
    return Result({'status': 'stopped'}, exit_code=stop.exit_code)
  except Stopped:
    note('Saved. The same command continues.')
    return Result({'status': 'stopped'}, exit_code=stop.exit_code)
  except KeyboardInterrupt:
    note('Interrupted; the same command continues from the last checkpoint.')
    return Result({'status': 'interrupted'}, exit_code=stop.exit_code)
  except (CannotWrite, OSError) as e:
    if not isinstance(e, CannotWrite) and e.errno is None:
      raise
    error = with_remedy(e) if isinstance(e, OSError) else str(e)
    note(f'ds-jax: {error}')
    return Result({'status': 'cannot_write', 'error': error}, exit_code=ExitCode.CANNOT_WRITE)


def _session(invocation: Invocation, stop: StopRequest, team: Team | None) -> Session:
  from ds_jax.interfaces import SilentProgress
  from ds_jax.report.progress import make_progress
  from ds_jax.run.session import Session
  from ds_jax.run.workdir import Workdir

  workdir = Workdir(pathlib.Path(invocation.workdir)) if invocation.workdir else None
  if team is None:
    return Session(invocation.config, workdir, make_progress(), stop)
  progress = make_progress() if team.is_first else SilentProgress()
  return Session(invocation.config, workdir, progress, stop, team)


def _held(invocation: Invocation, session: Session) -> AbstractContextManager[Any]:
  """The lock of the workdir, where the command needs it; the first process has it for its team."""
  from ds_jax.run.workdir import lock

  if invocation.command.NEEDS.lock and session.team.is_first:
    return lock(session.workdir, session.progress.note)
  return contextlib.nullcontext()


def _compilations_told(
  invocation: Invocation, note: Callable[[str], None]
) -> AbstractContextManager[Any]:
  """Says how long programs took to compile, in the commands that run a model."""
  if not invocation.command.NEEDS.team:
    return contextlib.nullcontext()
  from ds_jax.run.compiling import compilations_told

  return compilations_told(note)
