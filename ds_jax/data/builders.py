"""Problem sets as TensorFlow Datasets: array_record files, without TensorFlow.

`write_problems` builds DATA_DIR/NAME/1.0.0 once; the source `tfds:NAME` reads it. The files are
built in a temporary folder on this machine and copied, dataset_info.json last: array_record writes
and reads local files only, and tfds renames folders, which a mounted bucket may refuse.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from ds_jax.checks import InputError
from ds_jax.data.layouts import as_text
from ds_jax.types import Problem

VERSION = '1.0.0'  # of the layout: raise it when rows get other fields
_LAST_FILE = 'dataset_info.json'  # without it a folder is no data set
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
    *,
    report: Mapping[str, Any],
    **fields: Any,
  ):
    self.name = name
    self._split = split
    self._problems = problems
    self._report = dict(report)
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
  difficulty = _first_known(problem, 'extra_info.difficulty', 'difficulty')
  if not isinstance(difficulty, int | float) or not np.isfinite(difficulty):
    difficulty = UNKNOWN_DIFFICULTY
  source = _first_known(problem, 'source', 'data_source')
  topic = _first_known(problem, 'extra_info.topic', 'topic', 'subject')
  return {
    'id': problem.id,
    'problem': as_text(problem),
    'answer': problem.answer,
    'source': str(source or ''),
    'topic': str(topic or ''),
    'difficulty': np.float32(difficulty),
  }


def _first_known(problem: Problem, *names: str) -> Any:
  """The metadata under the first of some names that is there; None if none is."""
  for name in names:
    if name in problem.metadata:
      return problem.metadata[name]
  return None


def write_problems(
  name: str,
  split: str,
  problems: Sequence[Problem],
  *,
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

  def make_builder(data_dir: str) -> ProblemSet:
    return ProblemSet(
      name, split, problems, report=report, data_dir=data_dir, file_format='array_record'
    )

  where = f'{name} under {str(data_dir)!r}'
  with named_write_errors(where, 'choose another --data_dir'):
    if is_built(folder):
      _check_same(folder, report['fingerprint'])
      return folder, False
    build(make_builder, folder)
  return folder, True


def is_built(folder: epath.Path) -> bool:
  """Whether a folder holds a whole data set."""
  return (folder / _LAST_FILE).exists()


def build(make_builder: Callable[[str], tfds.core.DatasetBuilder], folder: epath.Path) -> None:
  """Builds a data set on this machine's own disk and copies its files to a folder.

  Args:
    make_builder: makes the builder, given the folder of its data sets.
    folder: where the files are to be.

  Raises:
    OSError, RuntimeError: it could not be written; what was copied is removed.
  """
  with tempfile.TemporaryDirectory(prefix='ds_jax_data_') as local_dir:
    with quiet_tfds():
      builder = make_builder(local_dir)
      builder.download_and_prepare()
    copy_files(epath.Path(builder.data_dir), folder)


@contextlib.contextmanager
def named_write_errors(what: str, other_folder: str) -> Iterator[None]:
  """Turns the errors of a full disk or a forbidden folder into InputError.

  Args:
    what: is written, and where.
    other_folder: how to choose another one.
  """
  try:
    yield
  except (OSError, RuntimeError) as e:
    # On a full disk array_record raises RuntimeError, as many a defect does.
    if isinstance(e, RuntimeError) and 'writing' not in str(e):
      raise
    raise InputError(f'Cannot write {what}: {e}; free some space, or {other_folder}.') from e


def _check_same(folder: epath.Path, expected_fingerprint: str) -> None:
  """Raises InputError if other problems are in a folder."""
  if read_report(folder).get('fingerprint') != expected_fingerprint:
    raise InputError(
      f'{folder} holds other problems; remove the folder to build it again, or '
      'choose another --data_dir or --name.'
    )


def read_report(folder: epath.Path) -> dict[str, Any]:
  """Reads what was kept beside the problems of a data set; {} if nothing was."""
  path = folder / 'metadata.json'
  if not path.exists():
    return {}
  return json.loads(path.read_text())


def fingerprint(problems: Sequence[Problem]) -> str:
  """A digest of the problems, their answers and ids, in order."""
  digest = hashlib.sha256()
  for problem in problems:
    digest.update(json.dumps([problem.id, as_text(problem), problem.answer]).encode())
  return digest.hexdigest()[:16]


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether this names a bucket."""
  return '://' in os.fspath(path)


def local_folder(folder: epath.Path) -> str:
  """The folder itself, or a copy of one in a bucket that lives as long as this process."""
  if is_remote(folder):
    return _local_copy(os.fspath(folder))
  return os.fspath(folder)


@functools.cache
def _local_copy(folder: str) -> str:
  temporary = tempfile.TemporaryDirectory(prefix='ds_jax_data_')
  atexit.register(temporary.cleanup)
  source = epath.Path(folder)
  # tfds reads the data set's name and version off the path.
  target = epath.Path(temporary.name) / source.parent.name / source.name
  copy_files(source, target)
  return os.fspath(target)


def copy_files(source: epath.Path, target: epath.Path) -> None:
  """Copies the files of a folder; dataset_info.json, which makes it a data set, comes last.

  Each copy is written under a name of its own and renamed: another process may copy the same
  files, and a third read them.
  """
  target.mkdir(parents=True, exist_ok=True)
  copied = []
  try:
    for path in sorted(source.iterdir(), key=lambda path: path.name == _LAST_FILE):
      copied.append(target / f'{path.name}.{os.getpid()}')
      copied[-1].write_bytes(path.read_bytes())
      copied[-1] = copied[-1].replace(target / path.name)
  except BaseException:
    for copy in copied:
      copy.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
  """Keeps tfds's bars, prints and warnings away from the run's progress and standard output."""
  tfds.disable_progress_bar()
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)
