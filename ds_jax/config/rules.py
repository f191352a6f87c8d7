"""Which fields of a Config contradict each other. What one field may be stands on the field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ds_jax.checks import InputError, is_python_name, suggest
from ds_jax.config.derived import (
  MEAN_OF_SETS,
  context_length,
  evaluation_sets,
  goes_by_trajectory,
  samples_by_set,
  temperature_name,
)
from ds_jax.config.fields import Config, TrainConfig

_WRITERS = ('jsonl', 'tensorboard', 'wandb')
_ONE_CHILD_AT_A_TIME = ('direct', 'fork', 'prefix')  # policies that draw children so


def check_contradictions(config: Config) -> None:
  """Raises InputError for fields that contradict each other, whatever the command."""
  search, train = config.search, config.train
  if search.policy in _ONE_CHILD_AT_A_TIME and search.max_expansions < search.max_depth:
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
  if search.siblings == 'distinct':
    _check_distinct(config)
  _check_memory(config)
  if search.policy == 'prefix':
    _check_prefix(config)
  _check_draws(config)
  _check_temperatures(config)
  _check_policy_loss(config)
  _check_importance(config)
  _check_adapters(config)
  if config.evaluate.set_samples:
    _check_set_samples(config)
  _check_writers(config.log.writers)
  _check_profile(config.log.profile_steps)
  if config.model.attention_kernel == 'on' and config.mesh.tensor > 1:
    raise InputError(
      f"model.attention_kernel = 'on' needs whole heads on every device, got mesh.tensor = "
      f"{config.mesh.tensor}; set it to 'auto', or mesh.tensor=1."
    )
  if train.batch_problems % train.minibatch_problems:
    raise InputError(
      f'train.batch_problems = {train.batch_problems} is not a multiple of '
      f'train.minibatch_problems = {train.minibatch_problems}; use one that divides it.'
    )


def _check_distinct(config: Config) -> None:
  """Raises InputError where no expansion has siblings that could differ."""
  search = config.search
  if search.policy in _ONE_CHILD_AT_A_TIME:
    raise InputError(
      f'search.siblings = distinct is about children that are drawn together, and search.policy = '
      f'{search.policy} draws one at a time; set search.policy=deepsearch, or '
      'search.siblings=independent.'
    )
  if search.width == 1:
    raise InputError(
      'search.siblings = distinct is about children that are drawn together, and search.width = 1 '
      'draws one; raise it, or set search.siblings=independent.'
    )
  if not config.sampling.temperature:
    raise InputError(
      'search.siblings = distinct samples continuations that differ, and sampling.temperature = 0 '
      'leaves but one; set sampling.temperature=1, or search.siblings=independent.'
    )


def _check_memory(config: Config) -> None:
  """Raises InputError where memory is on and could never lend a solution."""
  memory = config.memory
  if memory.when != 'at_once':
    return
  if config.train.objective == 'imitation':
    raise InputError(
      'memory.when = at_once learns from solutions that a search finds, and train.objective = '
      'imitation searches nothing; set memory.when=next_round.'
    )
  if not memory.per_update and not memory.further_updates:
    raise InputError(
      'memory.when = at_once learns from solutions in the updates of a step or in further ones, '
      'and memory.per_update = 0 and memory.further_updates = 0 leave out both; raise one of them, '
      'or set memory.when=next_round.'
    )


def _check_prefix(config: Config) -> None:
  """Raises InputError where no rollout could ever start from a prefix."""
  prefix, train = config.prefix, config.train
  if config.search.max_depth < 2:
    raise InputError(
      'search.policy = prefix leaves at least one segment to sample, and search.max_depth = 1 has '
      'no other; raise it, or set search.policy=direct.'
    )
  if train.objective == 'imitation':
    raise InputError(
      'search.policy = prefix starts rollouts within earlier responses, and train.objective = '
      'imitation has no rollouts; set search.policy=direct.'
    )
  num_hard = train.batch_problems
  if config.curriculum.filter_samples:  # else all problems are hard
    num_hard -= round(num_hard * config.curriculum.rehearsal_share)
  if math.ceil(prefix.root_share * num_hard) >= num_hard:
    raise InputError(
      f'prefix.root_share = {prefix.root_share} of the {num_hard} hard problems of a batch '
      '(train.batch_problems without curriculum.rehearsal_share) leaves none to start from a '
      'prefix; lower it, or raise train.batch_problems.'
    )
  if 0 < prefix.failure_rate < prefix.withdraw_rate:
    raise InputError(
      f'prefix.failure_rate = {prefix.failure_rate} is below prefix.withdraw_rate = '
      f'{prefix.withdraw_rate}: problems between them would start within failures and solutions '
      'alike; raise failure_rate, or set it to 0.'
    )


def _check_draws(config: Config) -> None:
  """Raises InputError for contradictions in how much a step draws, and of what it learns."""
  search, train, budget = config.search, config.train, config.budget
  draws_more = train.max_refills or budget.max_rollouts
  if train.contrast_groups and not draws_more:
    raise InputError(
      f'train.contrast_groups = {train.contrast_groups} says when nothing more is drawn, and '
      'train.max_refills = 0 and budget.max_rollouts = 0 draw no more; raise one of them, or set '
      'contrast_groups to 0.'
    )
  if budget.max_tokens and not draws_more:
    raise InputError(
      f'budget.max_tokens = {budget.max_tokens} bounds further draws, and train.max_refills '
      '= 0 and budget.max_rollouts = 0 draw no more; raise one of them, or set max_tokens to 0.'
    )
  if budget.needs_rates and train.objective == 'imitation':
    raise InputError(
      'budget.max_rollouts and budget.first_wave say how many rollouts a problem gets, and '
      'train.objective = imitation has none; set both to 0.'
    )
  begins_with = min(search.num_trajectories, budget.first_wave or search.num_trajectories)
  if 0 < budget.max_rollouts <= begins_with:
    raise InputError(
      f'budget.max_rollouts = {budget.max_rollouts} leaves nothing for further waves: a problem '
      f'begins with {begins_with} (search.num_trajectories, budget.first_wave); raise it, or 0: no '
      'further waves.'
    )
  if train.waiting_groups and (train.contrast_groups or not train.max_refills):
    raise InputError(
      f'train.waiting_groups = {train.waiting_groups} keeps groups that a step draws beyond its '
      'batch: that takes train.max_refills > 0 and train.contrast_groups = 0 (else all are learnt '
      'from at once); set these, or waiting_groups to 0.'
    )
  if train.waiting_groups > train.batch_problems:
    raise InputError(
      f'train.waiting_groups = {train.waiting_groups} is more than the next step learns from, '
      f'train.batch_problems = {train.batch_problems}; lower it.'
    )


def _check_temperatures(config: Config) -> None:
  """Raises InputError for temperatures that contradict each other, or the trained policy."""
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


def _check_policy_loss(config: Config) -> None:
  """Raises InputError where a loss other than PPO's has no meaning."""
  train = config.train
  if train.policy_loss == 'ppo':
    return
  if train.objective == 'imitation':
    raise InputError(
      f'train.policy_loss = {train.policy_loss} is about updates by sampled responses, and '
      'train.objective = imitation has none; set train.policy_loss=ppo.'
    )
  if not goes_by_trajectory(train):
    return
  if train.granularity == 'node':
    raise InputError(
      f'train.policy_loss = {train.policy_loss} has one ratio and one advantage for a whole '
      'trajectory, and train.granularity = node gives each of its nodes another advantage, which '
      'trajectories share; set train.granularity=outcome, or train.policy_loss=ppo or cispo.'
    )
  if train.importance_cap:
    raise InputError(
      f'train.importance_cap = {train.importance_cap} weighs each token by itself, and '
      f'train.policy_loss = {train.policy_loss} has one ratio for a whole trajectory; set '
      'train.importance_cap=0 (its clip bounds stale samples), or train.policy_loss=ppo or cispo.'
    )


