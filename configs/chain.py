"""Chain with the quickstart's decoder: a task of confident mistakes that no later line repairs.

ds-jax warmstart --config=configs/chain.py --workdir=runs/chain
ds-jax train     --config=configs/chain.py --workdir=runs/chain

--config.data.chain.depth=12 makes it deeper; what depends on that follows, unless it is given too.

Groups of direct rollouts by DAPO's rules, which are hard to beat here; what else pays is measured
with tests/benchmarks/learning.py.
"""

import countdown
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/countdown.py."""
  config = countdown.get_config()
  data, task = config.data, config.data.chain
  depth = task.get_oneway_ref('depth')  # with which the sums below change
  data.source = 'chain'
  data.prompt_limit = depth + 4  # tokens; a value, eight functions, a colon take 10
  task.depth = 8  # functions, each a line
  task.num_values = 61
  task.num_functions = 6  # 366 facts
  task.weak_share = 0.5  # half of them are imitated wrong more often than right

  search = config.search
  search.policy = 'direct'
  search.max_depth = task.get_oneway_ref('depth')  # segments, a line each
  search.segment_length = 4  # T, tokens: `a f c` and a filler or the end token
  search.num_trajectories = 8  # K
  search.max_expansions = 8 * depth  # eight rollouts of eight segments
  search.incomplete_score = -1.0  # outcomes are right or wrong
  config.verify.verifier = 'chain'
  config.verify.degenerate = 'keep'  # rows of fillers are wrong like others

  train = config.train
  max_depth = search.get_oneway_ref('max_depth')
  train.row_length = data.get_oneway_ref('prompt_limit') + 4 * max_depth  # S, tokens: 12 + 8 * 4
  train.advantage = 'q_mean'  # outcome minus the mean of the group,
  train.baseline_ends = 'all'  # the whole group,
  train.granularity = 'outcome'  # the same for all tokens of a rollout
  train.uniform_trees = 'drop'  # groups without contrast teach nothing,
  train.max_refills = 3  # and are replaced from at most this many further batches

  curriculum = config.curriculum
  curriculum.round_steps = (60,)
  curriculum.filter_samples = 0  # every problem is trained on
  curriculum.rehearsal_share = 0.0
  curriculum.max_cached_per_problem = 0
  return config
