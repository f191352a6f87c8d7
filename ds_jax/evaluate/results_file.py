"""A file of results, one JSON object a line, that a stopped or killed command goes on with."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
from collections.abc import Collection
from types import TracebackType
from typing import Any

from ds_jax.checks import InputError


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
      raise InputError(f'{self.path} is being written by another process; wait for it, or choose '
                       'another --output.') from None
    except InputError:
      self._file.close()
      raise

  def append(self, row: dict[str, Any]) -> None:
    """Writes a row and keeps it in `rows`."""
    row = {'run': self.run, **row}
    self._file.write(json.dumps(row, allow_nan=False).encode() + b'\n')
    self._file.flush()
    self.rows.append(self._kept(row))

  def __enter__(self) -> ResultsFile:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
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
      raise InputError(f'{self.path}, line {number}, is no result of this command; choose another '
                       '--output.')
    if row['run'] != self.run:
      raise InputError(f'{self.path} holds results of other settings or other parameters '
                       f'({row["run"]!r:.80}, now {self.run!r}); choose another --output.')
    return row
