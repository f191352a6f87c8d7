"""DeepSearch by the paper's rules on Countdown-4, with a decoder of 0.23 M parameters.

ds-jax warmstart --config=configs/deepsearch.py --workdir=runs/deepsearch
ds-jax train     --config=configs/deepsearch.py --workdir=runs/deepsearch

Trees, a hard set, two rounds, minutes on two CPU cores. configs/countdown.py learns the same task
with fewer tokens. --config.data.countdown.num_numbers=5 makes it deeper; what depends on that
follows, unless it is given too.

Every field of task, model, search and update is named, with its reason. "paper" and "released":
DeepSearch at 1.5B, see configs/deepsearch_1_5b.py. "swept": chosen by short runs, for the gain in
pass@1 on the held-out split.
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are off, or have the defaults of ds_jax/config/fields.py."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))
  config.seed = 0

  data, task = config.data, config.data.countdown
  num_numbers = task.get_oneway_ref('num_numbers')  # with which the sums below change
  data.source = 'countdown'  # embedded: nothing to download
  data.eval_source = ''  # its held-out split, of hard problems
  data.prompt_limit = num_numbers + 4  # tokens; "24 from 3 5 7 2 :" takes 7
  data.overlong_prompts = 'skip'  # there are none

  task.num_numbers = 4  # three steps; a warm start on five gets 1.5 % instead of 11 %
  task.max_number = 10  # small numbers, so that values and their products are met often
  task.max_value = 99  # a token per value: 112 in all
  task.num_train = 4096  # problems: 43 batches
  task.num_heldout = 512  # problems; `evaluate` below uses half of them
  task.num_warmstart = 40_000  # worked solutions; the warm start goes through them 2.6 times
  task.warmstart_full_share = 0.5  # the other half teaches the steps on fewer numbers
  task.seed = 0

  model = config.model
  model.compute_dtype = 'float32'  # CPUs have no fast bfloat16
  model.remat = 'none'  # memory is no concern
  model.num_layers = 2  # L; 0.6 M parameters take two to three times as long
  model.width = 96  # M, num_heads * head_width
  model.mlp_width = 288  # F, three times M
  model.num_heads = 3  # H
  model.num_kv_heads = 1  # C: caches a third as large
  model.head_width = 32  # D
  model.tie_embeddings = True  # saves the second matrix of so small a model
  model.rope_theta = 10_000.0  # as usual; paths have 35 positions

  warmstart = config.warmstart  # to about 11 % pass@1: hard, and something to learn from
  warmstart.num_steps = 1600
  warmstart.batch_size = 64  # worked solutions per step
  warmstart.learning_rate = 2e-3  # peak
  warmstart.weight_decay = 0.01  # a little: each solution is seen more than once

  sampling = config.sampling
  sampling.temperature = 1.0  # released
  sampling.top_p = 1.0  # off, as released
  sampling.top_k = 0  # off, as released

  search = config.search
  search.policy = 'deepsearch'  # the released rules with their defects mended
  search.num_slots = 48  # per device: half of a step's problems at a time
  search.width = 4  # W; paper: 8, at 64 depths
  search.width_decay = 1  # 4, 3 and 2 children at depths 0, 1 and 2; swept
  search.min_width = 2  # siblings are what a value is compared with
  search.max_depth = num_numbers - 1  # segments: one per step of a solution
  search.segment_length = num_numbers + 5  # T, tokens: one line of a solution
  search.num_trajectories = 8  # K; released
  search.max_expansions = 32  # per tree; a tree with K ends is done before
  search.backtrack = 'global'  # paper
  search.frontier_only = True  # released
  search.lambda_uct = 1.0  # released: 2, for paths 64 deep
  search.lambda1 = 0.4  # released: parent quality
  search.lambda2 = 0.0  # uncertainty is off
  search.lambda3 = 0.01  # paper's best: depth bonus
  search.lambda4 = 0.0  # released: own quality off
  search.depth_bonus = 'sqrt'  # paper's best
  search.uncertainty = 'off'  # released
  search.backup_threshold = 0.1  # paper, Eq. 4
  search.backup_rule = 'constrained'  # paper, Eq. 5
  search.incomplete_score = -0.5  # better than wrong: only the end is missing
  search.cut_ends = 'incomplete'  # ours; released: 'graded'
  search.count_end_token = False  # the end is certain after the third line: it would say nothing
  search.negatives = 'most_confident'  # paper, section 3.2
  search.replay_chunk = 32  # tokens: a whole path in one expansion
  search.replay_lanes = 48  # all slots: a lane costs little at this size
  search.path_block = 128  # positions: a whole path in one block

  verify = config.verify
  verify.verifier = 'countdown'  # arithmetic, exact
  verify.num_workers = 2  # processes, one per core

  prompt_limit, max_depth = data.get_oneway_ref('prompt_limit'), search.get_oneway_ref('max_depth')
  path_length = prompt_limit + max_depth * search.get_oneway_ref('segment_length')
  train = config.train
  train.batch_problems = 96  # searched per step; swept
  train.minibatch_problems = 96  # one update per step: samples are never stale
  train.row_length = path_length + 1  # S, tokens: 8 + 3 * 9 = 35, rounded up
  train.micro_rows = 64  # rows per pass
  train.packing = 'tree'  # each distinct token is forwarded once
  train.tree_row_length = 0  # chosen: 128
  train.learning_rate = 4e-4  # swept, for 180 updates of a small model; paper: 1e-6
  train.warmup_steps = 5  # updates
  train.weight_decay = 0.0  # off: 180 updates
  train.beta1 = 0.9  # released
  train.beta2 = 0.95  # swept; a memory of 20 updates instead of 1000
  train.max_grad_norm = 1.0  # released
  train.clip_low = 0.2  # released
  train.clip_high = 0.28  # released
  train.dual_clip = 10.0  # released
  train.loss_aggregation = 'token_mean'  # released
  train.advantage = 'tree_mean'  # swept; the released q_mean rewards inner nodes of wrong trees
  train.normalization = 'mean_only'  # paper
  train.ends = 'all'  # every verified end: more contrast from the same search
  train.uniform_trees = 'drop'  # trees without contrast teach nothing
  train.q_temperature = 1.0  # released
  train.q_max = 1.0  # released
  train.overlong_buffer = 0  # off: a response has three segments at most

  curriculum = config.curriculum
  curriculum.round_steps = (120, 60)  # two rounds, as released; swept
  curriculum.filter_samples = 4  # paper: rollouts per problem
  curriculum.hard_threshold = 0.25  # paper
  curriculum.filter_from = 'all'  # a problem may have become hard again
  curriculum.rehearsal_share = 0.5  # swept; hard problems alone cost pass@1
  curriculum.max_cached_per_problem = 2  # solutions

  evaluate = config.evaluate
  evaluate.num_problems = 256  # of 512, to save time: the interval is +-2 to 4 points
  evaluate.num_samples = 8  # rollouts per problem
  evaluate.every_steps = 0  # before and after the run alone
  evaluate.temperature = 1.0  # as in training
  evaluate.top_p = 1.0  # off
  evaluate.num_slots = 256  # per device; a rollout is one short path

  config.checkpoint.every_steps = 10  # every twenty seconds or so
  config.log.every_steps = 1
  return config
