"""DAPO (arXiv:2503.14476) on Countdown-4, dynamic sampling included.

ds-jax warmstart --config=configs/dapo.py --workdir=runs/dapo
ds-jax train     --config=configs/dapo.py --workdir=runs/dapo
"""

import baselines
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/baselines.py."""
  config = baselines.groups_of_rollouts()
  config.search.cut_ends = 'incomplete'  # paper, section 3.4: what is cut off is punished
  train = config.train
  train.normalization = 'standard'  # the advantage is divided by the group's standard deviation
  train.uniform_trees = 'drop'  # dynamic sampling: groups without contrast are left out,
  train.max_refills = 3  # and replaced from at most this many further batches; paper: no bound
  train.loss_aggregation = 'token_mean'  # over all tokens of the minibatch
  train.clip_low = 0.2
  train.clip_high = 0.28  # clip-higher
  train.overlong_buffer = 0  # tokens; paper: 4096 of 20,480. Responses here end by themselves
  return config
