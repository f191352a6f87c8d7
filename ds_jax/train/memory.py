"""Memory at once: a verified solution is learnt from in the next updates, not in the next round.

The paper caches solutions and mixes them with rollouts of the round after (arXiv:2509.25454,
section 4.3; see replay.py). Here they come back while the policy still fails their problem, whether
or not the problem is drawn again. Of each problem there is a discounted root rate: with w of n ends
right in a step, s <- decay * s + w and n <- decay * n + trials. Its estimate leans towards the mean
rate m of all problems as if two ends had been seen before,
  rate = (s + 2 m) / (n + 2),
and a problem below the bound lends its solutions to the updates. Pure functions on the host.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.config import MemoryConfig, PrefixConfig
from ds_jax.train.advantages import GroupAdvantages
from ds_jax.train.batch import Minibatch
from ds_jax.train.replay import Solution, solution_of
from ds_jax.types import Trajectory

_PURPOSE = 0x3E304  # keeps these random numbers apart from others of the same seed
_PRIOR_ENDS = 2.0  # that a problem's rate starts with


class Remembered(NamedTuple):
  """A solution, and when it was found."""

  solution: Solution
  step: int  # training step, over all rounds


class Rate(NamedTuple):
  """Discounted counts of verified ends."""

  wins: float = 0.0
  trials: float = 0.0

  @property
  def mean(self) -> float:
    """Share of right ends; 0 of none."""
    return self.wins / self.trials if self.trials else 0.0

  def after(self, wins: float, trials: float, decay: float) -> Rate:
    """Returns the rate after a step with so many more ends."""
    return Rate(decay * self.wins + wins, decay * self.trials + trials)

  def towards(self, mean: float) -> float:
    """The estimated rate, in [0, 1], as if two ends of that mean rate had been seen before."""
    return (self.wins + _PRIOR_ENDS * mean) / (self.trials + _PRIOR_ENDS)


def rates_after(
  rates: Mapping[str, Rate],
  overall: Rate,
  groups: Iterable[Sequence[Trajectory]],
  *,
  decay: float,
) -> tuple[dict[str, Rate], Rate]:
  """Returns the rates from the root after a step, by problem and of all problems together.

  Args:
    rates: before the step, by problem.
    overall: likewise, of all problems together.
    groups: verified ends of each problem; an empty group, or one from a prefix, says nothing.
    decay: of earlier counts.
  """
  after, wins, trials = dict(rates), 0.0, 0.0
  for group in groups:
    if not group or group[0].num_given:
      continue
    name, num_right = group[0].problem_id, sum(t.is_correct for t in group)
    after[name] = after.get(name, Rate()).after(num_right, len(group), decay)
    wins, trials = wins + num_right, trials + len(group)
  return after, overall.after(wins, trials, decay)


@dataclasses.dataclass(frozen=True)
class Memory:
  """What a run remembers. Immutable: every change returns a new memory."""

  solutions: Mapping[str, tuple[Remembered, ...]] = dataclasses.field(default_factory=dict)
  rates: Mapping[str, Rate] = dataclasses.field(default_factory=dict)  # by problem
  overall: Rate = Rate()  # of all problems together
  num_found: Mapping[str, int] = dataclasses.field(default_factory=dict)  # different ones, ever
  # digests of those, by problem: one that is found again after it was forgotten is no new one
  digests: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

  def add(self, groups: Iterable[Sequence[Trajectory]], step: int, config: MemoryConfig) -> Memory:
    """Takes in what a step sampled: rates, and solutions that are new, the newest kept.

    Rollouts from a prefix say nothing of the rate from the root; their solutions count like others.

    Args:
      groups: verified ends of each problem; an empty group says nothing.
      step: the training step that sampled them.
      config: `max_per_problem` and `decay`.
    """
    groups = [group for group in groups if group]
    solutions, num_found, digests = dict(self.solutions), dict(self.num_found), dict(self.digests)
    for group in groups:
      name = group[0].problem_id
      for t in group:
        if not t.is_correct:
          continue
        solution = solution_of(t)
        before = solutions.get(name, ())
        if any(solution == one.solution for one in before):
          continue
        solutions[name] = (*before, Remembered(solution, step))[-config.max_per_problem :]
        digest = zlib.crc32(repr(solution).encode())
        if digest not in digests.get(name, ()):
          digests[name] = (*digests.get(name, ()), digest)
          num_found[name] = num_found.get(name, 0) + 1
    visited = self.visit(groups, config.decay)
    return dataclasses.replace(visited, solutions=solutions, num_found=num_found, digests=digests)

  def visit(self, groups: Iterable[Sequence[Trajectory]], decay: float) -> Memory:
    """Takes in the rates alone of what a step sampled from the root.

    Args:
      groups: verified ends of each problem; an empty group says nothing.
      decay: of earlier counts.
    """
    rates, overall = rates_after(self.rates, self.overall, groups, decay=decay)
    return dataclasses.replace(self, rates=rates, overall=overall)

  def rate(self, name: str) -> float:
    """The estimated root rate of a problem, in [0, 1]."""
    return self.rates.get(name, Rate()).towards(self.overall.mean)

  def candidates(self, config: MemoryConfig) -> list[str]:
    """Problems whose solutions may be learnt from, sorted.

    None at all while the policy's overall rate is below `config.min_rate`: what a policy that
    solves nothing solves is mostly luck.
    """
    if self.overall.mean < config.min_rate:
      return []
    names = []
    for name in sorted(self.solutions):
      is_settled = self.rate(name) >= config.rate_bound
      has_many = config.max_distinct and self.num_found[name] > config.max_distinct
      if not is_settled and not has_many:
        names.append(name)
    return names

  def to_json(self) -> dict[str, Any]:
    """Returns plain values that JSON can write; `from_json` restores an equal memory."""
    solutions = {}
    for name, remembered in self.solutions.items():
      solutions[name] = [
        [list(one.solution.prompt_tokens), list(one.solution.response_tokens), one.step]
        for one in remembered
      ]
    return {
      'solutions': solutions,
      'rates': {name: list(rate) for name, rate in self.rates.items()},
      'overall': list(self.overall),
      'num_found': dict(self.num_found),
      'digests': {name: list(digests) for name, digests in self.digests.items()},
    }

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Memory:
    """Returns the memory that `to_json` made the fields of."""
    if not fields:
      return cls()
    solutions = {}
    for name, rows in fields['solutions'].items():
      solutions[name] = tuple(
        Remembered(Solution(tuple(prompt), tuple(response)), step)
        for prompt, response, step in rows
      )
    rates = {name: Rate(*rate) for name, rate in fields['rates'].items()}
    digests = {name: tuple(known) for name, known in fields.get('digests', {}).items()}
    return cls(solutions, rates, Rate(*fields['overall']), dict(fields['num_found']), digests)


def draw(
  memory: Memory, config: MemoryConfig, count: int, *, seed: int, step: int, update: int
) -> list[tuple[str, tuple[Remembered, ...]]]:
  """Draws problems to learn from, each once, with the solutions to choose from.

  A function of its arguments alone, so that every process and a resumed run draw the same.

  Args:
    memory: before the step's own solutions, or with them.
    config: `choice`: 'newest' leaves one solution per problem, 'likeliest' all of them.
    count: of problems; all candidates if there are fewer.
    seed: the run's.
    step: training step.
    update: which of the draws of the step, from 0.
  """
  names = memory.candidates(config)
  if len(names) > count:
    rng = np.random.default_rng(np.random.SeedSequence((_PURPOSE, seed, step, update)))
    names = [names[i] for i in sorted(rng.choice(len(names), size=count, replace=False))]
  drawn = []
  for name in names:
    remembered = memory.solutions[name]
    drawn.append((name, remembered[-1:] if config.choice == 'newest' else remembered))
  return drawn


def lessons(solutions: Sequence[Trajectory], config: MemoryConfig | PrefixConfig) -> Minibatch:
  """Each solution as a group of its own, with `config.advantage` on every response token.

  Args:
    solutions: one per problem, with log-probs of the present policy as behaviour.
    config: of the memory, or of prefixes, which are learnt from likewise.
  """
  minibatch = []
  for t in solutions:
    advantage = np.full(len(t.tokens), config.advantage, np.float32)
    minibatch.append(([t], GroupAdvantages((advantage,), np.ones(1, bool))))
  return minibatch


def likeliest(scored: Sequence[Trajectory]) -> list[int]:
  """Returns the index of each problem's solution whose tokens are the likeliest on average.

  Args:
    scored: solutions with log-probs of the present policy; of equals the first counts.
  """
  best: dict[str, int] = {}
  for i, t in enumerate(scored):
    rival = scored[best.setdefault(t.problem_id, i)]
    if t.behavior_logprobs.mean() > rival.behavior_logprobs.mean():
      best[t.problem_id] = i
  return list(best.values())
