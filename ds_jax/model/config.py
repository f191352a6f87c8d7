"""The static description of a decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.model.rope import Scaling, YarnScaling


@dataclasses.dataclass(frozen=True)
class Family:
  """What a `model_type` fixes, and what it means where config.json lacks a field."""

  architecture: str  # class in transformers
  defaults: Mapping[str, Any]  # by the field of config.json
  rope_theta: float = 10_000.0  # where config.json names none
  has_qkv_bias: bool = False  # biases of the query, key and value projections
  has_qk_norm: bool = False  # queries and keys are normalised per head
  has_output_norms: bool = False  # what attention and MLP add is normalised, too
  norm_offset: float = 0.0  # norms multiply by this plus their parameter
  activation: str = 'silu'  # of the MLP's gate; of decoder.ACTIVATIONS
  scales_embedding: bool = False  # embeddings are multiplied by sqrt(M)
  has_local_layers: bool = False  # some layers see a window only, and have wavelengths of their own


FAMILIES: Mapping[str, Family] = {
  'qwen2': Family(
    'Qwen2ForCausalLM',
    {'num_key_value_heads': 32, 'max_position_embeddings': 32_768},
    has_qkv_bias=True,
  ),
  'qwen3': Family(
    'Qwen3ForCausalLM',
    {'num_key_value_heads': 32, 'head_dim': 128, 'max_position_embeddings': 32_768},
    has_qk_norm=True,
  ),
  'llama': Family('LlamaForCausalLM', {'max_position_embeddings': 2048}),
  'gemma3_text': Family(
    'Gemma3ForCausalLM',
    {
      'vocab_size': 262_208,
      'num_hidden_layers': 26,
      'hidden_size': 2304,
      'intermediate_size': 9216,
      'num_attention_heads': 8,
      'num_key_value_heads': 4,
      'head_dim': 256,
      'max_position_embeddings': 131_072,
      'sliding_window': 4096,
      'query_pre_attn_scalar': 256,
      'tie_word_embeddings': True,
    },
    rope_theta=1e6,
    has_qk_norm=True,
    has_output_norms=True,
    norm_offset=1.0,
    activation='gelu_pytorch_tanh',
    scales_embedding=True,
    has_local_layers=True,
  ),
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
  window: int | None = None  # positions that a local layer sees, a token's own included
  is_local: tuple[bool, ...] = ()  # by layer; (): no layer is
  local_rope_theta: float = 10_000.0  # of local layers, which no scaling stretches
  query_scalar: int | None = None  # scores are divided by its root; None: head_width
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
    if len(self.is_local) not in (0, self.num_layers) or any(self.is_local) and not self.window:
      raise InputError(
        f'is_local names {len(self.is_local)} of {self.num_layers} layers, with window = '
        f'{self.window}; name all layers, and a window if one of them is local.'
      )
    if not 0 < self.num_ids <= self.vocab_size:
      raise InputError(
        f'The tokenizer has {self.num_ids} ids, but the embedding has '
        f'{self.vocab_size} rows; use the tokenizer that belongs to the model.'
      )

  @property
  def of_family(self) -> Family:
    return FAMILIES[self.family]

  @property
  def has_local_layers(self) -> bool:
    return any(self.is_local)

  @property
  def windows(self) -> tuple[int | None, ...]:
    """By layer, the positions that it sees; None: all."""
    is_local = self.is_local or (False,) * self.num_layers
    return tuple(self.window if local else None for local in is_local)

  @property
  def query_stretch(self) -> float:
    """By how much queries are longer than those whose scores are divided by sqrt(D)."""
    return (self.head_width / (self.query_scalar or self.head_width)) ** 0.5

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
    family = self.of_family
    layer = 2 * self.width * self.head_width * (self.num_heads + self.num_kv_heads)
    layer += 3 * self.width * self.mlp_width + (4 if family.has_output_norms else 2) * self.width
    layer += family.has_qkv_bias * self.head_width * (self.num_heads + 2 * self.num_kv_heads)
    layer += family.has_qk_norm * 2 * self.head_width
    tables = self.vocab_size * self.width * (1 if self.tie_embeddings else 2)
    return self.num_layers * layer + tables + self.width
