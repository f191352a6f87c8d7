"""Whether two runs have the same settings, as far as these change results."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config.annotations import (
  CHANGES_NO_RESULT,
  NAMES_PLACE,
  OF_NEW_MODEL,
  OF_WHAT_COMES,
  SUITS_MACHINE,
  Mark,
  settings_of,
)
from ds_jax.config.fields import Config
from ds_jax.config.load import config_from, flatten, read_fields, unknown_fields


def _marked(mark: Mark, cls: type = Config, prefix: str = '') -> tuple[str, ...]:
  """Names like 'mesh.data' of the fields and sections that carry a mark."""
  names: list[str] = []
  for name, setting in settings_of(cls).items():
    if mark in setting.marks:
      names.append(prefix + name)
    elif setting.is_section:
      names.extend(_marked(mark, setting.kind, f'{prefix}{name}.'))
  return tuple(names)


# Sections, and fields of others, that change no result.
RESULT_NEUTRAL = _marked(CHANGES_NO_RESULT)
# Fields that suit the machine: a run may go on with others. Sums of floats, so last bits, differ.
MACHINE_FIELDS = _marked(SUITS_MACHINE)
# Fields about what is still to come: a run may go on with others.
COMING_FIELDS = _marked(OF_WHAT_COMES)
# Fields that only a new model reads.
NEW_MODEL_FIELDS = _marked(OF_NEW_MODEL)
# Fields that may name a file or folder of this machine.
PLACE_FIELDS = _marked(NAMES_PLACE)


def stored_config(fields: Mapping[str, Any]) -> Config:
  """The checked Config of a run's config.json; what it lacks, being older, has its default.

  Raises:
    InputError: names the fields that ds_jax does not know, or that are bad.
  """
  _check_known(fields)
  return config_from(fields)


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """{'search.width': (value in a, value in b)} of two configs as nested mappings.

  A field that one of them lacks has its default: a run does not end because ds_jax has learnt a
  new setting. RESULT_NEUTRAL sections are left out, and the shape of a new model where both start
  from a given one. Two paths to the same place are equal.

  Raises:
    InputError: names the fields that ds_jax does not know.
  """
  _check_known(a)
  _check_known(b)
  config_a, config_b = read_fields(a), read_fields(b)
  flat_a, flat_b = _result_fields(config_a), _result_fields(config_b)
  idle: tuple[str, ...] = ()
  if config_a.model.path and config_b.model.path:
    idle = NEW_MODEL_FIELDS
  differing = {}
  for name in sorted(flat_a):
    if flat_a[name] == flat_b[name] or name in idle:
      continue
    if name in PLACE_FIELDS and same_place(flat_a[name], flat_b[name]):
      continue
    differing[name] = (flat_a[name], flat_b[name])
  return differing


def same_place(a: str, b: str) -> bool:
  """Whether two values of a field that names a place are the same, as text or on this machine."""
  if a == b:
    return True
  (kind_a, path_a), (kind_b, path_b) = _kind_and_path(a), _kind_and_path(b)
  if kind_a != kind_b or not path_a or not path_b:
    return False
  return _resolved(path_a) == _resolved(path_b)


def _kind_and_path(place: str) -> tuple[str, str]:
  """('file:', 'd/train.jsonl') of 'file:d/train.jsonl', ('', 'runs/model') of 'runs/model'."""
  kind, colon, path = place.rpartition(':')
  return kind + colon, path


def _resolved(path: str) -> str:
  return os.path.realpath(os.path.expanduser(path))


def settings_digest(config: Config) -> str:
  """Eight hexadecimal digits that tell settings apart, RESULT_NEUTRAL sections left out."""
  fields = dataclasses.asdict(config)
  for name in RESULT_NEUTRAL:
    *sections, last = name.split('.')
    del functools.reduce(dict.__getitem__, sections, fields)[last]
  return digest(fields)


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
