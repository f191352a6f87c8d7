"""What a run learns from the groups of a step besides its parameters: counts, caches, memory.

All of it is part of the state, so that a run that was stopped goes on as one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ds_jax.config import Config
from ds_jax.run.state import RunState
from ds_jax.search.policies.fork_law import split_metrics
from ds_jax.train.exploration import Brought, exploration_figures
from ds_jax.types import FinishedTree, Trajectory


def after_sampling(
  config: Config,
  host: RunState,
  groups: Sequence[Sequence[Trajectory]],
  trees: Sequence[FinishedTree],
  *,
  num_tokens: int,
  brought: Sequence[Brought] = (),
) -> RunState:
  """The state after what a step has sampled.

  Args:
    config: of the run.
    host: the state before the step; it stays as it is.
    groups: trajectories of each problem.
    trees: those that were searched.
    num_tokens: generated.
    brought: what the sampling of each group brought, where its temperature is not constant.
  """
  found = host.found
  for group in groups:
    found = found.add(group)
  memory = host.memory
  if config.memory.when == 'at_once':
    memory = memory.add(groups, host.step, config.memory)
  return dataclasses.replace(
    host,
    generated_tokens=host.generated_tokens + num_tokens,
    splits=host.splits.add(trees, config.search.max_depth),
    found=found,
    memory=memory,
    exploration=host.exploration.add(brought, config.explore, config.sampling.temperature),
  )


def experience_figures(
  config: Config, host: RunState, brought: Sequence[Brought] = ()
) -> dict[str, float]:
  """Metrics of what the run has learnt so; `brought` as in `after_sampling`."""
  return (
    split_metrics(host.splits, config.search.max_depth)
    | exploration_figures(brought, host.exploration, config.explore)
    | {'search/tokens_so_far': host.generated_tokens}
  )
