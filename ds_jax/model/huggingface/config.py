"""`config.json` of a Hugging Face folder <-> DecoderConfig."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError
from ds_jax.hub import MODEL_FILES, local_folder
from ds_jax.model.config import FAMILIES, DecoderConfig, Family
from ds_jax.model.huggingface.rope_fields import is_positive, scaling_from_hf, scaling_to_hf

# In a folder that is being written: its config.json, the last file, is still missing.
UNFINISHED = 'UNFINISHED'

_SIZES = (
  'vocab_size',
  'num_hidden_layers',
  'hidden_size',
  'intermediate_size',
  'num_attention_heads',
)
_OPTIONAL_SIZES = (
  'num_key_value_heads',
  'head_dim',
  'max_position_embeddings',
  'original_max_position_embeddings',
)
_SIZES_WITH_LOCAL_LAYERS = ('sliding_window', 'sliding_window_pattern', 'query_pre_attn_scalar')

# Of models in which a decoder has a part: their model_type, and the decoder's.
_WRAPPERS = {'gemma3': 'gemma3_text'}
# What such a model says of its decoder outside of text_config.
_SAID_BY_WRAPPERS = (
  'tie_word_embeddings',
  'quantization_config',
  'compression_config',
  'transformers_weights',
  'auto_map',
)

# Fields that change what a model computes, and the values (or absence) that are supported.
_SUPPORTED: Mapping[str, tuple[Any, ...]] = {
  'hidden_act': ('silu', 'swish'),  # two names of one function
  'attention_bias': (False,),
  'mlp_bias': (False,),
  'attention_dropout': (0,),
  'num_experts': (0,),
  'num_local_experts': (0,),
  'partial_rotary_factor': (1,),
  'is_causal': (True,),
  'quantization_config': (),
  'compression_config': (),
  'per_layer_config': (),
  'text_config': (),
  'transformers_weights': (),
  'auto_map': (),
}

# Likewise of one family.
_SUPPORTED_OF: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
  'gemma3_text': {
    'hidden_activation': ('gelu_pytorch_tanh',),
    'hidden_act': ('gelu_pytorch_tanh',),  # stray, but other readers take it
    'attn_logit_softcapping': (),
    'final_logit_softcapping': (),
    'use_bidirectional_attention': (False,),
  },
}

_DEFAULT_EPSILON = 1e-6
# Kinds of layers, as config.json names them; the first is of local layers.
_LOCAL, _FULL = 'sliding_attention', 'full_attention'
_DEFAULT_LOCAL_THETA = 10_000.0
# Where config.json does not say which layers are local: the last of so many is not.
_DEFAULT_PATTERN = 6


def read_config(
  folder: str | os.PathLike[str],
  num_ids: int | None = None,
  *,
  files: tuple[str, ...] = MODEL_FILES,
) -> DecoderConfig:
  """Reads `config.json` of a checkpoint folder, or of a model on the hub.

  Args:
    folder: the folder, or the model's name.
    num_ids: ids of the tokenizer; None: as many as the embedding has rows.
    files: what is downloaded of a model on the hub.

  Raises:
    InputError: there is none, or it is not supported.
  """
  return config_from_hf(read_fields(local_folder(folder, files)), num_ids)


def read_fields(folder: pathlib.Path) -> dict[str, Any]:
  """The fields of a folder's `config.json`; InputError if there is none."""
  if not folder.is_dir():
    raise InputError(
      f'No checkpoint folder {str(folder)!r}; expected a folder with config.json, '
      'model.safetensors and tokenizer.json, or a name on the hub like '
      'Qwen/Qwen2.5-1.5B. `ds-jax warmstart` or `ds-jax init` writes a folder.'
    )
  try:
    fields = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
  except FileNotFoundError as e:
    if (folder / UNFINISHED).exists():
      raise InputError(
        f'{folder} holds half a model: the command that wrote it was stopped, or is writing it '
        'now. Run it again.'
      ) from e
    raise InputError(f'{folder} has no config.json; expected a Hugging Face checkpoint.') from e
  except OSError as e:
    raise InputError(f'{folder}/config.json cannot be read: {e.strerror}.') from e
  except (ValueError, RecursionError) as e:
    raise InputError(f'{folder}/config.json is not valid JSON: {e}.') from e
  if not isinstance(fields, dict):
    raise InputError(f'{folder}/config.json is not a JSON object.')
  return fields


