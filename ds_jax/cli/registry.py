"""The commands of `ds-jax`: their names, and what the file of each says about itself.

A command is a module of this folder with HELP, EXAMPLE, NEEDS, a dataclass Args and a function run.
It is loaded when it is called for, and loads what it works with when it runs.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from ds_jax.config.annotations import Mark, settings_of

if TYPE_CHECKING:
  from ds_jax.cli.result import Result
  from ds_jax.run.session import Session

COMMANDS = (
  'init',
  'warmstart',
  'train',
  'evaluate',
  'search',
  'export',
  'data prepare',
  'data describe',
  'grade',
  'plan',
  'report',
)


def commands_of(group: str) -> list[str]:
  """The commands of two words whose first word this is, e.g. those of 'data'."""
  return [name for name in COMMANDS if name.startswith(f'{group} ')]


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a command is given besides its own flags."""

  config: bool = False  # --config with its overrides
  workdir: bool = False  # --workdir
  team: bool = False  # it may be run by several processes together
  lock: bool = False  # no other process may work in the workdir meanwhile


class Flags:
  """Base of the dataclasses of flags. Their comments are the flags' help, their types are checked.

  A tuple is a flag that may be given several times. Flags that contradict each other are refused in
  `__post_init__`.
  """

  @classmethod
  def required(cls, given: Collection[str]) -> set[str]:
    """Names of the flags that must be given where those of `given` are."""
    del given
    return {name for name, setting in settings_of(cls).items() if setting.is_required}


# Marks of flags.
POSITIONAL = Mark('its name may be left out')
NAMES_RUN = Mark('the folder of a run, instead of --config and --workdir')


@dataclasses.dataclass(frozen=True)
class ShortFor(Mark):
  """The flag is a short way to write a field of the config, whose name this is."""


class Command(Protocol):
  """The file of a command."""

  HELP: str  # a sentence
  EXAMPLE: str  # a command line
  NEEDS: Needs
  Args: type[Flags]

  def run(self, session: Session, args: Any) -> Result:
    """Does the work."""
    ...


def load(name: str) -> Command:
  """The command of one of COMMANDS."""
  return importlib.import_module(f'ds_jax.cli.{name.replace(" ", "_")}')
