"""A run is opened where it was not made: moved, copied, read-only, without its model."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.data.prompts import load_tokenizer
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.run import model_files, opening
from ds_jax.run.checkpoint import Checkpointer, Saved
from ds_jax.run.disk import is_writable
from ds_jax.run.engines import open_engines
from ds_jax.run.parameters import init_model
from ds_jax.run.restoring import list_steps, numbers_of
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir, claim
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny_run
from ds_jax.testing.notes import Notes
from ds_jax.testing.tiny_run import write_countdown_tokenizer
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import init_state

MODEL = 'models/tiny'  # as config.json has it, from the folder where the run was made
VERIFY = dict(verifier='countdown', num_workers=1)
DATA = dict(source='file:train.jsonl', eval_source='file:eval.jsonl')  # both are gone
# By number: training step, and pass@1 of the evaluation that came with it.
SAVES = {1: (0, 0.2), 2: (2, None), 3: (4, 0.6), 4: (6, 0.4), 5: (6, None)}


def make_model(folder, **shape):
  write_countdown_tokenizer(folder / 'tokenizer', 30)
  session = tiny_run.session(None, tiny_run.config(model=shape))
  init_model(session, tokenizer=str(folder / 'tokenizer'), output=str(folder / MODEL))
  return folder / MODEL


def save_checkpoints(workdir, model):
  config = tiny_run.config()
  decoder = load_decoder(model, num_ids=load_tokenizer(model).num_ids)
  mesh, optimizer = make_mesh(fsdp=8), make_optimizer(config.train)
  checkpointer = Checkpointer(workdir.checkpoints, keep=len(SAVES))
  for number, (step, score) in SAVES.items():
    shifted = jax.tree.map(lambda x, by=step: x + by, decoder)
    host = {'step': step}
    checkpointer.save(number, init_state(shifted, optimizer, mesh), host, score=score)
  checkpointer.close()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder with a model, and a run that was made there with a relative path to it."""
  home, before = tmp_path_factory.mktemp('home'), os.getcwd()
  model = make_model(home)
  (model / 'pytorch_model.bin.index.json').write_text('{}')
  (model / 'additional_chat_templates').mkdir()
  (model / 'additional_chat_templates/tool_use.jinja').write_text('{{ messages }}')
  fields = json.loads((model / 'tokenizer_config.json').read_text())
  (model / 'chat_template.jinja').write_text(fields.pop('chat_template'))
  (model / 'tokenizer_config.json').write_text(json.dumps(fields))
  workdir = Workdir(home / 'runs/first')
  config = tiny_run.config(model=dict(path=MODEL), verify=VERIFY, data=DATA)
  session = tiny_run.session(workdir, config)
  os.chdir(home)
  try:
    with open_engines(session) as engines:
      engines.claim()
  finally:
    os.chdir(before)
  save_checkpoints(workdir, model)
  return home, workdir


@pytest.fixture
def moved(made, tmp_path, monkeypatch):
  """A copy of the run; neither its model nor the folder where it was made is here."""
  (tmp_path / 'third').mkdir()
  monkeypatch.chdir(tmp_path / 'third')
  return Workdir(shutil.copytree(made[1].root, tmp_path / 'elsewhere/first'))


@pytest.fixture
def read_only(moved):
  """The same, on a file system that refuses to be written."""
  root = moved.root
  if os.geteuid():
    for path in (root, *filter(pathlib.Path.is_dir, root.rglob('*'))):
      path.chmod(0o555)
    yield moved
    for path in (root, *filter(pathlib.Path.is_dir, root.rglob('*'))):
      path.chmod(0o755)
    return
  mount = lambda *argv: subprocess.run(['mount', *argv], capture_output=True, check=False)
  if mount('--bind', root, root).returncode:
    pytest.skip('root may write everywhere, and cannot mount anything read-only here')
  try:
    assert not mount('-o', 'remount,ro,bind', root).returncode
    yield moved
  finally:
    subprocess.run(['umount', root], check=True)


def run(capsys, *argv):
  code = main([*map(str, argv), '--json'])
  captured = capsys.readouterr()
  return code, json.loads(captured.out.splitlines()[-1]) if captured.out else {}, captured.err


def files_of(folder):
  return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob('*'))}