def config_from_hf(fields: Mapping[str, Any], num_ids: int | None = None) -> DecoderConfig:
  """Returns the DecoderConfig of a Hugging Face `config.json`.

  Args:
    fields: the parsed file.
    num_ids: ids of the tokenizer; None: as many as the embedding has rows.

  Raises:
    InputError: names what is unsupported; nothing that changes a logit is silently ignored.
  """
  fields = decoder_fields(fields)
  family = _family_of(fields)
  fields = family.defaults | fields
  rope_fields, local_rope_fields = _rope_by_kind(fields, family)
  faults = _size_faults(fields, family)
  faults += _number_faults(fields)
  faults += _value_faults(fields, family)
  faults += _rope_faults(rope_fields) + _rope_faults(local_rope_fields)
  if family.has_local_layers:
    faults = faults or _local_faults(fields)
  elif not faults and _has_sliding_layer(fields):
    faults.append(
      f'a sliding window (use_sliding_window = {fields.get("use_sliding_window")!r}, '
      f'sliding_window = {fields.get("sliding_window")!r})'
    )
  if faults:
    raise InputError(f'This config.json is not supported: {"; ".join(faults)}.')
  num_heads = fields['num_attention_heads']
  max_positions = fields['max_position_embeddings']
  rope = rope_fields.get('rope_scaling') or rope_fields.get('rope_parameters') or {}
  config = DecoderConfig(
    vocab_size=fields['vocab_size'],
    num_ids=num_ids or fields['vocab_size'],
    num_layers=fields['num_hidden_layers'],
    width=fields['hidden_size'],
    mlp_width=fields['intermediate_size'],
    num_heads=num_heads,
    num_kv_heads=fields.get('num_key_value_heads') or num_heads,
    head_width=fields.get('head_dim') or fields['hidden_size'] // num_heads,
    family=fields['model_type'],
    max_positions=max_positions,
    rope_theta=_theta_of(rope_fields, family.rope_theta),
    rope_scaling=scaling_from_hf(
      rope, max_positions, fields.get('original_max_position_embeddings')
    ),
    norm_epsilon=float(fields.get('rms_norm_eps', _DEFAULT_EPSILON)),
    tie_embeddings=fields.get('tie_word_embeddings', False),
  )
  if not family.has_local_layers:
    return config
  scalar, is_local = fields['query_pre_attn_scalar'], _local_layers(fields)
  return dataclasses.replace(
    config,
    query_scalar=None if scalar == config.head_width else scalar,
    window=fields['sliding_window'],
    is_local=is_local if any(is_local) else (),
    local_rope_theta=_theta_of(local_rope_fields, _DEFAULT_LOCAL_THETA),
  )


def decoder_fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
  """The fields of a decoder: of a model of images and text, those of its text_config.

  Raises:
    InputError: if that is missing, or the two contradict each other.
  """
  family = _WRAPPERS.get(str(fields.get('model_type')))
  if family is None:
    return fields
  inner = fields.get('text_config')
  if not isinstance(inner, dict):
    raise InputError(
      f'config.json is of a model_type {fields["model_type"]!r} and has no object text_config, '
      'which describes its language model.'
    )
  outer = {name: fields[name] for name in _SAID_BY_WRAPPERS if fields.get(name) is not None}
  for name, value in outer.items():
    if inner.get(name) not in (None, value):
      raise InputError(
        f'config.json and its text_config contradict each other: {name} is {value!r:.100} and '
        f'{inner[name]!r:.100}.'
      )
  return {'model_type': family} | inner | outer


def is_wrapper(fields: Mapping[str, Any]) -> bool:
  """Whether a decoder is but a part of the model of a config.json."""
  return str(fields.get('model_type')) in _WRAPPERS


def _family_of(fields: Mapping[str, Any]) -> Family:
  """The family that `model_type` names; InputError if it is not supported."""
  name = fields.get('model_type')
  if isinstance(name, str) and name in FAMILIES:
    return FAMILIES[name]
  hint = ''
  if 'moe' in str(name):
    hint = ' (mixtures of experts are not)'
  elif 'text_config' in fields:
    hint = ' (models of images or sound are not; save the language model within it alone)'
  raise InputError(
    f'Expected a model_type in {sorted(FAMILIES)} in config.json, got {name!r}; '
    f'dense decoders of these families are supported{hint}.'
  )


