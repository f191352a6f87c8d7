"""GRPO (arXiv:2402.03300) on Countdown-4: groups of rollouts, no tree, no rounds.

ds-jax warmstart --config=configs/grpo.py --workdir=runs/grpo
ds-jax train     --config=configs/grpo.py --workdir=runs/grpo
"""

import baselines
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/baselines.py."""
  config = baselines.groups_of_rollouts()
  train = config.train
  train.normalization = 'standard'  # the advantage is divided by the group's standard deviation
  train.loss_aggregation = 'sequence_mean'  # mean over rollouts of the mean over tokens
  train.clip_low = 0.2
  train.clip_high = 0.2  # the same on both sides
  train.kl_coefficient = 0.04  # beta of the KL to the warm start
  return config
