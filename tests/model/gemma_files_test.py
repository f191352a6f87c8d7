"""Gemma's files: defaults, what is refused, the language model within one of images and text."""

from __future__ import annotations

import json

import hf_models
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds_jax.checks import InputError
from ds_jax.data.end_ids import end_ids
from ds_jax.model import rope
from ds_jax.model.decoder import embed, init_decoder
from ds_jax.model.huggingface.config import config_from_hf, config_to_hf
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.plan.command import KNOWN
from ds_jax.testing.tolerance import assert_close, decoder_terms

# As published for the model of 4 billion parameters.
PUBLISHED_4B = {
  'model_type': 'gemma3',
  'architectures': ['Gemma3ForConditionalGeneration'],
  'eos_token_id': [1, 106],
  'image_token_index': 262_144,
  'text_config': {
    'model_type': 'gemma3_text',
    'hidden_size': 2560,
    'intermediate_size': 10_240,
    'num_hidden_layers': 34,
    'sliding_window': 1024,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
  },
  'vision_config': {'model_type': 'siglip_vision_model', 'hidden_size': 1152},
}
PUBLISHED_1B = {
  'model_type': 'gemma3_text',
  'hidden_activation': 'gelu_pytorch_tanh',
  'hidden_size': 1152,
  'intermediate_size': 6912,
  'num_hidden_layers': 26,
  'num_attention_heads': 4,
  'num_key_value_heads': 1,
  'head_dim': 256,
  'query_pre_attn_scalar': 256,
  'max_position_embeddings': 32_768,
  'rms_norm_eps': 1e-6,
  'rope_theta': 1_000_000,
  'rope_local_base_freq': 10_000,
  'rope_scaling': None,
  'sliding_window': 512,
  'sliding_window_pattern': 6,
  'vocab_size': 262_144,
  'attn_logit_softcapping': None,
  'final_logit_softcapping': None,
}


def test_published_files_are_read_with_the_defaults_of_transformers():
  config = config_from_hf(PUBLISHED_4B)
  assert (config.num_heads, config.num_kv_heads, config.head_width) == (8, 4, 256)
  assert (config.vocab_size, config.max_positions, config.window) == (262_208, 131_072, 1024)
  assert config.rope_scaling == rope.LinearScaling(8.0) and config.rope_theta == 1e6
  assert config.local_rope_theta == 1e4 and config.tie_embeddings
  assert config.query_scalar is None  # as wide as a head
  assert [i for i, local in enumerate(config.is_local) if not local] == [5, 11, 17, 23, 29]
  assert config_from_hf(PUBLISHED_1B) == KNOWN['gemma-3-1b-it']


def test_what_is_written_is_read_again():
  for published in (PUBLISHED_4B, PUBLISHED_1B):
    config = config_from_hf(published)
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config, (1, 106), 0)))) == config


@pytest.mark.parametrize(
  'change, words',
  [
    ({'attn_logit_softcapping': 50.0}, 'attn_logit_softcapping = 50.0'),
    ({'final_logit_softcapping': 30.0}, 'final_logit_softcapping = 30.0'),
    ({'use_bidirectional_attention': True}, 'use_bidirectional_attention = True'),
    ({'hidden_activation': 'silu'}, 'hidden_activation'),
    ({'hidden_act': 'silu'}, 'hidden_act'),
    ({'attention_bias': True}, 'attention_bias'),
    ({'sliding_window': None}, 'sliding_window = None is no positive integer'),
    ({'sliding_window_pattern': 0}, 'sliding_window_pattern = 0'),
    ({'query_pre_attn_scalar': '256'}, 'query_pre_attn_scalar'),
    ({'layer_types': ['full_attention']}, 'expected 26 times'),
    ({'layer_types': ['chunked_attention'] * 26}, 'layer_types'),
    ({'rope_parameters': {'rope_type': 'default'}}, 'rope_parameters of'),
    ({'rope_parameters': 'default'}, 'no object'),
    (
      {'rope_parameters': {'sliding_attention': {'rope_type': 'linear', 'factor': 2.0}}},
      "rope type of 'sliding_attention'",
    ),
    ({'rope_local_base_freq': 0}, 'rope_theta'),
    (
      {
        'rope_local_base_freq': 1e4,
        'rope_parameters': {'sliding_attention': {'rope_theta': 2e4}},
      },
      'twice and differs',
    ),
  ],
)
def test_what_is_unsupported_is_refused_by_name(change, words):
  with pytest.raises(InputError, match=words):
    config_from_hf(PUBLISHED_1B | change)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'text_config': None}, 'no object text_config'),
    ({'quantization_config': {'bits': 4}}, 'quantization_config'),
    (
      {'tie_word_embeddings': True, 'text_config': PUBLISHED_1B | {'tie_word_embeddings': False}},
      'contradict each other: tie_word_embeddings',
    ),
    ({'text_config': PUBLISHED_1B | {'model_type': 'gemma2'}}, "'gemma2'"),
  ],
)
def test_what_surrounds_a_language_model_is_checked(change, words):
  with pytest.raises(InputError, match=words):
    config_from_hf(PUBLISHED_4B | change)


