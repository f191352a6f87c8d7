"""`ds_jax.open_session`: each method does what its command does, and a session goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading

import pytest

import ds_jax
from ds_jax.api.results import Outcome, SearchedTree, SearchedTrees
from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.interfaces import SilentProgress
from ds_jax.run.searched import Searched
from ds_jax.run.searching import search_file
from ds_jax.run.workdir import lock
from ds_jax.testing import tiny_run
from ds_jax.testing.tiny import CompileCounter
from ds_jax.types import Verdict

SHORT = dict(round_steps=(2,), filter_samples=1)
QUESTIONS = ['11 from 2 3 5', '10 from 2 3 5']


def open_tiny(folder, progress=None, **overrides):
  settings = dict(curriculum=SHORT) | overrides
  return ds_jax.open_session(
    tiny_run.config(), folder, progress=progress or SilentProgress(), **settings
  )


class Interrupting(SilentProgress):
  """Sends Ctrl-C amid the first phase whose name begins with a word."""

  def __init__(self, phase):
    self._phase = phase

  def start(self, phase, total=None):
    if self._phase and phase.startswith(self._phase):
      self._phase = ''
      os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run from its first model to its end, in one session, and what was seen on the way."""
  folder = tmp_path_factory.mktemp('session') / 'run'
  with open_tiny(folder) as session:
    seen = {'warmstart': session.warmstart(), 'untrained': session.search(QUESTIONS[0])}
    seen['train'] = session.train()
    seen['tree'] = session.search(QUESTIONS[0])
    seen['evaluate'] = session.evaluate()
    seen['export'] = session.export(folder.parent / 'exported')
    seen['trees'] = session.search(QUESTIONS)
  return folder, seen


def test_a_session_is_a_run_from_beginning_to_end(trained):
  folder, seen = trained
  assert seen['warmstart']['output'] == str(folder / 'warmstart')
  assert seen['train']['steps'] == 2 and 'pass@1' in repr(seen['train'])
  assert json.loads((folder / 'summary.json').read_text())['after'] == seen['train']['after']
  assert seen['evaluate']['step'] == seen['export']['step'] == 2
  assert repr(seen['evaluate']).startswith('pass@1 ')
  assert (folder.parent / 'exported' / 'model.safetensors').exists()


def test_a_search_after_training_uses_the_new_parameters(trained):
  _, seen = trained
  before, after = seen['untrained'].tree, seen['tree'].tree
  assert before.prompt_tokens.tolist() == after.prompt_tokens.tolist()
  assert before.logprobs.tolist() != after.logprobs.tolist()
  assert seen['trees'].figures['step'] == 2


def test_a_second_search_compiles_nothing_and_reads_nothing(trained):
  notes = Noting()
  with open_tiny(trained[0], progress=notes) as session:
    first = session.search(QUESTIONS[0])
    counter, num_notes = CompileCounter(), len(notes.notes)
    again, other = session.search(QUESTIONS[0]), session.search(QUESTIONS[1])
    assert counter.compilations() == 0 and notes.notes[num_notes:] == []
  assert again.to_dict() == first.to_dict() != other.to_dict()


class Noting(SilentProgress):
  def __init__(self):
    self.notes = []

  def note(self, message):
    self.notes.append(message)


def test_the_trees_are_those_of_the_command(trained, tmp_path):
  folder, seen = trained
  problems, output = tmp_path / 'problems.jsonl', tmp_path / 'trees.jsonl'
  problems.write_text(''.join(json.dumps({'problem': text}) + '\n' for text in QUESTIONS))
  session = tiny_run.session(tiny_run.Workdir(folder), tiny_run.config())
  _, text = search_file(session, problems=str(problems), output=str(output), select='first_correct')
  rows = {row['question']: row for row in map(json.loads, output.read_text().splitlines())}
  for tree, question in zip(seen['trees'], QUESTIONS, strict=True):
    assert tree.to_dict() == rows[question]['tree'] and tree.problem.prompt == question
  without_times = lambda text: [line for line in text.splitlines() if 'time per' not in line]
  assert without_times(repr(seen['trees']))[-len(without_times(text)) :] == without_times(text)


