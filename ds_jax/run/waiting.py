"""Groups that a step drew and did not learn from: they wait for the updates of the next step.

They are samples of the policy of one step before. They keep the log-probs that they were sampled
with, so their ratios are to that policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax.search.journal import array_from_json, array_to_json
from ds_jax.types import Trajectory


@dataclasses.dataclass(frozen=True)
class Waiting:
  """The ends of each group that waits; part of a checkpoint."""

  groups: tuple[tuple[Trajectory, ...], ...] = ()

  def __len__(self) -> int:
    return len(self.groups)

  @classmethod
  def of(cls, groups: Sequence[Sequence[Trajectory]]) -> Waiting:
    return cls(tuple(tuple(group) for group in groups))

  def to_json(self) -> list[list[dict[str, Any]]]:
    """Returns plain values that JSON can write; floats come back bit by bit."""
    return [[_to_json(t) for t in group] for group in self.groups]

  @classmethod
  def from_json(cls, groups: Sequence[Sequence[dict[str, Any]]]) -> Waiting:
    """Returns what `to_json` made the values of."""
    return cls.of([[_from_json(fields) for fields in group] for group in groups])


def _to_json(trajectory: Trajectory) -> dict[str, Any]:
  fields = {}
  for field in dataclasses.fields(trajectory):
    value = getattr(trajectory, field.name)
    fields[field.name] = array_to_json(value) if isinstance(value, np.ndarray) else value
  return fields


def _from_json(fields: dict[str, Any]) -> Trajectory:
  decoded = {}
  for name, value in fields.items():
    decoded[name] = array_from_json(value) if isinstance(value, dict) else value
  return Trajectory(**decoded)
