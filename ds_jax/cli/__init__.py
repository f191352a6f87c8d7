"""The command line: `ds-jax COMMAND --config=configs/….py --workdir=DIR --config.search.width=4 …`.

Parses and checks, calls the command, prints the summary, and turns outcomes into exit codes.
"""

from __future__ import annotations

import contextlib
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
from ds_jax.cli.commands import COMMANDS, EXIT_CODES
from ds_jax.interfaces import ALONE, SilentProgress, Team

_SHORTHANDS = {
  '--samples': '--config.evaluate.num_samples',
  '--temperature': '--config.evaluate.temperature',
  '--top_p': '--config.evaluate.top_p',
  '--data_dir': '--config.data.data_dir',
}


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
    raise InputError(
      f'Unknown command {name!r}.{suggest(name, COMMANDS)} Commands: {", ".join(COMMANDS)}.'
    )
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
  argv = _with_shorthands(name, argv)
  _check_overrides([a for a in argv if a.lstrip('-').startswith('config.')])
  values = absl_flags.FlagValues()
  run = _run_of(name, argv)
  if run:
    config_flags.DEFINE_config_dict(
      'config', _config_of_run(run), flag_values=values, sys_argv=['ds-jax', *argv]
    )
  elif command.needs_config:
    config_flags.DEFINE_config_file(
      'config', None, 'config file', flag_values=values, sys_argv=['ds-jax', *argv]
    )
  absl_flags.DEFINE_bool('json', False, 'print one JSON object last', flag_values=values)
  for flag, text in command.flags.items():
    define = (
      absl_flags.DEFINE_multi_string if flag in command.repeated else absl_flags.DEFINE_string
    )
    define(flag, None, text, flag_values=values)
  try:
    rest = values(['ds-jax', *argv])[1:]
  except (absl_flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise InputError(f'{e} (`ds-jax {name} --help` lists the flags.)') from e
  flags = {flag: values[flag].value for flag in ('json', *command.flags)}
  if rest and command.positional and not flags[command.positional]:
    flags[command.positional] = rest.pop(0)
  if rest:
    raise InputError(f'Unexpected argument {rest[0]!r}; flags are written --name=value.')
  missing = sorted(flag for flag in _required(name, flags) if not flags[flag])
  if run:
    flags['workdir'] = run
  elif command.needs_config and values['config'].value is None:
    missing.insert(0, 'config')
  if missing:
    raise InputError(f'Missing --{", --".join(missing)}. Example: {command.example}')
  if not command.needs_config:
    return flags, None
  return flags, config_from(values['config'].value if run else _config_dict(values))


def _with_shorthands(name: str, argv: list[str]) -> list[str]:
  """--samples=32 as --config.evaluate.num_samples=32, and so on."""
  if name != 'evaluate':
    return argv
  parts = [argument.partition('=') for argument in argv]
  return [_SHORTHANDS.get(flag, flag) + equals + value for flag, equals, value in parts]


def _run_of(name: str, argv: list[str]) -> str | None:
  """The value of --checkpoint where it stands for config and workdir."""
  if name != 'evaluate':
    return None
  given = [a.split('=', 1)[1] for a in argv if a.lstrip('-').startswith('checkpoint=')]
  if given and any(a.lstrip('-').split('=')[0] in ('config', 'workdir') for a in argv):
    raise InputError('--checkpoint names a run with its config; leave out --config and --workdir.')
  return given[-1] if given else None


def _config_of_run(folder: str) -> Any:
  """The config of a run's folder, for overrides as with a config file."""
  from ml_collections import ConfigDict

  from ds_jax.run.workdir import Workdir, workdir_config

  if (pathlib.Path(folder) / 'tokenizer.json').exists():
    raise InputError(
      f'{folder} is a model without a run; name it with --config=FILE '
      f'--workdir=DIR --config.model.path={folder}.'
    )
  return ConfigDict(dataclasses.asdict(workdir_config(Workdir(pathlib.Path(folder)))))


def _required(name: str, flags: dict[str, Any]) -> set[str]:
  """Flags that must be given."""
  if name != 'search':
    optional = {
      'data describe': {'data_dir', 'tokenizer'},
      'grade': {'output'},
      'evaluate': {
        'checkpoint',
        'output',
        'data_dir',
        *(['workdir'] if flags.get('checkpoint') else []),
      },
    }.get(name, set())
    return {
      'workdir',
      'tokenizer',
      'checkpoint',
      'output',
      'from',
      'source',
      'data_dir',
      'file',
    } & set(flags) - optional
  if flags['problem'] and (flags['problems'] or flags['output']):
    raise InputError(
      '--problem searches one problem and prints its tree; --problems=FILE and '
      '--output=FILE.jsonl are for many. Give the one or the others.'
    )
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
          f'Unknown config field {".".join(path[: depth + 1])!r}.{suggest(part, hints)} Fields '
          f'of {".".join(["config", *path[:depth]])}: {", ".join(sorted(hints))}.'
        )
      cls = hints[part]


