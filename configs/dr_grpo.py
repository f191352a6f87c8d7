"""Dr. GRPO (arXiv:2503.20783) on the quickstart's task: neither length nor deviation divides.

ds-jax warmstart --config=configs/dr_grpo.py --workdir=runs/dr_grpo
ds-jax train     --config=configs/dr_grpo.py --workdir=runs/dr_grpo
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
  train.granularity = 'outcome'  # the same for all tokens of a rollout
  train.normalization = 'mean_only'
  train.baseline_ends = 'all'  # the whole group
  train.uniform_trees = 'keep'  # groups without contrast count in the mean, with advantage 0
  train.loss_aggregation = 'sequence_sum'  # mean over rollouts of the sum over tokens; paper: over
  #   a constant length, which the norm of the gradient or Adam takes out again
  train.clip_low = 0.2
  train.clip_high = 0.2
  train.kl_coefficient = 0.0
  return config
