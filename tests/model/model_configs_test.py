"""Every config.json that transformers reads is read alike, or refused by name."""

from __future__ import annotations

import copy
import json
import random

import hf_models
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.model import rope
from ds_jax.model.config import FAMILIES
from ds_jax.model.huggingface.config import config_from_hf, read_config
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance

pytest.importorskip('torch', reason='transformers on torch is the reference')

ABSENT = object()
# What is refused although transformers reads it; each names the field.
REFUSED = (
  'sliding window',
  'attention_dropout',
  'hidden_act',
  'partial_rotary_factor',
  'contradict',
  'twice and differs',
  'attention_bias',
  'softcapping',
  'bidirectional',
  'hidden_activation',
  'rope_parameters of',
  'layer_types',
  'unknown field',
  'rope type',
)


def random_rope(rng):
  """An entry as versions 4 and 5 write it, its type under either name."""
  kind = rng.choice(['default', 'linear', 'llama3', 'yarn', 'dynamic'])
  entry = {}
  for name in rng.choice([['type'], ['rope_type'], ['type', 'rope_type']]):
    entry[name] = kind
  if kind != 'default':
    entry['factor'] = rng.choice([2, 4.0, 8.0])
  if kind == 'llama3':
    entry |= {'low_freq_factor': 1.0, 'high_freq_factor': rng.choice([4, 3.5])}
  if kind == 'yarn':
    options = {'beta_fast': 16, 'beta_slow': 2, 'attention_factor': 1.2, 'truncate': False}
    entry |= {name: x for name, x in options.items() if rng.random() < 0.3}
    if rng.random() < 0.3:
      entry |= {'mscale': 0.7, 'mscale_all_dim': rng.choice([1.0, 0.5])}
  if kind in ('llama3', 'yarn') and rng.random() < 0.7:
    entry['original_max_position_embeddings'] = rng.choice([64, 128])
  extras = {'partial_rotary_factor': rng.choice([1, 1.0, 0.5]), 'finetuned': True}
  name = rng.choice([*extras, '', '', ''])
  return entry | ({name: extras[name]} if name else {})


def random_fields(rng):
  """A config.json of our families: fields are left out, null, or as some version writes them."""
  heads = rng.choice([2, 4])
  fields = {
    'model_type': rng.choice(sorted(FAMILIES)),
    'vocab_size': 61,
    'hidden_size': heads * rng.choice([4, 16]),
    'intermediate_size': 48,
    'num_hidden_layers': rng.choice([1, 3, 30]),
    'num_attention_heads': heads,
  }
  choices = {
    'num_key_value_heads': [ABSENT, None, 1, 2, heads],
    'head_dim': [ABSENT, ABSENT, 8, 12],
    'max_position_embeddings': [ABSENT, 256, 4096],
    'original_max_position_embeddings': [ABSENT, ABSENT, ABSENT, 32],
    'rms_norm_eps': [ABSENT, 1e-5],
    'tie_word_embeddings': [ABSENT, True, False],
    'hidden_act': [ABSENT, 'silu', 'swish', 'gelu'],
    'attention_bias': [ABSENT, False],
    'attention_dropout': [ABSENT, 0.0, 0, 0.1],
    'use_sliding_window': [ABSENT, False, True],
    'sliding_window': [ABSENT, None, 4096],
    'max_window_layers': [ABSENT, 0, 2, 28],
    'partial_rotary_factor': [ABSENT, ABSENT, ABSENT, 1.0],
    'torch_dtype': [ABSENT, 'bfloat16'],
    'dtype': [ABSENT, 'float32'],
    'architectures': [ABSENT, ['LlamaForCausalLM']],
    'pretraining_tp': [ABSENT, 1, 2],
    'attn_logit_softcapping': [ABSENT, 30.0],  # of other families
    'rope_theta': [ABSENT, 10000, 5e5],
    'rope_scaling': [ABSENT, ABSENT, None, random_rope(rng)],
    'rope_parameters': [ABSENT, ABSENT, None, random_rope(rng) | {'rope_theta': 5e5}],
  }
  for name, values in choices.items():
    if (value := rng.choice(values)) is not ABSENT:
      fields[name] = value
  if fields['model_type'] == 'gemma3_text':
    fields |= random_fields_of_gemma(rng)
  if rng.random() < 0.2:
    kind = rng.choice(['full_attention', 'sliding_attention'])
    fields['layer_types'] = [kind] * fields['num_hidden_layers']
  return fields


def random_fields_of_gemma(rng):
  """Those of two kinds of layers, as versions 4 and 5 write them."""
  nested = {
    'full_attention': random_rope(rng) | {'rope_theta': 5e5},
    'sliding_attention': rng.choice([{'rope_type': 'default', 'rope_theta': 2e4}, {}]),
  }
  choices = {
    'hidden_act': [None],
    'attention_dropout': [0.0],
    'hidden_activation': ['gelu_pytorch_tanh'] * 7 + ['silu'],
    'sliding_window': [4096, 512],
    'sliding_window_pattern': [6, 2],
    'query_pre_attn_scalar': [256, 24],
    'rope_local_base_freq': [None, 10000, 2e4],
    'attn_logit_softcapping': [None] * 7 + [30.0],
    'final_logit_softcapping': [None] * 7 + [30.0],
    'use_bidirectional_attention': [None] + [False] * 7 + [True],
    'rope_parameters': [None, None, nested, {'rope_type': 'default'}],
  }
  return {name: rng.choice(values) for name, values in choices.items()}


