"""The session of a command: what it works on, whom it tells, when it stops, and with whom."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from ds_jax.checks import InputError
from ds_jax.config import Config
from ds_jax.interfaces import ALONE, Progress, Team
from ds_jax.run.disk import RENAME_REMEDY, CannotWrite, probe
from ds_jax.run.workdir import Workdir, workdir_config


def never() -> bool:
  """The `should_stop` of a session that nobody interrupts."""
  return False


@dataclasses.dataclass(frozen=True)
class Session:
  """What a command passes on; commands without a config or a workdir have None there."""

  config: Config | None
  workdir: Workdir | None
  progress: Progress
  should_stop: Callable[[], bool] = never  # polled by long phases
  team: Team = ALONE  # the processes that run the command together
  step: str = ''  # of the checkpoint to read: a training step, or 'best'; '': the newest
  model: str = ''  # folder of tokenizer and config.json, instead of those that the run names

  @property
  def data_dir(self) -> str:
    """The folder, or bucket, of prepared problems."""
    return self.config.data.data_dir or str(self.workdir.data)


def check_step(name: str, step: str) -> None:
  """Raises InputError, which calls the setting `name`, unless it names a checkpoint or is ''."""
  is_number = step.isascii() and step.isdigit()
  if step and step != 'best' and not is_number:
    raise InputError(
      f'Expected {name} to be a training step as in metrics.jsonl, or best, got {step!r}; '
      f'without {name} it is the newest.'
    )


def of_run(session: Session, workdir: Workdir) -> Session:
  """The session, about a run: its workdir and the settings that it keeps.

  Raises:
    InputError: if there is no run.
  """
  return dataclasses.replace(session, config=workdir_config(workdir), workdir=workdir)


def probed(session: Session) -> Session:
  """The session, whose workdir says whether folders can be renamed there.

  The first process tries, before any work, what a run does in its workdir. All must call it.

  Raises:
    CannotWrite: names the place, what it refuses, and the remedy.
  """
  root, fault, refusal = session.workdir.root, '', ''
  if session.team.is_first:
    try:
      refusal = probe(root)
    except CannotWrite as e:
      fault = str(e)
  of_first = session.team.gather(json.dumps([fault, refusal]).encode())[0]
  fault, refusal = json.loads(of_first)
  if fault:
    raise CannotWrite(fault)
  if refusal:
    session.progress.note(
      f'{root} cannot rename folders that hold something ({refusal}): checkpoints are written in '
      f'their place, and count once they are marked as whole. {RENAME_REMEDY}.'
    )
  workdir = dataclasses.replace(session.workdir, renames_folders=not refusal)
  return dataclasses.replace(session, workdir=workdir)
