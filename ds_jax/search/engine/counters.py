"""What a run of the engine did, and how well it used its slots."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import operator

from ds_jax.interfaces import Team


@dataclasses.dataclass
class Counters:
  """Counts of one `run` of the engine; `metrics` names those that depend on timing."""

  trees: int = 0
  solved: int = 0
  expansions: int = 0
  generated_tokens: int = 0
  encoded_tokens: int = 0  # by replay: of prompts, and of paths after jumps
  copied_tokens: int = 0  # of prompts, from the path of another slot
  recomputed_tokens: int = 0  # those of the encoded ones that had been encoded before
  rounds: int = 0
  slots_in_demand: int = 0  # all slots, summed over rounds in which jobs were waiting
  busy_in_demand: int = 0  # those of them that expanded
  positions_read: int = 0  # of path caches, summed over decode steps
  positions_valid: int = 0  # those of them on the path of a slot that expanded
  out_of_budget: int = 0  # trees that a budget ended before they had all they were to collect
  seconds: float = 0.0
  verdicts: collections.Counter = dataclasses.field(default_factory=collections.Counter)

  def __add__(self, other: Counters) -> Counters:
    sums = {}
    for field in dataclasses.fields(self):
      sums[field.name] = getattr(self, field.name) + getattr(other, field.name)
    return Counters(**sums)

  def over_team(self, team: Team) -> Counters:
    """The sum over the processes of a job, which all must call; seconds are of the slowest."""
    if team.count == 1:
      return self
    parts = []
    for data in team.gather(json.dumps(vars(self)).encode()):
      part = Counters(**json.loads(data))
      part.verdicts = collections.Counter(part.verdicts)
      parts.append(part)
    total = functools.reduce(operator.add, parts)
    return dataclasses.replace(total, seconds=max(part.seconds for part in parts))

  def metrics(self) -> dict[str, float]:
    """How well the slots were used; report/README.md documents the names. All depends on timing.

    A figure is absent where it would be of nothing.
    """
    return self.slot_metrics() | self.speed_metrics()

  def slot_metrics(self) -> dict[str, float]:
    """Those of `metrics` that are about slots and their paths."""
    metrics = {}
    if self.slots_in_demand:
      metrics['time/occupancy'] = self.busy_in_demand / self.slots_in_demand
    if self.positions_valid:
      metrics['time/path_read_over_valid'] = self.positions_read / self.positions_valid
    return metrics

  def speed_metrics(self) -> dict[str, float]:
    """Those of `metrics` that say how fast tokens were sampled."""
    if not self.generated_tokens:
      return {}
    return {'time/tokens_per_second': self.generated_tokens / max(self.seconds, 1e-6)}
