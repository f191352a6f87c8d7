"""What a step learns from: searched trees, direct rollouts and cached solutions, in groups.

A hard problem gets a full search. One with cached solutions gets these plus K minus their number of
direct rollouts (hybrid rollouts, arXiv:2509.25454, section 4.3), a rehearsed one K direct rollouts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

from ds_jax.config import Config
from ds_jax.run.batches import Prompt, next_batch, numbered_jobs
from ds_jax.run.engines import Engines
from ds_jax.run.experience import after_sampling, experience_figures
from ds_jax.run.forking import ForkFigures, known_plan, plan_apart
from ds_jax.run.growing import Grown, Work, key_of
from ds_jax.run.sampled import Sampled, sampled_figures, with_contrast
from ds_jax.run.state import RunState
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.search.trajectories import trajectories
from ds_jax.train.advantages import flat_group
from ds_jax.train.replay import Solution
from ds_jax.types import FinishedTree, Trajectory

Cached = Mapping[str, Sequence[Solution]]  # by problem


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

  @functools.cached_property
  def fork_figures(self) -> ForkFigures:
    return ForkFigures(self.engines, [tokens for _, tokens in self.prompts.values()])

  def next_problems(self, host: RunState) -> list[str]:
    """Ids of the problems of the next step, without refills."""
    hard, rehearsed = next_batch(self.config, self.prompts, host)
    return hard + rehearsed

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
    while len(parts) <= max_refills and len(with_contrast(parts)) < enough:
      parts.append(self.sample_batch(host, refill=len(parts)))
    groups = [group for part in parts for group in part.groups]
    trees = [tree for part in parts for tree in part.trees]
    num_tokens = sum(part.num_tokens for part in parts)
    after = after_sampling(self.config, host, groups, trees, num_tokens=num_tokens)
    after = dataclasses.replace(after, batches=host.batches + len(parts))
    figures = experience_figures(after) | self.fork_figures.of_step(after, trees)
    figures |= sampled_figures(
      parts,
      self.prompts,
      max_depth=self.config.search.max_depth,
      stop_ids=self.engines.tokenizer.stop_ids,
    )
    if max_refills:
      contrasting = with_contrast(parts)
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
    jobs = numbered_jobs(
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
      jobs=plan_apart(self.config, host, jobs),
      purpose=Purpose.SEARCH,
      plan=known_plan(self.config, host),
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
