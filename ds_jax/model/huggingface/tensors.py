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

ADAPTER_CONFIG = 'adapter_config.json'

_FLOATS = ('F32', 'BF16', 'F16', 'F64')

# Other files with weights, and what to do about a folder that has nothing else.
_OTHER_WEIGHTS = {
  'model-*-of-*.safetensors': f'{INDEX}, which belongs to them, is missing; copy it, too.',
  'model.*.safetensors': f'If these are the weights that you want, rename the file to {SINGLE}.',
  'consolidated*': 'These are for another program; use the folder for transformers.',
  '*.gguf': (
    'Read it with transformers (from_pretrained with gguf_file=, dequantised) and save the model '
    'and its tokenizer with save_pretrained.'
  ),
  'pytorch_model*': (
    'Pickled weights can run code and are not read; load the model with transformers, where you '
    'trust it, and save it with save_pretrained.'
  ),
  '*.bin': 'Save the model with save_pretrained of transformers.',
  '*.pt*': 'Save the model with save_pretrained of transformers.',
  '*.h5': 'Save the model with save_pretrained of transformers.',
  '*.msgpack': 'Save the model with save_pretrained of transformers.',
}

_GIT_LFS = b'version https://git-lfs'


class Stored(NamedTuple):
  """What a folder says of one tensor."""

  file: pathlib.Path
  name: str  # in the file
  shape: tuple[int, ...]
  dtype: str  # safetensors' name, e.g. 'BF16'

  @property
  def is_float(self) -> bool:
    return self.dtype in _FLOATS


def list_tensors(folder: pathlib.Path) -> dict[str, Stored]:
  """Every tensor of the folder's checkpoint by name; nothing but headers is read.

  As in transformers, `model.safetensors` goes before an index: it may have been written into a
  folder that had shards. Of shards all tensors count, also those that the index does not name.

  Raises:
    InputError: there is no checkpoint, a shard is missing, a file is broken, two hold the same
      tensor, or the weights are those of an adapter.
  """
  if (folder / ADAPTER_CONFIG).is_file():
    raise InputError(
      f'{folder} holds {ADAPTER_CONFIG}: transformers would load the adapter onto the model that '
      'it names. Merge them (merge_and_unload of peft) and save the result in a folder of its own; '
      f'if this is the merged model, remove {ADAPTER_CONFIG}.'
    )
  stored: dict[str, Stored] = {}
  for file in _weight_files(folder):
    with _open(file) as handle:
      for name in handle.keys():
        if name in stored:
          raise InputError(
            f'{stored[name].file} and {file.name} both hold {name}; copy the whole model again, '
            'into an empty folder.'
          )
        part = handle.get_slice(name)
        stored[name] = Stored(file, name, tuple(part.get_shape()), part.get_dtype())
  return stored


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files that transformers would read."""
  if (folder / SINGLE).is_file():
    return [folder / SINGLE]
  if not (folder / INDEX).is_file():
    raise InputError(_no_weights(folder))
  names = _indexed_files(folder / INDEX)
  missing = [name for name in names if not (folder / name).is_file()]
  if missing:
    raise InputError(f'{folder} lacks {", ".join(missing)}, named by {INDEX}; copy it, too.')
  return [folder / name for name in names]


def _indexed_files(index: pathlib.Path) -> list[str]:
  """Names of the files that an index lists."""
  try:
    weight_map = json.loads(index.read_text(encoding='utf-8'))['weight_map']
    names = sorted(set(weight_map.values()))
    if not names:
      raise ValueError('it names no file')
    if not all(pathlib.PurePath(name).name == name for name in names):
      raise ValueError('a file outside the folder')
    return names
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise InputError(f'{index} is no index of safetensors files ({e}); copy it again.') from e


def _no_weights(folder: pathlib.Path) -> str:
  """What to say of a folder without weights in safetensors."""
  for name in (SINGLE, INDEX):
    if (folder / name).is_symlink():
      return f'{folder / name} is a link to a file that is not there; copy the model again.'
  message = f'{folder} has no {SINGLE} and no {INDEX}; expected a checkpoint in safetensors.'
  for pattern, remedy in _OTHER_WEIGHTS.items():
    names = sorted(path.name for path in folder.glob(pattern))
    if names:
      return f'{message} It holds {names[0]}. {remedy}'
  return message


@contextlib.contextmanager
def open_tensor(stored: Stored) -> Iterator[Any]:
  """The tensor, sliceable. The file is mapped while open: its pages count as memory until then."""
  with _open(stored.file) as handle:
    yield handle.get_slice(stored.name)


def _open(file: pathlib.Path) -> Any:
  from safetensors import SafetensorError, safe_open

  try:
    return safe_open(file, framework='numpy')
  except (SafetensorError, OSError) as e:
    if _is_lfs_pointer(file):
      raise InputError(
        f'{file} is what Git keeps in place of the weights; run `git lfs pull` in the folder that '
        'it was copied from.'
      ) from e
    raise InputError(f'{file} cannot be read as safetensors ({e}); copy it again.') from e


def _is_lfs_pointer(file: pathlib.Path) -> bool:
  try:
    with file.open('rb') as opened:
      return opened.read(len(_GIT_LFS)) == _GIT_LFS
  except OSError:
    return False


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
    write_file(folder / file, {entry.name: next(tensors) for entry in shard})
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


def write_file(file: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes one file of tensors; OSError if that fails."""
  from safetensors import SafetensorError
  from safetensors.numpy import save_file

  try:
    save_file(dict(tensors), file, metadata={'format': 'pt'})
  except SafetensorError as e:  # it wraps the system's errors in its own
    raise OSError(errno.EIO, f'could not be written ({e})', str(file)) from e
  file.chmod(file.parent.stat().st_mode & 0o666)  # save_file lets nobody else read it
