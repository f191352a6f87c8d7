"""A run's folder: its layout, its lock, and the config it belongs to."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator

from ds_jax.checks import InputError
from ds_jax.config import MACHINE_FIELDS, Config, config_from, differing_fields
from ds_jax.run.durable import write_atomically, write_json


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Paths of one run; README documents them."""

  root: pathlib.Path

  @property
  def data(self) -> pathlib.Path:
    return self.root / 'data'

  @property
  def warmstart(self) -> pathlib.Path:
    return self.root / 'warmstart'

  @property
  def warmstart_checkpoints(self) -> pathlib.Path:
    return self.root / 'warmstart_checkpoints'

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.root / 'checkpoints'

  @property
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  @property
  def examples(self) -> pathlib.Path:
    return self.root / 'examples.json'

  @property
  def date(self) -> pathlib.Path:
    """The day that a chat template is told which asks for it."""
    return self.root / 'date'

  def journal(self, name: str, process: int = 0) -> pathlib.Path:
    return self.root / 'journal' / f'{name}.process_{process}.jsonl'


@contextlib.contextmanager
def lock(workdir: Workdir) -> Iterator[None]:
  """Holds the workdir for this process; one that stays empty is not left behind.

  Raises:
    InputError: if another process holds it.
  """
  is_new = not workdir.root.exists()
  workdir.root.mkdir(parents=True, exist_ok=True)
  path = workdir.root / 'lock'
  with path.open('a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise InputError(
        f'{workdir.root} is in use by process {file.read().strip() or "?"}; wait '
        'for it, or choose another --workdir.'
      ) from None
    file.truncate(0)
    file.write(f'{os.getpid()}\n')
    file.flush()
    try:
      yield
    finally:
      if is_new and list(workdir.root.iterdir()) == [path]:  # refused before it was claimed
        path.unlink()
        workdir.root.rmdir()


def check_config(workdir: Workdir, config: Config) -> str:
  """Checks that a workdir which has a config belongs to this one.

  Returns:
    What differs, where it may: fields that suit the machine. '': nothing.

  Raises:
    InputError: names the other fields that differ (those that do not change results aside).
  """
  path, ours = workdir.root / 'config.json', dataclasses.asdict(config)
  if not path.exists():
    return ''
  differing = differing_fields(json.loads(path.read_text()), ours)
  words = {
    name: f'{name}: workdir {theirs!r}, now {ours!r}' for name, (theirs, ours) in differing.items()
  }
  faults = [text for name, text in words.items() if name not in MACHINE_FIELDS]
  if faults:
    raise InputError(
      f'{workdir.root} belongs to a run with another config ({"; ".join(faults)}); choose '
      'another --workdir, or the same settings to continue.'
    )
  return '; '.join(words.values())


def workdir_config(workdir: Workdir) -> Config:
  """The config of the run in a workdir; InputError if it has none."""
  path = workdir.root / 'config.json'
  if not path.exists():
    raise InputError(f'{workdir.root} has no config.json; expected the workdir of a run.')
  return config_from(json.loads(path.read_text()))


def kept_date(workdir: Workdir | None) -> datetime.date | None:
  """The day that the prompts of the run in a workdir have; None: none is kept there."""
  if workdir is None or not workdir.date.exists():
    return None
  text = workdir.date.read_text().strip()
  try:
    return datetime.date.fromisoformat(text)
  except ValueError as e:
    raise InputError(f'{workdir.date} holds {text!r:.40}, expected a date like 2026-11-28.') from e


def keep_date(workdir: Workdir, date: datetime.date) -> None:
  """Keeps the day of a run's first start, unless it has one."""
  if kept_date(workdir) is None:
    write_atomically(workdir.date, f'{date.isoformat()}\n')


def claim(workdir: Workdir, config: Config) -> None:
  """Makes the workdir this config's; called once all of its settings have been found good."""
  workdir.root.mkdir(parents=True, exist_ok=True)
  write_json(workdir.root / 'config.json', dataclasses.asdict(config))
