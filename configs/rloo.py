"""RLOO (arXiv:2402.14740) on Countdown-4: REINFORCE with the others as baseline.

ds-jax warmstart --config=configs/rloo.py --workdir=runs/rloo
ds-jax train     --config=configs/rloo.py --workdir=runs/rloo
"""

import baselines
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/baselines.py."""
  config = baselines.groups_of_rollouts()
  train = config.train
  train.minibatch_problems = 96  # the whole batch: one update per sample, so that no ratio clips
  train.advantage = 'leave_one_out'  # outcome minus the mean of the other rollouts
  train.loss_aggregation = 'sequence_sum'  # the log-prob of a whole rollout
  train.kl_coefficient = 0.0  # paper: a KL in the reward; here, if wanted, in the loss
  return config
