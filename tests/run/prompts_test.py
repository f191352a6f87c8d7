"""What a run says of its prompts before it samples."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil

import numpy as np
import pytest
import tokenizers

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.config import Config, SearchConfig, VerifyConfig
from ds_jax.run import prompts as prompts_lib
from ds_jax.run import training
from ds_jax.run.prompts import check_room, note_missing_box, open_tokenizer, template_settings
from ds_jax.run.samples import sample_settings
from ds_jax.run.session import Session
from ds_jax.run.stopping import Stopped
from ds_jax.run.workdir import Workdir, kept_date
from ds_jax.testing import tiny_run
from ds_jax.testing.notes import Notes
from ds_jax.types import Gold, Problem

PLAIN = Problem('a', 'What is 1 + 1?', '2')
BOXED = Problem('b', r'What is 1 + 2? Answer within \boxed{}.', '3')


@dataclasses.dataclass(frozen=True)
class Template:
  """A tokenizer whose chat template writes `system` in front of every prompt."""

  system: str = ''

  def decode_response(self, tokens: np.ndarray) -> str:
    return f'{self.system} {tokens.tolist()}'


def notes_of(problems, verifier='math', system=''):
  progress = Notes()
  session = Session(Config(verify=VerifyConfig(verifier=verifier)), None, progress)
  prompts = tuple((problem, np.arange(3, dtype=np.int32)) for problem in problems)
  note_missing_box(session, Template(system), prompts)
  return progress.messages


class Words:
  """A tokenizer of words."""

  def encode_response(self, text):
    return np.arange(len(text.split()) + 1, dtype=np.int32)  # and an end token


def test_solutions_of_an_embedded_task_that_no_response_has_room_for_are_refused():
  solution = '7 f2 40 . 40 f0 3'  # eight tokens, with the end
  prompts = ((Problem('p', '7 f2 f0', Gold('7 f2 40 40 f0 3', 'chain'), solution), np.arange(4)),)

  def config(max_depth, verifier='chain'):
    search = SearchConfig(max_depth=max_depth, segment_length=3)
    return Config(search=search, verify=VerifyConfig(verifier=verifier))

  check_room(config(3), Words(), prompts)
  with pytest.raises(InputError, match=r'2 \* 3 = 6 are allowed: set search.max_depth to 3 or'):
    check_room(config(2), Words(), prompts)
  check_room(config(2, 'python:mine.verify'), Words(), prompts)  # it may ask for less
  others = tuple((dataclasses.replace(problem, answer='40'), ids) for problem, ids in prompts)
  check_room(config(2), Words(), others)  # shorter answers may be right


@pytest.mark.parametrize('verifier', ['math', 'released'])
def test_prompts_that_ask_for_no_box_are_noted_with_a_remedy(verifier):
  (note,) = notes_of([PLAIN, PLAIN], verifier)
  assert 'none of the 2 prompts' in note and 'data.instruction' in note and r'\boxed{}' in note
  assert f'verify.verifier={verifier}' in note


@pytest.mark.parametrize(
  'problems, verifier, system',
  [
    ([PLAIN, BOXED], 'math', ''),
    ([PLAIN], 'math', r'Put your final answer within \boxed{}.'),
    ([PLAIN], 'exact', ''),
    ([PLAIN], 'python:mine.verify', ''),
    ([], 'math', ''),
  ],
)
def test_where_a_box_is_asked_for_or_not_needed_nothing_is_said(problems, verifier, system):
  assert not notes_of(problems, verifier, system)


def test_a_command_says_it_once(tmp_path, capsys):
  path = tiny_run.config_file(tmp_path)
  workdir = tiny_run.warmstart(tmp_path / 'run', tiny_run.config())
  argv = [f'--config={path}', f'--workdir={workdir.root}', '--config.verify.verifier=math']
  rows = tmp_path / 'rows.jsonl'
  rows.write_text('{"problem": "11 from 2 3 5", "answer": "11"}\n')
  assert main(['evaluate', *argv, f'--config.data.eval_source=file:{rows}']) == 0
  err = ' '.join(capsys.readouterr().err.split())
  assert err.count('asks for one: set data.instruction') == 1
  assert main(['evaluate', *argv]) == 0  # problems of the embedded task are judged by its verifier
  assert 'data.instruction' not in capsys.readouterr().err


# What the prompts of a run depend on.

# In words of the embedded task: "11 from 2 3 5 from 22 :".
DATED = '{{ messages[-1].content }} from {{ strftime_now("%d") }} :'


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  root = tmp_path_factory.mktemp('warm')
  return tiny_run.warmstart(root / 'run', tiny_run.config())


def with_template(warm, folder, text):
  """A workdir whose model has another template."""
  shutil.copytree(warm.root, folder, ignore=shutil.ignore_patterns('jax_cache', 'lock'))
  (folder / 'warmstart/chat_template.jinja').write_text(text)
  return Workdir(folder)


def prompt_on(monkeypatch, day, workdir, **data):
  monkeypatch.setattr(prompts_lib, 'today', lambda: datetime.date(2026, 11, day))
  progress = Notes()
  session = Session(tiny_run.config(data=data), workdir, progress)
  tokenizer = open_tokenizer(session, workdir.warmstart)
  text = tokenizer.decode_response(tokenizer.encode_prompt('11 from 2 3 5'))
  return text, progress.messages, tokenizer


def always():
  return True


def test_a_run_has_the_date_of_its_first_start(warm, tmp_path, monkeypatch):
  workdir = with_template(warm, tmp_path / 'run', DATED)
  text, notes, tokenizer = prompt_on(monkeypatch, 22, workdir)
  assert text == '11 from 2 3 5 from 22 :' and 'asks for the date and gets 2026-11-22' in notes[0]
  assert prompt_on(monkeypatch, 23, workdir)[0].endswith('23 :')  # nothing was begun
  assert template_settings(tokenizer) == {'data.date': '2026-11-22'}
  monkeypatch.setattr(prompts_lib, 'today', lambda: datetime.date(2026, 11, 22))
  with pytest.raises(Stopped):
    training.train(tiny_run.session(workdir, tiny_run.config(), always))
  assert kept_date(workdir) == datetime.date(2026, 11, 22)
  assert prompt_on(monkeypatch, 23, workdir)[0] == text
  shutil.copytree(workdir.root, tmp_path / 'elsewhere')
  assert prompt_on(monkeypatch, 24, Workdir(tmp_path / 'elsewhere'))[0] == text
  assert prompt_on(monkeypatch, 24, workdir, date='2026-11-12')[0].endswith('from 12 :')
  (workdir.root / 'date').write_text('soon\n')
  with pytest.raises(InputError, match="date holds 'soon', expected a date"):
    prompt_on(monkeypatch, 24, workdir)


def test_a_template_without_date_leaves_no_trace(warm, tmp_path, monkeypatch):
  shutil.copytree(warm.root, tmp_path / 'run', ignore=shutil.ignore_patterns('jax_cache', 'lock'))
  workdir = Workdir(tmp_path / 'run')
  text, notes, tokenizer = prompt_on(monkeypatch, 22, workdir)
  assert text == '11 from 2 3 5 :' and not notes and template_settings(tokenizer) == {}
  prompts_lib.keep_template_date(workdir, tokenizer)
  assert not workdir.date.exists()
  assert not any(name.startswith('data.template') for name in sample_settings(tiny_run.config()))


@pytest.mark.parametrize(
  'template, flags, reason',
  [
    ('{{ raise_exception("System message required") }}', [], 'fails: System message required'),
    ('{% if %}', [], 'cannot be read'),
    ('nothing', [], 'drops or changes what user says'),
    ('{{ messages[-1].content }}', ['--config.data.system_message=Hi.'], 'what system says'),
    (
      '{{ messages[-1].content }}',
      ['--config.data.template_arguments.enable_thinking=False'],
      "reads no variable 'enable_thinking'",
    ),
    ('{{ messages[-1].content }}', ['--config.data.template_name=rag'], "no chat template 'rag'"),
  ],
)
def test_commands_end_with_2_and_name_the_template(warm, tmp_path, capsys, template, flags, reason):
  path = tiny_run.config_file(tmp_path)
  workdir = with_template(warm, tmp_path / 'run', template)
  argv = [f'--config={path}', f'--workdir={workdir.root}', *flags]
  assert main(['search', *argv, '--problem=11 from 2 3 5']) == 2
  error = ' '.join(capsys.readouterr().err.split())
  assert reason in error and str(workdir.warmstart) in error


def test_a_tokenizer_with_more_ids_than_the_model_searches(warm, tmp_path, capsys):
  shutil.copytree(warm.root, tmp_path / 'run', ignore=shutil.ignore_patterns('jax_cache', 'lock'))
  file = tmp_path / 'run/warmstart/tokenizer.json'
  rows = json.loads(file.with_name('config.json').read_text())['vocab_size']
  tokenizer = tokenizers.Tokenizer.from_file(str(file))
  count = rows - tokenizer.get_vocab_size() + 1
  tokenizer.add_tokens([f'new{i}' for i in range(count)])
  tokenizer.save(str(file))
  argv = [f'--config={tiny_run.config_file(tmp_path)}', f'--workdir={tmp_path / "run"}']
  assert main(['search', *argv, '--problem=11 from 2 3 5']) == 0
  assert 'has 1 ids more than' in ' '.join(capsys.readouterr().err.split())
  assert main(['search', *argv, f'--problem=11 from 2 3 new{count - 1}']) == 2
  error = ' '.join(capsys.readouterr().err.split())
  assert f"problem command-line holds the token 'new{count - 1}', whose id {rows}" in error
