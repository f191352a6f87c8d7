"""The six benchmarks of the paper: how many problems each has, and what its answers look like.

Public copies differ in field names and case, in worked solutions or lists for answers, in the
prompt's suffix and in how often a row is repeated. `read_benchmark` takes all of these and refuses
a file that is not the whole benchmark: a score over other problems is another score.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.config import DataConfig
from ds_jax.data.files import find_files, read_rows
from ds_jax.data.layouts import RELEASED_SUFFIX, RowError, read_problem
from ds_jax.types import Problem

_NUM_SHOWN = 5  # faults named in an error
_AIME = re.compile(r'\$?0*(\d{1,3})(?:\.0+)?\$?\.?')


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What is known of a benchmark before its file is read."""

  title: str  # its column in the paper's Table 1
  counts: tuple[int, ...]  # problems of the versions in use
  answers: str = 'any'  # 'any', or 'aime': integers from 0 to 999


BENCHMARKS = {
  'aime2024': Benchmark('AIME 2024', (30,), 'aime'),
  'aime2025': Benchmark('AIME 2025', (30,), 'aime'),
  'amc2023': Benchmark('AMC 2023', (40,)),
  'math500': Benchmark('MATH500', (500,)),
  'minerva_math': Benchmark('Minerva', (272,)),
  'olympiadbench': Benchmark('Olympiad', (675, 674)),  # 674: without one that has a figure
}


def read_benchmark(name: str, pattern: str, config: DataConfig) -> tuple[Problem, ...]:
  """Reads a benchmark out of a public file; ids begin with its name.

  Args:
    name: one of BENCHMARKS.
    pattern: .jsonl, .json, .parquet or .csv, or a pattern of such files.
    config: `prompt_field` and `answer_field` win over the recognised layouts.

  Raises:
    InputError: if there is no such file, a row cannot be used, or the number of different problems
      is not the benchmark's.
  """
  check_choice('--benchmark', name, BENCHMARKS)
  problems: dict[str, Problem] = {}
  faults = []
  for path in find_files(pattern):
    for number, row in read_rows(path):
      try:
        problem = _read_row(name, row, config, index=len(problems))
        question = ' '.join(problem.prompt.split())
        first = problems.setdefault(question, problem)
        if first.answer != problem.answer:
          raise RowError(f'the question of {first.id} with another answer')
      except RowError as e:
        faults.append(f'{path.name}, {number}: {e}')
  _check_rows(name, faults, pattern)
  check_count(name, len(problems), pattern)
  _check_ids([problem.id for problem in problems.values()], pattern)
  return tuple(problems.values())


def _read_row(
  name: str, row: Mapping[str, Any] | str, config: DataConfig, *, index: int
) -> Problem:
  """The Problem of a row; `index` is the id of a row without one."""
  if isinstance(row, str):  # the reason why the file has no fields here
    raise RowError(row)
  lower_case_row = {field.lower(): value for field, value in row.items()}
  lower_case_config = dataclasses.replace(
    config,
    instruction='',
    prompt_field=config.prompt_field.lower(),
    answer_field=config.answer_field.lower(),
  )
  problem = read_problem(lower_case_row, lower_case_config)
  prompt = problem.prompt.strip().removesuffix(RELEASED_SUFFIX).strip()
  answer = problem.answer
  if BENCHMARKS[name].answers == 'aime':
    answer = _aime_answer(answer)
  problem_id = problem.id
  if problem_id.startswith('text-'):  # a hash, as `layouts` makes it
    problem_id = f'{index:03d}'
  if not problem_id.startswith(f'{name}-'):
    problem_id = f'{name}-{problem_id}'
  return dataclasses.replace(problem, id=problem_id, prompt=prompt, answer=answer, solution=None)


def _aime_answer(answer: str) -> str:
  """The integer from 0 to 999 that an answer is, without zeros in front."""
  match = _AIME.fullmatch(answer)
  if match is None:
    raise RowError(f'expected an integer from 0 to 999, got {answer!r:.60}')
  return match[1]


def _check_rows(name: str, faults: list[str], pattern: str) -> None:
  """Raises InputError if there are rows that cannot be used."""
  if not faults:
    return
  shown = faults[:_NUM_SHOWN]
  if len(faults) > _NUM_SHOWN:
    shown.append('…')
  raise InputError(
    f'{pattern}: {len(faults)} rows cannot be used for {name}: {"; ".join(shown)}. A benchmark is '
    'taken whole or not at all; mend the file, or name its fields with --prompt_field and '
    '--answer_field.'
  )


def _check_ids(ids: list[str], pattern: str) -> None:
  """Raises InputError if several questions have the same id."""
  repeated = sorted(i for i, count in collections.Counter(ids).items() if count > 1)
  if repeated:
    raise InputError(
      f'{pattern}: {len(repeated)} ids stand for several questions, e.g. {repeated[0]!r}.'
    )


def check_count(name: str, count: int, where: str) -> None:
  """Raises InputError unless a benchmark has so many problems; `where` names the file."""
  expected = BENCHMARKS[name].counts
  if count not in expected:
    raise InputError(
      f'{where} holds {count} different problems; {name} has '
      f'{" or ".join(map(str, expected))}. Use the file of the whole benchmark.'
    )
