"""Which settings may differ when a run goes on, whatever the age of its config.json."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ds_jax.checks import InputError
from ds_jax.config import (
  COMING_FIELDS,
  MACHINE_FIELDS,
  RESULT_NEUTRAL,
  Config,
  differing_fields,
  fields_in_use,
  flatten,
  load_config,
  settings_digest,
)
from ds_jax.config import load as load_lib
from ds_jax.config.annotations import NamedValues
from ds_jax.run.workdir import Workdir, check_config, workdir_config


def stored(config):
  """As config.json holds it."""
  return json.loads(json.dumps(dataclasses.asdict(config)))


def changed(config, section, **fields):
  return dataclasses.replace(
    config, **{section: dataclasses.replace(getattr(config, section), **fields)}
  )


def test_marks_name_the_sections_and_fields():
  assert RESULT_NEUTRAL == ('evaluate.before_training', 'checkpoint', 'log')
  assert {'mesh.data', 'train.micro_rows', 'search.num_slots', 'verify.num_workers'} <= set(
    MACHINE_FIELDS
  )
  assert set(MACHINE_FIELDS) <= set(flatten(dataclasses.asdict(Config())))


def test_what_differs_is_named_and_neutral_sections_are_not_compared():
  ours = changed(changed(Config(), 'search', width=3), 'log', every_steps=7)
  assert differing_fields(stored(Config()), stored(ours)) == {'search.width': (8, 3)}
  assert not differing_fields(stored(ours), stored(ours))


def test_a_field_that_is_lacking_has_its_default():
  older = stored(Config())
  del older['search']['ties'], older['train']['schedule'], older['mesh']
  assert not differing_fields(older, stored(Config()))
  ours = changed(Config(), 'search', ties='random')
  assert differing_fields(older, stored(ours)) == {'search.ties': ('first', 'random')}


def test_a_workdir_that_lacks_a_field_goes_on(tmp_path):
  older = stored(Config())
  del older['train']['importance_cap']
  (tmp_path / 'config.json').write_text(json.dumps(older))
  assert check_config(Workdir(tmp_path), Config()) == ''
  assert workdir_config(Workdir(tmp_path)) == Config()
  with pytest.raises(InputError, match='train.importance_cap: workdir 0.0, now 2.0'):
    check_config(Workdir(tmp_path), changed(Config(), 'train', importance_cap=2.0))


def test_fields_about_what_is_to_come_may_change(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(stored(Config())))
  longer = changed(Config(), 'curriculum', round_steps=(50, 50, 9))
  notes = check_config(Workdir(tmp_path), changed(longer, 'mesh', fsdp=2))
  words = 'curriculum.round_steps: workdir (50, 50), now (50, 50, 9)'
  assert f'Other settings from here on: {words}.' in notes
  assert 'Other machine settings than before (mesh.fsdp: workdir 1, now 2)' in notes
  assert set(COMING_FIELDS) == {
    'train.max_skipped',
    'curriculum.round_steps',
    'evaluate.num_samples',
    'evaluate.set_samples',
    'evaluate.every_steps',
    'evaluate.further_temperatures',
  }
  # What names results keeps its name.
  untrained = changed(Config(), 'evaluate', before_training=False)
  assert settings_digest(untrained) == settings_digest(Config())
  assert check_config(Workdir(tmp_path), untrained) == ''


FIELDS = sorted(flatten(dataclasses.asdict(Config())))
SECTIONS = [name for name, value in stored(Config()).items() if isinstance(value, dict)]


def without(fields, name):
  """The same settings, as a version wrote them that did not know this one."""
  *path, last = name.split('.')
  section = fields
  for part in path:
    section = section[part]
  del section[last]
  return fields


# What a lacking field means, where that is not its default.
BEFORE = {'search.cut_ends': 'graded'}


@pytest.mark.parametrize('name', [*FIELDS, *SECTIONS, 'data.countdown'])
def test_every_field_and_section_may_be_lacking(tmp_path, name):
  fields, meant = without(stored(Config()), name), Config()
  for field, value in BEFORE.items():
    if field.startswith(name):
      section, last = field.split('.')
      meant = changed(meant, section, **{last: value})
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  assert check_config(Workdir(tmp_path), meant) == ''
  assert workdir_config(Workdir(tmp_path)) == meant


def test_a_run_from_before_a_field_goes_on_as_it_began(tmp_path):
  """Not with a default that would change what it does."""
  older = without(stored(Config()), 'search.cut_ends')
  (tmp_path / 'config.json').write_text(json.dumps(older))
  with pytest.raises(InputError, match="search.cut_ends: workdir 'graded', now 'incomplete'") as e:
    check_config(Workdir(tmp_path), Config())
  assert str(e.value).endswith('continue with its settings: --config.search.cut_ends=graded')
  assert differing_fields(older, stored(Config())) == {'search.cut_ends': ('graded', 'incomplete')}
  # A file of settings that a user writes has today's default.
  assert load_lib.config_from(older) == Config()


@pytest.mark.parametrize(
  'text, words',
  [
    ('', 'config.json is empty. Bring it back from a copy'),
    ('{"seed": 0, "data": {"sou', 'config.json is no JSON'),
    ('\0' * 100, 'config.json is no JSON'),
    ('[' * 100_000, 'config.json is no JSON'),
    ('[1, 2]', 'to hold an object of settings, got [1, 2]'),
    ('null', 'to hold an object of settings, got None'),
    ('{"train": {"learning_rate": NaN}}', 'Expected train.learning_rate to be a number, got nan'),
    ('{"search": {"lambda_uct": NaN}}', 'Expected search.lambda_uct to be a number, got nan'),
    ('{"search": {"width": "8"}}', "Expected search.width of type int, got '8'"),
    ('{"search": {"width": null}}', 'Expected search.width of type int, got None'),
    ('{"search": {"width": [8]}}', 'Expected search.width of type int, got [8]'),
    ('{"search": {"width": {"min": 8}}}', 'no setting search.width.min'),
    ('{"search": 3}', 'Expected search to be a section'),
    ('{"seed": {"a": 3}}', 'no setting seed.a'),
    ('{"curriculum": {"round_steps": [5, "6"]}}', 'Expected curriculum.round_steps of type int'),
    ('{"search": {"foresight": 3}}', 'no setting search.foresight; the run was made by another'),
    ('{"oracle": 3}', 'no setting oracle'),
  ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path, text, words):
  path = tmp_path / 'config.json'
  path.write_text(text)
  for read in (workdir_config, lambda workdir: check_config(workdir, Config())):
    with pytest.raises(InputError) as error:
      read(Workdir(tmp_path))
    assert words in str(error.value) and str(path) in str(error.value)


def test_a_value_that_this_version_refuses_is_named_with_its_file(tmp_path):
  (tmp_path / 'config.json').write_text('{"search": {"width": 0}}')
  with pytest.raises(InputError, match='config.json: Expected search.width >= 1, got 0'):
    workdir_config(Workdir(tmp_path))


def test_fields_of_another_version_are_named(tmp_path, monkeypatch):
  newer = stored(Config())
  newer['search']['foresight'] = 3
  newer['oracle'] = {'depth': 1}
  with pytest.raises(InputError, match='no setting oracle.depth, search.foresight'):
    differing_fields(newer, stored(Config()))
  (tmp_path / 'config.json').write_text(json.dumps(newer))
  with pytest.raises(InputError, match='foresight|oracle'):
    workdir_config(Workdir(tmp_path))
  renamed = {'search.foresight': 'search.width', 'oracle.depth': 'search.max_depth'}
  monkeypatch.setattr(load_lib, 'RENAMED', renamed)
  del newer['search']['width'], newer['search']['max_depth']
  assert differing_fields(newer, stored(Config())) == {
    'search.max_depth': (1, 64),
    'search.width': (3, 8),
  }


def test_the_shape_of_a_new_model_matters_to_new_models_alone():
  """Runs of configs/deepsearch_1_5b.py from before its defaults were the paper's go on."""
  new = Config()
  old = changed(new, 'model', num_layers=2, width=96)
  assert set(differing_fields(stored(old), stored(new))) == {'model.num_layers', 'model.width'}
  old, new = (changed(config, 'model', path='nvidia/some-model') for config in (old, new))
  assert not differing_fields(stored(old), stored(new))


