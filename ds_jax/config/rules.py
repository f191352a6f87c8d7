"""Which fields of a Config contradict each other. What one field may be stands on the field."""

from __future__ import annotations

from ds_jax.checks import InputError
from ds_jax.config.derived import context_length
from ds_jax.config.fields import Config


def check_contradictions(config: Config) -> None:
  """Raises InputError for fields that contradict each other, whatever the command."""
  search, train = config.search, config.train
  if search.policy in ('direct', 'fork') and search.max_expansions < search.max_depth:
    raise InputError(
      f'search.max_expansions = {search.max_expansions} does not allow one rollout of '
      f'search.max_depth = {search.max_depth} segments; raise it.'
    )
  if search.fork_rule != 'law' and search.policy != 'fork':
    raise InputError(
      f'search.fork_rule = {search.fork_rule} says where search.policy = fork forks, and '
      f'search.policy = {search.policy} does not; set search.policy=fork, or search.fork_rule=law.'
    )
  if search.min_continuations > 1 and search.policy != 'fork':
    raise InputError(
      f'search.min_continuations = {search.min_continuations} is about nodes that search.policy = '
      f'fork forks, not about search.policy = {search.policy}; set search.policy=fork, or '
      'search.min_continuations=1 (search.width says how many children a node gets).'
    )
  if config.memory.when == 'at_once' and train.objective == 'imitation':
    raise InputError(
      'memory.when = at_once learns from solutions that a search finds, and train.objective = '
      'imitation searches nothing; set memory.when=next_round.'
    )
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
