"""The command line: `ds-jax COMMAND --config=configs/….py --workdir=DIR --config.search.width=4 …`.

`main` reads it, runs the command, prints what came out and returns the exit code.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from ds_jax.checks import InputError, suggest
from ds_jax.cli.registry import COMMANDS, commands_of

_HELP = ('--help', '-h', '-help', 'help')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns its exit code."""
  try:
    return _main(list(sys.argv[1:] if argv is None else argv))
  except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except InputError as e:
    from ds_jax.run.stopping import ExitCode

    print(f'ds-jax: {e}', file=sys.stderr)
    return ExitCode.BAD_INPUT


def _main(argv: list[str]) -> int:
  from ds_jax.cli import help as help_text

  if not argv or argv[0] in _HELP:
    print(help_text.overview())
    return 0 if argv else 2
  if commands_of(argv[0]) and (not argv[1:] or argv[1] in _HELP):
    print(help_text.overview(argv[0]))
    return 0 if argv[1:] else 2
  name, arguments = _split_command(argv)
  for argument in arguments:
    flag, _, section = argument.partition('=')
    if flag in _HELP[:3]:
      print(help_text.command_help(name, section))
      return 0

  from ds_jax.cli.execute import execute
  from ds_jax.cli.flags import parse

  invocation = parse(name, arguments)
  result = execute(invocation)
  if result is None:
    return 0
  if result.text:
    print(result.text)
  if invocation.is_json:
    print(json.dumps(result.summary | {'exit_code': result.exit_code}, sort_keys=True))
  return result.exit_code


def _split_command(argv: list[str]) -> tuple[str, list[str]]:
  """The command's name, of one or two words, and its arguments."""
  group = commands_of(argv[0])
  num_words = 2 if group else 1
  name = ' '.join(argv[:num_words])
  if name not in COMMANDS:
    known = group or COMMANDS
    raise InputError(
      f'Unknown command {name!r}.{suggest(name, known)} Commands: {", ".join(known)}.'
    )
  return name, argv[num_words:]
