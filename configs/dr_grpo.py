"""Dr. GRPO (arXiv:2503.20783) on Countdown-4: neither length nor deviation divides.

ds-jax warmstart --config=configs/dr_grpo.py --workdir=runs/dr_grpo
ds-jax train     --config=configs/dr_grpo.py --workdir=runs/dr_grpo
"""

import baselines
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/baselines.py."""
  config = baselines.groups_of_rollouts()
  train = config.train
  train.normalization = 'mean_only'  # no deviation
  # Mean over rollouts of the sum over tokens. Paper: over a constant length, which the norm of the
  # gradient or Adam takes out again.
  train.loss_aggregation = 'sequence_sum'
  train.clip_low = 0.2
  train.clip_high = 0.2  # the same on both sides
  return config
