"""From a command line to a command's typed `Args` and a checked Config.

absl reads the flags, and ml_collections the overrides of the config. Types, choices and ranges are
those that the fields of `Args` and Config are annotated with.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from ds_jax.checks import InputError
from ds_jax.cli.registry import NAMES_RUN, POSITIONAL, Command, Flags, ShortFor, load
from ds_jax.config import Config, config_from
from ds_jax.config.annotations import Mark, Setting, settings_of
from ds_jax.config.load import REPLACED, known_field, neighbours_importable
from ds_jax.config.places import FOLDER

_KINDS = {int: 'a whole number', float: 'a number'}


@dataclasses.dataclass(frozen=True)
class WorkdirFlags(Flags):
  workdir: Annotated[str, FOLDER]  # folder of the run


@dataclasses.dataclass(frozen=True)
class TeamFlags(Flags):
  coordinator: str = ''  # HOST:PORT of process 0; TPU VMs, GKE and Slurm need none of these
  num_processes: str = ''  # how many run this command together
  process_id: str = ''  # 0, 1, …


@dataclasses.dataclass(frozen=True)
class Invocation:
  """A command line that has been read."""

  command: Command
  args: Any  # the command's Args
  config: Config | None  # None: the command has none
  workdir: str  # '': likewise
  team: Mapping[str, str]  # those of TeamFlags that were given
  is_json: bool  # a JSON object is the last line of standard output


def parse(name: str, argv: Sequence[str]) -> Invocation:
  """Reads the arguments of the command `name`.

  Raises:
    InputError: for anything unknown, ill-typed, missing or contradictory.
  """
  command = load(name)
  flags = flags_of(command)
  argv = [_with_known_field(_in_full(argument, flags)) for argument in argv]
  argv = _with_config_path(argv)
  argv, named = _without_named_values(argv)
  run = _named_run(argv, flags)
  values, words = _read(name, command, argv, run)
  given = {flag: values[flag].value for flag in flags if values[flag].value}
  if run:
    given['workdir'] = run
  for positional in _marked(POSITIONAL, flags):
    if words and positional not in given:
      given[positional] = words.pop(0)
  if words:
    raise InputError(f'Unexpected argument {words[0]!r}; flags are written --name=value.')
  given |= {flag: _placed(flag, given[flag], flags) for flag in given}
  missing = sorted(_required(command, given) - set(given))
  has_file = command.NEEDS.config and not run
  if has_file and values['config'].value is None:
    missing.insert(0, 'config')
  if missing:
    raise InputError(f'Missing --{", --".join(missing)}. Example: {command.EXAMPLE}')
  if has_file and not os.path.exists(values['config'].config_filename):
    path = values['config'].config_filename
    raise InputError(f'No config file {path!r}; e.g. configs/quickstart.py.')
  return Invocation(
    command=command,
    args=_args(name, command, given),
    config=_config(values['config'].value, named) if command.NEEDS.config else None,
    workdir=given.get('workdir', ''),
    team={flag: given[flag] for flag in settings_of(TeamFlags) if flag in given},
    is_json=values['json'].value,
  )


def flag_groups(command: Command) -> list[type[Flags]]:
  """The dataclasses whose fields are the command's flags, in the order of its help."""
  groups: list[type[Flags]] = [command.Args]
  if command.NEEDS.workdir:
    groups.insert(0, WorkdirFlags)
  if command.NEEDS.team:
    groups.append(TeamFlags)
  return groups


def flags_of(command: Command) -> dict[str, Setting]:
  """The flags of a command besides --config and --json, without their dashes."""
  flags = {}
  for group in flag_groups(command):
    for name, setting in settings_of(group).items():
      flags[flag_name(name)] = setting
  return flags


def flag_name(field: str) -> str:
  """'from' for `from_`, which Python keeps for itself."""
  return field.rstrip('_')


