"""The host's part of a run's state: what a checkpoint holds beside the arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError
from ds_jax.run.waiting import Waiting
from ds_jax.search.policies.fork_law import SplitHistory, Strata
from ds_jax.search.policies.fork_sampling import ForkCounts
from ds_jax.train.exploration import Exploration
from ds_jax.train.memory import Memory
from ds_jax.train.prefixes import Prefixes
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
  batches_before: int | None = None  # drawn in it; None: an older version did not note them
  replay: ReplayBuffer = ReplayBuffer(0)  # solutions that this round may use
  found: ReplayBuffer = ReplayBuffer(0)  # solutions found in this round
  splits: SplitHistory = SplitHistory()  # of recent steps: where forks pay
  evaluations: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  metrics_size: int = 0  # bytes of metrics.jsonl that belong to this state
  num_saves: int = 0
  generated_tokens: int = 0  # by filters, searches and rollouts to learn from
  memory: Memory = Memory()  # solutions that are learnt from at once
  prefixes: Prefixes = Prefixes()  # responses that rollouts start within
  waiting: Waiting = Waiting()  # groups for the updates of the next step
  exploration: Exploration = Exploration()  # temperatures, and what they brought
  solved: frozenset[str] = frozenset()  # problems that an end has solved from the root
  strata: Strata = Strata()  # `splits` of problems solved before, and of the others
  fork_counts: ForkCounts = ForkCounts()  # of recent steps: what forks have brought
  base_digest: str = ''  # of the frozen weights whose adapters are trained; '': all is trained

  @classmethod
  def new(cls, max_cached_per_problem: int) -> RunState:
    """The state of a run that has done nothing yet."""
    buffer = ReplayBuffer(max_cached_per_problem)
    return cls(replay=buffer, found=buffer)

  def to_json(self) -> dict[str, Any]:
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    if not self.base_digest:
      del fields['base_digest']
    return fields | {
      'replay': self.replay.to_json(),
      'found': self.found.to_json(),
      'splits': self.splits.to_json(),
      'memory': self.memory.to_json(),
      'prefixes': self.prefixes.to_json(),
      'waiting': self.waiting.to_json(),
      'exploration': self.exploration.to_json(),
      'solved': sorted(self.solved),
      'strata': self.strata.to_json(),
      'fork_counts': self.fork_counts.to_json(),
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
    self.hard_before, self.batches_before = self.hard_ids, self.batches
    self.round_index += 1
    self.batches, self.hard_ids = 0, None

  def is_done(self, plan: Sequence[int]) -> bool:
    """Whether nothing is left to train by a plan: all rounds are over, or no problem is hard.

    Args:
      plan: training steps of each round.
    """
    return self.round_index >= len(plan) or self.hard_ids == ()

  def steps_done(self, plan: Sequence[int]) -> tuple[int, ...]:
    """Training steps done of each round that was begun.

    Args:
      plan: training steps of each round; those before the newest went by it.
    """
    num_begun = self.round_index + (self.hard_ids is not None)
    if not num_begun:
      return ()
    whole = tuple(plan[: num_begun - 1])
    return (*whole, self.step - sum(whole))

  def follow(self, plan: Sequence[int], plan_before: Sequence[int]) -> bool:
    """Goes on by a plan that begins with what was done under the one before.

    A round that has ended is taken up again where the plan makes it longer: the state is then as if
    it had never ended. An evaluation after training is one on the way if there is more to train.

    Args:
      plan: training steps of each round.
      plan_before: likewise, by which this state was reached.

    Returns:
      Whether a round was taken up again.

    Raises:
      InputError: if the plan does not begin with what was done.
    """
    done = self.steps_done(plan_before)
    if not done:
      return False
    *whole, last = done
    planned = plan[len(whole)] if len(plan) > len(whole) else 0
    if list(plan[: len(whole)]) != whole or planned < last:
      raise InputError(
        f'curriculum.round_steps = {_written(plan)} does not begin with the training steps that '
        f'the run has done, {_written(done)}; begin with these (the last may be more, and further '
        'rounds may follow), or choose another --workdir.'
      )
    is_longer = self.hard_ids is None and planned > last
    if is_longer:
      self._take_up_again(last)
    if 'after' in self.evaluations and not self.is_done(plan):
      self.evaluations[f'after_{self.step:06d}'] = self.evaluations.pop('after')
    return is_longer

  def is_next(self, work: str) -> bool:
    """Whether a journal's work is what this state does next.

    Args:
      work: see `covers`.
    """
    kind, _, which = work.partition('_')
    if kind == 'filter':
      return int(which) == self.round_index
    if kind == 'evaluate':
      return which in ('before', f'step_{self.step:06d}')
    return kind == 'step' and int(which[:6]) == self.step

  def covers(self, work: str) -> bool:
    """Whether a journal's work is part of this state.

    Args:
      work: 'evaluate_before', 'filter_0', 'step_000012' (its waves included) or 'step_000012_1' (a
        refill).
    """
    kind, _, rest = work.partition('_')
    if kind == 'evaluate':
      return rest in self.evaluations
    if kind == 'filter':
      return (int(rest), self.hard_ids is None) < (self.round_index, True)
    return kind == 'step' and int(rest[:6]) < self.step

  def _take_up_again(self, steps: int) -> None:
    """Makes the round before, of so many steps, the present one: the inverse of `end_round`."""
    self.round_index -= 1
    self.hard_ids = self.hard_before
    self.batches = steps if self.batches_before is None else self.batches_before

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
        # Older versions had none of these.
        'memory': Memory.from_json(fields.get('memory', {})),
        'prefixes': Prefixes.from_json(fields.get('prefixes', {})),
        'waiting': Waiting.from_json(fields.get('waiting', [])),
        'exploration': Exploration.from_json(fields.get('exploration', {})),
        'solved': frozenset(fields['solved'] if 'solved' in fields else _known_solved(fields)),
        'strata': Strata.from_json(fields.get('strata', {})),
        'fork_counts': ForkCounts.from_json(fields.get('fork_counts', {})),
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


def _known_solved(fields: Mapping[str, Any]) -> set[str]:
  """Problems whose solutions a checkpoint holds, all that one of an older version tells."""
  caches = [fields['replay'], fields['found'], fields.get('memory') or {'solutions': {}}]
  return set().union(*(cache['solutions'] for cache in caches))


def _written(steps: Sequence[int]) -> str:
  return ','.join(map(str, steps))
