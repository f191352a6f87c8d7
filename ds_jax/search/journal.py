"""Finished trees as JSON lines: what a journal keeps of them, and processes tell each other."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax.interfaces import Team
from ds_jax.types import FinishedTree

SCHEMA = 1


def tree_to_line(tree: FinishedTree) -> str:
  """One JSON line; arrays are base64 of their bytes, so that floats come back bit by bit.

  Fields that have their default are left out, as in lines of versions that had no such field.
  """
  fields = {'schema': SCHEMA}
  for field in dataclasses.fields(tree):
    value = getattr(tree, field.name)
    if field.default is not dataclasses.MISSING and value == field.default:
      continue
    if isinstance(value, np.ndarray):
      value = array_to_json(value)
    fields[field.name] = dict(value) if field.name == 'statistics' else value
  return json.dumps(fields)


def tree_from_line(line: str) -> FinishedTree:
  """Inverse of `tree_to_line`; ValueError for anything else."""
  fields = json.loads(line)
  if not isinstance(fields, dict) or fields.pop('schema', None) != SCHEMA:
    raise ValueError(f'Expected a finished tree of schema {SCHEMA}.')
  decoded = {
    name: array_from_json(value) if isinstance(value, dict) and 'dtype' in value else value
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


def array_to_json(array: np.ndarray) -> dict[str, Any]:
  """Returns a 1-D array as plain values, its bytes as base64."""
  return {'dtype': str(array.dtype), 'data': base64.b64encode(array.tobytes()).decode()}


def array_from_json(value: dict[str, Any]) -> np.ndarray:
  """Inverse of `array_to_json`."""
  return np.frombuffer(base64.b64decode(value['data']), value['dtype']).copy()
