"""A run's folder: its layout, its lock, and the config it belongs to."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import (
  COMING_FIELDS,
  MACHINE_FIELDS,
  PLACE_FIELDS,
  SOURCE_FIELDS,
  Config,
  differing_fields,
  stored_config,
)
from ds_jax.config.places import found_near, has_moved
from ds_jax.run.disk import hold, missing_folders, no_locks, remove_empty, told
from ds_jax.run.durable import write_atomically, write_json

_MAX_FLAGS = 6  # of a remedy; of more differences it is the file of settings that is another


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Paths of one run; README.md of this folder documents them."""

  root: pathlib.Path
  renames_folders: bool = True  # whether its file system does, see disk.py

  @property
  def config(self) -> pathlib.Path:
    return self.root / 'config.json'

  @property
  def model_files(self) -> pathlib.Path:
    return self.root / 'model_files'

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
      self.model_files,
      self.warmstart,
      self.warmstart_checkpoints,
      self.checkpoints,
      self.journal('').parent,
    )

  @property
  def metrics(self) -> pathlib.Path:
    return self.root / 'metrics.jsonl'

  @property
  def profile(self) -> pathlib.Path:
    return self.root / 'profile'

  @property
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  @property
  def examples(self) -> pathlib.Path:
    return self.root / 'examples.json'

  def samples(self, step: int, when: str, part: str = '') -> pathlib.Path:
    """Of an evaluation after `step` training steps: 'before' or 'after' training, or on the way."""
    name = f'step_{step:06d}'
    if when != name:
      name += f'_{when}'
    if part:
      name += f'.{part}'
    return self.root / 'evaluations' / f'{name}.jsonl'

  def summary_of(self, step: int) -> pathlib.Path:
    """Of a run that ended at a training step and went on later."""
    return self.root / f'summary.step_{step:06d}.json'

  @property
  def date(self) -> pathlib.Path:
    """The day that a chat template is told which asks for it."""
    return self.root / 'date'

  def journal(self, name: str, process: int = 0) -> pathlib.Path:
    return self.root / 'journal' / f'{name}.process_{process}.jsonl'


def _to_stderr(words: str) -> None:
  print(f'ds-jax: {words}', file=sys.stderr)


@contextlib.contextmanager
def lock(workdir: Workdir, note: Callable[[str], None] = _to_stderr) -> Iterator[None]:
  """Holds the workdir for this process; one that stays empty is not left behind.

  Args:
    workdir: the run's.
    note: is told where the file system knows no locks.

  Raises:
    InputError: if another process holds it.
    CannotWrite: if its file cannot be made.
  """
  missing = missing_folders(workdir.root)
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
        remove_empty(missing)


def check_config(workdir: Workdir, config: Config) -> str:
  """Checks that a workdir which has a config belongs to this one.

  Returns:
    What differs, where it may, for a person: fields that suit the machine or are about what is
    still to come, and files and folders that have moved. '': nothing.

  Raises:
    InputError: names the other fields that differ (those that do not change results aside), or
      the file, where it cannot be read.
  """
  if not workdir.config.exists():
    return ''
  stored = stored_fields(workdir)
  if 'model_type' in stored:
    raise InputError(f'{workdir.root} is the folder of a model; choose another --workdir.')
  with _naming(workdir.config):
    differing = differing_fields(stored, dataclasses.asdict(config))
  machine, coming, moved, refused = [], [], [], {}
  for name, (before, now) in differing.items():
    words = _difference(name, before, now)
    if name in MACHINE_FIELDS:
      machine.append(words)
    elif name in COMING_FIELDS:
      coming.append(words)
    elif name in PLACE_FIELDS and has_moved(before, now):
      moved.append(words)
    else:
      refused[name] = before, now
  if refused:
    raise InputError(_refusal(workdir, refused))
  notes = []
  if machine:
    notes.append(
      f'Other machine settings than before ({"; ".join(machine)}): the last bits will differ.'
    )
  if coming:
    notes.append(f'Other settings from here on: {"; ".join(coming)}.')
  if moved:
    notes.append(f'Taken for the same, which has moved ({"; ".join(moved)}).')
  return ' '.join(notes)


def _difference(name: str, before: Any, now: Any) -> str:
  return f'{name}: workdir {before!r}, now {now!r}'


