"""RLOO (arXiv:2402.14740) on the quickstart's task: REINFORCE with the others as baseline.

ds-jax warmstart --config=configs/rloo.py --workdir=runs/rloo
ds-jax train     --config=configs/rloo.py --workdir=runs/rloo
"""

import dataclasses

import ml_collections

from ds_jax.config import Config


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here keep the defaults of ds_jax/config.py, which are the quickstart's."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))

  config.search.policy = 'direct'  # K rollouts per problem instead of a tree
  config.search.num_trajectories = 8  # K, the size of a group
  config.search.incomplete_score = -1.0  # outcomes are right or wrong
  config.verify.degenerate = 'keep'  # garbled texts are wrong like others

  curriculum = config.curriculum
  curriculum.round_steps = (180,)  # steps, as many as the quickstart's
  curriculum.filter_samples = 0  # every problem is trained on
  curriculum.rehearsal_share = 0.0  # nothing is left to rehearse
  curriculum.max_cached_per_problem = 0  # no replay

  train = config.train
  train.minibatch_problems = 96  # the whole batch: one update per sample, so that no ratio clips
  train.advantage = 'leave_one_out'  # outcome minus the mean of the other rollouts,
  train.granularity = 'outcome'  # the same for all tokens of a rollout
  train.baseline_ends = 'all'  # the whole group
  train.uniform_trees = 'keep'  # groups without contrast count in the mean, with advantage 0
  train.loss_aggregation = 'sequence_sum'  # the log-prob of a whole rollout
  train.kl_coefficient = 0.0  # paper: a KL in the reward; here, if wanted, in the loss
  return config
