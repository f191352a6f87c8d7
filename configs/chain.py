"""Chain: confident mistakes that no later line repairs; a decoder of 0.22 M parameters, minutes.

ds-jax warmstart --config=configs/chain.py --workdir=runs/chain
ds-jax train     --config=configs/chain.py --workdir=runs/chain

Apply eight functions one after another, a line each. The warm start has half of the 366 facts wrong
more often than right, and one right path per problem: 3 % pass@1. --config.data.chain.depth=12
makes it deeper; what depends on that follows, unless it is given too.
"""

import countdown
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/countdown.py, the recipe among them."""
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
  search.num_slots = 128  # per device: all rollouts of a step at a time
  search.max_depth = task.get_oneway_ref('depth')  # segments, a line each
  search.segment_length = 4  # T, tokens: `a f c` and a filler or the end token
  search.max_expansions = 8 * depth  # eight rollouts of eight segments
  config.verify.verifier = 'chain'

  train = config.train
  train.batch_problems = 16  # draws as small as updates can use; swept
  train.minibatch_problems = 16
  train.micro_rows = 32  # of the few rows that so small a draw has
  max_depth = search.get_oneway_ref('max_depth')
  train.row_length = data.get_oneway_ref('prompt_limit') + 4 * max_depth  # S, tokens: 12 + 8 * 4
  train.learning_rate = 3e-4  # for four passes; a single one takes 1e-3

  config.curriculum.round_steps = (60,)  # 0.25 M tokens
  return config
