"""What the fields of a Config may be, and which of them contradict each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ds_jax.checks import InputError, check_choice

if TYPE_CHECKING:
  from ds_jax.config.fields import Config

_CHOICES = {
  'data.overlong_prompts': ('skip', 'truncate_left'),
  'data.flaws': ('drop', 'keep'),
  'model.compute_dtype': ('float32', 'bfloat16'),
  'model.remat': ('none', 'full', 'attention', 'dots'),
  'model.attention_kernel': ('auto', 'off'),
  'search.policy': ('deepsearch', 'faithful', 'direct', 'fork'),
  'search.backtrack': ('global', 'uct'),
  'search.depth_bonus': ('sqrt', 'log', 'linear'),
  'search.uncertainty': ('off', 'sampled', 'entropy'),
  'search.backup_rule': ('constrained', 'vanilla'),
  'search.negatives': ('most_confident', 'random', 'least_confident'),
  'search.local_choice': ('best', 'sampled'),
  'search.cache_kernel': ('auto', 'on', 'off'),
  'search.ties': ('first', 'confident', 'random'),
  'verify.degenerate': ('drop', 'keep'),
  'train.loss_aggregation': ('token_mean', 'sequence_mean', 'sequence_sum'),
  'train.advantage': ('q_mean', 'tree_mean', 'td', 'leave_one_out'),
  'train.granularity': ('node', 'outcome'),
  'train.baseline_ends': ('collected', 'all'),
  'train.normalization': ('mean_only', 'standard', 'none'),
  'train.packing': ('tree', 'flat'),
  'train.objective': ('policy', 'imitation'),
  'train.optimizer': ('adamw', 'adafactor', 'muon'),
  'train.schedule': ('constant', 'linear', 'cosine'),
  'train.ends': ('collected', 'all'),
  'train.uniform_trees': ('drop', 'keep', 'centre'),
  'curriculum.filter_from': ('all', 'hard'),
}

# Fields that must be at least this much.
_MINIMUM = {
  'data.prompt_limit': 1,
  'search.num_slots': 1,
  'search.width': 1,
  'search.max_depth': 1,
  'search.segment_length': 2,
  'search.num_trajectories': 1,
  'search.max_expansions': 1,
  'search.replay_chunk': 1,
  'search.replay_lanes': 1,
  'search.path_block': 1,
  'verify.num_workers': 1,
  'train.batch_problems': 1,
  'train.minibatch_problems': 1,
  'train.max_skipped': 1,
  'train.max_refills': 0,
  'train.row_length': 2,
  'train.micro_rows': 1,
  'train.tree_row_length': 0,
  'train.kl_coefficient': 0.0,
  'train.entropy_coefficient': 0.0,
  'train.importance_cap': 0.0,
  'curriculum.filter_samples': 0,
  'evaluate.num_samples': 1,
  'evaluate.num_slots': 1,
  'checkpoint.every_steps': 1,
  'checkpoint.keep': 1,
  'checkpoint.keep_best': 0,
  'evaluate.every_steps': 0,
  'log.every_steps': 1,
  'verify.cpu_seconds': 0.01,
  'sampling.temperature': 0.0,
  'evaluate.temperature': 0.0,
  'data.countdown.num_numbers': 2,
}


def check_values(config: Config, flat: Mapping[str, Any]) -> None:
  """Raises InputError for a value out of range and for fields that contradict each other.

  Args:
    config: a whole run's.
    flat: the same by names like 'search.width'.
  """
  for name, choices in _CHOICES.items():
    check_choice(name, flat[name], choices)
  for name, minimum in _MINIMUM.items():
    if flat[name] < minimum:
      raise InputError(f'Expected {name} >= {minimum}, got {flat[name]}.')
  search, train = config.search, config.train
  if search.policy in ('direct', 'fork') and search.max_expansions < search.max_depth:
    raise InputError(
      f'search.max_expansions = {search.max_expansions} does not allow one rollout of '
      f'search.max_depth = {search.max_depth} segments; raise it.'
    )
  rounds = config.curriculum.round_steps
  if not rounds or min(rounds) < 1:
    raise InputError(
      'Expected curriculum.round_steps to hold the steps of each round, all >= 1, '
      f'e.g. 100,50; got {rounds}.'
    )
  if not 0 <= config.curriculum.rehearsal_share < 1:
    raise InputError(
      f'Expected curriculum.rehearsal_share in [0, 1), got {config.curriculum.rehearsal_share}.'
    )
  try:
    re.compile(train.frozen)
  except re.error as e:
    raise InputError(
      f'Expected train.frozen to be a regular expression over parameter paths, e.g. '
      f'embedding|layers/.*_scale; got {train.frozen!r} ({e}).'
    ) from e
  if train.batch_problems % train.minibatch_problems:
    raise InputError(
      f'train.batch_problems = {train.batch_problems} is not a multiple of '
      f'train.minibatch_problems = {train.minibatch_problems}; use one that divides it.'
    )
  if not 0 < config.sampling.top_p <= 1 or not 0 < config.evaluate.top_p <= 1:
    raise InputError('Expected top_p in (0, 1]; 1 switches it off.')


def check_rows(config: Config, context_length: int) -> None:
  """Raises InputError if the longest path does not fit a training row.

  Args:
    config: of a run that trains.
    context_length: positions of the longest path, prompt included.
  """
  search, train = config.search, config.train
  if context_length > train.row_length:
    raise InputError(
      f'prompt_limit + max_depth * segment_length = {config.data.prompt_limit} + '
      f'{search.max_depth} * {search.segment_length} = {context_length} exceeds '
      f'train.row_length = {train.row_length}; raise train.row_length or lower max_depth.'
    )
  if train.tree_row_length and train.tree_row_length < train.row_length:
    raise InputError(
      f'train.tree_row_length = {train.tree_row_length} is below train.row_length = '
      f'{train.row_length}, which the longest path needs; raise it, or 0: chosen for you.'
    )
