"""A Hugging Face checkpoint folder -> our decoder, tensor by tensor."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.hub import local_folder
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.model.huggingface import layout, numbers
from ds_jax.model.huggingface.config import config_from_hf, is_wrapper, read_fields
from ds_jax.model.huggingface.match import match_tensors, shown, tensors_of_decoder
from ds_jax.model.huggingface.numbers import Unusable
from ds_jax.model.huggingface.tensors import Stored, list_tensors, open_tensor


def load_decoder(
  folder: str | os.PathLike[str],
  *,
  num_ids: int | None = None,
  mesh: Mesh | None = None,
  dtype: str = 'float32',
  for_search: bool = False,
  note: Callable[[str], Any] = lambda line: None,
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
    note: hears what of the folder is not read.
    **overrides: fields of DecoderConfig, e.g. compute_dtype.

  Raises:
    InputError: if the folder or a file is missing, the config is unsupported, tensors are missing,
      unknown or mis-shaped, or numbers are not finite (all listed together).
  """
  folder = local_folder(folder)
  fields = read_fields(folder)
  config = dataclasses.replace(config_from_hf(fields, num_ids), **overrides)
  abstract = abstract_decoder(config)
  stored = list_tensors(folder)
  if is_wrapper(fields):
    stored = tensors_of_decoder(stored, note)
  stored = match_tensors(stored, abstract, folder)
  mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
  shardings = jax.tree.leaves(sharding.parameter_shardings(abstract, mesh, search=for_search))
  parameters = list(layout.all_parameters(abstract))

  def size(i: int) -> tuple[int, int]:  # of a tensor of the file, then of the parameter
    return int(np.prod(parameters[i].entries[0].shape)), int(np.prod(parameters[i].shape))

  reader = _Reader(stored, jnp.dtype(dtype), numbers.narrowest(dtype, config.compute_dtype))
  leaves: list[Any] = [None] * len(parameters)
  for i in sorted(range(len(parameters)), key=size, reverse=True):
    leaves[i] = reader.load(parameters[i], shardings[i])
  reader.check_numbers(folder)
  return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


@dataclasses.dataclass(frozen=True)
class _Reader:
  """Reads parameters from the tensors of a folder, and notes which hold unusable numbers."""

  stored: Mapping[str, Stored]
  dtype: np.dtype  # of the parameters
  narrowest: np.dtype  # of the formats that the parameters are computed with
  unusable: dict[str, Unusable] = dataclasses.field(default_factory=dict)  # by tensor

  def load(self, parameter: layout.Parameter, target: jax.sharding.Sharding) -> jax.Array:
    """Returns a parameter on its devices."""
    parts: dict[Any, np.ndarray] = {}  # replicas are read once

    def read(index: tuple[slice, ...]) -> np.ndarray:
      ranges = tuple(range(n)[part] for part, n in zip(index, parameter.shape, strict=True))
      if ranges not in parts:
        out = _aligned([len(r) for r in ranges], self.dtype)
        self._read_layers(parameter, [slice(r.start, r.stop) for r in ranges], out)
        parts[ranges] = out
      return parts[ranges]

    return jax.make_array_from_callback(parameter.shape, target, read)

  def check_numbers(self, folder: pathlib.Path) -> None:
    """Raises InputError with the tensors that were read and hold unusable numbers."""
    if not self.unusable:
      return
    faults = []
    for name, counts in sorted(self.unusable.items()):
      faults.append(f'{name}: {counts.describe(self.narrowest.name)}')
    raise InputError(
      f'Tensors in {folder} hold numbers that no model computes with: {shown(faults)}. Copy or '
      'convert the model again; what merged or trained it may have failed.'
    )

  def _read_layers(
    self, parameter: layout.Parameter, part: Sequence[slice], out: np.ndarray
  ) -> None:
    """Fills `out` with a part of a parameter, from a tensor of the file per layer."""
    shape, layers = parameter.shape, [out]
    if layout.is_stacked(parameter.name):  # L is never split
      shape, part, layers = shape[1:], part[1:], out
    for layer, entry in zip(layers, parameter.entries, strict=True):
      with open_tensor(self.stored[entry.name]) as tensor, np.errstate(over='ignore'):
        layout.read_part(parameter.name, tensor, shape, part=part, out=layer)
      self._note_unusable(entry.name, layer)

  def _note_unusable(self, name: str, x: np.ndarray) -> None:
    unusable = numbers.find_unusable(x, numbers.largest(self.narrowest))
    if unusable:
      self.unusable[name] = self.unusable.get(name, Unusable()) + unusable


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """An uninitialised array at an address that jax, on CPU, takes over without a copy."""
  num_bytes, alignment = int(np.prod(shape)) * dtype.itemsize, 64
  raw = np.empty(num_bytes + alignment, np.uint8)
  start = -raw.ctypes.data % alignment
  return raw[start : start + num_bytes].view(dtype).reshape(shape)
