"""A Hugging Face checkpoint folder -> our decoder, tensor by tensor."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.hub import local_folder
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.model.huggingface import layout
from ds_jax.model.huggingface.config import read_config
from ds_jax.model.huggingface.tensors import Stored, list_tensors, open_tensor

# Faults of tensors that are told at most.
_MAX_FAULTS = 20


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
  parameters = list(layout.all_parameters(abstract))

  def size(i: int) -> tuple[int, int]:  # of a tensor of the file, then of the parameter
    return int(np.prod(parameters[i].entries[0].shape)), int(np.prod(parameters[i].shape))

  leaves: list[Any] = [None] * len(parameters)
  for i in sorted(range(len(parameters)), key=size, reverse=True):
    leaves[i] = _load_parameter(parameters[i], stored, shardings[i], dtype=jnp.dtype(dtype))
  return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _load_parameter(
  parameter: layout.Parameter,
  stored: Mapping[str, Stored],
  target: jax.sharding.Sharding,
  *,
  dtype: np.dtype,
) -> jax.Array:
  parts: dict[Any, np.ndarray] = {}  # replicas are read once

  def read(index: tuple[slice, ...]) -> np.ndarray:
    ranges = tuple(range(n)[part] for part, n in zip(index, parameter.shape, strict=True))
    if ranges not in parts:
      out = _aligned([len(r) for r in ranges], dtype)
      part = [slice(r.start, r.stop) for r in ranges]
      _read_layers(parameter, stored, part, out=out)
      parts[ranges] = out
    return parts[ranges]

  return jax.make_array_from_callback(parameter.shape, target, read)


def _read_layers(
  parameter: layout.Parameter,
  stored: Mapping[str, Stored],
  part: Sequence[slice],
  *,
  out: np.ndarray,
) -> None:
  """Fills `out` with a part of a parameter, from a tensor of the file per layer."""
  shape, layers = parameter.shape, [out]
  if layout.is_stacked(parameter.name):  # L is never split
    shape, part, layers = shape[1:], part[1:], out
  for layer, entry in zip(layers, parameter.entries, strict=True):
    with open_tensor(stored[entry.name], entry.name) as tensor:
      layout.read_part(parameter.name, tensor, shape, part=part, out=layer)


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """An uninitialised array at an address that jax, on CPU, takes over without a copy."""
  num_bytes, alignment = int(np.prod(shape)) * dtype.itemsize, 64
  raw = np.empty(num_bytes + alignment, np.uint8)
  start = -raw.ctypes.data % alignment
  return raw[start : start + num_bytes].view(dtype).reshape(shape)


def _check_tensors(abstract: Decoder, stored: Mapping[str, Stored], folder: pathlib.Path) -> None:
  """Raises InputError with all faults of a folder's tensors."""
  expected: dict[str, tuple[int, ...]] = {}
  for parameter in layout.all_parameters(abstract):
    expected.update((entry.name, entry.shape) for entry in parameter.entries)
  unknown = set(stored) - set(expected)
  if abstract.config.tie_embeddings:
    unknown.discard(layout.PLACES['head'].name)  # some writers store the tied head as well
  # Early Llama conversions store the frequencies, which follow from the config.
  unknown = {name for name in unknown if not name.endswith('rotary_emb.inv_freq')}

  common = [name for name in expected if name in stored]
  faults = [f'missing {n} {shape}' for n, shape in expected.items() if n not in stored]
  faults += [f'unknown {n} {stored[n].shape}' for n in sorted(unknown)]
  for n in common:
    if stored[n].shape != expected[n]:
      faults.append(f'{n}: expected {expected[n]}, got {stored[n].shape}')
  for n in common:
    if not stored[n].is_float:
      faults.append(f'{n}: expected floats, got {stored[n].dtype}')
  if faults:
    shown = '; '.join(faults[:_MAX_FAULTS])
    if len(faults) > _MAX_FAULTS:
      shown += f'; and {len(faults) - _MAX_FAULTS} more'
    raise InputError(f'Tensors in {folder} do not fit its config.json: {shown}.')
