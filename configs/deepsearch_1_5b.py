r"""DeepSearch at 1.5B: the paper's settings (arXiv:2509.25454) and those of the released scripts.

  ds-jax train --config=configs/deepsearch_1_5b.py --workdir=runs/deepsearch \
      --config.model.path=nvidia/Nemotron-Research-Reasoning-Qwen-1.5B \
      --config.data.source=file:deepmath103k.parquet --config.data.eval_source=file:aime2025.jsonl

On a TPU slice, with the workdir in a mounted bucket: launch/README.md.
Paper: 100 steps in two rounds of 50, 330 GPU hours on H100, 62.95 % mean over six benchmarks.
Not yet run here at this scale. "script": round0.sh / round1.sh of smiles724/DeepSearch, commit
daf9067; "code": that repository's defaults.
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here have the defaults of ds_jax/config/fields.py."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))

  model = config.model
  model.path = 'Nemotron-Research-Reasoning-Qwen-1.5B'  # folder; script: this model of nvidia's
  model.compute_dtype = 'bfloat16'  # script: verl's default; masters stay float32
  model.remat = 'full'  # script: enable_gradient_checkpointing

  data = config.data
  data.source = 'file:deepmath103k.parquet'  # script: DeepMath-103K, pass@4 of 0 % and 25 %
  data.eval_source = 'file:aime2025.jsonl'  # script: AIME 2025
  data.instruction = (  # paper, appendix; rows of the released data end with it already
    "Let's think step by step and output the final answer within \\boxed{}."
  )
  data.prompt_limit = 2048  # tokens; script: max_prompt_length
  data.overlong_prompts = 'truncate_left'  # script: truncation=left

  sampling = config.sampling
  sampling.temperature = 1.0  # script
  sampling.top_p = 1.0  # script: off
  sampling.top_k = 0  # script: off (-1 there)

  search = config.search
  search.policy = 'deepsearch'  # the released rules with their defects mended
  # Decoder slots per device; script: batch_size=16 trees. 0.6 GiB each: with 16 GiB (v5e), 8 fit.
  search.num_slots = 16
  search.width = 8  # W; script: expansion_width
  search.width_decay = 0  # script: the same width at every depth
  search.max_depth = 64  # segments; script
  search.segment_length = 256  # T, tokens; script: 16,384 response tokens / 64
  search.num_trajectories = 8  # K; script: rollout.n
  search.max_expansions = 512  # per tree; ours, a bound on memory (the paper's trees take ~190)
  search.backtrack = 'global'  # paper: global frontier selection
  search.frontier_only = True  # code
  search.lambda_uct = 2.0  # code
  search.lambda1 = 0.4  # code: parent quality
  search.lambda2 = 0.4  # code: uncertainty, which the next line switches off
  search.uncertainty = 'off'  # code
  search.lambda3 = 0.01  # paper's best; code
  search.lambda4 = 0.0  # code: own quality off
  search.depth_bonus = 'sqrt'  # paper's best; code
  search.backup_threshold = 0.1  # paper, Eq. 4; code
  search.backup_rule = 'constrained'  # paper, Eq. 5
  search.incomplete_score = -1.0  # code
  search.cut_ends = 'graded'  # code: an answer counts although the response was cut off
  search.count_end_token = True  # code, where padding and end token differ, as with this tokenizer
  search.negatives = 'most_confident'  # paper, section 3.2
  search.replay_chunk = 2048  # tokens a lane encodes per expansion; ours
  search.replay_lanes = 4  # slots per device that may replay at once; ours
  search.path_block = 512  # path positions that attention reads at a time; ours

  verify = config.verify
  verify.verifier = 'math'  # boxed answer, compared by meaning
  verify.num_workers = 8  # processes; ours

  train = config.train
  train.batch_problems = 256  # problems per step; script: train_batch_size
  train.minibatch_problems = 32  # problems per update; script: ppo_mini_batch_size
  train.row_length = 18_432  # tokens; script: 2,048 + 16,384
  train.micro_rows = 8  # rows per pass over all devices; script: 18,432 tokens per GPU, 8 GPUs
  train.learning_rate = 1e-6  # script
  train.warmup_steps = 10  # updates; script
  train.weight_decay = 0.1  # script
  train.beta1 = 0.9  # code: AdamW's default
  train.beta2 = 0.999  # code: AdamW's default
  train.max_grad_norm = 1.0  # script: grad_clip
  train.clip_low = 0.2  # script
  train.clip_high = 0.28  # script
  train.dual_clip = 10.0  # script: clip_ratio_c
  train.loss_aggregation = 'token_mean'  # script
  train.advantage = 'q_mean'  # paper, Eq. 9: node value minus the mean reward of the tree's ends
  train.normalization = 'mean_only'  # paper; script: norm_adv_by_std_in_grpo=False
  train.ends = 'collected'  # code: the K collected ends
  train.uniform_trees = 'keep'  # code
  train.q_temperature = 1.0  # eps_q; code
  train.q_max = 1.0  # code
  train.overlong_buffer = 4096  # tokens; script
  train.overlong_factor = 1.0  # script

  curriculum = config.curriculum
  curriculum.round_steps = (50, 50)  # released: rounds 0 and 1; paper: 100 steps in all
  curriculum.filter_samples = 4  # paper: pass@1 over K = 4 rollouts
  curriculum.hard_threshold = 0.25  # paper; the released files keep 0 % and 25 % alike
  curriculum.filter_from = 'hard'  # released: round 1 is a subset of round 0
  curriculum.rehearsal_share = 0.0  # paper: hard problems alone
  curriculum.max_cached_per_problem = 8  # ours: at most K

  evaluate = config.evaluate
  evaluate.num_problems = 0  # all
  evaluate.num_samples = 32  # paper: pass@1 over 32 samples
  evaluate.temperature = 0.6  # paper
  evaluate.top_p = 0.95  # paper
  # Decoder slots per device; ours. A path of 18,432 tokens takes 0.55 GiB: 8 leave a v5e 12 %, 64
  # would take 35 GiB, more than any chip but v5p and 7x has.
  evaluate.num_slots = 8

  mesh = config.mesh
  mesh.data = 1  # replicas
  mesh.fsdp = -1  # all devices: parameters and optimizer state are split over them
  mesh.tensor = 1  # off
  config.checkpoint.every_steps = 5  # script: save_freq
  return config
