"""What a step learns from: searched trees, direct rollouts and cached solutions, in groups.

A hard problem gets a full search. One with cached solutions gets these plus K minus their number of
direct rollouts (hybrid rollouts, arXiv:2509.25454, section 4.3), a rehearsed one K direct rollouts.
Under the policy 'prefix' solutions lend their beginnings to the rollouts instead.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from ds_jax.config import Config
from ds_jax.run.batches import Prompt, Visit, explored, next_batch, numbered_jobs
from ds_jax.run.budget import (
  begins_short,
  first_rollouts,
  further_rollouts,
  most_rollouts,
  wants_batch,
)
from ds_jax.run.engines import Engines
from ds_jax.run.experience import after_sampling, experience_figures
from ds_jax.run.forking import ForkFigures, known_plan, plan_apart
from ds_jax.run.growing import Grown, JobKey, Work, key_of
from ds_jax.run.sampled import (
  Rollouts,
  Sampled,
  learnt_groups,
  rolled_out_group,
  sampled_figures,
  searched_group,
)
from ds_jax.run.starts import started, with_revisits, worked_responses
from ds_jax.run.state import RunState
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.train.replay import Solution
from ds_jax.types import FinishedTree, Trajectory


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Samples the groups of a step."""

  engines: Engines
  prompts: Mapping[str, Prompt]  # training problems by id
  grow: Callable[[Work, str], Grown]  # grow(work, name of its journal)
  # score([(problem id, solution), …]) -> trajectories with log-probs of the present policy.
  score: Callable[[Sequence[tuple[str, Solution]]], list[Trajectory]]

  def __post_init__(self) -> None:
    self.worked  # noqa: B018, what is wrong with it is found before any work

  @property
  def config(self) -> Config:
    return self.engines.session.config

  @functools.cached_property
  def worked(self) -> Mapping[str, tuple[int, ...]]:
    """Solutions of the data by problem that the policy 'prefix' may start rollouts within."""
    encode = self.engines.tokenizer.encode_response
    return worked_responses(self.config, self.prompts.values(), encode)

  @functools.cached_property
  def fork_figures(self) -> ForkFigures:
    return ForkFigures(self.engines, [tokens for _, tokens in self.prompts.values()])

  def next_problems(self, host: RunState) -> list[str]:
    """Ids of the problems of the next step, without refills."""
    hard, rehearsed = next_batch(self.config, self.prompts, host)
    return hard + rehearsed

  def sample(self, host: RunState) -> tuple[list[list[Trajectory]], dict[str, float], RunState]:
    """Trajectories of every problem that the next step learns from, in order.

    run/budget.py says what is drawn beyond the first batch. If that goes on until enough groups
    have contrast, only those are kept, and with them the ones that the step before left: these come
    last, so that a first minibatch of others is of the present policy alone.

    Args:
      host: the state before the step; it stays as it is.

    Returns:
      The groups, their metrics, and the state once the step has learnt from them.
    """
    config = self.config
    sampled = self.sample_waves(host)
    groups, waiting, figures_of_groups = learnt_groups(sampled, host.waiting, config)
    after = dataclasses.replace(after_sampling(config, host, sampled), waiting=waiting)
    figures = experience_figures(config, after, sampled)
    figures |= self.fork_figures.of_step(after, sampled.trees)
    figures |= sampled_figures(
      sampled,
      self.prompts,
      max_depth=config.search.max_depth,
      stop_ids=self.engines.tokenizer.stop_ids,
    )
    return groups, figures | figures_of_groups, after

  def sample_waves(self, host: RunState) -> Sampled:
    """Draws batches of problems, and further rollouts of some, until the step has enough."""
    config = self.config
    sampled = self.sample_batch(host)
    while True:
      tally = sampled.tally(host.memory, config, num_waiting=len(host.waiting))
      counts = further_rollouts(tally, config)
      if any(counts):
        sampled = sampled.with_wave(self.sample_wave(sampled, counts, host))
      elif wants_batch(tally, config):
        sampled = sampled.with_batch(self.sample_batch(host, refill=sampled.num_batches))
      else:
        return sampled

  def sample_batch(self, host: RunState, refill: int = 0) -> Sampled:
    """What one batch of problems begins with, the step's first or a refill."""
    visits = self.visits(host, refill)
    name = f'step_{host.step:06d}' + (f'_{refill}' if refill else '')
    to_search = [visit.job for visit in visits if visit.is_searched]
    searched = self.search(to_search, host, f'{name}.search')
    to_roll_out = [visit for visit in visits if not visit.is_searched]
    rollouts = self.rollouts(
      [visit.job for visit in to_roll_out],
      [range(visit.num_rollouts) for visit in to_roll_out],
      host,
      name=f'{name}.direct',
    )
    solutions = self.scored(to_roll_out)
    trees = {key_of(tree): tree for tree in searched.trees}
    groups = []
    for i, visit in enumerate(visits):
      job, key = visit.job, key_of(visit.job)
      if visit.is_searched:
        num_asked = self.config.search.num_trajectories
        groups.append(searched_group(job, i, trees[key], num_asked=num_asked))
        continue
      of_problem = solutions.get(job.problem.id, ())
      groups.append(rolled_out_group(job, i, of_problem, rollouts.trees.get(key, ())))
    return Sampled(
      groups=groups,
      trees=searched.trees,
      searched=searched.counters,
      direct=rollouts.counters,
      num_rehearsed=sum(visit.is_rehearsed for visit in visits),
      num_short=sum(visit.is_short for visit in visits),
    )

  def visits(self, host: RunState, refill: int) -> list[Visit]:
    """The problems of one batch, and what it begins with of each."""
    config = self.config
    hard, rehearsed = next_batch(config, self.prompts, host, refill)
    hard = with_revisits(hard, host, config, refill)
    jobs = numbered_jobs(
      [self.prompts[name] for name in hard + rehearsed],
      first=refill * config.train.batch_problems,
    )
    jobs = explored(config, host, jobs)
    jobs[: len(hard)] = started(
      jobs[: len(hard)],
      host,
      config,
      worked=self.worked,
      decode=self.engines.tokenizer.decode_response,
      refill=refill,
    )
    visits = []
    for i, job in enumerate(jobs):
      rate, cached = host.memory.rate(job.problem.id), self.cached(host, job.problem.id)
      visit = Visit(
        job,
        is_rehearsed=i >= len(hard),
        is_short=begins_short(rate, config.budget),
        cached=cached,
        num_rollouts=first_rollouts(rate, len(cached), config),
      )
      visits.append(visit)
    return visits

  def sample_wave(self, sampled: Sampled, counts: Sequence[int], host: RunState) -> Rollouts:
    """So many further direct rollouts of each problem that the step has drawn."""
    jobs, missing = [], []
    for group, count in zip(sampled.groups, counts, strict=True):
      jobs.append(group.job)
      missing.append(range(group.num_asked, group.num_asked + count))
    name = f'step_{host.step:06d}.wave_{sampled.num_waves + 1}'
    return self.rollouts(jobs, missing, host, name=name)

  def cached(self, host: RunState, name: str) -> tuple[Solution, ...]:
    """The solutions of a problem that this round mixes with rollouts.

    There are none if memory is at once, or solutions lend prefixes.
    """
    if self.config.memory.when == 'at_once' or self.config.search.policy == 'prefix':
      return ()
    return host.replay.get(name)

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
    self, jobs: Sequence[Job], numbers: Sequence[range], host: RunState, *, name: str
  ) -> Rollouts:
    """Direct rollouts of each job's problem: those of some numbers, from 0 on within a step."""
    stride = most_rollouts(self.config)
    owners, samples = [], []  # of each rollout
    for job, its_numbers in zip(jobs, numbers, strict=True):
      for i in its_numbers:
        owners.append(job)
        samples.append(dataclasses.replace(job, sample=job.sample * stride + i))
    if not samples:
      return Rollouts()
    work = Work(
      engine=self.engines.direct_engine,
      jobs=samples,
      purpose=Purpose.DIRECT,
      round_index=host.round_index,
      step=host.step,
    )
    grown = self.grow(work, name)
    trees: dict[JobKey, list[FinishedTree]] = {}
    for owner, tree in zip(owners, grown.trees, strict=True):
      trees.setdefault(key_of(owner), []).append(tree)
    return Rollouts(trees, grown.counters)

  def scored(self, visits: Sequence[Visit]) -> dict[str, list[Trajectory]]:
    """The cached solutions of each visit's problem as trajectories."""
    cached = {visit.job.problem.id: visit.cached for visit in visits}
    scored: dict[str, list[Trajectory]] = {}
    for t in self.score([(name, solution) for name in cached for solution in cached[name]]):
      scored.setdefault(t.problem_id, []).append(t)
    return scored