def test_embeddings_are_scaled_by_a_rounded_number():
  config = hf_models.SMALL
  config = type(config)(**(vars(config) | dict(family='gemma3_text', compute_dtype='bfloat16')))
  decoder = init_decoder(config, jax.random.key(0))
  row = np.asarray(decoder.embedding[3]).astype(jax.numpy.bfloat16)
  rounded = np.float32(32**0.5).astype(jax.numpy.bfloat16)  # 5.65685 becomes 5.65625
  assert float(rounded) == 5.65625
  np.testing.assert_array_equal(embed(decoder, np.array(3)), row * rounded)


def test_all_end_ids_of_an_instruct_model_end(tmp_path):
  (tmp_path / 'generation_config.json').write_text('{"eos_token_id": [1, 106]}')
  assert end_ids(tmp_path) == [1, 106]


def of_images_and_text(folder):
  """A tiny model with a part that sees images; its language model answers for it."""
  torch = pytest.importorskip('torch', reason='transformers on torch is the reference')
  import transformers

  torch.manual_seed(0)
  case = next(case for case in hf_models.CASES if case.name == 'gemma3')
  rope_fields = hf_models.rope_fields(case.fields['rope_parameters'])
  text = {**case.fields, **rope_fields, 'model_type': 'gemma3_text', 'pad_token_id': 0}
  vision = dict(
    model_type='siglip_vision_model',
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
  )
  config = transformers.Gemma3Config(
    text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=60
  )
  model = transformers.Gemma3ForConditionalGeneration(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.3 * torch.randn_like(parameter))
  model.save_pretrained(folder)
  return model


OLDER = {
  'model.language_model.': 'language_model.model.',
  'model.vision_tower.': 'vision_tower.',
  'model.multi_modal_projector.': 'multi_modal_projector.',
}


def test_the_language_model_within_one_of_images_is_read_and_goes_back(tmp_path):
  import transformers

  theirs = of_images_and_text(tmp_path / 'theirs')
  lines = []
  decoder = load_decoder(tmp_path / 'theirs', note=lines.append)
  (line,) = lines
  assert 'passed over' in line and ('vision_tower' in line or 'projector' in line)
  rows = [np.random.default_rng(0).integers(1, 59, 60)]
  (expected,) = hf_models.logits(theirs, rows)
  (found,) = hf_models.our_logits(decoder, rows)
  assert_close(found, expected, num_terms=decoder_terms(decoder.config, 60))

  file = tmp_path / 'theirs/model.safetensors'
  tensors = load_file(file)
  is_older = any(name.startswith('language_model.') for name in tensors)
  renaming = {new: old for old, new in OLDER.items()} if is_older else OLDER
  renamed = {}
  for name, tensor in tensors.items():
    prefix = next((prefix for prefix in renaming if name.startswith(prefix)), '')
    renamed[renaming.get(prefix, '') + name.removeprefix(prefix)] = tensor
  assert renamed.keys() != tensors.keys()
  save_file(renamed, file, metadata={'format': 'pt'})
  again = load_decoder(tmp_path / 'theirs')
  jax.tree.map(np.testing.assert_array_equal, again, decoder)

  out = tmp_path / 'ours'
  save_decoder(decoder, out, stop_ids=(1, 106), pad_id=0, original=tmp_path / 'theirs')
  alone = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
  assert type(alone) is transformers.Gemma3ForCausalLM
  assert_close(
    hf_models.logits(alone, rows)[0], expected, num_terms=decoder_terms(again.config, 60)
  )
  reloaded = load_decoder(out, note=lines.append)
  assert reloaded.config == decoder.config and len(lines) == 1
  jax.tree.map(np.testing.assert_array_equal, reloaded, decoder)


def test_an_unknown_tensor_of_such_a_model_is_named(tmp_path):
  of_images_and_text(tmp_path / 'm')
  file = tmp_path / 'm/model.safetensors'
  tensors = load_file(file)
  save_file(tensors | {'model.audio_tower.x': np.zeros(2, np.float32)}, file)
  with pytest.raises(InputError, match=r'unknown model.audio_tower.x'):
    load_decoder(tmp_path / 'm')
