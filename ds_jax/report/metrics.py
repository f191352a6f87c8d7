"""Metrics of a run: JSON lines are the record; what other writers hold is derived from them.

`WORKDIR/metrics.jsonl` holds one object per line, keys sorted:

  step   training step (of kind 'warmstart': warm-start step)
  kind   'warmstart' | 'train' | 'evaluate' | 'filter' | …
  names  numbers or short texts, e.g. search/solve_rate; a float that is not finite is null

Everything that depends on the clock is named `time/…` (seconds; time/unix, which the writer adds,
is seconds since 1970), so two runs of one seed write equal lines apart from these.

A checkpoint records `size()`; on resume the file is cut back to that length, and the other writers
(writers.py) are opened with the lines that are left.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ds_jax.checks import InputError, naming
from ds_jax.report.writers import Mirror, OpenWriter

FILE_NAME = 'metrics.jsonl'


class MetricsWriter:
  """Appends metrics to `folder/metrics.jsonl`; each line is on the disk when write() returns."""

  def __init__(
    self,
    folder: str | Path,
    openers: Mapping[str, OpenWriter] | None = None,
    note: Callable[[str], None] = print,
  ):
    """Opens or continues the file, without a last line that a crash left unfinished.

    Args:
      folder: the workdir; made if it does not exist.
      openers: what opens other writers, by name; they follow the file, see writers.py.
      note: is told if one of them fails.
    """
    self._path = Path(folder) / FILE_NAME
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = open(self._path, 'ab')
    self._openers, self._note = openers or {}, note
    self._mirrors: list[Mirror] | None = None  # None: not opened
    self._drop_unfinished_line()

  def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
    """Appends one line.

    Args:
      step: the step that the values belong to.
      kind: what they are of ('train', 'evaluate', …).
      values: numbers (also numpy's or jax's scalars) and texts by name.

    Raises:
      ValueError: if a value is neither a number nor text, or is named 'step' or 'kind'.
    """
    row = {name: _plain(name, value) for name, value in values.items()}
    reserved = {'step', 'kind'} & set(row)
    if reserved:
      raise ValueError(f'Expected names of metrics, got {sorted(reserved)}; these are taken.')
    row |= {'step': int(step), 'kind': kind, 'time/unix': round(time.time(), 3)}
    if self._mirrors is None:
      self._open_mirrors()
    with naming(self._path):
      self._file.write(json.dumps(row, sort_keys=True, allow_nan=False).encode() + b'\n')
      self._commit()
    for mirror in self._mirrors:
      mirror.write(row)

  def size(self) -> int:
    """Returns the bytes committed; a checkpoint records them for cut()."""
    return self._path.stat().st_size

  def cut(self, size: int) -> None:
    """Cuts the file back to `size` bytes, and to the end of a line; other writers begin anew.

    Raises:
      InputError: if the file is shorter than that.
    """
    if size > self.size():
      raise InputError(
        f'Expected {self._path} with at least {size} bytes, as the checkpoint '
        f'records, got {self.size()}; restore the file, or start in a new workdir.'
      )
    self._file.truncate(size)
    self._drop_unfinished_line()
    self._close_mirrors()
    self._open_mirrors()

  def close(self) -> None:
    """Ends writing; a second call does nothing."""
    with naming(self._path):
      self._file.close()
    self._close_mirrors()

  def _drop_unfinished_line(self) -> None:
    content = self._path.read_bytes()
    self._file.truncate(content.rfind(b'\n') + 1)
    self._commit()

  def _commit(self) -> None:
    self._file.flush()
    os.fsync(self._file.fileno())

  def _open_mirrors(self) -> None:
    rows = read_metrics(self._path) if self._openers else []
    self._mirrors = []
    for name, open_writer in self._openers.items():
      self._mirrors.append(Mirror(name, open_writer, rows, self._note))

  def _close_mirrors(self) -> None:
    for mirror in self._mirrors or ():
      mirror.close()
    self._mirrors = None


class NoMetrics:
  """Stands for a MetricsWriter in the processes that write none."""

  def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
    del step, kind, values

  def size(self) -> int:
    return 0

  def cut(self, size: int) -> None:
    del size

  def close(self) -> None:
    pass


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
  """Returns the lines of a metrics file in order; null is None.

  An unfinished last line is left out (the run may be writing it now). No file: no metrics yet.

  Raises:
    InputError: names a line before the last that is broken.
  """
  path = Path(path)
  if not path.exists():
    return []
  rows = []
  lines = path.read_bytes().split(b'\n')
  for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is unfinished
    try:
      row = json.loads(line)
      if not isinstance(row, dict) or not {'step', 'kind'} <= set(row):
        raise ValueError('no step or kind')
    except ValueError as e:
      raise InputError(
        f'{path}:{number}: expected a JSON object with step and kind, got '
        f'{line[:60]!r}; remove the line.'
      ) from e
    rows.append(row)
  return rows


def series(
  rows: Sequence[Mapping[str, Any]], kind: str, name: str
) -> tuple[list[int], list[float]]:
  """Returns steps and values of one metric in rows of `kind`, leaving out rows without a number."""
  steps, values = [], []
  for row in rows:
    if row['kind'] == kind and isinstance(row.get(name), int | float):
      steps.append(row['step'])
      values.append(float(row[name]))
  return steps, values


def _plain(name: str, value: Any) -> float | int | str | None:
  """Returns a value as JSON writes it."""
  if getattr(value, 'ndim', None) == 0:  # a scalar of numpy's or jax's
    value = value.item()
  if isinstance(value, bool):
    return int(value)
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, int | str):
    return value
  raise ValueError(
    f'Expected metric {name} to be a number or text, got {type(value).__name__} '
    f'{str(value)[:60]!r}.'
  )
