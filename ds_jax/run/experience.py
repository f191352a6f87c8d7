"""What a run learns from the groups of a step besides its parameters: counts, caches, memory.

All of it is part of the state, so that a run that was stopped goes on as one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ds_jax.config import Config
from ds_jax.run.forking import forks_by_sampling
from ds_jax.run.state import RunState
from ds_jax.types import FinishedTree, Trajectory


def after_sampling(
  config: Config,
  host: RunState,
  groups: Sequence[Sequence[Trajectory]],
  trees: Sequence[FinishedTree],
  *,
  num_tokens: int,
) -> RunState:
  """The state after what a step has sampled.

  Args:
    config: of the run.
    host: the state before the step; it stays as it is.
    groups: trajectories of each problem.
    trees: those that were searched.
    num_tokens: generated.
  """
  found = host.found
  for group in groups:
    found = found.add(group)
  memory = host.memory
  if config.memory.when == 'at_once':
    memory = memory.add(groups, host.step, config.memory)
  max_depth, fork_counts = config.search.max_depth, host.fork_counts
  if forks_by_sampling(config):
    fork_counts = fork_counts.add(trees, max_depth)
  return dataclasses.replace(
    host,
    generated_tokens=host.generated_tokens + num_tokens,
    splits=host.splits.add(trees, max_depth),
    strata=host.strata.add(trees, host.solved, max_depth),
    fork_counts=fork_counts,
    solved=host.solved | {t.problem_id for group in groups for t in group if t.is_correct},
    found=found,
    memory=memory,
  )


def experience_figures(host: RunState) -> dict[str, float]:
  """Metrics of what the run has learnt so."""
  return {'search/tokens_so_far': host.generated_tokens, 'search/solved_so_far': len(host.solved)}
