"""Problems through packages that are extras: Hugging Face `datasets`, `reasoning-gym`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ds_jax.checks import InputError, first_line
from ds_jax.data.files import Row
from ds_jax.data.gym_entries import SEEDS
from ds_jax.interfaces import Progress
from ds_jax.types import Gold, Problem
from ds_jax.verify import gym_tasks
from ds_jax.verify.process import worker_environment


def hf_rows(name: str, split: str) -> Iterator[Row]:
  """Rows of a data set on the Hugging Face hub, or in a folder that `datasets` can read.

  Args:
    name: 'OWNER/NAME' or a folder, with ':SUBSET' behind it where the data set has several.
    split: e.g. 'train'.

  Raises:
    InputError: if `datasets` is not installed, or there is no such data set, subset or split.
  """
  try:
    import datasets
  except ImportError as e:
    raise InputError(
      f"The source hf:{name} needs `datasets`: pip install 'ds_jax[hf]', or "
      'download the file and use file:PATH.'
    ) from e
  path, _, subset = name.partition(':')
  try:
    rows = datasets.load_dataset(path, subset or None, split=split)
  except Exception as e:  # of many kinds: connection, missing files, unknown subsets
    raise InputError(
      f'Cannot load split {split!r} of hf:{name}: {first_line(e)} Expected '
      'hf:OWNER/NAME or hf:OWNER/NAME:SUBSET; data.train_split and data.eval_split '
      'name the splits.'
    ) from e
  return enumerate(rows, start=1)


def gym_problems(
  task: str, split: str, max_problems: int, *, progress: Progress
) -> tuple[Problem, ...]:
  """Generates problems of reasoning-gym; the task's own scorer judges their answers.

  The gold is the whole entry as JSON, which the scorer needs.

  Args:
    task: name and options; the option `size` goes before `max_problems`.
    split: 'train' or 'eval', which share no question.
    max_problems: how many; fewer come, with a note, where the task has no more.
    progress: gets updates and notes.

  Raises:
    InputError: if `reasoning-gym` is not installed, has no such task or option, refuses a value, or
      has no problem for the split; or the number is 0.
  """
  task, count = gym_tasks.take_size(task, max_problems)
  if count < 1:
    raise InputError(
      f'gym:{task} generates as many problems as asked for; set data.max_problems, e.g. 1000, or '
      'size among its options.'
    )
  problems: list[Problem] = []
  draws: dict[str, Any] = {}
  for row in _generated(task, split, count):
    if 'failed' in row:
      raise InputError(row['failed'])
    if 'draws' in row:
      draws = row['draws']
      continue
    problem_id = f'{gym_tasks.name_of(task)}/{SEEDS[split]}/{row["number"]}'
    gold = Gold(row['answer'], f'gym:{task}')
    problems.append(Problem(problem_id, row['question'], gold))
    if len(problems) % 100 == 0:
      progress.update(len(problems))
  if not draws:
    raise InputError(f'Generating gym:{task} ended early; standard error has its messages.')
  _tell_of_few(task, split, count, draws=draws, progress=progress)
  return tuple(problems)


def _generated(task: str, split: str, count: int) -> Iterator[dict[str, Any]]:
  """The lines of a generator process, which ends with this one."""
  command = [
    sys.executable,
    '-P',
    '-m',
    'ds_jax.data.gym_entries',
    json.dumps([task, split, count]),
  ]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, env=worker_environment())
  try:
    for line in process.stdout:
      if line.endswith(b'\n'):  # whole
        yield json.loads(line)
  finally:
    process.kill()
    process.stdout.close()
    process.wait()


def _tell_of_few(
  task: str, split: str, count: int, *, draws: Mapping[str, Any], progress: Progress
) -> None:
  """Notes that a task has fewer problems than asked for; InputError if it has none."""
  if not draws['is_exhausted']:
    return
  error = f' Its last error: {draws["error"]}.' if draws['error'] else ''
  known = (
    f'it has no more than {draws["num_known"]} different questions at these options, of which '
    f'{draws["num_problems"]} are in the split {split!r}'
  )
  if not draws['num_problems']:
    raise InputError(
      f'gym:{task}: {known}. Choose options with more problems, or set data.eval_source.{error}'
    )
  progress.note(f'gym:{task}: {count} problems were asked for, but {known}.{error}')
