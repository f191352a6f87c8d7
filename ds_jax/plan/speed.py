"""What a program takes at the published limits of a device: a bound, which real runs stay below."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from ds_jax.config import Config, SearchConfig, context_length
from ds_jax.plan.hlo import Traffic

# Assumed of a tree at the paper's scale (8 ends, up to 64 segments deep).
_EXPANSIONS_PER_TREE = 190
PAPER_STEPS = 100  # optimizer steps of the paper's run


class Limits(NamedTuple):
  """Published limits of one device."""

  flops: float  # per second, bfloat16
  bandwidth: float  # bytes of memory per second
  network: float  # bytes per second that it can send to its neighbours


@dataclasses.dataclass(frozen=True)
class Work:
  """What one device does in one run of a program."""

  flops: float = 0.0  # of matrix products
  traffic: Traffic = dataclasses.field(default_factory=Traffic)

  def seconds(self, limits: Limits) -> dict[str, float]:
    """What each resource takes; the largest is the bound, if they overlap perfectly."""
    return {
      'compute': self.flops / limits.flops,
      'memory': self.traffic.bytes / limits.bandwidth,
      'network': self.traffic.sent / limits.network,
    }

  def bound(self, limits: Limits) -> tuple[str, float]:
    """The resource that takes longest, and its seconds."""
    seconds = self.seconds(limits)
    name = max(seconds, key=seconds.__getitem__)
    return name, seconds[name]


class Workload(NamedTuple):
  """How often the programs of a training step run; lengths are assumed, not known.

  Refills, replayed solutions and rehearsed prefixes are left out.
  """

  path_length: int  # tokens; paths are taken as half full on average
  expansions_per_tree: int
  expansions: float  # per device group
  rows: float  # over all devices; shared prefixes counted in every path
  passes: float  # forward and backward
  updates: float

  @classmethod
  def of(cls, config: Config, num_groups: int, *, micro_rows: int, row_length: int) -> Workload:
    path_length = context_length(config) // 2
    train, search = config.train, config.search
    per_tree = expansions_per_tree(search)
    expansions = train.batch_problems * per_tree / (search.num_slots * num_groups)
    rows = train.batch_problems * search.num_trajectories * path_length / row_length
    minibatch = train.minibatch_problems or train.batch_problems
    return cls(
      path_length=path_length,
      expansions_per_tree=per_tree,
      expansions=expansions,
      rows=rows,
      passes=train.epochs * rows / micro_rows,
      updates=train.epochs * train.batch_problems / minibatch,
    )


def expansions_per_tree(search: SearchConfig) -> int:
  """Expansions that a problem takes: of rollouts, one child each, half of the longest path."""
  if search.width > 1:
    return _EXPANSIONS_PER_TREE
  return search.num_trajectories * max(1, search.max_depth // 2)


class StepWork(NamedTuple):
  """What one device does in the programs of a training step."""

  decode_step: Work  # one of an expansion
  update: Work  # one forward and backward pass
  optimizer: Work
  reshard: Work


def predict(
  config: Config,
  workload: Workload,
  work: StepWork,
  *,
  limits: Limits,
  num_groups: int,
  num_chips: int,
) -> dict[str, float | str]:
  """Tokens per second and chip-hours at the limits.

  Prefills and replays (0.8 % of the tokens), verification and the host are left out.

  Args:
    config: of the run.
    workload: how often the programs run.
    work: of the programs.
    limits: of a device.
    num_groups: device groups that hold different slots.
    num_chips: of the slice.
  """
  search = config.search
  (decode_resource, decode_seconds), (update_resource, update_seconds), *others = (
    one.bound(limits) for one in work
  )
  apply_seconds = sum(seconds for _, seconds in others)
  # The pending token is a step, too.
  search_seconds = workload.expansions * (search.segment_length + 1) * decode_seconds
  train_seconds = workload.passes * update_seconds + workload.updates * apply_seconds
  step_tokens = search.num_slots * search.width * num_groups
  row_tokens = workload.rows * config.train.epochs / workload.passes * config.train.row_length
  return {
    'decode_bound': decode_resource,
    'update_bound': update_resource,
    'search_tokens_per_second': step_tokens / decode_seconds,
    'update_tokens_per_second': row_tokens / update_seconds,
    'search_seconds_per_step': search_seconds,
    'update_seconds_per_step': train_seconds,
    'chip_hours_of_100_steps': PAPER_STEPS * (search_seconds + train_seconds) * num_chips / 3600,
  }
