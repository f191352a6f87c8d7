"""From a config file, a ConfigDict or a workdir's config.json to a checked Config.

A field that is not there has its default. An error names the bad field, its value and the remedy
before anything runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import runpy
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError, suggest
from ds_jax.config.annotations import NamedValues, Setting, settings_of
from ds_jax.config.fields import Config
from ds_jax.config.rules import check_contradictions

# Names that fields had before, and have now: {'search.old': 'search.new'}. Config files, overrides
# and workdirs may go on using the old ones.
RENAMED: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Replaced:
  """What a field that is no more says in the words of another one."""

  field: str
  values: Mapping[Any, Any]  # by those of the old field

  def value(self, name: str, old: Any) -> Any:
    """The value of `field` for that of the old field `name`; InputError if it never had that."""
    if not isinstance(old, Hashable) or old not in self.values:
      choices = ' or '.join(map(str, self.values))
      raise InputError(
        f'Expected {name} to be {choices}, got {old!r}; {self.field} is its successor.'
      )
    return self.values[old]


# Fields that have become part of others. Config files, overrides and workdirs may go on using them.
REPLACED = {
  'log.tensorboard': Replaced('log.writers', {True: ('jsonl', 'tensorboard'), False: ('jsonl',)}),
}


def config_from(fields: Mapping[str, Any]) -> Config:
  """Returns the checked Config of a ConfigDict (or any nested mapping); its places are absolute.

  Raises:
    InputError: names an unknown or ill-typed field with its valid neighbours, a value out of
      range, a place that cannot be, or fields that contradict each other.
  """
  config = _with_places(read_fields(fields), prefix='')
  check_values(config)
  check_contradictions(config)
  return config


def load_config(path: str | os.PathLike[str], **overrides: Any) -> Config:
  """Returns the Config of a `configs/*.py` file.

  Args:
    path: of the file.
    **overrides: as in `with_overrides`, e.g. `seed=1, search={'width': 8}`.

  Raises:
    InputError: if there is no such file, it has no get_config(), or a field is bad.
  """
  return config_from(with_overrides(file_fields(path), overrides))


def file_fields(path: str | os.PathLike[str]) -> Mapping[str, Any]:
  """What get_config() of a config file returns.

  Raises:
    InputError: if there is no such file, or it has no get_config().
  """
  path = os.fspath(path)
  if not os.path.isfile(path):
    raise InputError(f'No config file {path!r}; e.g. configs/quickstart.py.')
  try:
    with neighbours_importable(path):
      return runpy.run_path(path)['get_config']()
  except KeyError as e:
    raise InputError(f'{path!r} defines no get_config().') from e


def with_overrides(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Nested fields of a config of which some are others.

  Args:
    fields: of a config.
    overrides: a section takes a mapping of those of its fields that change: {'seed': 1, 'search':
      {'width': 8}}, or {'search.width': 8}. A mapping of names that users choose gets further
      names. Old names of fields will do.

  Raises:
    InputError: names a field that does not exist with its neighbours. Types and values are left to
      `config_from`.
  """
  nested = _with_new_names(fields)
  for name, value in flatten(overrides).items():
    if name in REPLACED:
      name, value = REPLACED[name].field, REPLACED[name].value(name, value)
    _put(nested, known_field(name).split('.'), value)
  return nested


def known_field(name: str) -> str:
  """The present name of a field, or of an entry of a mapping, like 'search.width'.

  Raises:
    InputError: names an unknown field with its neighbours.
  """
  name = RENAMED.get(name, name)
  path, cls = name.split('.'), Config
  for depth, part in enumerate(path):
    settings = settings_of(cls) if dataclasses.is_dataclass(cls) else {}
    if part not in settings:
      raise InputError(
        f'Unknown config field {".".join(path[: depth + 1])!r}.{suggest(part, settings)} Fields '
        f'of {".".join(["config", *path[:depth]])}: {", ".join(sorted(settings))}.'
      )
    cls = settings[part].kind
    if settings[part].is_named:
      break
  return name


@contextlib.contextmanager
def neighbours_importable(path: str) -> Iterator[None]:
  """Inside, a config file may import the files beside it, e.g. `from countdown import get_config`.

  They are forgotten afterwards: a file of the same name in another folder is another one.
  """
  folder = pathlib.Path(path).absolute().parent
  before = set(sys.modules)
  sys.path.insert(0, str(folder))
  try:
    yield
  finally:
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
      file = getattr(sys.modules[name], '__file__', None)
      if file and pathlib.Path(file).parent == folder:
        del sys.modules[name]


def read_fields(fields: Mapping[str, Any]) -> Config:
  """The Config of a nested mapping: names and types are checked, values are not.

  Raises:
    InputError: names the unknown or ill-typed field.
  """
  return _read_section(Config, _with_new_names(fields), prefix='')


