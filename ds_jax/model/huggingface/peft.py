"""Adapters -> a folder that peft loads onto the model that they belong to."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ds_jax.model.huggingface import layout
from ds_jax.model.huggingface.save import sync_files, unfinished, write_json
from ds_jax.model.huggingface.tensors import ADAPTER_CONFIG, write_file
from ds_jax.model.lora import Adapter, Adapters, each_adapter

_TENSORS = 'adapter_model.safetensors'
_PREFIX = 'base_model.model.'  # peft wraps the model twice
_WEIGHT = '.weight'


def save_adapters(
  adapters: Adapters,
  folder: str | os.PathLike[str],
  *,
  model: str,
  dtype: str = 'float32',
  add_files: Callable[[pathlib.Path], Any] = lambda folder: None,
) -> list[str]:
  """Writes adapters as a folder for `peft.PeftModel.from_pretrained`.

  Args:
    adapters: at least one.
    folder: where; it must not exist, or be empty.
    model: folder or name on the hub of the model that they belong to.
    dtype: of the tensors, 'float32' or 'bfloat16'.
    add_files: called with the unfinished folder, to add the tokenizer.

  Returns:
    Names of the files.

  Raises:
    InputError: there is something in `folder`.
    OSError: it could not be written; nothing is left of it.
  """
  folder = pathlib.Path(folder).expanduser()
  tensors: dict[str, np.ndarray] = {}
  for path, adapter in each_adapter(adapters):
    tensors |= _tensors_of(path, adapter, jax.numpy.dtype(dtype))
  with unfinished(folder):
    write_file(folder / _TENSORS, tensors)
    add_files(folder)
    sync_files(folder)
    write_json(folder / ADAPTER_CONFIG, _config(adapters, tensors, model))
    sync_files(folder)
  return sorted(path.name for path in folder.iterdir())


def _tensors_of(path: str, adapter: Adapter, dtype: np.dtype) -> dict[str, np.ndarray]:
  """The tensors of one kernel's adapter by name: two per layer, stored as [out, in]."""
  lora_a, lora_b = np.asarray(adapter.lora_a), np.asarray(adapter.lora_b)
  num_layers, rank = lora_a.shape[0], lora_a.shape[-1]
  kernel_shape = (num_layers, *lora_a.shape[1:-1], *lora_b.shape[2:])
  tensors = {}
  for a, b, entry in zip(lora_a, lora_b, layout.entries(path, kernel_shape), strict=True):
    module = _PREFIX + entry.name.removesuffix(_WEIGHT)
    for name, matrix in (('lora_A', a.reshape(-1, rank)), ('lora_B', b.reshape(rank, -1))):
      tensors[f'{module}.{name}{_WEIGHT}'] = np.ascontiguousarray(matrix.T.astype(dtype))
  return tensors


def _config(adapters: Adapters, tensors: dict[str, np.ndarray], model: str) -> dict[str, Any]:
  """adapter_config.json: all adapters have one rank and one scale."""
  _, adapter = next(each_adapter(adapters))
  rank = adapter.lora_a.shape[-1]
  modules = {name.split('.lora_')[0].rsplit('.', 1)[-1] for name in tensors}
  return {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': model,
    'r': rank,
    'lora_alpha': adapter.scale * rank,
    'target_modules': sorted(modules),
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': False,
    'use_rslora': False,
    'use_dora': False,
    'inference_mode': True,
  }
