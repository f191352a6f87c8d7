"""Problems from wherever config.data.source says: the embedded task, data sets, files, the gym.

Several sources (config/mixtures.py) are read one after another; their names stand before the ids.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError, check_choice, first_line
from ds_jax.config import DataConfig
from ds_jax.config.mixtures import EMBEDDED, KINDS, parse_sources
from ds_jax.data import external, flaws
from ds_jax.data.benchmarks import BENCHMARKS
from ds_jax.data.fields import RowError, remedies_of
from ds_jax.data.files import Row, find_files, read_in_chunks, read_rows
from ds_jax.data.layouts import as_text, read_problem, read_question, with_instruction
from ds_jax.data.splits import SPLITS
from ds_jax.interfaces import Progress
from ds_jax.types import Gold, Problem

_NUM_SHOWN = 5  # skipped rows named in a report
_SHOWN_LENGTH = 40  # characters of a gold that is none
_SOURCES = (
  "'countdown', 'chain', 'tfds:NAME', 'file:PATH' (.jsonl, .json, .parquet, .csv), "
  "'hf:OWNER/NAME' or 'gym:NAME', or several joined by ' + '"
)

# Where a row comes from (a file's name, '' if that is clear), and the row.
LocatedRow = tuple[str, Row]


@dataclasses.dataclass(frozen=True)
class LoadedProblems:
  """What was read of a source."""

  problems: tuple[Problem, ...]  # in the order of the source, unique ids
  skipped: tuple[tuple[int, str], ...]  # (line or row number from 1, reason)
  num_rows: int  # rows read, skipped ones included
  counts: Mapping[str, int]  # skipped rows by kind: of RowError, 'repeated' and flaws.FLAWS


def load_problems(
  config: DataConfig, split: str, data_dir: str, *, progress: Progress, setting: str = 'data.'
) -> LoadedProblems:
  """Reads the problems of one split; builds the embedded ones if they are not there.

  Args:
    config: where they come from; `max_problems` holds for 'train' and 'eval'.
    split: 'train', 'eval' or 'warmstart' (worked solutions).
    data_dir: folder of TFDS data sets.
    progress: is told of skipped rows.
    setting: what stands before a name of `config` where the user sets it: 'data.' or '--'.

  Raises:
    InputError: if the source is unknown, missing, empty or broken in every row, or has no such
      split.
  """
  check_choice('split', split, ('train', 'eval', 'warmstart'))
  source = config.source
  if split == 'eval' and config.eval_source:
    source = config.eval_source
  parts = parse_sources(source)
  if split == 'warmstart':
    parts = tuple(part for part in parts if part.source in EMBEDDED) or parts[:1]
  loaded = []
  for part in parts:
    part_config = dataclasses.replace(config, source=part.source)
    problems = _load_part(part_config, split, data_dir, progress=progress, setting=setting)
    loaded.append(_named(problems, part.name))
  if len(loaded) == 1:
    return loaded[0]
  mixed = _mixed(loaded, is_spread=split == 'eval')
  if split != 'train' or config.flaws == 'keep':
    return mixed
  return _without_flaws_between(mixed, source, progress)


def _load_part(
  config: DataConfig, split: str, data_dir: str, *, progress: Progress, setting: str
) -> LoadedProblems:
  """Reads the problems of one split of `config.source`, which is one source alone."""
  source = config.source
  limit = 0 if split == 'warmstart' else config.max_problems
  progress.start(f'load {split} problems')
  try:
    if source in EMBEDDED:
      loaded = _load_embedded(config, split, data_dir, limit=limit)
      progress.update(loaded.num_rows)
      return loaded
    if source.startswith('gym:') and source != 'gym:':
      return _load_gym(config, split, progress=progress)
    rows = _open_source(source, config, split, data_dir=data_dir)
    loaded = load_rows(rows, config, limit, progress=progress, is_training=split == 'train')
  finally:
    progress.finish()
  report_skipped(loaded, source, progress, setting)
  return loaded


def _named(loaded: LoadedProblems, name: str) -> LoadedProblems:
  """The problems with the name of their source in front of their ids; '': they are left alone."""
  if not name:
    return loaded
  problems = []
  for problem in loaded.problems:
    problems.append(dataclasses.replace(problem, id=f'{name}/{problem.id}', source=name))
  skipped = tuple((number, f'{name}: {reason}') for number, reason in loaded.skipped)
  return dataclasses.replace(loaded, problems=tuple(problems), skipped=skipped)


def _mixed(parts: Sequence[LoadedProblems], *, is_spread: bool) -> LoadedProblems:
  """The problems of several sources, one source after another or (`is_spread`) in turn."""
  problems: list[Problem] = []
  if is_spread:  # so that any beginning, as config.evaluate.num_problems takes, is of all sources
    for turn in itertools.zip_longest(*(part.problems for part in parts)):
      problems.extend(problem for problem in turn if problem is not None)
  else:
    for part in parts:
      problems.extend(part.problems)
  skipped = tuple(itertools.chain.from_iterable(part.skipped for part in parts))
  counts: collections.Counter[str] = collections.Counter()
  for part in parts:
    counts.update(part.counts)
  return LoadedProblems(
    tuple(problems), skipped, sum(part.num_rows for part in parts), dict(counts)
  )


def _without_flaws_between(
  loaded: LoadedProblems, source: str, progress: Progress
) -> LoadedProblems:
  """The problems that do not repeat or contradict those of another source, which is noted."""
  flaw_of_index = flaws.flaws_between(loaded.problems)
  if not flaw_of_index:
    return loaded
  flawless = tuple(p for i, p in enumerate(loaded.problems) if i not in flaw_of_index)
  between = collections.Counter(flaw_of_index.values())
  kinds = [f'{count} {_words(kind)}' for kind, count in sorted(between.items())]
  progress.note(
    f'{source}: skipped {between.total()} problems between sources ({", ".join(kinds)}).'
  )
  if not flawless:
    raise InputError(f'{source}: no problem is left; its sources contradict one another.')
  counts = collections.Counter(loaded.counts) + between
  return dataclasses.replace(loaded, problems=flawless, counts=dict(counts))


def load_questions(
  path: str, config: DataConfig, accept: Callable[[Problem], Problem], *, progress: Progress
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
  rows = file_rows(find_files(path))
  loaded, _ = _read_all(rows, config, progress=progress, read=read_question, accept=accept)
  report_skipped(loaded, path, progress, 'data.')
  return loaded


def asked_problem(text: str, answer: str, config: DataConfig) -> Problem:
  """A question that stands in no file, with the instruction that those in files get."""
  return Problem('command-line', with_instruction(text, config.instruction), answer)


def load_rows(
  rows: Iterable[LocatedRow],
  config: DataConfig,
  limit: int,
  *,
  progress: Progress,
  is_training: bool,
) -> LoadedProblems:
  """Reads the problems of some rows; of training problems those with a flaw are skipped.

  Args:
    rows: the rows, and where they come from.
    config: names the fields, and says whether flawed problems are kept.
    limit: good rows to read; 0: all.
    progress: gets updates.
    is_training: whether the problems are to be trained on.
  """
  if not is_training or config.flaws == 'keep':
    loaded, _ = _read_all(rows, config, limit, progress=progress)
    return loaded
  loaded, positions = _read_all(rows, config, limit, progress=progress, accept=_check_flawless)
  flaw_of_index = flaws.flaws_between(loaded.problems)
  flawless, skipped = [], list(loaded.skipped)
  for i, (problem, (where, number)) in enumerate(zip(loaded.problems, positions, strict=True)):
    if i in flaw_of_index:
      skipped.append((number, f'{where}{_words(flaw_of_index[i])}'))
    else:
      flawless.append(problem)
  counts = collections.Counter(loaded.counts) + collections.Counter(flaw_of_index.values())
  return LoadedProblems(tuple(flawless), tuple(skipped), loaded.num_rows, dict(counts))


def _check_flawless(problem: Problem) -> Problem:
  """Returns the problem; RowError if it has a flaw by itself."""
  flaw = flaws.flaw_of(problem)
  if flaw is None:
    return problem
  reason = _words(flaw)
  if flaw in flaws.GOLD_FLAWS:
    reason = f'{reason} in {problem.answer[:_SHOWN_LENGTH]!r}'
  raise RowError(reason, flaw)


def _words(kind: str) -> str:
  """The name of a kind of skipped rows, for people."""
  return kind.replace('_', ' ')


def _load_embedded(config: DataConfig, split: str, data_dir: str, *, limit: int) -> LoadedProblems:
  """Reads the problems of an embedded task, which have no flaws."""
  from ds_jax.data.embedded import TASKS

  name, split_name = config.source, _split_name(config, split, '')
  task = TASKS[name]
  check_choice(f'split of {name}', split_name, SPLITS)
  problems = []
  for problem in itertools.islice(task.problems(config, split_name, data_dir), limit or None):
    prompt = with_instruction(problem.prompt, config.instruction)
    gold = Gold(problem.answer, name)
    problems.append(dataclasses.replace(problem, prompt=prompt, answer=gold))
  if not problems:
    raise InputError(
      f'The {split_name} split of {name} is empty; raise data.{name}.num_{split_name}.'
    )
  return LoadedProblems(tuple(problems), skipped=(), num_rows=len(problems), counts={})


def _load_gym(config: DataConfig, split: str, *, progress: Progress) -> LoadedProblems:
  """Generates problems of reasoning-gym, which have no flaws."""
  _check_split(config, split, 'gym')
  task = config.source.partition(':')[2]
  generated = external.gym_problems(task, split, config.max_problems, progress=progress)
  problems = []
  for problem in generated:
    prompt = with_instruction(problem.prompt, config.instruction)
    problems.append(dataclasses.replace(problem, prompt=prompt))
  progress.update(len(problems))
  return LoadedProblems(tuple(problems), skipped=(), num_rows=len(problems), counts={})


def _split_name(config: DataConfig, split: str, set_name: str) -> str:
  """What a split is called in the data set; benchmarks have a test split."""
  if split == 'train':
    return config.train_split
  if split == 'warmstart':
    return 'warmstart'
  return 'test' if set_name in BENCHMARKS else config.eval_split


def _open_source(
  source: str, config: DataConfig, split: str, *, data_dir: str
) -> Iterator[LocatedRow]:
  """The rows of one split of a source."""
  kind, _, name = source.partition(':')
  if kind not in KINDS or not name:
    raise InputError(f'Unknown data source {source!r}; expected {_SOURCES}.')
  split_name = _split_name(config, split, name)
  if kind == 'tfds':
    return _without_place(_tfds_rows(name, split_name, data_dir))
  _check_split(config, split, kind)
  if kind == 'file':
    return file_rows(find_files(name))
  return _without_place(external.hf_rows(name, split_name))


def _without_place(rows: Iterable[Row]) -> Iterator[LocatedRow]:
  for row in rows:
    yield '', row


def _check_split(config: DataConfig, split: str, kind: str) -> None:
  """Raises InputError if a source that is no data set of TFDS has no such split."""
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


def file_rows(paths: list[pathlib.Path]) -> Iterator[LocatedRow]:
  """Yields the rows of files one after another, with the file's name where there are several."""
  for path in paths:
    where = f'{path.name}: ' if len(paths) > 1 else ''
    for row in read_rows(path):
      yield where, row