def test_a_run_keeps_all_of_its_model_but_the_weights(made):
  home, workdir = made
  names = {str(p.relative_to(workdir.model_files)) for p in workdir.model_files.rglob('*.*')}
  assert names == {
    'manifest.json',
    'config.json',
    'generation_config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'chat_template.jinja',
    'additional_chat_templates/tool_use.jinja',
  }
  for name in names - {'manifest.json'}:
    assert (workdir.model_files / name).read_bytes() == (home / MODEL / name).read_bytes()


def test_an_export_needs_neither_the_model_nor_its_folder(moved, capsys):
  before = files_of(moved.root)
  code, summary, _ = run(capsys, 'export', f'--checkpoint={moved.root}', '--output=out')
  assert (code, summary['step']) == (0, 6)
  assert files_of(moved.root) == before
  exported, kept = load_tokenizer('out'), load_tokenizer(moved.model_files)
  assert exported.encode_prompt('1 2').tolist() == kept.encode_prompt('1 2').tolist()


def first_weight(folder):
  return float(np.asarray(jax.tree.leaves(load_decoder(folder))[0]).ravel()[0])


def test_the_parameters_of_a_step_or_the_best_come_out(moved, capsys):
  weights = {}
  for step in ('0', '4', 'best', ''):
    flags = [f'--step={step}'] if step else []
    output = f'out{step}'
    code, summary, _ = run(
      capsys, 'export', f'--checkpoint={moved.root}', f'--output={output}', *flags
    )
    assert code == 0
    weights[step] = (summary['step'], round(first_weight(output) - first_weight('out0'), 4))
  assert weights == {'0': (0, 0), '4': (4, 4), 'best': (4, 4), '': (6, 6)}


@pytest.mark.parametrize(
  'step, words',
  [
    ('3', 'no checkpoint of that step. There are steps 0 (pass@1 0.200), 2, 4 (pass@1 0.600), 6'),
    ('latest', 'a training step as in metrics.jsonl, or best'),
    ('-1', 'a training step as in metrics.jsonl, or best'),
  ],
)
@pytest.mark.parametrize('command', ['export', 'evaluate', 'search'])
def test_a_step_that_does_not_exist_is_named(moved, capsys, command, step, words):
  own = {
    'export': ['--output=out'],
    'evaluate': ['--config.data.eval_source=countdown', '--data_dir=data'],
    'search': ['--problem=11 from 2 3 5'],
  }
  code, _, err = run(capsys, command, f'--checkpoint={moved.root}', f'--step={step}', *own[command])
  assert code == 2 and words in err and not pathlib.Path('out').exists()


def test_the_best_is_the_highest_score_and_the_later_of_equal_ones():
  saved = [Saved(1, 0, 0.5), Saved(2, 5, None), Saved(3, 10, 0.5), Saved(7, 10, None)]
  assert numbers_of(saved, 'best') == [3, 7]  # the same parameters, saved twice
  assert list_steps(saved) == 'There are steps 0 (pass@1 0.500), 5, 10 (pass@1 0.500).'
  with pytest.raises(InputError, match='none is the best. There are steps 5'):
    numbers_of(saved[1:2], 'best')
  with pytest.raises(InputError, match='There is none that can be read'):
    numbers_of([], '5')


def damage(workdir, number):
  largest = max(
    (workdir.checkpoints / f'{number}/state').rglob('*'), key=lambda p: p.stat().st_size
  )
  largest.write_bytes(b'\xff' * largest.stat().st_size)


def test_a_damaged_checkpoint_is_passed_over_unless_it_is_asked_for(moved, capsys):
  flags = [f'--checkpoint={moved.root}', '--output=out']
  damage(moved, 5)  # 4 has the same step, so the same parameters
  code, summary, err = run(capsys, 'export', '--step=6', *flags)
  assert (code, summary['step']) == (0, 6) and 'checkpoint 5 is damaged' in err
  damage(moved, 4)
  code, _, err = run(capsys, 'export', '--step=6', f'--checkpoint={moved.root}', '--output=out2')
  assert code == 2 and 'checkpoints/5 is damaged' in err and 'There are steps 0 ' in err
  assert not pathlib.Path('out2').exists()
  (moved.checkpoints / '3/host/data.json').write_text('{')
  code, summary, err = run(capsys, 'export', f'--checkpoint={moved.root}', '--output=out2')
  assert (code, summary['step']) == (0, 2) and 'checkpoint 3 is damaged' in err


