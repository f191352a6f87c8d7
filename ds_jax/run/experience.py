"""What a run learns from the groups of a step besides its parameters: counts, caches, memory.

All of it is part of the state, so that a run that was stopped goes on as one that was not.
"""

from __future__ import annotations

import dataclasses

from ds_jax.config import Config
from ds_jax.run.forking import forks_by_sampling
from ds_jax.run.sampled import Sampled
from ds_jax.run.starts import prefix_figures
from ds_jax.run.state import RunState
from ds_jax.search.statistics import from_root
from ds_jax.train.exploration import exploration_figures


def after_sampling(config: Config, host: RunState, sampled: Sampled) -> RunState:
  """The state after what a step has sampled; `host` is that before the step, and stays as it is."""
  found = host.found
  for group in sampled.ends:
    found = found.add(group)
  memory = host.memory
  if config.memory.when == 'at_once':
    memory = memory.add(sampled.ends, host.step, config.memory)
  elif config.budget.needs_rates:
    memory = memory.visit(sampled.fresh, config.memory.decay)
  prefixes = host.prefixes
  if config.search.policy == 'prefix':
    prefixes = prefixes.add(sampled.ends, config.prefix)
  trees, max_depth = from_root(sampled.trees), config.search.max_depth
  fork_counts = host.fork_counts
  if forks_by_sampling(config):
    fork_counts = fork_counts.add(trees, max_depth)
  start = config.sampling.temperature
  return dataclasses.replace(
    host,
    batches=host.batches + sampled.num_batches,
    generated_tokens=host.generated_tokens + sampled.num_tokens,
    splits=host.splits.add(trees, max_depth),
    strata=host.strata.add(trees, host.solved, max_depth),
    fork_counts=fork_counts,
    solved=host.solved | sampled.solved,
    found=found,
    memory=memory,
    prefixes=prefixes,
    exploration=host.exploration.add(sampled.brought, config.explore, start),
  )


def experience_figures(config: Config, host: RunState, sampled: Sampled) -> dict[str, float]:
  """Metrics of what the run has learnt so.

  Args:
    config: of the run.
    host: the state after the step.
    sampled: in it.
  """
  figures = {
    'search/tokens_so_far': host.generated_tokens,
    'search/solved_so_far': len(host.solved),
  }
  figures |= exploration_figures(sampled.brought, host.exploration, config.explore)
  if config.search.policy == 'prefix':
    figures |= prefix_figures(sampled.ends, host.prefixes, config.prefix)
  return figures
