"""`rope_scaling` or `rope_parameters` of a `config.json` <-> Scaling."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ds_jax.checks import InputError
from ds_jax.model.rope import LinearScaling, Llama3Scaling, Scaling, YarnScaling


class _Fields(NamedTuple):
  """Names of the fields of a rope type; rope_theta and the type itself aside."""

  required: tuple[str, ...] = ()
  optional: tuple[str, ...] = ()


_TYPES = {
  'default': _Fields(),
  'linear': _Fields(('factor',)),
  'llama3': _Fields(
    ('factor', 'low_freq_factor', 'high_freq_factor'), ('original_max_position_embeddings',)
  ),
  'yarn': _Fields(
    optional=(
      'factor',
      'original_max_position_embeddings',
      'beta_fast',
      'beta_slow',
      'attention_factor',
      'mscale',
      'mscale_all_dim',
      'truncate',
    )
  ),
}

# Fields of an entry that are read elsewhere, or say how a model came about.
_SAID_ELSEWHERE = ('rope_type', 'type', 'rope_theta', 'finetuned')


def scaling_from_hf(
  fields: Mapping[str, Any], max_positions: int, original_positions: int | None = None
) -> Scaling | None:
  """Returns the scaling that `rope_scaling` or `rope_parameters` of a config.json asks for.

  Args:
    fields: that entry; empty: none.
    max_positions: max_position_embeddings, the default of the original context.
    original_positions: original_max_position_embeddings beside the entry, which goes before the
      one in it; None: there is none.

  Raises:
    InputError: an unknown type, or fields that are missing, unknown or no numbers.
  """
  kind = fields.get('rope_type') or fields.get('type') or 'default'
  if not isinstance(kind, str) or kind not in _TYPES:
    raise InputError(
      f'Expected a rope type in {sorted(_TYPES)} in config.json, got {kind!r}, '
      'which is not supported.'
    )
  numbers = {}
  for name, value in fields.items():
    if value is not None and name not in _SAID_ELSEWHERE:
      numbers[name] = value
  faults = _faults(kind, numbers)
  if faults:
    raise InputError(f'Rope parameters of type {kind!r} in config.json: {"; ".join(faults)}.')
  original = int(
    original_positions or numbers.get('original_max_position_embeddings') or max_positions
  )
  match kind:
    case 'linear':
      return LinearScaling(float(numbers['factor']))
    case 'llama3':
      return Llama3Scaling(
        factor=float(numbers['factor']),
        low_freq_factor=float(numbers['low_freq_factor']),
        high_freq_factor=float(numbers['high_freq_factor']),
        original_positions=original,
      )
    case 'yarn':
      factor = float(numbers.get('factor', max_positions / original))
      return YarnScaling(
        factor=factor,
        original_positions=original,
        beta_fast=float(numbers.get('beta_fast', 32)),
        beta_slow=float(numbers.get('beta_slow', 1)),
        attention_factor=_attention_factor(numbers, factor),
        truncate=bool(numbers.get('truncate', True)),
      )
  return None


def _faults(kind: str, numbers: Mapping[str, Any]) -> list[str]:
  """What the fields of a rope type lack, have too much, or have wrong."""
  required, optional = _TYPES[kind]
  numbers = dict(numbers)
  if numbers.get('partial_rotary_factor') == 1:  # whole heads are rotated, as always here
    del numbers['partial_rotary_factor']
  faults = [f'it lacks {name}' for name in required if name not in numbers]
  for name, value in numbers.items():
    if name not in (*required, *optional):
      faults.append(f'unknown field {name} = {value!r}')
  for name, value in numbers.items():
    if name == 'truncate':
      if not isinstance(value, bool):
        faults.append(f'{name} = {value!r} is no true or false')
    elif not is_positive(value):
      faults.append(f'{name} = {value!r} is no positive number')
  if kind == 'llama3' and not faults and numbers['low_freq_factor'] >= numbers['high_freq_factor']:
    faults.append('low_freq_factor is not below high_freq_factor')
  return faults


def _attention_factor(numbers: Mapping[str, Any], factor: float) -> float:
  """The magnitude that yarn's file names, or else its paper's 0.1 ln(factor) + 1."""
  if 'attention_factor' in numbers:
    return float(numbers['attention_factor'])
  if 'mscale' in numbers and 'mscale_all_dim' in numbers:
    return _magnitude(factor, numbers['mscale']) / _magnitude(factor, numbers['mscale_all_dim'])
  return _magnitude(factor, 1.0)


def _magnitude(factor: float, weight: float) -> float:
  return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def is_positive(value: Any) -> bool:
  """Whether a value of a JSON file is a number above 0 that a float holds."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and 0 < value <= sys.float_info.max


def scaling_to_hf(scaling: Scaling | None) -> dict[str, Any] | None:
  """The `rope_scaling` entry of a config.json."""
  if scaling is None:
    return None
  kinds = {LinearScaling: 'linear', Llama3Scaling: 'llama3', YarnScaling: 'yarn'}
  fields = {'rope_type': kinds[type(scaling)], **dataclasses.asdict(scaling)}
  if 'original_positions' in fields:
    fields['original_max_position_embeddings'] = fields.pop('original_positions')
  return fields
