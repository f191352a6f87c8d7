"""Help: every setting with its comment, default and choices, no wider than a page, and at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ds_jax.cli import COMMANDS, main
from ds_jax.cli import help as help_text
from ds_jax.config import Config
from ds_jax.config.annotations import settings_of
from ds_jax.config.comments import comments_of

SECTIONS = [name for name, setting in settings_of(Config).items() if setting.is_section]
HEAVY = ('jax', 'numpy', 'tensorflow_datasets', 'transformers', 'sympy', 'ml_collections')


def joined(text):
  """Without line breaks, as a search for words needs it."""
  return ' '.join(text.split())


@pytest.mark.parametrize('section', SECTIONS)
def test_a_section_says_what_its_comments_say(section):
  text, cls = help_text.settings_help(section), settings_of(Config)[section].kind
  assert f'--config.{section}.' in text and joined(cls.__doc__.splitlines()[0]) in joined(text)
  for name, setting in settings_of(cls).items():
    if setting.is_section:
      assert f'{name}.' in text
      continue
    assert f'  {name} = ' in text and joined(comments_of(cls)[name]) in joined(text)
    assert all(choice in text for choice in setting.choices)


def test_a_field_in_full():
  text = help_text.settings_help('search')
  assert 'ties = first                      first | confident | random\n' in text
  assert 'num_slots = 16                    >= 1 (may change when a run goes on)\n' in text
  assert '      decoder slots per device\n' in text
  assert 'round_steps = 50,50               each >= 1' in help_text.settings_help('curriculum')


def test_all_sections_at_once():
  text = help_text.settings_help(help_text.ALL)
  assert all(help_text.settings_help(section) in text for section in SECTIONS)


@pytest.mark.parametrize('arguments, code', [([], 2), (['--help'], 0), (['help'], 0)])
def test_the_first_word_of_a_command_lists_the_second(capsys, arguments, code):
  assert main(['data', *arguments]) == code
  lines = capsys.readouterr().out.splitlines()
  listed = [line for line in lines if line.startswith('  data ')]
  assert [line.split()[1] for line in listed] == ['prepare', 'describe'] and 'train' not in lines
  assert main(['data', 'descripe']) == 2
  assert "Did you mean 'data describe'?" in capsys.readouterr().err


@pytest.mark.parametrize('name', COMMANDS)
def test_help_names_every_setting_and_how_to_see_it(name, capsys):
  assert main([*name.split(), '--help']) == 0
  text = capsys.readouterr().out
  if '--config ' not in text:
    return
  assert f'ds-jax {name} --help=search' in text
  for section in SECTIONS:
    cls = settings_of(Config)[section].kind
    assert all(f' {field}' in text for field in settings_of(cls))


def test_no_line_is_wider_than_a_page():
  texts = [help_text.overview(), help_text.settings_help(help_text.ALL)]
  texts += [help_text.command_help(name) for name in COMMANDS]
  assert max(len(line) for text in texts for line in text.splitlines()) <= 100


def test_help_loads_nothing_heavy(root):
  code = (
    'import sys\nfrom ds_jax.cli import main\n'
    'main(["--help"]); main(["train", "--help"]); main(["train", "--help=search"])\n'
    f'print("loaded", *(m for m in {HEAVY} if m in sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, check=True, capture_output=True, text=True
  )
  assert done.stdout.splitlines()[-1] == 'loaded'