def _check_importance(config: Config) -> None:
  """Raises InputError for bounds of importance weights that contradict each other."""
  train = config.train
  if train.importance_outliers == 'masked' and not train.importance_cap:
    raise InputError(
      'train.importance_outliers = masked is about importance weights, and train.importance_cap = '
      '0 leaves them out; set train.importance_cap=5, or importance_outliers=truncated.'
    )
  if not train.importance_floor:
    return
  if train.importance_outliers == 'truncated':
    raise InputError(
      f'train.importance_floor = {train.importance_floor} is the smallest weight that is not '
      'masked, and train.importance_outliers = truncated masks none; set '
      'train.importance_outliers=masked, or importance_floor=0.'
    )
  if train.importance_floor >= train.importance_cap:
    raise InputError(
      f'train.importance_floor = {train.importance_floor} is not below train.importance_cap = '
      f'{train.importance_cap}: every token would be masked; lower it.'
    )


def _check_adapters(config: Config) -> None:
  """Raises InputError for settings that mean nothing with adapters, or nothing without them."""
  train, default = config.train, TrainConfig()
  if not train.lora_rank:
    if train.lora_alpha != default.lora_alpha:
      raise InputError(
        f'train.lora_alpha = {train.lora_alpha} says how much adapters count, and train.lora_rank '
        f'= 0 has none; set train.lora_rank=32, or train.lora_alpha={default.lora_alpha}.'
      )
    if train.lora_targets != default.lora_targets:
      raise InputError(
        f'train.lora_targets = {train.lora_targets} says which kernels have adapters, and '
        f'train.lora_rank = 0 has none; set train.lora_rank=32, or '
        f"train.lora_targets='{default.lora_targets}'."
      )
    return
  if train.frozen:
    raise InputError(
      f'train.frozen = {train.frozen} leaves parameters out of training, and train.lora_rank = '
      f"{train.lora_rank} all but adapters; set train.frozen='' and choose kernels with "
      'train.lora_targets.'
    )
  if train.optimizer == 'muon':
    raise InputError(
      'train.optimizer = muon is for whole matrices, and train.lora_rank = '
      f'{train.lora_rank} trains factors of their change; set train.optimizer=adamw.'
    )


