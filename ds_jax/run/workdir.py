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
from ds_jax.config import COMING_FIELDS, MACHINE_FIELDS, Config, differing_fields, stored_config
from ds_jax.run import model_files
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

  def samples(self, step: int, when: str) -> pathlib.Path:
    """Of an evaluation after `step` training steps: 'before' or 'after' training, or on the way."""
    name = f'step_{step:06d}'
    return self.root / 'evaluations' / (f'{name}.jsonl' if when == name else f'{name}_{when}.jsonl')

  def summary_of(self, step: int) -> pathlib.Path:
    """Of a run that ended at a training step and went on later."""
    return self.root / f'summary.step_{step:06d}.json'

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


@dataclasses.dataclass(frozen=True)
class Changes:
  """In what a run goes on with other settings than before, in words; '': in nothing."""

  of_machine: str = ''  # fields that suit the machine
  of_what_comes: str = ''  # fields about what is still to come


def check_config(workdir: Workdir, config: Config) -> Changes:
  """Checks that a workdir which has a config belongs to this one; returns what differs, but may.

  Raises:
    InputError: names the other fields that differ (those that do not change results aside), or the
      file, where it cannot be read.
  """
  if not workdir.config.exists():
    return Changes()
  with _naming(workdir.config):
    stored = _stored_fields(workdir)
    if _has_same_model(workdir, config):  # elsewhere
      path = model_files.kept_path(workdir.model_files)
      config = dataclasses.replace(config, model=dataclasses.replace(config.model, path=path))
    differing = differing_fields(stored, dataclasses.asdict(config))
  words = {
    name: f'{name}: workdir {theirs!r}, now {ours!r}' for name, (theirs, ours) in differing.items()
  }
  may_differ = (*MACHINE_FIELDS, *COMING_FIELDS)
  faults = [text for name, text in words.items() if name not in may_differ]
  if faults:
    raise InputError(
      f'{workdir.root} belongs to a run with another config ({"; ".join(faults)}); choose '
      'another --workdir, or the same settings to continue.'
    )
  joined = lambda names: '; '.join(text for name, text in words.items() if name in names)
  return Changes(joined(MACHINE_FIELDS), joined(COMING_FIELDS))


def workdir_config(workdir: Workdir) -> Config:
  """The config of the run in a workdir.

  Raises:
    InputError: if it has none, or one that cannot be read; it says what the folder is instead.
  """
  if not workdir.config.exists():
    raise InputError(
      f'{workdir.root} has no config.json; expected the workdir of a run.{_hint(workdir.root)}'
    )
  with _naming(workdir.config):
    fields = _stored_fields(workdir)
    if 'model_type' in fields or (workdir.root / 'tokenizer.json').exists():
      raise InputError(
        'it is of a model without a run; name that with --config=FILE --workdir=DIR '
        f'--config.model.path={workdir.root}.'
      )
    return stored_config(fields)


def claim(workdir: Workdir, config: Config) -> None:
  """Makes the workdir this config's; called once all of its settings have been found good."""
  workdir.root.mkdir(parents=True, exist_ok=True)
  write_json(workdir.config, dataclasses.asdict(config))


def _has_same_model(workdir: Workdir, config: Config) -> bool:
  """Whether the folder config.model.path has the files that the run keeps of its model."""
  source = pathlib.Path(config.model.path).expanduser()
  if not config.model.path or not source.is_dir() or not model_files.is_whole(workdir.model_files):
    return False
  return not model_files.changed_since(workdir.model_files, source)


def _stored_fields(workdir: Workdir) -> dict[str, Any]:
  """What config.json holds; InputError if that is not a JSON object."""
  text = workdir.config.read_bytes()
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError) as e:
    what = f'{len(text)} bytes that are no JSON ({e})' if text.strip() else 'nothing'
    raise InputError(f'it holds {what}.{_REMEDY}') from e
  if not isinstance(fields, dict):
    raise InputError(f'expected a JSON object of settings, got {fields!r:.80}.{_REMEDY}')
  return fields


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
  for run in folder.absolute().parents:
    if (run / 'checkpoints').is_dir() and (run / 'config.json').is_file():
      step = '' if folder.parent.name != 'checkpoints' else ' --step=N'
      return f' It lies in that of a run: --checkpoint={run}{step}'
  return ''
