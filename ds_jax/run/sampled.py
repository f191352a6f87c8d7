"""What a step has sampled of its problems, and its metrics."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.config import Config, PrefixConfig, response_limit
from ds_jax.run.batches import Prompt
from ds_jax.run.budget import Division, Standing, Tally, divide, is_dynamic
from ds_jax.run.growing import JobKey, key_of
from ds_jax.run.waiting import Waiting
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.statistics import (
  from_root,
  mean_reward,
  num_generated,
  solve_rate,
  summarize,
)
from ds_jax.search.trajectories import trajectories
from ds_jax.train.advantages import flat_group, is_uniform, joined_group
from ds_jax.train.exploration import Brought
from ds_jax.train.memory import Memory, Rate
from ds_jax.types import FinishedTree, Trajectory


@dataclasses.dataclass(frozen=True)
class Group:
  """What a step has sampled of one problem."""

  job: Job
  number: int  # that its ends share
  ends: list[Trajectory]  # verified ones; those of cached solutions come first
  num_asked: int  # rollouts, or ends that its tree was to collect
  num_tokens: int  # generated
  num_cached: int = 0  # ends that are cached solutions
  is_tree: bool = False  # or rollouts and solutions, each on its own

  @property
  def fresh(self) -> list[Trajectory]:
    """The ends that this step sampled."""
    return self.ends[self.num_cached :]

  @property
  def has_contrast(self) -> bool:
    """Whether it holds right and wrong ends."""
    return not is_uniform(self.ends)

  def with_rollouts(self, trees: Sequence[FinishedTree]) -> Group:
    """The group with further rollouts: of a tree they are further branches at its root."""
    new = [trajectories(tree, self.number) for tree in trees]
    if self.is_tree:
      ends = joined_group([self.ends, *new], self.number)
    else:
      ends = flat_group([*self.ends, *[t for of_tree in new for t in of_tree]], self.number)
    return dataclasses.replace(
      self,
      ends=ends,
      num_asked=self.num_asked + len(trees),
      num_tokens=self.num_tokens + num_generated(trees),
    )


def searched_group(job: Job, number: int, tree: FinishedTree, num_asked: int) -> Group:
  """The group of a problem whose tree is grown."""
  ends = trajectories(tree, number)
  return Group(job, number, ends, num_asked, num_generated([tree]), is_tree=True)


def rolled_out_group(
  job: Job, number: int, solutions: Sequence[Trajectory], trees: Sequence[FinishedTree]
) -> Group:
  """The group of a problem's cached solutions, scored, and its direct rollouts."""
  begun = Group(job, number, list(solutions), num_asked=0, num_tokens=0, num_cached=len(solutions))
  return begun.with_rollouts(trees)


class Rollouts(NamedTuple):
  """Direct rollouts of several problems."""

  trees: Mapping[JobKey, Sequence[FinishedTree]] = types.MappingProxyType({})  # by the job
  counters: Counters = Counters()


@dataclasses.dataclass(frozen=True)
class Sampled:
  """What a step has sampled."""

  groups: list[Group]  # one per problem
  trees: list[FinishedTree]
  searched: Counters  # of the trees
  direct: Counters  # of the direct rollouts
  num_rehearsed: int  # problems from outside the hard set
  num_short: int  # problems that began with few rollouts
  num_batches: int = 1
  num_waves: int = 0  # further ones
  wave_rollouts: int = 0  # in them
  wave_tokens: int = 0  # generated in them
  wave_contrasts: int = 0  # groups that they brought contrast to

  @property
  def num_tokens(self) -> int:
    """Generated."""
    return sum(group.num_tokens for group in self.groups)

  @property
  def ends(self) -> list[list[Trajectory]]:
    """The ends of each group."""
    return [group.ends for group in self.groups]

  @property
  def fresh(self) -> list[list[Trajectory]]:
    """The ends of each group that were sampled, without cached solutions."""
    return [group.fresh for group in self.groups]

  @property
  def brought(self) -> list[Brought]:
    """What the groups brought that were sampled at temperatures of their own."""
    of_groups = []
    for group in self.groups:
      if group.job.temperature is not None and group.fresh:
        of_groups.append(Brought(group.job.temperature, not is_uniform(group.fresh)))
    return of_groups

  @property
  def solved(self) -> frozenset[str]:
    """Ids of the problems that an end has solved from the root."""
    ends = [t for group in self.groups for t in group.ends if t.is_correct and not t.num_given]
    return frozenset(t.problem_id for t in ends)

  def with_batch(self, batch: Sampled) -> Sampled:
    """What is sampled with a further batch."""
    return dataclasses.replace(
      self,
      groups=self.groups + batch.groups,
      trees=self.trees + batch.trees,
      searched=self.searched + batch.searched,
      direct=self.direct + batch.direct,
      num_rehearsed=self.num_rehearsed + batch.num_rehearsed,
      num_short=self.num_short + batch.num_short,
      num_batches=self.num_batches + batch.num_batches,
    )

  def with_wave(self, wave: Rollouts) -> Sampled:
    """What is sampled with a further wave."""
    groups, num_contrasts = [], 0
    for before in self.groups:
      trees = wave.trees.get(key_of(before.job), ())
      after = before.with_rollouts(trees) if trees else before
      num_contrasts += after.has_contrast and not before.has_contrast
      groups.append(after)
    rollouts = [tree for trees in wave.trees.values() for tree in trees]
    return dataclasses.replace(
      self,
      groups=groups,
      direct=self.direct + wave.counters,
      num_waves=self.num_waves + 1,
      wave_rollouts=self.wave_rollouts + len(rollouts),
      wave_tokens=self.wave_tokens + num_generated(rollouts),
      wave_contrasts=self.wave_contrasts + num_contrasts,
    )

  def tally(self, memory: Memory, config: Config, num_waiting: int) -> Tally:
    """What further draws are decided by.

    Args:
      memory: of the run before the step; its rates are those after the step so far.
      config: of the run. Rollouts count as the longest response as long as none is known.
      num_waiting: groups that the step before left.
    """
    after = memory.visit(self.fresh, config.memory.decay)
    standings = []
    for group in self.groups:
      num_right = sum(t.is_correct for t in group.ends)
      rate = _further_rate(group, after, config.prefix)
      standing = Standing(num_right, len(group.ends) - num_right, group.num_asked, rate)
      standings.append(standing)
    lengths = [len(t.tokens) for ends in self.fresh for t in ends]
    return Tally(
      standings,
      num_waiting=num_waiting,
      num_batches=self.num_batches,
      num_tokens=self.num_tokens,
      rollout_tokens=float(np.mean(lengths)) if lengths else response_limit(config),
    )


