"""The static description of a decoder, and what it says in a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.model.rope import Scaling, YarnScaling, scaling_from_hf, scaling_to_hf


@dataclasses.dataclass(frozen=True)
class Family:
  """What a `model_type` fixes; all else is a field of the config."""

  architecture: str  # class in transformers
  has_qkv_bias: bool  # biases of the query, key and value projections
  has_qk_norm: bool  # queries and keys are normalised per head
  required: tuple[str, ...] = ()  # config.json must have these: defaults of the family mislead


FAMILIES: Mapping[str, Family] = {
  'qwen2': Family('Qwen2ForCausalLM', True, False, ('num_key_value_heads',)),
  'qwen3': Family('Qwen3ForCausalLM', False, True, ('num_key_value_heads', 'head_dim')),
  'llama': Family('LlamaForCausalLM', False, False),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Shape and constants of a decoder. Frozen and hashable: static under jit."""

  vocab_size: int  # V, rows of the embedding
  num_ids: int  # ids the tokenizer has; ids at or beyond it are masked everywhere
  num_layers: int  # L
  width: int  # M
  mlp_width: int  # F
  num_heads: int  # H
  num_kv_heads: int  # C
  head_width: int  # D
  family: str = 'qwen2'  # of FAMILIES
  max_positions: int = 2048  # of a prompt and its response, as the checkpoint declares
  rope_theta: float = 10_000.0
  rope_scaling: Scaling | None = None
  norm_epsilon: float = 1e-6
  tie_embeddings: bool = True
  compute_dtype: str = 'float32'  # of activations and matrix products
  remat: str = 'none'  # what the backward pass recomputes (config.ModelConfig)
  attention_kernel: str = 'auto'  # of the training form (config.ModelConfig)

  def __post_init__(self):
    check_choice('family', self.family, FAMILIES)
    if self.num_heads % self.num_kv_heads:
      raise InputError(
        f'num_heads = {self.num_heads} is not a multiple of num_kv_heads = {self.num_kv_heads}.'
      )
    if self.head_width % 2:
      raise InputError(f'head_width = {self.head_width} is odd; rotary positions pair its halves.')
    if not 0 < self.num_ids <= self.vocab_size:
      raise InputError(
        f'The tokenizer has {self.num_ids} ids, but the embedding has '
        f'{self.vocab_size} rows; use the tokenizer that belongs to the model.'
      )

  @property
  def has_qkv_bias(self) -> bool:
    return FAMILIES[self.family].has_qkv_bias

  @property
  def has_qk_norm(self) -> bool:
    return FAMILIES[self.family].has_qk_norm

  @property
  def context_limit(self) -> int:
    """Positions that the model is made for: declared, or reached by yarn from a shorter context."""
    if isinstance(self.rope_scaling, YarnScaling):
      stretched = self.rope_scaling.factor * self.rope_scaling.original_positions
      return max(self.max_positions, int(stretched))
    return self.max_positions

  @property
  def group_size(self) -> int:
    """G, query heads per key/value head."""
    return self.num_heads // self.num_kv_heads

  def num_parameters(self) -> int:
    layer = 2 * self.width * self.head_width * (self.num_heads + self.num_kv_heads)
    layer += 3 * self.width * self.mlp_width + 2 * self.width
    layer += self.has_qkv_bias * self.head_width * (self.num_heads + 2 * self.num_kv_heads)
    layer += self.has_qk_norm * 2 * self.head_width
    tables = self.vocab_size * self.width * (1 if self.tie_embeddings else 2)
    return self.num_layers * layer + tables + self.width