def _refusal(workdir: Workdir, differing: Mapping[str, tuple[Any, Any]]) -> str:
  """What differs, and with which flags the run goes on, if these are few."""
  words = '; '.join(_difference(name, *values) for name, values in differing.items())
  remedy = 'the same settings to continue'
  stored = {name: before for name, (before, _) in differing.items()}
  if len(stored) <= _MAX_FLAGS and None not in stored.values():
    flags = ' '.join(_flag(name, value) for name, value in stored.items())
    remedy = f'continue with its settings: {flags}'
  return (
    f'{workdir.root} belongs to a run with another config ({words}); choose another --workdir, or '
    f'{remedy}'
  )


def _flag(name: str, value: Any) -> str:
  """The flag that gives a field a value, as a shell reads it."""
  text = ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
  return f'--config.{name}={shlex.quote(text)}'


def workdir_config(workdir: Workdir, note: Callable[[str], None] = _to_stderr) -> Config:
  """The config of the run in a workdir; its places are looked for where they are gone.

  Args:
    workdir: the run's.
    note: is told of a place that has moved.

  Raises:
    InputError: if it has none, or one that cannot be read; it says what the folder is instead.
  """
  fields = stored_fields(workdir)
  if 'model_type' in fields:
    raise InputError(
      f'{workdir.root} is a model without a run; name it with --config=FILE --workdir=DIR '
      f'--config.model.path={workdir.root}.{_hint(workdir.root)}'
    )
  with _naming(workdir.config):
    return stored_config(_with_places(fields, workdir, note))


def _with_places(
  fields: dict[str, Any], workdir: Workdir, note: Callable[[str], None]
) -> dict[str, Any]:
  """The fields of a config.json with every place where it is now."""
  nested = dict(fields)
  for name in PLACE_FIELDS:
    section, field = name.split('.')
    values = nested.get(section)
    if not isinstance(values, dict) or not isinstance(values.get(field), str):
      continue  # lacking, or bad, which is named later
    root, is_source = str(workdir.root.resolve()), name in SOURCE_FIELDS
    place = found_near(values[field], root, is_source=is_source)
    if has_moved(values[field], place):
      note(f'{name} = {values[field]} is gone; {place} is taken for it.')
    nested[section] = values | {field: place}
  return nested


def stored_fields(workdir: Workdir) -> dict[str, Any]:
  """What a workdir's config.json holds, whatever the version of ds_jax that wrote it.

  Raises:
    InputError: if there is none, or it is no JSON object; it says what the folder is instead.
  """
  if not workdir.config.exists():
    raise InputError(
      f'{workdir.root} has no config.json; expected the workdir of a run.{_hint(workdir.root)}'
    )
  text = workdir.config.read_bytes()
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError) as e:
    what = f'is no JSON ({e})' if text.strip() else 'is empty'
    raise InputError(f'{workdir.config} {what}.{_REMEDY}') from e
  if not isinstance(fields, dict):
    raise InputError(
      f'Expected {workdir.config} to hold an object of settings, got {fields!r:.80}.{_REMEDY}'
    )
  return fields


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
  write_json(workdir.config, dataclasses.asdict(config))


_REMEDY = (
  ' Bring it back from a copy of the run; or remove it, and `ds-jax train` with the settings of '
  'the run writes it anew.'
)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  """An InputError inside says which file it is about."""
  try:
    yield
  except InputError as e:
    raise InputError(f'{path}: {e}') from e


def _hint(folder: pathlib.Path) -> str:
  """What a folder is that is not a run's; '': nobody knows."""
  if not folder.exists():
    return ' There is no such folder.'
  for root in folder.absolute().parents:
    workdir = Workdir(root)
    if workdir.config.is_file() and workdir.checkpoints.is_dir():
      return f' It lies in the folder of a run, {root}{_step_hint(workdir, folder.absolute())}.'
  return ''


def _step_hint(workdir: Workdir, folder: pathlib.Path) -> str:
  """How the checkpoint in a folder is named; '': it is none."""
  if folder.parent != workdir.checkpoints or not folder.name.isdigit():
    return ''
  from ds_jax.run.checkpoint import Checkpointer

  with contextlib.closing(Checkpointer(workdir.checkpoints, keep=None)) as checkpointer:
    for entry in checkpointer.saved():
      if entry.number == int(folder.name):
        return f', and is its checkpoint of step {entry.step} (--step={entry.step})'
  return ''