def test_digests_tell_settings_apart():
  config = Config()
  assert settings_digest(changed(config, 'log', every_steps=9)) == settings_digest(config)
  assert settings_digest(changed(config, 'search', width=9)) != settings_digest(config)
  assert settings_digest(changed(config, 'data', system_message='x')) != settings_digest(config)


# Of the settings at commit 45b4e28, by its own code. Lines of output files carry them: another
# digest means that evaluations and searches begun before do not go on.
DIGESTS = {
  'deepsearch': '8928e2ee',
  'grpo': 'bf3f143d',
  'dapo': 'd3ae2acf',
  'dr_grpo': '79570efc',
  'rloo': 'a6520ba8',
  'sft': '1f4e47c9',
  'smoke': '5d53f5ad',
}


@pytest.mark.parametrize('name, digest', DIGESTS.items())
def test_config_files_mean_what_they_meant(root, name, digest):
  """But for what is cut off at the limit, which was graded then in all of them."""
  config = load_config(str(root / f'configs/{name}.py'))
  found = settings_digest(changed(config, 'search', cut_ends='graded'))
  assert found == digest, (
    f'configs/{name}.py has other settings than at commit 45b4e28, or there are new fields. If it '
    f'is meant so, the digest is now {found}.'
  )


def test_digests_tell_a_default_that_is_not_what_was_before():
  graded = changed(Config(), 'search', cut_ends='graded')
  assert settings_digest(graded) != settings_digest(Config())
  assert 'cut_ends' not in fields_in_use(graded)['search']
  assert fields_in_use(Config())['search']['cut_ends'] == 'incomplete'


def test_values_by_name_round_trip_and_are_compared():
  plain = Config()
  config = changed(plain, 'data', template_arguments=NamedValues(enable_thinking=False, n=[1]))
  assert load_lib.config_from(stored(config)) == config and hash(config) != hash(plain)
  assert not load_lib.unknown_fields(stored(config))
  assert differing_fields(stored(config), stored(config)) == {}
  assert differing_fields(stored(config), stored(plain)) == {
    'data.template_arguments.enable_thinking': (False, None),
    'data.template_arguments.n': ((1,), None),
  }
  for values in (5, {'a': float('nan')}, {'a': object()}):
    with pytest.raises(InputError, match='data.template_arguments'):
      load_lib.config_from({'data': {'template_arguments': values}})
