"""The embedded default: Countdown-4, a 0.24 M parameter decoder, two CPU cores, minutes.

ds-jax warmstart --config=configs/quickstart.py --workdir=runs/quickstart
ds-jax train     --config=configs/quickstart.py --workdir=runs/quickstart
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Defaults of ds_jax/config.py are this run's settings; see the comments there."""
  return ml_collections.ConfigDict(dataclasses.asdict(Config()))
