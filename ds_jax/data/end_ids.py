"""The ids that end a response, as transformers' generation takes them from a model's folder."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError

GENERATION_CONFIG, MODEL_CONFIG = 'generation_config.json', 'config.json'
# Where the config.json of a model of several parts has its decoder.
_DECODERS = ('decoder', 'generator', 'text_config')


def end_ids(folder: pathlib.Path) -> list[int]:
  """The ids of generation_config.json; where that names none, those of config.json.

  Raises:
    InputError: names the file whose `eos_token_id` is neither an id nor a list of ids.
  """
  return _ids_of(folder / GENERATION_CONFIG) or _ids_of(folder / MODEL_CONFIG)


def num_rows(folder: pathlib.Path) -> int | None:
  """Rows of the model's embedding; None where no config.json says so."""
  size = _of_decoder(_fields(folder / MODEL_CONFIG), 'vocab_size')
  return size if type(size) is int and size > 0 else None


def _ids_of(file: pathlib.Path) -> list[int]:
  value = _of_decoder(_fields(file), 'eos_token_id')
  if value is None:
    return []
  ids = value if isinstance(value, list) else [value]
  if not all(type(i) is int and i >= 0 for i in ids):
    raise InputError(
      f'Expected eos_token_id in {str(file)!r} to be an id or a list of ids, got {value!r}.'
    )
  return ids


def _of_decoder(fields: Mapping[str, Any], name: str) -> Any:
  """A field of a config, or else of its decoder; None: neither has it."""
  if fields.get(name) is not None:
    return fields[name]
  for decoder in _DECODERS:
    if isinstance(fields.get(decoder), dict):
      return fields[decoder].get(name)
  return None


def _fields(file: pathlib.Path) -> dict[str, Any]:
  """The fields of a JSON file; none where there is no such file."""
  if not file.is_file():
    return {}
  try:
    fields = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as e:
    raise InputError(f'{str(file)!r} is not valid JSON: {e}.') from e
  if not isinstance(fields, dict):
    raise InputError(f'{str(file)!r} is not a JSON object.')
  return fields