def _tfds_rows(name: str, split: str, data_dir: str) -> Iterator[Row]:
  import tensorflow_datasets as tfds

  try:
    source = _tfds_builder(name, data_dir).as_data_source(split)
  except (tfds.core.DatasetNotFoundError, FileNotFoundError, AssertionError) as e:
    raise InputError(
      f'No TFDS data set {name!r} prepared under {data_dir!r} (or as a folder): {first_line(e)}'
    ) from e
  except (ValueError, NotImplementedError, ImportError) as e:
    raise InputError(
      f'Cannot read split {split!r} of TFDS data set {name!r}: {first_line(e)} Expected a split '
      f'(data.train_split, data.eval_split) of a data set prepared under {data_dir!r} (or as a '
      "folder) with file_format='array_record'; other formats need TensorFlow."
    ) from e
  return enumerate(read_in_chunks(source), start=1)


def _tfds_builder(name: str, data_dir: str) -> Any:
  import tensorflow_datasets as tfds

  folder = tfds_folder(name, data_dir)
  if folder is None:
    return tfds.builder(name, data_dir=data_dir)
  from ds_jax.data.builders import local_folder

  return tfds.builder_from_directory(local_folder(folder))


def tfds_folder(name: str, data_dir: str) -> Any:
  """Finds the folder (epath.Path) of a data set: `name` itself, or below `data_dir`; else None."""
  from etils import epath

  from ds_jax.data.builders import VERSION

  prepared = epath.Path(data_dir) / name
  for folder in (epath.Path(name), prepared, prepared / VERSION):
    if (folder / 'dataset_info.json').exists():
      return folder
  return None


