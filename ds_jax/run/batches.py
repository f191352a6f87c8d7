"""Which problems a step samples, as jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.config import Config
from ds_jax.config.mixtures import parse_sources
from ds_jax.run.state import RunState
from ds_jax.search.engine.host_tree import Job
from ds_jax.train import exploration
from ds_jax.train.curriculum import mixed_batch, num_rehearsed
from ds_jax.train.replay import Solution
from ds_jax.types import Problem

Prompt = tuple[Problem, np.ndarray]  # a problem with its tokens


class Visit(NamedTuple):
  """What a batch begins with of one problem: a tree, or cached solutions and direct rollouts."""

  job: Job
  is_rehearsed: bool  # from outside the hard set
  is_short: bool  # it begins with few rollouts, because it is nearly always solved
  cached: Sequence[Solution]
  num_rollouts: int  # direct ones, unless it is searched

  @property
  def is_searched(self) -> bool:
    """Whether it begins with a tree."""
    return not (self.is_rehearsed or self.is_short or self.cached)


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


def numbered_jobs(prompts: Sequence[Prompt], first: int) -> list[Job]:
  """One job per prompt; a problem that occurs again gets the next sample number."""
  seen: dict[str, int] = {}
  jobs = []
  for problem, tokens in prompts:
    jobs.append(Job(problem, tokens, first + seen.get(problem.id, 0)))
    seen[problem.id] = seen.get(problem.id, 0) + 1
  return jobs


def explored(config: Config, host: RunState, jobs: Sequence[Job]) -> list[Job]:
  """The jobs of a step with their temperatures, unless these are constant.

  Args:
    config: of the run.
    host: the state before the step, the same for its refills.
    jobs: one per group.
  """
  if config.explore.temperature == 'constant':
    return list(jobs)
  with_temperatures = []
  for job in jobs:
    temperature = exploration.draw(
      host.exploration,
      config.explore,
      start=config.sampling.temperature,
      seed=config.seed,
      step=host.step,
      problem_id=job.problem.id,
      sample=job.sample,
    )
    with_temperatures.append(dataclasses.replace(job, temperature=temperature))
  return with_temperatures
