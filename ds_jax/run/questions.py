"""Questions that a user asks of test-time search: which can be searched, and as which problems."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ds_jax.checks import InputError
from ds_jax.config import settings_digest
from ds_jax.data.embedded import answered
from ds_jax.data.fields import RowError
from ds_jax.data.layouts import question_of_text
from ds_jax.data.prompts import encode_problems
from ds_jax.data.sources import LoadedProblems, asked_problem, load_questions
from ds_jax.data.vocabulary import unknown_words
from ds_jax.report.text import shorten
from ds_jax.run.engines import Engines
from ds_jax.run.prompts import date_setting
from ds_jax.types import Problem

_MAX_SHOWN = 60  # characters of a question that an error names


def read_questions(engines: Engines, path: str) -> LoadedProblems:
  """The questions of a file that can be searched; others are skipped and counted.

  Raises:
    InputError: if none can.
  """
  accept = functools.partial(accept_problem, engines=engines)
  return load_questions(
    path, engines.session.config.data, accept, progress=engines.session.progress
  )


def read_question(engines: Engines, text: str, answer: str | None) -> Problem:
  """The question of a command line, asked as the run asks its own.

  Raises:
    InputError: if the model cannot read it, or the verifier not its answer.
  """
  problem = asked_problem(text, answer or '', engines.session.config.data)
  return accepted('--problem', problem, engines)


def read_texts(engines: Engines, questions: Sequence[str | Problem]) -> list[Problem]:
  """The questions of a program.

  Args:
    engines: whose model is to read them.
    questions: a text is asked as the run asks its own, and has the id that it would have as a line
      of a file; a Problem is taken as it is. An answer may be '': not known.

  Raises:
    InputError: if the model cannot read one, or the verifier not its answer.
  """
  problems = []
  for question in questions:
    problem = question
    if isinstance(question, str):
      problem = question_of_text(question, engines.session.config.data)
    problems.append(accepted(repr(shorten(problem.prompt, _MAX_SHOWN)), problem, engines))
  return problems


def accepted(name: str, problem: Problem, engines: Engines) -> Problem:
  """As `accept_problem`, but what cannot be searched is an InputError, which calls it `name`."""
  try:
    return accept_problem(problem, engines)
  except RowError as e:
    raise InputError(f'{name}: {e}.') from e


def accept_problem(problem: Problem, engines: Engines) -> Problem:
  """The problem as it is searched: one of an embedded task has its answer.

  Raises:
    RowError: if the prompt has words that the tokenizer does not know, is too long, or the
      verifier cannot use the answer.
  """
  config, tokenizer = engines.session.config, engines.tokenizer
  unknown = unknown_words(problem.prompt, tokenizer)
  if unknown:
    raise RowError(
      f'the model has no token for {", ".join(map(repr, unknown[:5]))!s:.200} and '
      'would read "unknown"; write the problem in its words'
    )
  (tokens,), limit = encode_problems([problem], tokenizer), config.data.prompt_limit
  if len(tokens) > limit and config.data.overlong_prompts == 'skip':
    raise RowError(f'the prompt has {len(tokens)} tokens, data.prompt_limit = {limit}')
  try:
    return answered(problem, config.verify.verifier, config.data)
  except ValueError as e:
    raise RowError(str(e).rstrip('.')) from e


def run_name(engines: Engines, parameters: str) -> str:
  """What lines of an output file depend on: parameters, settings and, if asked for, the date."""
  name = f'{parameters}, settings {settings_digest(engines.session.config)}'
  for day in date_setting(engines.tokenizer).values():
    name = f'{name}, date {day}'
  return name
