"""Finished trees as JSON lines: kept before anybody uses them, read again after a kill."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax.interfaces import Team
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
  decoded = {
    name: _array(value) if isinstance(value, dict) and 'dtype' in value else value
    for name, value in fields.items()
  }
  decoded['verdict'] = tuple(decoded['verdict'])
  decoded['selections'] = tuple((int(node), how) for node, how in decoded['selections'])
  return FinishedTree(**decoded)


def share_trees(team: Team, trees: Sequence[FinishedTree]) -> list[FinishedTree]:
  """The trees of all processes of a team, all of which must call it."""
  if team.count == 1:
    return list(trees)
  parts = team.gather('\n'.join(map(tree_to_line, trees)).encode())
  return [tree_from_line(line) for part in parts for line in part.decode().splitlines()]


def _array(value: dict[str, Any]) -> np.ndarray:
  return np.frombuffer(base64.b64decode(value['data']), value['dtype']).copy()


class Journal:
  """Appends finished trees to a file; what `append` wrote survives a kill.

  Each process of a job writes a file of its own, `NAME.process_I.jsonl`; `read_all` and `remove`
  are about those of all processes, of an earlier start with another number of them as well.
  """

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
    trees, kept = _whole_trees(self.path.read_bytes())
    os.truncate(self.path, kept)
    return trees

  def read_all(self) -> list[FinishedTree]:
    """Trees of this process's file and, as far as they are written, of the others'."""
    trees = self.read()
    for path in self._of_all_processes():
      if path != self.path:
        trees += _whole_trees(path.read_bytes())[0]
    return trees

  def remove(self) -> None:
    for path in [self.path, *self._of_all_processes()]:
      path.unlink(missing_ok=True)

  def _of_all_processes(self) -> list[pathlib.Path]:
    name, mark, _ = self.path.name.rpartition('.process_')
    return sorted(self.path.parent.glob(f'{name}{mark}*.jsonl')) if mark else []


def _whole_trees(content: bytes) -> tuple[list[FinishedTree], int]:
  """Trees of the whole lines up to a broken one, and the bytes that these take."""
  trees, kept = [], 0
  for line in content.splitlines(keepends=True):
    if not line.endswith(b'\n'):
      break
    try:
      trees.append(tree_from_line(line.decode()))
    except (ValueError, KeyError, TypeError):
      break
    kept += len(line)
  return trees, kept
