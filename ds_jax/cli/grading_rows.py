"""Rows of golds and predictions, as people's files hold them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ds_jax.checks import InputError
from ds_jax.data.fields import RowError
from ds_jax.data.files import read_rows
from ds_jax.data.golds import number_text
from ds_jax.interfaces import Progress

# Names of fields, the first of a row counts.
_GOLD_FIELDS = ('gold', 'ground_truth', 'expected_answer', 'answer', 'target')
_PREDICTION_FIELDS = ('prediction', 'pred', 'response', 'completion', 'output', 'generation')
_EQUIVALENT_FIELDS = ('equivalent',)
_TRUTH_VALUES = {'true': True, 'false': False, '1': True, '0': False, '': None}


class Row(NamedTuple):
  """One prediction to grade."""

  number: int  # of its line, from 1
  gold: str
  prediction: str
  equivalent: bool | None  # what is right, where the file says so


class Fields(NamedTuple):
  """Where the parts of a row stand; '': under one of the usual names."""

  gold: str = ''
  prediction: str = ''
  equivalent: str = ''


def read(file: pathlib.Path, fields: Fields, progress: Progress) -> tuple[list[Row], int]:
  """The rows of a file that can be graded, and how many others there are.

  Raises:
    InputError: if there is none.
  """
  rows, reasons = [], []
  for number, row_fields in read_rows(file):
    try:
      rows.append(_row(number, row_fields, fields))
    except RowError as e:
      reasons.append(f'{number}: {e}')
  if reasons:
    progress.note(
      f'{file.name}: {len(reasons)} rows cannot be graded, e.g. line {"; line ".join(reasons[:3])}'
    )
  if not rows:
    raise InputError(
      f'{file}: no row can be graded; expected the fields gold and prediction (text, numbers, or '
      'lists of these), and equivalent (true or false) where it is known. --gold_field, '
      '--prediction_field and --equivalent_field give other names.'
    )
  return rows, len(reasons)


def _row(number: int, row: dict[str, Any] | str, fields: Fields) -> Row:
  """The row as it is graded; RowError if it cannot be."""
  if isinstance(row, str):
    raise RowError(row)
  gold = _text(_value(row, fields.gold, _GOLD_FIELDS), fields.gold or 'gold')
  name = fields.prediction or 'prediction'
  prediction = _text(_value(row, fields.prediction, _PREDICTION_FIELDS), name)
  name = fields.equivalent or 'equivalent'
  equivalent = _truth(_value(row, fields.equivalent, _EQUIVALENT_FIELDS), name)
  return Row(number, gold, prediction, equivalent)


def _value(row: Mapping[str, Any], field: str, usual_fields: Sequence[str]) -> Any:
  """What stands in a field, or in the first of the usual ones that the row has; None: nothing."""
  for name in (field,) if field else usual_fields:
    if name in row:
      return row[name]  # empty or not: the row has the field, so no other is meant
    value: Any = row
    for part in name.split('.'):
      value = value.get(part) if isinstance(value, Mapping) else None
    if value is not None:
      return value
  return None


def _text(value: Any, field: str) -> str:
  """A text as it is, a number with all its digits, and several answers with commas between."""
  if value is None:
    raise RowError(f'{field} is missing')
  if isinstance(value, list | tuple):
    if not value:
      raise RowError(f'{field} is an empty list')
    return ', '.join(_text(item, f'an item of {field}').strip() for item in value)
  if isinstance(value, str):
    return value
  number = number_text(value)
  if number is None:
    raise RowError(f'{field} is {type(value).__name__}, expected text, a number or a list of these')
  return number


def _truth(value: Any, field: str) -> bool | None:
  """True or false, also as a text or as 1 or 0; None where it is not known."""
  if value is None or isinstance(value, bool):
    return value
  text = str(value).strip().lower()
  if text not in _TRUTH_VALUES:
    raise RowError(f'{field} is neither true nor false')
  return _TRUTH_VALUES[text]
