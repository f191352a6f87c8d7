"""The command line as a user meets it: names of mistakes, exit codes, JSON, signals."""

from __future__ import annotations

import json
import signal
import time

import pytest

from ds_jax.cli import COMMANDS, main
from ds_jax.cli.flags import flags_of
from ds_jax.cli.registry import load
from ds_jax.testing import tiny_run


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  root = tmp_path_factory.mktemp('cli')
  path = tiny_run.config_file(root)
  return path, tiny_run.warmstart(root / 'run', tiny_run.config())


def run(capsys, *argv):
  code = main(list(map(str, argv)))
  captured = capsys.readouterr()
  return code, captured.out, captured.err


@pytest.mark.parametrize('name', COMMANDS)
def test_help_shows_flags_an_example_and_exit_codes(capsys, name):
  code, out, _ = run(capsys, name, '--help')
  assert code == 0 and 'example' in out and '42 saved after SIGTERM' in out
  assert all(f'--{flag}' in out for flag in flags_of(load(name)))


@pytest.mark.parametrize(
  'argv, words',
  [
    (['trian'], "Did you mean 'train'?"),
    (
      ['train', '--config={config}', '--workdir=x', '--config.search.widht=3'],
      "Did you mean 'width'?",
    ),
    (
      ['train', '--config={config}', '--workdir=x', '--config.serch.width=3'],
      "Did you mean 'search'?",
    ),
    (['train', '--config={config}', '--workdir=x', '--config.search.width=wide'], 'search.width'),
    (['train', '--config={config}', '--workdir=x', '--config.search.width=0'], '>= 1'),
    (['train', '--config={config}', '--workdir=x', '--config.curriculum.round_steps=5,0'], '>= 1'),
    (['train', '--config={config}', '--workdir=x', '--config.search.backtrack=up'], 'uct'),
    (['train', '--config=/nowhere.py', '--workdir=x'], 'No config file'),
    (['train', '--config={config}'], 'Missing --workdir'),
    (['train', '--config={config}', '--workdir=x', '--wrkdir=y'], 'workdir'),
    (['search', '--config={config}', '--workdir=x'], 'Missing --problem'),
    (['train', '--config={config}', '--workdir=x', 'stray'], 'stray'),
    (['init', '--config={config}', '--tokenizer=/nowhere', '--output=x'], '/nowhere'),
  ],
)
def test_a_mistake_is_named_and_exits_with_2(capsys, warm, argv, words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  code, _, err = run(capsys, *(a.format(config=warm[0]) for a in argv))
  assert code == 2 and words in err and 'Traceback' not in err
  assert not list(tmp_path.iterdir())


def test_a_refused_run_leaves_no_workdir(capsys, warm, tmp_path):
  argv = ['train', f'--config={warm[0]}', '--config.model.path=/nowhere']
  code, _, err = run(capsys, *argv, f'--workdir={tmp_path / "new"}')
  assert code == 2 and '/nowhere' in err
  assert not list(tmp_path.iterdir())
  (tmp_path / 'mine').mkdir()
  assert run(capsys, *argv, f'--workdir={tmp_path / "mine"}')[0] == 2
  assert (tmp_path / 'mine').exists()


def test_search_prints_a_tree_and_json_last(capsys, warm):
  path, workdir = warm
  code, out, _ = run(
    capsys,
    'search',
    f'--config={path}',
    f'--workdir={workdir.root}',
    '--problem=11 from 2 3 5',
    '--json',
  )
  summary = json.loads(out.splitlines()[-1])
  assert code == summary['exit_code'] == 0 and summary['status'] == 'done'
  assert len(summary['tree']['nodes']) > 1
  assert 'visits' in out and 'root' in out


def test_init_writes_a_folder_that_search_uses(capsys, warm, tmp_path):
  path, workdir = warm
  code, _, _ = run(
    capsys,
    'init',
    f'--config={path}',
    f'--tokenizer={workdir.warmstart}',
    f'--output={tmp_path / "model"}',
  )
  assert code == 0
  code, out, _ = run(
    capsys,
    'search',
    f'--config={path}',
    f'--workdir={tmp_path}',
    f'--config.model.path={tmp_path / "model"}',
    '--problem=11 from 2 3 5',
    '--json',
  )
  assert code == 0 and json.loads(out.splitlines()[-1])['parameters'].endswith('model')


def test_evaluate_reports_pass_at_1(capsys, warm):
  path, workdir = warm
  code, out, _ = run(capsys, 'evaluate', f'--config={path}', f'--workdir={workdir.root}', '--json')
  summary = json.loads(out.splitlines()[-1])
  assert code == 0 and 0 <= summary['evaluate/pass_at_1'] <= 1
  assert summary['evaluate/num_problems'] == 6


@pytest.mark.parametrize(
  'number, code', [(signal.SIGTERM, 42), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)]
)
def test_a_signal_saves_and_the_same_command_continues(warm, tmp_path, number, code):
  config = tiny_run.config_file(tmp_path, curriculum=dict(round_steps=(400,)))
  workdir = tiny_run.warmstart(
    tmp_path / 'run', tiny_run.config(curriculum=dict(round_steps=(400,)))
  )
  process = tiny_run.start(config, workdir.root, '--json')
  metrics = workdir.root / 'metrics.jsonl'
  deadline = time.monotonic() + 240
  while time.monotonic() < deadline and not (metrics.exists() and '"train"' in metrics.read_text()):
    time.sleep(0.2)
    assert process.poll() is None, process.communicate()
  process.send_signal(number)
  out, err = process.communicate(timeout=60)
  assert process.returncode == code, err
  assert json.loads(out.splitlines()[-1])['exit_code'] == code
  assert 'continues' in err and 'Traceback' not in err
  steps = len([r for r in tiny_run.metrics(workdir) if r['kind'] == 'train'])
  process = tiny_run.start(config, workdir.root)
  while (
    time.monotonic() < deadline
    and len([r for r in tiny_run.metrics(workdir) if r['kind'] == 'train']) <= steps
  ):
    time.sleep(0.2)
    assert process.poll() is None, process.communicate()
  process.kill()
  _, err = process.communicate(timeout=60)
  assert 'Continuing' in err
