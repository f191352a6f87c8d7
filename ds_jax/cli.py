"""The command line: `ds-jax COMMAND --config=configs/….py --workdir=DIR --config.search.width=4 …`.

Parses and checks, calls experiment.py, prints the summary, and turns outcomes into exit codes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import textwrap
import typing
from collections.abc import Callable, Sequence
from typing import Any

from ds_jax.checks import InputError, suggest


@dataclasses.dataclass(frozen=True)
class Command:
  """One sub-command: its help and the flags it has besides --config and --json."""
  help: str
  flags: dict[str, str]
  needs_config: bool = True
  stops_gently: bool = False  # Ctrl-C and SIGTERM save first
  example: str = ''


_WORKDIR = 'folder of the run'
_FIELDS = {'prompt_field': 'where the question stands in a row (default: the usual names)',
           'answer_field': 'where the gold answer stands', 'id_field': 'where the id stands'}
COMMANDS = {
    'init': Command(
        'Write a randomly initialised decoder of config.model as a Hugging Face folder.',
        {'tokenizer': 'folder whose tokenizer the decoder gets', 'output': 'folder to write'},
        example='ds-jax init --config=configs/quickstart.py --tokenizer=DIR --output=DIR'),
    'warmstart': Command(
        'Train a tiny decoder on worked solutions of the embedded task; writes WORKDIR/warmstart.',
        {'workdir': _WORKDIR}, stops_gently=True,
        example='ds-jax warmstart --config=configs/quickstart.py --workdir=runs/quickstart'),
    'train': Command(
        'The main job: evaluate, filter, search, learn, evaluate, report. Continues where it was.',
        {'workdir': _WORKDIR}, stops_gently=True,
        example='ds-jax train --config=configs/quickstart.py --workdir=runs/quickstart'),
    'evaluate': Command(
        'pass@1 of the newest parameters on the evaluation split.', {'workdir': _WORKDIR},
        stops_gently=True,
        example='ds-jax evaluate --config=configs/quickstart.py --workdir=runs/quickstart '
                '--config.evaluate.num_samples=16'),
    'search': Command(
        'Grow a tree for one problem and print it, or one for each problem of a file.',
        {'workdir': _WORKDIR, 'problem': 'text of the problem',
         'answer': 'its gold answer, if known; not needed for the embedded task',
         'problems': 'instead of --problem: .jsonl, .json, .parquet, .csv; answers may be missing',
         'output': 'with --problems: .jsonl, a line per finished tree; the same command continues',
         'select': 'the answer: first_correct (default; the vote where none is), best_q or vote'},
        stops_gently=True,
        example='ds-jax search --config=configs/quickstart.py --workdir=runs/quickstart '
                '--problem="24 from 3 5 7 2"'),
    'export': Command(
        'Write the newest parameters of a run as a Hugging Face folder, e.g. for vLLM.',
        {'checkpoint': _WORKDIR, 'output': 'folder to write',
         'dtype': 'float32 (default: every bit) or bfloat16'}, needs_config=False,
        example='ds-jax export --checkpoint=runs/quickstart --output=DIR --dtype=bfloat16'),
    'data prepare': Command(
        'Build a training set or a benchmark once, from a file you have, for tfds:NAME.',
        {'from': '.jsonl, .json, .parquet, .csv, or a pattern of such files',
         'data_dir': 'folder or gs://… for prepared sets; --config.data.data_dir reads them',
         'benchmark': 'aime2024, aime2025, amc2023, math500, minerva_math or olympiadbench',
         'name': 'of a training set (default: deepmath103k)', **_FIELDS}, needs_config=False,
        example='ds-jax data prepare --benchmark=aime2025 --from=aime2025.jsonl --data_dir=data'),
    'data describe': Command(
        'Print what a source holds: counts, answer types, prompt lengths, flawed rows.',
        {'source': 'as in config.data.source, e.g. file:PATH or tfds:deepmath103k',
         'data_dir': 'folder or gs://… of prepared sets',
         'tokenizer': 'folder or hub name; counts prompt tokens',
         'max_problems': 'rows to read; of gym:NAME, to generate', **_FIELDS}, needs_config=False,
        example='ds-jax data describe --source=tfds:deepmath103k --data_dir=data'),
    'report': Command(
        'Write report.html and report.png of a run.', {'workdir': _WORKDIR}, needs_config=False,
        example='ds-jax report --workdir=runs/quickstart'),
}

EXIT_CODES = """exit codes
  0 done · 1 a defect of ours · 2 bad input · 42 saved after SIGTERM · 130 saved after Ctrl-C
  74 could not write (disk full); the earlier checkpoint is good · 134 lost a peer process"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  try:
    return _run(argv)
  except InputError as e:
    print(f'ds-jax: {e}', file=sys.stderr)
    return 2