def _check_set_samples(config: Config) -> None:
  """Raises InputError for numbers of samples of evaluation sets that do not exist."""
  unknown = sorted(samples_by_set(config).keys() - set(evaluation_sets(config)))
  if unknown:
    raise InputError(
      f'evaluate.set_samples = {config.evaluate.set_samples} is about {", ".join(unknown)}: '
      f"{_known_sets(config)} Name one of several, or set evaluate.set_samples=''."
    )


def _check_best_by(config: Config) -> None:
  """Raises InputError where no evaluation could tell which checkpoint is the best."""
  by, sets = config.checkpoint.best_by, evaluation_sets(config)
  if not by:
    return
  if not sets or by not in (*sets, MEAN_OF_SETS):
    raise InputError(
      f'checkpoint.best_by = {by} is about one of several evaluation sets, or their mean: '
      f'{_known_sets(config)} Set checkpoint.best_by to {MEAN_OF_SETS} or the name of one of '
      "several, or to '' for pass@1 over all problems."
    )
  if by == MEAN_OF_SETS and by in sets:
    raise InputError(
      f'checkpoint.best_by = {by} is the mean over the evaluation sets, and one of them is called '
      f'{by}; give its file another name.'
    )
  num_problems = config.evaluate.num_problems
  if 0 < num_problems < len(sets):
    raise InputError(
      f'checkpoint.best_by = {by} needs problems of each of {len(sets)} evaluation sets, and '
      f'evaluate.num_problems = {num_problems} are fewer; raise it, or 0: all.'
    )


def _known_sets(config: Config) -> str:
  """What evaluation sets there are, as a sentence."""
  field = 'data.eval_source' if config.data.eval_source else 'data.source'
  sets = evaluation_sets(config)
  if not sets:
    return f'{field} names but one set, which needs no name.'
  return f'{field} has the sets {", ".join(sets)}.'


def _check_writers(writers: Sequence[str]) -> None:
  """Raises InputError for writers that do not exist, or without the record of the run."""
  for name in writers:
    if name not in _WRITERS and not is_python_name(name):
      raise InputError(
        f'Expected log.writers to list some of {", ".join(_WRITERS)} and python:MODULE.FUNCTION, '
        f'got {name!r}.{suggest(name, _WRITERS)}'
      )
    if writers.count(name) > 1:
      raise InputError(f'log.writers = {",".join(writers)} names {name} twice; leave one out.')
  if 'jsonl' not in writers:
    raise InputError(
      f'log.writers = {",".join(writers)} lacks jsonl, by which a run is continued and reported; '
      f'set log.writers={",".join(("jsonl", *writers))}.'
    )


def _check_profile(steps: Sequence[int]) -> None:
  """Raises InputError unless the steps of a profile are a first and a last one, or none."""
  if steps and (len(steps) != 2 or steps[0] > steps[1]):
    raise InputError(
      f'log.profile_steps = {",".join(map(str, steps))} is not the first and the last training '
      'step of a profile; set e.g. log.profile_steps=10,12.'
    )


def check_training(config: Config) -> None:
  """Raises InputError for what only a training run cannot do.

  Its longest path fits no row, it has no step of those that are profiled, or no evaluation tells
  which checkpoint is the best.
  """
  _check_best_by(config)
  search, train, length = config.search, config.train, context_length(config)
  num_steps = sum(config.curriculum.round_steps)
  if config.log.profile_steps[:1] > (num_steps,):
    raise InputError(
      f'log.profile_steps begins with step {config.log.profile_steps[0]}, and the run has '
      f'{num_steps} (curriculum.round_steps); set an earlier one.'
    )
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
