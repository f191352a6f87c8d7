"""Values in the rows of data sets: nested fields, text that holds values, why a row is refused."""

from __future__ import annotations

import ast
import decimal
import functools
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ds_jax.data.files import WrittenFloat

MISSING = object()  # the value of a field that a row does not have

# What helps against rows that are refused, by their kind.
_REMEDIES = {
  'several_messages': (
    'A question may have one system message at its beginning, and examples in turns of user and '
    'assistant; it ends with a message of the user. Leave other rows out, or rewrite them.'
  ),
  'several_answers': (
    'A gold is one answer; data.answer_field=answers says that all of them together are it.'
  ),
  'not_text': 'Only questions in text can be used: leave out rows with images and other parts.',
}


class RowError(ValueError):
  """Why a row cannot be used; `kind` is the name under which such rows are counted."""

  def __init__(self, message: str, kind: str = 'unreadable'):
    super().__init__(message)
    self.kind = kind


def remedies_of(kinds: Iterable[str]) -> list[str]:
  """What helps against rows that were refused, for some kinds of RowError."""
  return [_REMEDIES[kind] for kind in sorted(set(kinds)) if kind in _REMEDIES]


def lookup(row: Mapping[str, Any], path: str) -> Any:
  """The value at a dotted path, or of a field with the whole path for its name.

  Names that differ in case only are found too.

  Returns `MISSING` where there is none.
  """
  if path in row:
    return row[path]
  value: Any = row
  for name in path.split('.'):
    fields = fields_of(value)
    value = MISSING if fields is None else _field(fields, name)
    if value is MISSING:
      return MISSING
  return value


def _field(fields: Mapping[str, Any], name: str) -> Any:
  """The value of a field; `MISSING` without one of that name, in capitals or not."""
  if name in fields:
    return fields[name]
  spelling = _spellings(tuple(fields)).get(name.lower())
  return MISSING if spelling is None else fields[spelling]


@functools.lru_cache(64)
def _spellings(names: tuple[str, ...]) -> dict[str, str]:
  """How the names of fields are spelt, by their spelling in lower case; the first counts."""
  spellings: dict[str, str] = {}
  for name in names:
    spellings.setdefault(str(name).lower(), name)
  return spellings


def fields_of(value: Any) -> Mapping[str, Any] | None:
  """The fields of a mapping, of the text of one, or of the pairs that a map column has."""
  if isinstance(value, dict):
    return value
  if isinstance(value, str | bytes):
    value = parse_value(plain(value)) if value.lstrip()[:1] in ('{', b'{') else None
  elif isinstance(value, list) and value and all(map(_is_pair, value)):
    value = dict(value)
  return value if isinstance(value, Mapping) else None


def _is_pair(value: Any) -> bool:
  return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def parse_value(text: str) -> Any:
  """The value of JSON text, or of what Python prints of a value; None of other text."""
  try:
    return json.loads(text, parse_float=WrittenFloat)
  except (ValueError, RecursionError):
    pass
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of backslashes that escape nothing
      value = ast.literal_eval(text.strip())
    return value if repr(value) == text.strip() else None
  except (ValueError, SyntaxError, RecursionError, MemoryError):
    return None


def checked_text(value: str | bytes, field: str) -> str:
  """The text; it must have something to read, and be Unicode that a tokenizer can take."""
  try:
    text = value.decode() if isinstance(value, bytes) else value
    text.encode()
  except UnicodeError as e:
    raise RowError(f'{field} is not UTF-8') from e
  if not text.strip():
    raise RowError(f'{field} is empty', 'empty')
  return text


def plain(value: Any) -> Any:
  """The value with text for bytes, and Python's types for those of numpy."""
  if isinstance(value, bytes):
    return value.decode(errors='replace')
  if isinstance(value, list | tuple | np.ndarray):
    return tuple(plain(item) for item in value)
  if isinstance(value, decimal.Decimal | float):
    return float(value)
  return value.item() if isinstance(value, np.generic) else value
