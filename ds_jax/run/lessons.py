"""Memory at once within a run: the solutions that its updates learn from (train/memory.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.config import Config
from ds_jax.train.batch import Minibatch
from ds_jax.train.memory import Memory, Remembered, draw, lessons, likeliest
from ds_jax.train.replay import Solution
from ds_jax.types import Trajectory

# score([(problem id, solution), ...]) -> trajectories with log-probs of the present policy.
ScoreFn = Callable[[Sequence[tuple[str, Solution]]], list[Trajectory]]


class Lessons(NamedTuple):
  """What is learnt from memory in some updates."""

  minibatches: list[Minibatch]  # one per update
  drawn: list[tuple[str, Remembered]]  # problems and solutions, over all updates

  def figures(self, memory: Memory, step: int) -> dict[str, float]:
    """Metrics of what was drawn, which is something."""
    ages = [step - remembered.step for _, remembered in self.drawn]
    return {
      'memory/problems_used': len({name for name, _ in self.drawn}),
      'memory/age': float(np.mean(ages)),
      'memory/different': float(np.mean([memory.num_found[name] for name, _ in self.drawn])),
    }


def draw_lessons(
  score: ScoreFn,
  memory: Memory,
  config: Config,
  *,
  step: int,
  counts: Sequence[int],
  first_update: int = 0,
) -> Lessons:
  """Draws the solutions of some updates, scored by the present policy.

  Args:
    score: scores solutions.
    memory: of the run.
    config: its `memory` says which and with what advantage; `seed` draws.
    step: training step.
    counts: problems for each update.
    first_update: the first one's number among the draws of the step.
  """
  drawn: list[tuple[str, Remembered]] = []
  minibatches: list[Minibatch] = []
  for update, count in enumerate(counts, start=first_update):
    candidates = []
    for name, choices in draw(
      memory, config.memory, count, seed=config.seed, step=step, update=update
    ):
      candidates += [(name, remembered) for remembered in choices]
    scored = []
    if candidates:
      scored = score([(name, remembered.solution) for name, remembered in candidates])
    chosen = likeliest(scored)  # of one solution per problem: all
    drawn += [candidates[i] for i in chosen]
    minibatches.append(lessons([scored[i] for i in chosen], config.memory))
  return Lessons(minibatches, drawn)
