"""What a program takes at the published limits of a device: a bound, which real runs stay below."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from ds_jax.config import Config, context_length
from ds_jax.plan.hlo import Traffic

# Of a tree at the paper's scale (README, 'The search'; design: about 190).
EXPANSIONS_PER_TREE = 190
PAPER_STEPS = 100


class Limits(NamedTuple):
  """Published limits of one device."""

  flops: float  # per second, bfloat16
  bandwidth: float  # bytes of memory per second
  network: float  # bytes per second that it can send to its neighbours


@dataclasses.dataclass(frozen=True)
class Work:
  """Of one device, in one run of a program."""

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
    """Which resource, and the seconds."""
    seconds = self.seconds(limits)
    name = max(seconds, key=seconds.__getitem__)
    return name, seconds[name]


class Workload(NamedTuple):
  """How often the programs of a training step run; lengths are assumed, not known."""

  path_length: int  # tokens; paths are taken as half full on average
  expansions: float  # per device group
  rows: float  # over all devices; shared prefixes counted in every path
  passes: float  # forward and backward
  updates: float

  @classmethod
  def of(cls, config: Config, num_groups: int, micro_rows: int, row_length: int) -> Workload:
    path_length = context_length(config) // 2
    train, search = config.train, config.search
    expansions = train.batch_problems * EXPANSIONS_PER_TREE / (search.num_slots * num_groups)
    rows = train.batch_problems * search.num_trajectories * path_length / row_length
    minibatch = train.minibatch_problems or train.batch_problems
    return cls(path_length, expansions, rows, rows / micro_rows, train.batch_problems / minibatch)


def predict(
  config: Config,
  workload: Workload,
  limits: Limits,
  num_groups: int,
  num_chips: int,
  decode_step: Work,
  update: Work,
  optimizer: Work,
  reshard: Work,
) -> dict[str, float | str]:
  """Tokens per second and chip-hours at the limits.

  Prefills and replays (0.8 % of the tokens), verification and the host are left out.
  """
  search = config.search
  of = lambda work: work.bound(limits)[1]
  decode, train = of(decode_step), of(update)
  tokens = search.num_slots * search.width * num_groups
  search_seconds = workload.expansions * (search.segment_length + 1) * decode
  train_seconds = workload.passes * train + workload.updates * (of(optimizer) + of(reshard))
  row_tokens = workload.rows / workload.passes * config.train.row_length
  return {
    'decode_bound': decode_step.bound(limits)[0],
    'update_bound': update.bound(limits)[0],
    'search_tokens_per_second': tokens / decode,
    'update_tokens_per_second': row_tokens / train,
    'search_seconds_per_step': search_seconds,
    'update_seconds_per_step': train_seconds,
    'chip_hours_of_100_steps': PAPER_STEPS * (search_seconds + train_seconds) * num_chips / 3600,
  }
