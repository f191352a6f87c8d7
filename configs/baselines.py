"""What the baselines share: task and steps of configs/deepsearch.py, without tree and rounds.

No config by itself: configs/grpo.py, dapo.py, dr_grpo.py, rloo.py and sft.py say what differs.
"""

import deepsearch
import ml_collections
import rollouts


def one_round() -> ml_collections.ConfigDict:
  """Returns the settings of configs/deepsearch.py with one round of all training problems."""
  config = deepsearch.get_config()
  rollouts.learn_from_all(config)
  config.curriculum.round_steps = (180,)  # steps, as many as there
  return config


def groups_of_rollouts() -> ml_collections.ConfigDict:
  """Returns `one_round` with a group of K rollouts per problem, each right or wrong as a whole."""
  config = one_round()
  rollouts.learn_from_groups(config)
  config.search.cut_ends = 'graded'  # papers: by the answer alone (DAPO's differs)
  config.verify.degenerate = 'keep'  # garbled texts are wrong like others

  train = config.train
  train.uniform_trees = 'keep'  # groups without contrast count in the means, with advantage 0
  train.kl_coefficient = 0.0  # no reference policy
  return config