def _read(name: str, command: Command, argv: Sequence[str], run: str) -> tuple[Any, list[str]]:
  """absl's values, and the words that belong to no flag."""
  from absl import flags as absl_flags
  from ml_collections import config_flags

  values, line = absl_flags.FlagValues(), ['ds-jax', *argv]
  if run:
    fields = _config_of_run(run)
    config_flags.DEFINE_config_dict('config', fields, flag_values=values, sys_argv=line)
  elif command.NEEDS.config:
    config_flags.DEFINE_config_file('config', None, '', flag_values=values, sys_argv=line)
  absl_flags.DEFINE_bool('json', False, '', flag_values=values)
  for flag, setting in flags_of(command).items():
    define = absl_flags.DEFINE_string
    if setting.is_tuple:
      define = absl_flags.DEFINE_multi_string
    elif setting.kind is bool:
      define = absl_flags.DEFINE_bool
    define(flag, None, '', flag_values=values)
  path = _config_path(argv)
  try:
    with neighbours_importable(path):
      return values, values(line)[1:]
  except (absl_flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise InputError(f'{e} (`ds-jax {name} --help` lists the flags.)') from e


def _args(name: str, command: Command, given: Mapping[str, Any]) -> Flags:
  fields = {}
  for field, setting in settings_of(command.Args).items():
    flag = flag_name(field)
    if flag in given:
      fields[field] = _converted(given[flag], setting, f'--{flag}', name)
  return command.Args(**fields)


def _converted(text: Any, setting: Setting, flag: str, command: str) -> Any:
  """The value of a flag in the type of its field."""
  if setting.is_tuple:
    return tuple(text)
  value = text
  if setting.kind in _KINDS:
    try:
      value = setting.kind(text)
    except ValueError:
      raise InputError(
        f'Expected {flag} to be {_KINDS[setting.kind]}, got {text!r} '
        f'(`ds-jax {command} --help` says what it is).'
      ) from None
  setting.check(flag, value)
  return value


def _required(command: Command, given: Collection[str]) -> set[str]:
  """Flags that must be given."""
  names = command.Args.required(given)
  if command.NEEDS.workdir:
    names = names | WorkdirFlags.required(given)
  return {flag_name(name) for name in names}


def _marked(mark: Mark, flags: Mapping[str, Setting]) -> list[str]:
  return [flag for flag, setting in flags.items() if mark in setting.marks]


def _split(argument: str) -> tuple[str, str, str]:
  """('search.width', '=', '4') of '--search.width=4'; ('', …) of a word that is no flag."""
  if not argument.startswith('-'):
    return '', '', argument
  return argument.lstrip('-').partition('=')


def _in_full(argument: str, flags: Mapping[str, Setting]) -> str:
  """--samples=32 as --config.evaluate.num_samples=32, and so on."""
  flag, equals, value = _split(argument)
  if flag in flags:
    for mark in flags[flag].marks:
      if isinstance(mark, ShortFor):
        return f'--config.{mark.text}{equals}{value}'
  return argument


def _with_known_field(argument: str) -> str:
  """An override of the config by the field's present name.

  Raises:
    InputError: names an unknown field with its neighbours, before ml_collections looks at it.
  """
  flag, equals, value = _split(argument)
  if not flag.startswith('config.'):
    return argument
  field = flag.removeprefix('config.')
  if field in REPLACED:
    if not equals:
      raise InputError(f'Write --{flag}=VALUE.')
    replaced = REPLACED[field]
    return f'--config.{replaced.field}={replaced.value(field, _plain_value(value))}'
  field = known_field(field)
  if _is_tuple_of_texts(field):
    value = _texts(value)
  return f'--config.{field}{equals}{value}'


def _is_tuple_of_texts(field: str) -> bool:
  section, _, name = field.partition('.')
  settings = settings_of(Config)
  if not name or name not in settings_of(settings[section].kind):
    return False  # a field of the config itself, or deeper than a section's
  setting = settings_of(settings[section].kind)[name]
  return setting.is_tuple and setting.kind is str


def _texts(value: str) -> str:
  """The tuple, as Python writes it, of texts as a person does: jsonl,tensorboard."""
  if not value or value[0] in '\'"([':
    return value
  return str(tuple(value.split(',')))


def _without_named_values(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
  """The arguments without those that set a value of a mapping, and these by their field.

  ml_collections does not know a name that the config has not.
  """
  others, named = [], {}
  for argument in argv:
    flag, equals, text = _split(argument)
    field = flag.removeprefix('config.')
    if flag == field or not _holds_named_value(field):
      others.append(argument)
    elif equals:
      named[field] = _plain_value(text)
    else:
      raise InputError(f'Write --{flag}=VALUE.')
  return others, named


def _holds_named_value(field: str) -> bool:
  """Whether a field, like 'data.template_arguments.x', is an entry of a mapping."""
  *path, _ = field.split('.')
  setting = _setting_at(path)
  return setting is not None and setting.is_named


def _setting_at(path: Sequence[str]) -> Setting | None:
  """The field at a path through the sections of a Config; None: there is none."""
  setting, kind = None, Config
  for part in path:
    settings = settings_of(kind) if dataclasses.is_dataclass(kind) else {}
    setting = settings.get(part)
    if setting is None:
      return None
    kind = setting.kind
  return setting


def _plain_value(text: str) -> Any:
  """True, 3, 0.5, null, [1, 2] … as Python or JSON writes them; else the text."""
  for read in (json.loads, ast.literal_eval):
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
      return read(text)
  return text


def _config(fields: Mapping[str, Any], named: Mapping[str, Any]) -> Config:
  """The config with further values of mappings, by their fields."""
  nested = fields.to_dict()
  for field, value in named.items():
    *path, name = field.split('.')
    section = nested
    for part in path:
      section = section.setdefault(part, {})
    section[name] = value
  return config_from(nested)


def _config_path(argv: Sequence[str]) -> str:
  """The value of --config; '' if it is not given."""
  path = ''
  for argument, following in itertools.pairwise([*argv, '']):
    flag, equals, value = _split(argument)
    if flag == 'config':
      path = value if equals else following
  return path


def _with_config_path(argv: Sequence[str]) -> list[str]:
  """The arguments with the path of --config in full; a link is not followed.

  A config file imports its neighbours, and those of a link lie beside the link.
  """
  in_full = list(argv)
  for index, argument in enumerate(argv):
    flag, equals, value = _split(argument)
    if flag == 'config' and value:
      in_full[index] = f'--config={_config_file(value)}'
    elif flag == 'config' and not equals and index + 1 < len(argv):
      in_full[index + 1] = _config_file(argv[index + 1])
  return in_full


def _config_file(path: str) -> str:
  return os.path.abspath(os.path.expanduser(path))


def _placed(flag: str, value: Any, flags: Mapping[str, Setting]) -> Any:
  """The value of a flag; in full, if it names a place."""
  place = flags[flag].place
  return place.read(f'--{flag}', value) if place and value else value


def _named_run(argv: Sequence[str], flags: Mapping[str, Setting]) -> str:
  """The folder of the run that is named instead of --config and --workdir; '': there is none."""
  run = ''
  for name in _marked(NAMES_RUN, flags):
    given = {flag: value for flag, equals, value in map(_split, argv) if equals}
    run = _placed(name, given.get(name, ''), flags)
    if run and ('config' in given or 'workdir' in given):
      raise InputError(f'--{name} names a run with its config; leave out --config and --workdir.')
  return run


def _config_of_run(folder: str) -> Any:
  """The config of a run's folder, for overrides as with a config file."""
  from ml_collections import ConfigDict

  from ds_jax.run.workdir import Workdir, workdir_config

  return ConfigDict(dataclasses.asdict(workdir_config(Workdir(pathlib.Path(folder)))))