def test_a_tree_tells_its_paths(trained):
  tree = trained[1]['tree']
  assert len(tree.trajectories) == tree.tree.is_terminal.sum() > 0
  for path in tree.trajectories:
    assert isinstance(path.verdict, Verdict) and path.text == path.text.strip() != ''
    assert path.verdict.value == tree.tree.verdict[path.node]
  collected = [path.node for path in tree.trajectories if path.is_collected]
  assert collected == tree.tree.collected.tolist()
  assert 'root' in repr(tree) and f'answer: {tree.answer}'[:20] in repr(tree)


def test_results_are_shown_in_a_notebook(trained):
  _, seen = trained
  assert '<img alt="learning curve"' in seen['train']._repr_html_()
  assert 'data:image/png;base64,' in seen['train']._repr_html_()
  assert '<pre' in seen['trees']._repr_html_() and 'over trees' in seen['trees']._repr_html_()
  first, second = seen['tree']._repr_html_(), seen['tree']._repr_html_()
  assert '<details' in first and QUESTIONS[0] in first
  assert first != second  # each has anchors of its own
  assert seen['export']['num_parameters'] > 0 and 'dtype: float32' in repr(seen['export'])


def test_what_a_model_wrote_stays_text_in_a_notebook(trained):
  tree = trained[1]['tree']
  hostile = '<script>alert(1)</script>'
  outcome = Outcome({}, hostile)
  searched = Searched(ds_jax.Problem('x', hostile, ''), tree.tree, tree._row, hostile)
  shown = SearchedTrees([SearchedTree(searched, lambda tokens: hostile)], {}, hostile)
  assert '<script' not in outcome._repr_html_() + shown._repr_html_()


def test_ends_are_graded_where_the_answer_is_known(trained):
  """By the problem; or, of an embedded task, by its verifier."""
  with open_tiny(trained[0]) as session:
    known = session.search(ds_jax.Problem('mine', QUESTIONS[0], '11'))
  with open_tiny(trained[0], verify=dict(verifier='countdown')) as session:
    embedded = session.search(QUESTIONS[0])
  unknown = trained[1]['tree']
  assert unknown.is_solved is None and known.problem.id == 'mine'
  verdicts = lambda tree: {path.verdict for path in tree.trajectories}
  assert verdicts(unknown) == {Verdict.UNGRADED}
  for tree in (known, embedded):
    assert tree.is_solved == (Verdict.CORRECT in verdicts(tree))
    assert Verdict.UNGRADED not in verdicts(tree)


def test_ctrl_c_saves_and_the_same_call_goes_on(trained, tmp_path):
  """The run ends in the bits of one that nobody stopped."""
  folder, _ = trained
  workdir = tiny_run.Workdir(tmp_path / 'run')
  for name in ('data', 'warmstart', 'tokenizer'):
    tiny_run.shutil.copytree(folder / name, workdir.root / name)
  with open_tiny(workdir.root, progress=Interrupting('train')) as session:
    with pytest.raises(KeyboardInterrupt):
      session.train()
    assert not workdir.summary.exists() and list(workdir.checkpoints.iterdir())
    with lock(workdir):  # nobody holds it now
      pass
    assert session.search(QUESTIONS[0]).tree.num_ends[0] >= 0
    assert session.train()['steps'] == 2
  cfg = session.config
  tiny_run.assert_same_run(tiny_run.Workdir(folder), workdir, cfg)


def test_a_run_is_opened_by_its_folder(trained):
  folder, seen = trained
  with ds_jax.open_session(workdir=folder, progress=SilentProgress(), step='best') as session:
    assert dataclasses.asdict(session.config)['curriculum']['round_steps'] == (2,)
    assert session.train()['status'] == 'finished' and 'pass@1' in repr(session.train())
    assert session.search(QUESTIONS[0], step=2).to_dict() == seen['tree'].to_dict()
    with pytest.raises(InputError, match='--step=1: there is no checkpoint'):
      session.search(QUESTIONS[0], step=1)
    with pytest.raises(InputError, match='Expected step to be a training step'):
      session.search(QUESTIONS[0], step='newest')


