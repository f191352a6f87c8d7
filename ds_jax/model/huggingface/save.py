"""Our decoder -> a Hugging Face checkpoint folder, tensor by tensor."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import InputError
from ds_jax.hub import local_folder
from ds_jax.model.decoder import Decoder
from ds_jax.model.huggingface import layout
from ds_jax.model.huggingface.config import (
  UNFINISHED,
  config_to_hf,
  decoder_fields,
  read_fields,
)
from ds_jax.model.huggingface.tensors import MAX_FILE_BYTES, write_tensors

# Fields of the original's config.json that say nothing about the decoder but belong to the model.
_FIELDS_OF_THE_ORIGINAL = ('bos_token_id', 'initializer_range')


def save_decoder(
  decoder: Decoder,
  folder: str | os.PathLike[str],
  *,
  stop_ids: tuple[int, ...],
  pad_id: int,
  dtype: str = 'float32',
  original: str | os.PathLike[str] | None = None,
  add_files: Callable[[pathlib.Path], Any] = lambda folder: None,
  max_file_bytes: int = MAX_FILE_BYTES,
) -> list[str]:
  """Writes a Hugging Face checkpoint folder that transformers and vLLM load.

  The files are written in their place and nothing is renamed, so that the folder may be a mount
  point, or lie where folders cannot be renamed. config.json, without which it is no model, comes
  last; until then a file named UNFINISHED tells why it is missing.

  Args:
    decoder: the parameters.
    folder: where; it must not exist, or be empty.
    stop_ids: ids that end a response. pad_id: the padding id.
    dtype: of the parameters written, 'float32' or 'bfloat16'.
    original: folder of the model it was trained from, whose fields beside the decoder's are kept.
    add_files: called with the unfinished folder, to add the tokenizer.
    max_file_bytes: of one file of tensors; more make several files and an index.

  Returns:
    Names of the files.

  Raises:
    InputError: there is something in `folder`.
    OSError: it could not be written; nothing is left of it.
  """
  folder = pathlib.Path(folder).expanduser()
  with unfinished(folder):
    _write_parameters(decoder, folder, jnp.dtype(dtype), max_file_bytes=max_file_bytes)
    fields = config_to_hf(decoder.config, stop_ids, pad_id, dtype=dtype)
    theirs = decoder_fields(read_fields(local_folder(original))) if original else {}
    fields |= {name: theirs[name] for name in _FIELDS_OF_THE_ORIGINAL if name in theirs}
    add_files(folder)
    _complete_generation_config(folder / 'generation_config.json', stop_ids, pad_id)
    sync_files(folder)
    write_json(folder / 'config.json', fields)
    _sync(folder / 'config.json')
  return sorted(file.name for file in _entries(folder))


def is_whole(folder: pathlib.Path) -> bool:
  """Whether a folder holds a model, config.json included."""
  return (folder / 'config.json').is_file()


def remove_half_written(folder: pathlib.Path) -> None:
  """Removes a folder of ours in which a killed process left half of a model."""
  if (folder / UNFINISHED).exists() and not is_whole(folder):
    shutil.rmtree(folder)


def check_output(folder: pathlib.Path, others: Mapping[str, pathlib.Path]) -> None:
  """Checks that a model may be written to a folder.

  Args:
    folder: where.
    others: folders with a name for each, into which nothing may be written.

  Raises:
    InputError: if there is something in it, or it lies in one of the others.
  """
  for name, other in others.items():
    if folder.resolve().is_relative_to(other.resolve()):
      raise InputError(f'{folder} lies in {name}, {other}; choose another --output.')
  check_free(folder)


def check_free(folder: pathlib.Path) -> None:
  """Raises InputError if there is anything in a folder that is to be written."""
  if (folder / UNFINISHED).exists() and not is_whole(folder):
    raise InputError(
      f'{folder} holds half a model: a command that wrote it was stopped, or is writing it now. '
      'Remove it, or choose another --output.'
    )
  if folder.exists() and (not folder.is_dir() or _entries(folder)):
    raise InputError(f'{folder} exists already; choose another --output, or remove it.')


@contextlib.contextmanager
def unfinished(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder, and marks it while it is filled; if that fails, all of it is taken back."""
  check_free(folder)
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  try:
    with (folder / UNFINISHED).open('x') as file:
      file.write(
        'ds-jax writes a model here, or was stopped while it did; config.json comes last.\n'
      )
    yield
    (folder / UNFINISHED).unlink()
  except BaseException:
    for entry in _entries(folder):
      with contextlib.suppress(OSError):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for path in missing:
      with contextlib.suppress(OSError):
        path.rmdir()
    raise


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
  """What is in a folder, besides what a new file system brings along."""
  return [path for path in folder.iterdir() if path.name != 'lost+found']


def sync_files(folder: pathlib.Path) -> None:
  """Waits until all files of a folder are on the disk."""
  for file in folder.rglob('*'):
    if file.is_file():
      _sync(file)


def _sync(file: pathlib.Path) -> None:
  """Waits until a file is on the disk: network file systems tell only then that it is full."""
  descriptor = os.open(file, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _write_parameters(
  decoder: Decoder, folder: pathlib.Path, dtype: np.dtype, *, max_file_bytes: int
) -> None:
  parameters = list(layout.all_parameters(decoder))
  plan = [entry for parameter in parameters for entry in parameter.entries]

  def tensors() -> Iterator[np.ndarray]:
    """All of the plan, in order; one parameter at a time is fetched from the devices."""
    for parameter in parameters:
      array = np.asarray(jax.device_get(parameter.leaf))
      layers = array if layout.is_stacked(parameter.name) else [array]
      for layer, entry in zip(layers, parameter.entries, strict=True):
        yield layout.to_file(parameter.name, layer.astype(dtype, copy=False), entry)

  write_tensors(folder, plan, tensors(), dtype=dtype, max_file_bytes=max_file_bytes)


def _complete_generation_config(file: pathlib.Path, stop_ids: tuple[int, ...], pad_id: int) -> None:
  """Adds the ids that end and pad a response to what the original asks for."""
  fields = json.loads(file.read_text()) if file.exists() else {'do_sample': True}
  write_json(file, fields | {'eos_token_id': list(stop_ids), 'pad_token_id': pad_id})


def write_json(file: pathlib.Path, fields: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(fields, indent=2) + '\n')
