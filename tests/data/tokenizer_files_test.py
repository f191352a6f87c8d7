"""Whatever class a folder names, and whatever transformers makes of it: tokens as its file says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizer_folders as folders
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from ds_jax.checks import InputError
from ds_jax.data import tokenizer_files
from ds_jax.data.prompts import load_tokenizer, save_tokenizer

TEXTS = (*tokenizer_files.PROBES, 'x', '', '  ', 'f(x)=\\sqrt{x}\n\n\n', 'e\u0301e\u0301')
CLASSES = (
  None,
  'LlamaTokenizerFast',
  'LlamaTokenizer',
  'Qwen2Tokenizer',
  'GPT2TokenizerFast',
  'GemmaTokenizerFast',
  'PreTrainedTokenizerFast',
  'ATokenizerOfNobody',
)


def assert_as_the_file_says(folder):
  file = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  file.no_truncation()
  file.no_padding()
  ours = load_tokenizer(folder)
  for text in TEXTS:
    ids = file.encode(text, add_special_tokens=False).ids
    assert ours.encode_response(text)[:-1].tolist() == ids
    assert ours.decode_response(np.asarray(ids)) == file.decode(ids)
  return ours


@pytest.mark.parametrize('model', ['llama', 'qwen2'])
@pytest.mark.parametrize('name', CLASSES)
def test_byte_level_files_of_any_class(tmp_path, name, model):
  """transformers 5.3 lost all spaces of those of LlamaTokenizer."""
  folder = folders.write_folder(
    tmp_path, folders.byte_level(), tokenizer_class=name, config={'model_type': model}
  )
  ours = assert_as_the_file_says(folder)
  assert len(ours.encode_response('1234567')) == 8  # a digit at a time, and the end
  assert ours.stop_ids == (1,) and ours.pad_id == 2


@pytest.mark.parametrize('name', ['LlamaTokenizerFast', 'GemmaTokenizerFast', 'Qwen2Tokenizer'])
def test_metaspace_files_of_any_class(tmp_path, name):
  folder = folders.write_folder(
    tmp_path, folders.metaspace(), tokenizer_class=name, config={'model_type': 'llama'}
  )
  assert_as_the_file_says(folder)


def test_parts_that_transformers_changes(tmp_path):
  tokenizer = folders.byte_level(
    normalizer=normalizers.NFD(), pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)
  )
  for name in ('PreTrainedTokenizerFast', 'GPT2TokenizerFast'):
    assert_as_the_file_says(folders.write_folder(tmp_path / name, tokenizer, tokenizer_class=name))


def test_limits_in_the_file_cut_and_pad_nothing(tmp_path):
  tokenizer = folders.byte_level()
  tokenizer.enable_truncation(4)
  tokenizer.enable_padding(length=16)
  assert_as_the_file_says(folders.write_folder(tmp_path, tokenizer))


def test_code_beside_a_model_is_not_run(tmp_path):
  folder = folders.write_folder(
    tmp_path,
    folders.byte_level(),
    tokenizer_class='Mine',
    auto_map={'AutoTokenizer': ['mine.Mine', None]},
  )
  (folder / 'mine.py').write_text(f'open({str(tmp_path / "run")!r}, "w")\n')
  assert_as_the_file_says(folder)
  assert not (tmp_path / 'run').exists()


def test_a_folder_that_nothing_loads_right_is_refused_by_name(tmp_path, monkeypatch):
  other = folders.write_folder(tmp_path / 'other', folders.byte_level(normalizer=normalizers.NFC()))
  folder = folders.write_folder(tmp_path / 'mine', folders.byte_level())
  wrong = tokenizer_files.load_backend(other)

  def load(folder):
    return wrong

  for name in ('_load_by_class', '_load_generic', '_load_with_parts'):
    monkeypatch.setattr(tokenizer_files, name, load)
  with pytest.raises(
    InputError, match=r"mine' that does what its tokenizer.json says.*reads 'cafe"
  ):
    load_tokenizer(folder)


@pytest.mark.parametrize(
  'name, content, says',
  [
    ('tokenizer_config.json', b'{', 'cannot be read'),
    ('tokenizer_config.json', b'[]', 'to be a JSON object'),
    ('special_tokens_map.json', b'"x"', 'to be a JSON object'),
    ('chat_template.jinja', b'caf\xe9', 'cannot be read'),
  ],
)
def test_the_broken_file_of_several_is_named(tmp_path, name, content, says):
  folder = folders.write_folder(tmp_path, folders.byte_level())
  (folder / name).write_bytes(content)
  with pytest.raises(InputError, match=f'{name}.*{says}'):
    load_tokenizer(folder)


def test_special_tokens_keep_their_ids_within_text(tmp_path):
  folder = folders.write_folder(
    tmp_path, folders.byte_level(), tokenizer_class='LlamaTokenizer', config={'model_type': 'llama'}
  )
  assert load_tokenizer(folder).encode_response('a<pad>b').tolist()[1:] == [
    2,
    *load_tokenizer(folder).encode_response('b').tolist(),
  ]


# Folders without tokenizer.json.


def test_a_sentencepiece_model_alone_is_refused_with_a_remedy(tmp_path):
  (tmp_path / 'tokenizer.model').write_bytes(b'\n\x0b\n\x05<unk>\x15\x00')
  (tmp_path / 'tokenizer_config.json').write_text('{"tokenizer_class": "LlamaTokenizer"}')
  with pytest.raises(
    InputError, match='has no tokenizer.json; write a tokenizer.json.*sentencepiece'
  ):
    load_tokenizer(tmp_path)


@pytest.mark.parametrize('name', ['GPT2Tokenizer', 'Qwen2Tokenizer'])
def test_vocab_and_merges_alone(tmp_path, name):
  tokenizer = folders.byte_level(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False))
  folder = folders.write_folder(tmp_path, tokenizer, tokenizer_class=name)
  tokenizer.model.save(str(folder))
  (folder / 'tokenizer.json').unlink()
  ours = load_tokenizer(folder)
  for text in ('Hello  world\n 123', '日本語'):
    assert ours.decode_response(ours.encode_response(text)) == text


def test_a_vocabulary_that_loses_text_is_refused(tmp_path):
  (tmp_path / 'vocab.json').write_text(json.dumps({'a': 0, 'b': 1, '</s>': 2, '<unk>': 3}))
  (tmp_path / 'merges.txt').write_text('#version: 0.2\n')
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'tokenizer_class': 'GPT2Tokenizer', 'eos_token': '</s>', 'unk_token': '<unk>'})
  )
  with pytest.raises(InputError, match='loses .* on the way to tokens and back'):
    load_tokenizer(tmp_path)


# Ids that the embedding lacks.


def padded_folder(folder, num_missing=1):
  tokenizer = folders.byte_level()
  tokenizer.add_special_tokens(['[PAD]', '[MORE]'][:num_missing])
  rows = tokenizer.get_vocab_size() - num_missing
  return folders.write_folder(
    folder,
    tokenizer,
    pad_token='[PAD]',
    chat_template=folders.CHATML,
    config={'model_type': 'llama', 'vocab_size': rows},
  ), rows


def test_ids_beyond_the_embedding_are_refused_only_in_prompts_and_responses(tmp_path):
  folder, rows = padded_folder(tmp_path)
  ours = load_tokenizer(folder)
  assert (ours.num_ids, ours.num_without_row, ours.pad_id) == (rows, 1, 1)
  assert ours.encode_prompt('What is 1+2?').max() < rows
  assert ours.decode_response(np.array([rows, rows + 1])) == ''
  with pytest.raises(
    InputError, match=rf"problem 'a \[PAD\] b' holds the token '\[PAD\]', .*{rows}"
  ):
    ours.encode_prompt('a [PAD] b')
  with pytest.raises(InputError, match=r"The response 'x\[PAD\]' holds the token '\[PAD\]'"):
    ours.encode_response('x[PAD]')


@pytest.mark.parametrize('where', ['text_config', ''])
def test_end_ids_beyond_the_embedding_are_left_out(tmp_path, where):
  folder, rows = padded_folder(tmp_path, num_missing=2)
  fields = {'vocab_size': rows, 'eos_token_id': [rows, 5, 1]}
  fields = {where: fields} if where else fields
  (folder / 'config.json').write_text(json.dumps({'model_type': 'llama', **fields}))
  assert load_tokenizer(folder).stop_ids == (1, 5)


# Copies.


def test_copies_have_all_templates_byte_for_byte(tmp_path):
  folder = folders.write_folder(
    tmp_path / 'in',
    folders.byte_level(),
    chat_template=[{'name': 'a', 'template': 'A\r\n'}, {'name': 'default', 'template': 'D'}],
  )
  (folder / 'chat_template.jinja').write_bytes(b'{{ 1 }}\r\n\n')
  (folder / 'chat_template.json').write_bytes(b'{"chat_template": "old"}')
  (folder / 'additional_chat_templates').mkdir()
  (folder / 'additional_chat_templates/rag.jinja').write_bytes('é \r\n'.encode())
  (folder / 'additional_chat_templates/notes.txt').write_bytes(b'not ours')
  names = save_tokenizer(folder, tmp_path / 'out')
  assert 'additional_chat_templates/rag.jinja' in names and len(names) == 5
  for name in names:
    assert (tmp_path / 'out' / name).read_bytes() == (folder / name).read_bytes()
  assert not (tmp_path / 'out/additional_chat_templates/notes.txt').exists()
