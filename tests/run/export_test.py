"""`ds-jax export`: the newest parameters of a run, as transformers loads them."""

from __future__ import annotations

import json

import hf_models
import jax
import numpy as np
import pytest
from untrained_run import write_run

from ds_jax.cli import main
from ds_jax.data.prompts import load_tokenizer
from ds_jax.interfaces import SilentProgress
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.run.restoring import restore_params
from ds_jax.run.workdir import Workdir, claim
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('export'))


def export(capsys, *argv):
  code = main(['export', *map(str, argv), '--json'])
  captured = capsys.readouterr()
  return code, json.loads(captured.out.splitlines()[-1]) if captured.out else {}, captured.err


def files_of(folder):
  return {p: p.lstat().st_mtime_ns for p in sorted(folder.rglob('*'))}


def test_the_newest_parameters_come_out_whole(run, capsys, tmp_path):
  workdir, expected, tokenizer = run
  before = files_of(workdir.root)
  code, summary, _ = export(capsys, f'--checkpoint={workdir.root}', f'--output={tmp_path}/out')
  assert code == summary['exit_code'] == 0
  assert (summary['step'], summary['dtype']) == (2, 'float32')
  assert files_of(workdir.root) == before
  found = load_decoder(tmp_path / 'out', num_ids=tokenizer.num_ids)
  jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(found), jax.tree.leaves(expected))
  config, generation = (
    json.loads((tmp_path / 'out' / name).read_text())
    for name in ('config.json', 'generation_config.json')
  )
  assert config['bos_token_id'] == 7
  assert generation == {
    'temperature': 0.6,
    'eos_token_id': list(tokenizer.stop_ids),
    'pad_token_id': tokenizer.pad_id,
  }
  assert (tmp_path / 'out/chat_template.jinja').exists()
  again = load_tokenizer(tmp_path / 'out')
  assert again.stop_ids == tokenizer.stop_ids
  assert (
    again.encode_prompt('1 2').tolist()
    == load_tokenizer(workdir.warmstart).encode_prompt('1 2').tolist()
  )


def test_transformers_generates_with_it(run, capsys, tmp_path):
  pytest.importorskip('torch', reason='transformers on torch is the reference')
  import torch
  import transformers

  workdir, _, tokenizer = run
  assert (
    export(capsys, f'--checkpoint={workdir.root}', f'--output={tmp_path}/out', '--dtype=bfloat16')[
      0
    ]
    == 0
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out', dtype='auto').eval()
  assert model.dtype == torch.bfloat16
  assert model.generation_config.eos_token_id == list(tokenizer.stop_ids)
  prompt = tokenizer.encode_prompt('1 2')
  assert len(hf_models.greedy(model, [prompt], 3)[0]) == 3


def test_the_optimizer_stays_on_disk(run):
  from ds_jax.model.huggingface.config import read_config

  workdir, expected, tokenizer = run
  config = read_config(workdir.warmstart, tokenizer.num_ids)
  params, step, _ = restore_params(
    workdir, config, make_mesh(tensor=2, fsdp=-1), progress=SilentProgress()
  )
  assert step == 2
  jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(params), jax.tree.leaves(expected))
  assert {d.id for x in jax.tree.leaves(params) for d in x.sharding.device_set} == set(range(8))


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--checkpoint={run}', '--output={tmp}'], 'exists already'),
    (['--checkpoint={run}', '--output=/'], 'exists already'),
    (['--checkpoint={run}', '--output={run}'], 'exists already'),
    (['--checkpoint={run}', '--output={run}/..'], 'exists already'),
    (['--checkpoint={run}', '--output={run}/checkpoints/new'], 'in the checkpoints of the run'),
    (['--checkpoint={run}', '--output={run}/warmstart'], 'lies in the warmstart of the run'),
    (['--checkpoint={run}', '--output={run}/config.json'], 'is a file'),
    (['--checkpoint={run}', '--output={tmp}/broken'], 'is a link to /nowhere'),
    (['--checkpoint={run}', '--output={tmp}/new', '--dtype=int8'], 'bfloat16'),
    (['--checkpoint={tmp}/nowhere', '--output={tmp}/new'], 'no config.json'),
    (['--checkpoint={empty}', '--output={tmp}/new'], 'no checkpoint'),
    (['--checkpoint={run}'], 'Missing --output'),
    (['--output={tmp}/new'], 'Missing --checkpoint'),
  ],
)
def test_a_mistake_is_named_and_nothing_is_written(run, capsys, tmp_path, argv, words):
  empty = Workdir(tmp_path / 'empty')
  claim(empty, tiny_run.config())
  empty.warmstart.symlink_to(run[0].warmstart)
  (tmp_path / 'broken').symlink_to('/nowhere/at/all')
  before = files_of(run[0].root) | files_of(tmp_path)
  code, _, err = export(
    capsys, *(a.format(run=run[0].root, tmp=tmp_path, empty=empty.root) for a in argv)
  )
  assert code == 2 and words in err and 'Traceback' not in err
  assert before == files_of(run[0].root) | files_of(tmp_path)