def config_from_hf(fields: Mapping[str, Any], num_ids: int | None = None) -> DecoderConfig:
  """Returns the DecoderConfig of a Hugging Face `config.json`.

  Args:
    fields: the parsed file.
    num_ids: ids of the tokenizer; None: as many as the embedding has rows.

  Raises:
    InputError: names what is unsupported; nothing that changes a logit is silently ignored.
  """
  kind = fields.get('model_type')
  if kind not in FAMILIES:
    experts = ' (mixtures of experts are not)' if 'moe' in str(kind) else ''
    raise InputError(
      f'Expected a model_type in {sorted(FAMILIES)} in config.json, got {kind!r}; '
      f'dense decoders of these families are supported{experts}.'
    )
  faults = _faults(fields, FAMILIES[kind])
  if faults:
    raise InputError(f'This config.json is not supported: {"; ".join(faults)}.')
  heads = fields['num_attention_heads']
  max_positions = fields.get('max_position_embeddings') or 2048
  rope = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
  return DecoderConfig(
    vocab_size=fields['vocab_size'],
    num_ids=num_ids or fields['vocab_size'],
    num_layers=fields['num_hidden_layers'],
    width=fields['hidden_size'],
    mlp_width=fields['intermediate_size'],
    num_heads=heads,
    num_kv_heads=fields.get('num_key_value_heads') or heads,
    head_width=fields.get('head_dim') or fields['hidden_size'] // heads,
    family=kind,
    max_positions=max_positions,
    rope_theta=float(rope.get('rope_theta') or fields.get('rope_theta') or 10_000.0),
    rope_scaling=scaling_from_hf(
      rope, max_positions, fields.get('original_max_position_embeddings')
    ),
    norm_epsilon=float(fields.get('rms_norm_eps', 1e-6)),
    tie_embeddings=bool(fields.get('tie_word_embeddings', False)),
  )


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

# Fields that change what a model computes, and the one value (or absence) that we compute with.
_ONLY = {
  'hidden_act': 'silu',
  'mlp_bias': False,
  'attention_dropout': 0,
  'num_experts': 0,
  'num_local_experts': 0,
  'partial_rotary_factor': 1,
  'quantization_config': None,
  'auto_map': None,
}


def _faults(fields: Mapping[str, Any], family: Family) -> list[str]:
  """What the file lacks, and what in it we would have to ignore."""
  sizes = [n for n in (*_SIZES, *family.required, *_OPTIONAL_SIZES) if n in fields]
  faults = [f'it lacks {n}' for n in (*_SIZES, *family.required) if n not in fields]
  faults += [
    f'{n} = {fields[n]!r} is no positive integer'
    for n in dict.fromkeys(sizes)
    if not (type(fields[n]) is int and fields[n] > 0)
    and not (fields[n] is None and n in _OPTIONAL_SIZES and n not in family.required)
  ]
  # Biases of Qwen2 are no option, and a stray field says nothing; the tensors are checked.
  only = _ONLY if family.has_qkv_bias else {**_ONLY, 'attention_bias': False}
  faults += [
    f'{n} = {fields[n]!r} (expected {value!r})'
    for n, value in only.items()
    if fields.get(n) is not None and fields[n] != value
  ]
  given = [fields[n] for n in ('rope_parameters', 'rope_scaling') if fields.get(n)]
  faults += [
    f'rope parameters {rope!r} that are no object' for rope in given if not isinstance(rope, dict)
  ]
  if len(given) == 2 and given[0] != given[1]:
    faults.append('rope_parameters and rope_scaling contradict each other')
  if not faults and _has_sliding_layer(fields):
    faults.append(
      f'a sliding window (use_sliding_window = {fields.get("use_sliding_window")!r}, '
      f'sliding_window = {fields.get("sliding_window")!r})'
    )
  return faults


def _has_sliding_layer(fields: Mapping[str, Any]) -> bool:
  """Whether transformers would limit the attention of any layer."""
  kinds = fields.get('layer_types')
  if kinds:
    return any(kind != 'full_attention' for kind in kinds)
  if not fields.get('use_sliding_window') or fields.get('sliding_window', 4096) is None:
    return False
  return fields.get('max_window_layers', 28) < fields['num_hidden_layers']


def config_to_hf(
  config: DecoderConfig, stop_ids: tuple[int, ...], pad_id: int, dtype: str = 'float32'
) -> dict[str, Any]:
  """Returns the fields of the `config.json` that transformers and vLLM read.

  Args:
    config: the decoder's.
    stop_ids: ids that end a response. pad_id: the padding id.
    dtype: of the tensors beside it.
  """
  fields = {
    'architectures': [FAMILIES[config.family].architecture],
    'model_type': config.family,
    'vocab_size': config.vocab_size,
    'num_hidden_layers': config.num_layers,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_width,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_width,
    'hidden_act': 'silu',
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
  if not config.has_qkv_bias:
    fields['attention_bias'] = False
  if config.family == 'llama':
    return fields | {'mlp_bias': False}
  # Spelled out for readers with other defaults than ours.
  return fields | {
    'use_sliding_window': False,
    'sliding_window': None,
    'max_window_layers': config.num_layers,
  }