def _read_all(
  rows: Iterable[LocatedRow],
  config: DataConfig,
  limit: int = 0,
  *,
  progress: Progress,
  read: Callable[[Mapping[str, Any], DataConfig], Problem] = read_problem,
  accept: Callable[[Problem], Problem] | None = None,
) -> tuple[LoadedProblems, list[tuple[str, int]]]:
  """Reads rows until `limit` of them are good (0: all rows).

  Args:
    rows: the rows, and where they come from.
    config: names the fields.
    limit: of good rows.
    progress: gets updates.
    read: makes a Problem of a row, or raises RowError.
    accept: returns the problem as it is to be used, or raises RowError.

  Returns:
    The problems and what was skipped, and of each problem (where, row number).
  """
  problems: dict[str, Problem] = {}
  first_rows: dict[tuple[str, str, str], int] = {}  # {id, question and answer: number of the row}
  positions: list[tuple[str, int]] = []
  skipped: list[tuple[int, str]] = []
  counts: collections.Counter[str] = collections.Counter()
  num_rows = 0
  for where, (number, row) in rows:
    num_rows += 1
    try:
      if isinstance(row, str):  # the reason why the file has no fields here
        raise RowError(row)
      problem = read(row, config)
      content = (problem.id, as_text(problem), problem.answer)
      first_row = first_rows.setdefault(content, num_rows)
      if first_row != num_rows:
        raise RowError(f'repeats row {first_row}', 'repeated')
      if accept is not None:
        problem = accept(problem)
    except RowError as e:
      skipped.append((number, f'{where}{e}'))
      counts[e.kind] += 1
      continue
    problem = _with_unique_id(problem, problems)
    problem = dataclasses.replace(problem, row=f'{where}{number}')
    problems[problem.id] = problem
    positions.append((where, number))
    if num_rows % 1000 == 0:
      progress.update(num_rows)
    if len(problems) == limit:
      break
  progress.update(num_rows)
  loaded = LoadedProblems(tuple(problems.values()), tuple(skipped), num_rows, dict(counts))
  return loaded, positions


