"""Rows of data files: jsonl, json, parquet and csv. A broken row does not stop the others."""

from __future__ import annotations

import csv
import glob
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ds_jax.checks import InputError

# (line or row number from 1, the fields, or why they could not be read)
Row = tuple[int, dict[str, Any] | str]

_BATCH_ROWS = 1024  # of a parquet file, decoded together
_CHUNK_ROWS = 1024  # of a TFDS data source, read together


class WrittenFloat(float):
  """A number that knows how it was written: a float has other digits, too many or too few."""

  text: str

  def __new__(cls, text: str) -> WrittenFloat:
    number = super().__new__(cls, text)
    number.text = text
    return number


def find_files(pattern: str) -> list[pathlib.Path]:
  """Returns the file of that name, or the sorted files that match a pattern with `*`, `?` or `[`.

  Raises:
    InputError: if there is none, or one has an unknown extension.
  """
  paths = [pathlib.Path(pattern).expanduser()]
  if not paths[0].exists() and glob.has_magic(pattern):
    paths = [pathlib.Path(name) for name in sorted(glob.glob(str(paths[0]), recursive=True))]
    if not paths:
      raise InputError(f'No file matches {pattern!r}; check the path in data.source.')
  for path in paths:
    if not path.is_file():
      what = 'is a folder; name a file in it' if path.is_dir() else 'does not exist'
      raise InputError(
        f'Data file {str(path)!r} {what}, e.g. file:PATH.jsonl or file:FOLDER/*.parquet. If that '
        'of a run has moved, --config.data.source or --config.data.eval_source names it.'
      )
    if path.suffix.lower() not in _READERS:
      raise InputError(
        f'Cannot read {str(path)!r}: expected one of {", ".join(sorted(_READERS))}, '
        f'got {path.suffix or "no extension"!r}.'
      )
  return paths


def read_rows(path: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a file in order; blank lines are no rows.

  Raises:
    InputError: if the file as a whole is not of its kind, or cannot be opened.
  """
  try:
    yield from _READERS[path.suffix.lower()](path)
  except OSError as e:
    raise InputError(f'Cannot read {str(path)!r}: {e}.') from e


def _read_jsonl(path: pathlib.Path) -> Iterator[Row]:
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      line = line.removeprefix(b'\xef\xbb\xbf').strip()
      if line:
        yield number, _parse_json_object(line)


def _parse_json_object(line: bytes) -> dict[str, Any] | str:
  try:
    value = json.loads(line.decode(), parse_float=WrittenFloat)
  except UnicodeDecodeError:
    return 'not UTF-8'
  except (ValueError, RecursionError) as e:  # a hostile line can nest without end
    return f'not JSON: {e}'
  return _object(value)


def _read_json(path: pathlib.Path) -> Iterator[Row]:
  try:
    rows = json.loads(path.read_text(encoding='utf-8-sig'), parse_float=WrittenFloat)
  except (ValueError, RecursionError) as e:
    raise InputError(
      f'{str(path)!r} is not JSON: {e}. One object per line? Then call it .jsonl.'
    ) from e
  if not isinstance(rows, list):
    raise InputError(
      f'Expected {str(path)!r} to hold a list of objects, got {type(rows).__name__}.'
    )
  for number, row in enumerate(rows, start=1):
    yield number, _object(row)


def _object(value: Any) -> dict[str, Any] | str:
  """The fields of a JSON value, or why it has none."""
  if isinstance(value, dict):
    return value
  return f'expected an object, got {type(value).__name__}'


def _read_csv(path: pathlib.Path) -> Iterator[Row]:
  # Undecodable bytes become lone surrogates, which the text check of fields.py refuses.
  with path.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
    reader = csv.DictReader(file)
    while True:
      try:
        row = next(reader)
      except StopIteration:
        return
      except csv.Error as e:
        yield reader.reader.line_num, f'not CSV: {e}'
        continue
      surplus_values = row.pop(None, None)
      if surplus_values is None:
        yield reader.line_num, row
      else:
        yield reader.line_num, 'more fields than the header'


def _read_parquet(path: pathlib.Path) -> Iterator[Row]:
  import pyarrow
  import pyarrow.parquet

  number = 0
  try:
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
      for row in _batch_rows(batch):
        number += 1
        yield number, row
  except pyarrow.ArrowException as e:
    raise InputError(f'{str(path)!r} is not a sound parquet file (after row {number}): {e}.') from e


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | str]:
  """The rows of a pyarrow.RecordBatch."""
  narrow_columns = _narrow_columns(batch.schema)
  try:
    rows = batch.to_pylist()
  except UnicodeDecodeError:  # one bad string spoils the batch: find it
    rows = [_single_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
  for row in rows:
    if isinstance(row, dict):
      for name, number_type in narrow_columns.items():
        if row[name] is not None:
          row[name] = WrittenFloat(str(number_type(row[name])))
    yield row


def _narrow_columns(schema: Any) -> dict[str, type[np.floating]]:
  """Names of the columns of 16 and 32 bits: as floats their numbers get digits nobody wrote."""
  types = {'halffloat': np.float16, 'float': np.float32}
  return {field.name: types[str(field.type)] for field in schema if str(field.type) in types}


def _single_row(batch: Any) -> dict[str, Any] | str:
  """The row of a batch of one."""
  try:
    return batch.to_pylist()[0]
  except UnicodeDecodeError:
    return 'not UTF-8'


_READERS: dict[str, Callable[[pathlib.Path], Iterator[Row]]] = {
  '.jsonl': _read_jsonl,
  '.json': _read_json,
  '.csv': _read_csv,
  '.parquet': _read_parquet,
}


def read_in_chunks(source: Any) -> Iterator[Mapping[str, Any]]:
  """Yields all rows of a TFDS data source; chunks are twice as fast as single rows."""
  for start in range(0, len(source), _CHUNK_ROWS):
    end = min(start + _CHUNK_ROWS, len(source))
    yield from source.__getitems__(list(range(start, end)))