def rotations_by_transformers(config, rotary):
  """(frequencies, magnitude) by kind of layer."""
  if config.model_type != 'gemma3_text':
    return {'full_attention': (rotary.inv_freq, rotary.attention_scaling)}
  rotations = {}
  for kind in set(config.layer_types):
    names = (f'{kind}_inv_freq', f'{kind}_attention_scaling')
    rotations[kind] = tuple(getattr(rotary, name) for name in names)
  return rotations


def read_by_transformers(fields):
  """(config, rotary embedding); None where transformers refuses them."""
  import transformers
  from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
  from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

  fields = copy.deepcopy(fields)  # it changes them
  try:
    config = transformers.CONFIG_MAPPING[fields['model_type']].from_dict(fields)
    if config.model_type == 'gemma3_text':
      return config, Gemma3RotaryEmbedding(config)
    return config, LlamaRotaryEmbedding(config)
  except Exception:  # of many kinds
    return None


def is_read_otherwise_by_version_4(fields):
  """Of the two fields that it does not know, files of today are read as version 5 reads them.

  Gemma's two kinds of layers have two objects there.
  """
  is_gemma = fields['model_type'] == 'gemma3_text'
  is_newer = fields.get('rope_parameters') or 'original_max_position_embeddings' in fields
  return bool(is_gemma or is_newer)


def test_random_configs_are_read_as_transformers_reads_them():
  import transformers

  is_version_4 = transformers.__version__.startswith('4.')
  rng, num_alike, num_refused = random.Random(0), 0, 0
  for _ in range(500):
    fields = random_fields(rng)
    if is_version_4 and is_read_otherwise_by_version_4(fields):
      continue
    theirs = read_by_transformers(fields)
    try:
      ours = config_from_hf(json.loads(json.dumps(fields)))
    except InputError as e:
      # What both refuse counts for nothing: transformers finds some of it later.
      num_refused += theirs is not None
      is_later = 'not a multiple' in str(e) or 'odd' in str(e)
      assert theirs is None or is_later or any(words in str(e) for words in REFUSED), (fields, e)
      continue
    if theirs is None:
      continue
    num_alike += 1
    config, rotary = theirs
    width = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    assert (ours.num_kv_heads, ours.head_width) == (config.num_key_value_heads, width), fields
    assert ours.norm_epsilon == config.rms_norm_eps, fields
    assert ours.tie_embeddings is config.tie_word_embeddings, fields
    assert ours.max_positions == config.max_position_embeddings, fields
    if fields['model_type'].startswith('qwen'):
      assert set(config.layer_types) == {'full_attention'}, fields
    kinds = {'full_attention': rope.frequencies(width, ours.rope_theta, ours.rope_scaling)}
    if fields['model_type'] == 'gemma3_text':
      kinds['sliding_attention'] = rope.frequencies(width, ours.local_rope_theta, None)
      is_local = ours.is_local or (False,) * ours.num_layers
      assert [kind == 'sliding_attention' for kind in config.layer_types] == list(is_local), fields
      assert ours.window == config.sliding_window, fields
      assert (ours.query_scalar or width) == config.query_pre_attn_scalar, fields
    for kind, theirs in rotations_by_transformers(config, rotary).items():
      frequency, magnitude = kinds[kind]
      rtol = tolerance('float32', 16)
      np.testing.assert_allclose(frequency, theirs[0].numpy(), rtol=rtol, err_msg=str(fields))
      assert magnitude == pytest.approx(theirs[1], rel=1e-12), fields
  assert num_alike > 40 and num_refused > 40


RAW = {
  'llama': {'hidden_act': 'swish', 'num_key_value_heads': None, 'rope_theta': 5e4},
  'qwen2': {
    'num_key_value_heads': 1,
    'rope_scaling': {'type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 24},
    'use_sliding_window': True,
    'sliding_window': 8,
  },
  'qwen3': {
    'rope_theta': 1e5,
    'num_key_value_heads': 2,
    'torch_dtype': 'half',
  },
}


@pytest.mark.parametrize('family', RAW)
def test_logits_of_a_config_that_is_silent_are_those_of_transformers(family, tmp_path):
  import torch
  import transformers

  fields = {
    'model_type': family,
    'vocab_size': 61,
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
  } | RAW[family]
  torch.manual_seed(0)
  config = transformers.CONFIG_MAPPING[family].from_dict(copy.deepcopy(fields))
  config.dtype = torch.float32
  model = transformers.AutoModelForCausalLM.from_config(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.3 * torch.randn_like(parameter))
  model.save_pretrained(tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
  decoder = load_decoder(tmp_path)
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, 61, n) for n in (70, 31)]
  for ours, theirs in zip(
    hf_models.our_logits(decoder, rows), hf_models.logits(loaded, rows), strict=True
  ):
    assert_close(ours, theirs, num_terms=decoder_terms(decoder.config, len(ours)))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_a_config_that_cannot_be_read_is_named(tmp_path):
  file = tmp_path / 'config.json'
  for content in (b'[' * 100_000, b'\xff\xfe{}', b'\xef\xbb\xbf{}'):
    file.write_bytes(content)
    with pytest.raises(InputError, match='not valid JSON'):
      read_config(tmp_path)
  file.unlink()
  file.mkdir()
  with pytest.raises(InputError, match='cannot be read'):
    read_config(tmp_path)
