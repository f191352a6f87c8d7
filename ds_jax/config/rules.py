"""Which fields of a Config contradict each other. What one field may be stands on the field."""

from __future__ import annotations

from ds_jax.checks import InputError
from ds_jax.config.derived import context_length, temperature_name
from ds_jax.config.fields import Config


def check_contradictions(config: Config) -> None:
  """Raises InputError for fields that contradict each other, whatever the command."""
  search, train = config.search, config.train
  if search.policy in ('direct', 'fork') and search.max_expansions < search.max_depth:
    raise InputError(
      f'search.max_expansions = {search.max_expansions} does not allow one rollout of '
      f'search.max_depth = {search.max_depth} segments; raise it.'
    )
  if config.memory.when == 'at_once' and train.objective == 'imitation':
    raise InputError(
      'memory.when = at_once learns from solutions that a search finds, and train.objective = '
      'imitation searches nothing; set memory.when=next_round.'
    )
  _check_temperatures(config)
  if train.contrast_groups and not train.max_refills:
    raise InputError(
      f'train.contrast_groups = {train.contrast_groups} says when no further batch is drawn, and '
      'train.max_refills = 0 draws none; raise train.max_refills, or set contrast_groups to 0.'
    )
  if train.batch_problems % train.minibatch_problems:
    raise InputError(
      f'train.batch_problems = {train.batch_problems} is not a multiple of '
      f'train.minibatch_problems = {train.minibatch_problems}; use one that divides it.'
    )


def _check_temperatures(config: Config) -> None:
  explore, train, sampled = config.explore, config.train, config.sampling.temperature
  is_constant = explore.temperature == 'constant'
  if not is_constant and not sampled:
    raise InputError(
      f'explore.temperature = {explore.temperature} moves the temperature, and '
      'sampling.temperature = 0 samples greedily; set sampling.temperature=1, or '
      'explore.temperature=constant.'
    )
  if not is_constant and train.objective == 'imitation':
    raise InputError(
      f'explore.temperature = {explore.temperature} learns from what is sampled, and '
      'train.objective = imitation samples nothing; set explore.temperature=constant.'
    )
  if explore.min_temperature > explore.max_temperature:
    raise InputError(
      f'explore.min_temperature = {explore.min_temperature} is above explore.max_temperature = '
      f'{explore.max_temperature}; lower it.'
    )
  for field, temperatures in (
    ('explore.temperatures', explore.temperatures),
    ('evaluate.further_temperatures', config.evaluate.further_temperatures),
  ):
    if len(set(map(temperature_name, temperatures))) < len(temperatures):
      raise InputError(f'{field} = {temperatures} names a temperature twice; leave one out.')
  is_tempered = not is_constant or sampled not in (0.0, 1.0)
  if train.trained_policy == 'plain' and is_tempered and not train.importance_cap:
    raise InputError(
      'train.trained_policy = plain learns at temperature 1 from samples of another one, and '
      'train.importance_cap = 0 leaves out their importance weights; set train.importance_cap=2, '
      'or train.trained_policy=sampled.'
    )


def check_training(config: Config) -> None:
  """Raises InputError for what only a training run cannot do: its longest path fits no row."""
  search, train, length = config.search, config.train, context_length(config)
  if length > train.row_length:
    raise InputError(
      f'prompt_limit + max_depth * segment_length = {config.data.prompt_limit} + '
      f'{search.max_depth} * {search.segment_length} = {length} exceeds '
      f'train.row_length = {train.row_length}; raise train.row_length or lower max_depth.'
    )
  if train.tree_row_length and train.tree_row_length < train.row_length:
    raise InputError(
      f'train.tree_row_length = {train.tree_row_length} is below train.row_length = '
      f'{train.row_length}, which the longest path needs; raise it, or 0: chosen for you.'
    )
