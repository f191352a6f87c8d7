"""Command lines as typed flags: conversions, contradictions, and that no mistake is a traceback."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from ds_jax.checks import InputError
from ds_jax.cli import COMMANDS, main
from ds_jax.cli.flags import flags_of, parse
from ds_jax.cli.registry import NAMES_RUN, POSITIONAL, ShortFor, load
from ds_jax.config import load as load_lib
from ds_jax.config.annotations import settings_of
from ds_jax.config.comments import comments_of

FLAGS = {
  'init': {'tokenizer', 'output'},
  'warmstart': {'workdir'},
  'train': {'workdir', 'coordinator', 'num_processes', 'process_id'},
  'evaluate': {
    'workdir',
    'checkpoint',
    'benchmarks',
    'samples',
    'temperature',
    'top_p',
    'data_dir',
    'output',
    'step',
    'model',
    'coordinator',
    'num_processes',
    'process_id',
  },
  'search': {
    'workdir',
    'checkpoint',
    'problem',
    'answer',
    'problems',
    'output',
    'html',
    'select',
    'step',
    'model',
    'coordinator',
    'num_processes',
    'process_id',
  },
  'export': {'checkpoint', 'output', 'dtype', 'step', 'model', 'adapter', 'push', 'public'},
  'data prepare': {
    'from',
    'data_dir',
    'benchmark',
    'name',
    'prompt_field',
    'answer_field',
    'id_field',
  },
  'data describe': {
    'source',
    'data_dir',
    'tokenizer',
    'verifier',
    'max_problems',
    'prompt_field',
    'answer_field',
    'id_field',
  },
  'grade': {
    'file',
    'mode',
    'gold_field',
    'prediction_field',
    'equivalent_field',
    'output',
    'workers',
    'explain',
    'gold',
    'prediction',
  },
  'plan': {'topology', 'meshes'},
  'report': {'workdir', 'output'},
}


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_says_what_it_is(name):
  command = load(name)
  assert set(flags_of(command)) == FLAGS[name]
  assert command.HELP.endswith('.') and command.EXAMPLE.startswith(f'ds-jax {name}')
  assert dataclasses.is_dataclass(command.Args)
  comments = comments_of(command.Args)
  assert set(comments) == set(settings_of(command.Args))
  assert not command.NEEDS.lock or command.NEEDS.workdir


def test_values_have_the_types_of_their_fields():
  args = parse('data describe', ['--source=file:/x', '--max_problems=20']).args
  assert args.max_problems == 20 and args.source == 'file:/x' and args.tokenizer == ''
  args = parse('grade', ['/x.jsonl', '--workers=3']).args
  assert (args.file, args.workers, args.mode, args.output) == ('/x.jsonl', 3, 'math_bare', None)
  assert parse('grade', ['--file=x.jsonl']).args.workers == 2
  args = parse('grade', ['--explain', '--gold=1', '--prediction=-1']).args
  assert args.explain is True and (args.gold, args.prediction, args.file) == ('1', '-1', '')
  args = parse('data prepare', ['--from=/a', '--data_dir=/b']).args
  assert args.from_ == '/a' and args.name == 'deepmath103k'


def test_a_repeated_flag_keeps_every_value(root):
  config = f'--config={root / "configs/deepsearch_1_5b.py"}'
  topologies = ['--topology=v5e:4x4', '--topology=v5p:2x2x1']
  assert parse('plan', [config, *topologies]).args.topology == ('v5e:4x4', 'v5p:2x2x1')
  assert parse('plan', [config]).args.topology == ()


def test_shorthands_are_fields_of_the_config(root):
  config = f'--config={root / "configs/countdown.py"}'
  short = ['--samples=3', '--temperature', '0.5', '--top_p=0.9', '--data_dir=/there']
  invocation = parse('evaluate', [config, '--workdir=x', *short])
  evaluate = invocation.config.evaluate
  assert (evaluate.num_samples, evaluate.temperature, evaluate.top_p) == (3, 0.5, 0.9)
  assert invocation.config.data.data_dir == '/there'


def test_flags_of_a_team_are_passed_on(root):
  team = ['--coordinator=a:1', '--process_id=0']
  config = f'--config={root / "configs/countdown.py"}'
  invocation = parse('train', [config, '--workdir=x', *team, '--json'])
  assert invocation.team == {'coordinator': 'a:1', 'process_id': '0'} and invocation.is_json


def test_an_old_name_of_a_field_goes_on_working(root, monkeypatch):
  monkeypatch.setitem(load_lib.RENAMED, 'search.breadth', 'search.width')
  config = f'--config={root / "configs/countdown.py"}'
  invocation = parse('train', [config, '--workdir=x', '--config.search.breadth=7'])
  assert invocation.config.search.width == 7


@pytest.mark.parametrize(
  'argv, words',
  [
    (['data', 'describe', '--source=x', '--max_problems=abc'], 'a whole number, got'),
    (['data', 'describe', '--source=x', '--max_problems=-1'], '--max_problems >= 0, got -1'),
    (['data', 'describe', '--max_problems=1'], 'Missing --source'),
    (['grade', 'x', '--workers=two'], "--workers to be a whole number, got 'two'"),
    (['grade', 'x', '--workers=0'], '--workers >= 1'),
    (['grade'], 'Missing --file. Example: ds-jax grade answers.jsonl'),
    (['grade', '--explain', '--gold=1'], 'Missing --prediction'),
    (['grade', 'x', '--gold=1'], '--gold and --prediction belong to --explain'),
    (['grade', 'x', '--explain', '--gold=1', '--prediction=1'], 'leave out --file'),
    (['grade', 'x', 'y'], "Unexpected argument 'y'"),
    (['export', '--checkpoint=x', '--output=y', '--dtype=bfloat'], "Did you mean 'bfloat16'"),
    (['export', '--output=y'], 'Missing --checkpoint'),
    (['plan', '--config={config}', '--meshes=every'], "in ['all', 'config']"),
    (['train'], 'Missing --config, --workdir'),
    (['search', '--config={config}', '--workdir=x', '--problems=y'], 'Missing --output'),
    (
      ['search', '--config={config}', '--workdir=x', '--problems=y', '--output=z', '--answer=3'],
      '--answer belongs to --problem',
    ),
    (['grade', 'x', '--help=search'], 'has no settings'),
    (['train', '--help=serch'], "Unknown section 'serch'. Did you mean 'search'?"),
    (['report', '--workdir=x', '--config=y'], 'config'),
  ],
)
def test_mistakes_are_named_with_a_remedy(capsys, root, tmp_path, monkeypatch, argv, words):
  monkeypatch.chdir(tmp_path)
  argv = [argument.format(config=root / 'configs/countdown.py') for argument in argv]
  assert main(argv) == 2
  assert words in capsys.readouterr().err


def test_choices_of_flags_are_those_of_the_work():
  from ds_jax.cli import search
  from ds_jax.evaluate.answers import SELECTIONS

  assert set(settings_of(search.Args)['select'].choices) == set(SELECTIONS)
  assert typing.get_type_hints(search.Args)  # all names are known


def test_marks_of_flags():
  evaluate, grade = flags_of(load('evaluate')), flags_of(load('grade'))
  assert NAMES_RUN in evaluate['checkpoint'].marks and POSITIONAL in grade['file'].marks
  (mark,) = evaluate['samples'].marks
  assert mark == ShortFor('evaluate.num_samples')


def test_a_run_is_named_alone(tmp_path):
  with pytest.raises(InputError, match='leave out --config and --workdir'):
    parse('evaluate', ['--checkpoint=x', '--workdir=y'])
  with pytest.raises(InputError, match='has no config.json'):
    parse('evaluate', [f'--checkpoint={tmp_path}'])


@pytest.mark.parametrize(
  'text, value',
  [('False', False), ('false', False), ('3', 3), ('[1, 2]', [1, 2]), ('high', 'high'), ('', '')],
)
def test_values_by_name_are_set_one_by_one(text, value):
  argv = ['--config=configs/quickstart.py', '--workdir=w', '--config.data.template_arguments.a=x']
  argv.append(f'--config.data.template_arguments.enable_thinking={text}')
  arguments = parse('train', argv).config.data.template_arguments
  assert arguments == {'a': 'x', 'enable_thinking': value}
  assert not parse('train', argv[:2]).config.data.template_arguments


@pytest.mark.parametrize(
  'argument, words',
  [
    ('template_arguments.a', r'Write --config\.data\.template_arguments\.a=VALUE'),
    ('template_arguments.a-b=1', "Expected a name in data.template_arguments, got 'a-b'"),
    ('template_argument.a=1', "Unknown config field 'data.template_argument'"),
    ('date=28.11.2026', 'Expected data.date to be a date like 2026-11-28'),
    ('instruction.a=1', "Unknown config field 'data.instruction.a'"),
  ],
)
def test_values_by_name_that_are_none(argument, words):
  with pytest.raises(InputError, match=words):
    parse('train', ['--config=configs/quickstart.py', '--workdir=w', f'--config.data.{argument}'])
