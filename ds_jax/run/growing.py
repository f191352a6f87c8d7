"""Growing trees that are kept: jobs are dealt, those that are kept already skipped, the rest grown.

It is the one way from jobs to finished trees, for the main job, the evaluations and the search of
files. What differs is where finished trees are kept: in a journal, in a file of results, in memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ds_jax.checks import NotFinite
from ds_jax.interfaces import Progress, Team
from ds_jax.run.broken import check_expansion, explain
from ds_jax.run.durable import LineFile, whole_rows
from ds_jax.run.session import Session
from ds_jax.run.stopping import stopped
from ds_jax.search.engine import engine as engine_lib
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.engine.lockstep import deal
from ds_jax.search.journal import share_trees, tree_from_line, tree_to_line
from ds_jax.search.policies.base import Plan
from ds_jax.types import FinishedTree, Problem

JobKey = tuple[str, int]  # problem and sample


@dataclasses.dataclass(frozen=True)
class Work:
  """Trees to grow: of which jobs, by which engine, and when in a run."""

  engine: engine_lib.Engine
  jobs: Sequence[Job]
  purpose: Purpose
  phase: str = ''  # as a person reads it; '': it is a part of the phase under way
  plan: Plan | None = None  # for the policy 'fork': where forks pay
  round_index: int = 0
  step: int = 0


class Grown(NamedTuple):
  """Finished trees in the order of their jobs, and the counters of what the team grew now."""

  trees: list[FinishedTree]
  counters: Counters


class Store(Protocol):
  """Where finished trees are kept."""

  def known(self, jobs: Sequence[Job]) -> Collection[JobKey]:
    """Jobs of the whole team's whose trees this process answers for."""
    ...

  def append(self, tree: FinishedTree) -> None:
    """Keeps a tree; once it returns, a kill does not lose it."""
    ...

  def share(self) -> None:
    """Makes the trees of all processes known where they are needed. All must call it."""
    ...


def grow_missing(
  session: Session,
  params: Any,
  work: Work,
  *,
  store: Store,
  on_start: Callable[[Job], None] | None = None,
) -> Counters:
  """Grows a tree for every job that the store does not hold.

  Jobs are dealt to the processes of the session's team. A tree does not depend on the process that
  grew it, nor on their number.

  Args:
    session: whose seed the random numbers follow from, together with `work`.
    params: the decoder's parameters in the form for search.
    work: the jobs of the whole team, alike on all processes.
    store: where trees are kept.
    on_start: called with each job of this process as its tree is begun.

  Returns:
    Counters of what the team grew now.

  Raises:
    Stopped: if asked to stop; the store keeps what was finished.
    NotFinite: if the model computes no numbers; likewise.
  """
  team, progress = session.team, _progress_of(session, work)
  done = share_keys(team, store.known(work.jobs))
  missing = [job for job in work.jobs if key_of(job) not in done]
  dealt = deal(missing, team, work.engine.team)
  num_before = len(work.jobs) - len(missing)
  counters = Counters()
  progress.start(work.phase, len(work.jobs))
  if dealt:
    key = base_key_data(session.config.seed, work.purpose, work.round_index, work.step)
    try:
      counters = engine_lib.run(
        work.engine,
        params,
        _announced(dealt, on_start) if on_start else dealt,
        key,
        on_finish=store.append,
        progress=Shifted(progress, num_before),
        should_stop=session.should_stop,
        plan=work.plan,
        check_expansion=check_expansion,
      )
    except engine_lib.Interrupted:
      raise stopped(team) from None
    except NotFinite as error:
      raise explain(error, params) from None
  counters = counters.over_team(team)
  store.share()
  if team.count > 1 or not missing:  # the engine tells of this process's trees alone
    progress.update(len(work.jobs))
  progress.finish()
  return counters


def grow_journaled(session: Session, params: Any, work: Work, *, journal: Journal) -> Grown:
  """Grows a tree for every job; trees that the journal holds already are not grown again.

  Every process gets all trees. Arguments and errors are those of `grow_missing`.
  """
  store = JournalStore(journal, session.team)
  try:
    counters = grow_missing(session, params, work, store=store)
  finally:
    journal.close()
  return Grown([store.trees[key_of(job)] for job in work.jobs], counters)


def grow_in_memory(
  session: Session,
  params: Any,
  work: Work,
  *,
  on_start: Callable[[Job], None] | None = None,
  on_finish: Callable[[FinishedTree], None] | None = None,
) -> Grown:
  """Grows a tree for every job; a kill loses all. Every process gets all trees.

  `on_finish` is called with each tree of this process as it is finished.
  """
  store = MemoryStore(session.team, on_finish)
  counters = grow_missing(session, params, work, store=store, on_start=on_start)
  return Grown([store.trees[key_of(job)] for job in work.jobs], counters)


def rollout_jobs(prompts: Sequence[tuple[Problem, np.ndarray]], num_samples: int) -> list[Job]:
  """`num_samples` jobs per problem, a problem's samples in a row."""
  return [
    Job(problem, tokens, sample) for problem, tokens in prompts for sample in range(num_samples)
  ]


def key_of(item: Job | FinishedTree) -> JobKey:
  """What tells jobs, and their trees, from each other."""
  return (item.problem.id if isinstance(item, Job) else item.problem_id, item.sample)