def _run(argv: list[str]) -> int:
  if not argv or argv[0] in ('--help', '-h', 'help'):
    print(_overview())
    return 0 if argv else 2
  num_words = 2 if ' '.join(argv[:2]) in COMMANDS else 1
  name, argv = ' '.join(argv[:num_words]), argv[num_words:]
  if name not in COMMANDS:
    raise InputError(f'Unknown command {name!r}.{suggest(name, COMMANDS)} '
                     f'Commands: {", ".join(COMMANDS)}.')
  if any(a in ('--help', '-h', '-help') for a in argv):
    print(command_help(name))
    return 0
  flags, config = parse(name, argv)
  return _execute(name, flags, config)


def parse(name: str, argv: list[str]) -> tuple[dict[str, Any], Any]:
  """Returns the flags and the checked Config (None for commands without).

  Raises:
    InputError: for anything unknown, ill-typed or missing.
  """
  from absl import flags as absl_flags
  from ml_collections import config_flags

  from ds_jax.config import config_from
  command = COMMANDS[name]
  _check_overrides([a for a in argv if a.lstrip('-').startswith('config.')])
  values = absl_flags.FlagValues()
  if command.needs_config:
    config_flags.DEFINE_config_file('config', None, 'config file', flag_values=values,
                                    sys_argv=['ds-jax', *argv])
  absl_flags.DEFINE_bool('json', False, 'print one JSON object last', flag_values=values)
  for flag, text in command.flags.items():
    absl_flags.DEFINE_string(flag, None, text, flag_values=values)
  try:
    rest = values(['ds-jax', *argv])[1:]
  except (absl_flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise InputError(f'{e} (`ds-jax {name} --help` lists the flags.)') from e
  if rest:
    raise InputError(f'Unexpected argument {rest[0]!r}; flags are written --name=value.')
  flags = {flag: values[flag].value for flag in ('json', *command.flags)}
  missing = sorted(flag for flag in _required(name, flags) if not flags[flag])
  if command.needs_config and values['config'].value is None:
    missing.insert(0, 'config')
  if missing:
    raise InputError(f'Missing --{", --".join(missing)}. Example: {command.example}')
  return flags, config_from(_config_dict(values)) if command.needs_config else None


def _required(name: str, flags: dict[str, Any]) -> set[str]:
  """Flags that must be given."""
  if name != 'search':
    optional = {'data describe': {'data_dir', 'tokenizer'}}.get(name, set())
    return {'workdir', 'tokenizer', 'checkpoint', 'output', 'from', 'source', 'data_dir'
            } & set(flags) - optional
  if flags['problem'] and (flags['problems'] or flags['output']):
    raise InputError('--problem searches one problem and prints its tree; --problems=FILE and '
                     '--output=FILE.jsonl are for many. Give the one or the others.')
  if flags['problems'] and flags['answer']:
    raise InputError('--answer belongs to --problem; the answers of --problems stand in the file.')
  return {'workdir', 'problems', 'output'} if flags['problems'] else {'workdir', 'problem'}


def _config_dict(values: Any) -> Any:
  path = values['config'].config_filename
  if not os.path.exists(path):
    raise InputError(f'No config file {path!r}; e.g. configs/quickstart.py.')
  return values['config'].value


def _check_overrides(arguments: Sequence[str]) -> None:
  """Names an unknown --config.… field with its neighbours, before ml_collections looks at it."""
  from ds_jax.config import Config
  for argument in arguments:
    path = argument.lstrip('-').split('=')[0].split('.')[1:]
    cls: Any = Config
    for depth, part in enumerate(path):
      hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
      if part not in hints:
        raise InputError(
            f'Unknown config field {".".join(path[:depth + 1])!r}.{suggest(part, hints)} Fields '
            f'of {".".join(["config", *path[:depth]])}: {", ".join(sorted(hints))}.')
      cls = hints[part]


def _execute(name: str, flags: dict[str, Any], config: Any) -> int:
  """Runs the command with its lock and signal handlers; prints the summary."""
  _set_environment(flags)
  from ds_jax.checkpoint import SaveError
  from ds_jax.report.progress import make_progress
  from ds_jax.workdir import EXIT_CANNOT_WRITE, EXIT_DONE, Stopped, StopRequest
  progress, stop = make_progress(), StopRequest()
  try:
    with stop.installed():
      summary = _dispatch(name, flags, config, progress, stop)
    code = EXIT_DONE
  except Stopped:
    code, summary = stop.exit_code, {'status': 'stopped'}
    progress.note('Saved. The same command continues.')
  except KeyboardInterrupt:
    code, summary = stop.exit_code, {'status': 'interrupted'}
    progress.note('Interrupted; the same command continues from the last checkpoint.')
  except (SaveError, OSError) as e:
    if not isinstance(e, SaveError) and e.errno is None:
      raise
    code, summary = EXIT_CANNOT_WRITE, {'status': 'cannot_write', 'error': str(e)}
    progress.note(f'ds-jax: {e}')
  if flags['json']:
    print(json.dumps(summary | {'exit_code': code}, sort_keys=True))
  return code


def _set_environment(flags: dict[str, Any]) -> None:
  """Compiled programs are kept in the workdir, unless the user keeps them elsewhere."""
  if flags.get('workdir'):
    cache = pathlib.Path(flags['workdir']).absolute() / 'jax_cache'
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1')


def _dispatch(name: str, flags: dict[str, Any], config: Any, progress: Any,
              stop: Callable[[], bool]) -> dict[str, Any]:
  from ds_jax import experiment, export
  from ds_jax.warmstart import warmstart
  from ds_jax.workdir import Workdir, lock
  if name == 'init':
    return experiment.init(config, flags['tokenizer'], flags['output'], progress)
  if name == 'export':
    return export.export(flags['checkpoint'], flags['output'], flags['dtype'], progress)
  if name.startswith('data '):
    from ds_jax import data_command
    work = {'data prepare': data_command.prepare, 'data describe': data_command.describe}[name]
    summary, text = work(flags, progress)
    print(text)
    return summary
  workdir = Workdir(pathlib.Path(flags['workdir']))
  if name == 'report':
    return experiment.report(workdir, progress)
  if name == 'search':
    summary, text = _search(flags, config, workdir, progress, stop)
    print(text)
    return summary
  with lock(workdir):
    if name == 'warmstart':
      return warmstart(config, workdir, progress, stop)
    if name == 'train':
      return experiment.train(config, workdir, progress, stop)
    summary = experiment.evaluate(config, workdir, progress, stop)
    print('pass@1 {evaluate/pass_at_1:.3f} [{evaluate/pass_at_1_low:.3f}, '
          '{evaluate/pass_at_1_high:.3f}] over {evaluate/num_problems} problems'.format(**summary))
    return summary


def _search(flags: dict[str, Any], config: Any, workdir: Any, progress: Any,
            stop: Callable[[], bool]) -> tuple[dict[str, Any], str]:
  from ds_jax import search_command
  from ds_jax.checks import check_choice
  from ds_jax.evaluate.answers import SELECTIONS
  select = flags['select'] or 'first_correct'
  check_choice('--select', select, SELECTIONS)
  if flags['problems']:
    return search_command.search_file(config, workdir, flags['problems'], flags['output'], select,
                                      progress, stop)
  return search_command.search_one(config, workdir, flags['problem'], flags['answer'], select,
                                   progress, stop)


def _overview() -> str:
  rows = '\n'.join(f'  {name:<13} {c.help}' for name, c in COMMANDS.items())
  return (f'ds-jax: tree search inside the training of reasoning models, in JAX.\n\n{rows}\n\n'
          f'`ds-jax COMMAND --help` says more.\n\n{EXIT_CODES}')


def command_help(name: str) -> str:
  """Help text of one command: flags, the config's fields with their defaults, exit codes."""
  command = COMMANDS[name]
  flags = {'config': 'config file, e.g. configs/quickstart.py',
           **command.flags, 'json': 'print one JSON object as the last line of standard output'}
  if not command.needs_config:
    del flags['config']
  rows = '\n'.join(f'  --{flag:<12} {text}' for flag, text in flags.items())
  text = f'{command.help}\n\nexample\n  {command.example}\n\nflags\n{rows}\n'
  return text + (f'\n{_config_help()}\n' if command.needs_config else '') + f'\n{EXIT_CODES}'


def _config_help() -> str:
  from ds_jax.config import Config
  lines = ['config fields (comments in ds_jax/config.py), e.g. --config.search.width=8']
  for field in dataclasses.fields(Config):
    section = getattr(Config(), field.name)
    if not dataclasses.is_dataclass(section):
      lines.append(f'  {field.name}={section!r}')
      continue
    values = ' '.join(f'{k}={v!r}' for k, v in dataclasses.asdict(section).items()
                      if not isinstance(v, dict))
    lines += textwrap.wrap(f'{field.name}: {values}', 98, initial_indent='  ',
                           subsequent_indent='    ', break_on_hyphens=False)
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(main())
