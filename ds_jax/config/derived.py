"""Numbers that follow from several fields."""

from __future__ import annotations

from ds_jax.config.fields import Config


def num_updates(config: Config) -> int:
  """Optimizer updates of a whole run."""
  per_step = config.train.batch_problems // config.train.minibatch_problems * config.train.epochs
  if config.memory.when == 'at_once':
    per_step += config.memory.further_updates
  return sum(config.curriculum.round_steps) * per_step


def response_limit(config: Config) -> int:
  """Response tokens of the longest path: max_depth * T."""
  return config.search.max_depth * config.search.segment_length


def context_length(config: Config) -> int:
  """Positions of the longest path, prompt included."""
  return config.data.prompt_limit + response_limit(config)
