"""Direct rollouts: width-1 trees in the slots of the search engine; no second generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ds_jax.config import SearchConfig
from ds_jax.interfaces import ALONE, Progress, Team
from ds_jax.run.durable import share_keys
from ds_jax.search.engine import engine as engine_lib
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.lockstep import deal
from ds_jax.search.journal import Journal, share_trees
from ds_jax.search.policies.base import ForkPlan
from ds_jax.types import FinishedTree, Problem


def direct_config(search: SearchConfig, num_slots: int) -> SearchConfig:
  """The search settings under which a tree is one rollout."""
  return dataclasses.replace(
    search,
    policy='direct',
    width=1,
    width_decay=0,
    num_trajectories=1,
    num_slots=num_slots,
    max_expansions=search.max_depth,
    replay_lanes=num_slots,
    max_tokens=0,
  )


def run_journaled(
  engine: engine_lib.Engine,
  params: Any,
  jobs: Sequence[Job],
  base_key: np.ndarray,
  journal: Journal,
  phase: str,
  progress: Progress,
  should_stop: Callable[[], bool],
  plan: ForkPlan | None = None,
  team: Team = ALONE,
) -> tuple[list[FinishedTree], Counters]:
  """Grows a tree for every job; trees that the journal holds already are not grown again.

  `plan` is for the policy 'fork': where forks pay. Jobs are dealt to the processes of `team` in
  turn, and every process gets all trees. A tree does not depend on the process that grew it, nor
  on their number.

  Returns:
    The trees in the order of `jobs`, and the counters of what the team grew now.

  Raises:
    engine.Interrupted: if asked to stop; the journal keeps what was finished.
  """
  key_of = lambda job: (job.problem.id, job.sample)
  own = jobs[team.index :: team.count]
  kept = {(tree.problem_id, tree.sample): tree for tree in journal.read_all()}
  done = {key_of(job) for job in own} & kept.keys()
  num_before = len(done)
  if engine.team.count > 1:
    done = share_keys(team, done)
  todo = [job for job in deal(jobs, team, engine.team) if key_of(job) not in done]

  def keep(tree: FinishedTree) -> None:
    journal.append(tree)
    kept[tree.problem_id, tree.sample] = tree

  progress.start(phase, len(own))
  counters = engine_lib.run(
    engine,
    params,
    todo,
    base_key,
    on_finish=keep,
    progress=Shifted(progress, num_before),
    should_stop=should_stop,
    plan=plan,
  )
  progress.finish()
  trees = share_trees(team, [kept[key_of(job)] for job in own])
  found = {(tree.problem_id, tree.sample): tree for tree in trees}
  return [found[key_of(job)] for job in jobs], counters.over_team(team)


def rollout_jobs(prompts: Sequence[tuple[Problem, np.ndarray]], num_samples: int) -> list[Job]:
  """`num_samples` jobs per problem, a problem's samples in a row."""
  return [
    Job(problem, tokens, sample) for problem, tokens in prompts for sample in range(num_samples)
  ]


@dataclasses.dataclass(frozen=True)
class Shifted:
  """A Progress that counts what was finished before this start as well."""

  progress: Progress
  finished_before: int

  def start(self, phase: str, total: int | None = None) -> None:
    self.progress.start(phase, total)

  def update(self, completed: int, **fields: float | int | str) -> None:
    self.progress.update(self.finished_before + completed, **fields)

  def finish(self) -> None:
    self.progress.finish()

  def note(self, message: str) -> None:
    self.progress.note(message)
