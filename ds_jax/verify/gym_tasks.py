"""Tasks of reasoning-gym (an extra) by name and options: `chain_sum?min_terms=2&max_terms=3`.

Options are the fields of the task's own config dataclass, read as their types say. A list has
commas (`operators=+,-`) or as JSON (`ranges=[[0,1],[2,3]]`); `%26` is an `&` within a value. Two
are ours: `size`, and `reads`, what of a response without a box or tags the scorer gets.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import types
import typing
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ds_jax.checks import InputError, first_line, suggest

_BOOLS = {'true': True, 'false': False, '1': True, '0': False}
_LISTS = (list, tuple, Sequence)
# Options that are settled elsewhere: the number of problems by the source, the seed by the split.
_TAKEN = ('size', 'seed')
# The whole response (reasoning-gym's own way), or its last number: for models that answer in prose.
Reads = Literal['all', 'last_number']


def name_of(task: str) -> str:
  """The name of a task without its options."""
  return task.partition('?')[0]


def take_size(task: str, size: int) -> tuple[str, int]:
  """Returns the task without its option `size`, and that number; `size` where it has none.

  Raises:
    InputError: if the option is no whole number of problems.
  """
  rest, value = _take(task, 'size')
  if value is None:
    return rest, size
  if not value.isdecimal() or not int(value):
    raise InputError(f'Expected size of gym:{task} to be a number of problems, got {value!r}.')
  return rest, int(value)


def take_reads(task: str) -> tuple[str, Reads]:
  """Returns the task without its option `reads`, and that; 'all' where it has none.

  Raises:
    InputError: if the option is neither 'all' nor 'last_number'.
  """
  rest, value = _take(task, 'reads')
  if value not in (None, *typing.get_args(Reads)):
    raise InputError(f'Expected reads of gym:{task} to be all or last_number, got {value!r}.')
  return rest, value or 'all'


def _take(task: str, name: str) -> tuple[str, str | None]:
  """The task without an option, and the option's value; None where it has none."""
  task_name, _, text = task.partition('?')
  others, taken = [], None
  for part in text.split('&') if text else ():
    option, _, value = part.partition('=')
    if option.strip() == name:
      taken = value.strip()
    else:
      others.append(part)
  return (f'{task_name}?{"&".join(others)}' if others else task_name), taken


def make_dataset(text: str, **sizes: int) -> Any:
  """Returns reasoning-gym's data set of a task.

  Args:
    text: name and options of the task.
    **sizes: `seed` and `size` of the data set, where they matter.

  Raises:
    InputError: if `reasoning-gym` is not installed, has no such task or option, or refuses a value.
  """
  name, _, option_text = take_reads(text)[0].partition('?')
  dataset, config_class = _classes(name)
  options = _options(name, config_class, option_text)
  try:
    config = config_class(**options, **sizes)
    if hasattr(config, 'validate'):
      config.validate()
    return dataset(config=config)
  except Exception as e:  # a config that is refused says so by assertions and other errors
    raise InputError(f'reasoning-gym refuses gym:{text}: {first_line(e)}') from e


def _classes(name: str) -> tuple[Any, type]:
  """The data set's class of a task, and the dataclass of its options."""
  try:
    from reasoning_gym.factory import DATASETS
  except ImportError as e:
    raise InputError(f"gym:{name} needs `reasoning-gym`: pip install 'ds_jax[gym]'.") from e
  if name == 'composite':
    raise InputError(
      "Name the tasks of a mixture themselves: '2*gym:chain_sum + gym:leg_counting'."
    )
  if name not in DATASETS:
    raise InputError(f'reasoning-gym has no task {name!r}.{suggest(name, DATASETS)}')
  return DATASETS[name]


def _options(name: str, config_class: type, text: str) -> dict[str, Any]:
  """The options in a text, as their types."""
  fields = {field.name: field for field in dataclasses.fields(config_class)}
  known = sorted(set(fields) - set(_TAKEN))
  hints = typing.get_type_hints(config_class)
  options: dict[str, Any] = {}
  for part in text.split('&') if text else ():
    option, sign, value = part.partition('=')
    option = urllib.parse.unquote(option.strip())
    if option not in known:
      raise InputError(
        f'gym:{name} has no option {option!r}.{suggest(option, known)} '
        f'Its options: {", ".join(known) or "none"}.'
      )
    if not sign or option in options:
      raise InputError(f'Expected {option}=VALUE once in gym:{name}?…, got {part!r} in {text!r}.')
    default = _default(fields[option])
    try:
      options[option] = _read(urllib.parse.unquote(value), hints[option], default)
    except (ValueError, TypeError) as e:
      raise InputError(f'Option {option} of gym:{name}: {first_line(e)}.') from e
  return options


def _default(field: dataclasses.Field) -> Any:
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return field.default


def _read(text: str, hint: Any, default: Any) -> Any:
  """The value of an option; a ValueError says what was expected."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if type(None) in arguments and text.lower() in ('', 'none'):
      return None
    return _read(text, next(kind for kind in arguments if kind is not type(None)), default)
  if hint in _LISTS or origin in _LISTS:
    return _read_list(text, hint, default)
  if origin is Literal:
    return _chosen(text, {str(choice): choice for choice in arguments})
  if isinstance(hint, type) and issubclass(hint, enum.Enum):
    return _chosen(text, {str(member.value): member for member in hint})
  return _read_single(text, hint)


def _read_list(text: str, hint: Any, default: Any) -> Any:
  """A list or tuple, as the type says; items of a bare one have the type of its default's."""
  origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
  if arguments:
    item_hints = [kind for kind in arguments if kind is not Ellipsis]
  else:
    item_hints = [type(default[0])] if default else [str]
  items = json.loads(text) if text.lstrip().startswith('[') else text.split(',')
  if len(item_hints) == 1:
    item_hints *= len(items)
  if len(items) != len(item_hints):
    raise ValueError(f'expected {len(item_hints)} values, got {text!r}')
  values = []
  for item, item_hint in zip(items, item_hints, strict=True):
    item_text = item if isinstance(item, str) else json.dumps(item)
    values.append(_read(item_text, item_hint, ()))
  return tuple(values) if origin is tuple else values


def _read_single(text: str, kind: Any) -> Any:
  if kind is bool:
    return _chosen(text.lower(), _BOOLS)
  if kind is str:
    return text
  if kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      raise ValueError(f'expected {_article(kind)}, got {text!r}') from None
  if kind in (datetime.date, datetime.time):
    return kind.fromisoformat(text)
  raise ValueError(f'values of type {getattr(kind, "__name__", kind)} cannot be set here')


def _article(kind: type) -> str:
  return 'a whole number' if kind is int else 'a number'


def _chosen(text: str, choices: Mapping[str, Any]) -> Any:
  if text not in choices:
    raise ValueError(f'expected one of {", ".join(choices)}; got {text!r}')
  return choices[text]
