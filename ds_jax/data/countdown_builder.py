"""Countdown as a TensorFlow Datasets builder: array_record files, without TensorFlow.

Each CountdownConfig has a folder of its own, `DATA_DIR/countdown/n4_1to15_<hash>/1.0.0`, which is
written once, see builders.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from ds_jax.config import CountdownConfig
from ds_jax.data import countdown
from ds_jax.data.builders import build, is_built, named_write_errors, quiet_tfds
from ds_jax.types import Problem


@dataclasses.dataclass(eq=False, kw_only=True)
class CountdownBuilderConfig(tfds.core.BuilderConfig):
  """A CountdownConfig under the name of its folder."""

  countdown: CountdownConfig = CountdownConfig()


class Countdown(tfds.core.GeneratorBasedBuilder):
  """Countdown problems with worked solutions: warmstart, train and heldout never overlap."""

  VERSION = tfds.core.Version('1.0.0')  # raise it when other problems are generated
  RELEASE_NOTES = {'1.0.0': 'First version.'}

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      disable_shuffling=True,  # the order is the generator's
      features=tfds.features.FeaturesDict(
        {
          'id': text,
          'prompt': text,
          'answer': text,
          'solution': text,
          'numbers': tfds.features.Sequence(np.int32),
          'target': np.int32,
        }
      ),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # nothing is downloaded
    return {split: self._generate_examples(split) for split in countdown.SPLITS}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    problems = countdown.generate_problems(self.builder_config.countdown, split)
    for index, problem in enumerate(problems):
      row = {
        'id': problem.id,
        'prompt': problem.prompt,
        'answer': problem.answer,
        'solution': problem.solution,
        **problem.metadata,
      }
      yield index, row


def config_name(config: CountdownConfig) -> str:
  """The folder of a config: readable in front, a hash of all fields behind."""
  fields = json.dumps(dataclasses.asdict(config), sort_keys=True)
  digest = hashlib.sha256(fields.encode()).hexdigest()[:8]
  return f'n{config.num_numbers}_1to{config.max_number}_{digest}'


def prepare(config: CountdownConfig, data_dir: str | os.PathLike[str]) -> Countdown:
  """Builds the files under `data_dir` unless they are there, and returns their builder.

  Raises:
    InputError: if the config is out of range or admits too few problems, or `data_dir` cannot be
      written.
  """

  def make_builder(data_dir: str) -> Countdown:
    return Countdown(
      data_dir=data_dir,
      file_format='array_record',
      config=CountdownBuilderConfig(name=config_name(config), countdown=config),
    )

  version = str(Countdown.VERSION)
  folder = epath.Path(data_dir) / 'countdown' / config_name(config) / version
  where = f'the Countdown problems under data_dir {str(data_dir)!r}'
  with named_write_errors(where, 'set data.data_dir to another folder'):
    if not is_built(folder):
      build(make_builder, folder)
  with quiet_tfds():
    return make_builder(os.fspath(data_dir))


def read_problem(row: Mapping[str, Any]) -> Problem:
  """The Problem of one row of the builder's data source."""
  numbers = tuple(map(int, row['numbers']))
  return Problem(
    id=row['id'].decode(),
    prompt=row['prompt'].decode(),
    answer=row['answer'].decode(),
    solution=row['solution'].decode(),
    metadata={'numbers': numbers, 'target': int(row['target'])},
  )
