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
from ds_jax.config.mixtures import parse_sources
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Grown, Work, key_of
from ds_jax.run.state import RunState
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.search.policies.fork_law import fork_plan, split_metrics
from ds_jax.search.statistics import mean_reward, solve_rate, summarize
from ds_jax.search.trajectories import trajectories
from ds_jax.train.advantages import flat_group, is_uniform
from ds_jax.train.curriculum import mixed_batch, num_rehearsed
from ds_jax.train.replay import Solution
from ds_jax.types import FinishedTree, Problem, Trajectory

Prompt = tuple[Problem, np.ndarray]  # a problem with its tokens
Cached = Mapping[str, Sequence[Solution]]  # by problem


class Sampled(NamedTuple):
  """What was sampled for one batch of problems."""

  groups: list[list[Trajectory]]  # one per problem
  trees: list[FinishedTree]
  searched: Counters  # of the trees
  direct: Counters  # of the direct rollouts
  num_tokens: int  # generated
  num_cached: int  # problems that used cached solutions
  num_rehearsed: int  # problems from outside the hard set


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Samples the groups of a step."""

  engines: Engines
  prompts: Mapping[str, Prompt]  # training problems by id
  grow: Callable[[Work, str], Grown]  # grow(work, name of its journal)
  # score([(problem id, solution), …]) -> trajectories with log-probs of the present policy.
  score: Callable[[Sequence[tuple[str, Solution]]], list[Trajectory]]

  @property
  def config(self) -> Config:
    return self.engines.session.config

  def sample(self, host: RunState) -> tuple[list[list[Trajectory]], dict[str, float], RunState]:
    """Trajectories of every problem of the next step, in order.

    With `max_refills` further batches are drawn until enough groups have contrast, and only those
    are kept (dynamic sampling, arXiv:2503.14476, Eq. 11): `contrast_groups` or more, or as many as
    a batch has problems.

    Args:
      host: the state before the step; it stays as it is.

    Returns:
      The groups, their metrics, and the state once the step has learnt from them.
    """
    config = self.config.train
    max_refills, enough = config.max_refills, config.contrast_groups or config.batch_problems
    parts = [self.sample_batch(host)]
    while len(parts) <= max_refills and len(_with_contrast(parts)) < enough:
      parts.append(self.sample_batch(host, refill=len(parts)))
    groups = [group for part in parts for group in part.groups]
    trees = [tree for part in parts for tree in part.trees]
    found = host.found
    for group in groups:
      found = found.add(group)
    memory = host.memory
    if self.config.memory.when == 'at_once':
      memory = memory.add(groups, host.step, self.config.memory)
    after = dataclasses.replace(
      host,
      memory=memory,
      generated_tokens=host.generated_tokens + sum(part.num_tokens for part in parts),
      batches=host.batches + len(parts),
      splits=host.splits.add(trees, self.config.search.max_depth),
      found=found,
    )
    figures = self._figures(parts, trees, after)
    if max_refills:
      contrasting = _with_contrast(parts)
      figures |= {
        'search/refills': len(parts) - 1,
        'search/contrast_share': len(contrasting) / len(groups),
      }
      groups = contrasting if config.contrast_groups else contrasting[:enough]
      figures['search/unused_groups'] = len(contrasting) - len(groups)
    return groups, figures, after

  def sample_batch(self, host: RunState, refill: int = 0) -> Sampled:
    """Trajectories of one batch of problems, the step's first or a refill."""
    hard, rehearsed = next_batch(self.config, self.prompts, host, refill)
    jobs = _numbered(
      [self.prompts[name] for name in hard + rehearsed],
      first=refill * self.config.train.batch_problems,
    )
    cached = {job.problem.id: self.cached(host, job.problem.id) for job in jobs}
    to_search, to_roll_out = [], []
    for i, job in enumerate(jobs):
      is_searched = i < len(hard) and not cached[job.problem.id]
      (to_search if is_searched else to_roll_out).append(job)
    name = f'step_{host.step:06d}' + (f'_{refill}' if refill else '')
    searched = self.search(to_search, host, f'{name}.search')
    rollouts, direct = self.rollouts(to_roll_out, cached, host, name=f'{name}.direct')
    solutions = self.scored(to_roll_out, cached)
    trees = {key_of(tree): tree for tree in searched.trees}
    groups = []
    for i, job in enumerate(jobs):
      if key_of(job) in trees:
        groups.append(trajectories(trees[key_of(job)], i))
        continue
      group = list(solutions.get(job.problem.id, ()))
      for tree in rollouts.get(key_of(job), ()):
        group += trajectories(tree, i)
      groups.append(flat_group(group, i))
    num_cached = sum(bool(cached[job.problem.id]) for job in jobs)
    grown = itertools.chain(searched.trees, *rollouts.values())
    return Sampled(
      groups=groups,
      trees=searched.trees,
      searched=searched.counters,
      direct=direct,
      num_tokens=sum(tree.statistics['generated_tokens'] for tree in grown),
      num_cached=num_cached,
      num_rehearsed=len(rehearsed),
    )

  def cached(self, host: RunState, name: str) -> tuple[Solution, ...]:
    """The solutions of a problem that this round mixes with rollouts, unless memory is at once."""
    return host.replay.get(name) if self.config.memory.when == 'next_round' else ()

  def search(self, jobs: Sequence[Job], host: RunState, name: str) -> Grown:
    """A tree for each job."""
    work = Work(
      engine=self.engines.search_engine,
      jobs=jobs,
      purpose=Purpose.SEARCH,
      plan=fork_plan(host.splits, self.config.search.max_depth),
      round_index=host.round_index,
      step=host.step,
    )
    return self.grow(work, name)

  def rollouts(
    self, jobs: Sequence[Job], cached: Cached, host: RunState, *, name: str
  ) -> tuple[dict[tuple[str, int], list[FinishedTree]], Counters]:
    """K minus the number of cached solutions direct rollouts for each job's problem."""
    count = self.config.search.num_trajectories
    owners, samples = [], []  # of each rollout
    for job in jobs:
      for i in range(max(0, count - len(cached[job.problem.id]))):
        owners.append(job)
        samples.append(Job(job.problem, job.prompt_tokens, job.sample * count + i))
    if not samples:
      return {}, Counters()
    work = Work(
      engine=self.engines.direct_engine,
      jobs=samples,
      purpose=Purpose.DIRECT,
      round_index=host.round_index,
      step=host.step,
    )
    grown = self.grow(work, name)
    rollouts: dict[tuple[str, int], list[FinishedTree]] = {}
    for owner, tree in zip(owners, grown.trees, strict=True):
      rollouts.setdefault(key_of(owner), []).append(tree)
    return rollouts, grown.counters

  def scored(self, jobs: Sequence[Job], cached: Cached) -> dict[str, list[Trajectory]]:
    """The cached solutions of each job's problem as trajectories."""
    names = dict.fromkeys(job.problem.id for job in jobs)
    scored: dict[str, list[Trajectory]] = {}
    for t in self.score([(name, solution) for name in names for solution in cached[name]]):
      scored.setdefault(t.problem_id, []).append(t)
    return scored

  def _figures(
    self, parts: Sequence[Sampled], trees: Sequence[FinishedTree], after: RunState
  ) -> dict[str, float]:
    """The metrics of what was sampled."""
    max_depth = self.config.search.max_depth
    searched = functools.reduce(operator.add, [part.searched for part in parts])
    direct = functools.reduce(operator.add, [part.direct for part in parts])
    num_groups = sum(len(part.groups) for part in parts)
    return (
      summarize(trees, max_depth, stop_ids=self.engines.tokenizer.stop_ids)
      | _source_figures(trees, self.prompts)
      | split_metrics(after.splits, max_depth)
      | searched.slot_metrics()
      | (searched + direct).speed_metrics()
      | {
        'search/tokens_so_far': after.generated_tokens,
        'search/cached_share': sum(part.num_cached for part in parts) / num_groups,
        'search/rehearsed_share': sum(part.num_rehearsed for part in parts) / num_groups,
      }
    )


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


