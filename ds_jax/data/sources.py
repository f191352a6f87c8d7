"""Problems from wherever config.data.source says: the embedded task, data sets, files, the gym.

A broken row is skipped, counted and reported; the run goes on with the others. Rows that repeat an
earlier one (same id, question and answer) are skipped too; the same id for another question
becomes ID#2, so that ids are unique. Of training problems those with a flaw (data/flaws.py) are
skipped, unless config.data.flaws says to keep them; evaluation sets stay whole.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.config import DataConfig
from ds_jax.data import countdown, external, flaws
from ds_jax.data.benchmarks import BENCHMARKS
from ds_jax.data.files import Row, find_files, read_rows
from ds_jax.data.layouts import RowError, read_problem, read_question, with_instruction
from ds_jax.interfaces import Progress
from ds_jax.types import Problem

_NUM_SHOWN = 5  # skipped rows named in a report
_CHUNK = 1024  # rows read from a TFDS data source at a time
_GYM_SEEDS = {'train': 0, 'eval': 1}  # splits of generated problems
_SOURCES = (
  "'countdown', 'tfds:NAME', 'file:PATH' (.jsonl, .json, .parquet, .csv), "
  "'hf:OWNER/NAME' or 'gym:NAME'"
)


@dataclasses.dataclass(frozen=True)
class LoadedProblems:
  """What was read of a source."""

  problems: tuple[Problem, ...]  # in the order of the source, unique ids
  skipped: tuple[tuple[int, str], ...]  # (line or row number from 1, reason)
  num_rows: int  # rows read, skipped ones included
  counts: Mapping[str, int]  # skipped rows by kind: 'unreadable', 'empty', 'repeated', flaws.FLAWS


def load_problems(
  config: DataConfig, split: str, data_dir: str, progress: Progress
) -> LoadedProblems:
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
  kind, _, name = source.partition(':')
  name_of_split = {
    'train': config.train_split,
    'warmstart': 'warmstart',
    'eval': 'test' if name in BENCHMARKS else config.eval_split,
  }
  limit = config.max_problems if split != 'warmstart' else 0
  progress.start(f'load {split} problems')
  try:
    if source == 'countdown':
      loaded = _load_countdown(config, name_of_split[split], data_dir, limit)
      progress.update(loaded.num_rows)
      return loaded
    if kind not in ('tfds', 'file', 'hf', 'gym') or not name:
      raise InputError(f'Unknown data source {source!r}; expected {_SOURCES}.')
    if kind != 'tfds':
      _check_split(config, split, kind)
    if kind == 'tfds':
      rows = _tfds_rows(name, name_of_split[split], data_dir)
    elif kind == 'file':
      rows = file_rows(find_files(name))
    elif kind == 'hf':
      rows = (('', row) for row in external.hf_rows(name, name_of_split[split]))
    else:
      rows = (('', row) for row in external.gym_rows(name, limit, _GYM_SEEDS[split]))
    loaded = load_rows(rows, config, limit, progress, is_training=split == 'train')
  finally:
    progress.finish()
  _report(loaded, source, progress)
  return loaded


def load_questions(
  path: str, config: DataConfig, accept: Callable[[Problem], Problem], progress: Progress
) -> LoadedProblems:
  """Reads the problems of a file for test-time search; answers may be unknown.

  Args:
    path: .jsonl, .json, .parquet or .csv, or a pattern.
    config: `prompt_field`, `answer_field` and `instruction` hold.
    accept: returns the problem as it is to be used, or raises RowError.
    progress: is told of skipped rows.

  Raises:
    InputError: if the file is missing, empty or broken in every row.
  """
  loaded, _ = _collect(file_rows(find_files(path)), config, 0, progress, read_question, accept)
  _report(loaded, path, progress)
  return loaded


def load_rows(
  rows: Iterable[tuple[str, Row]],
  config: DataConfig,
  limit: int,
  progress: Progress,
  *,
  is_training: bool,
) -> LoadedProblems:
  """Problems of (where, row); of training problems those with a flaw are skipped.

  Args:
    rows: where a row comes from ('' if that is clear), and the row.
    config: names the fields, and says whether flawed problems are kept.
    limit: good rows to read; 0: all.
    progress: gets updates.
    is_training: whether the problems are to be trained on.
  """
  if not is_training or config.flaws == 'keep':
    return _collect(rows, config, limit, progress)[0]
  loaded, numbers = _collect(rows, config, limit, progress, accept=_flawless)
  between = flaws.flaws_between(loaded.problems)
  kept = tuple(p for i, p in enumerate(loaded.problems) if i not in between)
  skipped = [
    (number, f'{where}{_words(between[i])}')
    for i, (where, number) in enumerate(numbers)
    if i in between
  ]
  counts = collections.Counter(loaded.counts) + collections.Counter(between.values())
  return dataclasses.replace(
    loaded, problems=kept, skipped=(*loaded.skipped, *skipped), counts=dict(counts)
  )


def _flawless(problem: Problem) -> Problem:
  flaw = flaws.flaw_of(problem)
  if flaw is not None:
    raise RowError(_words(flaw), flaw)
  return problem


def _words(flaw: str) -> str:
  return flaw.replace('_', ' ')


def _load_countdown(config: DataConfig, split: str, data_dir: str, limit: int) -> LoadedProblems:
  from ds_jax.data import countdown_builder

  check_choice('split of countdown', split, countdown.SPLITS)
  builder = countdown_builder.prepare(config.countdown, data_dir)
  rows = _source_rows(builder.as_data_source(split))
  problems = [countdown_builder.read_problem(row) for row in itertools.islice(rows, limit or None)]
  if not problems:
    raise InputError(f'The {split} split of countdown is empty; raise data.countdown.num_{split}.')
  if config.instruction:
    problems = [
      dataclasses.replace(p, prompt=with_instruction(p.prompt, config.instruction))
      for p in problems
    ]
  return LoadedProblems(tuple(problems), (), len(problems), {})


def _check_split(config: DataConfig, split: str, kind: str) -> None:
  if split == 'eval' and kind == 'file' and not config.eval_source:
    raise InputError(
      f'The file source {config.source!r} has no evaluation split; set '
      f'data.eval_source to one of {_SOURCES}.'
    )
  if split == 'warmstart':
    raise InputError(
      f'The source {config.source!r} has no worked solutions to start from; '
      'use data.source=countdown, or start from a model with model.path=DIR.'
    )


def file_rows(paths: list[pathlib.Path]) -> Iterator[tuple[str, Row]]:
  """The rows of files one after another, with the file's name where there are several."""
  for path in paths:
    where = f'{path.name}: ' if len(paths) > 1 else ''
    yield from ((where, row) for row in read_rows(path))