def unknown_fields(fields: Mapping[str, Any]) -> list[str]:
  """Names like 'search.width' that a nested mapping has and a Config has not."""
  return sorted(name for name in flatten(_with_new_names(fields)) if not _is_known(name))


def _is_known(name: str) -> bool:
  """Whether a Config has the field, or a mapping that holds it."""
  kind: type = Config
  for part in name.split('.'):
    settings = settings_of(kind) if dataclasses.is_dataclass(kind) else {}
    if part not in settings:
      return False
    if settings[part].is_named:
      return True
    kind = settings[part].kind
  return True


def _with_places(section: Any, prefix: str) -> Any:
  """The section with every place in full, see places.py."""
  values = {}
  for name, setting in settings_of(type(section)).items():
    value = getattr(section, name)
    if setting.is_section:
      values[name] = _with_places(value, f'{prefix}{name}.')
    elif setting.place and value:
      values[name] = setting.place.read(prefix + name, value)
  return dataclasses.replace(section, **values)


def check_values(config: Config) -> None:
  """Raises InputError for the first field whose value its annotation does not allow."""
  _check_section(config, prefix='')


def _check_section(section: Any, prefix: str) -> None:
  for name, setting in settings_of(type(section)).items():
    value = getattr(section, name)
    if setting.is_section:
      _check_section(value, f'{prefix}{name}.')
    else:
      setting.check(prefix + name, value)


def flatten(fields: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'search.width': 4, …} of nested mappings."""
  flat = {}
  for name, value in fields.items():
    if hasattr(value, 'items'):  # a ConfigDict is no Mapping
      flat.update(flatten(value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = tuple(value) if isinstance(value, list) else value  # JSON has lists
  return flat


def _with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The same mapping, as dicts, with what RENAMED and REPLACED say."""
  nested = _as_dict(fields)
  flat = flatten(nested)
  for old, new in RENAMED.items():
    if old in flat:
      _remove(nested, old.split('.'))
      _put(nested, new.split('.'), flat[old])
  for old, replaced in REPLACED.items():
    if old in flat:
      _remove(nested, old.split('.'))
      value = replaced.value(old, flat[old])
      if flat.get(replaced.field, value) not in (value, _default_of(replaced.field)):
        raise InputError(f'{old} has become part of {replaced.field}; leave out {old}.')
      _put(nested, replaced.field.split('.'), value)
  return nested


def _default_of(field: str) -> Any:
  value: Any = Config()
  for name in field.split('.'):
    value = getattr(value, name)
  return value


def _remove(nested: dict[str, Any], path: Sequence[str]) -> None:
  """Removes a field, and the sections that are empty without it."""
  name, *inner = path
  if inner:
    _remove(nested[name], inner)
  if not inner or not nested[name]:
    del nested[name]


def _put(nested: dict[str, Any], path: Sequence[str], value: Any) -> None:
  name, *inner = path
  if inner:
    _put(nested.setdefault(name, {}), inner, value)
  else:
    nested[name] = value


def _as_dict(fields: Mapping[str, Any]) -> dict[str, Any]:
  copy = {}
  for name, value in fields.items():
    copy[name] = _as_dict(value) if hasattr(value, 'items') else value
  return copy


def _read_section(cls: type, fields: Mapping[str, Any], prefix: str) -> Any:
  settings = settings_of(cls)
  values = {}
  for name, value in fields.items():
    if name not in settings:
      raise InputError(
        f'Unknown config field {prefix + name!r}.{suggest(name, settings)} '
        f'Fields here: {", ".join(sorted(settings))}.'
      )
    setting = settings[name]
    if not setting.is_section:
      values[name] = _typed(setting, value, prefix + name)
    elif isinstance(value, Mapping):
      values[name] = _read_section(setting.kind, value, f'{prefix}{name}.')
    else:
      raise InputError(
        f'Expected {prefix + name} to be a section with fields '
        f'{", ".join(settings_of(setting.kind))}; got {value!r}.'
      )
  return cls(**values)


def _typed(setting: Setting, value: Any, name: str) -> Any:
  """The value as its field's type; `name` is what an error calls the field."""
  if setting.is_named:
    return NamedValues.read(name, value)
  if setting.is_tuple:
    if not isinstance(value, tuple | list):
      raise InputError(f'Expected {name} to list values, e.g. 100,50; got {value!r}.')
    return tuple(_item(setting.kind, item, name) for item in value)
  return _item(setting.kind, value, name)


def _item(kind: type, value: Any, name: str) -> Any:
  is_bool = isinstance(value, bool)
  if isinstance(value, float) and math.isnan(value):
    raise InputError(f'Expected {name} to be a number, got {value}.')
  if kind is float and isinstance(value, int) and not is_bool:
    return float(value)
  if not isinstance(value, kind) or (is_bool and kind is not bool):
    raise InputError(
      f'Expected {name} of type {kind.__name__}, got {value!r} ({type(value).__name__}).'
    )
  return value
