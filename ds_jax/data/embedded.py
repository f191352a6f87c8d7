"""The embedded tasks, which need no download: problems, words, and how a user's own is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ds_jax.config import DataConfig
from ds_jax.data import chain, countdown
from ds_jax.data.files import read_in_chunks
from ds_jax.data.layouts import without_instruction
from ds_jax.types import Problem
from ds_jax.verify import verifiers


class Task(NamedTuple):
  """One of them. Its verifier has its name."""

  # problems(config, split, data_dir); files that it needs are built in data_dir.
  problems: Callable[[DataConfig, str, str], Iterable[Problem]]
  words: Callable[[DataConfig], Sequence[str]]  # all that problems and solutions are written in
  # gold(question, config): the gold answer of a question; ValueError if it is none of the task.
  gold: Callable[[str, DataConfig], str]


def answered(problem: Problem, verifier: str, config: DataConfig) -> Problem:
  """A user's problem with its gold answer, where its verifier is that of an embedded task.

  Args:
    problem: its answer, if it has one, counts.
    verifier: name, as in config.verify.verifier.
    config: of the task; its instruction stands behind the question.

  Raises:
    ValueError: if it is no problem of the task, or its answer is none.
  """
  if verifier not in TASKS:
    return problem
  question = without_instruction(problem.prompt, config.instruction)
  answer = problem.answer or TASKS[verifier].gold(question, config)
  verifiers.resolve(verifier)(answer, '')  # it refuses a gold that it cannot read
  return dataclasses.replace(problem, answer=answer)


def _countdown_problems(config: DataConfig, split: str, data_dir: str) -> Iterable[Problem]:
  from ds_jax.data import countdown_builder

  builder = countdown_builder.prepare(config.countdown, data_dir)
  return map(countdown_builder.read_problem, read_in_chunks(builder.as_data_source(split)))


def _countdown_gold(question: str, config: DataConfig) -> str:
  del config  # a problem holds all that its answer needs
  return question


def _chain_problems(config: DataConfig, split: str, data_dir: str) -> Iterable[Problem]:
  del data_dir  # drawn in a moment
  return chain.generate_problems(config.chain, split)


def _chain_gold(question: str, config: DataConfig) -> str:
  return chain.read_problem(question, chain.facts_of(config.chain)).answer


TASKS = {
  'countdown': Task(
    _countdown_problems, lambda config: countdown.words(config.countdown), _countdown_gold
  ),
  'chain': Task(_chain_problems, lambda config: chain.words(config.chain), _chain_gold),
}
