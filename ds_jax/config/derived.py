"""Numbers that follow from several fields."""

from __future__ import annotations

from ds_jax.config.fields import Config, TrainConfig


def num_updates(config: Config) -> int:
  """Optimizer updates of a whole run."""
  per_step = config.train.batch_problems // config.train.minibatch_problems * config.train.epochs
  if config.memory.when == 'at_once':
    per_step += config.memory.further_updates
  return sum(config.curriculum.round_steps) * per_step


def trained_temperature(config: Config) -> float:
  """That of the policy which updates change, where a group has none of its own."""
  if config.train.trained_policy == 'plain':
    return 1.0
  return config.sampling.temperature or 1.0


def scored_temperature(config: Config) -> float | None:
  """That of what has none of its own, where updates score each group at its own; None: none does.

  Greedy sampling counts as temperature 1, as in `trained_temperature`.
  """
  if config.explore.temperature == 'constant' or config.train.trained_policy == 'plain':
    return None
  return trained_temperature(config)


def goes_by_trajectory(train: TrainConfig) -> bool:
  """Whether the loss has one ratio for a whole trajectory, and reads where each ends."""
  return train.policy_loss == 'gspo'


def temperature_name(temperature: float) -> str:
  """What metrics and files call a temperature, e.g. 't_1.2'."""
  return f't_{temperature:g}'


def response_limit(config: Config) -> int:
  """Response tokens of the longest path: max_depth * T."""
  return config.search.max_depth * config.search.segment_length


def context_length(config: Config) -> int:
  """Positions of the longest path, prompt included."""
  return config.data.prompt_limit + response_limit(config)
