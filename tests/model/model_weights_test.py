"""Weights as users bring them: stale and broken files, other names, numbers that are none."""

from __future__ import annotations

import dataclasses
import json
import shutil

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.model.decoder import init_decoder
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.numbers import Unusable, find_unusable, largest
from ds_jax.model.huggingface.save import save_decoder

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
EMBEDDING, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
UP = 'model.layers.1.mlp.up_proj.weight'
assert_same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Folders that tests copy: with the head apart, and tied."""
  root = tmp_path_factory.mktemp('weights')
  for name, is_tied in (('untied', False), ('tied', True)):
    config = dataclasses.replace(hf_models.SMALL, tie_embeddings=is_tied)
    save_decoder(init_decoder(config, jax.random.key(0)), root / name, stop_ids=(3,), pad_id=0)
  return root


@pytest.fixture
def untied(saved, tmp_path):
  return shutil.copytree(saved / 'untied', tmp_path / 'untied')


@pytest.fixture
def tied(saved, tmp_path):
  return shutil.copytree(saved / 'tied', tmp_path / 'tied')


def rewrite(folder, change):
  """Replaces the tensors of a folder by what `change` returns, or changes in place."""
  tensors = load_file(folder / SINGLE)
  save_file(change(tensors) or tensors, folder / SINGLE)


def write_shards(folder, shards, index=None):
  """Splits a folder's weights: {file: names}; the index is that of the split or another."""
  tensors = load_file(folder / SINGLE)
  (folder / SINGLE).unlink()
  for file, names in shards.items():
    save_file({name: tensors[name] for name in names}, folder / file)
  if index is None:
    index = {name: file for file, names in shards.items() for name in names}
  (folder / INDEX).write_text(json.dumps({'weight_map': index}))


@pytest.fixture
def split(untied):
  """Two shards; the first has the embedding and the head."""
  names = set(load_file(untied / SINGLE))
  return {'a.safetensors': {EMBEDDING, HEAD}, 'b.safetensors': names - {EMBEDDING, HEAD}}


def test_a_single_file_goes_before_a_stale_index(tmp_path):
  pytest.importorskip('torch', reason='transformers on torch is the reference')
  import torch
  import transformers

  model = hf_models.make(hf_models.CASES[0])
  model.save_pretrained(tmp_path, max_shard_size='10KB')
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.mul_(2)
  model.save_pretrained(tmp_path / 'new')
  shutil.copy(tmp_path / 'new' / SINGLE, tmp_path)  # some versions remove the shards, some do not
  assert (tmp_path / INDEX).exists() and list(tmp_path.glob('model-*-of-*'))
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
  ours = np.asarray(load_decoder(tmp_path).embedding)
  np.testing.assert_array_equal(ours, theirs[EMBEDDING])
  np.testing.assert_array_equal(ours, model.state_dict()[EMBEDDING])
  for shard in tmp_path.glob('model-*-of-*'):
    shard.unlink()
  np.testing.assert_array_equal(load_decoder(tmp_path).embedding, ours)


def test_all_tensors_of_the_shards_count(untied, split):
  expected = load_decoder(untied)
  write_shards(untied, split, {EMBEDDING: 'a.safetensors', 'gone': 'b.safetensors'})
  assert_same(load_decoder(untied), expected)


def test_two_shards_with_the_same_tensor_are_named(untied, split):
  write_shards(untied, split | {'b.safetensors': split['b.safetensors'] | {HEAD}})
  with pytest.raises(InputError, match='both hold lm_head.weight'):
    load_decoder(untied)


@pytest.mark.parametrize(
  'index, words',
  [
    ({'weight_map': {'x': 'y.safetensors', 'z': 'z.safetensors'}}, 'lacks y.safetensors, z.safe'),
    ({'weight_map': {'x': '../y'}}, 'outside the folder'),
    ({'weight_map': {'x': 3}}, 'no index'),
    ({'weight_map': {}}, 'names no file'),
    ({}, 'no index'),
    ([], 'no index'),
  ],
)
def test_a_broken_index_is_named(untied, index, words):
  (untied / SINGLE).unlink()
  (untied / INDEX).write_text(json.dumps(index))
  with pytest.raises(InputError, match=words):
    load_decoder(untied)


@pytest.mark.parametrize(
  'file, words',
  [
    ('pytorch_model.bin', 'Pickled weights'),
    ('pytorch_model-00001-of-00002.bin', 'Pickled weights'),
    ('consolidated.safetensors', 'another program'),
    ('consolidated.00.pth', 'another program'),
    ('model.Q4_1.gguf', 'gguf_file='),
    ('model.fp16.safetensors', 'rename the file'),
    ('model-00001-of-00002.safetensors', 'index.json, which belongs to them'),
    ('flax_model.msgpack', 'save_pretrained'),
    ('notes.txt', 'expected a checkpoint in safetensors.$'),
  ],
)
def test_weights_of_another_kind_are_named_with_a_remedy(untied, file, words):
  (untied / SINGLE).rename(untied / file)
  with pytest.raises(InputError, match=f'no {SINGLE}.*{words}'):
    load_decoder(untied)


def test_an_adapter_is_not_read_as_a_model(untied):
  (untied / 'adapter_config.json').write_text('{}')
  with pytest.raises(InputError, match='merge_and_unload'):
    load_decoder(untied)