def _with_unique_id(problem: Problem, others: Mapping[str, Problem]) -> Problem:
  """The problem, as ID#2, ID#3, … if others have its id."""
  unique_id, count = problem.id, 1
  while unique_id in others:
    count += 1
    unique_id = f'{problem.id}#{count}'
  return dataclasses.replace(problem, id=unique_id)


def report_skipped(loaded: LoadedProblems, source: str, progress: Progress, setting: str) -> None:
  """Notes what was skipped, and what helps.

  Args:
    loaded: what was read.
    source: its name, for people.
    progress: gets the note.
    setting: what stands before the name of a setting where the user sets it: 'data.' or '--'.

  Raises:
    InputError: if nothing is left.
  """
  if not loaded.num_rows:
    raise InputError(f'{source} holds no rows.')
  if not loaded.skipped:
    return
  reasons = [f'{number}: {reason}' for number, reason in loaded.skipped[:_NUM_SHOWN]]
  if len(loaded.skipped) > _NUM_SHOWN:
    reasons.append('…')
  kinds = [f'{count} {_words(kind)}' for kind, count in sorted(loaded.counts.items())]
  details = f'({", ".join(kinds)}). By line or row: {"; ".join(reasons)}.'
  remedies = remedies_of(loaded.counts)
  if loaded.problems:
    sentences = [f'{source}: skipped {len(loaded.skipped)} of {loaded.num_rows} rows {details}']
    progress.note(' '.join([*sentences, *remedies]))
    return
  if set(loaded.counts) <= {'repeated', *flaws.FLAWS}:
    remedies.append(
      'These rows can be read, but not be learnt from (ds_jax/data/flaws.py has the rules); '
      'data.flaws=keep trains on them all the same.'
    )
  elif not remedies:
    remedies.append(
      f'Set {setting}prompt_field and {setting}answer_field if the fields have other names.'
    )
  sentences = [f'{source}: none of {loaded.num_rows} rows can be used {details}']
  raise InputError(' '.join([*sentences, *remedies]))
