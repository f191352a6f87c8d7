"""Hugging Face folders <-> our decoder: `config.json` and safetensors, tensor by tensor."""

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
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.model.config import DecoderConfig, config_from_hf, config_to_hf
from ds_jax.model.decoder import Decoder, abstract_decoder

# Our parameter -> (name in the file, {i} is the layer; how its array becomes ours, from [out, in]).
# Shapes: H query heads, C key/value heads, D head width, M width, F MLP width, V vocabulary.
_LAYER = 'model.layers.{i}.'
NAMES: Mapping[str, str] = {
    'embedding': 'model.embed_tokens.weight',
    'final_scale': 'model.norm.weight',
    'head': 'lm_head.weight',
    'layers/attention_scale': _LAYER + 'input_layernorm.weight',
    'layers/query_kernel': _LAYER + 'self_attn.q_proj.weight',
    'layers/query_bias': _LAYER + 'self_attn.q_proj.bias',
    'layers/key_kernel': _LAYER + 'self_attn.k_proj.weight',
    'layers/key_bias': _LAYER + 'self_attn.k_proj.bias',
    'layers/value_kernel': _LAYER + 'self_attn.v_proj.weight',
    'layers/value_bias': _LAYER + 'self_attn.v_proj.bias',
    'layers/output_kernel': _LAYER + 'self_attn.o_proj.weight',
    'layers/mlp_scale': _LAYER + 'post_attention_layernorm.weight',
    'layers/gate_kernel': _LAYER + 'mlp.gate_proj.weight',
    'layers/up_kernel': _LAYER + 'mlp.up_proj.weight',
    'layers/down_kernel': _LAYER + 'mlp.down_proj.weight',
}


def _is_transposed(name: str) -> bool:
  """Kernels and the head are [out, in] in the file and [in, out] here; the rest is alike."""
  return name.endswith('_kernel') or name == 'head'


def load_decoder(folder: str | os.PathLike[str], *, num_ids: int | None = None,
                 mesh: Mesh | None = None, **overrides: Any) -> Decoder:
  """Loads a Hugging Face checkpoint folder as a float32 decoder on the mesh.

  Args:
    folder: holds `config.json` and `model.safetensors` (or its shards and index).
    num_ids: ids of the tokenizer; None: as many as the embedding has rows.
    mesh: where parameters go, in the training form; None: the default device.
    **overrides: fields of DecoderConfig, e.g. compute_dtype.

  Returns:
    The decoder. One stacked parameter at a time stands in host memory.

  Raises:
    InputError: if the folder or a file is missing, the family is unsupported, or tensors are
      missing, unknown or mis-shaped (all listed together).
  """
  import dataclasses
  folder = pathlib.Path(folder)
  config = dataclasses.replace(read_config(folder, num_ids), **overrides)
  abstract = abstract_decoder(config)
  read, shapes = _open_tensors(folder)
  _check_tensors(abstract, shapes, folder)
  put = (lambda x, s: jnp.asarray(x)) if mesh is None else jax.device_put
  mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
  shardings = sharding.parameter_shardings(abstract, mesh)

  def load(path, leaf, target):
    name = sharding.path_name(path)
    layers = [read(n) for n in _file_names(name, leaf)]
    ours = [_from_file(name, x, leaf.shape) for x in layers]
    return put(np.stack(ours) if name.startswith('layers/') else ours[0], target)

  return jax.tree_util.tree_map_with_path(load, abstract, shardings)


def read_config(folder: pathlib.Path, num_ids: int | None = None) -> DecoderConfig:
  """Reads `config.json` of a checkpoint folder; InputError if there is none."""
  if not folder.is_dir():
    raise InputError(f'No checkpoint folder {str(folder)!r}; expected a folder with config.json, '
                     'model.safetensors and tokenizer.json. `ds-jax warmstart` or `ds-jax init` '
                     'writes one.')
  try:
    fields = json.loads((folder / 'config.json').read_text())
  except FileNotFoundError as e:
    raise InputError(f'{folder} has no config.json; expected a Hugging Face checkpoint.') from e
  except json.JSONDecodeError as e:
    raise InputError(f'{folder}/config.json is not valid JSON: {e}.') from e
  return config_from_hf(fields, num_ids)


