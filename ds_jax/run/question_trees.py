"""Trees of questions: without idle slots, and with ends that nobody can grade left ungraded."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.config import Config
from ds_jax.interfaces import VerifyFn
from ds_jax.run.compiling import Clock
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Work, grow_in_memory
from ds_jax.run.prompts import note_missing_box, prepare
from ds_jax.run.searched import Searched
from ds_jax.run.session import Session
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.search.policies import policy_of
from ds_jax.types import Problem, Verdict


def search_questions(
  engines: Engines, params: Any, problems: Sequence[Problem], *, select: str
) -> list[Searched]:
  """Grows one tree per problem, many at once; the results are in the order of `problems`.

  Args:
    engines: of one process.
    params: parameters in the form for search.
    problems: accepted ones, see questions.py; ids must differ.
    select: which of answers.SELECTIONS gives the answer.

  Raises:
    InputError: if a prompt exceeds data.prompt_limit.
    Stopped: if asked to; nothing is kept.
  """
  work = question_work(engines, problems, phase='search')
  with Clock() as clock:
    grown = grow_in_memory(
      engines.session, params, work, on_start=clock.start, on_finish=clock.stop
    )
  searched = []
  for problem, tree in zip(problems, grown.trees, strict=True):
    seconds = clock.taken[problem.id]
    searched.append(Searched.of(engines, tree, problem, select=select, seconds=seconds))
  return searched


def question_work(engines: Engines, problems: Sequence[Problem], *, phase: str = '') -> Work:
  """A tree per problem; ends of problems whose answer is not known (empty) are left ungraded.

  Args:
    engines: whose search engine grows them.
    problems: any number; ids must differ.
    phase: as a person reads it; '': it is not shown.

  Raises:
    InputError: if a prompt exceeds data.prompt_limit.
  """
  session = engines.session
  prepared = prepare(session, engines.tokenizer, problems, what='search')
  if prepared.skipped:
    raise InputError(
      f'{len(prepared.skipped)} prompts exceed data.prompt_limit = '
      f'{session.config.data.prompt_limit} tokens; raise it.'
    )
  note_missing_box(session, engines.tokenizer, prepared.prompts)
  engine = engines.search_engine
  engine = dataclasses.replace(engine, verify_fn=functools.partial(_grade_known, engine.verify_fn))
  jobs = [Job(problem, tokens) for problem, tokens in prepared.prompts]
  return Work(engine, jobs, Purpose.SEARCH, phase=phase)


def with_fewer_slots(engines: Engines, num_problems: int) -> Session:
  """The session of some engines, with no more slots than so many problems can use."""
  per_device = -(-num_problems // sharding.num_slot_shards(engines.mesh))
  session = engines.session
  return dataclasses.replace(session, config=with_slots(session.config, per_device))


def with_slots(config: Config, num_problems: int) -> Config:
  """No more slots per device than serial policies can use: idle ones cost as much as busy ones."""
  search = config.search
  if not policy_of(search).is_serial:
    return config
  slots = min(search.num_slots, num_problems)
  search = dataclasses.replace(
    search, num_slots=slots, replay_lanes=min(search.replay_lanes, slots)
  )
  return dataclasses.replace(config, search=search)


def _grade_known(
  verify_fn: VerifyFn, items: Sequence[tuple[str, str]]
) -> list[concurrent.futures.Future[Verdict]]:
  """Verdicts of (answer, response) pairs; UNGRADED at once where no answer is known."""
  graded = iter(verify_fn([item for item in items if item[0]]))
  futures = []
  for answer, _ in items:
    if answer:
      futures.append(next(graded))
      continue
    ungraded: concurrent.futures.Future[Verdict] = concurrent.futures.Future()
    ungraded.set_result(Verdict.UNGRADED)
    futures.append(ungraded)
  return futures
