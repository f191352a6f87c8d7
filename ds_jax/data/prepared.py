"""Benchmarks that `ds-jax data prepare` has built."""

from __future__ import annotations

import dataclasses

from ds_jax.checks import InputError
from ds_jax.config import DataConfig
from ds_jax.data.benchmarks import check_count
from ds_jax.data.sources import load_problems, tfds_folder
from ds_jax.interfaces import Progress
from ds_jax.types import Problem


def load_benchmark(
  name: str, data_dir: str, config: DataConfig, progress: Progress
) -> tuple[Problem, ...]:
  """The problems of a prepared benchmark, with the config's instruction behind each.

  Raises:
    InputError: if it was not prepared there, or is not whole.
  """
  if tfds_folder(name, data_dir) is None:
    raise InputError(
      f'{name} is not prepared under {data_dir!r}: ds-jax data prepare --benchmark={name} '
      f'--from=FILE --data_dir={data_dir}'
    )
  loaded = load_problems(
    dataclasses.replace(
      config,
      eval_source=f'tfds:{name}',
      max_problems=0,
      prompt_field='',
      answer_field='',
      id_field='',
    ),
    'eval',
    data_dir,
    progress=progress,
  )
  check_count(name, len(loaded.problems), f'{data_dir}/{name}')
  return loaded.problems
