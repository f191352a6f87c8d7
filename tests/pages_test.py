"""The pages that people read: links, names, commands and code in them are tried."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from unittest import mock

import pytest
from import_graph import module_file
from pages import FOLDERS, Block, Page, commands_of, find_pages, read_page, undocumented

from ds_jax.checks import InputError
from ds_jax.cli import COMMANDS, main
from ds_jax.cli.flags import flags_of, parse
from ds_jax.cli.registry import load
from ds_jax.config import ChainConfig, Config, config_from
from ds_jax.config.annotations import settings_of
from ds_jax.config.load import known_field, neighbours_importable
from ds_jax.search import policies
from ds_jax.testing import tiny_run

ROOT = Path(__file__).parents[1]
PAGES = find_pages(ROOT)
MAX_README = 8 * 1024  # bytes
LANGUAGES = ('bash', 'python', 'text', '')
NEEDS = ('cloud', 'accelerator', 'model', 'files', 'minutes')
# Programs of others that pages name; what they start of ours is looked at.
OTHERS = '.venv/bin/pip cd docker gcloud git hf kubectl pip python3 sbatch sed sky xprof'.split()
SUFFIXES = ('.py', '.sh', '.md', '.yaml', '.sbatch')
# The tiny run that stands for that of configs/quickstart.py: the same task, on two functions.
TINY = dict(
  data=dict(
    source='chain',
    prompt_limit=12,
    chain=ChainConfig(depth=2, num_train=24, num_heldout=8, num_warmstart=200),
  ),
  curriculum=dict(round_steps=(2,)),
)


by_page = pytest.mark.parametrize('page', PAGES, ids=[page.name for page in PAGES])


def expect_none(errors: list[str]) -> None:
  if errors:
    pytest.fail('\n'.join(errors), pytrace=False)


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A finished run, and the config file that it belongs to."""
  folder = tmp_path_factory.mktemp('pages')
  config = tiny_run.config(**TINY)
  workdir = tiny_run.warmstart(folder / 'run', config)
  tiny_run.train(workdir, config)
  return workdir, tiny_run.config_file(folder, **TINY)


