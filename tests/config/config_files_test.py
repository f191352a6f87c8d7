"""The files of configs/: read alike by runpy and by the command line, from any folder."""

from __future__ import annotations

import dataclasses

import pytest

from ds_jax.cli.flags import parse
from ds_jax.config import Config, flatten, load_config

NAMES = ('countdown', 'quickstart', 'deepsearch_1_5b', 'smoke', 'grpo', 'dapo', 'dr_grpo', 'rloo')
NAMES = (*NAMES, 'sft', 'chain')
OVERRIDES = ['--config.search.width=3', '--config.seed=7']


@pytest.mark.parametrize('name', NAMES)
def test_files_are_read_alike_by_both_ways(root, tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  path = root / f'configs/{name}.py'
  config = load_config(str(path))
  for flags in ([f'--config={path}'], ['--config', str(path)]):
    invocation = parse('train', [*flags, '--workdir=x'])
    assert invocation.config == config
  ours = parse('train', [f'--config={path}', '--workdir=x', *OVERRIDES]).config
  expected = dataclasses.replace(config, seed=7, search=dataclasses.replace(config.search, width=3))
  assert ours == expected


def test_all_files_are_tested(root):
  files = {path.stem for path in (root / 'configs').glob('*.py')}
  assert files == {*NAMES, 'baselines'}  # the latter is what the others share


def test_the_quickstart_is_countdown(root):
  countdown = load_config(str(root / 'configs/countdown.py'))
  assert load_config(str(root / 'configs/quickstart.py')) == countdown
  assert countdown.data.source == 'countdown' and countdown.verify.verifier == 'countdown'


def test_baselines_differ_from_the_quickstart_where_they_say(root):
  ours = flatten(dataclasses.asdict(load_config(str(root / 'configs/countdown.py'))))
  for name in ('grpo', 'dapo', 'dr_grpo', 'rloo', 'sft'):
    theirs = flatten(dataclasses.asdict(load_config(str(root / f'configs/{name}.py'))))
    differing = {field.split('.')[0] for field in ours if ours[field] != theirs[field]}
    assert differing <= {'search', 'train', 'curriculum', 'verify'}
    assert theirs['curriculum.round_steps'] == (sum(ours['curriculum.round_steps']),)


def test_defaults_are_the_papers(root):
  """What configs/deepsearch_1_5b.py names and the defaults do not share is about this one run."""
  ours = flatten(dataclasses.asdict(Config()))
  paper = flatten(dataclasses.asdict(load_config(str(root / 'configs/deepsearch_1_5b.py'))))
  assert {field for field in ours if ours[field] != paper[field]} == {
    'checkpoint.every_steps',
    'data.eval_source',
    'data.instruction',
    'data.overlong_prompts',
    'data.source',
    'mesh.data',
    'mesh.fsdp',
    'model.compute_dtype',
    'model.path',
    'model.remat',
    'search.count_end_token',
    'search.cut_ends',
    'train.overlong_buffer',
    'verify.num_workers',
  }


def test_the_quickstart_has_0_23_million_parameters(root, tmp_path):
  from ds_jax.data.prompts import load_tokenizer
  from ds_jax.run.warmstart import new_decoder_config
  from ds_jax.testing.tiny_run import write_countdown_tokenizer

  config = load_config(str(root / 'configs/countdown.py'))
  write_countdown_tokenizer(tmp_path, config.data.countdown.max_value)
  count = new_decoder_config(config, load_tokenizer(str(tmp_path))).num_parameters()
  assert f'{count / 1e6:.2f} M' in (root / 'configs/countdown.py').read_text(), count
  assert f'{count / 1e6:.2f} M' in (root / 'README.md').read_text(), count
