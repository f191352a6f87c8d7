"""The best recipe that we know: groups of rollouts, four passes, memory at once.

No config by itself: countdown.py, chain.py and best_1_5b.py add what depends on the task, above all
the temperature and the size of a draw. What each part brings is in tests/benchmarks/README.md.
On chain its rollouts learn more than trees at equal tokens, except on problems whose only right
path the model takes less than .3 % of the time: there search.policy=deepsearch with
search.siblings=distinct and search.width=2 is ahead.
"""

import ml_collections
import rollouts


def learn_by_it(config: ml_collections.ConfigDict) -> None:
  """Sets what the recipe says, whatever the task."""
  rollouts.learn_from_groups(config)
  config.verify.degenerate = 'keep'  # garbled texts are wrong like others

  train = config.train
  train.max_refills = 0  # groups without contrast are not replaced
  train.epochs = 4  # passes, each an update, at a third of the learning rate of one
  train.success_weight = 1.0  # w: rare successes weigh up to twice as much
  train.uniform_trees = 'drop'  # groups without contrast teach nothing

  memory = config.memory
  memory.when = 'at_once'  # solutions of problems that are still failed join the next updates,
  memory.per_update = 32  # as many at a time
  memory.advantage = 1.0
