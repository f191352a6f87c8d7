"""A run's folder: its layout, its lock, and the config it belongs to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

from ds_jax.checks import InputError
from ds_jax.config import MACHINE_FIELDS, PLACE_FIELDS, Config, config_from, differing_fields
from ds_jax.config.places import found_near, has_moved
from ds_jax.run.disk import hold, no_locks, told
from ds_jax.run.durable import write_json


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Paths of one run; README documents them."""

  root: pathlib.Path
  renames_folders: bool = True  # whether its file system does, see disk.py

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
  def folders(self) -> tuple[pathlib.Path, ...]:
    """The folders in which nothing but the run itself may write."""
    return (
      self.data,
      self.warmstart,
      self.warmstart_checkpoints,
      self.checkpoints,
      self.journal('').parent,
    )

  @property
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  @property
  def examples(self) -> pathlib.Path:
    return self.root / 'examples.json'

  def journal(self, name: str, process: int = 0) -> pathlib.Path:
    return self.root / 'journal' / f'{name}.process_{process}.jsonl'


@contextlib.contextmanager
def lock(workdir: Workdir, note: Callable[[str], None] = print) -> Iterator[None]:
  """Holds the workdir for this process; one that stays empty is not left behind.

  Args:
    workdir: the run's.
    note: is told where the file system knows no locks.

  Raises:
    InputError: if another process holds it.
    CannotWrite: if its file cannot be made.
  """
  missing = [folder for folder in (workdir.root, *workdir.root.parents) if not folder.exists()]
  path = workdir.root / 'lock'
  with told(workdir.root, 'make files'):
    workdir.root.mkdir(parents=True, exist_ok=True)
    opened = path.open('a+')
  with opened as file:
    try:
      if not hold(file):
        note(no_locks(workdir.root))
    except BlockingIOError:
      file.seek(0)
      raise InputError(
        f'{workdir.root} is in use by process {file.read().strip() or "?"}; wait '
        'for it, or choose another --workdir.'
      ) from None
    try:
      with told(workdir.root, 'write files'):
        file.truncate(0)
        os.write(file.fileno(), f'{os.getpid()}\n'.encode())  # closing would write it once more
      yield
    finally:
      if missing and list(workdir.root.iterdir()) == [path]:  # refused before it was claimed
        path.unlink()
        for folder in missing:
          with contextlib.suppress(OSError):  # somebody else uses it by now
            folder.rmdir()


def check_config(workdir: Workdir, config: Config) -> str:
  """Checks that a workdir which has a config belongs to this one.

  Returns:
    What differs, where it may, for a person: fields that suit the machine, and files and folders
    that have moved. '': nothing.

  Raises:
    InputError: names the other fields that differ (those that do not change results aside).
  """
  path, ours = workdir.root / 'config.json', dataclasses.asdict(config)
  if not path.exists():
    return ''
  if (workdir.root / 'tokenizer.json').exists():
    raise InputError(f'{workdir.root} is the folder of a model; choose another --workdir.')
  machine, moved, faults = [], [], []
  for name, (before, now) in differing_fields(json.loads(path.read_text()), ours).items():
    words = f'{name}: workdir {before!r}, now {now!r}'
    if name in MACHINE_FIELDS:
      machine.append(words)
    elif name in PLACE_FIELDS and has_moved(before, now):
      moved.append(words)
    else:
      faults.append(words)
  if faults:
    raise InputError(
      f'{workdir.root} belongs to a run with another config ({"; ".join(faults)}); choose '
      'another --workdir, or the same settings to continue.'
    )
  notes = []
  if machine:
    notes.append(
      f'Other machine settings than before ({"; ".join(machine)}): the last bits will differ.'
    )
  if moved:
    notes.append(f'Taken for the same, which has moved ({"; ".join(moved)}).')
  return ' '.join(notes)


def _to_stderr(words: str) -> None:
  print(f'ds-jax: {words}', file=sys.stderr)


def workdir_config(workdir: Workdir, note: Callable[[str], None] = _to_stderr) -> Config:
  """The config of the run in a workdir; its places are looked for where they are gone.

  Args:
    workdir: the run's.
    note: is told of a place that has moved.

  Raises:
    InputError: if it has no config.
  """
  path = workdir.root / 'config.json'
  if not path.exists():
    raise InputError(f'{workdir.root} has no config.json; expected the workdir of a run.')
  fields = json.loads(path.read_text())
  for name in PLACE_FIELDS:
    section, field = name.split('.')
    text = fields.get(section, {}).get(field, '')
    place = found_near(text, str(workdir.root.resolve()))
    if has_moved(text, place):
      note(f'{name} = {text} is gone; {place} is taken for it.')
    if place != text:
      fields[section][field] = place
  return config_from(fields)


def claim(workdir: Workdir, config: Config) -> None:
  """Makes the workdir this config's; called once all of its settings have been found good."""
  workdir.root.mkdir(parents=True, exist_ok=True)
  write_json(workdir.root / 'config.json', dataclasses.asdict(config))