def test_settings_of_one_search_are_checked_and_forgotten(trained):
  with open_tiny(trained[0]) as session:
    wide = session.search(QUESTIONS[0], width=3, width_decay=0)
    with pytest.raises(InputError, match="'search.widht'. Did you mean 'width'"):
      session.search(QUESTIONS[0], widht=3)
    with pytest.raises(InputError, match='Expected search.width >= 1, got 0'):
      session.search(QUESTIONS[0], width=0)
    assert session.search(QUESTIONS[0]).to_dict() == trained[1]['tree'].to_dict()
  assert wide.to_dict()['nodes'][3]['parent'] == 0  # three children of the root


@pytest.mark.parametrize(
  'overrides', [{'search': {'widht': 8}}, {'search.widht': 8}, {'serach': {'width': 8}}]
)
def test_a_misspelt_setting_is_named_as_at_the_shell(tmp_path, capsys, overrides):
  path = tiny_run.config_file(tmp_path)
  name = 'search.widht' if 'serach' not in overrides else 'serach.width'
  assert main(['train', f'--config={path}', '--workdir=w', f'--config.{name}=8']) == 2
  words = capsys.readouterr().err.removeprefix('ds-jax: ').strip()
  with pytest.raises(InputError) as refused:
    ds_jax.open_session(path, tmp_path / 'w', **overrides)
  assert str(refused.value) == words and 'Did you mean' in words
  assert not (tmp_path / 'w').exists()


def test_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
  path = tiny_run.config_file(tmp_path)
  with pytest.raises(InputError, match='Missing workdir'):
    ds_jax.open_session(path)
  with pytest.raises(InputError, match='No config file'):
    ds_jax.open_session(tmp_path, tmp_path / 'run')
  with pytest.raises(InputError, match='has no config.json'):
    ds_jax.open_session(workdir=tmp_path)
  with pytest.raises(InputError, match='Expected search to be a section'):
    ds_jax.open_session(path, tmp_path / 'run', search=8)
  monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
  monkeypatch.setenv('JAX_PROCESS_ID', '0')
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'here:1234')
  with pytest.raises(InputError, match='works in one process'):
    ds_jax.open_session(path, tmp_path / 'run')


def test_what_cannot_be_searched_is_named(trained):
  with open_tiny(trained[0]) as session:
    with pytest.raises(InputError, match='There is no problem'):
      session.search([])
    with pytest.raises(InputError, match='A problem is empty'):
      session.search([' '])
    with pytest.raises(InputError, match="'11 out of 2 3 5': the model has no token for 'out'"):
      session.search('11 out of 2 3 5')
    same_id = [ds_jax.Problem('mine', text, '') for text in QUESTIONS]
    with pytest.raises(InputError, match="Two different problems have the id 'mine'"):
      session.search(same_id)
    assert len(session.search([QUESTIONS[0], QUESTIONS[0]])) == 2
  with pytest.raises(InputError, match='is closed'):
    session.search(QUESTIONS[0])
  assert 'closed' in repr(session)


def test_a_workdir_in_use_is_refused(trained):
  with open_tiny(trained[0]) as session, lock(tiny_run.Workdir(trained[0])):
    with pytest.raises(InputError, match='is in use by process'):
      session.train()
    with pytest.raises(InputError, match='is in use by process'):
      session.evaluate()


def test_a_session_works_outside_the_main_thread(trained):
  trees = []
  with open_tiny(trained[0]) as session:
    thread = threading.Thread(target=lambda: trees.append(session.search(QUESTIONS[0])))
    thread.start()
    thread.join()
  assert trees[0].to_dict() == trained[1]['tree'].to_dict()
