"""Every family against transformers: logits, greedy tokens, export; and what is refused."""

from __future__ import annotations

import json

import hf_models
import jax
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.model import rope
from ds_jax.model.huggingface.config import config_from_hf
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance

torch = pytest.importorskip('torch', reason='transformers on torch is the reference')
NUM_TOKENS = 64


@pytest.mark.parametrize('case', hf_models.CASES, ids=lambda case: case.name)
def test_family_equals_transformers_and_goes_back(case, tmp_path):
  theirs = hf_models.save(case, tmp_path / 'theirs')
  decoder = load_decoder(tmp_path / 'theirs')
  rng = np.random.default_rng(0)
  prompts = [rng.integers(0, hf_models.VOCAB_SIZE, n) for n in (23, 5)]
  tokens = hf_models.greedy(theirs, prompts, NUM_TOKENS)
  rows = [np.concatenate(pair) for pair in zip(prompts, tokens, strict=True)]
  expected, ours = hf_models.logits(theirs, rows), hf_models.our_logits(decoder, rows)
  for prompt, continuation, a, b in zip(prompts, tokens, ours, expected, strict=True):
    assert_close(a, b, num_terms=decoder_terms(decoder.config, len(a)))
    # By induction over prefixes: these are the tokens of our own greedy continuation.
    np.testing.assert_array_equal(a[len(prompt) - 1 : -1].argmax(-1), continuation)

  save_decoder(decoder, tmp_path / 'ours', stop_ids=(3,), pad_id=0)
  import transformers

  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'ours').eval()
  assert type(again) is type(theirs)
  for a, b in zip(hf_models.logits(again, rows), expected, strict=True):
    assert_close(a, b, num_terms=decoder_terms(decoder.config, len(a)))
  reloaded = load_decoder(tmp_path / 'ours')
  assert reloaded.config == decoder.config
  jax.tree.map(np.testing.assert_array_equal, reloaded, decoder)


def test_frequencies_equal_those_of_transformers_at_the_sizes_in_use():
  import transformers
  from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

  llama3 = dict(
    factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
  )
  for width, parameters in (
    (128, dict(rope_type='default', rope_theta=1e6)),
    (64, dict(rope_type='llama3', rope_theta=5e5, **llama3)),
    (
      128,
      dict(rope_type='yarn', rope_theta=1e6, factor=4.0, original_max_position_embeddings=8192),
    ),
  ):
    config = transformers.Qwen3Config(head_dim=width, **hf_models.rope_fields(parameters))
    theirs, ours = Qwen3RotaryEmbedding(config), config_from_hf(config.to_dict())
    frequency, magnitude = rope.frequencies(width, ours.rope_theta, ours.rope_scaling)
    # theta ** x is exp(x log theta): the rounding of the exponent, at most 14, counts 14 times.
    np.testing.assert_allclose(
      frequency, theirs.inv_freq.numpy(), rtol=tolerance('float32', 14 + 2)
    )
    assert magnitude == theirs.attention_scaling


