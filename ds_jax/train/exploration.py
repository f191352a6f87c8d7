"""Exploration by temperature: what groups brought, and the temperature of those to come.

Where hardly any group has contrast, that is right and wrong ends, an update learns little, and the
temperature decides how many have (Polaris 2025; TAMPO, arXiv:2602.11779). It is chosen here by the
share of groups with contrast that it brought. The reward is counted per group, not per token: a
step draws a fixed number of groups whatever they cost, and a group either gives an update a
direction or does not. Contrast by mistakes on easy problems counts as that by successes on hard
ones, and that of rollouts within a prefix as that of rollouts from the root.

Counts are discounted: with c of n groups of a step having contrast,
  C <- decay * C + c,  N <- decay * N + n.

'steered': one temperature for all groups of a step. With the share C / N after a step,
  T <- min(T * factor, T_max) below the target, T <- max(T / factor, T_min) above it.

'bandit': each group draws a value theta_a for every temperature a (Thompson sampling), and has the
temperature of the largest:
  theta_a ~ Beta(C_a + k m, N_a - C_a + k (1 - m)),  m = (C + 1) / (N + 2),
where C and N are of all groups together. So a temperature that nobody has tried lately is taken for
one like the others, as if k = 2 groups had been seen. Pure functions on the host.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.config import ExploreConfig, temperature_name

_PURPOSE = 0x7E3B  # keeps these random numbers apart from others of the same seed
_PRIOR_GROUPS = 2.0  # k, that an estimate starts with


class Brought(NamedTuple):
  """What the sampling of one group brought, cached solutions aside."""

  temperature: float
  has_contrast: bool


class Tally(NamedTuple):
  """Discounted counts of groups."""

  with_contrast: float = 0.0
  groups: float = 0.0

  @property
  def share(self) -> float:
    """Of groups with contrast; 0 of no group."""
    return self.with_contrast / self.groups if self.groups else 0.0

  def after(self, groups: Sequence[Brought], decay: float) -> Tally:
    """Returns the counts after a step with these groups."""
    with_contrast = sum(group.has_contrast for group in groups)
    return Tally(decay * self.with_contrast + with_contrast, decay * self.groups + len(groups))


@dataclasses.dataclass(frozen=True)
class Exploration:
  """What a run knows of its temperatures. Immutable: every change returns a new one."""

  overall: Tally = Tally()
  arms: Mapping[float, Tally] = dataclasses.field(default_factory=dict)  # by temperature
  steered: float | None = None  # the next step's temperature; None: not moved yet

  def add(self, groups: Sequence[Brought], config: ExploreConfig, start: float) -> Exploration:
    """Takes in what the groups of a step brought.

    Args:
      groups: of the step; none changes nothing.
      config: says how the temperature moves.
      start: the run's temperature, from which it is steered.
    """
    if not groups:
      return self
    overall = self.overall.after(groups, config.decay)
    if config.temperature == 'steered':
      moved = _moved(self.temperature(config, start), overall.share, config)
      return Exploration(overall, steered=moved)
    arms = {}
    for temperature in config.temperatures:
      of_arm = [group for group in groups if group.temperature == temperature]
      arms[temperature] = self.arms.get(temperature, Tally()).after(of_arm, config.decay)
    return Exploration(overall, arms)

  def temperature(self, config: ExploreConfig, start: float) -> float:
    """The steered temperature of the next step."""
    if self.steered is not None:
      return self.steered
    return min(max(start, config.min_temperature), config.max_temperature)

  def posterior(self, temperature: float) -> tuple[float, float]:
    """The two parameters of the beta distribution of a temperature's share of contrast."""
    mean = (self.overall.with_contrast + 1) / (self.overall.groups + 2)
    with_contrast, groups = self.arms.get(temperature, Tally())
    return (
      with_contrast + _PRIOR_GROUPS * mean,
      groups - with_contrast + _PRIOR_GROUPS * (1 - mean),
    )

  def estimate(self, temperature: float) -> float:
    """The mean of `posterior`."""
    a, b = self.posterior(temperature)
    return a / (a + b)

  def to_json(self) -> dict[str, Any]:
    """Returns plain values that JSON can write; `from_json` restores an equal state."""
    arms = [[temperature, *tally] for temperature, tally in self.arms.items()]
    return {'overall': list(self.overall), 'arms': arms, 'steered': self.steered}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Exploration:
    """Returns the state that `to_json` made the fields of."""
    if not fields:
      return cls()
    arms = {temperature: Tally(*counts) for temperature, *counts in fields['arms']}
    return cls(Tally(*fields['overall']), arms, fields['steered'])


def _moved(temperature: float, share: float, config: ExploreConfig) -> float:
  """The steered temperature after a step that left this share of groups with contrast."""
  if share < config.target:
    return min(temperature * config.factor, config.max_temperature)
  if share > config.target:
    return max(temperature / config.factor, config.min_temperature)
  return temperature


def draw(
  exploration: Exploration,
  config: ExploreConfig,
  *,
  start: float,
  seed: int,
  step: int,
  problem_id: str,
  sample: int,
) -> float:
  """Returns the temperature of a group.

  A function of its arguments alone, so that every process and a resumed run draw the same.

  Args:
    exploration: before the step, the same for its refills.
    config: says how; not 'constant'.
    start: the run's temperature.
    seed: the run's.
    step: training step.
    problem_id: of the group.
    sample: the number of its job, which tells visits of a problem in one step, and refills, apart.
  """
  if config.temperature == 'steered':
    return exploration.temperature(config, start)
  numbers = (_PURPOSE, seed, step, zlib.crc32(problem_id.encode()), sample)
  rng = np.random.default_rng(np.random.SeedSequence(numbers))
  values = [rng.beta(*exploration.posterior(t)) for t in config.temperatures]
  return config.temperatures[int(np.argmax(values))]


def exploration_figures(
  groups: Sequence[Brought], exploration: Exploration, config: ExploreConfig
) -> dict[str, float]:
  """Metrics of the groups of a step; of none, or where the temperature is constant, there are none.

  temperature: mean over groups. contrast_share: of groups. draw_share/t_T: of groups that drew T.
  estimate/t_T: of the share of groups with contrast at T, after the step.

  Args:
    groups: of the step.
    exploration: after the step.
    config: of the run.
  """
  if not groups:
    return {}
  figures = {
    'explore/temperature': float(np.mean([group.temperature for group in groups])),
    'explore/contrast_share': float(np.mean([group.has_contrast for group in groups])),
  }
  if config.temperature == 'bandit':
    for temperature in config.temperatures:
      drawn = [group.temperature == temperature for group in groups]
      name = temperature_name(temperature)
      figures[f'explore/draw_share/{name}'] = float(np.mean(drawn))
      figures[f'explore/estimate/{name}'] = exploration.estimate(temperature)
  return figures
