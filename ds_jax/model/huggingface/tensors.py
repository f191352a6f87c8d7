"""Safetensors files of a checkpoint folder: one, or several with an index."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.checks import InputError
from ds_jax.model.huggingface.layout import Entry

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
MAX_FILE_BYTES = 4 * 10**9

_FLOATS = ('F32', 'BF16', 'F16', 'F64')


class Stored(NamedTuple):
  """What a folder says of one tensor."""

  file: pathlib.Path
  shape: tuple[int, ...]
  dtype: str  # safetensors' name, e.g. 'BF16'

  @property
  def is_float(self) -> bool:
    return self.dtype in _FLOATS


def list_tensors(folder: pathlib.Path) -> dict[str, Stored]:
  """Every tensor of the folder's checkpoint by name; nothing but headers is read.

  Raises:
    InputError: there is no checkpoint, a shard is missing or a file is broken.
  """
  weight_map = _weight_map(folder)
  if not weight_map and not (folder / SINGLE).is_file():
    raise InputError(
      f'{folder} has no {SINGLE} and no {INDEX}; expected a checkpoint in safetensors.'
    )
  stored = {}
  for file in sorted(set(weight_map.values())) or [SINGLE]:
    if not (folder / file).is_file():
      raise InputError(f'{folder} lacks {file}, named by {INDEX}; copy it, too.')
    with _open(folder / file) as handle:
      for name in handle.keys():
        if not weight_map or weight_map.get(name) == file:
          part = handle.get_slice(name)
          stored[name] = Stored(folder / file, tuple(part.get_shape()), part.get_dtype())
  return stored


def _weight_map(folder: pathlib.Path) -> dict[str, str]:
  """Tensor -> file of the index; empty without one."""
  if not (folder / INDEX).is_file():
    return {}
  try:
    weight_map = json.loads((folder / INDEX).read_text())['weight_map']
    if not all(pathlib.PurePath(file).name == file for file in weight_map.values()):
      raise ValueError('a file outside the folder')
    return dict(weight_map)
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise InputError(
      f'{folder / INDEX} is no index of safetensors files ({e}); copy it again.'
    ) from e


@contextlib.contextmanager
def open_tensor(stored: Stored, name: str) -> Iterator[Any]:
  """The tensor, sliceable. The file is mapped while open: its pages count as memory until then."""
  with _open(stored.file) as handle:
    yield handle.get_slice(name)


def _open(file: pathlib.Path) -> Any:
  from safetensors import SafetensorError, safe_open

  try:
    return safe_open(file, framework='numpy')
  except (SafetensorError, OSError) as e:
    raise InputError(f'{file} cannot be read as safetensors ({e}); copy it again.') from e


def write_tensors(
  folder: pathlib.Path,
  plan: Sequence[Entry],
  tensors: Iterable[np.ndarray],
  *,
  dtype: Any,
  max_file_bytes: int,
) -> list[str]:
  """Writes tensors in the order of `plan`, over several files if they exceed `max_file_bytes`.

  Args:
    folder: where.
    plan: names and shapes of all tensors.
    tensors: those of the plan, in order; no more than one file's are held.
    dtype: of the numbers written.
    max_file_bytes: of the tensors in one file; a larger tensor has a file of its own.

  Returns:
    Names of the files, the index included.

  Raises:
    OSError: they could not be written, e.g. the disk is full.
  """
  itemsize, tensors = np.dtype(dtype).itemsize, iter(tensors)
  shards = _split(plan, max_file_bytes // itemsize)
  files, weight_map = [SINGLE], {}
  if len(shards) > 1:
    files = [f'model-{i + 1:05d}-of-{len(shards):05d}.safetensors' for i in range(len(shards))]
  for file, shard in zip(files, shards, strict=True):
    _save(folder / file, {entry.name: next(tensors) for entry in shard})
    weight_map |= {entry.name: file for entry in shard}
  if len(shards) > 1:
    total_size = sum(math.prod(entry.shape) for entry in plan) * itemsize
    index = {'metadata': {'total_size': total_size}, 'weight_map': weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + '\n')
    files.append(INDEX)
  return files


def _split(plan: Sequence[Entry], max_numbers: int) -> list[list[Entry]]:
  """The plan in runs of at most so many numbers; a larger tensor is a run of its own."""
  runs: list[list[Entry]] = [[]]
  used = 0
  for entry in plan:
    size = math.prod(entry.shape)
    if runs[-1] and used + size > max_numbers:
      runs.append([])
      used = 0
    runs[-1].append(entry)
    used += size
  return runs


def _save(file: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  from safetensors import SafetensorError
  from safetensors.numpy import save_file

  try:
    save_file(dict(tensors), file, metadata={'format': 'pt'})
  except SafetensorError as e:  # it wraps the system's errors in its own
    raise OSError(errno.EIO, f'could not be written ({e})', str(file)) from e
  file.chmod(file.parent.stat().st_mode & 0o666)  # save_file lets nobody else read it
