"""Supervised fine-tuning on worked solutions of Countdown-4's training problems: no search.

ds-jax warmstart --config=configs/sft.py --workdir=runs/sft
ds-jax train     --config=configs/sft.py --workdir=runs/sft
"""

import baselines
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/baselines.py."""
  config = baselines.one_round()
  config.train.objective = 'imitation'  # of worked solutions
  config.train.schedule = 'cosine'  # falls until the last update
  return config
