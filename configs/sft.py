"""Supervised fine-tuning on worked solutions of the quickstart's training problems: no search.

ds-jax warmstart --config=configs/sft.py --workdir=runs/sft
ds-jax train     --config=configs/sft.py --workdir=runs/sft
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here keep the defaults of ds_jax/config.py, which are the quickstart's."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))

  curriculum = config.curriculum
  curriculum.round_steps = (180,)  # steps, as many as the quickstart's
  curriculum.filter_samples = 0  # every problem is trained on
  curriculum.rehearsal_share = 0.0  # nothing is left to rehearse

  train = config.train
  train.objective = 'imitation'
  train.schedule = 'cosine'
  return config
