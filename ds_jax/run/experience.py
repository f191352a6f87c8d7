"""What a run learns from the groups of a step besides its parameters: counts, caches, memory.

All of it is part of the state, so that a run that was stopped goes on as one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ds_jax.config import Config
from ds_jax.run.starts import prefix_figures
from ds_jax.run.state import RunState
from ds_jax.search.policies.base import ForkPlan
from ds_jax.search.policies.fork_law import fork_plan, split_metrics
from ds_jax.search.statistics import from_root
from ds_jax.types import FinishedTree, Trajectory


def after_sampling(
  config: Config,
  host: RunState,
  groups: Sequence[Sequence[Trajectory]],
  trees: Sequence[FinishedTree],
  *,
  num_tokens: int,
  fresh: Sequence[Sequence[Trajectory]],
) -> RunState:
  """The state after what a step has sampled.

  Args:
    config: of the run.
    host: the state before the step; it stays as it is.
    groups: trajectories of each problem.
    trees: those that were searched.
    num_tokens: generated.
    fresh: of each group the trajectories that were sampled, cached solutions left out.
  """
  found = host.found
  for group in groups:
    found = found.add(group)
  memory = host.memory
  if config.memory.when == 'at_once':
    memory = memory.add(groups, host.step, config.memory)
  elif config.budget.needs_rates:
    memory = memory.visit(fresh, config.memory.decay)
  prefixes = host.prefixes
  if config.search.policy == 'prefix':
    prefixes = prefixes.add(groups, config.prefix)
  return dataclasses.replace(
    host,
    generated_tokens=host.generated_tokens + num_tokens,
    splits=host.splits.add(from_root(trees), config.search.max_depth),
    found=found,
    memory=memory,
    prefixes=prefixes,
  )


def forks_that_pay(config: Config, host: RunState) -> ForkPlan:
  """Where the policy 'fork' may fork, by what recent steps have shown."""
  return fork_plan(host.splits, config.search.max_depth)


def experience_figures(
  config: Config, host: RunState, groups: Sequence[Sequence[Trajectory]]
) -> dict[str, float]:
  """Metrics of what the run has learnt so.

  Args:
    config: of the run.
    host: the state after the step.
    groups: that it sampled.
  """
  figures = split_metrics(host.splits, config.search.max_depth)
  if config.search.policy == 'prefix':
    figures |= prefix_figures(groups, host.prefixes, config.prefix)
  return figures | {'search/tokens_so_far': host.generated_tokens}
