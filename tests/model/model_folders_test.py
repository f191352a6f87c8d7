"""Checkpoint folders: shards, number formats, meshes, the hub, faults; written in whole or not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import resource
import shutil
import subprocess
import tracemalloc

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.model.huggingface import save as save_lib
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import save_decoder

assert_same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module')
def decoder():
  return init_decoder(hf_models.SMALL, jax.random.key(0))


@pytest.fixture(scope='module')
def folder(decoder, tmp_path_factory):
  path = tmp_path_factory.mktemp('folders') / 'model'
  save_decoder(decoder, path, stop_ids=(3,), pad_id=0)
  return path


@pytest.fixture
def copied(folder, tmp_path):
  """The folder, to be damaged."""
  for file in folder.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  return tmp_path


def edit_tensors(folder, change):
  from safetensors.numpy import load_file, save_file

  tensors = load_file(folder / 'model.safetensors')
  change(tensors)
  save_file(tensors, folder / 'model.safetensors')


def test_shards_of_transformers_and_ours_are_read_alike(tmp_path):
  pytest.importorskip('torch', reason='transformers on torch is the reference')
  import transformers

  case = hf_models.CASES[6]
  model = hf_models.save(case, tmp_path / 'one')
  model.save_pretrained(tmp_path / 'many', max_shard_size='10KB')
  assert len(list((tmp_path / 'many').glob('*.safetensors'))) > 2
  decoder = load_decoder(tmp_path / 'one')
  assert_same(load_decoder(tmp_path / 'many'), decoder)
  files = save_decoder(decoder, tmp_path / 'ours', stop_ids=(3,), pad_id=0, max_file_bytes=20_000)
  assert 'model-00001-of-00004.safetensors' in files and 'model.safetensors' not in files
  assert all(f.stat().st_size < 25_000 for f in (tmp_path / 'ours').glob('*.safetensors'))
  assert_same(load_decoder(tmp_path / 'ours'), decoder)
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'ours')
  for name, x in model.state_dict().items():
    np.testing.assert_array_equal(again.state_dict()[name], x)


def test_half_precision_is_kept_or_widened(decoder, tmp_path):
  save_decoder(decoder, tmp_path / 'half', stop_ids=(3,), pad_id=0, dtype='bfloat16')
  assert json.loads((tmp_path / 'half/config.json').read_text())['dtype'] == 'bfloat16'
  half = load_decoder(tmp_path / 'half', dtype='bfloat16')
  assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half))
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), decoder)
  assert_same(jax.tree.leaves(half), jax.tree.leaves(rounded))
  wide = load_decoder(tmp_path / 'half')
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(wide))
  save_decoder(wide, tmp_path / 'again', stop_ids=(3,), pad_id=0, dtype='bfloat16')
  assert_same(load_decoder(tmp_path / 'again', dtype='bfloat16'), half)


@pytest.mark.parametrize('for_search', [False, True])
@pytest.mark.parametrize('shape', [(1, 8, 1), (2, 2, 2), (1, 2, 4), (8, 1, 1)])
def test_a_mesh_gets_its_shards(decoder, folder, shape, for_search):
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[:8])
  loaded = load_decoder(folder, mesh=mesh, num_ids=57, for_search=for_search)
  assert_same(jax.tree.leaves(loaded), jax.tree.leaves(decoder))
  wanted = sharding.parameter_shardings(decoder, mesh, search=for_search)
  same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), loaded, wanted)
  assert all(jax.tree.leaves(same))


def test_import_needs_little_memory_beside_the_parameters(tmp_path):
  config = DecoderConfig(
    vocab_size=4096,
    num_ids=4096,
    num_layers=4,
    width=512,
    mlp_width=2048,
    num_heads=8,
    num_kv_heads=2,
    head_width=64,
  )
  decoder = init_decoder(config, jax.random.key(0))
  save_decoder(decoder, tmp_path / 'm', stop_ids=(3,), pad_id=0, dtype='bfloat16')
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(decoder))
  tracemalloc.start()  # numpy reports its arrays; jax takes them over without a copy
  try:
    loaded = load_decoder(tmp_path / 'm')
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert size == sum(leaf.nbytes for leaf in jax.tree.leaves(loaded)) > 60e6
  assert size <= peak < 1.15 * size


def test_all_faults_of_the_tensors_are_listed_together(copied):
  def change(tensors):
    del tensors['model.layers.2.mlp.up_proj.weight']
    tensors['model.layers.0.self_attn.q_proj.weight'] = np.zeros((3, 32), np.float32)
    tensors['model.layers.1.self_attn.o_proj.bias'] = np.zeros(32, np.float32)
    tensors['model.norm.weight'] = np.zeros(32, np.int8)

  edit_tensors(copied, change)
  with pytest.raises(InputError) as error:
    load_decoder(copied)
  for words in (
    'missing model.layers.2.mlp.up_proj.weight (48, 32)',
    'unknown model.layers.1.self_attn.o_proj.bias (32,)',
    'model.layers.0.self_attn.q_proj.weight: expected (64, 32), got (3, 32)',
    'model.norm.weight: expected floats, got I8',
  ):
    assert words in str(error.value)


def test_a_stored_tied_head_is_no_fault(tmp_path):
  import dataclasses

  tied = init_decoder(dataclasses.replace(hf_models.SMALL, tie_embeddings=True), jax.random.key(0))
  save_decoder(tied, tmp_path / 'm', stop_ids=(3,), pad_id=0)
  edit_tensors(
    tmp_path / 'm', lambda t: t.update({'lm_head.weight': t['model.embed_tokens.weight'].copy()})
  )
  assert_same(jax.tree.leaves(load_decoder(tmp_path / 'm')), jax.tree.leaves(tied))


@pytest.mark.parametrize(
  'file, content, words',
  [
    ('model.safetensors', None, 'no model.safetensors'),
    ('model.safetensors', 'broken', 'cannot be read'),
    ('config.json', None, 'no config.json'),
    ('config.json', '{', 'not valid JSON'),
    ('config.json', '[]', 'not a JSON object'),
  ],
)
def test_a_damaged_folder_is_named(copied, file, content, words):
  if content is None:
    (copied / file).unlink()
  else:
    (copied / file).write_text(content)
  with pytest.raises(InputError, match=words):
    load_decoder(copied)


def test_a_hub_name_is_fetched_once_and_a_wrong_path_is_not(folder, monkeypatch, tmp_path):
  import huggingface_hub

  asked = []
  monkeypatch.setattr(
    huggingface_hub, 'snapshot_download', lambda name, **kwargs: asked.append(name) or str(folder)
  )
  monkeypatch.chdir(tmp_path)
  for _ in range(2):
    assert load_decoder('some/model').config.width == 32
  assert asked == ['some/model']
  (tmp_path / 'runs').mkdir()
  for path in ('runs/model', '/nowhere/model', 'model'):
    with pytest.raises(InputError, match='No checkpoint folder'):
      load_decoder(path)
  assert asked == ['some/model']

  def offline(name, **kwargs):
    raise ConnectionError('no network')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', offline)
  with pytest.raises(InputError, match='neither a folder here nor a model.*no network'):
    load_decoder('some/other')


def test_only_an_empty_folder_is_written_to(decoder, tmp_path):
  target = tmp_path / 'home'
  target.mkdir()
  (target / 'lost+found').mkdir()  # of a disk that is new
  node = target.stat().st_ino
  files = save_decoder(decoder, target, stop_ids=(3,), pad_id=0)
  assert files == ['config.json', 'generation_config.json', 'model.safetensors']
  assert target.stat().st_ino == node and os.listdir(tmp_path) == ['home']
  before = {path: path.read_bytes() for path in target.iterdir() if path.is_file()}
  with pytest.raises(InputError, match='exists already'):
    save_decoder(decoder, target, stop_ids=(4,), pad_id=0)
  with pytest.raises(InputError, match='exists already'):
    save_decoder(decoder, target / 'config.json', stop_ids=(4,), pad_id=0)
  assert before == {path: path.read_bytes() for path in target.iterdir() if path.is_file()}


def refuse_renames(patch):
  def refuse(*arguments, **fields):
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

  for name in ('rename', 'replace'):
    patch.setattr(os, name, refuse)


@pytest.mark.parametrize('kind', ['new', 'empty', 'link', 'mount'])
def test_nothing_is_renamed(decoder, tmp_path, monkeypatch, kind):
  refuse_renames(monkeypatch)
  target = tmp_path / 'there'
  if kind != 'new':
    target.mkdir()
  if kind == 'link':
    (tmp_path / 'link').symlink_to('there')
  with mounted(target) if kind == 'mount' else contextlib.nullcontext():
    out = tmp_path / 'link' if kind == 'link' else target
    save_decoder(decoder, out, stop_ids=(3,), pad_id=0)
    assert_same(jax.tree.leaves(load_decoder(out)), jax.tree.leaves(decoder))
    assert out.is_symlink() == (kind == 'link')
    assert 'config.json' in os.listdir(target)
  assert set(os.listdir(tmp_path)) <= {'there', 'link'}


@contextlib.contextmanager
def mounted(folder):
  """A file system of its own in a folder."""
  done = subprocess.run(['mount', '-t', 'tmpfs', 'none', folder], capture_output=True, check=False)
  if done.returncode:
    pytest.skip(f'mount: {done.stderr.decode().strip()}')
  try:
    yield
  finally:
    subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('is_there', [False, True])
def test_what_cannot_be_written_leaves_nothing(decoder, tmp_path, is_there):
  target = tmp_path / 'deep/target'
  if is_there:
    target.mkdir(parents=True)
  before = sorted(tmp_path.rglob('*'))
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # bytes: a disk that is full
  try:
    with pytest.raises(OSError) as error:
      save_decoder(decoder, target, stop_ids=(3,), pad_id=0)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert error.value.errno is not None
  assert sorted(tmp_path.rglob('*')) == before

  def interrupted(folder: pathlib.Path):
    (folder / 'sub').mkdir()
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    save_decoder(decoder, target, stop_ids=(3,), pad_id=0, add_files=interrupted)
  assert sorted(tmp_path.rglob('*')) == before


def test_config_json_comes_last_and_half_a_model_is_named(decoder, tmp_path):
  target, half = tmp_path / 'whole', tmp_path / 'half'

  def look(folder: pathlib.Path):
    (folder / 'tokenizer.json').write_text('{}')
    shutil.copytree(folder, half)

  save_decoder(decoder, target, stop_ids=(3,), pad_id=0, add_files=look)
  assert 'UNFINISHED' not in os.listdir(target)
  assert {'model.safetensors', 'UNFINISHED'} <= set(os.listdir(half))
  assert 'config.json' not in os.listdir(half)
  with pytest.raises(InputError, match='half a model: the command that wrote it was stopped'):
    load_decoder(half)
  with pytest.raises(InputError, match='half a model.*Remove it, or choose another --output'):
    save_decoder(decoder, half, stop_ids=(3,), pad_id=0)
  save_lib.remove_half_written(half)
  save_lib.remove_half_written(target)
  assert os.listdir(tmp_path) == ['whole']


def test_files_are_readable_by_whom_the_folder_is(folder):
  modes = {file.stat().st_mode & 0o777 for file in folder.iterdir()}
  assert modes == {folder.stat().st_mode & 0o666}
