"""Whether two runs have the same settings, as far as these change results."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config.annotations import (
  CHANGES_NO_RESULT,
  IS_LATER,
  OF_NEW_MODEL,
  SUITS_MACHINE,
  Mark,
  settings_of,
)
from ds_jax.config.fields import Config
from ds_jax.config.load import flatten, read_fields, unknown_fields


def _marked(mark: Mark, cls: type = Config, prefix: str = '') -> tuple[str, ...]:
  """Names like 'mesh.data' of the fields and sections that carry a mark."""
  names: list[str] = []
  for name, setting in settings_of(cls).items():
    if mark in setting.marks:
      names.append(prefix + name)
    elif setting.is_section:
      names.extend(_marked(mark, setting.kind, f'{prefix}{name}.'))
  return tuple(names)


# Sections that change no result.
RESULT_NEUTRAL = _marked(CHANGES_NO_RESULT)
# Fields that suit the machine: a run may go on with others. Sums of floats, so last bits, differ.
MACHINE_FIELDS = _marked(SUITS_MACHINE)
# Fields that only a new model reads.
NEW_MODEL_FIELDS = _marked(OF_NEW_MODEL)


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """{'search.width': (value in a, value in b)} of two configs as nested mappings.

  A field that one of them lacks has its default: a run does not end because ds_jax has learnt a
  new setting. RESULT_NEUTRAL sections are left out, and the shape of a new model where both start
  from a given one.

  Raises:
    InputError: names the fields that ds_jax does not know.
  """
  config_a, config_b = _stored_config(a), _stored_config(b)
  flat_a, flat_b = _result_fields(config_a), _result_fields(config_b)
  idle: tuple[str, ...] = ()
  if config_a.model.path and config_b.model.path:
    idle = NEW_MODEL_FIELDS
  differing = {}
  for name in sorted(flat_a):
    if flat_a[name] != flat_b[name] and name not in idle:
      differing[name] = (flat_a[name], flat_b[name])
  return differing


def settings_digest(config: Config) -> str:
  """Eight hexadecimal digits that tell settings apart, RESULT_NEUTRAL sections left out.

  Files of results carry them. A new field keeps the digests of settings that do not use it, if it
  is marked as Later.
  """
  fields = dataclasses.asdict(config)
  _remove_unused(fields, Config)
  for section in RESULT_NEUTRAL:
    del fields[section]
  return digest(fields)


def _remove_unused(fields: dict[str, Any], cls: type) -> None:
  """Removes the Later fields of a section, as a dict, that have their defaults."""
  for name, setting in settings_of(cls).items():
    if setting.is_section:
      _remove_unused(fields[name], setting.kind)
    elif IS_LATER in setting.marks and fields[name] == setting.default:
      del fields[name]


def digest(value: Any) -> str:
  """Eight hexadecimal digits that tell JSON-able values apart."""
  return f'{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}'


def _stored_config(fields: Mapping[str, Any]) -> Config:
  unknown = unknown_fields(fields)
  if unknown:
    raise InputError(
      f'This version of ds_jax has no setting {", ".join(unknown)}; the run was made by another '
      'one. Continue it with that version, or choose another --workdir.'
    )
  return read_fields(fields)


def _result_fields(config: Config) -> dict[str, Any]:
  flat = flatten(dataclasses.asdict(config))
  return {name: value for name, value in flat.items() if name.split('.')[0] not in RESULT_NEUTRAL}
