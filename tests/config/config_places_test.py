"""Places of a config: read once, compared as places, found again where a run has moved."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ds_jax.checks import InputError
from ds_jax.config import PLACE_FIELDS, Config, config_from
from ds_jax.config.annotations import settings_of
from ds_jax.config.places import BUCKET_OR_FOLDER, FILE, FOLDER, MODEL, SOURCE, is_same_place
from ds_jax.run.workdir import Workdir, check_config, workdir_config

# Texts of a config that name no file and no folder.
NO_PLACES = {
  'data.train_split',
  'data.eval_split',
  'data.prompt_field',
  'data.answer_field',
  'data.id_field',
  'data.instruction',
  'data.system_message',
  'data.template_name',
  'data.date',
  'verify.verifier',
  'train.frozen',
  'train.lora_targets',
  'evaluate.set_samples',
  'checkpoint.best_by',
  'log.writers',
}


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A home and a current folder with a file, a folder and links to both."""
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  here = tmp_path / 'here'
  (here / 'folder').mkdir(parents=True)
  (tmp_path / 'home').mkdir()
  (here / 'file.jsonl').write_text('{}\n')
  (here / 'link').symlink_to('folder')
  (here / 'link.jsonl').symlink_to('file.jsonl')
  (here / 'broken').symlink_to('/nowhere/at/all')
  monkeypatch.chdir(here)
  return here


def texts_of(cls=Config, prefix=''):
  names = []
  for name, setting in settings_of(cls).items():
    if setting.is_section:
      names += texts_of(setting.kind, f'{prefix}{name}.')
    elif setting.kind is str and not setting.choices:
      names.append(prefix + name)
  return names


def test_every_text_of_a_config_is_a_place_or_is_none():
  assert set(texts_of()) == set(PLACE_FIELDS) | NO_PLACES


@pytest.mark.parametrize(
  'place, text, expected',
  [
    (FOLDER, 'new', '{here}/new'),
    (FOLDER, 'folder/', '{here}/folder'),
    (FOLDER, './link/../link/new', '{here}/folder/new'),
    (FOLDER, '~/new', '{home}/new'),
    (FOLDER, '$HOME/new', '{here}/$HOME/new'),
    (FILE, 'link.jsonl', '{here}/link.jsonl'),  # a link may have another name than its file
    (FILE, 'link/*.jsonl', '{here}/folder/*.jsonl'),
    (BUCKET_OR_FOLDER, 'gs://bucket/data', 'gs://bucket/data'),
    (BUCKET_OR_FOLDER, 'data', '{here}/data'),
    (MODEL, 'Qwen/Qwen2.5-1.5B', 'Qwen/Qwen2.5-1.5B'),
    (MODEL, 'folder/model', '{here}/folder/model'),
    (MODEL, 'link', '{here}/folder'),
    (SOURCE, 'countdown', 'countdown'),
    (SOURCE, 'tfds:deepmath103k', 'tfds:deepmath103k'),
    (
      SOURCE,
      '2*gym:chain_sum?max_terms=3 + file:file.jsonl',
      '2*gym:chain_sum?max_terms=3 + file:{here}/file.jsonl',
    ),
    (SOURCE, 'file:link/a + b.jsonl', 'file:{here}/folder/a + b.jsonl'),
    (SOURCE, 'hf:owner/name:subset', 'hf:owner/name:subset'),
    (SOURCE, 'hf:folder:subset', 'hf:{here}/folder:subset'),
    (SOURCE, 'file:file.jsonl', 'file:{here}/file.jsonl'),
    (SOURCE, 'file:~/a.jsonl', 'file:{home}/a.jsonl'),
  ],
)
def test_a_place_in_full(here, place, text, expected):
  assert place.read('--x', text) == expected.format(here=here, home=here.parent / 'home')


@pytest.mark.parametrize(
  'place, text, words',
  [
    (FOLDER, 'gs://bucket/run', 'on this machine, got .*mount the bucket'),
    (FOLDER, 'broken', 'broken is a link to /nowhere/at/all, which does not exist'),
    (FOLDER, 'broken/run', 'which does not exist'),
    (FOLDER, 'file.jsonl', 'to be a folder; .*file.jsonl is a file'),
    (FOLDER, 'file.jsonl/run', 'file.jsonl is a file, so there can be no'),
    (FILE, 'broken', 'which does not exist'),
    (FILE, '~nobody-here/x', "no home of '~nobody-here' is known; write ./~nobody-here/x"),
    (SOURCE, 'file:gs://bucket/x.jsonl', 'on this machine'),
  ],
)
def test_a_place_that_cannot_be(here, place, text, words):
  with pytest.raises(InputError, match=f'--x.*{words}'):
    place.read('--x', text)


def test_a_config_has_its_places_in_full(here):
  fields = {
    'model': {'path': 'link'},
    'data': {'source': 'file:file.jsonl', 'data_dir': 'gs://bucket'},
  }
  config = config_from(fields)
  assert config.model.path == str(here / 'folder')
  assert config.data.source == f'file:{here}/file.jsonl'
  assert (config.data.eval_source, config.data.data_dir) == ('', 'gs://bucket')
  with pytest.raises(InputError, match='data.data_dir.*broken'):
    config_from({'data': {'data_dir': 'broken'}})