def _execute(name: str, flags: dict[str, Any], config: Any) -> int:
  """Runs the command, alone or in a team, and prints the summary."""
  _set_environment(flags)
  if not COMMANDS[name].is_team:
    code, summary = _outcome(name, flags, config, ALONE)
  else:
    from ds_jax.run import cluster as distributed

    team = distributed.join(distributed.cluster_from(flags))
    with distributed.ending_together(team):
      code, summary = _outcome(name, flags, config, team)
    if team.count > 1 and summary['status'] in ('interrupted', 'cannot_write'):
      distributed.leave(code)  # the others may know nothing of it
    if not team.is_first:
      return code
  if flags['json']:
    print(json.dumps(summary | {'exit_code': code}, sort_keys=True))
  return code


def _outcome(
  name: str, flags: dict[str, Any], config: Any, team: Team
) -> tuple[int, dict[str, Any]]:
  """Runs the command with its lock and signal handlers; returns exit code and summary."""
  from ds_jax.report.progress import make_progress
  from ds_jax.run.checkpoint import SaveError
  from ds_jax.run.stopping import ExitCode, Stopped, StoppedAlone, StopRequest

  progress, stop = make_progress() if team.is_first else SilentProgress(), StopRequest()
  try:
    with stop.installed():
      summary = _dispatch(name, flags, config, progress, stop, team)
    return summary.get('exit_code', ExitCode.DONE), summary
  except StoppedAlone:
    if team.count > 1:
      raise
    progress.note(
      'Stopped amid the updates of a step, which would have taken too long. Finished '
      'trees are kept. The same command continues from the last checkpoint.'
    )
    return stop.exit_code, {'status': 'stopped'}
  except Stopped:
    progress.note('Saved. The same command continues.')
    return stop.exit_code, {'status': 'stopped'}
  except KeyboardInterrupt:
    progress.note('Interrupted; the same command continues from the last checkpoint.')
    return stop.exit_code, {'status': 'interrupted'}
  except (SaveError, OSError) as e:
    if not isinstance(e, SaveError) and e.errno is None:
      raise
    progress.note(f'ds-jax: {e}')
    return ExitCode.CANNOT_WRITE, {'status': 'cannot_write', 'error': str(e)}


def _set_environment(flags: dict[str, Any]) -> None:
  """Compiled programs are kept in the workdir, unless the user keeps them elsewhere."""
  if flags.get('workdir'):
    cache = pathlib.Path(flags['workdir']).absolute() / 'jax_cache'
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1')