def test_a_run_without_scores_has_no_best(moved, capsys):
  for number in (1, 3, 4):
    shutil.rmtree(moved.checkpoints / str(number))
  argv = ['export', f'--checkpoint={moved.root}', '--output=out', '--step=best']
  code, _, err = run(capsys, *argv)
  assert code == 2 and 'none is the best. There are steps 2, 6.' in err
  shutil.rmtree(moved.checkpoints)
  code, _, err = run(capsys, *argv)
  assert code == 2 and 'holds no checkpoint' in err


@pytest.mark.parametrize(
  'inside, words',
  [
    ('checkpoints/3', 'is its checkpoint of step 4 (--step=4)'),
    ('checkpoints', 'lies in the folder of a run, {root}'),
    ('model_files', 'lies in the folder of a run, {root}'),
    ('nowhere', 'There is no such folder'),
  ],
)
def test_a_folder_inside_a_run_is_told_from_it(moved, capsys, inside, words):
  for argv in (['export', '--output=out'], ['evaluate'], ['search', '--problem=11 from 2 3 5']):
    code, _, err = run(capsys, *argv, f'--checkpoint={moved.root / inside}')
    assert code == 2 and words.format(root=moved.root) in err


def test_a_read_only_run_is_evaluated_and_searched(read_only, capsys, monkeypatch, tmp_path):
  """So it is without its files of problems: a search needs none, an evaluation names them."""
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setenv('JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES', 'none')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  assert not is_writable(read_only.root)
  flags = [f'--checkpoint={read_only.root}', '--step=4']
  code, _, err = run(capsys, 'evaluate', *flags)
  assert code == 2 and 'eval.jsonl' in err
  flags.append('--config.data.eval_source=countdown')
  code, summary, err = run(capsys, 'evaluate', *flags, '--data_dir=data')
  assert (code, summary['step'], summary['evaluate/num_problems']) == (0, 4, 6)
  assert err.count('cannot be written') == 1 and '--output=DIR' in err
  assert os.environ['JAX_COMPILATION_CACHE_DIR'].startswith(str(tmp_path / 'cache'))
  code, summary, _ = run(capsys, 'search', *flags, '--problem=11 from 2 3 5')
  assert (code, summary['step']) == (0, 4)


def test_a_model_may_be_named_and_must_fit(made, moved, capsys, tmp_path):
  argv = ['export', f'--checkpoint={moved.root}']
  shutil.copytree(made[0] / MODEL, tmp_path / 'fits')
  template = 'mended {{ messages[0].content }}'
  (tmp_path / 'fits/chat_template.jinja').write_text(template)
  code, _, _ = run(capsys, *argv, '--output=out', f'--model={tmp_path / "fits"}')
  assert code == 0 and pathlib.Path('out/chat_template.jinja').read_text() == template

  deeper = make_model(tmp_path / 'deeper', num_layers=2)
  code, _, err = run(capsys, *argv, '--output=no', f'--model={deeper}')
  assert code == 2 and 'num_layers 2, not 1' in err
  words = make_model(tmp_path / 'words')
  text = (words / 'tokenizer.json').read_text()
  (words / 'tokenizer.json').write_text(text.replace('"29"', '"twenty-nine"'))
  code, _, err = run(capsys, *argv, '--output=no', f'--model={words}')
  assert code == 2 and "token '29' is None, not" in err
  code, _, err = run(capsys, *argv, '--output=no', '--model=/nowhere')
  assert code == 2 and "No folder '/nowhere' (--model=/nowhere)" in err
  assert not pathlib.Path('no').exists()


def test_a_run_of_before_tells_how_to_name_its_model(made, moved, capsys):
  shutil.rmtree(moved.model_files)
  argv = ['export', f'--checkpoint={moved.root}', '--output=out']
  code, _, err = run(capsys, *argv)
  assert code == 2 and MODEL in err and '--model=FOLDER' in err
  code, summary, _ = run(capsys, *argv, f'--model={made[0] / MODEL}')
  assert (code, summary['step']) == (0, 6)


