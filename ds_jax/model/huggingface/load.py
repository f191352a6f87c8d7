"""Hugging Face folders <-> our decoder: `config.json` and safetensors, tensor by tensor."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.hub import local_folder
from ds_jax.model.config import DecoderConfig, config_from_hf, config_to_hf
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.model.huggingface import layout
from ds_jax.model.huggingface.tensors import (
  MAX_FILE_BYTES,
  Stored,
  list_tensors,
  open_tensor,
  write_tensors,
)

# Fields of the original's config.json that say nothing about the decoder but belong to the model.
_KEPT_FIELDS = ('bos_token_id', 'initializer_range')


def load_decoder(
  folder: str | os.PathLike[str],
  *,
  num_ids: int | None = None,
  mesh: Mesh | None = None,
  dtype: str = 'float32',
  for_search: bool = False,
  **overrides: Any,
) -> Decoder:
  """Loads a checkpoint onto the mesh.

  Every process reads the parts of its own devices, one parameter at a time, the largest tensors
  first: while they are copied, memory is still empty.

  Args:
    folder: holds `config.json` and `model.safetensors` (or its shards and index), or the name of
      such a model on the Hugging Face hub.
    num_ids: ids of the tokenizer; None: as many as the embedding has rows.
    mesh: where parameters go; None: the default device.
    dtype: of the parameters, 'float32' or 'bfloat16'.
    for_search: in the form that the search reads (whole over fsdp), not the training form.
    **overrides: fields of DecoderConfig, e.g. compute_dtype.

  Raises:
    InputError: if the folder or a file is missing, the config is unsupported, or tensors are
      missing, unknown or mis-shaped (all listed together).
  """
  folder = local_folder(folder)
  config = dataclasses.replace(read_config(folder, num_ids), **overrides)
  abstract = abstract_decoder(config)
  stored = list_tensors(folder)
  _check_tensors(abstract, stored, folder)
  mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
  shardings = jax.tree.leaves(sharding.parameter_shardings(abstract, mesh, search=for_search))
  parameters = list(layout.all_entries(abstract))
  leaves: list[Any] = [None] * len(parameters)
  size = lambda i: (np.prod(parameters[i][2][0].shape), parameters[i][1].size)
  for i in sorted(range(len(parameters)), key=size, reverse=True):
    name, leaf, entries = parameters[i]
    leaves[i] = _load_parameter(name, leaf.shape, entries, stored, shardings[i], jnp.dtype(dtype))
  return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _load_parameter(
  name: str,
  shape: tuple[int, ...],
  entries: list[layout.Entry],
  stored: Mapping[str, Stored],
  target: jax.sharding.Sharding,
  dtype: np.dtype,
) -> jax.Array:
  parts: dict[Any, np.ndarray] = {}  # replicas are read once

  def read(index: tuple[slice, ...]) -> np.ndarray:
    ranges = tuple(range(size)[part] for part, size in zip(index, shape, strict=True))
    if ranges not in parts:
      parts[ranges] = out = _aligned([len(r) for r in ranges], dtype)
      part = [slice(r.start, r.stop) for r in ranges]
      layers = out if layout.is_stacked(name) else [out]  # L is never split
      own = 1 if layout.is_stacked(name) else 0
      for layer, entry in zip(layers, entries, strict=True):
        with open_tensor(stored[entry.name], entry.name) as tensor:
          layout.read_part(name, tensor, shape[own:], part[own:], layer)
    return parts[ranges]

  return jax.make_array_from_callback(shape, target, read)


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
  """An uninitialised array at an address that jax, on CPU, takes over without a copy."""
  num_bytes, alignment = int(np.prod(shape)) * dtype.itemsize, 64
  raw = np.empty(num_bytes + alignment, np.uint8)
  start = -raw.ctypes.data % alignment
  return raw[start : start + num_bytes].view(dtype).reshape(shape)


def read_config(folder: str | os.PathLike[str], num_ids: int | None = None) -> DecoderConfig:
  """Reads `config.json` of a checkpoint folder; InputError if there is none."""
  return config_from_hf(_read_fields(local_folder(folder)), num_ids)


def _read_fields(folder: pathlib.Path) -> dict[str, Any]:
  if not folder.is_dir():
    raise InputError(
      f'No checkpoint folder {str(folder)!r}; expected a folder with config.json, '
      'model.safetensors and tokenizer.json, or a name on the hub like '
      'Qwen/Qwen2.5-1.5B. `ds-jax warmstart` or `ds-jax init` writes a folder.'
    )
  try:
    fields = json.loads((folder / 'config.json').read_text())
  except FileNotFoundError as e:
    raise InputError(f'{folder} has no config.json; expected a Hugging Face checkpoint.') from e
  except ValueError as e:
    raise InputError(f'{folder}/config.json is not valid JSON: {e}.') from e
  if not isinstance(fields, dict):
    raise InputError(f'{folder}/config.json is not a JSON object.')
  return fields


def _check_tensors(abstract: Decoder, stored: Mapping[str, Stored], folder: pathlib.Path) -> None:
  expected = {e.name: e.shape for _, _, found in layout.all_entries(abstract) for e in found}
  unknown = set(stored) - set(expected)
  if abstract.config.tie_embeddings:
    unknown.discard(layout.PLACES['head'].name)  # some writers store the tied head as well
  # Early Llama conversions store the frequencies, which follow from the config.
  unknown = {name for name in unknown if not name.endswith('rotary_emb.inv_freq')}
  faults = [f'missing {n} {shape}' for n, shape in expected.items() if n not in stored]
  faults += [f'unknown {n} {stored[n].shape}' for n in sorted(unknown)]
  faults += [
    f'{n}: expected {shape}, got {stored[n].shape}'
    for n, shape in expected.items()
    if n in stored and stored[n].shape != shape
  ]
  faults += [
    f'{n}: expected floats, got {stored[n].dtype}'
    for n in expected
    if n in stored and not stored[n].is_float
  ]
  if faults:
    shown = '; '.join(faults[:20]) + (f'; and {len(faults) - 20} more' if len(faults) > 20 else '')
    raise InputError(f'Tensors in {folder} do not fit its config.json: {shown}.')


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
    _write_parameters(decoder, unfinished, jnp.dtype(dtype), max_file_bytes)
    fields = config_to_hf(decoder.config, stop_ids, pad_id, dtype)
    theirs = _read_fields(local_folder(original)) if original else {}
    fields |= {name: theirs[name] for name in _KEPT_FIELDS if name in theirs}
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
  if (
    folder.exists()
    and not (folder / 'config.json').is_file()
    and (not folder.is_dir() or any(folder.iterdir()))
  ):
    raise InputError(f'{folder} exists and is no checkpoint folder; choose another --output.')


def _write_parameters(
  decoder: Decoder, folder: pathlib.Path, dtype: np.dtype, max_file_bytes: int
) -> None:
  parameters = list(layout.all_entries(decoder))
  where = {
    entry.name: (p, i)
    for p, (_, _, entries) in enumerate(parameters)
    for i, entry in enumerate(entries)
  }
  fetched: tuple[int, Any] = (-1, None)  # one parameter at a time is fetched from the devices

  def get(entry_name: str) -> np.ndarray:
    nonlocal fetched
    p, i = where[entry_name]
    name, leaf, entries = parameters[p]
    if fetched[0] != p:
      fetched = (p, jax.device_get(leaf))
    array = fetched[1][i] if layout.is_stacked(name) else fetched[1]
    return layout.to_file(name, np.asarray(array).astype(dtype, copy=False), entries[i])

  write_tensors(
    folder, [e for _, _, entries in parameters for e in entries], get, dtype, max_file_bytes
  )


def _complete_generation_config(file: pathlib.Path, stop_ids: tuple[int, ...], pad_id: int) -> None:
  """Adds the ids that end and pad a response to what the original asks for."""
  fields = json.loads(file.read_text()) if file.exists() else {'do_sample': True}
  _write_json(file, fields | {'eos_token_id': list(stop_ids), 'pad_token_id': pad_id})


def _write_json(file: pathlib.Path, fields: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(fields, indent=2) + '\n')
