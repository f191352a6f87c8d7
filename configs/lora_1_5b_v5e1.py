r"""1.5B on one chip of 16 GiB (v5e:1x1): adapters of rank 32 are trained, the weights stay.

  ds-jax train --config=configs/lora_1_5b_v5e1.py --workdir=runs/lora \
      --config.model.path=nvidia/Nemotron-Research-Reasoning-Qwen-1.5B \
      --config.data.source=file:deepmath103k.parquet --config.data.eval_source=file:aime2025.jsonl

Recipe, data and lengths are those of configs/best_1_5b.py. By `ds-jax plan`, a search takes 12.1 of
16 GiB and an update 9.1, and a step at least 81 minutes, so 400 steps three weeks; nothing of it
has been run by us.
"""

import best_1_5b
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/best_1_5b.py."""
  config = best_1_5b.get_config()

  train = config.train
  train.lora_rank = 32  # of all seven kernels of a layer: 2 % of the parameters
  train.lora_alpha = 64.0  # adapters count twice
  train.learning_rate = 1e-5  # adapters want about ten times the rate of weights
  train.weight_decay = 0.0  # off: it would pull the policy back to the model
  train.micro_rows = 1  # rows per pass

  config.search.num_slots = 8  # decoder slots; 0.55 GiB each
  config.evaluate.num_slots = 8
  return config