def test_another_model_in_the_home_folder_stays(run, capsys, tmp_path, monkeypatch):
  """The check reads the path that is written to, however it is spelt."""
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'm').mkdir()
  (tmp_path / 'm/config.json').write_text('{}')
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  before = files_of(tmp_path)
  for output in ('~/m', '~/m/', '../m'):
    code, _, err = export(capsys, f'--checkpoint={run[0].root}', f'--output={output}')
    assert code == 2 and 'exists already' in err
  assert files_of(tmp_path) == before
  code, summary, _ = export(capsys, f'--checkpoint={run[0].root}', '--output=~/new')
  assert code == 0 and summary['output'] == str(tmp_path / 'new')
  assert (tmp_path / 'new/config.json').exists() and not list((tmp_path / 'here').iterdir())


def test_a_run_is_exported_from_a_third_folder_into_a_link(run, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'run').symlink_to(run[0].root)
  (tmp_path / 'out').mkdir()
  (tmp_path / 'link').symlink_to('out')
  code, summary, _ = export(capsys, '--checkpoint=run', '--output=link')
  assert code == 0 and summary['output'] == str(tmp_path / 'out')
  assert (tmp_path / 'link').is_symlink() and 'config.json' in summary['files']


def test_an_older_run_with_a_relative_model_is_exported_from_anywhere(
  run, capsys, tmp_path, monkeypatch
):
  workdir = Workdir(tmp_path / 'project/runs/mine')
  claim(workdir, tiny_run.config(model=dict(path='models/tiny')))
  workdir.checkpoints.symlink_to(run[0].checkpoints)
  (tmp_path / 'project/models').mkdir()
  (tmp_path / 'project/models/tiny').symlink_to(run[0].warmstart)
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  code, summary, err = export(capsys, '--checkpoint=../project/runs/mine', '--output=out')
  assert code == 0 and summary['step'] == 2, err
  (tmp_path / 'project').rename(tmp_path / 'moved')
  code, summary, err = export(capsys, '--checkpoint=../moved/runs/mine', '--output=again')
  assert code == 0 and summary['step'] == 2, err


def test_init_replaces_no_model(run, capsys, tmp_path):
  path = tiny_run.config_file(tmp_path)
  argv = ['init', f'--config={path}', f'--tokenizer={run[0].warmstart}']
  before = files_of(run[0].root)
  for output in (run[0].warmstart, run[0].warmstart / 'new'):
    assert main([*argv, f'--output={output}']) == 2
    assert 'lies in the folder of the tokenizer' in capsys.readouterr().err
  assert main([*argv, f'--output={tmp_path}']) == 2
  assert 'exists already' in capsys.readouterr().err
  assert files_of(run[0].root) == before
