"""A run's folder: its layout, its lock, and the config it belongs to."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import MACHINE_FIELDS, Config, differing_fields, stored_config
from ds_jax.run.durable import write_json


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Paths of one run; README documents them."""

  root: pathlib.Path

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
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  @property
  def examples(self) -> pathlib.Path:
    return self.root / 'examples.json'

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


def is_writable(folder: pathlib.Path) -> bool:
  """Whether files can be made in a folder, or the folder itself where it is missing."""
  for path in (folder, *folder.absolute().parents):
    if path.exists():
      return path.is_dir() and os.access(path, os.W_OK)
  return False


def check_config(workdir: Workdir, config: Config) -> str:
  """Checks that a workdir which has a config belongs to this one.

  Returns:
    What differs, where it may: fields that suit the machine. '': nothing.

  Raises:
    InputError: names the other fields that differ (those that do not change results aside), or
      the file, where it cannot be read.
  """
  if not workdir.config.exists():
    return ''
  stored = stored_fields(workdir)
  with _naming(workdir.config):
    differing = differing_fields(stored, dataclasses.asdict(config))
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
  """The config of the run in a workdir.

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
    return stored_config(fields)


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
  if '://' in str(folder) or str(folder).startswith('gs:/'):
    return ' It must be on this machine, or mounted: `gcloud storage cp --recursive` copies it.'
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
