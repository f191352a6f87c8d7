"""Tokenizers: the embedded one, real ones, their chat templates, and prompts that are too long."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import CountdownConfig, DataConfig, load_config
from ds_jax.data import countdown
from ds_jax.data.prompts import load_tokenizer, prepare_prompts, save_tokenizer
from ds_jax.testing.tiny_run import write_countdown_tokenizer
from ds_jax.types import Problem
from ds_jax.verify.grade_countdown import OPERATORS

TEXTS = ('What is $1+1$?', 'café 🙂 \\frac{1}{2}\n\tx', '日本語', ' a  b ', '', '👩‍👩‍👧')


@pytest.fixture(scope='module')
def countdown_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tokenizer')
  write_countdown_tokenizer(folder, 99)
  return folder


@pytest.fixture(scope='module')
def embedded(countdown_folder):
  return load_tokenizer(countdown_folder)


def real_folder(shared, name):
  folder = shared / 'data/tokenizers' / name
  if not folder.is_dir():
    pytest.skip(f'no real tokenizer: {folder} does not exist')
  return folder


@pytest.fixture(scope='module')
def qwen(shared):
  return load_tokenizer(real_folder(shared, 'qwen2.5'))


# The embedded task.


def test_embedded_vocabulary(embedded):
  assert embedded.num_ids == 112
  assert embedded.tokenizer.convert_ids_to_tokens(list(embedded.stop_ids)) == ['<eos>']
  assert embedded.tokenizer.convert_ids_to_tokens(embedded.pad_id) == '<pad>'


def test_embedded_prompt(embedded):
  tokens = embedded.encode_prompt('24 from 3 5 7 2')
  assert tokens.dtype == np.int32
  assert embedded.decode_response(tokens) == '24 from 3 5 7 2 :'
  assert len(tokens) == 7


def test_worked_solutions_round_trip_and_lines_fill_segments(embedded):
  config = CountdownConfig(num_warmstart=400)
  num_tokens = countdown.segment_length(config)
  unknown = embedded.tokenizer.unk_token_id
  for problem in generate(config):
    tokens = embedded.encode_response(problem.solution)
    assert embedded.decode_response(tokens) == problem.solution
    assert unknown not in tokens and unknown not in embedded.encode_prompt(problem.prompt)
    depth = len(problem.metadata['numbers']) - 1
    segments = [tokens[i : i + num_tokens] for i in range(0, len(tokens), num_tokens)]
    assert len(segments) == depth and tokens[-1] == embedded.stop_ids[0]
    # Every segment is one line: it begins with an operation, and only the last one ends the text.
    for i, segment in enumerate(segments):
      words = embedded.decode_response(segment).split()
      assert words[1] in OPERATORS and words[3] == '='
      assert (embedded.stop_ids[0] in segment) == (i == depth - 1)
      assert len(segment) == num_tokens or i == depth - 1


def generate(config):
  return countdown.generate_problems(config, 'warmstart')


def test_other_sizes_of_values(tmp_path):
  write_countdown_tokenizer(tmp_path / 'deep' / 'folder', max_value=30)
  tokenizer = load_tokenizer(tmp_path / 'deep' / 'folder')
  assert tokenizer.num_ids == 43
  unknown = tokenizer.tokenizer.unk_token_id
  assert tokenizer.encode_prompt('30 from 31').tolist().count(unknown) == 1


# Real tokenizers.


@pytest.mark.parametrize(
  'name', ['qwen2.5', 'phi-3-mini', 'deepseek-r1-distill-qwen-reconstructed']
)
def test_prompts_equal_the_chat_template_of_transformers(shared, name):
  folder = real_folder(shared, name)
  import tokenizers
  import transformers

  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  file = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  ours = load_tokenizer(folder)
  for text in TEXTS:
    chat = [{'role': 'user', 'content': text}]
    rendered = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    expected = file.encode(rendered, add_special_tokens=False).ids
    tokens = ours.encode_prompt(text)
    assert tokens.dtype == np.int32 and tokens.tolist() == expected
    assert text.strip() in theirs.decode(tokens)
  for one, row in zip(TEXTS, ours.encode_prompts(TEXTS), strict=True):
    assert ours.encode_prompt(one).tolist() == row.tolist()


def test_qwen_ids(qwen):
  assert qwen.num_ids == 151_665  # its embedding has 151,936 rows
  assert qwen.tokenizer.convert_ids_to_tokens(list(qwen.stop_ids)) == ['<|im_end|>']
  assert qwen.pad_id == 151_643
  assert all(0 <= i < qwen.num_ids for i in (*qwen.stop_ids, qwen.pad_id))
  words = qwen.tokenizer.decode(qwen.encode_prompt('hi')).split('<|im_start|>')
  assert words[-2:] == ['user\nhi<|im_end|>\n', 'assistant\n']


def test_responses_round_trip(qwen):
  for text in TEXTS:
    tokens = qwen.encode_response(text)
    assert tokens.dtype == np.int32 and tokens[-1] == qwen.stop_ids[0]
    assert qwen.decode_response(tokens) == text


@pytest.mark.parametrize('name', ['qwen2.5', 'gpt2', 'phi-3-mini'])
def test_decoding_is_safe_at_any_cut(shared, name):
  tokenizer = load_tokenizer(real_folder(shared, name))
  text = 'sum: 𝕏 👩‍👩‍👧 ‱ end'
  tokens = tokenizer.encode_response(text)[:-1]
  assert tokenizer.decode_response(tokens) == text
  num_broken = 0
  for cut in range(len(tokens)):
    prefix = tokenizer.decode_response(tokens[:cut])
    num_broken += prefix.endswith('\N{REPLACEMENT CHARACTER}')
    assert text.startswith(prefix.rstrip('\N{REPLACEMENT CHARACTER}'))
    tokenizer.decode_response(tokens[cut:])
  assert num_broken > 0, 'no cut fell into a character: the test shows nothing'


def test_decoding_drops_special_and_unknown_ids(qwen):
  tokens = qwen.encode_response('ok')
  beyond = [qwen.num_ids, 151_935, 2**31 - 1, -1]
  noisy = np.array([qwen.pad_id, *tokens, *beyond, *qwen.stop_ids], np.int32)
  assert qwen.decode_response(noisy) == 'ok'
  assert qwen.decode_response(np.zeros(0, np.int32)) == ''


def test_without_a_chat_template_the_bare_text(shared):
  tokenizer = load_tokenizer(real_folder(shared, 'gpt2'))
  tokens = tokenizer.encode_prompt('one two')
  assert tokenizer.decode_response(tokens) == 'one two'
  assert tokenizer.pad_id == tokenizer.stop_ids[0] == 50_256
  assert tokenizer.encode_prompts([]) == []


# Folders.


@pytest.mark.parametrize(
  'eos, expected',
  [(1, (1,)), ([1, 5], (1, 5)), ([7, 1], (1, 7)), (None, (1,)), ([5, 4000], (1, 5))],
)
def test_stop_ids_of_generation_config(countdown_folder, tmp_path, eos, expected):
  save_tokenizer(countdown_folder, tmp_path)
  (tmp_path / 'generation_config.json').write_text(json.dumps({'eos_token_id': eos}))
  assert load_tokenizer(tmp_path).stop_ids == expected


@pytest.mark.parametrize(
  'content',
  ['{', '[1]', '{"eos_token_id": "x"}', '{"eos_token_id": -1}', '{"eos_token_id": [true]}'],
)
def test_bad_generation_config_is_named(countdown_folder, tmp_path, content):
  save_tokenizer(countdown_folder, tmp_path)
  (tmp_path / 'generation_config.json').write_text(content)
  with pytest.raises(InputError, match='generation_config.json'):
    load_tokenizer(tmp_path)


def test_no_end_token_is_an_error(countdown_folder, tmp_path):
  save_tokenizer(countdown_folder, tmp_path)
  (tmp_path / 'generation_config.json').unlink()
  config = json.loads((tmp_path / 'tokenizer_config.json').read_text())
  del config['eos_token']
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  with pytest.raises(InputError, match='has no end token; set eos_token'):
    load_tokenizer(tmp_path)


def test_missing_folders_and_tokenizers(tmp_path, monkeypatch):
  with pytest.raises(InputError, match="No folder .*nope'; expected a Hugging Face folder"):
    load_tokenizer(tmp_path / 'nope')
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(InputError, match='No tokenizer in .*expected tokenizer.json.*found config'):
    load_tokenizer(tmp_path)
  (tmp_path / 'tokenizer.json').write_text('{"broken": ')
  with pytest.raises(InputError, match='Cannot load a tokenizer from'):
    load_tokenizer(tmp_path)
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  with pytest.raises(InputError, match="No folder 'runs/typo'"):  # not looked for on the hub
    load_tokenizer('runs/typo')


def test_a_hub_name_that_cannot_be_fetched(monkeypatch):
  import huggingface_hub

  def unreachable(name, **kwargs):
    raise ConnectionError('no network\nmore')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', unreachable)
  with pytest.raises(InputError, match="'org/name' is neither a folder.*hub: no network$"):
    load_tokenizer('org/name')


def test_a_hub_name_loads_its_snapshot(monkeypatch, countdown_folder):
  import huggingface_hub

  monkeypatch.setattr(
    huggingface_hub, 'snapshot_download', lambda name, **patterns: str(countdown_folder)
  )
  assert load_tokenizer('org/name').num_ids == 112


@pytest.mark.parametrize('name', ['countdown', 'qwen2.5'])
def test_saved_tokenizer_is_the_same(request, tmp_path, name):
  folder = (
    request.getfixturevalue('countdown_folder')
    if name == 'countdown'
    else real_folder(request.getfixturevalue('shared'), name)
  )
  (tmp_path / 'model.safetensors').write_text('untouched')
  names = save_tokenizer(folder, tmp_path)
  assert {'tokenizer.json', 'tokenizer_config.json'} <= set(names)
  before, after = load_tokenizer(folder), load_tokenizer(tmp_path)
  assert dataclasses.replace(after, tokenizer=before.tokenizer) == before
  for text in ('24 from 3 5 7 2', *TEXTS):
    assert before.encode_prompt(text).tolist() == after.encode_prompt(text).tolist()
  assert save_tokenizer(tmp_path, tmp_path) == names


# Lengths.


def problems_of(tokenizer, lengths):
  numbers = [' '.join(['7'] * (n - 3)) for n in lengths]
  return [
    Problem(id=str(n), prompt=f'9 from {text}', answer='')
    for n, text in zip(lengths, numbers, strict=True)
  ]


def test_overlong_prompts_are_skipped_and_counted(embedded):
  problems = problems_of(embedded, [6, 12, 13, 5, 40])
  prepared = prepare_prompts(problems, embedded, DataConfig(prompt_limit=12))
  assert [(p.id, len(tokens)) for p, tokens in prepared.prompts] == [('6', 6), ('12', 12), ('5', 5)]
  assert prepared.skipped == ('13', '40') and prepared.truncated == ()


def test_truncate_left_keeps_the_end(embedded):
  problems = problems_of(embedded, [6, 13])
  config = DataConfig(prompt_limit=12, overlong_prompts='truncate_left')
  prepared = prepare_prompts(problems, embedded, config)
  assert [p.id for p, _ in prepared.prompts] == ['6', '13']
  full = embedded.encode_prompt(problems[1].prompt)
  assert prepared.prompts[1][1].tolist() == full[-12:].tolist()
  assert prepared.skipped == () and prepared.truncated == ('13',)


def test_any_tokenizer_of_the_protocol_will_do():
  class Bytes:
    num_ids, stop_ids, pad_id = 257, (256,), 256

    def encode_prompt(self, text):
      return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

  problems = [Problem('a', 'abc', ''), Problem('b', 'abcdef', '')]
  prepared = prepare_prompts(problems, Bytes(), DataConfig(prompt_limit=4))
  assert [tokens.tolist() for _, tokens in prepared.prompts] == [[97, 98, 99]]
  assert prepared.skipped == ('b',)


def test_prompt_limit_of_the_quickstart_fits_the_embedded_task(embedded, root):
  config = load_config(str(root / 'configs/countdown.py'))
  problems = list(itertools.islice(countdown.generate_problems(config.data.countdown, 'train'), 50))
  prepared = prepare_prompts(problems, embedded, config.data)
  assert {len(tokens) for _, tokens in prepared.prompts} == {7} and not prepared.skipped


def test_a_model_beside_the_tokenizer_does_not_change_it(tmp_path):
  """transformers' AutoTokenizer splits numbers into digits once config.json says 'qwen2'."""
  write_countdown_tokenizer(tmp_path, 99)
  before = load_tokenizer(tmp_path).encode_prompt('24 from 3 5 7 2')
  (tmp_path / 'config.json').write_text('{"model_type": "qwen2", "vocab_size": 112}')
  np.testing.assert_array_equal(load_tokenizer(tmp_path).encode_prompt('24 from 3 5 7 2'), before)
  assert len(before) == 7


