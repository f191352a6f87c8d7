"""Files that survive a kill: written as a whole, or line by line and gone on with."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from types import TracebackType
from typing import Any

from ds_jax.checks import InputError, naming
from ds_jax.interfaces import Team
from ds_jax.run.disk import hold, no_locks

# What tells rows of one file from each other, as far as they have these fields.
IDENTITY = ('id', 'sample', 'question', 'gold')


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
  """Replaces a file as a whole: written beside its place and renamed, it is never half there."""
  path = pathlib.Path(path)
  data = content.encode() if isinstance(content, str) else content
  descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  try:
    with naming(path), os.fdopen(descriptor, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    with contextlib.suppress(OSError):  # of file systems without modes
      os.chmod(beside, 0o644)  # mkstemp's files are for their owner only
    os.replace(beside, path)
  except BaseException:
    pathlib.Path(beside).unlink(missing_ok=True)
    raise


def write_json(path: str | os.PathLike[str], value: object) -> None:
  """Replaces a file by a JSON value, for people to read too."""
  write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + '\n')


def part_path(path: str | os.PathLike[str], process: int) -> pathlib.Path:
  """The file of one process of a job: process 0 writes the results, the others parts beside it."""
  path = pathlib.Path(path)
  return path.with_name(f'{path.name}.process_{process}') if process else path


class LineFile:
  """Rows, one a line, that a stopped or killed command goes on with. A context manager.

  What `append` wrote survives a kill; a line that a kill broke is cut off when the file is opened.
  With a `run`, lines are JSON objects that carry it, and anything else in the file is refused.
  Without, nobody but us writes there: the file counts up to the first line that cannot be read.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    run: str | None,
    drop: Collection[str] = (),
    *,
    to_line: Callable[[Any], str] = json.dumps,
    from_line: Callable[[str], Any] = json.loads,
  ):
    """Opens the file, or makes it.

    Args:
      path: the file; its folder is made where it is missing.
      run: says what its results depend on; every line carries it. Such a file is held by one
        process at a time.
      drop: fields that `rows` goes without, e.g. long texts that are only to be written.
      to_line: without a run: a row as text.
      from_line: its inverse; ValueError, KeyError or TypeError for anything else.

    Raises:
      InputError: if the file is in use, holds something else, or results of another run. It is
        left as it is then.
    """
    self.path, self.run, self._drop = pathlib.Path(path), run, frozenset(drop)
    self._to_line, self._from_line = to_line, from_line
    if self.path.is_dir():
      raise InputError(f'{self.path} is a folder; name a file for --output, e.g. trees.jsonl.')
    self.path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self.path.open('a+b')
    try:
      if run is not None and not hold(self._file):
        print(f'ds-jax: {no_locks(self.path)}', file=sys.stderr)
      self.rows = self._read()
    except BlockingIOError:
      self._file.close()
      raise InputError(
        f'{self.path} is being written by another process; wait for it, or choose another --output.'
      ) from None
    except InputError:
      self._file.close()
      raise

  def append(self, row: Any) -> None:
    """Writes a row and keeps it in `rows`."""
    if self.run is None:
      line = self._to_line(row)
    else:
      row = {'run': self.run, **row}
      line = json.dumps(row, allow_nan=False)
    with naming(self.path):
      self._file.write(line.encode() + b'\n')
      self._file.flush()
    self.rows.append(self._without_dropped(row))

  def take_in_parts(self) -> None:
    """Makes rows that other processes wrote (see `part_path`) rows of this file, each once.

    Their files are removed. Nobody may be writing them; a kill on the way loses nothing.
    """
    names = [name for name in IDENTITY if name not in self._drop]
    identity = lambda row: tuple(row.get(name) for name in names)
    known = {identity(row) for row in self.rows}
    for path in sorted(self.path.parent.glob(f'{glob.escape(self.path.name)}.process_*')):
      with LineFile(path, self.run) as part:
        for row in part.rows:
          if identity(row) not in known:
            self.append(row)
      path.unlink()

  def __enter__(self) -> LineFile:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self.close()

  def close(self) -> None:
    with naming(self.path):
      self._file.close()

  def _read(self) -> list[Any]:
    """All whole rows; what follows them is cut off."""
    self._file.seek(0)
    if self.run is None:
      rows, size = whole_rows(self._file, self._from_line)
    else:
      rows, size = [], 0
      for number, line in enumerate(self._file, start=1):
        if not line.endswith(b'\n') and self._may_be_ours(line):
          break
        rows.append(self._without_dropped(self._checked(line, number)))
        size += len(line)
    self._file.truncate(size)
    return rows

  def _without_dropped(self, row: Any) -> Any:
    if not self._drop:
      return row
    return {name: value for name, value in row.items() if name not in self._drop}

  def _may_be_ours(self, line: bytes) -> bool:
    """Whether this may be the beginning of a line of this run."""
    start = json.dumps({'run': self.run})[:-1].encode()
    return line.startswith(start) or start.startswith(line)

  def _checked(self, line: bytes, number: int) -> dict[str, Any]:
    """The row of a line; InputError if it belongs to something else."""
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      row = None
    if not isinstance(row, dict) or 'run' not in row:
      raise InputError(
        f'{self.path}, line {number}, is no result of this command; choose another --output.'
      )
    # Older lines have the run's folder as it was typed.
    if row['run'] != self.run and not self.run.endswith(f'/{row["run"]}'):
      raise InputError(
        f'{self.path} holds results of other settings or other parameters '
        f'({row["run"]!r:.80}, now {self.run!r}); choose another --output.'
      )
    return row


def whole_rows(lines: Iterable[bytes], from_line: Callable[[str], Any]) -> tuple[list[Any], int]:
  """Rows of the whole lines up to the first broken one, and the bytes that these take."""
  rows, size = [], 0
  for line in lines:
    if not line.endswith(b'\n'):
      break
    try:
      rows.append(from_line(line.decode()))
    except (ValueError, KeyError, TypeError):
      break
    size += len(line)
  return rows, size


@contextlib.contextmanager
def open_results(
  path: str | os.PathLike[str], run: str, team: Team, drop: Collection[str] = ()
) -> Iterator[LineFile]:
  """This process's file among those of its team; the parts of an earlier start are taken in first.

  Arguments and errors are those of LineFile. All processes must call it, in the same order.
  """
  if not team.is_first:
    team.barrier()  # until the first has taken in what there is
  with LineFile(part_path(path, team.index), run, drop) as file:
    if team.is_first:
      file.take_in_parts()
      team.barrier()
    yield file


def close_parts(team: Team, files: Iterable[LineFile]) -> None:
  """After the work: the first process takes in what the others wrote. All must call it."""
  if not team.is_first:
    for file in files:
      file.close()
  team.barrier()
  if team.is_first:
    for file in files:
      file.take_in_parts()