def _size_faults(fields: Mapping[str, Any], family: Family) -> list[str]:
  """Sizes that the file lacks, or that are no sizes."""
  faults = [f'it lacks {name}' for name in _SIZES if name not in fields]
  # null is as good as silence where a default follows from other fields.
  may_be_null = {'num_key_value_heads', 'original_max_position_embeddings'}
  if 'head_dim' not in family.defaults:
    may_be_null.add('head_dim')
  optional_sizes = _OPTIONAL_SIZES
  if family.has_local_layers:
    optional_sizes += _SIZES_WITH_LOCAL_LAYERS
  for name in (*_SIZES, *optional_sizes):
    if name not in fields:
      continue
    value = fields[name]
    is_size = type(value) is int and value > 0
    if not is_size and not (value is None and name in may_be_null):
      faults.append(f'{name} = {value!r} is no positive integer')
  return faults


def _number_faults(fields: Mapping[str, Any]) -> list[str]:
  """Numbers that are none, and flags that are neither true nor false."""
  faults = []
  if 'rms_norm_eps' in fields and not is_positive(fields['rms_norm_eps']):
    faults.append(f'rms_norm_eps = {fields["rms_norm_eps"]!r} is no positive number')
  if not isinstance(fields.get('tie_word_embeddings', False), bool):
    faults.append(f'tie_word_embeddings = {fields["tie_word_embeddings"]!r} is no true or false')
  return faults


def _value_faults(fields: Mapping[str, Any], family: Family) -> list[str]:
  """Fields whose value would change what the model computes."""
  faults = []
  of_family = _SUPPORTED_OF.get(fields['model_type'], {})
  for name, supported in (_SUPPORTED | of_family).items():
    value = fields.get(name)
    # Biases of Qwen2 are no option, and a stray field says nothing; the tensors are checked.
    is_stray = name == 'attention_bias' and family.has_qkv_bias
    if value is None or value in supported or is_stray:
      continue
    expected = f'expected {supported[0]!r}' if supported else 'expected none'
    faults.append(f'{name} = {value!r:.100} ({expected})')
  return faults


def _rope_faults(fields: Mapping[str, Any]) -> list[str]:
  """Rope parameters that are no object, or that stand there twice and differ."""
  entries = [fields[name] for name in ('rope_parameters', 'rope_scaling') if fields.get(name)]
  faults = []
  for entry in entries:
    if not isinstance(entry, dict):
      faults.append(f'rope parameters {entry!r:.100} that are no object')
  if len(entries) == 2 and entries[0] != entries[1]:
    faults.append('rope_parameters and rope_scaling contradict each other')
  thetas = []
  for holder in (fields, *entries):
    if isinstance(holder, dict) and holder.get('rope_theta') is not None:
      thetas.append(holder['rope_theta'])
  if not all(map(is_positive, thetas)):
    faults.append(f'rope_theta = {thetas!r:.100} is no positive number')
  elif len(set(thetas)) > 1:
    # Version 5 of transformers takes that of rope_parameters, version 4 the other.
    faults.append(f'rope_theta stands there twice and differs: {thetas}')
  return faults


