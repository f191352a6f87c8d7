"""Our decoder -> a Hugging Face checkpoint folder, tensor by tensor."""

from __future__ import annotations

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
from ds_jax.model.huggingface.config import config_to_hf, read_fields
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

  Written beside its place and renamed, so that no half-written folder bears the final name.

  Args:
    decoder: the parameters.
    folder: where; an earlier checkpoint there is replaced, anything else is left alone.
    stop_ids: ids that end a response. pad_id: the padding id.
    dtype: of the parameters written, 'float32' or 'bfloat16'.
    original: folder of the model it was trained from, whose fields beside the decoder's are kept.
    add_files: called with the unfinished folder, to add the tokenizer.
    max_file_bytes: of one file of tensors; more make several files and an index.

  Returns:
    Names of the files.

  Raises:
    InputError: `folder` exists and is no checkpoint.
    OSError: it could not be written; nothing is left of it.
  """
  folder = pathlib.Path(folder).expanduser()
  check_replaceable(folder)
  unfinished = folder.with_name(folder.name + '.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  unfinished.mkdir(parents=True)
  try:
    _write_parameters(decoder, unfinished, jnp.dtype(dtype), max_file_bytes=max_file_bytes)
    fields = config_to_hf(decoder.config, stop_ids, pad_id, dtype=dtype)
    theirs = read_fields(local_folder(original)) if original else {}
    fields |= {name: theirs[name] for name in _FIELDS_OF_THE_ORIGINAL if name in theirs}
    _write_json(unfinished / 'config.json', fields)
    add_files(unfinished)
    _complete_generation_config(unfinished / 'generation_config.json', stop_ids, pad_id)
  except BaseException:
    shutil.rmtree(unfinished, ignore_errors=True)
    raise
  replaced = folder.with_name(folder.name + '.replaced')
  shutil.rmtree(replaced, ignore_errors=True)
  if folder.exists():
    folder.rename(replaced)
  unfinished.rename(folder)
  shutil.rmtree(replaced, ignore_errors=True)
  return sorted(path.name for path in folder.iterdir())


def check_replaceable(folder: pathlib.Path) -> None:
  """Raises InputError if `folder` holds anything but a checkpoint."""
  if not folder.exists() or (folder / 'config.json').is_file():
    return
  if not folder.is_dir() or any(folder.iterdir()):
    raise InputError(f'{folder} exists and is no checkpoint folder; choose another --output.')


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
  _write_json(file, fields | {'eos_token_id': list(stop_ids), 'pad_token_id': pad_id})


def _write_json(file: pathlib.Path, fields: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(fields, indent=2) + '\n')