# All problems of DeepMath.


def deepmath_texts(shared, step):
  """Every `step`-th user message of the round-0 files."""
  parquet = pytest.importorskip('pyarrow.parquet')
  files = sorted((shared / 'data/deepmath/deepmath103k_round0').glob('*.parquet'))
  if not files:
    pytest.skip('no DeepMath problems beside the checkout')
  rows = [row for file in files for row in parquet.read_table(file)['prompt'].to_pylist()]
  return [row[0]['content'] for row in rows[::step]]


TOKENIZERS = ('qwen2.5', 'phi-3-mini', 'deepseek-r1-distill-qwen-reconstructed', 'gpt2')


@pytest.mark.parametrize('name', TOKENIZERS)
def test_problems_round_trip(shared, name, step=29):
  tokenizer = load_tokenizer(real_folder(shared, name))
  texts = deepmath_texts(shared, step)
  rows = tokenizer.tokenizer(texts, add_special_tokens=False)['input_ids']
  for text, row in zip(texts, rows, strict=True):
    assert tokenizer.decode_response(np.asarray(row)) == text


@pytest.mark.parametrize(
  'name', [name for name in TOKENIZERS if name not in ('gpt2', 'phi-3-mini')]
)
def test_problem_prompts_equal_those_of_transformers(shared, name, step=97):
  """transformers 5 reads Phi-3 by rules of the class, not of its file."""
  import transformers

  folder = real_folder(shared, name)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  texts = deepmath_texts(shared, step)
  for text, ours in zip(texts, load_tokenizer(folder).encode_prompts(texts), strict=True):
    chat = [{'role': 'user', 'content': text}]
    expected = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ours.tolist() == expected
    assert len(ours) <= 2048


@pytest.mark.long
@pytest.mark.parametrize('name', TOKENIZERS)
def test_all_problems(shared, name):
  test_problems_round_trip(shared, name, step=1)
  if name not in ('gpt2', 'phi-3-mini'):
    test_problem_prompts_equal_those_of_transformers(shared, name, step=1)
