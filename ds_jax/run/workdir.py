"""A run's folder: its layout, its lock, the config it belongs to, and how a run is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import signal
from collections.abc import Iterator
from types import FrameType

from ds_jax.checks import InputError
from ds_jax.config import MACHINE_FIELDS, Config, config_from, differing_fields
from ds_jax.interfaces import Team

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_TERMINATED = 42  # saved after SIGTERM
EXIT_CANNOT_WRITE = 74  # disk full or not writable; what was saved before is good
EXIT_INTERRUPTED = 130  # saved after Ctrl-C


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
  def checkpoints(self) -> pathlib.Path:
    return self.root / 'checkpoints'

  @property
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  def journal(self, name: str, process: int = 0) -> pathlib.Path:
    return self.root / 'journal' / f'{name}.process_{process}.jsonl'


class Stopped(Exception):
  """The run was asked to stop and has saved."""


class StoppedAlone(Stopped):
  """Asked to stop where it cannot save: amid a search while its peers may be anywhere, or amid the
  updates of a step. The newest checkpoint and the journals of finished trees are kept."""


def stopped(team: Team) -> Stopped:
  """What a process raises that was asked to stop amid a search and has kept what is finished."""
  return StoppedAlone() if team.count > 1 else Stopped()


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


def claim(workdir: Workdir, config: Config) -> None:
  """Makes the workdir this config's; called once all of its settings have been found good."""
  workdir.root.mkdir(parents=True, exist_ok=True)
  write_json(workdir.root / 'config.json', dataclasses.asdict(config))


def write_json(path: pathlib.Path, value: object) -> None:
  """Writes JSON beside its place and renames it: never half a file."""
  unfinished = path.with_name(path.name + '.unfinished')
  unfinished.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n')
  unfinished.rename(path)


class StopRequest:
  """Turns Ctrl-C and SIGTERM into a flag that long phases poll; a second Ctrl-C stops at once."""

  def __init__(self) -> None:
    self.signal: int | None = None

  def __call__(self) -> bool:
    return self.signal is not None

  @property
  def exit_code(self) -> int:
    # No signal here: a peer had one.
    return EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_TERMINATED

  @contextlib.contextmanager
  def installed(self) -> Iterator[StopRequest]:
    """Handles both signals inside the block (main thread only)."""
    before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
      yield self
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self.signal is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal = number
