"""Numbers that follow from several fields."""

from __future__ import annotations

from ds_jax.checks import InputError
from ds_jax.config.fields import Config, TrainConfig
from ds_jax.config.mixtures import parse_sources

# What checkpoint.best_by calls the mean over the evaluation sets.
MEAN_OF_SETS = 'mean'


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


def evaluation_sets(config: Config) -> tuple[str, ...]:
  """The names of several evaluation sets, in their order; none where there is but one."""
  parts = parse_sources(config.data.eval_source or config.data.source)
  return tuple(part.name for part in parts if part.name)


def samples_by_set(config: Config) -> dict[str, int]:
  """Direct rollouts per problem of the evaluation sets that evaluate.set_samples names.

  Raises:
    InputError: if it is not written as it should be.
  """
  text, counts = config.evaluate.set_samples, {}
  for item in filter(None, text.split(',')):
    name, colon, count = (part.strip() for part in item.rpartition(':'))
    is_count = count.isascii() and count.isdigit() and int(count) > 0
    if not (name and colon and is_count) or name in counts:
      raise InputError(
        'Expected evaluate.set_samples to name evaluation sets, each once, with a number of '
        f'samples above 0, e.g. math500:4,gsm8k:1; got {text!r}.'
      )
    counts[name] = int(count)
  return counts


def best_metric(config: Config) -> str:
  """The metric of an evaluation by which a checkpoint is the best."""
  by = config.checkpoint.best_by
  if by == MEAN_OF_SETS:
    return 'evaluate/mean_pass_at_1'
  return f'evaluate/pass_at_1/{by}' if by else 'evaluate/pass_at_1'


def response_limit(config: Config) -> int:
  """Response tokens of the longest path: max_depth * T."""
  return config.search.max_depth * config.search.segment_length


def context_length(config: Config) -> int:
  """Positions of the longest path, prompt included."""
  return config.data.prompt_limit + response_limit(config)
