"""What competes in learning.py, and where: tasks, arms, and one-field variants of arms to tune."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

FIRST_TUNING_SEED = 100  # seeds from here on tune, those below test

# Trained on: all problems; those that the warm start does not solve in 64 rollouts; those whose one
# right path it takes with a probability below RARE.
Problems = Literal['all', 'unsolved', 'rare']
RARE = 0.003


@dataclasses.dataclass(frozen=True)
class Task:
  """Where arms compete."""

  config: str  # file of configs/
  tokens: int  # generated, of a run
  every_steps: int  # training steps between evaluations; more where an arm draws fewer problems
  learning_rate: float  # of an arm whose `rate` is 1
  overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)
  problems: Problems = 'all'
  is_warm: bool = True  # begins with a warm start; else with the model that its config names
  num_problems: int = 32  # drawn by a step, unless an arm says otherwise
  after: str = ''  # a task, at whose end of DAPO the runs begin: from its plateau, if long enough


_SMALL_STEPS = {
  'train.batch_problems': 32,
  'train.minibatch_problems': 32,
  'train.max_refills': 0,
  'train.warmup_steps': 0,
  'evaluate.num_problems': 256,
  'evaluate.num_samples': 16,
}
# DAPO's rules in a config of ours, whose recipe (configs/recipe.py) the arms have or have not.
_PLAIN = {
  'train.epochs': 1,
  'train.success_weight': 0.0,
  'sampling.temperature': 1.0,
  'memory.when': 'next_round',
}
_CHAIN = {**_SMALL_STEPS, **_PLAIN, 'search.num_slots': 48}
_QUICKSTART = {
  **_PLAIN,
  'train.batch_problems': 32,
  'train.minibatch_problems': 32,
  'train.micro_rows': 64,
}
_SUMS = {
  **_PLAIN,
  'sampling.temperature': 0.6,
  'train.batch_problems': 8,
  'train.minibatch_problems': 8,
}
# A step ends with the draw of 32 groups in which the second one with contrast is found.
_STARVING = {'train.max_refills': 15, 'train.contrast_groups': 2}
TASKS = {
  'chain': Task('chain', 300_000, 8, 1e-3, _CHAIN),
  'chain_unsolved': Task('chain', 420_000, 8, 1e-3, _CHAIN | _STARVING, 'unsolved'),
  'chain_starving': Task('chain', 420_000, 8, 1e-3, _CHAIN | _STARVING, 'rare'),
  'countdown': Task('dapo', 500_000, 24, 4e-4, _SMALL_STEPS),
  # As 'countdown', for so long that pass@1 rises no more; and what comes after.
  'countdown_long': Task('dapo', 4_000_000, 96, 4e-4, _SMALL_STEPS),
  'countdown_plateau': Task('dapo', 500_000, 24, 4e-4, _SMALL_STEPS, after='countdown_long'),
  'quickstart': Task('quickstart', 250_000, 3, 1e-3, _QUICKSTART),
  'sums': Task('smollm2_135m', 28_000, 10, 1e-5, _SUMS, is_warm=False, num_problems=8),
}


@dataclasses.dataclass(frozen=True)
class Arm:
  """What one side does."""

  overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)
  rate: float = 1.0  # of the task's learning rate


_MEMORY = {
  'memory.when': 'at_once',
  'memory.per_update': 96,
  'memory.further_updates': 1,
  'memory.per_further_update': 96,
}
ARMS = {
  'dapo': Arm(),
  'tuned': Arm({'train.epochs': 4, 'train.success_weight': 1.0}, rate=0.3),
  'memory': Arm(_MEMORY),
  'memory_light': Arm({'memory.when': 'at_once', 'memory.per_update': 32}),
}


# What an arm can have besides, 'arm+search=deepsearch': a way to search, the credit of an end's
# tokens, what is remembered, what is explored. A search leaves credit and updates as they are.
_TREE = {'search.width': 4, 'search.width_decay': 0, 'search.max_expansions': 32}
CHOICES: dict[str, dict[str, Mapping[str, object]]] = {
  'search': {
    'deepsearch': {'search.policy': 'deepsearch', **_TREE},
    'narrow': {
      'search.policy': 'deepsearch',
      **_TREE,
      'search.width': 2,
      'search.max_expansions': 64,
    },
    'released': {'search.policy': 'faithful', **_TREE},
    # Of sums, whose rollouts are one segment: four of a quarter of the length.
    'quarters': {
      'search.policy': 'deepsearch',
      **_TREE,
      'search.width': 2,
      'search.max_depth': 4,
      'search.segment_length': 4,
      'search.max_expansions': 64,
      'train.row_length': 80,
    },
    'law': {'search.policy': 'fork', 'search.fork_rule': 'law'},
    'strata': {'search.policy': 'fork', 'search.fork_rule': 'strata'},
    'sampling': {'search.policy': 'fork', 'search.fork_rule': 'sampling'},
    'prefix': {'search.policy': 'prefix'},
  },
  'siblings': {'distinct': {'search.siblings': 'distinct'}},
  'credit': {
    'tree': {'train.advantage': 'tree_mean', 'train.granularity': 'node'},
    'released': {
      'train.advantage': 'q_mean',
      'train.granularity': 'node',
      'train.baseline_ends': 'collected',
    },
  },
  'remember': {
    'strong': _MEMORY,
    'light': ARMS['memory_light'].overrides,
    'few': {'memory.when': 'at_once', 'memory.per_update': 8},
    'next_round': {'curriculum.max_cached_per_problem': 2, 'curriculum.round_steps': (18, 10_000)},
  },
  'explore': {
    'bandit': {'explore.temperature': 'bandit'},
    'steered': {'explore.temperature': 'steered'},
  },
  # Of configs/deepsearch.py: one update on whatever contrast a large draw has.
  'batch': {
    'large': {
      'train.batch_problems': 96,
      'train.minibatch_problems': 96,
      'train.max_refills': 0,
      'train.contrast_groups': 0,
    },
  },
  # The hard set of the first 1,024 problems, and the same problems without the filter.
  'pool': {
    'hard': {'data.max_problems': 1024, 'curriculum.filter_samples': 4},
    'all': {'data.max_problems': 1024},
  },
}

# What pictures call an arm.
LABELS = {'dapo': 'DAPO', 'tuned': 'tuned DAPO'}


@dataclasses.dataclass(frozen=True)
class Knob:
  """What tuning changes of an arm: fields that all get one of the values."""

  fields: tuple[str, ...]  # none: the arm's `rate` is multiplied
  usual: float  # value where an arm says nothing
  values: tuple[float, ...]
  also: Mapping[str, object] = dataclasses.field(default_factory=dict)  # what goes with any value

  def of(self, arm: Arm) -> float:
    """The value that an arm has; of the rate, the factor that leaves it as it is."""
    return arm.overrides.get(self.fields[0], self.usual) if self.fields else self.usual

  def turn(self, arm: Arm, value: float) -> Arm:
    """The arm with this knob at a value."""
    if not self.fields:
      return dataclasses.replace(arm, rate=arm.rate * value)
    changed = {**arm.overrides, **dict.fromkeys(self.fields, value), **self.also}
    return dataclasses.replace(arm, overrides=changed)


_K = 'search.num_trajectories'
KNOBS = {
  'rate': Knob((), 1, (0.3, 0.5, 2, 3)),
  'epochs': Knob(('train.epochs',), 1, (1, 2, 4, 8)),
  'groups': Knob(('train.contrast_groups',), 2, (1, 4, 8)),  # N, where batches are drawn again
  'problems': Knob(('train.batch_problems', 'train.minibatch_problems'), 32, (4, 8, 16, 64)),
  'rollouts': Knob((_K,), 8, (4, 16), {'search.max_expansions': 128}),
  'weight': Knob(('train.success_weight',), 0, (0, 0.5, 1, 2)),
  'temperature': Knob(('sampling.temperature',), 1, (0.8, 1.2, 1.4)),
}
KNOBS_OF_MEMORY = {
  'dose': Knob(('memory.per_update',), 96, (0, 32, 192)),
  'distinct': Knob(('memory.max_distinct',), 0, (1, 2, 4)),
  'advantage': Knob(('memory.advantage',), 1, (0.25, 0.5)),
  'bound': Knob(('memory.rate_bound',), 0.3, (0.1, 0.15, 0.6)),
}


def variants() -> list[str]:
  """The names of all arms with one knob turned, 'arm+knob=value'."""
  names = []
  for name, arm in ARMS.items():
    for knob_name, knob in knobs_of(arm).items():
      for value in knob.values:
        if value != knob.of(arm):
          names.append(f'{name}+{knob_name}={value:g}')
  return names


def knobs_of(arm: Arm) -> dict[str, Knob]:
  """What can be tuned of an arm."""
  return KNOBS | KNOBS_OF_MEMORY if 'memory.when' in arm.overrides else KNOBS


def arm_of(name: str) -> Arm:
  """The arm of a name such as 'tuned' or 'tuned+problems=8+temperature=1.2'.

  Raises:
    ValueError: if there is no such arm, knob or value.
  """
  first, *turns = name.split('+')
  if first not in ARMS:
    raise ValueError(f'Expected one of the arms {", ".join(ARMS)}, got {first!r}.')
  arm = ARMS[first]
  for turn in turns:
    knob_name, _, value = turn.partition('=')
    if value in CHOICES.get(knob_name, ()):
      chosen = CHOICES[knob_name][value]
      arm = dataclasses.replace(arm, overrides={**arm.overrides, **chosen})
      continue
    knob = knobs_of(arm).get(knob_name)
    values = {f'{value:g}': value for value in knob.values} if knob else {}
    if value not in values:
      known = ', '.join(known for known in variants() if known.startswith(f'{first}+'))
      raise ValueError(f'Expected knobs and values as in {known}; got {turn!r}.')
    arm = knob.turn(arm, values[value])
  return arm


def family(arm: str) -> str:
  """The arm that a variant is of."""
  return arm.partition('+')[0]


def run_command(task: str, arm: str, seeds: Iterable[int]) -> str:
  """What makes the runs of an arm."""
  names = ','.join(map(str, seeds))
  return f"python tests/benchmarks/learning.py run --task={task} --arms='{arm}' --seeds={names}"


def _of_draws(task: Task, num_problems: int) -> dict[str, object]:
  """What follows from how many problems a step draws.

  Smaller draws are evaluated after more steps, but after fewer tokens, and have fewer rows per
  pass: results are the same up to floating point.
  """
  if num_problems >= task.num_problems:
    return {'evaluate.every_steps': task.every_steps}
  factor = max(1, task.num_problems // num_problems // 2)
  return {
    'evaluate.every_steps': task.every_steps * factor,
    'train.micro_rows': 2 * num_problems,
  }


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of an arm."""

  task: str
  arm: str
  seed: int

  @property
  def name(self) -> str:
    """Of its workdir."""
    return f'{self.arm}_{self.seed}'

  @property
  def overrides(self) -> dict[str, object]:
    """Fields of the config of its task that differ."""
    task, arm = TASKS[self.task], arm_of(self.arm)
    num_problems = arm.overrides.get('train.batch_problems', task.num_problems)
    return {
      **task.overrides,
      'train.learning_rate': float(f'{task.learning_rate * arm.rate:.6g}'),
      'curriculum.round_steps': (10_000,),
      'curriculum.filter_samples': 0,
      **arm.overrides,
      'seed': self.seed,
      'curriculum.max_tokens': task.tokens,
      **_of_draws(task, num_problems),
      'checkpoint.every_steps': 25,
      'log.tensorboard': False,
    }
