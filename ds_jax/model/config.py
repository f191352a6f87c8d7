"""The static description of a decoder, and what it says in a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Shape and constants of a Qwen2-family decoder. Frozen and hashable: static under jit."""
  vocab_size: int  # V, rows of the embedding
  num_ids: int  # ids the tokenizer has; ids at or beyond it are masked everywhere
  num_layers: int  # L
  width: int  # M
  mlp_width: int  # F
  num_heads: int  # H
  num_kv_heads: int  # C
  head_width: int  # D
  max_positions: int = 2048  # of a prompt and its response, as the checkpoint declares
  rope_theta: float = 10_000.0
  norm_epsilon: float = 1e-6
  tie_embeddings: bool = True
  compute_dtype: str = 'float32'  # of activations and matrix products
  remat: bool = False  # recompute each layer's activations in the backward pass

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise InputError(f'num_heads = {self.num_heads} is not a multiple of num_kv_heads = '
                       f'{self.num_kv_heads}.')
    if not 0 < self.num_ids <= self.vocab_size:
      raise InputError(f'The tokenizer has {self.num_ids} ids, but the embedding has '
                       f'{self.vocab_size} rows; use the tokenizer that belongs to the model.')

  @property
  def group_size(self) -> int:
    """G, query heads per key/value head."""
    return self.num_heads // self.num_kv_heads

  def num_parameters(self) -> int:
    attention = 2 * self.width * self.head_width * (self.num_heads + self.num_kv_heads)
    biases = self.head_width * (self.num_heads + 2 * self.num_kv_heads)
    layer = attention + biases + 3 * self.width * self.mlp_width + 2 * self.width
    tables = self.vocab_size * self.width * (1 if self.tie_embeddings else 2)
    return self.num_layers * layer + tables + self.width


def config_from_hf(fields: Mapping[str, Any], num_ids: int | None = None) -> DecoderConfig:
  """Returns the DecoderConfig of a Hugging Face `config.json`.

  Args:
    fields: the parsed file.
    num_ids: ids of the tokenizer; None: as many as the embedding has rows.

  Raises:
    InputError: names what is unsupported; nothing is silently ignored.
  """
  model_type = fields.get('model_type')
  if model_type != 'qwen2':
    raise InputError(f"Expected model_type 'qwen2' in config.json, got {model_type!r}.")
  if fields.get('use_sliding_window'):
    raise InputError('config.json has use_sliding_window = true, which is not supported.')
  if fields.get('hidden_act', 'silu') != 'silu':
    raise InputError(f"Expected hidden_act 'silu', got {fields['hidden_act']!r}.")
  # transformers 5 writes rope_parameters; earlier versions rope_theta and rope_scaling.
  rope = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
  rope_type = rope.get('rope_type', rope.get('type', 'default'))
  if rope_type != 'default':
    raise InputError(f"Expected rope type 'default', got {rope_type!r}, which is not supported.")
  missing = [name for name in ('vocab_size', 'num_hidden_layers', 'hidden_size',
                               'intermediate_size', 'num_attention_heads') if name not in fields]
  if missing:
    raise InputError(f'config.json lacks {", ".join(missing)}.')
  heads = fields['num_attention_heads']
  return DecoderConfig(
      vocab_size=fields['vocab_size'], num_ids=num_ids or fields['vocab_size'],
      num_layers=fields['num_hidden_layers'], width=fields['hidden_size'],
      mlp_width=fields['intermediate_size'], num_heads=heads,
      num_kv_heads=fields.get('num_key_value_heads', heads),
      head_width=fields.get('head_dim') or fields['hidden_size'] // heads,
      max_positions=fields.get('max_position_embeddings', 2048),
      rope_theta=float(rope.get('rope_theta', fields.get('rope_theta', 10_000.0))),
      norm_epsilon=float(fields.get('rms_norm_eps', 1e-6)),
      tie_embeddings=bool(fields.get('tie_word_embeddings', False)))


def config_to_hf(config: DecoderConfig, stop_ids: tuple[int, ...], pad_id: int) -> dict[str, Any]:
  """Returns the fields of the `config.json` that transformers reads as a Qwen2 model."""
  return {
      'architectures': ['Qwen2ForCausalLM'], 'model_type': 'qwen2',
      'vocab_size': config.vocab_size, 'num_hidden_layers': config.num_layers,
      'hidden_size': config.width, 'intermediate_size': config.mlp_width,
      'num_attention_heads': config.num_heads, 'num_key_value_heads': config.num_kv_heads,
      'head_dim': config.head_width, 'hidden_act': 'silu', 'rope_theta': config.rope_theta,
      'rms_norm_eps': config.norm_epsilon, 'tie_word_embeddings': config.tie_embeddings,
      'max_position_embeddings': config.max_positions, 'use_sliding_window': False,
      'attention_dropout': 0.0, 'initializer_range': 0.02,
      'eos_token_id': stop_ids[0], 'bos_token_id': None, 'pad_token_id': pad_id,
      'dtype': 'float32', 'torch_dtype': 'float32',
  }