@pytest.fixture
def desk(done, tmp_path, monkeypatch):
  """A folder as a reader's, in which the tiny run is that of configs/quickstart.py."""
  workdir, config_path = done
  tiny_run.copy(workdir, tmp_path / 'runs' / 'quickstart')
  (tmp_path / 'configs').mkdir()
  shutil.copy(config_path, tmp_path / 'configs' / 'quickstart.py')
  problems = [{'problem': f'{i} f2 f3', 'answer': str(i)} for i in range(4)]
  answers = [{'gold': '1/2', 'prediction': '0.5', 'equivalent': True}]
  for name, rows in (('problems', problems), ('answers', answers)):
    (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  monkeypatch.chdir(tmp_path)
  return tmp_path


# What a page is.


def test_pages_are_found():
  names = [page.name for page in PAGES]
  assert 'README.md' in names and 'ds_jax/search/README.md' in names


def test_the_first_page_is_short():
  assert (ROOT / 'README.md').stat().st_size <= MAX_README


def test_every_page_is_reached_from_the_first():
  reached, waiting = set(), [ROOT / 'README.md']
  while waiting:
    path = waiting.pop()
    if path in reached:
      continue
    reached.add(path)
    for _, target in read_page(path).links:
      linked = (path.parent / target.partition('#')[0]).resolve()
      linked = linked / 'README.md' if linked.is_dir() else linked
      if linked.suffix == '.md' and linked.is_file():
        waiting.append(linked)
  assert not {page.path for page in PAGES} - reached


@by_page
def test_a_page_says_at_first_what_it_is_for(page):
  title, empty, opening = (line for _, line in page.prose[:3])
  assert title.startswith('# ') and not empty
  is_sentence = re.match(r'[A-Z`*\[]', opening) is not None
  assert is_sentence or page.name == 'README.md', 'a title, an empty line, then sentences'


@by_page
def test_blocks_say_what_they_are(page):
  for block in page.blocks:
    assert block.language in LANGUAGES, f'{page.name}:{block.line}'
    assert set(block.needs) <= set(NEEDS), f'{page.name}:{block.line}'


# Links and names.


def link_errors(page: Page) -> list[str]:
  """Relative links to files, or to headings, that are not there."""
  errors = []
  for number, target in page.links:
    path, _, anchor = target.partition('#')
    if re.match(r'\w+:', path):
      continue
    linked = (page.path.parent / path.replace('\\', '')).resolve() if path else page.path
    if not linked.exists():
      errors.append(f'{page.name}:{number}: {target}: there is no such file')
    elif anchor and anchor not in read_page(linked).anchors:
      errors.append(f'{page.name}:{number}: {target}: there is no such heading')
  return errors


@by_page
def test_links_lead_somewhere(page):
  expect_none(link_errors(page))


def is_setting(name: str) -> bool:
  """Whether a Config has the field 'search.width', or the section 'search'."""
  try:
    return known_field(name) == name
  except InputError:
    return False


def exists_somewhere(name: str, page: Page) -> bool:
  """Whether a file is there, as seen from the checkout, the page, the package or the tests."""
  places = (ROOT, page.path.parent, ROOT / 'ds_jax', ROOT / 'tests')
  return any((place / name).exists() for place in places)


def span_error(span: str, page: Page) -> str:
  """What is wrong with a name between backquotes; '' if nothing is."""
  first = span.split()[0]
  if first == 'ds-jax' and len(span.split()) > 1:
    return command_error(span.split()[1:])
  if first in ('python', 'pytest') or (first.startswith(('tests/', 'launch/')) and ' ' in span):
    return script_error([word for word in span.split() if word != '…'])
  if ' ' in span or re.search(r'[A-Z*…{<$]', span.replace('README', '').replace('BUILD', '')):
    return ''  # a formula, a pattern, a placeholder
  if span.endswith(SUFFIXES) or span.startswith(tuple(f'{name}/' for name in FOLDERS)):
    return '' if exists_somewhere(span, page) else 'there is no such file'
  setting = re.fullmatch(r'(?:--config\.)?(\w+(?:\.\w+)+)(?:=.*)?', span)
  if setting and setting[1].split('.')[0] in settings_of(Config):
    is_known = is_setting(setting[1]) or setting[1].endswith(('.safetensors', '.json'))
    return '' if is_known else 'there is no such setting'
  return ''


def command_error(words: list[str]) -> str:
  """What is wrong with words behind `ds-jax`, which may leave out what a reader adds."""
  if words[0].isupper():  # COMMAND
    return ''
  name = max((name for name in COMMANDS if words[: len(name.split())] == name.split()), default='')
  if not name:
    return f'there is no command {words[0]!r}'
  for word in words[len(name.split()) :]:
    flag = word.lstrip('-').partition('=')[0]
    if not word.startswith('--') or flag in ('config', 'json', 'help'):
      continue
    field = flag.removeprefix('config.')
    is_known = is_setting(field) if field != flag else flag in flags_of(load(name))
    if not is_known:
      return f'{name} has no flag --{flag}'
  return ''


def script_error(words: list[str]) -> str:
  """What is wrong with a call of a script or of pytest: a file or a flag that is not there."""
  if words[:2] == ['python', '-m']:
    return '' if module_file(words[2], ROOT) else f'there is no module {words[2]}'
  words = [word for word in words if word not in ('python', 'pytest', '-m', 'long', '-s')]
  script = next((word for word in words if word.endswith(('.py', '.sh')) or '/' in word), None)
  if script is None:
    return ''
  path = ROOT / script.partition('::')[0]
  if not path.exists():
    return f'there is no {script}'
  if not path.is_file() or path.name.endswith('_test.py'):
    return ''
  helper = path.with_name('install.sh').read_text() if path.suffix == '.sh' else ''
  text = path.read_text() + helper
  parts = [p.read_text() for p in path.parent.glob(f'{path.stem}_*.py')]
  for word in words:
    flag = word.lstrip('-').partition('=')[0]
    if word == '--':
      return ''
    is_flag = re.compile(rf'--{flag}(?![\w-])|[\'"]{flag}[\'"]').search
    if word.startswith('--') and not any(map(is_flag, (text, *parts))):
      return f'{script} has no flag --{flag}'
  return ''


@by_page
def test_names_between_backquotes_exist(page):
  errors = []
  for number, span in page.spans:
    error = span_error(span, page)
    if error:
      errors.append(f'{page.name}:{number}: `{span}`: {error}')
  expect_none(errors)


def test_extras_exist():
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  for page in PAGES:
    named = re.findall(r"(?:ds_jax|'\.)\[(\w+)\]", page.path.read_text())
    assert set(named) <= set(extras), page.name


# Commands: all are parsed, and those whose block needs nothing are run.


def parse_error(words: list[str]) -> str:
  """What the parser of a command of a block says against it; '' if it takes it."""
  program, *arguments = words
  if program == 'ds-jax':
    return ds_jax_error(arguments)
  if program in ('python', 'pytest') or program.startswith('launch/'):
    error = script_error(words)
    behind = arguments[arguments.index('--') + 1 :] if '--' in arguments else []
    return error or (ds_jax_error(behind) if behind else '')
  if program not in OTHERS:
    return f'nothing here knows {program!r}'
  missing = [
    w for w in arguments if w.startswith(('launch/', 'configs/')) and not (ROOT / w).exists()
  ]
  if missing:
    return f'there is no {missing[0]}'
  if program == 'sbatch':
    script = next(i for i, word in enumerate(arguments) if not word.startswith('-'))
    return ds_jax_error(arguments[script + 1 :])
  return ''


def ds_jax_error(arguments: list[str]) -> str:
  """What ds-jax says against some arguments, with the real configs; '' if it takes them."""
  num_words = 2 if arguments[0] == 'data' else 1
  arguments = [os.path.expandvars(word) for word in arguments]
  try:
    parse(' '.join(arguments[:num_words]), arguments[num_words:])
  except (InputError, ImportError) as error:
    return str(error)
  return ''


@pytest.fixture(scope='module')
def checkout(done, tmp_path_factory):
  """A folder with the real configs, and runs by the names that pages give them."""
  folder = tmp_path_factory.mktemp('checkout')
  for name in FOLDERS:
    (folder / name).symlink_to(ROOT / name)
  for name in ('quickstart', 'first', 'chain', 'lora', 'smollm2'):
    (folder / 'runs' / name).mkdir(parents=True)
    shutil.copy(done[0].config, folder / 'runs' / name / 'config.json')
  return folder


@by_page
def test_commands_are_valid(page, checkout, monkeypatch):
  monkeypatch.chdir(checkout)
  errors = []
  for block in page.blocks:
    if block.language == 'bash':
      for words in commands_of(block.text):
        error = parse_error(words)
        if error:
          errors.append(f'{page.name}:{block.line}: {" ".join(words)}\n  {error}')
  expect_none(errors)


def is_run(block: Block) -> bool:
  return block.language in ('bash', 'python') and not block.needs


RUN_PAGES = [page for page in PAGES if any(map(is_run, page.blocks))]


@pytest.mark.parametrize('page', RUN_PAGES, ids=[page.name for page in RUN_PAGES])
def test_blocks_run(page, desk, capsys):
  """In order, in a reader's folder; blocks of Python go on where the one before ended."""
  names = {'__name__': 'page'}
  with mock.patch.dict(policies.POLICIES), neighbours_importable(str(ROOT / 'configs' / 'x.py')):
    for block in filter(is_run, page.blocks):
      where = f'{page.name}:{block.line}'
      if block.language == 'python':
        tree = ast.parse(block.text, where)
        ast.increment_lineno(tree, block.line)
        exec(compile(tree, str(page.path), 'exec'), names)
        continue
      for words in commands_of(block.text):
        assert words[0] == 'ds-jax', f'{where}: {words[0]!r} is not run here; say what it needs'
        code = main(words[1:])
        said = capsys.readouterr()
        assert code == 0, f'{where}: {" ".join(words)}\n{said.err[-2000:]}'
  if 'get_config' in names:  # a config file
    config_from(names['get_config']())


def test_the_run_is_documented(done):
  assert not undocumented(tiny_run.metrics(done[0]), ROOT)


# The checks can fail.


@pytest.mark.parametrize(
  'text, said',
  [
    ('[a](no_such.py)', 'no such file'),
    ('[a](README.md#nowhere)', 'no such heading'),
  ],
)
def test_a_lost_link_is_reported(text, said, tmp_path):
  (tmp_path / 'README.md').write_text(f'# Title\n\n{text} [b](#title) [c](https://x.org/y)\n')
  (error,) = link_errors(read_page(tmp_path / 'README.md'))
  assert said in error


@pytest.mark.parametrize(
  'span, said',
  [
    ('search/backups.py', 'no such file'),
    ('search.widht=3', 'no such setting'),
    ('--config.train.epoch', 'no such setting'),
    ('ds-jax trian', 'no command'),
    ('ds-jax train --widht=3', 'no flag'),
    ('ds-jax train --config.search.widht=3', 'no flag'),
    ('pytest tests/no_such_test.py', 'there is no'),
    ('python -m ds_jax.no_such', 'no module'),
    ('python tests/real_models.py --modell=x', 'no flag'),
    ('search/backup.py', ''),
    ('search.width=3', ''),
    ('data.template_arguments.enable_thinking', ''),
    ('ds-jax data describe --source=…', ''),
  ],
)
def test_a_lost_name_is_reported(span, said):
  error = span_error(span, PAGES[0])
  assert said in error and bool(said) == bool(error)


@pytest.mark.parametrize(
  'line',
  [
    'ds-jax train --config=configs/quickstart.py',
    'ds-jax train --config=configs/no_such.py --workdir=x',
    'launch/run_local.py --process=2 -- train --config=configs/chain.py --workdir=x',
    'launch/run_local.py -- train --config=configs/chain.py --wrkdir=x',
    'sbatch launch/slurm.sbatch train --config=configs/chain.py',
    'docker build -f launch/Dockerfil .',
    'frobnicate',
  ],
)
def test_a_bad_command_is_reported(line, checkout, monkeypatch):
  monkeypatch.chdir(checkout)
  (words,) = commands_of(line)
  assert parse_error(words)


def test_commands_are_taken_apart():
  text = 'ds-jax a \\\n  --b="c d"   # e\n\n# f\nsed -e "s|A|B|" x | g && h'
  assert list(commands_of(text)) == [
    ['ds-jax', 'a', '--b=c d'],
    ['sed', '-e', 's|A|B|', 'x'],
    ['g'],
    ['h'],
  ]


def test_a_metric_without_a_row_is_reported():
  rows = [{'step': 1, 'kind': 'train', 'train/loss': 0.0, 'train/los': 0.0}]
  assert undocumented(rows, ROOT) == {'train/los'}


def test_a_marker_is_for_the_block_behind_it(tmp_path):
  path = tmp_path / 'x.md'
  path.write_text('<!-- needs: cloud, model -->\n```bash\na\n```\n```bash\nb\n```\n')
  first, second = read_page(path).blocks
  assert first.needs == ('cloud', 'model') and second.needs == ()
  path.write_text('```bash\na\n')
  with pytest.raises(AssertionError, match='does not end'):
    read_page(path)
