"""Runs a command with its team and its lock, so that every outcome has an exit code."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

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
  from ds_jax.run.disk import CannotWrite, refusal
  from ds_jax.run.stopping import ExitCode, Stopped, StoppedAlone, StopRequest
  from ds_jax.run.working import at_work

  stop = StopRequest()
  session = _session(invocation, stop, team)
  note = session.progress.note
  try:
    needs = invocation.command.NEEDS
    with at_work(session, stop, programs, holds_lock=needs.lock, runs_model=needs.team):
      return invocation.command.run(session, invocation.args)
  except Stopped as e:
    if isinstance(e, StoppedAlone) and session.team.count > 1:
      raise
    note(f'{e.words} The same command continues.')
    return Result({'status': 'stopped'}, exit_code=stop.exit_code)
  except KeyboardInterrupt:
    note('Interrupted; the same command continues from the last checkpoint.')
    return Result({'status': 'interrupted'}, exit_code=stop.exit_code)
  except (CannotWrite, OSError) as e:
    error = str(refusal(e))
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