def learnt_groups(
  sampled: Sampled, waiting: Waiting, config: Config
) -> tuple[list[list[Trajectory]], Waiting, dict[str, float]]:
  """Returns the groups that a step learns from, those that wait for the next step, and metrics.

  If a step samples until enough groups have contrast, only those are kept, and with them the ones
  that the step before left: these come last, so that a first minibatch of others is of the present
  policy alone.

  Args:
    sampled: in the whole step.
    waiting: what the step before left.
    config: of the run.
  """
  figures = wave_figures(sampled) if config.budget.needs_rates else {}
  if not is_dynamic(config.train):
    return sampled.ends, Waiting(), figures
  contrasting = [group for group in sampled.groups if group.has_contrast]
  division = divide(contrasting, len(waiting), config.train)
  figures |= contrast_figures(sampled, division)
  if config.train.waiting_groups:
    figures['search/waited_groups'] = len(waiting)
  learnt = [group.ends for group in division.learnt]
  left = Waiting.of([group.ends for group in division.waiting])
  return [*learnt, *map(list, waiting.groups)], left, figures


def sampled_figures(
  sampled: Sampled,
  prompts: Mapping[str, Prompt],
  *,
  max_depth: int,
  stop_ids: Collection[int],
) -> dict[str, float]:
  """The metrics of what was sampled in one step.

  Those of trees are of trees from the root, but for what was grown in all.

  Args:
    sampled: in the whole step.
    prompts: training problems by id.
    max_depth: segments on a path.
    stop_ids: any of these ends a response.
  """
  trees = from_root(sampled.trees)
  num_groups = len(sampled.groups)
  num_cached = sum(group.num_cached > 0 for group in sampled.groups)
  grown = {'search/trees': len(sampled.trees), 'search/tokens': num_generated(sampled.trees)}
  return (
    summarize(trees, max_depth, stop_ids=stop_ids)
    | grown
    | _source_figures(trees, prompts)
    | sampled.searched.slot_metrics()
    | (sampled.searched + sampled.direct).speed_metrics()
    | {
      'search/cached_share': num_cached / num_groups,
      'search/rehearsed_share': sampled.num_rehearsed / num_groups,
    }
  )


def wave_figures(sampled: Sampled) -> dict[str, float]:
  """The metrics of further waves, and of first ones that were short."""
  return {
    'search/waves': sampled.num_waves,
    'search/wave_rollouts': sampled.wave_rollouts,
    'search/wave_contrasts': sampled.wave_contrasts,
    'search/wave_tokens_share': sampled.wave_tokens / max(sampled.num_tokens, 1),
    'search/short_groups': sampled.num_short,
  }


def contrast_figures(sampled: Sampled, division: Division[Group]) -> dict[str, float]:
  """The metrics of sampling until groups have contrast.

  Args:
    sampled: in the whole step.
    division: of its groups with contrast.
  """
  kept = [*division.learnt, *division.waiting]
  num_contrasting = len(kept) + len(division.unused)
  kept_tokens = sum(group.num_tokens for group in kept)
  return {
    'search/refills': sampled.num_batches - 1,
    'search/contrast_share': num_contrasting / len(sampled.groups),
    'search/unused_groups': len(division.unused),
    'search/unused_tokens_share': 1 - kept_tokens / max(sampled.num_tokens, 1),
  }


def _further_rate(group: Group, memory: Memory, config: PrefixConfig) -> float:
  """The estimated share of right ends of further rollouts of a group.

  From a prefix it is that of the group, leaning towards what prefixes are steered to: the rate of
  the problem is from the root.
  """
  if group.job.given is None:
    return memory.rate(group.job.problem.id)
  num_right = sum(t.is_correct for t in group.ends)
  return Rate(num_right, len(group.ends)).towards(config.target_rate)


def _source_figures(
  trees: Sequence[FinishedTree], prompts: Mapping[str, Prompt]
) -> dict[str, float]:
  """Solve rate and reward of each of several sources."""
  trees_of: dict[str, list[FinishedTree]] = {}
  for tree in trees:
    trees_of.setdefault(prompts[tree.problem_id][0].source, []).append(tree)
  figures = {}
  for source in sorted(set(trees_of) - {''}):
    figures[f'search/solve_rate/{source}'] = solve_rate(trees_of[source])
    reward = mean_reward(trees_of[source])
    if reward is not None:
      figures[f'search/reward/{source}'] = reward
  return figures
