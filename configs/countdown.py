"""Countdown-4 with a decoder of 0.23 M parameters, by the best recipe that we know.

ds-jax warmstart --config=configs/countdown.py --workdir=runs/countdown
ds-jax train     --config=configs/countdown.py --workdir=runs/countdown

A problem has many right answers, and problems share no facts. It is made deeper by
--config.data.countdown.num_numbers=5; what depends on that follows, unless it is given too.
"""

import deepsearch
import ml_collections
import recipe


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/recipe.py and configs/deepsearch.py."""
  config = deepsearch.get_config()
  recipe.learn_by_it(config)
  config.sampling.temperature = 1.2  # contrast comes sooner; evaluated at 1

  train = config.train
  train.batch_problems = 32  # smaller draws lose here; swept
  train.minibatch_problems = 32
  train.learning_rate = 1.2e-4  # for four passes; a single one takes 4e-4
  train.warmup_steps = 0

  config.curriculum.round_steps = (160,)  # 1 M tokens
  return config
