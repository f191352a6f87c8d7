"""Finished trees as JSON lines: kept before anybody uses them, read again after a kill."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from ds_jax.types import FinishedTree

SCHEMA = 1


def tree_to_line(tree: FinishedTree) -> str:
  """One JSON line; arrays are base64 of their bytes, so that floats come back bit by bit."""
  fields = {'schema': SCHEMA}
  for field in dataclasses.fields(tree):
    value = getattr(tree, field.name)
    if isinstance(value, np.ndarray):
      value = {'dtype': str(value.dtype), 'data': base64.b64encode(value.tobytes()).decode()}
    fields[field.name] = dict(value) if field.name == 'statistics' else value
  return json.dumps(fields)


def tree_from_line(line: str) -> FinishedTree:
  """Inverse of `tree_to_line`; ValueError for anything else."""
  fields = json.loads(line)
  if not isinstance(fields, dict) or fields.pop('schema', None) != SCHEMA:
    raise ValueError(f'Expected a finished tree of schema {SCHEMA}.')
  decoded = {name: _array(value) if isinstance(value, dict) and 'dtype' in value else value
             for name, value in fields.items()}
  decoded['verdict'] = tuple(decoded['verdict'])
  decoded['selections'] = tuple((int(node), how) for node, how in decoded['selections'])
  return FinishedTree(**decoded)


def _array(value: dict[str, Any]) -> np.ndarray:
  return np.frombuffer(base64.b64decode(value['data']), value['dtype']).copy()


class Journal:
  """Appends finished trees to a file; what `append` wrote survives a kill."""

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path)
    self.path.parent.mkdir(parents=True, exist_ok=True)

  def append(self, tree: FinishedTree) -> None:
    with self.path.open('a') as file:
      file.write(tree_to_line(tree) + '\n')

  def read(self) -> list[FinishedTree]:
    """Trees of all whole lines; a line broken by a kill is cut off, so that appending goes on."""
    if not self.path.exists():
      return []
    trees, kept = [], 0
    with self.path.open('rb') as file:
      for line in file:
        if not line.endswith(b'\n'):
          break
        try:
          trees.append(tree_from_line(line.decode()))
        except (ValueError, KeyError, TypeError):
          break
        kept += len(line)
    os.truncate(self.path, kept)
    return trees

  def remove(self) -> None:
    self.path.unlink(missing_ok=True)
