"""The static description of a decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ds_jax.checks import InputError, check_choice
from ds_jax.model.rope import Scaling, YarnScaling


@dataclasses.dataclass(frozen=True)
class Family:
  """What a `model_type` fixes, and what it means where config.json lacks a field."""

  architecture: str  # class in transformers
  max_positions: int
  has_qkv_bias: bool = False  # biases of the query, key and value projections
  has_qk_norm: bool = False  # queries and keys are normalised per head
  num_kv_heads: int | None = None  # None: as many as query heads
  head_width: int | None = None  # None: the model's width divided by the heads


FAMILIES: Mapping[str, Family] = {
  'qwen2': Family('Qwen2ForCausalLM', has_qkv_bias=True, num_kv_heads=32, max_positions=32_768),
  'qwen3': Family(
    'Qwen3ForCausalLM', has_qk_norm=True, num_kv_heads=32, head_width=128, max_positions=32_768
  ),
  'llama': Family('LlamaForCausalLM', max_positions=2048),
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
