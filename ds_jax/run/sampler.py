"""What a step learns from: searched trees, direct rollouts and cached solutions, in groups.

A hard problem gets a full search. One with cached solutions gets these plus K minus their number of
direct rollouts (hybrid rollouts, arXiv:2509.25454, section 4.3), a rehearsed one K direct rollouts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.config import Config
from ds_jax.run.session import Runtime
from ds_jax.run.state import RunState
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.search.policies.fork_law import fork_plan, split_metrics
from ds_jax.search.statistics import summarize
from ds_jax.search.trajectories import trajectories
from ds_jax.train.advantages import flat_group, is_uniform
from ds_jax.train.curriculum import batch_of, num_rehearsed
from ds_jax.train.replay import Solution
from ds_jax.types import FinishedTree, Problem, Trajectory

Cached = Mapping[str, Sequence[Solution]]  # by problem


class Sampled(NamedTuple):
  """What was sampled for one batch of problems."""

  groups: list[list[Trajectory]]  # one per problem
  trees: list[FinishedTree]
  counters: tuple[Counters, Counters]  # of trees, of direct rollouts
  num_cached: int  # problems that used cached solutions
  num_rehearsed: int  # problems from outside the hard set


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Samples the groups of a step."""

  runtime: Runtime
  prompts: Mapping[str, tuple[Problem, np.ndarray]]  # training problems by id, with their tokens
  # grow(engine, jobs, purpose, name, phase, plan) -> (trees in the order of jobs, counters).
  grow: Callable[..., tuple[list[FinishedTree], Counters]]
  # score([(problem id, solution), …]) -> trajectories with log-probs of the present policy.
  score: Callable[[Sequence[tuple[str, Solution]]], list[Trajectory]]

  def sample(self, host: RunState) -> tuple[list[list[Trajectory]], dict[str, float], RunState]:
    """Trajectories of every problem of the next step, in order.

    With `max_refills` further batches are drawn until enough groups have contrast, and only those
    are kept (dynamic sampling, arXiv:2503.14476, Eq. 11).

    Args:
      host: the state before the step; it stays as it is.

    Returns:
      The groups, their metrics, and the state once the step has learnt from them.
    """
    config, size = self.runtime.config, self.runtime.config.train.batch_problems
    parts = [self.sample_batch(host)]
    contrast = lambda: [g for part in parts for g in part.groups if not is_uniform(g)]
    while len(parts) <= config.train.max_refills and len(contrast()) < size:
      parts.append(self.sample_batch(host, refill=len(parts)))
    groups = [group for part in parts for group in part.groups]
    trees = [tree for part in parts for tree in part.trees]
    after = dataclasses.replace(
      host,
      batches=host.batches + len(parts),
      splits=host.splits.add(trees, config.search.max_depth),
      found=functools.reduce(lambda found, group: found.add(group), groups, host.found),
    )
    searched, direct = (
      functools.reduce(operator.add, counters)
      for counters in zip(*[part.counters for part in parts], strict=True)
    )
    both = searched + direct
    figures = (
      summarize(trees, config.search.max_depth)
      | split_metrics(after.splits, config.search.max_depth)
      | searched.metrics()
      | {
        'search/cached_share': sum(part.num_cached for part in parts) / len(groups),
        'search/rehearsed_share': sum(part.num_rehearsed for part in parts) / len(groups),
        'time/tokens_per_second': both.generated_tokens / max(both.seconds, 1e-6),
      }
    )
    if config.train.max_refills:
      figures |= {
        'search/refills': len(parts) - 1,
        'search/contrast_share': len(contrast()) / len(groups),
      }
      groups = contrast()[:size]
    return groups, figures, after

  def sample_batch(self, host: RunState, refill: int = 0) -> Sampled:
    """Trajectories of one batch of problems, the step's first or a refill."""
    config = self.runtime.config
    hard, rehearsed = next_batch(config, self.prompts, host, refill)
    jobs = _numbered(
      [self.prompts[name] for name in hard + rehearsed], first=refill * config.train.batch_problems
    )
    cached = {job.problem.id: host.replay.get(job.problem.id) for job in jobs}
    is_searched = [i < len(hard) and not cached[job.problem.id] for i, job in enumerate(jobs)]
    searched = list(itertools.compress(jobs, is_searched))
    direct = list(itertools.compress(jobs, map(operator.not_, is_searched)))
    name = f'step_{host.step:06d}' + (f'_{refill}' if refill else '')
    trees, counters = self.grow(
      self.runtime.search_engine,
      searched,
      Purpose.SEARCH,
      f'{name}.search',
      None,
      fork_plan(host.splits, config.search.max_depth),
    )
    rollouts, direct_counters = self.rollouts(direct, cached, f'{name}.direct')
    scored = self.scored(direct, cached)
    by_job = {(tree.problem_id, tree.sample): tree for tree in trees}

    def group_of(job: Job, group: int) -> list[Trajectory]:
      key = (job.problem.id, job.sample)
      if key in by_job:
        return trajectories(by_job[key], group)
      fresh = [t for tree in rollouts.get(key, ()) for t in trajectories(tree, group)]
      return flat_group([*scored.get(job.problem.id, ()), *fresh], group)

    return Sampled(
      [group_of(job, i) for i, job in enumerate(jobs)],
      trees,
      (counters, direct_counters),
      sum(bool(cached[job.problem.id]) for job in jobs),
      len(rehearsed),
    )

  def rollouts(
    self, jobs: Sequence[Job], cached: Cached, name: str
  ) -> tuple[dict[tuple[str, int], list[FinishedTree]], Counters]:
    """K minus the number of cached solutions direct rollouts for each job's problem."""
    count = self.runtime.config.search.num_trajectories
    wanted = [
      (job, job.sample * count + i)
      for job in jobs
      for i in range(max(0, count - len(cached[job.problem.id])))
    ]
    if not wanted:
      return {}, Counters()
    grown, counters = self.grow(
      self.runtime.direct_engine,
      [Job(job.problem, job.prompt_tokens, sample) for job, sample in wanted],
      Purpose.DIRECT,
      name,
      None,
    )
    rollouts: dict[tuple[str, int], list[FinishedTree]] = {}
    for (job, _), tree in zip(wanted, grown, strict=True):
      rollouts.setdefault((job.problem.id, job.sample), []).append(tree)
    return rollouts, counters

  def scored(self, jobs: Sequence[Job], cached: Cached) -> dict[str, list[Trajectory]]:
    """The cached solutions of each job's problem as trajectories."""
    names = dict.fromkeys(job.problem.id for job in jobs)
    scored: dict[str, list[Trajectory]] = {}
    for t in self.score([(name, solution) for name in names for solution in cached[name]]):
      scored.setdefault(t.problem_id, []).append(t)
    return scored


def next_batch(
  config: Config, names: Iterable[str], host: RunState, refill: int = 0
) -> tuple[list[str], list[str]]:
  """Problems of the next step, or of a refill: hard ones, and others that are rehearsed.

  Args:
    config: of the run.
    names: all training problems.
    host: its hard set and counters.
    refill: which further batch of the step; 0: its first.
  """
  size, easy = config.train.batch_problems, sorted(set(names) - set(host.hard_ids))
  rehearsed = num_rehearsed(size, config.curriculum.rehearsal_share, len(easy))
  draw = lambda ids, count: list(
    batch_of(ids, count, seed=config.seed, round_index=host.round_index, step=host.batches + refill)
  )
  return draw(host.hard_ids, size - rehearsed), draw(easy, rehearsed) if rehearsed else []


def _numbered(prompts: Sequence[tuple[Problem, np.ndarray]], first: int) -> list[Job]:
  """One job per prompt; a problem that occurs again gets the next sample number."""
  seen: dict[str, int] = {}
  jobs = []
  for problem, tokens in prompts:
    jobs.append(Job(problem, tokens, first + seen.get(problem.id, 0)))
    seen[problem.id] = seen.get(problem.id, 0) + 1
  return jobs
