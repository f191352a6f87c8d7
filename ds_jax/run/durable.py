"""A file of results, one JSON object a line, that a stopped or killed command goes on with."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import Any

from ds_jax.checks import InputError
from ds_jax.interfaces import Team

# What tells rows of one file from each other, as far as they have these fields.
IDENTITY = ('id', 'sample', 'question', 'gold')


def part_path(path: str | os.PathLike[str], process: int) -> pathlib.Path:
  """The file of one process of a job: process 0 writes the results, the others parts beside it."""
  path = pathlib.Path(path)
  return path.with_name(f'{path.name}.process_{process}') if process else path


class ResultsFile:
  """Held by one process at a time; what `append` wrote survives a kill. A context manager."""

  def __init__(self, path: str | os.PathLike[str], run: str, drop: Collection[str] = ()):
    """Opens the file, or makes it.

    Args:
      path: the file; its folder is made where it is missing.
      run: says what its results depend on; every line carries it.
      drop: fields that `rows` goes without, e.g. long texts that are only to be written.

    Raises:
      InputError: if the file is in use, holds something else, or results of another run. It is
        left as it is then.
    """
    self.path, self.run, self._drop = pathlib.Path(path), run, frozenset(drop)
    if self.path.is_dir():
      raise InputError(f'{self.path} is a folder; name a file for --output, e.g. trees.jsonl.')
    self.path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self.path.open('a+b')
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      self.rows = self._read()
    except BlockingIOError:
      self._file.close()
      raise InputError(
        f'{self.path} is being written by another process; wait for it, or choose another --output.'
      ) from None
    except InputError:
      self._file.close()
      raise

  def append(self, row: dict[str, Any]) -> None:
    """Writes a row and keeps it in `rows`."""
    row = {'run': self.run, **row}
    self._file.write(json.dumps(row, allow_nan=False).encode() + b'\n')
    self._file.flush()
    self.rows.append(self._kept(row))

  def take_in_parts(self) -> None:
    """Makes rows that other processes wrote (see `part_path`) rows of this file, each once.

    Their files are removed. Nobody may be writing them; a kill on the way loses nothing.
    """
    names = [name for name in IDENTITY if name not in self._drop]
    identity = lambda row: tuple(row.get(name) for name in names)
    known = {identity(row) for row in self.rows}
    for path in sorted(self.path.parent.glob(f'{glob.escape(self.path.name)}.process_*')):
      with ResultsFile(path, self.run) as part:
        for row in part.rows:
          if identity(row) not in known:
            self.append(row)
      path.unlink()

  def __enter__(self) -> ResultsFile:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self.close()

  def close(self) -> None:
    self._file.close()

  def _read(self) -> list[dict[str, Any]]:
    """All whole rows; a line broken by a kill is cut off."""
    self._file.seek(0)
    rows, kept = [], 0
    for number, line in enumerate(self._file, start=1):
      if not line.endswith(b'\n') and self._is_broken(line):
        break
      rows.append(self._kept(self._checked(line, number)))
      kept += len(line)
    self._file.truncate(kept)
    return rows

  def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in self._drop}

  def _is_broken(self, line: bytes) -> bool:
    """Whether this may be the beginning of a line of ours."""
    start = json.dumps({'run': self.run})[:-1].encode()
    return line.startswith(start) or start.startswith(line)

  def _checked(self, line: bytes, number: int) -> dict[str, Any]:
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      row = None
    if not isinstance(row, dict) or 'run' not in row:
      raise InputError(
        f'{self.path}, line {number}, is no result of this command; choose another --output.'
      )
    if row['run'] != self.run:
      raise InputError(
        f'{self.path} holds results of other settings or other parameters '
        f'({row["run"]!r:.80}, now {self.run!r}); choose another --output.'
      )
    return row


@contextlib.contextmanager
def open_results(
  path: str | os.PathLike[str], run: str, team: Team, drop: Collection[str] = ()
) -> Iterator[ResultsFile]:
  """This process's file among those of its team; the parts of an earlier start are taken in first.

  Arguments and errors are those of ResultsFile. All processes must call it, in the same order.
  """
  if team.index:
    team.gather(b'')  # until the first has taken in what there is
  with ResultsFile(part_path(path, team.index), run, drop) as file:
    if not team.index:
      file.take_in_parts()
      team.gather(b'')
    yield file


def share_keys(team: Team, keys: Collection[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
  """The keys of all processes, which all must call."""
  data = json.dumps(sorted(keys, key=str)).encode()
  return {tuple(key) for part in team.gather(data) for key in json.loads(part)}


def close_parts(team: Team, files: Iterable[ResultsFile]) -> None:
  """After the work: the first process takes in what the others wrote. All must call it."""
  if team.index:
    for file in files:
      file.close()
  team.gather(b'')
  if not team.index:
    for file in files:
      file.take_in_parts()


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
  """Replaces a file as a whole: after a crash or a full disk it holds the old or the new content.

  Args:
    path: in an existing folder; the file need not exist.
    content: text is written as UTF-8.
  """
  path = pathlib.Path(path)
  data = content.encode() if isinstance(content, str) else content
  descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  try:
    with os.fdopen(descriptor, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(unfinished, 0o644)  # mkstemp's files are for their owner only
    os.replace(unfinished, path)
  except BaseException:
    pathlib.Path(unfinished).unlink(missing_ok=True)
    raise
