"""What the updates of a step learn from: groups and solutions as packed, scored minibatches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ds_jax.config import Config, response_limit, scored_temperature
from ds_jax.model.decoder import Decoder
from ds_jax.run.lessons import Lessons, draw_lessons
from ds_jax.train.batch import Batch, Minibatch, RowShape, trained_branches
from ds_jax.train.memory import Memory, lessons
from ds_jax.train.prefixes import successful_starts
from ds_jax.train.replay import Solution
from ds_jax.train.rescore import importance_metrics, rescore, score_solutions
from ds_jax.train.state import Policy
from ds_jax.train.step import Learner
from ds_jax.train.trees import Packed, pack_minibatches, pack_trees
from ds_jax.types import Trajectory

_FURTHER = 1 << 16  # number of the first draw for updates on memory alone; others are below


@dataclasses.dataclass(frozen=True)
class PresentPolicy:
  """The policy that scores what an update learns from."""

  config: Config
  learner: Learner
  params: Policy
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

  def rescored(self, batch: Batch) -> Batch:
    """The batch with what the settings ask of this policy and of the reference."""
    config = self.config.train
    return rescore(self.learner, self.params, batch, reference=self.reference, config=config)


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
  remembered = Lessons([], [])
  if policy.config.memory.when == 'at_once':
    num_minibatches = max(1, -(-len(groups) // config.minibatch_problems))
    counts = [policy.config.memory.per_update] * num_minibatches
    remembered = draw_lessons(policy.score, memory, policy.config, step=step, counts=counts)
  packed = pack_minibatches(
    groups,
    config,
    response_limit(policy.config),
    shapes=policy.shapes,
    lessons=remembered.minibatches,
    prefixes=trained_prefixes(policy, groups),
    temperature=scored_temperature(policy.config),
  )
  batches = [policy.rescored(batch) for batch in packed.batches]
  figures = importance_metrics(packed.batches, batches, config) | _figures(packed)
  if config.success_weight and _mass(packed):
    figures['train/positive_mass_share'] = _positive_mass(packed) / _mass(packed)
  if remembered.drawn:
    figures |= remembered.figures(memory, step) | _lesson_shares(packed)
  if packed.prefix_tokens:
    figures |= _prefix_shares(packed)
  return batches, figures


def trained_prefixes(
  policy: PresentPolicy, groups: Sequence[Sequence[Trajectory]]
) -> list[Minibatch]:
  """The prefixes of each minibatch that have an advantage of their own, scored; none unless set so.

  Args:
    policy: that the step begins with.
    groups: trajectories of each problem.
  """
  size, prefix = policy.config.train.minibatch_problems, policy.config.prefix
  if policy.config.search.policy != 'prefix' or not prefix.advantage:
    return []
  minibatches = []
  for first in range(0, len(groups), size):
    starts = successful_starts(groups[first : first + size])
    minibatches.append(lessons(policy.score(starts) if starts else [], prefix))
  return minibatches


def memory_minibatch(policy: PresentPolicy, memory: Memory, *, step: int, index: int) -> Batch:
  """The minibatch of an update on memory alone, without rows where there is nothing to learn.

  Args:
    policy: that the update changes.
    memory: as in `policy_minibatches`.
    step: training step.
    index: which of the step's updates on memory alone, from 0.
  """
  remembered = draw_lessons(
    policy.score,
    memory,
    policy.config,
    step=step,
    counts=[policy.config.memory.per_further_update],
    first_update=_FURTHER + index,
  )
  config = policy.config.train
  trees = trained_branches(
    remembered.minibatches[0], config.loss_aggregation, scored_temperature(policy.config)
  )
  return policy.rescored(pack_trees(trees, config, policy.shapes))


def _figures(packed: Packed) -> dict[str, float]:
  figures = {'train/trajectories': packed.num_trained}
  if packed.num_trained:
    figures['train/response_tokens'] = _num_tokens(packed) / packed.num_trained
  return figures


def _lesson_shares(packed: Packed) -> dict[str, float]:
  """How much of the minibatches comes from memory: of their tokens, and of their advantages."""
  return {
    'memory/token_share': packed.lesson_tokens / _num_tokens(packed),
    'memory/mass_share': packed.lesson_mass / _mass(packed),
  }


def _prefix_shares(packed: Packed) -> dict[str, float]:
  """Likewise of the prefixes that are trained on."""
  return {
    'prefix/token_share': packed.prefix_tokens / _num_tokens(packed),
    'prefix/mass_share': packed.prefix_mass / _mass(packed),
  }


def _mass(packed: Packed) -> float:
  """Sum of |weight * advantage|."""
  return sum(float(batch.positive.sum() + batch.negative.sum()) for batch in packed.batches)


def _positive_mass(packed: Packed) -> float:
  """Of that sum, where the advantage is positive."""
  return sum(float(batch.positive.sum()) for batch in packed.batches)


def _num_tokens(packed: Packed) -> float:
  """Response tokens, copies included."""
  return sum(float(batch.num_copies.sum()) for batch in packed.batches)
