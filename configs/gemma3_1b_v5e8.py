r"""Gemma 3 1B on eight free chips (v5e-8): groups of rollouts on math problems, by the recipe.

  ds-jax train --config=configs/gemma3_1b_v5e8.py --workdir=runs/gemma3 \
      --config.data.source=file:gsm8k.jsonl --config.data.eval_source=file:gsm8k_test.jsonl

The model, google/gemma-3-1b-it, comes from the hub (accept Gemma's terms there, set HF_TOKEN), or
from a folder, --config.model.path=DIR. Planned for v5e:2x4 it takes 9.4 GiB of a chip's 16 while it
searches and 9.1 while it updates; it has not been run by us. Qwen3 0.6B on the same slice, and both
on Google Cloud: launch/README.md.
"""

import dataclasses

import ml_collections
import recipe

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/recipe.py and of ds_jax/config/fields.py."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))
  recipe.learn_by_it(config)

  model = config.model
  model.path = 'google/gemma-3-1b-it'
  model.compute_dtype = 'bfloat16'  # masters stay float32
  model.remat = 'full'  # layers are computed again in the backward pass

  data = config.data
  data.source = 'file:gsm8k.jsonl'
  data.eval_source = 'file:gsm8k_test.jsonl'
  data.instruction = " Let's think step by step and output the final answer within \\boxed{}."
  data.prompt_limit = 512  # tokens after the chat template

  search = config.search
  search.num_slots = 64  # per device, 0.08 GiB each; 128 fit
  search.width = 1  # one rollout a slot
  search.max_depth = 8  # segments
  search.segment_length = 256  # T, tokens: responses of up to 2,048
  search.max_expansions = 8 * 8  # eight rollouts of eight segments
  search.replay_chunk = 512  # tokens: a whole prompt in one expansion
  search.replay_lanes = 8  # slots per device that may replay at once
  search.path_block = 256  # path positions that attention reads at a time; divides the window, 512

  verify = config.verify
  verify.verifier = 'math'  # boxed answer, compared by meaning
  verify.num_workers = 8  # processes

  train = config.train
  train.batch_problems = 64  # problems per step: 512 rollouts, all slots at a time
  train.minibatch_problems = 64
  train.row_length = 2560  # S, tokens: 512 + 8 * 256
  train.micro_rows = 16  # rows per pass over all devices
  train.learning_rate = 1e-6
  train.warmup_steps = 10  # updates
  train.max_grad_norm = 1.0

  config.curriculum.round_steps = (200,)

  evaluate = config.evaluate
  evaluate.num_problems = 256
  evaluate.num_samples = 1  # rollouts per problem
  evaluate.every_steps = 20
  evaluate.num_slots = 64  # per device

  mesh = config.mesh
  mesh.data = 1  # replicas
  mesh.fsdp = -1  # all devices: parameters and optimizer state are split over them
  mesh.tensor = 1  # off
  return config
