"""The files of configs/: read alike by runpy and by the command line, from any folder."""

from __future__ import annotations

import dataclasses

import pytest

from ds_jax.cli.flags import parse
from ds_jax.config import Config, flatten, load_config
from ds_jax.report.summary import read_beside

NAMES = (
  'countdown',
  'chain',
  'quickstart',
  'smollm2_135m',
  'best_1_5b',
  'gemma3_1b_v5e8',
  'lora_1_5b_v5e1',
  'deepsearch_1_5b',
  'deepsearch',
  'smoke',
  'grpo',
  'dapo',
  'dr_grpo',
  'rloo',
  'sft',
)
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


@pytest.mark.parametrize(
  'name, flags, sizes',
  [
    ('deepsearch', [], (8, 3, 9, 32, 36)),
    ('deepsearch', ['--config.data.countdown.num_numbers=5'], (9, 4, 10, 32, 50)),
    ('countdown', ['--config.data.countdown.num_numbers=5'], (9, 4, 10, 32, 50)),
    ('dapo', ['--config.data.countdown.num_numbers=6'], (10, 5, 11, 32, 66)),
    (
      'countdown',
      ['--config.data.countdown.num_numbers=5', '--config.search.max_depth=6'],
      (9, 6, 10, 32, 70),
    ),
    ('chain', [], (12, 8, 4, 64, 44)),
    ('chain', ['--config.data.chain.depth=12'], (16, 12, 4, 96, 64)),
    ('chain', ['--config.search.max_depth=9'], (12, 9, 4, 64, 48)),
  ],
)
def test_a_deeper_task_takes_one_override(root, name, flags, sizes):
  """Lengths follow the size of the problems, unless they are given too."""
  config = parse('train', [f'--config={root}/configs/{name}.py', '--workdir=x', *flags]).config
  search = config.search
  assert sizes == (
    config.data.prompt_limit,
    search.max_depth,
    search.segment_length,
    search.max_expansions,
    config.train.row_length,
  )


def test_all_files_are_tested(root):
  files = {path.stem for path in (root / 'configs').glob('*.py')}
  assert files == {
    *NAMES,
    'baselines',
    'recipe',
    'rollouts',
  }  # the latter are what the others share


def test_the_quickstart_is_chain_with_a_curve(root):
  chain = flatten(dataclasses.asdict(load_config(str(root / 'configs/chain.py'))))
  quickstart = load_config(str(root / 'configs/quickstart.py'))
  ours = flatten(dataclasses.asdict(quickstart))
  differing = {field for field in chain if chain[field] != ours[field]}
  assert differing == {'evaluate.every_steps', 'log.beside'}
  assert quickstart.data.source == quickstart.verify.verifier == 'chain'
  assert read_beside(quickstart.log.beside)['k'] == quickstart.evaluate.num_samples


@pytest.mark.parametrize('name', ['countdown', 'chain', 'best_1_5b'])
def test_the_recipe_is_one(root, name):
  config = load_config(str(root / f'configs/{name}.py'))
  assert config.search.policy == 'direct' and config.search.num_trajectories == 8
  assert config.train.epochs == 4 and config.train.success_weight == 1
  assert config.memory.when == 'at_once' and config.memory.per_update == 32


def test_baselines_differ_from_deepsearch_where_they_say(root):
  ours = flatten(dataclasses.asdict(load_config(str(root / 'configs/deepsearch.py'))))
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


def test_countdown_has_0_23_million_parameters(root, tmp_path):
  from ds_jax.data.prompts import load_tokenizer
  from ds_jax.run.warmstart import new_decoder_config
  from ds_jax.testing.tiny_run import write_countdown_tokenizer

  config = load_config(str(root / 'configs/countdown.py'))
  write_countdown_tokenizer(tmp_path, config.data.countdown.max_value)
  count = new_decoder_config(config, load_tokenizer(str(tmp_path))).num_parameters()
  assert f'{count / 1e6:.2f} M' in (root / 'configs/countdown.py').read_text(), count
