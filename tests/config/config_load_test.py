"""From files and nested mappings to a Config: what is refused, what is renamed, what rules say."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from ml_collections import ConfigDict

from ds_jax.checks import InputError
from ds_jax.config import Config, check_training, config_from, load_config, samples_by_set
from ds_jax.config import load as load_lib


def test_what_is_not_there_has_its_default():
  assert config_from({}) == Config()
  assert config_from({'search': {'width': 3}}).search == dataclasses.replace(
    Config().search, width=3
  )


def test_a_config_dict_and_json_come_back_as_they_were():
  config = Config(seed=3)
  fields = dataclasses.asdict(config)
  assert config_from(ConfigDict(fields)) == config
  fields['curriculum']['round_steps'] = [50, 50]  # JSON has lists
  assert config_from(fields) == config


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'serch': {}}, "Unknown config field 'serch'. Did you mean 'search'"),
    ({'search': {'widht': 3}}, "Unknown config field 'search.widht'. Did you mean 'width'"),
    ({'search': 3}, 'Expected search to be a section'),
    ({'search': {'width': 'wide'}}, "Expected search.width of type int, got 'wide'"),
    ({'search': {'width': True}}, 'Expected search.width of type int, got True'),
    ({'search': {'frontier_only': 1}}, 'Expected search.frontier_only of type bool, got 1'),
    ({'curriculum': {'round_steps': 5}}, 'Expected curriculum.round_steps to list values'),
    ({'train': {'minibatch_problems': 7}}, 'is not a multiple of'),
    ({'search': {'policy': 'fork', 'max_expansions': 63}}, 'does not allow one rollout'),
    ({'log': {'writers': ()}}, r'Expected log.writers to list one or more values; got \(\)'),
    ({'log': {'writers': ['wandb']}}, 'lacks jsonl, .*; set log.writers=jsonl,wandb'),
    ({'log': {'writers': ['jsonl', 'wanb']}}, "got 'wanb'. Did you mean 'wandb'"),
    ({'log': {'writers': ['jsonl', 'python:writer']}}, 'python:MODULE.FUNCTION, got'),
    ({'log': {'writers': ['jsonl', 'wandb', 'wandb']}}, 'names wandb twice'),
    ({'log': {'profile_steps': [3]}}, 'log.profile_steps = 3 is not the first and the last'),
    ({'log': {'profile_steps': [3, 2]}}, 'log.profile_steps = 3,2 is not'),
  ],
)
def test_mistakes_are_named(fields, words):
  with pytest.raises(InputError, match=words):
    config_from(fields)


SETS = {'data': {'eval_source': 'gym:a?x=1 + gym:a?x=2'}}


@pytest.mark.parametrize(
  'text, words',
  [
    ('a:3,b:4', 'is about b: data.eval_source has the sets a, a#2.'),
    ('a:3,a:4', 'each once'),
    ('a', 'e.g. math500:4'),
    ('a:0', 'above 0'),
    ('a:²', 'above 0'),
    (':3', 'above 0'),
  ],
)
def test_mistakes_in_samples_of_evaluation_sets_are_named(text, words):
  with pytest.raises(InputError, match=words):
    config_from(SETS | {'evaluate': {'set_samples': text}})


def test_evaluation_sets_have_samples_of_their_own():
  config = config_from(SETS | {'evaluate': {'set_samples': 'a#2: 3, a:4'}})
  assert samples_by_set(config) == {'a': 4, 'a#2': 3}
  with pytest.raises(InputError, match='names but one set'):
    config_from({'data': {'source': 'gym:a'}, 'evaluate': {'set_samples': 'a:3'}})


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'train': {'row_length': 100}}, 'exceeds train.row_length = 100'),
    ({'train': {'tree_row_length': 100}}, 'is below train.row_length'),
    (SETS | {'checkpoint': {'best_by': 'b'}}, 'best_by = b .* has the sets a, a#2'),
    (
      {'data': {'eval_source': 'gym:mean + gym:a'}, 'checkpoint': {'best_by': 'mean'}},
      'one of them is called mean',
    ),
  ],
)
def test_what_only_training_cannot_do(fields, words):
  with pytest.raises(InputError, match=words):
    check_training(config_from(fields))


def test_whole_numbers_are_numbers():
  config = config_from({'train': {'learning_rate': 1}, 'curriculum': {'round_steps': [3, 4]}})
  assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)
  assert config.curriculum.round_steps == (3, 4)


def test_old_names_go_on_working(monkeypatch):
  monkeypatch.setattr(
    load_lib, 'RENAMED', {'search.breadth': 'search.width', 'rate': 'train.beta1'}
  )
  config = config_from({'search': {'breadth': 5, 'max_depth': 3}, 'rate': 0.5})
  assert (config.search.width, config.search.max_depth, config.train.beta1) == (5, 3, 0.5)
  with pytest.raises(InputError, match='depth'):
    config_from({'search': {'depth': 3}})


@pytest.mark.parametrize(
  'has_events, writers', [(True, ('jsonl', 'tensorboard')), (False, ('jsonl',))]
)
def test_a_field_that_has_become_part_of_another_goes_on_working(has_events, writers):
  fields = dataclasses.asdict(Config())
  fields['log']['tensorboard'] = has_events  # a config file that sets it beside the defaults
  assert config_from(fields).log.writers == writers
  del fields['log']['writers']  # a config.json of before
  assert config_from(fields).log.writers == writers
  with pytest.raises(InputError, match='leave out log.tensorboard'):
    config_from({'log': {'tensorboard': has_events, 'writers': ['jsonl', 'wandb']}})
  with pytest.raises(InputError, match='Expected log.tensorboard to be True or False'):
    config_from({'log': {'tensorboard': ['jsonl']}})


def write(path, text):
  path.parent.mkdir(exist_ok=True)
  path.write_text(text)
  return str(path)


def test_a_file_may_import_those_beside_it(tmp_path, monkeypatch):
  write(tmp_path / 'elsewhere' / 'shared.py', 'WIDTH = 9\n')
  monkeypatch.syspath_prepend(str(tmp_path / 'elsewhere'))
  for folder, width in (('a', 3), ('b', 4)):
    write(tmp_path / folder / 'shared.py', f'WIDTH = {width}\n')
    path = write(
      tmp_path / folder / 'mine.py',
      "import shared\n\n\ndef get_config():\n  return {'search': {'width': shared.WIDTH}}\n",
    )
    assert load_config(path).search.width == width  # not the other folder's
  assert 'shared' not in sys.modules and str(tmp_path / 'a') not in sys.path


def test_files_that_are_no_configs_are_named(tmp_path):
  with pytest.raises(InputError, match='No config file'):
    load_config(str(tmp_path / 'nowhere.py'))
  with pytest.raises(InputError, match='defines no get_config'):
    load_config(write(tmp_path / 'empty.py', ''))
