"""Every setting of a run, as frozen dataclasses; a ConfigDict is turned into them at the door."""

from __future__ import annotations

from ds_jax.config.compare import (
  COMING_FIELDS,
  MACHINE_FIELDS,
  PLACE_FIELDS,
  RESULT_NEUTRAL,
  differing_fields,
  digest,
  settings_digest,
  stored_config,
)
from ds_jax.config.derived import context_length, num_updates, response_limit
from ds_jax.config.fields import (
  BudgetConfig,
  ChainConfig,
  CheckpointConfig,
  Config,
  CountdownConfig,
  CurriculumConfig,
  DataConfig,
  EvaluateConfig,
  LogConfig,
  MemoryConfig,
  MeshConfig,
  ModelConfig,
  SamplingConfig,
  SearchConfig,
  TrainConfig,
  VerifyConfig,
  WarmstartConfig,
)
from ds_jax.config.load import config_from, flatten, load_config
from ds_jax.config.rules import check_training

__all__ = [
  'COMING_FIELDS',
  'MACHINE_FIELDS',
  'PLACE_FIELDS',
  'RESULT_NEUTRAL',
  'BudgetConfig',
  'CheckpointConfig',
  'Config',
  'ChainConfig',
  'CountdownConfig',
  'CurriculumConfig',
  'DataConfig',
  'EvaluateConfig',
  'LogConfig',
  'MemoryConfig',
  'MeshConfig',
  'ModelConfig',
  'SamplingConfig',
  'SearchConfig',
  'TrainConfig',
  'VerifyConfig',
  'WarmstartConfig',
  'check_training',
  'config_from',
  'context_length',
  'differing_fields',
  'flatten',
  'load_config',
  'num_updates',
  'response_limit',
  'digest',
  'settings_digest',
  'stored_config',
]