@pytest.mark.parametrize(
  'before, now, is_same',
  [
    ('t/tiny', '/elsewhere/t/tiny', True),
    ('../t/tiny/', '/elsewhere/t/tiny', True),
    ('t/tiny', '/elsewhere/t/other', False),
    ('tiny', '/elsewhere/nottiny', False),
    ('file:a.jsonl', 'file:/data/a.jsonl', True),
    ('file:a.jsonl', 'tfds:/data/a.jsonl', False),
    ('/a/x', '/b/x', False),
    ('', '/b/x', False),
    ('countdown', 'gym:x', False),
    ('gs://a/x', '/mnt/x', False),
    ('2*file:a.jsonl + gym:x', '2.0*file:/data/a.jsonl + gym:x', True),
    ('2*file:a.jsonl + gym:x', 'file:/data/a.jsonl + gym:x', False),
    ('file:a.jsonl + gym:x', 'file:/data/a.jsonl', False),
  ],
)
def test_which_texts_name_one_place(before, now, is_same):
  assert is_same_place(before, now) == is_same


def kept(workdir, **sections):
  """A workdir with the config.json of an older run, places as they were typed."""
  fields = json.loads(json.dumps(dataclasses.asdict(Config())))
  for section, values in sections.items():
    fields[section] |= values
  workdir.root.mkdir(parents=True)
  (workdir.root / 'config.json').write_text(json.dumps(fields))


def test_an_older_run_with_relative_places_goes_on(here):
  workdir = Workdir(here / 'runs/mine')
  kept(workdir, model={'path': 'link'}, data={'data_dir': 'folder', 'source': 'file:file.jsonl'})
  fields = {
    'model': {'path': 'link'},
    'data': {'data_dir': 'folder', 'source': 'file:file.jsonl'},
  }
  assert check_config(workdir, config_from(fields)) == ''
  fields['model']['path'] = 'other'
  with pytest.raises(InputError, match='model.path: workdir .link., now .*/here/other'):
    check_config(workdir, config_from(fields))


def test_an_older_run_finds_its_places_from_any_folder(here, monkeypatch):
  workdir = Workdir(here / 'runs/mine')
  kept(workdir, model={'path': 'folder'}, data={'source': 'file:file.jsonl', 'data_dir': 'new'})
  elsewhere = here.parent / 'elsewhere'
  elsewhere.mkdir()
  monkeypatch.chdir(elsewhere)
  config = workdir_config(workdir)
  assert config.model.path == str(here / 'folder')
  assert config.data.source == f'file:{here}/file.jsonl'
  assert config.data.data_dir == str(elsewhere / 'new')  # nowhere: as if it were given here


def test_a_run_that_moved_with_its_model_is_told_where_it_is(here):
  workdir = Workdir(here / 'runs/mine')
  kept(workdir, model={'path': '/gone/here/folder'}, data={'source': 'file:/gone/x/file.jsonl'})
  notes = []
  config = workdir_config(workdir, notes.append)
  assert config.model.path == str(here / 'folder')
  assert config.data.source == 'file:/gone/x/file.jsonl'  # one part alone may be anything
  assert notes == [f'model.path = /gone/here/folder is gone; {here}/folder is taken for it.']


def test_the_name_of_an_embedded_task_is_no_folder(here):
  workdir = Workdir(here / 'countdown/mine')
  kept(workdir, data={'source': 'countdown', 'eval_source': 'countdown + file:file.jsonl'})
  data = workdir_config(workdir).data
  assert (data.source, data.eval_source) == ('countdown', f'countdown + file:{here}/file.jsonl')


def test_the_sources_of_a_mixture_are_found_apart_from_each_other(here):
  workdir = Workdir(here / 'runs/mine')
  kept(workdir, data={'source': '2*file:/gone/here/file.jsonl + gym:chain_sum'})
  config = workdir_config(workdir, print)
  assert config.data.source == f'2*file:{here}/file.jsonl + gym:chain_sum'
  words = check_config(workdir, config)
  assert 'has moved' in words and 'gym:chain_sum' in words


def test_a_workdir_is_no_folder_of_a_model(here):
  (here / 'folder/config.json').write_text('{"model_type": "llama"}')
  with pytest.raises(InputError, match='folder of a model; choose another --workdir'):
    check_config(Workdir(here / 'folder'), Config())


def test_what_has_moved_is_taken_for_the_same_and_told(here):
  (here / 'old').mkdir()
  workdir = Workdir(here / 'runs/mine')
  kept(workdir, model={'path': str(here / 'old/model')})
  (here / 'folder/model').mkdir()
  now = config_from({'model': {'path': 'folder/model'}})
  words = check_config(workdir, now)
  assert 'has moved' in words and str(here / 'old/model') in words
  (here / 'old/model').mkdir()  # both are there: they are two models
  with pytest.raises(InputError, match='another config'):
    check_config(workdir, now)
