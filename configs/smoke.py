r"""Three steps on real problems with a random tiny decoder: it learns nothing, it proves the path.

  ds-jax init  --config=configs/smoke.py --tokenizer=QWEN_FOLDER --output=runs/tiny-qwen
  ds-jax train --config=configs/smoke.py --workdir=runs/smoke \
      --config.model.path=runs/tiny-qwen \
      --config.data.source=file:deepmath.parquet --config.data.eval_source=file:aime2025.jsonl

A minute on two CPU cores; the 151,665 ids of the vocabulary are most of the work.
"""

import deepsearch
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/deepsearch.py, small enough for any machine."""
  config = deepsearch.get_config()

  model = config.model  # of `ds-jax init`
  model.num_layers = 1
  model.width = 16
  model.mlp_width = 32
  model.num_heads = 2
  model.head_width = 8

  data = config.data
  data.prompt_limit = 128  # tokens; longer prompts are skipped and counted
  data.max_problems = 8  # of either source

  search = config.search
  search.num_slots = 4  # per device
  search.width = 2
  search.width_decay = 0
  search.max_depth = 2  # segments
  search.segment_length = 8  # tokens
  search.num_trajectories = 4
  search.replay_chunk = 128  # tokens
  search.replay_lanes = 4  # per device

  config.verify.verifier = 'math'

  train = config.train
  train.batch_problems = 4
  train.minibatch_problems = 4
  train.row_length = 160  # tokens
  train.micro_rows = 8
  # All ends are wrong here; the released advantage has a gradient even then.
  train.advantage = 'q_mean'
  train.ends = 'collected'
  train.uniform_trees = 'keep'

  curriculum = config.curriculum
  curriculum.round_steps = (3,)
  curriculum.filter_samples = 1

  evaluate = config.evaluate
  evaluate.num_problems = 4
  evaluate.num_samples = 1
  evaluate.num_slots = 4  # per device
  return config