def _rope_by_kind(
  fields: Mapping[str, Any], family: Family
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
  """The fields about rotation, of layers that see everything and of local ones.

  Version 5 of transformers nests the latter under the kinds; version 4 names them apart.
  """
  if not family.has_local_layers:
    return fields, {}
  nested = fields.get('rope_parameters') or {}
  if not isinstance(nested, dict):
    return fields, {}  # whose fault is told
  whole = {
    'rope_theta': fields.get('rope_theta'),
    'rope_scaling': fields.get('rope_scaling'),
    'rope_parameters': nested.get(_FULL),
  }
  local = {
    'rope_theta': fields.get('rope_local_base_freq'),
    'rope_parameters': nested.get(_LOCAL),
  }
  return whole, local


def _theta_of(rope_fields: Mapping[str, Any], default: float) -> float:
  """The base of wavelengths that fields without faults name."""
  entry = rope_fields.get('rope_scaling') or rope_fields.get('rope_parameters') or {}
  return float(entry.get('rope_theta') or rope_fields.get('rope_theta') or default)


def _local_faults(fields: Mapping[str, Any]) -> list[str]:
  """What is wrong with the fields that tell local layers from others."""
  kinds, count = fields.get('layer_types'), fields['num_hidden_layers']
  if kinds is not None:
    is_list = isinstance(kinds, list) and all(kind in (_LOCAL, _FULL) for kind in kinds)
    if not is_list or len(kinds) != count:
      return [f'layer_types = {kinds!r:.100} (expected {count} times {_LOCAL!r} or {_FULL!r})']
  faults = []
  nested = fields.get('rope_parameters') or {}
  unknown = set(nested) - {_LOCAL, _FULL}
  if unknown:
    faults.append(f'rope_parameters of {sorted(unknown)} (expected of {_LOCAL!r} and {_FULL!r})')
  if scaling_from_hf(nested.get(_LOCAL) or {}, fields['max_position_embeddings']) is not None:
    faults.append(f"rope type of {_LOCAL!r} (expected 'default')")
  return faults


def _local_layers(fields: Mapping[str, Any]) -> tuple[bool, ...]:
  """By layer, whether it is local."""
  kinds = fields.get('layer_types')
  if kinds is not None:
    return tuple(kind == _LOCAL for kind in kinds)
  pattern = fields.get('sliding_window_pattern', _DEFAULT_PATTERN)
  return tuple((i + 1) % pattern > 0 for i in range(fields['num_hidden_layers']))


def _has_sliding_layer(fields: Mapping[str, Any]) -> bool:
  """Whether transformers would limit the attention of any layer."""
  kinds = fields.get('layer_types')
  if kinds:
    return not isinstance(kinds, list) or any(kind != 'full_attention' for kind in kinds)
  if not fields.get('use_sliding_window') or fields.get('sliding_window', 4096) is None:
    return False
  first = fields.get('max_window_layers', 28)
  return type(first) is not int or first < fields['num_hidden_layers']


def config_to_hf(
  config: DecoderConfig, stop_ids: tuple[int, ...], pad_id: int, *, dtype: str = 'float32'
) -> dict[str, Any]:
  """Returns the fields of the `config.json` that transformers and vLLM read.

  Args:
    config: the decoder's.
    stop_ids: ids that end a response. pad_id: the padding id.
    dtype: of the tensors beside it.
  """
  family = config.of_family
  fields = {
    'architectures': [family.architecture],
    'model_type': config.family,
    'vocab_size': config.vocab_size,
    'num_hidden_layers': config.num_layers,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_width,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_width,
    'rope_theta': config.rope_theta,
    'rope_scaling': scaling_to_hf(config.rope_scaling),
    'rms_norm_eps': config.norm_epsilon,
    'tie_word_embeddings': config.tie_embeddings,
    'max_position_embeddings': config.max_positions,
    'attention_dropout': 0.0,
    'initializer_range': 0.02,
    'eos_token_id': list(stop_ids) if len(stop_ids) > 1 else stop_ids[0],
    'bos_token_id': None,
    'pad_token_id': pad_id,
    'dtype': dtype,
    'torch_dtype': dtype,
  }
  if not family.has_qkv_bias:
    fields['attention_bias'] = False
  if config.family == 'llama':
    return fields | {'hidden_act': family.activation, 'mlp_bias': False}
  if family.has_local_layers:
    is_local = config.is_local or (False,) * config.num_layers
    return fields | {
      'hidden_activation': family.activation,
      'sliding_window': config.window or config.max_positions,
      'layer_types': [_LOCAL if local else _FULL for local in is_local],
      'rope_local_base_freq': config.local_rope_theta,
      'query_pre_attn_scalar': config.query_scalar or config.head_width,
      'attn_logit_softcapping': None,
      'final_logit_softcapping': None,
      'use_bidirectional_attention': False,
    }
  # Spelled out for readers with other defaults than ours.
  return fields | {
    'hidden_act': family.activation,
    'use_sliding_window': False,
    'sliding_window': None,
    'max_window_layers': config.num_layers,
  }