def _dispatch(
  name: str, flags: dict[str, Any], config: Any, progress: Any, stop: Callable[[], bool], team: Team
) -> dict[str, Any]:
  from ds_jax.run import parameters
  from ds_jax.run.session import Session
  from ds_jax.run.workdir import Workdir, lock

  workdir = Workdir(pathlib.Path(flags['workdir'])) if flags.get('workdir') else None
  session = Session(config, workdir, progress, stop, team)
  if name == 'init':
    return parameters.init_model(session, tokenizer=flags['tokenizer'], output=flags['output'])
  if name == 'export':
    return parameters.export(
      session, checkpoint=flags['checkpoint'], output=flags['output'], dtype=flags['dtype']
    )
  if name == 'plan':
    from ds_jax.plan.command import plan

    summary, text = plan(config, flags['topology'] or [], flags['meshes'] or 'config', progress)
  elif name == 'grade':
    from ds_jax.cli.grade import grade

    summary, text = grade(
      flags['file'], flags['mode'], flags['output'], flags['workers'], progress, stop
    )
  elif name.startswith('data '):
    from ds_jax.cli import data as data_command

    work = {'data prepare': data_command.prepare, 'data describe': data_command.describe}[name]
    summary, text = work(flags, progress)
  elif name == 'report':
    from ds_jax.run.reporting import report

    summary, text = report(session)
  elif name == 'search':
    summary, text = _search(session, flags)
  elif name == 'evaluate' and flags['benchmarks']:
    from ds_jax.data.benchmarks import BENCHMARKS
    from ds_jax.run.evaluation import evaluate

    names = BENCHMARKS if flags['benchmarks'] == 'all' else flags['benchmarks'].split(',')
    summary, text = evaluate(session, benchmarks=list(names), output=flags['output'])
  else:
    if name == 'evaluate' and flags['output']:
      raise InputError('--output keeps the samples of --benchmarks; name some, or leave it out.')
    with lock(workdir) if team.is_first else contextlib.nullcontext():
      summary, text = _run_locked(name, session)
  if team.is_first and text:
    print(text)
  return summary


def _run_locked(name: str, session: Any) -> tuple[dict[str, Any], str]:
  """The commands that have a workdir for themselves."""
  if name == 'warmstart':
    from ds_jax.run.warmstart import warmstart

    return warmstart(session), ''
  if name == 'train':
    from ds_jax.run.training import train

    return train(session)
  from ds_jax.run.evaluation import evaluate

  return evaluate(session)


def _search(session: Any, flags: dict[str, Any]) -> tuple[dict[str, Any], str]:
  from ds_jax.checks import check_choice
  from ds_jax.evaluate.answers import SELECTIONS
  from ds_jax.run.searching import search_file, search_problem

  select = flags['select'] or 'first_correct'
  check_choice('--select', select, SELECTIONS)
  if flags['problems']:
    return search_file(session, problems=flags['problems'], output=flags['output'], select=select)
  if session.team.count > 1:
    raise InputError(
      '--problem grows one tree, which one process does; start one, or give '
      '--problems=FILE --output=FILE.jsonl.'
    )
  return search_problem(session, text=flags['problem'], answer=flags['answer'], select=select)


def _overview() -> str:
  rows = '\n'.join(f'  {name:<13} {c.help}' for name, c in COMMANDS.items())
  return (
    f'ds-jax: tree search inside the training of reasoning models, in JAX.\n\n{rows}\n\n'
    f'`ds-jax COMMAND --help` says more.\n\n{EXIT_CODES}'
  )


def command_help(name: str) -> str:
  """Help text of one command: flags, the config's fields with their defaults, exit codes."""
  command = COMMANDS[name]
  flags = {
    'config': 'config file, e.g. configs/quickstart.py',
    **command.flags,
    'json': 'print one JSON object as the last line of standard output',
  }
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
    values = ' '.join(
      f'{k}={v!r}' for k, v in dataclasses.asdict(section).items() if not isinstance(v, dict)
    )
    lines += textwrap.wrap(
      f'{field.name}: {values}',
      98,
      initial_indent='  ',
      subsequent_indent='    ',
      break_on_hyphens=False,
    )
  return '\n'.join(lines)