def _tfds_rows(name: str, split: str, data_dir: str) -> Iterator[tuple[str, Row]]:
  import tensorflow_datasets as tfds

  try:
    builder = _tfds_builder(name, data_dir)
    source = builder.as_data_source(split)
  except (tfds.core.DatasetNotFoundError, FileNotFoundError, AssertionError) as e:
    raise InputError(
      f'No TFDS data set {name!r} prepared under {data_dir!r} (or as a folder): {_first_line(e)}'
    ) from e
  except (ValueError, NotImplementedError, ImportError) as e:
    raise InputError(
      f'Cannot read split {split!r} of TFDS data set {name!r}: {_first_line(e)} Expected a split '
      f'(data.train_split, data.eval_split) of a data set prepared under {data_dir!r} (or as a '
      "folder) with file_format='array_record'; other formats need TensorFlow."
    ) from e
  return (('', row) for row in enumerate(_source_rows(source), start=1))


def _tfds_builder(name: str, data_dir: str) -> Any:
  import tensorflow_datasets as tfds

  folder = tfds_folder(name, data_dir)
  if folder is None:
    return tfds.builder(name, data_dir=data_dir)
  from ds_jax.data.builders import local_folder

  return tfds.builder_from_directory(local_folder(folder))


def tfds_folder(name: str, data_dir: str) -> Any:
  """The folder (epath.Path) of a data set: itself one, or prepared under `data_dir`; else None."""
  from etils import epath

  from ds_jax.data.builders import VERSION

  base = epath.Path(data_dir) / name
  folders = (epath.Path(name), base, base / VERSION)
  return next((f for f in folders if (f / 'dataset_info.json').exists()), None)


def _first_line(error: Exception) -> str:
  """tfds's messages go on for pages, e.g. with all data sets it knows."""
  return str(error).strip().split('\n')[0][:300]


def _source_rows(source: Any) -> Iterator[Mapping[str, Any]]:
  """All rows; reading them in chunks is twice as fast as one by one."""
  for start in range(0, len(source), _CHUNK):
    yield from source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))


def _collect(
  rows: Iterable[tuple[str, Row]],
  config: DataConfig,
  limit: int,
  progress: Progress,
  read: Callable[[Mapping[str, Any], DataConfig], Problem] = read_problem,
  accept: Callable[[Problem], Problem] = lambda problem: problem,
) -> tuple[LoadedProblems, list[tuple[str, int]]]:
  """Reads (where, row) until `limit` (0: no limit) rows are good, and where these stand."""
  problems: dict[str, Problem] = {}
  first_rows: dict[tuple[str, str, str], int] = {}
  skipped, numbers, num_rows = [], [], 0
  counts: collections.Counter[str] = collections.Counter()
  for where, (number, row) in rows:
    num_rows += 1
    try:
      problem = read(_readable(row), config)
      first = first_rows.setdefault((problem.id, problem.prompt, problem.answer), num_rows)
      if first != num_rows:
        raise RowError(f'repeats row {first}', 'repeated')
      problem = accept(problem)
    except RowError as e:
      skipped.append((number, f'{where}{e}'))
      counts[e.kind] += 1
      continue
    problem = _with_unique_id(problem, problems)
    problems[problem.id] = problem
    numbers.append((where, number))
    if num_rows % 1000 == 0:
      progress.update(num_rows)
    if limit and len(problems) == limit:
      break
  progress.update(num_rows)
  return LoadedProblems(tuple(problems.values()), tuple(skipped), num_rows, dict(counts)), numbers


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
      'data.prompt_field and data.answer_field if the fields have other names.'
    )
  if loaded.skipped:
    kinds = ', '.join(f'{count} {_words(kind)}' for kind, count in sorted(loaded.counts.items()))
    progress.note(
      f'{source}: skipped {len(loaded.skipped)} of {loaded.num_rows} rows ({kinds}). '
      f'By line or row: {examples}.'
    )
