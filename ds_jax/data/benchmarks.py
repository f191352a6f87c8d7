"""The six benchmarks of the paper: how many problems each has, and what its answers look like.

Public copies differ in field names and case, in worked solutions or lists for answers, in the
prompt's suffix and in how often a row is repeated. `read_benchmark` takes all of these and refuses
a file that is not the whole benchmark: a score over other problems is another score.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.config import DataConfig
from ds_jax.data.files import find_files, read_rows
from ds_jax.data.layouts import RELEASED_SUFFIX, RowError, read_problem
from ds_jax.interfaces import Progress
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
        problem = _read_row(name, row, config, len(problems))
        first = problems.setdefault(_question_key(problem), problem)
        if first.answer != problem.answer:
          raise RowError(f'the question of {first.id} with another answer')
      except RowError as e:
        faults.append(f'{path.name}, {number}: {e}')
  _check(name, list(problems.values()), faults, pattern)
  return tuple(problems.values())


def _read_row(name: str, row: Mapping[str, Any] | str, config: DataConfig, index: int) -> Problem:
  if isinstance(row, str):
    raise RowError(row)
  lowered = {field.lower(): value for field, value in row.items()}
  problem = read_problem(
    lowered,
    dataclasses.replace(
      config,
      instruction='',
      prompt_field=config.prompt_field.lower(),
      answer_field=config.answer_field.lower(),
    ),
  )
  text = problem.prompt.strip().removesuffix(RELEASED_SUFFIX).strip()
  own_id = f'{index:03d}' if problem.id.startswith('text-') else problem.id
  answer = _aime_answer(problem.answer) if BENCHMARKS[name].answers == 'aime' else problem.answer
  return dataclasses.replace(
    problem,
    prompt=text,
    answer=answer,
    solution=None,
    id=own_id if own_id.startswith(f'{name}-') else f'{name}-{own_id}',
  )


def _aime_answer(answer: str) -> str:
  match = _AIME.fullmatch(answer)
  if match is None:
    raise RowError(f'expected an integer from 0 to 999, got {answer!r:.60}')
  return match[1]


def _question_key(problem: Problem) -> str:
  return ' '.join(problem.prompt.split())


def _check(name: str, problems: list[Problem], faults: list[str], pattern: str) -> None:
  if faults:
    shown = '; '.join(faults[:_NUM_SHOWN]) + ('; …' if len(faults) > _NUM_SHOWN else '')
    raise InputError(
      f'{pattern}: {len(faults)} rows cannot be used for {name}: {shown}. A benchmark is taken '
      'whole or not at all; mend the file, or name its fields with --prompt_field and '
      '--answer_field.'
    )
  check_count(name, len(problems), pattern)
  ids = [problem.id for problem in problems]
  twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
  if twice:
    raise InputError(f'{pattern}: {len(twice)} ids stand for several questions, e.g. {twice[0]!r}.')


def check_count(name: str, count: int, where: str) -> None:
  """Raises InputError unless a benchmark has so many problems."""
  counts = BENCHMARKS[name].counts
  if count not in counts:
    raise InputError(
      f'{where} holds {count} different problems; {name} has '
      f'{" or ".join(map(str, counts))}. Use the file of the whole benchmark.'
    )


def load_benchmark(
  name: str, data_dir: str, config: DataConfig, progress: Progress
) -> tuple[Problem, ...]:
  """The problems of a prepared benchmark, with the config's instruction behind each.

  Raises:
    InputError: if it was not prepared there, or is not whole.
  """
  from ds_jax.data.sources import load_problems, tfds_folder  # which reads BENCHMARKS

  if tfds_folder(name, data_dir) is None:
    raise InputError(
      f'{name} is not prepared under {data_dir!r}: ds-jax data prepare --benchmark={name} '
      f'--from=FILE --data_dir={data_dir}'
    )
  whole = dataclasses.replace(
    config,
    eval_source=f'tfds:{name}',
    max_problems=0,
    prompt_field='',
    answer_field='',
    id_field='',
  )
  loaded = load_problems(whole, 'eval', data_dir, progress)
  check_count(name, len(loaded.problems), f'{data_dir}/{name}')
  return loaded.problems