def share_keys(team: Team, keys: Collection[JobKey]) -> set[JobKey]:
  """The keys of all processes, which all must call."""
  if team.count == 1:
    return set(keys)
  shared: set[JobKey] = set()
  for part in team.gather(json.dumps(sorted(keys)).encode()):
    shared.update((name, sample) for name, sample in json.loads(part))
  return shared


class Journal:
  """Finished trees in a file, one a line: kept before anybody uses them, read after a kill.

  Each process of a job writes a file of its own, `NAME.process_I.jsonl`; `read_all` and `remove`
  are about those of all processes, of an earlier start with another number of them as well.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path)
    self._file: LineFile | None = None

  def append(self, tree: FinishedTree) -> None:
    """Writes a tree; the file is made with the first one."""
    self._opened().append(tree)

  def read(self) -> list[FinishedTree]:
    """Trees of all whole lines; a line broken by a kill is cut off, so that appending goes on."""
    self.close()
    return list(self._opened().rows) if self.path.exists() else []

  def read_all(self) -> list[FinishedTree]:
    """Trees of this process's file and, as far as they are written, of the others'."""
    trees = self.read()
    for path in self._of_all_processes():
      if path != self.path:
        with path.open('rb') as file:
          trees += whole_rows(file, tree_from_line)[0]
    return trees

  def close(self) -> None:
    """Closes this process's file; `append` opens it again."""
    if self._file is not None:
      self._file.close()
      self._file = None

  def remove(self) -> None:
    """Removes the files of all processes."""
    self.close()
    for path in [self.path, *self._of_all_processes()]:
      path.unlink(missing_ok=True)

  def _opened(self) -> LineFile:
    if self._file is None:
      self._file = LineFile(self.path, None, to_line=tree_to_line, from_line=tree_from_line)
    return self._file

  def _of_all_processes(self) -> list[pathlib.Path]:
    name, mark, _ = self.path.name.rpartition('.process_')
    return sorted(self.path.parent.glob(f'{name}{mark}*.jsonl')) if mark else []


class JournalStore:
  """Trees in a journal. Of what an earlier start kept, a process answers for its share of jobs."""

  def __init__(self, journal: Journal, team: Team):
    self.trees = {key_of(tree): tree for tree in journal.read_all()}
    self._journal, self._team = journal, team
    self._mine: list[JobKey] = []  # that the others hear of from this process

  def known(self, jobs: Sequence[Job]) -> list[JobKey]:
    share = map(key_of, jobs[self._team.index :: self._team.count])
    self._mine = [key for key in share if key in self.trees]
    return list(self._mine)

  def append(self, tree: FinishedTree) -> None:
    self._journal.append(tree)
    self.trees[key_of(tree)] = tree
    self._mine.append(key_of(tree))

  def share(self) -> None:
    trees = share_trees(self._team, [self.trees[key] for key in self._mine])
    self.trees |= {key_of(tree): tree for tree in trees}


class MemoryStore:
  """Trees that nobody keeps."""

  def __init__(self, team: Team, on_finish: Callable[[FinishedTree], None] | None = None):
    self.trees: dict[JobKey, FinishedTree] = {}
    self._team, self._on_finish = team, on_finish

  def known(self, jobs: Sequence[Job]) -> Collection[JobKey]:
    del jobs
    return ()

  def append(self, tree: FinishedTree) -> None:
    self.trees[key_of(tree)] = tree
    if self._on_finish is not None:
      self._on_finish(tree)

  def share(self) -> None:
    trees = share_trees(self._team, list(self.trees.values()))
    self.trees = {key_of(tree): tree for tree in trees}


def _progress_of(session: Session, work: Work) -> Progress:
  """That of the work as a phase, or as a part of the one under way."""
  return session.progress if work.phase else PartOfPhase(session.progress, len(work.jobs))


@dataclasses.dataclass(frozen=True)
class PartOfPhase:
  """A Progress of something within the phase of another: it is told beside that one's count."""

  progress: Progress
  total: int

  def start(self, phase: str, total: int | None = None) -> None:
    del phase, total

  def update(self, completed: int, **fields: float | int | str) -> None:
    self.progress.tell(trees=f'{completed:,}/{self.total:,}', **fields)

  def tell(self, **fields: float | int | str) -> None:
    self.progress.tell(**fields)

  def finish(self) -> None:
    pass

  def note(self, message: str) -> None:
    self.progress.note(message)


@dataclasses.dataclass(frozen=True)
class Shifted:
  """A Progress that counts what was finished before this start as well."""

  progress: Progress
  finished_before: int

  def start(self, phase: str, total: int | None = None) -> None:
    self.progress.start(phase, total)

  def update(self, completed: int, **fields: float | int | str) -> None:
    self.progress.update(self.finished_before + completed, **fields)

  def tell(self, **fields: float | int | str) -> None:
    self.progress.tell(**fields)

  def finish(self) -> None:
    self.progress.finish()

  def note(self, message: str) -> None:
    self.progress.note(message)


def _announced(jobs: Iterable[Job], on_start: Callable[[Job], None]) -> Iterator[Job]:
  for job in jobs:
    on_start(job)
    yield job
