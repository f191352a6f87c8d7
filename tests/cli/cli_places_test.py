"""Flags that name files and folders: read once, so that what is checked is what is written."""

from __future__ import annotations

import pytest

from ds_jax.checks import InputError
from ds_jax.cli import COMMANDS, main
from ds_jax.cli.flags import flags_of, parse
from ds_jax.cli.registry import ShortFor, load

# Flags of text that name no file and no folder.
NO_PLACES = {
  'answer',
  'answer_field',
  'benchmark',
  'benchmarks',
  'coordinator',
  'equivalent_field',
  'gold',
  'gold_field',
  'id_field',
  'mode',
  'name',
  'num_processes',
  'prediction',
  'prediction_field',
  'problem',
  'process_id',
  'prompt_field',
  'push',
  'step',
  'topology',
  'verifier',
}


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A home and a current folder, empty."""
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  (tmp_path / 'home').mkdir()
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  return tmp_path / 'here'


@pytest.mark.parametrize('name', COMMANDS)
def test_every_flag_of_text_is_a_place_or_is_none(name):
  for flag, setting in flags_of(load(name)).items():
    is_short = any(isinstance(mark, ShortFor) for mark in setting.marks)  # the field has the mark
    if setting.kind is str and not setting.choices and not is_short:
      assert (setting.place is None) == (flag in NO_PLACES), flag


@pytest.mark.parametrize(
  'argv, field, expected',
  [
    (['export', '--checkpoint=~/run', '--output=x/'], 'checkpoint', '{home}/run'),
    (['export', '--checkpoint=~/run', '--output=x/'], 'output', '{here}/x'),
    (['init', '--config={config}', '--tokenizer=o/n', '--output=~/m'], 'output', '{home}/m'),
    (['init', '--config={config}', '--tokenizer=o/n', '--output=~/m'], 'tokenizer', 'o/n'),
    (['grade', '~/a.jsonl', '--output=b.jsonl'], 'file', '{home}/a.jsonl'),
    (['grade', '~/a.jsonl', '--output=b.jsonl'], 'output', '{here}/b.jsonl'),
    (['data prepare', '--from=~/*.jsonl', '--data_dir=gs://b/d'], 'from_', '{home}/*.jsonl'),
    (['data prepare', '--from=~/*.jsonl', '--data_dir=gs://b/d'], 'data_dir', 'gs://b/d'),
    (['data describe', '--source=file:~/a.csv', '--tokenizer=~/t'], 'source', 'file:{home}/a.csv'),
    (['data describe', '--source=file:~/a.csv', '--tokenizer=~/t'], 'tokenizer', '{home}/t'),
  ],
)
def test_flags_are_in_full(here, root, argv, field, expected):
  name, *arguments = [argument.format(config=root / 'configs/countdown.py') for argument in argv]
  args = parse(name, arguments).args
  assert getattr(args, field) == expected.format(here=here, home=here.parent / 'home')


def test_workdir_config_file_and_fields_are_in_full(here, root):
  (here.parent / 'home/mine.py').write_text((root / 'configs/deepsearch.py').read_text())
  argv = ['--config=~/mine.py', '--workdir=~/run', '--config.model.path=~/m', '--problem=1']
  invocation = parse('search', argv)
  home = here.parent / 'home'
  assert (invocation.workdir, invocation.config.model.path) == (f'{home}/run', f'{home}/m')
  invocation = parse('search', ['--config', '~/mine.py', '--workdir', 'run', '--problem=1'])
  assert invocation.workdir == f'{here}/run'
  short = parse('evaluate', ['--config=~/mine.py', '--workdir=run', '--data_dir=~/d'])
  assert short.config.data.data_dir == f'{home}/d'


def test_a_run_is_found_by_any_of_its_names(here):
  from ds_jax.run.workdir import Workdir, claim
  from ds_jax.testing import tiny_run

  claim(Workdir(here.parent / 'home/run'), tiny_run.config())
  (here / 'link').symlink_to('../home/run')
  for name in ('~/run', 'link', 'link/', '../home/run'):
    invocation = parse('evaluate', [f'--checkpoint={name}'])
    assert invocation.workdir == invocation.args.checkpoint == str(here.parent / 'home/run')


@pytest.mark.parametrize(
  'argv, words',
  [
    (['report', '--workdir=gs://bucket/run'], '--workdir to be a path on this machine'),
    (['report', '--workdir=file'], 'file is a file'),
    (['report', '--workdir=file/run'], 'so there can be no'),
    (['report', '--workdir=~nobody-here/run'], "no home of '~nobody-here'"),
    (['export', '--checkpoint=run', '--output=broken'], 'is a link to /nowhere/at/all'),
    (['evaluate', '--checkpoint=broken'], 'is a link to /nowhere/at/all'),
  ],
)
def test_a_place_that_cannot_be_is_named_and_nothing_is_made(here, capsys, argv, words):
  (here / 'file').write_text('')
  (here / 'broken').symlink_to('/nowhere/at/all')
  before = sorted(here.iterdir())
  assert main(argv) == 2
  assert words in capsys.readouterr().err
  assert sorted(here.iterdir()) == before


def test_flags_that_are_no_places_stay_as_they_are(here):
  with pytest.raises(InputError, match="expected one of|Unknown data source '~'"):
    from ds_jax.data.sources import load_problems
    from ds_jax.interfaces import SilentProgress

    args = parse('data describe', ['--source=~', '--prompt_field=~/x']).args
    assert args.prompt_field == '~/x'
    load_problems(args.data_config(args.source, 0), 'train', '', progress=SilentProgress())
