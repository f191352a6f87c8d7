"""The host's part of a run's state: what a checkpoint holds beside the arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.search.policies.fork_law import SplitHistory
from ds_jax.train.replay import ReplayBuffer


@dataclasses.dataclass
class RunState:
  """The host's part of a checkpoint."""

  round_index: int = 0
  step: int = 0  # training steps done, over all rounds
  batches: int = 0  # of problems, drawn in this round: one per step, and its refills
  skipped_in_row: int = 0  # updates up to now whose gradient was not finite
  hard_ids: tuple[str, ...] | None = None  # of this round; None: not filtered yet
  hard_before: tuple[str, ...] = ()  # of the round before
  replay: ReplayBuffer = ReplayBuffer(0)  # solutions that this round may use
  found: ReplayBuffer = ReplayBuffer(0)  # solutions found in this round
  splits: SplitHistory = SplitHistory()  # of recent steps: where forks pay
  evaluations: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  metrics_size: int = 0  # bytes of metrics.jsonl that belong to this state
  num_saves: int = 0

  @classmethod
  def new(cls, max_cached_per_problem: int) -> RunState:
    """The state of a run that has done nothing yet."""
    buffer = ReplayBuffer(max_cached_per_problem)
    return cls(replay=buffer, found=buffer)

  def to_json(self) -> dict[str, Any]:
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return fields | {
      'replay': self.replay.to_json(),
      'found': self.found.to_json(),
      'splits': self.splits.to_json(),
    }

  def solutions(self) -> ReplayBuffer:
    """All cached solutions, those of this round included."""
    return _merge(self.replay, self.found)

  def begin_round(self, hard_ids: Sequence[str]) -> None:
    """The round trains on these problems, and may use the solutions found so far of them."""
    self.hard_ids = tuple(hard_ids)
    self.replay = self.solutions().retain(hard_ids)
    self.found = ReplayBuffer(self.found.max_per_problem)

  def end_round(self) -> None:
    """Moves on to the next round, which filters anew."""
    self.hard_before = self.hard_ids
    self.round_index += 1
    self.batches, self.hard_ids = 0, None

  def covers(self, work: str) -> bool:
    """Whether a journal's work is part of this state.

    Args:
      work: 'evaluate_before', 'filter_0', 'step_000012' or 'step_000012_1' (a refill).
    """
    kind, _, rest = work.partition('_')
    if kind == 'evaluate':
      return rest in self.evaluations
    if kind == 'filter':
      return (int(rest), self.hard_ids is None) < (self.round_index, True)
    return kind == 'step' and int(rest[:6]) < self.step

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> RunState:
    hard = fields['hard_ids']
    return cls(
      **fields
      | {
        'hard_ids': None if hard is None else tuple(hard),
        'hard_before': tuple(fields['hard_before']),
        'replay': ReplayBuffer.from_json(fields['replay']),
        'found': ReplayBuffer.from_json(fields['found']),
        'splits': SplitHistory.from_json(fields['splits']),
      }
    )


def _merge(replay: ReplayBuffer, found: ReplayBuffer) -> ReplayBuffer:
  """Both buffers' solutions, the older ones first, up to the cap."""
  solutions = dict(replay.solutions)
  for name, new in found.solutions.items():
    kept = solutions.get(name, ())
    fresh = tuple(s for s in new if s not in kept)
    solutions[name] = (*kept, *fresh)[: replay.max_per_problem]
  return dataclasses.replace(replay, solutions=solutions)
