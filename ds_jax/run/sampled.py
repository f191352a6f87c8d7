"""What was sampled for a step, and its metrics."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ds_jax.run.batches import Prompt
from ds_jax.search.engine.counters import Counters
from ds_jax.search.statistics import mean_reward, solve_rate, summarize
from ds_jax.train.advantages import is_uniform
from ds_jax.train.exploration import Brought, brought
from ds_jax.types import FinishedTree, Trajectory


class Sampled(NamedTuple):
  """What was sampled for one batch of problems."""

  groups: list[list[Trajectory]]  # one per problem
  trees: list[FinishedTree]
  searched: Counters  # of the trees
  direct: Counters  # of the direct rollouts
  num_tokens: int  # generated
  num_cached: int  # problems that used cached solutions
  num_rehearsed: int  # problems from outside the hard set
  brought: Sequence[Brought] = ()  # by groups that were sampled at temperatures of their own


def sampled_figures(
  parts: Sequence[Sampled],
  prompts: Mapping[str, Prompt],
  *,
  max_depth: int,
  stop_ids: Collection[int],
) -> dict[str, float]:
  """The metrics of what was sampled in one step.

  Args:
    parts: the first batch, and refills.
    prompts: training problems by id.
    max_depth: segments on a path.
    stop_ids: any of these ends a response.
  """
  trees = [tree for part in parts for tree in part.trees]
  searched = functools.reduce(operator.add, [part.searched for part in parts])
  direct = functools.reduce(operator.add, [part.direct for part in parts])
  num_groups = sum(len(part.groups) for part in parts)
  return (
    summarize(trees, max_depth, stop_ids=stop_ids)
    | _source_figures(trees, prompts)
    | searched.slot_metrics()
    | (searched + direct).speed_metrics()
    | {
      'search/cached_share': sum(part.num_cached for part in parts) / num_groups,
      'search/rehearsed_share': sum(part.num_rehearsed for part in parts) / num_groups,
    }
  )


def with_contrast(parts: Sequence[Sampled]) -> list[list[Trajectory]]:
  """The groups that hold both right and wrong ends."""
  return [group for part in parts for group in part.groups if not is_uniform(group)]


def brought_by(groups: Sequence[Sequence[FinishedTree]]) -> list[Brought]:
  """What the sampling of groups brought, of those that were sampled at temperatures of their own.

  Args:
    groups: the tree, or the rollouts, of each.
  """
  return [brought(trees) for trees in groups if trees[0].temperature is not None]


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
