"""What `ds-jax --help`, `ds-jax COMMAND --help` and `ds-jax COMMAND --help=SECTION` print."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from ds_jax.checks import InputError, suggest
from ds_jax.cli.flags import flag_groups, flag_name
from ds_jax.cli.registry import COMMANDS, Command, commands_of, load
from ds_jax.config import Config
from ds_jax.config.annotations import OF_WHAT_COMES, SUITS_MACHINE, Setting, settings_of
from ds_jax.config.comments import comments_of

_WIDTH = 100
_INDENT = 18  # columns in front of a flag's text
_COLUMN = 32  # columns of `name = default`, in front of what else it may be
ALL = 'all'  # as a section: every one

EXIT_CODES = """exit codes
  0 done · 1 a defect of ours · 2 bad input · 42 saved after SIGTERM · 130 saved after Ctrl-C
  74 could not write (disk full); the earlier checkpoint is good · 134 lost a peer process
  of plan: 0 fits · 3 does not fit · 4 does not compile"""


def overview(group: str = '') -> str:
  """All commands, or those of a group, a line each."""
  title = 'ds-jax: tree search inside the training of reasoning models, in JAX.'
  if group:
    title = f'commands of ds-jax {group}'
  rows = []
  for name in commands_of(group) if group else COMMANDS:
    rows.append(_wrapped(load(name).HELP, first=f'  {name:<13} ', indent=_INDENT - 2))
  return '\n'.join(
    [
      title,
      '',
      *rows,
      '',
      '`ds-jax COMMAND --help` says more.',
      '',
      EXIT_CODES,
    ]
  )


def command_help(name: str, section: str = '') -> str:
  """Help text of a command, or of one section of its settings.

  Raises:
    InputError: for an unknown section, or a command without settings.
  """
  command = load(name)
  if section:
    if not command.NEEDS.config:
      raise InputError(f'ds-jax {name} has no settings; `ds-jax {name} --help` lists its flags.')
    return settings_help(section)
  parts = [command.HELP, f'example\n{_example(command)}', _flags_help(command)]
  if command.NEEDS.config:
    parts.append(_sections_help(name))
  return '\n\n'.join([*parts, EXIT_CODES])


def settings_help(section: str) -> str:
  """The fields of a section of the config, or of all sections.

  Raises:
    InputError: for an unknown section.
  """
  sections = _sections()
  if section == ALL:
    return '\n\n'.join(map(_section_help, sections))
  if section not in sections:
    raise InputError(
      f'Unknown section {section!r}.{suggest(section, sections)} Sections: '
      f'{", ".join(sections)}, or {ALL}.'
    )
  return _section_help(section)


def _example(command: Command) -> str:
  """The example as it may be typed, over several lines where it is long."""
  lines = [' ']
  for word in re.findall(r'(?:[^\s"]|"[^"]*")+', command.EXAMPLE):
    if len(lines[-1]) + len(word) > _WIDTH - 4:
      lines.append('   ')
    lines[-1] += f' {word}'
  return ' \\\n'.join(lines)


def _flags_help(command: Command) -> str:
  rows = []
  if command.NEEDS.config:
    rows.append(_flag_row('config', 'config file, e.g. configs/quickstart.py'))
  for group in flag_groups(command):
    texts = comments_of(group)
    for field in _own_fields_first(group):
      rows.append(_flag_row(flag_name(field), texts[field] + _limits(settings_of(group)[field])))
  rows.append(_flag_row('json', 'print one JSON object as the last line of standard output'))
  return '\n'.join(['flags', *rows])


def _own_fields_first(cls: type) -> list[str]:
  """Names of a dataclass's fields, those of its bases last."""
  own = [name for name in settings_of(cls) if name in vars(cls).get('__annotations__', {})]
  return [*own, *(name for name in settings_of(cls) if name not in own)]


def _limits(setting: Setting) -> str:
  """The default of a number or a choice, which a comment need not repeat."""
  if setting.is_required or not (setting.choices or setting.kind in (int, float)):
    return ''
  return f' (default: {setting.default})'


def _flag_row(flag: str, text: str) -> str:
  return _wrapped(text, first=f'  --{flag:<13} ', indent=_INDENT)


def _sections() -> dict[str, type]:
  """The sections of a Config."""
  return {name: s.kind for name, s in settings_of(Config).items() if s.is_section}


def _sections_help(name: str) -> str:
  """The sections with the names of their fields."""
  rows = ['settings, written as --config.search.width=8']
  own = [field for field, setting in settings_of(Config).items() if not setting.is_section]
  for field in own:
    rows.append(f'  {field:<15} {comments_of(Config)[field]}')
  for section, cls in _sections().items():
    rows.append(_wrapped(_summary(cls), first=f'  {section:<15} ', indent=_INDENT))
    names = ' '.join(settings_of(cls))
    rows.append(_wrapped(names, first=' ' * (_INDENT + 2), indent=_INDENT + 2))
  rows.append(
    f'`ds-jax {name} --help=search` says what the settings of a section do, with defaults and what '
    f'else\nthey may be; `--help={ALL}` says it of all.'
  )
  return '\n'.join(rows)


def _section_help(section: str) -> str:
  cls = _sections()[section]
  return '\n'.join(
    [
      f'{section}: {_summary(cls)}',
      f'Written as --config.{section}.NAME=VALUE. With defaults, and what else they may be:',
      '',
      *_rows_of(cls),
    ]
  )


def _rows_of(cls: type, prefix: str = '') -> list[str]:
  """Two lines or more per field: default and what else it may be, then what it means."""
  rows, texts = [], comments_of(cls)
  for name, setting in settings_of(cls).items():
    if setting.is_section:
      rows.extend(['', f'  {_summary(setting.kind)}', ''])
      rows.extend(_rows_of(setting.kind, f'{prefix}{name}.'))
      continue
    assignment = f'  {prefix}{name} = {_shown(setting.default)}'
    if allowed := _allowed(setting):
      first = f'{assignment:<{_COLUMN + 2}}  '
      assignment = _wrapped(allowed, first=first, indent=_COLUMN + 4)
    rows.append(assignment)
    rows.append(_wrapped(texts[name], first=' ' * 6, indent=6))
  return rows


def _allowed(setting: Setting) -> str:
  """What the field may be, where that is limited, and whether it may change."""
  parts = []
  if setting.choices:
    parts.append(' | '.join(setting.all_choices))
  elif setting.kind is bool:
    parts.append('True | False')
  elif setting.bounds:
    kind = 'in ' if len(setting.bounds) > 1 else ''
    parts.append(f'{"each " if setting.is_tuple else ""}{kind}{setting.range}')
  for mark in (SUITS_MACHINE, OF_WHAT_COMES):
    if mark in setting.marks:
      parts.append(f'({mark.text})')
  return ' '.join(parts)


def _shown(default: Any) -> str:
  if isinstance(default, tuple):
    return ','.join(map(str, default))
  return repr(default) if default == '' else str(default)


def _summary(cls: type) -> str:
  """The first line of a docstring."""
  return (cls.__doc__ or '').strip().splitlines()[0]


def _wrapped(text: str, *, first: str, indent: int) -> str:
  return textwrap.fill(
    text,
    _WIDTH,
    initial_indent=first,
    subsequent_indent=' ' * indent,
    break_on_hyphens=False,
    break_long_words=False,
  )