def test_a_file_that_holds_no_weights_is_named(untied):
  whole = (untied / SINGLE).read_bytes()
  (untied / SINGLE).write_bytes(whole[: len(whole) // 2])
  with pytest.raises(InputError, match='cannot be read as safetensors'):
    load_decoder(untied)
  (untied / SINGLE).write_bytes(b'')
  with pytest.raises(InputError, match='cannot be read as safetensors'):
    load_decoder(untied)
  (untied / SINGLE).write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
  with pytest.raises(InputError, match='git lfs pull'):
    load_decoder(untied)
  (untied / SINGLE).unlink()
  (untied / SINGLE).symlink_to(untied / 'blobs')
  with pytest.raises(InputError, match='link to a file that is not there'):
    load_decoder(untied)


def test_a_base_model_is_read_without_its_prefix(tied, untied):
  for folder in (tied, untied):
    expected = load_decoder(folder)
    rewrite(folder, lambda tensors: {n.removeprefix('model.'): x for n, x in tensors.items()})
    assert_same(load_decoder(folder), expected)


def test_a_base_model_of_transformers_is_read_as_transformers_does(tmp_path):
  pytest.importorskip('torch', reason='transformers on torch is the reference')
  import transformers

  hf_models.make(hf_models.CASES[0]).model.save_pretrained(tmp_path)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
  np.testing.assert_array_equal(load_decoder(tmp_path).embedding, theirs[HEAD])


@pytest.mark.parametrize(
  'prefix', ['_orig_mod.', 'module.', 'base_model.model.', 'language_model.', 'model.language_']
)
def test_names_within_a_wrapper_are_refused(untied, prefix):
  rewrite(untied, lambda tensors: {prefix + name: x for name, x in tensors.items()})
  with pytest.raises(InputError, match=f'named like {prefix}model.embed_tokens.*Rename them'):
    load_decoder(untied)


def test_a_tied_head_may_stand_for_the_embedding(tied):
  expected = load_decoder(tied)
  rewrite(tied, lambda tensors: tensors.update({HEAD: tensors.pop(EMBEDDING)}))
  assert_same(load_decoder(tied), expected)


def test_a_tied_head_that_is_not_the_embedding_is_refused(tied):
  def add_head(tensors):
    tensors[HEAD] = tensors[EMBEDDING].copy()
    tensors[HEAD][-1, -1] += 1

  rewrite(tied, add_head)
  with pytest.raises(InputError, match='tie_word_embeddings is true.*set it to false'):
    load_decoder(tied)
  fields = json.loads((tied / 'config.json').read_text()) | {'tie_word_embeddings': False}
  (tied / 'config.json').write_text(json.dumps(fields))
  decoder = load_decoder(tied)
  assert float(decoder.head[-1, -1] - decoder.embedding[-1, -1]) == 1


def test_a_missing_head_of_an_untied_model_is_told_with_a_remedy(untied):
  rewrite(untied, lambda tensors: {n: x for n, x in tensors.items() if n != HEAD})
  with pytest.raises(InputError, match='missing lm_head.*set tie_word_embeddings to true'):
    load_decoder(untied)


@pytest.mark.parametrize('dtype', [jnp.float8_e4m3fn, np.int8, np.uint8])
def test_quantised_weights_are_named(untied, dtype):
  rewrite(untied, lambda tensors: tensors.update({UP: tensors[UP].astype(dtype)}))
  with pytest.raises(InputError, match=f'{UP}: expected floats, got .*look quantised'):
    load_decoder(untied)


@pytest.mark.parametrize('shape', [(1, 1, 1), (1, 4, 2)])
def test_numbers_that_no_model_computes_with_are_named(untied, shape):
  def spoil(tensors):
    tensors[UP][[0, 7], [3, 31]] = np.nan
    tensors['model.norm.weight'][4] = -np.inf
    wide = tensors[EMBEDDING].astype(np.float64)
    wide[0, 0] = 1e39  # float64 holds it
    tensors[EMBEDDING] = wide

  rewrite(untied, spoil)
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])
  with pytest.raises(InputError) as error:
    load_decoder(untied, mesh=mesh)
  for words in (
    f'{UP}: 2 NaN;',
    'model.norm.weight: 1 infinite or beyond float32',
    f'{EMBEDDING}: 1 infinite or beyond float32',
    'convert the model again',
  ):
    assert words in str(error.value)
  assert str(error.value).count(' NaN') == 1


def test_what_overflows_in_the_compute_format_is_named(untied):
  def enlarge(tensors):
    tensors[UP][0, 0] = 3.4e38

  rewrite(untied, enlarge)
  load_decoder(untied)
  for formats in ({'compute_dtype': 'bfloat16'}, {'dtype': 'bfloat16'}):
    with pytest.raises(InputError, match=f'{UP}: 1 infinite or beyond bfloat16'):
      load_decoder(untied, **formats)


def test_every_block_of_a_tensor_is_looked_at():
  for dtype in ('float32', 'bfloat16'):
    x = np.zeros((3, 2**18), jnp.dtype(dtype))
    limit = largest(dtype)
    assert not find_unusable(x, limit)
    x[0, 0] = x[2, -1] = np.nan
    x[1, 5] = -np.inf
    assert find_unusable(x, limit) == Unusable(nan=2, overflowing=1)
