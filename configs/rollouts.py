"""Groups of rollouts instead of trees, and no hard set: what recipe, baselines and others share.

No config by itself.
"""

import ml_collections


def learn_from_groups(config: ml_collections.ConfigDict) -> None:
  """Sets K rollouts per problem, each right or wrong as a whole, of every training problem."""
  search = config.search
  search.policy = 'direct'  # K rollouts per problem instead of a tree
  search.num_trajectories = 8  # K, the size of a group
  search.incomplete_score = -1.0  # outcomes are right or wrong

  train = config.train
  train.advantage = 'q_mean'  # outcome minus the mean of the group,
  train.baseline_ends = 'all'  # the whole group,
  train.ends = 'all'
  train.granularity = 'outcome'  # the same for all tokens of a rollout

  learn_from_all(config)
  config.curriculum.max_cached_per_problem = 0  # no replay


def learn_from_all(config: ml_collections.ConfigDict) -> None:
  """Sets that every training problem is trained on."""
  config.curriculum.filter_samples = 0  # no hard set, which would cost its filter
  config.curriculum.rehearsal_share = 0.0  # nothing is left to rehearse
