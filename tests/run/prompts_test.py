"""What a run says of its prompts before it samples."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ds_jax.cli import main
from ds_jax.config import Config, VerifyConfig
from ds_jax.interfaces import SilentProgress
from ds_jax.run.prompts import note_missing_box
from ds_jax.run.session import Session
from ds_jax.testing import tiny_run
from ds_jax.types import Problem

PLAIN = Problem('a', 'What is 1 + 1?', '2')
BOXED = Problem('b', r'What is 1 + 2? Answer within \boxed{}.', '3')


class Notes(SilentProgress):
  def __init__(self):
    self.notes = []

  def note(self, text: str) -> None:
    self.notes.append(text)


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
  return progress.notes


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
  argv = [f'--config={path}', f'--workdir={workdir.root}']
  assert main(['evaluate', *argv, '--config.verify.verifier=math']) == 0
  err = ' '.join(capsys.readouterr().err.split())
  assert err.count('asks for one: set data.instruction') == 1
  assert main(['evaluate', *argv]) == 0
  assert 'data.instruction' not in capsys.readouterr().err
