"""What was sampled for a step, and its metrics."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ds_jax.run.batches import Prompt
from ds_jax.search.engine.counters import Counters
from ds_jax.search.statistics import (
  from_root,
  mean_reward,
  num_generated,
  solve_rate,
  summarize,
)
from ds_jax.train.advantages import is_uniform
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


def sampled_figures(
  parts: Sequence[Sampled],
  prompts: Mapping[str, Prompt],
  *,
  max_depth: int,
  stop_ids: Collection[int],
) -> dict[str, float]:
  """The metrics of what was sampled in one step.

  Those of trees are of trees from the root, but for what was grown in all.

  Args:
    parts: the first batch, and refills.
    prompts: training problems by id.
    max_depth: segments on a path.
    stop_ids: any of these ends a response.
  """
  grown = [tree for part in parts for tree in part.trees]
  groups = [group for part in parts for group in part.groups]
  trees = from_root(grown)
  searched = functools.reduce(operator.add, [part.searched for part in parts])
  direct = functools.reduce(operator.add, [part.direct for part in parts])
  return (
    summarize(trees, max_depth, stop_ids=stop_ids)
    | {'search/trees': len(grown), 'search/tokens': num_generated(grown)}
    | _source_figures(trees, prompts)
    | searched.slot_metrics()
    | (searched + direct).speed_metrics()
    | {
      'search/cached_share': sum(part.num_cached for part in parts) / len(groups),
      'search/rehearsed_share': sum(part.num_rehearsed for part in parts) / len(groups),
    }
  )


def with_contrast(parts: Sequence[Sampled]) -> list[list[Trajectory]]:
  """The groups that hold both right and wrong ends."""
  return [group for part in parts for group in part.groups if not is_uniform(group)]


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