@pytest.mark.parametrize(
  'name, change, expected',
  [
    ('qwen2', dict(rope_theta=1e6), None),
    ('qwen2', dict(rope_scaling=None, rope_theta=1e6), None),
    (
      'qwen2',
      dict(rope_scaling={'type': 'linear', 'factor': 2}, rope_theta=1e6),
      rope.LinearScaling(2.0),
    ),
    (
      'qwen2',
      dict(
        rope_scaling={'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 64},
        rope_theta=1e6,
      ),
      rope.YarnScaling(4.0, 64, 32.0, 1.0, 0.1 * np.log(4) + 1, True),
    ),
    (
      'llama',
      dict(
        rope_scaling={
          'rope_type': 'llama3',
          'factor': 8.0,
          'low_freq_factor': 1.0,
          'high_freq_factor': 4.0,
        },
        rope_theta=1e6,
      ),
      rope.Llama3Scaling(8.0, 1.0, 4.0, 99),
    ),
    ('qwen3', dict(rope_parameters={'rope_type': 'default', 'rope_theta': 1e6}), None),
  ],
)
def test_rope_is_read_as_older_and_newer_files_write_it(name, change, expected):
  config = config_from_hf(fields(name) | change)
  assert config.rope_scaling == expected and config.rope_theta == 1e6


def fields(name):
  return {
    'model_type': name,
    'vocab_size': 9,
    'num_hidden_layers': 1,
    'hidden_size': 8,
    'intermediate_size': 8,
    'num_attention_heads': 2,
    'num_key_value_heads': 2,
    'head_dim': 4,
    'max_position_embeddings': 99,
  }


SLIDING = dict(use_sliding_window=True, sliding_window=64, max_window_layers=0)


@pytest.mark.parametrize(
  'name, change, words',
  [
    ('qwen2', {'model_type': 'gpt2'}, "'gpt2'"),
    ('qwen2', {'model_type': 'qwen3_moe'}, 'mixtures of experts'),
    ('qwen2', {'model_type': None}, 'model_type'),
    ('qwen3', SLIDING, 'sliding_window = 64'),
    ('qwen2', {'layer_types': ['sliding_attention']}, 'sliding window'),
    ('qwen2', {'hidden_act': 'gelu'}, 'gelu'),
    ('qwen3', {'attention_bias': True}, 'attention_bias'),
    ('llama', {'attention_bias': True}, 'attention_bias'),
    ('llama', {'mlp_bias': True}, 'mlp_bias'),
    ('qwen3', {'num_experts': 8}, 'num_experts'),
    ('qwen3', {'partial_rotary_factor': 0.5}, 'partial_rotary_factor'),
    ('qwen2', {'attention_dropout': 0.1}, 'attention_dropout'),
    ('llama', {'quantization_config': {'bits': 4}}, 'quantization_config'),
    ('qwen2', {'auto_map': {'AutoModelForCausalLM': 'x.Y'}}, 'auto_map'),
    ('qwen2', {'rope_scaling': {'type': 'dynamic', 'factor': 2.0}}, 'dynamic'),
    ('qwen2', {'rope_scaling': {'rope_type': 'longrope'}}, 'longrope'),
    ('qwen2', {'rope_scaling': {'type': 'linear'}}, 'lacks factor'),
    ('qwen2', {'rope_scaling': {'type': 'linear', 'factor': 'x'}}, 'no positive number'),
    ('qwen2', {'rope_scaling': {'type': 'yarn', 'factor': 2.0, 'beta': 1.0}}, 'unknown field beta'),
    ('qwen2', {'rope_scaling': {'type': 'mrope', 'mrope_section': [1]}}, 'mrope'),
    ('qwen2', {'rope_scaling': 'yarn'}, 'no object'),
    (
      'qwen2',
      {
        'rope_scaling': {'type': 'linear', 'factor': 2.0},
        'rope_parameters': {'rope_type': 'default'},
      },
      'contradict',
    ),
    ('qwen2', {'num_hidden_layers': '2'}, 'no positive integer'),
    ('qwen3', {'head_dim': None}, 'head_dim = None is no positive integer'),
    ('llama', {'max_position_embeddings': None}, 'no positive integer'),
    ('qwen2', {'num_attention_heads': 3}, 'not a multiple'),
    ('llama', {'head_dim': 3}, 'odd'),
    ('llama', {'model_type': ['llama']}, 'model_type'),
    ('llama', {'model_type': 'llava', 'text_config': {'model_type': 'llama'}}, 'models of images'),
    ('llama', {'text_config': {'hidden_size': 8}}, 'text_config'),
    ('qwen2', {'is_causal': False}, 'is_causal'),
    ('qwen2', {'per_layer_config': {'0': {}}}, 'per_layer_config'),
    ('qwen2', {'transformers_weights': 'other.safetensors'}, 'transformers_weights'),
    ('qwen2', {'compression_config': {'format': 'int'}}, 'compression_config'),
    ('qwen2', {'tie_word_embeddings': 'false'}, 'no true or false'),
    ('qwen2', {'rms_norm_eps': None}, 'rms_norm_eps'),
    ('qwen2', {'rms_norm_eps': '1e-6'}, 'rms_norm_eps'),
    ('qwen2', {'rms_norm_eps': float('nan')}, 'rms_norm_eps'),
    ('qwen2', {'rope_theta': 0}, 'rope_theta'),
    ('qwen2', {'rope_theta': 10**400}, 'rope_theta'),
    ('qwen2', {'rope_theta': '1e6'}, 'rope_theta'),
    ('qwen2', {'rope_theta': 1e4, 'rope_parameters': {'rope_theta': 1e6}}, 'twice and differs'),
    ('qwen2', {'rope_parameters': {'full_attention': {'rope_theta': 1e6}}}, 'full_attention'),
    ('qwen2', {'rope_parameters': {'partial_rotary_factor': 0.5}}, 'partial_rotary_factor'),
    ('qwen2', {'rope_scaling': {'type': ['yarn']}}, 'rope type'),
    ('qwen2', {'rope_scaling': {'type': 'yarn', 'factor': 2.0, 'truncate': 'no'}}, 'truncate'),
    ('qwen2', {'rope_scaling': {'factor': 2.0}}, 'factor'),
    ('qwen2', {'layer_types': 'full'}, 'sliding window'),
    ('qwen2', SLIDING | {'max_window_layers': '0'}, 'sliding window'),
  ],
)
def test_what_is_unsupported_is_refused_by_name(name, change, words):
  assert config_from_hf(fields(name)).head_width == 4
  with pytest.raises(InputError, match=words):
    config_from_hf(fields(name) | change)


def test_sizes_without_a_default_are_named_together():
  short = {k: v for k, v in fields('qwen3').items() if k not in ('vocab_size', 'hidden_size')}
  with pytest.raises(InputError, match='lacks vocab_size; it lacks hidden_size'):
    config_from_hf(short)


def test_a_window_that_no_layer_uses_is_none():
  for unused in (dict(use_sliding_window=False), dict(max_window_layers=1)):
    assert config_from_hf(fields('qwen2') | SLIDING | unused) == config_from_hf(fields('qwen2'))


def test_yarn_reaches_beyond_the_declared_positions():
  yarn = {'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 99}
  assert config_from_hf(fields('qwen2') | {'rope_scaling': yarn}).context_limit == 396
  assert config_from_hf(fields('qwen2')).context_limit == 99


def test_exported_config_repeats_itself(tmp_path):
  case = hf_models.CASES[3]
  hf_models.save(case, tmp_path / 'a')
  save_decoder(load_decoder(tmp_path / 'a'), tmp_path / 'b', stop_ids=(3, 4), pad_id=0)
  save_decoder(load_decoder(tmp_path / 'b'), tmp_path / 'c', stop_ids=(3, 4), pad_id=0)
  first, second = (json.loads((tmp_path / n / 'config.json').read_text()) for n in 'bc')
  assert first == second and first['eos_token_id'] == [3, 4]
