"""Tiny models of every supported family, randomly initialised by transformers on torch; logits."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Rows, compute_logits, forward

VOCAB_SIZE = 61
# A decoder of ours that is written and read in tests of folders.
SMALL = DecoderConfig(
  vocab_size=64,
  num_ids=57,
  num_layers=3,
  width=32,
  mlp_width=48,
  num_heads=8,
  num_kv_heads=2,
  head_width=8,
  tie_embeddings=False,
)

_YARN = dict(rope_type='yarn', rope_theta=5e3, factor=4.0, original_max_position_embeddings=24)
_LLAMA3 = dict(
  rope_type='llama3',
  rope_theta=5e3,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=64,
)
_LINEAR = dict(rope_type='linear', rope_theta=5e3, factor=3.0)


# Of Gemma, which has two kinds of layers.
_BY_KIND = dict(
  full_attention=dict(rope_type='default', rope_theta=5e3),
  sliding_attention=dict(rope_type='default', rope_theta=3e2),
)
_LINEAR_BY_KIND = _BY_KIND | dict(full_attention=_LINEAR)


@dataclasses.dataclass(frozen=True)
class Case:
  """A class of transformers and fields of its config."""

  name: str
  architecture: str
  fields: dict[str, Any]


def _case(name: str, **fields: Any) -> Case:
  family = {'qwen2': 'Qwen2', 'qwen3': 'Qwen3', 'llama': 'Llama', 'gemma3': 'Gemma3'}[
    name.split('-')[0]
  ]
  base = dict(
    vocab_size=VOCAB_SIZE,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    max_position_embeddings=256,
    rope_parameters=dict(rope_type='default', rope_theta=5e3),
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
  )
  return Case(name, f'{family}ForCausalLM', base | fields)


CASES = (
  _case('qwen2-tied'),
  _case('qwen2-untied', tie_word_embeddings=False),
  _case('qwen2-one-kv-head-six-layers', num_key_value_heads=1, num_hidden_layers=6),
  _case('qwen2-yarn', rope_parameters=_YARN),
  _case('qwen2-linear', rope_parameters=_LINEAR, rms_norm_eps=1e-5),
  _case('qwen3-tied-wide-heads', head_dim=16),  # as Qwen3 0.6B: heads are twice the width
  _case('qwen3-untied-narrow-heads', head_dim=6, tie_word_embeddings=False),
  _case(
    'qwen3-yarn-untruncated',
    head_dim=16,
    rope_parameters={
      **_YARN,
      'truncate': False,
      'beta_fast': 8.0,
      'beta_slow': 2.0,
      'attention_factor': 1.3,
    },
  ),
  _case('qwen3-linear-all-kv-heads', head_dim=8, num_key_value_heads=4, rope_parameters=_LINEAR),
  _case('llama-untied', tie_word_embeddings=False, rms_norm_eps=1e-5),
  _case('llama-llama3', rope_parameters=_LLAMA3),
  _case(
    'llama-llama3-explicit-heads-five-layers',
    rope_parameters=_LLAMA3,
    head_dim=12,
    num_hidden_layers=5,
    tie_word_embeddings=False,
  ),
  _case('llama-yarn-mscale', rope_parameters={**_YARN, 'mscale': 1.0, 'mscale_all_dim': 0.7}),
  _case('llama-linear-all-kv-heads', num_key_value_heads=None, rope_parameters=_LINEAR),
  # As SmolLM2 135M.
  _case(
    'llama-nine-heads-in-threes',
    hidden_size=36,
    num_attention_heads=9,
    num_key_value_heads=3,
    rms_norm_eps=1e-5,
  ),
  # Rows have 88 positions: windows are passed several times.
  _case('gemma3', head_dim=16, sliding_window=7, rope_parameters=_BY_KIND, num_hidden_layers=7),
  _case(
    'gemma3-linear-one-kv-head-narrow-queries',
    head_dim=16,
    query_pre_attn_scalar=24,
    num_key_value_heads=1,
    sliding_window=20,
    layer_types=['full_attention', 'sliding_attention'],
    rope_parameters=_LINEAR_BY_KIND,
  ),
  _case(
    'gemma3-untied-without-windows',
    head_dim=8,
    tie_word_embeddings=False,
    layer_types=['full_attention'] * 2,
    rope_parameters=_BY_KIND,
  ),
)


def make(case: Case) -> Any:
  """The model with every parameter, norms and biases too, at random."""
  import torch
  import transformers

  torch.set_num_threads(1)  # these models are too small for more
  torch.manual_seed(0)
  cls = getattr(transformers, case.architecture)
  fields = dict(case.fields)
  fields |= rope_fields(fields.pop('rope_parameters'))
  model = cls(cls.config_class(**fields)).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.3 * torch.randn_like(parameter))
  return model


def rope_fields(parameters: dict[str, Any]) -> dict[str, Any]:
  """Fields of a config for some parameters of rope; transformers 4 has two of them."""
  import transformers

  if not transformers.__version__.startswith('4.'):
    return {'rope_parameters': parameters}
  if 'sliding_attention' in parameters:
    local = parameters['sliding_attention']['rope_theta']
    return rope_fields(parameters['full_attention']) | {'rope_local_base_freq': local}
  scaling = dict(parameters)
  theta = scaling.pop('rope_theta')
  is_scaled = scaling['rope_type'] != 'default'
  return {'rope_theta': theta, 'rope_scaling': scaling if is_scaled else None}


def save(case: Case, folder: pathlib.Path, **kwargs: Any) -> Any:
  """Makes the model and writes it as transformers does."""
  model = make(case)
  model.save_pretrained(folder, **kwargs)
  return model


def padded(rows: list[np.ndarray]) -> dict[str, Any]:
  """Arguments of a transformers model for rows of unequal length, padded on the left."""
  import torch

  width = max(map(len, rows))
  ids, mask = np.zeros((2, len(rows), width), np.int64)
  for i, row in enumerate(rows):
    ids[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
  return dict(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))


def logits(model: Any, rows: list[np.ndarray]) -> list[np.ndarray]:
  """Logits `[len(row), V]` of each row, computed in one batch padded on the left."""
  import torch

  inputs = padded(rows)
  positions = (inputs['attention_mask'].cumsum(-1) - 1).clamp(min=0)
  with torch.no_grad():
    out = model(**inputs, position_ids=positions).logits.numpy()
  return [out[i, out.shape[1] - len(row) :] for i, row in enumerate(rows)]


def greedy(model: Any, rows: list[np.ndarray], num_tokens: int) -> list[np.ndarray]:
  """The `num_tokens` most likely tokens after each row, by `generate` on the padded batch."""
  import torch

  inputs = padded(rows)
  with torch.no_grad():
    out = model.generate(
      **inputs, max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    ).numpy()
  return list(out[:, inputs['input_ids'].shape[1] :])


@functools.partial(jax.jit, static_argnames='length')
def _our_logits(decoder, rows, length):
  shape = rows.shape
  positions = jnp.broadcast_to(jnp.arange(length), shape)
  hidden = forward(decoder, Rows(rows, positions, jnp.full(shape, length)))
  return compute_logits(decoder, hidden)


def our_logits(decoder, rows, length=88):
  """Logits `[len(row), V]` of each row by our decoder, in one pass padded on the right."""
  batch = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
  out = np.asarray(_our_logits(decoder, batch, length))
  return [x[: len(row)] for x, row in zip(out, rows, strict=True)]
