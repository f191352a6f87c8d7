"""Whether two runs have the same settings, as far as these change results."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config.annotations import (
  CHANGES_NO_RESULT,
  IS_LATER,
  OF_NEW_MODEL,
  OF_WHAT_COMES,
  SUITS_MACHINE,
  Mark,
  Setting,
  settings_of,
)
from ds_jax.config.fields import Config
from ds_jax.config.load import config_from, flatten, read_fields, unknown_fields
from ds_jax.config.places import SOURCE, is_same_place


def _names(
  is_wanted: Callable[[Setting], object], cls: type = Config, prefix: str = ''
) -> tuple[str, ...]:
  """Names like 'mesh.data' of the fields and sections of which something is true."""
  names: list[str] = []
  for name, setting in settings_of(cls).items():
    if is_wanted(setting):
      names.append(prefix + name)
    elif setting.is_section:
      names.extend(_names(is_wanted, setting.kind, f'{prefix}{name}.'))
  return tuple(names)


def _marked(mark: Mark) -> tuple[str, ...]:
  return _names(lambda setting: mark in setting.marks)


# Sections, and fields of others, that change no result.
RESULT_NEUTRAL = _marked(CHANGES_NO_RESULT)
# Fields that suit the machine: a run may go on with others. Sums of floats, so last bits, differ.
MACHINE_FIELDS = _marked(SUITS_MACHINE)
# Fields about what is still to come: a run may go on with others.
COMING_FIELDS = _marked(OF_WHAT_COMES)
# Fields that only a new model reads.
NEW_MODEL_FIELDS = _marked(OF_NEW_MODEL)
# Fields that name a place.
PLACE_FIELDS = _names(lambda setting: setting.place)
# Those of them that name sources of problems.
SOURCE_FIELDS = _names(lambda setting: setting.place is SOURCE)


def stored_config(fields: Mapping[str, Any]) -> Config:
  """The checked Config of a run's config.json; what it lacks, being older, is as it was then.

  That is its default, unless the field is marked with `before`.

  Raises:
    InputError: names the fields that ds_jax does not know, or that are bad.
  """
  _check_known(fields)
  return config_from(_with_values_before(fields, Config))


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """{'search.width': (value in a, value in b)} of two configs as nested mappings.

  A field that one of them lacks is as in `stored_config`: a run does not end because ds_jax has
  learnt a new setting. RESULT_NEUTRAL sections are left out, and the shape of a new model where
  both start from a given one. A relative place, as older runs have them, is the absolute one that
  ends in it.

  Raises:
    InputError: names the fields that ds_jax does not know.
  """
  _check_known(a)
  _check_known(b)
  config_a, config_b = (read_fields(_with_values_before(c, Config)) for c in (a, b))
  flat_a, flat_b = _result_fields(config_a), _result_fields(config_b)
  idle: tuple[str, ...] = ()
  if config_a.model.path and config_b.model.path:
    idle = NEW_MODEL_FIELDS
  differing = {}
  for name in sorted(flat_a | flat_b):  # mappings have names of their own
    value_a, value_b = flat_a.get(name), flat_b.get(name)
    are_equal = value_a == value_b
    if name in PLACE_FIELDS:
      are_equal = is_same_place(value_a, value_b)
    if not are_equal and name not in idle:
      differing[name] = (value_a, value_b)
  return differing


def changed_settings(config: Config) -> dict[str, Any]:
  """{'search.width': 4, …}: what differs from the defaults, RESULT_NEUTRAL sections left out."""
  defaults = _result_fields(Config())
  changed = {}
  for name, value in _result_fields(config).items():
    if name not in defaults or value != defaults[name]:  # mappings have names of their own
      changed[name] = value
  return changed


def settings_digest(config: Config) -> str:
  """Eight hexadecimal digits that tell settings apart, RESULT_NEUTRAL sections left out.

  Files of results carry them. A new field keeps the digests of settings that do not use it, if it
  is marked as Later, or with `before`.
  """
  fields = fields_in_use(config)
  for name in RESULT_NEUTRAL:
    *path, last = name.split('.')
    section = fields
    for part in path:
      section = section.get(part, {})
    section.pop(last, None)
  return digest(fields)


def fields_in_use(config: Config) -> dict[str, Any]:
  """The settings as nested dicts, without younger fields that ask for nothing new."""
  fields = dataclasses.asdict(config)
  _remove_unused(fields, Config)
  return fields


def _remove_unused(fields: dict[str, Any], cls: type) -> None:
  """Removes the younger fields of a section, as a dict, that are as before they were there."""
  for name, setting in settings_of(cls).items():
    default = setting.default
    if setting.is_section:
      default = dataclasses.asdict(default)
    is_unused = IS_LATER in setting.marks and fields[name] == default
    if setting.before:
      is_unused = fields[name] == setting.before.value
    if is_unused:
      del fields[name]
    elif setting.is_section:
      _remove_unused(fields[name], setting.kind)


def _with_values_before(fields: Mapping[str, Any], cls: type) -> dict[str, Any]:
  """A section of a stored config, with what it meant where it lacks fields marked with `before`."""
  values = dict(fields)
  for name, setting in settings_of(cls).items():
    if setting.before:
      values.setdefault(name, setting.before.value)
    elif setting.is_section:
      section = values.get(name, {})
      if isinstance(section, Mapping):  # what is bad is named later
        values[name] = _with_values_before(section, setting.kind)
  return values


def digest(value: Any) -> str:
  """Eight hexadecimal digits that tell JSON-able values apart."""
  return f'{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}'


def _check_known(fields: Mapping[str, Any]) -> None:
  unknown = unknown_fields(fields)
  if unknown:
    raise InputError(
      f'This version of ds_jax has no setting {", ".join(unknown)}; the run was made by another '
      'one, perhaps a newer one. Use that version, or choose another --workdir.'
    )


def _result_fields(config: Config) -> dict[str, Any]:
  flat = flatten(dataclasses.asdict(config))
  return {name: value for name, value in flat.items() if not _is_neutral(name)}


def _is_neutral(name: str) -> bool:
  return name in RESULT_NEUTRAL or name.split('.')[0] in RESULT_NEUTRAL
