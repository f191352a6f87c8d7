"""The ids that end a response are those of transformers' generation, and the tokenizer's own."""

from __future__ import annotations

import json

import pytest
import tokenizer_folders as folders

from ds_jax.checks import InputError
from ds_jax.data.prompts import load_tokenizer


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
  return folders.write_folder(tmp_path_factory.mktemp('bare'), folders.byte_level())


def folder_with(bare, folder, **files):
  """The tokenizer with generation_config.json and config.json of some fields."""
  for path in bare.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  for name, fields in files.items():
    text = fields if isinstance(fields, str) else json.dumps(fields)
    (folder / f'{name}.json').write_text(text)
  return folder


CASES = (  # of generation_config.json, of config.json, stop ids; the tokenizer's own is 1
  (None, None, (1,)),
  (None, {'eos_token_id': [7, 0]}, (1, 7, 0)),
  (None, {'eos_token_id': 9}, (1, 9)),
  (None, {'eos_token_id': None}, (1,)),
  ({'eos_token_id': [5, 1, 5]}, {'eos_token_id': 9}, (1, 5)),
  ({'eos_token_id': 5}, {'eos_token_id': [9]}, (1, 5)),
  ({}, {'eos_token_id': [9, 4]}, (1, 9, 4)),
  ({'eos_token_id': None}, {'eos_token_id': 9}, (1, 9)),
  ({'eos_token_id': [5, 4000]}, None, (1, 5)),
  (None, {'text_config': {'eos_token_id': [6, 1], 'vocab_size': 300}}, (1, 6)),
  (None, {'eos_token_id': 8, 'text_config': {'eos_token_id': 6}}, (1, 8)),
)


@pytest.mark.parametrize('generation, model, expected', CASES)
def test_end_ids(bare, tmp_path, generation, model, expected):
  files = {'generation_config': generation, 'config': model}
  files = {name: fields for name, fields in files.items() if fields is not None}
  folder = folder_with(bare, tmp_path, **files)
  assert load_tokenizer(folder).stop_ids == expected


@pytest.mark.parametrize('generation, model, expected', CASES)
def test_transformers_generation_stops_at_all_of_them(bare, tmp_path, generation, model, expected):
  """Ids that no token has, it cannot sample either."""
  import transformers

  if generation is not None:
    folder = folder_with(bare, tmp_path, generation_config=generation)
    theirs = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
  else:
    theirs = None
  if theirs is None and model is not None:
    kind = transformers.Gemma3Config if 'text_config' in model else transformers.PretrainedConfig
    theirs = transformers.GenerationConfig.from_model_config(kind(**model)).eos_token_id
  theirs = theirs if isinstance(theirs, list) else [theirs] if theirs is not None else []
  assert {1, *(i for i in theirs if i < 700)} == set(expected)


@pytest.mark.parametrize('name', ['generation_config', 'config'])
@pytest.mark.parametrize(
  'text',
  [
    '{',
    '[1]',
    '{"eos_token_id": "2"}',
    '{"eos_token_id": -1}',
    '{"eos_token_id": true}',
    '{"eos_token_id": [2, null]}',
    '{"eos_token_id": [[2]]}',
    '{"eos_token_id": 2.0}',
    '{"text_config": {"eos_token_id": "2"}}',
  ],
)
def test_bad_ids_are_refused_with_the_file(bare, tmp_path, name, text):
  with pytest.raises(InputError, match=f'{name}.json'):
    load_tokenizer(folder_with(bare, tmp_path, **{name: text}))


def test_the_model_may_name_the_only_end_token(tmp_path):
  folder = folders.write_folder(
    tmp_path, folders.byte_level(), eos_token=None, config={'eos_token_id': [5, 4]}
  )
  assert load_tokenizer(folder).stop_ids == (5, 4)
