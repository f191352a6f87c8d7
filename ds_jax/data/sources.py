"""Problems from wherever config.data.source says: the embedded task, TFDS data sets, files.

A broken row is skipped, counted and reported; the run goes on with the others. Rows that repeat an
earlier one (same id, question and answer) are skipped too; the same id for another question
becomes ID#2, so that ids are unique.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.config import DataConfig
from ds_jax.data import countdown
from ds_jax.data.files import Row, find_files, read_rows
from ds_jax.data.layouts import RowError, read_problem, read_question, with_instruction
from ds_jax.types import Problem, Progress

_NUM_SHOWN = 5  # skipped rows named in a report
_CHUNK = 1024  # rows read from a TFDS data source at a time
_SOURCES = "'countdown', 'tfds:NAME' or 'file:PATH' (.jsonl, .json, .parquet, .csv)"


@dataclasses.dataclass(frozen=True)
class LoadedProblems:
  """What was read of a source."""
  problems: tuple[Problem, ...]  # in the order of the source, unique ids
  skipped: tuple[tuple[int, str], ...]  # (line or row number from 1, reason)
  num_rows: int  # rows read, skipped ones included


def load_problems(config: DataConfig, split: str, data_dir: str,
                  progress: Progress) -> LoadedProblems:
  """Reads the problems of one split; builds the embedded ones if they are not there.

  Args:
    config: where they come from; `max_problems` holds for 'train' and 'eval'.
    split: 'train', 'eval' or 'warmstart' (worked solutions).
    data_dir: folder of TFDS data sets.
    progress: is told of skipped rows.

  Raises:
    InputError: if the source is unknown, missing, empty or broken in every row, or has no such
      split.
  """
  check_choice('split', split, ('train', 'eval', 'warmstart'))
  source = (config.eval_source if split == 'eval' else '') or config.source
  name_of_split = {'train': config.train_split, 'eval': config.eval_split, 'warmstart': 'warmstart'}
  limit = config.max_problems if split != 'warmstart' else 0
  kind, _, name = source.partition(':')
  progress.start(f'load {split} problems')
  try:
    if source == 'countdown':
      loaded = _load_countdown(config, name_of_split[split], data_dir, limit)
      progress.update(loaded.num_rows)
      return loaded
    if kind == 'tfds' and name:
      rows = _tfds_rows(name, name_of_split[split], data_dir)
    elif kind == 'file' and name:
      _check_file_split(config, split)
      rows = _file_rows(find_files(name))
    else:
      raise InputError(f'Unknown data source {source!r}; expected {_SOURCES}.')
    loaded = _collect(rows, config, limit, progress)
  finally:
    progress.finish()
  _report(loaded, source, progress)
  return loaded


def load_questions(path: str, config: DataConfig, accept: Callable[[Problem], Problem],
                   progress: Progress) -> LoadedProblems:
  """Reads the problems of a file for test-time search; answers may be unknown.

  Args:
    path: .jsonl, .json, .parquet or .csv, or a pattern.
    config: `prompt_field`, `answer_field` and `instruction` hold.
    accept: returns the problem as it is to be used, or raises RowError.
    progress: is told of skipped rows.

  Raises:
    InputError: if the file is missing, empty or broken in every row.
  """
  read = lambda row, config: accept(read_question(row, config))
  loaded = _collect(_file_rows(find_files(path)), config, 0, progress, read)
  _report(loaded, path, progress)
  return loaded


def _load_countdown(config: DataConfig, split: str, data_dir: str, limit: int) -> LoadedProblems:
  from ds_jax.data import countdown_builder
  check_choice('split of countdown', split, countdown.SPLITS)
  builder = countdown_builder.prepare(config.countdown, data_dir)
  rows = _source_rows(builder.as_data_source(split))
  problems = [countdown_builder.read_problem(row) for row in itertools.islice(rows, limit or None)]
  if not problems:
    raise InputError(f'The {split} split of countdown is empty; raise data.countdown.num_{split}.')
  if config.instruction:
    problems = [dataclasses.replace(p, prompt=with_instruction(p.prompt, config.instruction))
                for p in problems]
  return LoadedProblems(tuple(problems), (), len(problems))


def _check_file_split(config: DataConfig, split: str) -> None:
  if split == 'eval' and not config.eval_source:
    raise InputError(f'The file source {config.source!r} has no evaluation split; set '
                     f'data.eval_source to one of {_SOURCES}.')
  if split == 'warmstart':
    raise InputError(f'The file source {config.source!r} has no worked solutions to start from; '
                     'use data.source=countdown, or start from a model with model.path=DIR.')


def _file_rows(paths: list[pathlib.Path]) -> Iterator[tuple[str, Row]]:
  for path in paths:
    where = f'{path.name}: ' if len(paths) > 1 else ''
    yield from ((where, row) for row in read_rows(path))


def _tfds_rows(name: str, split: str, data_dir: str) -> Iterator[tuple[str, Row]]:
  import tensorflow_datasets as tfds
  try:
    builder = _tfds_builder(name, data_dir)
    source = builder.as_data_source(split)
  except (tfds.core.DatasetNotFoundError, FileNotFoundError, AssertionError) as e:
    raise InputError(f'No TFDS data set {name!r} prepared under {data_dir!r} (or as a folder): '
                     f'{_first_line(e)}') from e
  except (ValueError, NotImplementedError, ImportError) as e:
    raise InputError(
        f'Cannot read split {split!r} of TFDS data set {name!r}: {_first_line(e)} Expected a split '
        f"of a data set prepared under {data_dir!r} (or as a folder) with "
        "file_format='array_record'; other formats need TensorFlow.") from e
  return (('', row) for row in enumerate(_source_rows(source), start=1))


def _tfds_builder(name: str, data_dir: str) -> Any:
  import tensorflow_datasets as tfds
  from etils import epath
  for folder in (epath.Path(name), epath.Path(data_dir) / name):
    if (folder / 'dataset_info.json').exists():
      return tfds.builder_from_directory(folder)
  return tfds.builder(name, data_dir=data_dir)


def _first_line(error: Exception) -> str:
  """tfds's messages go on for pages, e.g. with all data sets it knows."""
  return str(error).strip().split('\n')[0][:300]


