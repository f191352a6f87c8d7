"""Problem sets as TensorFlow Datasets: array_record files, without TensorFlow.

`write_problems` builds DATA_DIR/NAME/1.0.0 once (tfds fills a temporary folder and renames it when
it is complete); the source `tfds:NAME` reads it. A bucket gets the files of a folder that was built
here, because array_record writes and reads local files only.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from ds_jax.checks import InputError
from ds_jax.types import Problem

VERSION = '1.0.0'  # of the layout: raise it when rows get other fields
UNKNOWN_DIFFICULTY = -1.0  # as in DeepMath


class ProblemSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Questions with gold answers; one class serves all sets, since they differ in content alone."""

  VERSION = tfds.core.Version(VERSION)
  RELEASE_NOTES = {'1.0.0': 'First version.'}

  def __init__(
    self,
    name: str,
    split: str,
    problems: Sequence[Problem],
    report: Mapping[str, Any],
    **fields: Any,
  ):
    self.name = name
    self._split, self._problems, self._report = split, problems, dict(report)
    super().__init__(**fields)

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'Problems of {self.name}, as `ds-jax data prepare` found them.',
      disable_shuffling=True,  # the order is the file's; the curriculum shuffles by key
      metadata=tfds.core.MetadataDict(self._report),
      features=tfds.features.FeaturesDict(
        {
          'id': text,
          'problem': text,
          'answer': text,
          'source': text,
          'topic': text,
          'difficulty': np.float32,
        }
      ),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # nothing is downloaded
    return {self._split: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from enumerate(map(row_of, self._problems))


def row_of(problem: Problem) -> dict[str, Any]:
  """The row of a problem as it is written."""
  found = lambda *names: next((problem.metadata[n] for n in names if n in problem.metadata), None)
  difficulty = found('extra_info.difficulty', 'difficulty')
  is_number = isinstance(difficulty, int | float) and np.isfinite(difficulty)
  return {
    'id': problem.id,
    'problem': problem.prompt,
    'answer': problem.answer,
    'source': str(found('source', 'data_source') or ''),
    'topic': str(found('extra_info.topic', 'topic', 'subject') or ''),
    'difficulty': np.float32(difficulty if is_number else UNKNOWN_DIFFICULTY),
  }


def write_problems(
  name: str,
  split: str,
  problems: Sequence[Problem],
  report: Mapping[str, Any],
  data_dir: str | os.PathLike[str],
) -> tuple[epath.Path, bool]:
  """Writes DATA_DIR/NAME/1.0.0 unless the same problems are there.

  Args:
    name: of the data set.
    split: of the problems, e.g. 'train'.
    problems: in order, unique ids.
    report: plain values that are kept beside the problems, as metadata.
    data_dir: a local folder or gs://….

  Returns:
    The folder, and whether it was written now.

  Raises:
    InputError: if other problems are there, or the folder cannot be written.
  """
  folder = epath.Path(data_dir) / name / VERSION
  report = {'fingerprint': fingerprint(problems), **report}
  try:
    if (folder / 'dataset_info.json').exists():
      _check_same(folder, report['fingerprint'])
      return folder, False
    if is_remote(data_dir):
      with tempfile.TemporaryDirectory() as local:
        built = _build(name, split, problems, report, local)
        copy_files(epath.Path(built), folder)
    else:
      _build(name, split, problems, report, os.fspath(data_dir))
  except (OSError, RuntimeError) as e:
    if isinstance(e, RuntimeError) and 'writing' not in str(e):  # array_record on a full disk
      raise
    raise InputError(
      f'Cannot write {name} under {str(data_dir)!r}: {e}; free some space, or '
      'choose another --data_dir.'
    ) from e
  return folder, True


def _build(
  name: str, split: str, problems: Sequence[Problem], report: Mapping[str, Any], data_dir: str
) -> str:
  with quiet_tfds():
    builder = ProblemSet(
      name, split, problems, report, data_dir=data_dir, file_format='array_record'
    )
    builder.download_and_prepare()
  return os.fspath(builder.data_dir)


def _check_same(folder: epath.Path, ours: str) -> None:
  if read_report(folder).get('fingerprint') != ours:
    raise InputError(
      f'{folder} holds other problems; remove the folder to build it again, or '
      'choose another --data_dir or --name.'
    )


def read_report(folder: epath.Path) -> dict[str, Any]:
  """What was kept beside the problems of a data set; {} if nothing was."""
  path = folder / 'metadata.json'
  return json.loads(path.read_text()) if path.exists() else {}


def fingerprint(problems: Sequence[Problem]) -> str:
  """Changes with the problems, their answers, ids or order."""
  digest = hashlib.sha256()
  for problem in problems:
    digest.update(json.dumps([problem.id, problem.prompt, problem.answer]).encode())
  return digest.hexdigest()[:16]


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether this names a bucket."""
  return '://' in os.fspath(path)


def local_folder(folder: epath.Path) -> str:
  """The folder itself, or a copy that lives as long as this process if it lies in a bucket."""
  return _local_copy(os.fspath(folder)) if is_remote(folder) else os.fspath(folder)


@functools.cache
def _local_copy(folder: str) -> str:
  copy = tempfile.TemporaryDirectory(prefix='ds_jax_data_')
  atexit.register(copy.cleanup)
  source = epath.Path(folder)
  target = epath.Path(copy.name) / source.parent.name / source.name  # tfds reads names off the path
  copy_files(source, target)
  return os.fspath(target)


def copy_files(source: epath.Path, target: epath.Path) -> None:
  """Copies the files of a folder; dataset_info.json, which makes it a data set, comes last."""
  target.mkdir(parents=True, exist_ok=True)
  is_mark = lambda path: path.name == 'dataset_info.json'
  for path in sorted(source.iterdir(), key=is_mark):
    (target / path.name).write_bytes(path.read_bytes())


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
  """Keeps tfds's bars, prints and warnings away from our progress and from standard output."""
  tfds.disable_progress_bar()
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)
