"""The quickstart of README and launch/quickstart.sh: configs/chain.py, and DAPO's curve beside it.

ds-jax warmstart --config=configs/quickstart.py --workdir=runs/quickstart
ds-jax train     --config=configs/quickstart.py --workdir=runs/quickstart
"""

import pathlib

import chain
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/chain.py."""
  config = chain.get_config()
  config.evaluate.every_steps = 6  # ten points of the learning curve
  config.log.beside = str(pathlib.Path(__file__).with_name('quickstart_dapo.json'))
  return config
