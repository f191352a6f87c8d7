"""The embedded tasks, which need no download: problems, words, and how a user's own is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ds_jax.config import DataConfig
from ds_jax.data import chain, countdown
from ds_jax.data.files import read_in_chunks
from ds_jax.types import Problem
from ds_jax.verify import grade_countdown


class Task(NamedTuple):
  """One of them. Its verifier has its name."""

  splits: Sequence[str]
  # problems(config, split, data_dir); files that it needs are built in data_dir.
  problems: Callable[[DataConfig, str, str], Iterable[Problem]]
  words: Callable[[DataConfig], Sequence[str]]  # all that problems and solutions are written in
  # answered(problem, config): a problem of a user's with its gold answer; ValueError if it is none.
  answered: Callable[[Problem, DataConfig], Problem]


def _countdown_problems(config: DataConfig, split: str, data_dir: str) -> Iterable[Problem]:
  from ds_jax.data import countdown_builder

  builder = countdown_builder.prepare(config.countdown, data_dir)
  return map(countdown_builder.read_problem, read_in_chunks(builder.as_data_source(split)))


def _answered_countdown(problem: Problem, config: DataConfig) -> Problem:
  del config  # every problem holds what its answer needs
  answer = problem.answer or problem.prompt
  grade_countdown.verify(answer, '')
  return dataclasses.replace(problem, answer=answer)


def _chain_problems(config: DataConfig, split: str, data_dir: str) -> Iterable[Problem]:
  del data_dir  # drawn in a moment
  return chain.generate_problems(config.chain, split)


def _answered_chain(problem: Problem, config: DataConfig) -> Problem:
  right = chain.read_problem(problem.prompt, chain.facts_of(config.chain))
  return dataclasses.replace(problem, answer=right.answer)


TASKS = {
  'countdown': Task(
    countdown.SPLITS,
    _countdown_problems,
    lambda config: countdown.words(config.countdown),
    _answered_countdown,
  ),
  'chain': Task(
    chain.SPLITS, _chain_problems, lambda config: chain.words(config.chain), _answered_chain
  ),
}
