"""What the baselines share: task and steps of configs/deepsearch.py, without tree and rounds.

No config by itself: configs/grpo.py, dapo.py, dr_grpo.py, rloo.py and sft.py say what differs.
"""

import deepsearch
import ml_collections


def one_round() -> ml_collections.ConfigDict:
  """Returns the settings of configs/deepsearch.py with one round of all training problems."""
  config = deepsearch.get_config()
  curriculum = config.curriculum
  curriculum.round_steps = (180,)  # steps, as many as there
  curriculum.filter_samples = 0  # every problem is trained on
  curriculum.rehearsal_share = 0.0  # nothing is left to rehearse
  return config


def groups_of_rollouts() -> ml_collections.ConfigDict:
  """Returns `one_round` with a group of K rollouts per problem, each right or wrong as a whole."""
  config = one_round()
  config.curriculum.max_cached_per_problem = 0  # no replay

  search = config.search
  search.policy = 'direct'  # K rollouts per problem instead of a tree
  search.num_trajectories = 8  # K, the size of a group
  search.incomplete_score = -1.0  # outcomes are right or wrong
  search.cut_ends = 'graded'  # papers: by the answer alone (DAPO's differs)
  config.verify.degenerate = 'keep'  # garbled texts are wrong like others

  train = config.train
  train.advantage = 'q_mean'  # outcome minus the mean of the group,
  train.baseline_ends = 'all'  # the whole group,
  train.granularity = 'outcome'  # the same for all tokens of a rollout
  train.uniform_trees = 'keep'  # groups without contrast count in the means, with advantage 0
  train.kl_coefficient = 0.0  # no reference policy
  return config