def _source_rows(source: Any) -> Iterator[Mapping[str, Any]]:
  """All rows; reading them in chunks is twice as fast as one by one."""
  for start in range(0, len(source), _CHUNK):
    yield from source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))


def _collect(rows: Iterable[tuple[str, Row]], config: DataConfig, limit: int, progress: Progress,
             read: Callable[[Mapping[str, Any], DataConfig], Problem] = read_problem
             ) -> LoadedProblems:
  """Reads (where, row) until `limit` (0: no limit) rows are good."""
  problems: dict[str, Problem] = {}
  first_rows: dict[tuple[str, str, str], int] = {}
  skipped, num_rows = [], 0
  for where, (number, row) in rows:
    num_rows += 1
    try:
      problem = read(_readable(row), config)
      first = first_rows.setdefault((problem.id, problem.prompt, problem.answer), num_rows)
      if first != num_rows:
        raise RowError(f'repeats row {first}')
    except RowError as e:
      skipped.append((number, f'{where}{e}'))
      continue
    problem = _with_unique_id(problem, problems)
    problems[problem.id] = problem
    if num_rows % 1000 == 0:
      progress.update(num_rows)
    if limit and len(problems) == limit:
      break
  progress.update(num_rows)
  return LoadedProblems(tuple(problems.values()), tuple(skipped), num_rows)


def _readable(row: Mapping[str, Any] | str) -> Mapping[str, Any]:
  if isinstance(row, str):
    raise RowError(row)
  return row


def _with_unique_id(problem: Problem, others: Mapping[str, Problem]) -> Problem:
  if problem.id not in others:
    return problem
  unused = next(new for n in itertools.count(2) if (new := f'{problem.id}#{n}') not in others)
  return dataclasses.replace(problem, id=unused)


def _report(loaded: LoadedProblems, source: str, progress: Progress) -> None:
  """Notes what was skipped; InputError if nothing is left."""
  examples = '; '.join(f'{number}: {reason}' for number, reason in loaded.skipped[:_NUM_SHOWN])
  if len(loaded.skipped) > _NUM_SHOWN:
    examples += '; …'
  if not loaded.num_rows:
    raise InputError(f'{source} holds no rows.')
  if not loaded.problems:
    raise InputError(
        f'{source}: none of {loaded.num_rows} rows can be used. By line or row: {examples}. Set '
        'data.prompt_field and data.answer_field if the fields have other names.')
  if loaded.skipped:
    progress.note(f'{source}: skipped {len(loaded.skipped)} of {loaded.num_rows} rows. '
                  f'By line or row: {examples}.')
