"""GRPO (arXiv:2402.03300) on the quickstart's task: groups of rollouts, no tree, no rounds.

ds-jax warmstart --config=configs/grpo.py --workdir=runs/grpo
ds-jax train     --config=configs/grpo.py --workdir=runs/grpo
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here keep the defaults of ds_jax/config.py, which are the quickstart's."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))

  config.search.policy = 'direct'  # K rollouts per problem instead of a tree
  config.search.num_trajectories = 8  # K, the size of a group
  config.search.incomplete_score = -1.0  # outcomes are right or wrong
  config.verify.degenerate = 'keep'  # garbled texts are wrong like others

  curriculum = config.curriculum
  curriculum.round_steps = (180,)  # steps, as many as the quickstart's
  curriculum.filter_samples = 0  # every problem is trained on
  curriculum.rehearsal_share = 0.0  # nothing is left to rehearse
  curriculum.max_cached_per_problem = 0  # no replay

  train = config.train
  train.advantage = 'q_mean'  # outcome minus the mean of the group,
  train.granularity = 'outcome'  # the same for all tokens of a rollout,
  train.normalization = 'standard'  # over its standard deviation
  train.baseline_ends = 'all'  # the whole group
  train.uniform_trees = 'keep'  # groups without contrast count in the means, with advantage 0
  train.loss_aggregation = 'sequence_mean'  # mean over rollouts of the mean over tokens
  train.clip_low = 0.2
  train.clip_high = 0.2
  train.kl_coefficient = 0.04  # beta of the KL to the warm start
  return config