def save_decoder(decoder: Decoder, folder: str | os.PathLike[str], *, stop_ids: tuple[int, ...],
                 pad_id: int,
                 add_files: Callable[[pathlib.Path], None] = lambda folder: None) -> None:
  """Writes a Hugging Face checkpoint folder that transformers loads as Qwen2ForCausalLM.

  Written beside its place and renamed, so that no half-written folder bears the final name.

  Args:
    decoder: the parameters, written in float32.
    folder: where; replaced if it exists.
    stop_ids: ids that end a response. pad_id: the padding id.
    add_files: called with the unfinished folder, to add the tokenizer.
  """
  from safetensors.numpy import save_file
  folder = pathlib.Path(folder)
  unfinished = folder.with_name(folder.name + '.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  unfinished.mkdir(parents=True)
  save_file(dict(_to_file(decoder)), unfinished / 'model.safetensors', metadata={'format': 'pt'})
  fields = config_to_hf(decoder.config, stop_ids, pad_id)
  (unfinished / 'config.json').write_text(json.dumps(fields, indent=2) + '\n')
  generation = {'eos_token_id': list(stop_ids), 'pad_token_id': pad_id, 'do_sample': True}
  (unfinished / 'generation_config.json').write_text(json.dumps(generation, indent=2) + '\n')
  add_files(unfinished)
  shutil.rmtree(folder, ignore_errors=True)
  unfinished.rename(folder)


def _to_file(decoder: Decoder) -> Iterator[tuple[str, np.ndarray]]:
  for path, leaf in jax.tree_util.tree_leaves_with_path(decoder):
    name = sharding.path_name(path)
    array = np.asarray(jax.device_get(leaf), np.float32)
    for file_name, x in zip(_file_names(name, leaf),
                            array if name.startswith('layers/') else [array], strict=True):
      if _is_transposed(name):
        # Inputs are all axes but the outputs: [M, H, D] -> [H * D, M]; [H, D, M] -> [M, H * D].
        x = x.reshape(-1, x.shape[-1]) if name.endswith('output_kernel') else x.reshape(
            x.shape[0], -1)
        x = x.T
      elif name.endswith('_bias'):
        x = x.reshape(-1)
      yield file_name, np.ascontiguousarray(x)


def _from_file(name: str, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """One tensor of the file in our layout (one layer's, where the parameter is stacked)."""
  if name.startswith('layers/'):
    shape = shape[1:]
  return np.asarray(x.T if _is_transposed(name) else x, np.float32).reshape(shape)


def _file_names(name: str, leaf: Any) -> list[str]:
  if not name.startswith('layers/'):
    return [NAMES[name]]
  return [NAMES[name].format(i=i) for i in range(leaf.shape[0])]


def _open_tensors(folder: pathlib.Path) -> tuple[Callable[[str], np.ndarray], dict[str, tuple]]:
  """Returns a reader of single tensors and the shapes of all tensors in the folder."""
  from safetensors import safe_open
  files = sorted(folder.glob('*.safetensors'))
  if not files:
    raise InputError(f'{folder} has no *.safetensors file; expected model.safetensors or shards.')
  where, shapes = {}, {}
  for file in files:
    try:
      handle = safe_open(file, framework='flax')
    except Exception as e:
      raise InputError(f'{file} cannot be read as safetensors ({e}); copy it again.') from e
    for name in handle.keys():
      where[name], shapes[name] = handle, tuple(handle.get_slice(name).get_shape())
  return lambda name: np.asarray(where[name].get_tensor(name)), shapes


def _check_tensors(abstract: Decoder, shapes: Mapping[str, tuple], folder: pathlib.Path) -> None:
  expected = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
    name = sharding.path_name(path)
    shape = leaf.shape[1:] if name.startswith('layers/') else leaf.shape
    if name.endswith('output_kernel'):
      shape = (shape[-1], int(np.prod(shape[:-1])))
    elif _is_transposed(name):
      shape = (int(np.prod(shape[1:])), shape[0])
    elif name.endswith('_bias'):
      shape = (int(np.prod(shape)),)
    expected.update(dict.fromkeys(_file_names(name, leaf), tuple(shape)))
  unknown = set(shapes) - set(expected)
  if abstract.config.tie_embeddings:
    unknown.discard(NAMES['head'])  # some writers store the tied head as well
  faults = [f'missing {n} {expected[n]}' for n in expected if n not in shapes]
  faults += [f'unknown {n} {shapes[n]}' for n in sorted(unknown)]
  faults += [f'{n}: expected {expected[n]}, got {shapes[n]}' for n in expected
             if n in shapes and shapes[n] != expected[n]]
  if faults:
    shown = '; '.join(faults[:20]) + (f'; and {len(faults) - 20} more' if len(faults) > 20 else '')
    raise InputError(f'Tensors in {folder} do not fit its config.json: {shown}.')
