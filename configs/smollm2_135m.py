"""SmolLM2-135M-Instruct on sums of digits: a real language model learns, minutes on two CPU cores.

  pip install 'ds_jax[gym]'
  ds-jax train --config=configs/smollm2_135m.py --workdir=runs/smollm2

The model comes from the Hugging Face hub; --config.model.path=DIR takes a folder.
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are off, or have the defaults of ds_jax/config/fields.py."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))
  config.seed = 0

  model = config.model
  model.path = 'HuggingFaceTB/SmolLM2-135M-Instruct'
  model.compute_dtype = 'float32'  # CPUs have no fast bfloat16
  model.remat = 'none'  # 64 rows of 72 tokens are small

  data = config.data
  data.source = 'gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2&reads=last_number'
  data.max_problems = 1000  # generated for training
  data.prompt_limit = 64  # tokens after the chat template

  sampling = config.sampling
  sampling.temperature = 0.6

  search = config.search
  search.policy = 'direct'  # K rollouts per problem
  search.num_slots = 64  # all rollouts of a step at a time
  search.width = 1
  search.max_depth = 1  # segments
  search.segment_length = 16  # T, tokens
  search.num_trajectories = 8  # K
  search.max_expansions = 8
  search.incomplete_score = -1.0
  search.replay_chunk = 64
  search.replay_lanes = 8
  search.path_block = 80

  train = config.train
  train.batch_problems = 8
  train.minibatch_problems = 8
  train.row_length = 80
  train.micro_rows = 8
  train.learning_rate = 1e-5
  train.warmup_steps = 0
  train.weight_decay = 0.0
  train.granularity = 'outcome'
  train.baseline_ends = 'all'
  train.ends = 'all'
  train.uniform_trees = 'drop'

  curriculum = config.curriculum
  curriculum.round_steps = (40,)
  curriculum.filter_samples = 0
  curriculum.max_cached_per_problem = 0

  evaluate = config.evaluate
  evaluate.num_problems = 48
  evaluate.num_samples = 8
  evaluate.temperature = 0.6
  evaluate.top_p = 1.0
  evaluate.num_slots = 64
  return config
