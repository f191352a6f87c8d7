r"""1.5B by the best recipe that we know: groups of rollouts instead of trees, memory, four passes.

  ds-jax train --config=configs/best_1_5b.py --workdir=runs/best \
      --config.model.path=nvidia/Nemotron-Research-Reasoning-Qwen-1.5B \
      --config.data.source=file:deepmath103k.parquet --config.data.eval_source=file:aime2025.jsonl

On a TPU slice, with the workdir in a mounted bucket: launch/README.md.
Model, data, lengths and evaluation are those of configs/deepsearch_1_5b.py, the paper's. What
differs paid on small models, at equal tokens (tests/benchmarks/README.md); at this scale nothing of
it has been run by us.
"""

import deepsearch_1_5b
import ml_collections
import recipe


def get_config() -> ml_collections.ConfigDict:
  """Fields not named here are those of configs/recipe.py and configs/deepsearch_1_5b.py."""
  config = deepsearch_1_5b.get_config()
  recipe.learn_by_it(config)
  explore = config.explore
  explore.temperature = 'bandit'  # which one brings contrast depends on the model
  explore.temperatures = (0.6, 0.8, 1.0, 1.2)

  search = config.search
  search.width = 1  # one rollout a slot
  search.max_expansions = 8 * 64  # eight rollouts of 64 segments
  search.cut_ends = 'incomplete'  # right answers that the limit cuts off do not pay

  train = config.train
  train.batch_problems = 64  # a fourth of the paper's: more updates for as many tokens
  train.minibatch_problems = 64  # one update a pass
  train.learning_rate = 1e-6  # a third of what one pass of as many problems takes at this size

  config.curriculum.round_steps = (400,)  # as many rollouts as 100 steps of 256 problems
  return config