def test_what_is_kept_is_checked(moved, capsys):
  (moved.model_files / 'tokenizer.json').write_text('{}')
  (moved.model_files / 'chat_template.jinja').unlink()
  code, _, err = run(capsys, 'export', f'--checkpoint={moved.root}', '--output=out')
  assert code == 2 and 'chat_template.jinja, tokenizer.json changed or missing' in err
  (moved.model_files / 'manifest.json').write_text('{"files"')
  code, _, err = run(capsys, 'export', f'--checkpoint={moved.root}', '--output=out')
  assert code == 2 and 'manifest.json is damaged' in err


def test_a_model_that_changes_under_a_run_changes_nothing(made, moved, tmp_path, monkeypatch):
  """The run goes on with what it keeps, and says so; another model is refused by name."""
  home, _ = made
  (tmp_path / 'home').mkdir()
  shutil.copytree(home / 'models', tmp_path / 'home/models')
  monkeypatch.chdir(tmp_path / 'home')
  model, notes = pathlib.Path(MODEL), Notes()
  config = tiny_run.config(model=dict(path=MODEL))
  session = Session(config, moved, notes)
  tokenizer = opening.open_model(session).tokenizer
  opening.keep_model(session, tokenizer)
  assert not notes.messages

  (model / 'chat_template.jinja').write_text('another')
  (model / 'tokenizer.model').write_text('new')
  assert opening.model_folder(session) == moved.model_files
  opening.keep_model(session, tokenizer)
  assert (
    'chat_template.jinja, tokenizer.model' in notes.messages[0] and 'goes on' in notes.messages[0]
  )

  elsewhere = Session(tiny_run.config(model=dict(path=str(shutil.move(MODEL, 'b')))), moved, notes)
  with pytest.raises(InputError, match='is not the model .* chat_template.jinja, tokenizer.model'):
    opening.keep_model(elsewhere, tokenizer)


def test_the_same_model_elsewhere_is_kept_anew(made, moved, tmp_path):
  model = made[0] / MODEL
  model_files.keep(model, moved.model_files, path=str(model))
  copy = shutil.copytree(model, tmp_path / 'copy')
  session = Session(tiny_run.config(model=dict(path=str(copy))), moved, Notes())
  opened = opening.open_model(session)
  assert opened.folder == copy  # nobody knows yet that it is the same
  opening.keep_model(session, opened.tokenizer)
  assert model_files.kept_path(moved.model_files) == str(copy)
  assert opening.open_model(session).folder == moved.model_files


def test_a_model_that_has_moved_is_not_needed(made, moved, tmp_path):
  """Its folder of before is gone; another one of its name may be here."""
  model_files.keep(made[0] / MODEL, moved.model_files, path='/gone/models/tiny')
  for path in ('/gone/models/tiny', str(made[0] / MODEL)):
    session = Session(tiny_run.config(model=dict(path=path)), moved, Notes())
    assert opening.open_model(session).folder == moved.model_files


def test_files_that_were_half_kept_are_kept_again(made, tmp_path):
  """A kill while they are written leaves no manifest; a model that changes meanwhile is named."""
  home, _ = made
  workdir = Workdir(tmp_path / 'run')
  claim(workdir, tiny_run.config())
  workdir.model_files.mkdir()
  (workdir.model_files / 'tokenizer.json').write_text('half')
  session = Session(tiny_run.config(model=dict(path=str(home / MODEL))), workdir, Notes())
  opened = opening.open_model(session)
  assert opened.folder == home / MODEL
  write_countdown_tokenizer(tmp_path / 'other', 20)
  with pytest.raises(InputError, match="another tokenizer .*token '21' is"):
    opening.keep_model(session, load_tokenizer(tmp_path / 'other'))
  assert not model_files.is_whole(workdir.model_files)
  opening.keep_model(session, opened.tokenizer)
  model_files.check_kept(workdir.model_files)


def test_other_weights_than_the_run_began_with_are_refused_by_shape(made, moved, tmp_path):
  """A run that has no checkpoint yet starts from the model's folder."""
  from ds_jax.run.parameters import initial_params

  other = make_model(tmp_path / 'other', rope_theta=500.0)
  session = tiny_run.session(moved, tiny_run.config(model=dict(path=MODEL), verify=VERIFY))
  pathlib.Path(MODEL).parent.mkdir(parents=True)
  shutil.copytree(other, MODEL)
  with open_engines(session) as engines:
    assert engines.decoder_config.rope_theta == 10_000.0
    with pytest.raises(InputError, match='another model .*rope_theta 500.0, not 10000.0'):
      initial_params(engines)