def _with_contrast(parts: Sequence[Sampled]) -> list[list[Trajectory]]:
  """The groups that hold both right and wrong ends."""
  return [group for part in parts for group in part.groups if not is_uniform(group)]


def next_batch(
  config: Config, prompts: Mapping[str, Prompt], host: RunState, refill: int = 0
) -> tuple[list[str], list[str]]:
  """Problems of the next step, or of a refill: hard ones, and others that are rehearsed.

  Args:
    config: of the run.
    prompts: all training problems by id.
    host: its hard set and counters.
    refill: which further batch of the step; 0: its first.
  """
  size, easy = config.train.batch_problems, sorted(set(prompts) - set(host.hard_ids))
  rehearsed = num_rehearsed(size, config.curriculum.rehearsal_share, len(easy))
  moment = {'round_index': host.round_index, 'step': host.batches + refill}
  weights = {part.name: part.weight for part in parse_sources(config.data.source)}

  def draw(ids: Iterable[str], count: int) -> list[str]:
    ids_of: dict[str, list[str]] = {}
    for name in ids:
      ids_of.setdefault(prompts[name][0].source, []).append(name)
    return list(mixed_batch(ids_of, weights, count, seed=config.seed, **moment))

  hard = draw(host.hard_ids, size - rehearsed)
  return hard, draw(easy, rehearsed) if rehearsed else []


def _numbered(prompts: Sequence[tuple[Problem, np.ndarray]], first: int) -> list[Job]:
  """One job per prompt; a problem that occurs again gets the next sample number."""
  seen: dict[str, int] = {}
  jobs = []
  for problem, tokens in prompts:
    jobs.append(Job(problem, tokens, first + seen.get(problem.id, 0)))
    seen[problem.id] = seen.get(problem.id, 0) + 1
  return jobs
