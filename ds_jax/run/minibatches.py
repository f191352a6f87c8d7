"""What the updates of a step learn from: groups and solutions as packed, scored minibatches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ds_jax.config import Config, response_limit, scored_temperature
from ds_jax.model.decoder import Decoder
from ds_jax.run.lessons import Lessons, draw_lessons
from ds_jax.train.batch import Batch, RowShape, trained_branches
from ds_jax.train.memory import Memory
from ds_jax.train.replay import Solution
from ds_jax.train.rescore import importance_metrics, rescore, score_solutions
from ds_jax.train.step import Learner
from ds_jax.train.trees import Packed, pack_minibatches, pack_trees
from ds_jax.types import Trajectory

_FURTHER = 1 << 16  # number of the first draw for updates on memory alone; others are below


@dataclasses.dataclass(frozen=True)
class PresentPolicy:
  """The policy that scores what an update learns from."""

  config: Config
  learner: Learner
  params: Decoder
  reference: Decoder | None  # the policy that the run started from, where the loss needs it
  shapes: Sequence[RowShape]  # of rows, the longest last

  def score(self, solutions: Sequence[tuple[str, Solution]]) -> list[Trajectory]:
    """(problem id, solution) pairs as trajectories with this policy's log-probs."""
    return score_solutions(
      self.learner,
      self.params,
      solutions,
      row_length=self.shapes[-1].row_length,
      temperature=scored_temperature(self.config),
    )


def policy_minibatches(
  policy: PresentPolicy, groups: Sequence[Sequence[Trajectory]], memory: Memory, *, step: int
) -> tuple[list[Batch], dict[str, float]]:
  """Minibatches of whole problems, with what they learn from memory, and their metrics.

  Args:
    policy: that the step begins with.
    groups: trajectories of each problem.
    memory: of the run, before what the step has found.
    step: training step.
  """
  config = policy.config.train
  lessons = Lessons([], [])
  if policy.config.memory.when == 'at_once':
    num_minibatches = -(-len(groups) // config.minibatch_problems)
    counts = [policy.config.memory.per_update] * num_minibatches
    lessons = draw_lessons(policy.score, memory, policy.config, step=step, counts=counts)
  packed = pack_minibatches(
    groups,
    config,
    response_limit(policy.config),
    shapes=policy.shapes,
    lessons=lessons.minibatches,
    temperature=scored_temperature(policy.config),
  )
  batches = []
  for batch in packed.batches:
    batches.append(
      rescore(policy.learner, policy.params, batch, reference=policy.reference, config=config)
    )
  figures = importance_metrics(packed.batches, batches, config) | _figures(packed)
  if lessons.drawn:
    figures |= lessons.figures(memory, step) | _lesson_shares(packed)
  return batches, figures


def memory_minibatch(policy: PresentPolicy, memory: Memory, *, step: int, index: int) -> Batch:
  """The minibatch of an update on memory alone, without rows where there is nothing to learn.

  Args:
    policy: that the update changes.
    memory: as in `policy_minibatches`.
    step: training step.
    index: which of the step's updates on memory alone, from 0.
  """
  lessons = draw_lessons(
    policy.score,
    memory,
    policy.config,
    step=step,
    counts=[policy.config.memory.per_further_update],
    first_update=_FURTHER + index,
  )
  config = policy.config.train
  trees = trained_branches(
    lessons.minibatches[0], config.loss_aggregation, scored_temperature(policy.config)
  )
  return pack_trees(trees, config, policy.shapes)


def _figures(packed: Packed) -> dict[str, float]:
  figures = {'train/trajectories': packed.num_trained}
  if packed.num_trained:
    figures['train/response_tokens'] = _num_tokens(packed) / packed.num_trained
  return figures


def _lesson_shares(packed: Packed) -> dict[str, float]:
  """How much of the minibatches comes from memory: of their tokens, and of their advantages."""
  mass = sum(float(batch.positive.sum() + batch.negative.sum()) for batch in packed.batches)
  return {
    'memory/token_share': packed.lesson_tokens / _num_tokens(packed),
    'memory/mass_share': packed.lesson_mass / mass,
  }


def _num_tokens(packed: Packed) -> float:
  """Response tokens, copies included."""
  return sum(float(batch.num_copies.sum()) for batch in packed.batches)
