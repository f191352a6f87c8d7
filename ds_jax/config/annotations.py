"""What a field may be, written on the field itself: its choices, its range, its marks.

  policy: Literal['deepsearch', 'direct'] = 'deepsearch'  # which rules grow a tree
  num_slots: Machine[Positive] = 16  # decoder slots per device

`settings_of` reads the annotations of a dataclass; conversion, checker and help are made of that.
The flags of a command are such a dataclass as well.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from ds_jax.checks import InputError, check_choice, is_python_name


class NamedValues(dict[str, Any]):
  """Values by names that the user chooses, as JSON has them. Nobody changes one after it is made.

  It is a dict so that configs hold it as a mapping, and hashable as all that a Config holds.
  """

  def __hash__(self) -> int:  # type: ignore[override]
    return hash(json.dumps(self, sort_keys=True))

  @classmethod
  def read(cls, name: str, values: Any) -> NamedValues:
    """What a user gives for the field `name`; InputError unless it maps names to plain values."""
    if not isinstance(values, Mapping):
      raise InputError(f'Expected {name} to map names to values, got {values!r}.')
    try:
      plain_values = json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as e:
      raise InputError(
        f'Expected {name} to hold texts, numbers, True, False and lists of them, got {values!r}.'
      ) from e
    for key in plain_values:
      if not key.isidentifier():
        raise InputError(f'Expected a name in {name}, got {key!r}.')
    return cls(plain_values)


@dataclasses.dataclass(frozen=True)
class Bound:
  """One end of a range."""

  value: float
  is_lower: bool
  is_within: bool  # the bound itself is allowed

  def holds(self, value: float) -> bool:
    if value == self.value:
      return self.is_within
    return (value > self.value) == self.is_lower

  def __str__(self) -> str:
    sign = '>' if self.is_lower else '<'
    return f'{sign}{"=" if self.is_within else ""} {self.value}'


def at_least(value: float) -> Bound:
  return Bound(value, is_lower=True, is_within=True)


def above(value: float) -> Bound:
  return Bound(value, is_lower=True, is_within=False)


def at_most(value: float) -> Bound:
  return Bound(value, is_lower=False, is_within=True)


def below(value: float) -> Bound:
  return Bound(value, is_lower=False, is_within=False)


@dataclasses.dataclass(frozen=True)
class Pattern:
  """Text that is a regular expression."""

  over: str  # what it is matched against, and an example


@dataclasses.dataclass(frozen=True)
class Day:
  """Text that is a date, or ''."""

  def check(self, name: str, value: str) -> None:
    """Raises InputError, which calls the field `name`, unless it is."""
    try:
      is_day = not value or datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
      is_day = False
    if not is_day:
      raise InputError(f'Expected {name} to be a date like 2026-11-28, got {value!r}.')


@dataclasses.dataclass(frozen=True)
class Mark:
  """A property of a field that other code asks for."""

  text: str


@dataclasses.dataclass(frozen=True)
class Place(Mark):
  """The field names a place: places.py has them."""

  read: Callable[[str, str], str]  # (name of the field, text) -> the place; InputError if it cannot


@dataclasses.dataclass(frozen=True)
class Before(Mark):
  """The field is younger than configs in workdirs: what those meant that lack it."""

  value: Any


def before(value: Any) -> Before:
  """For a field whose default is not what ds_jax did before there was the field."""
  return Before('meant another value before it was there', value)


# The field suits the machine: a run may go on with another value. Sums of floats, so last bits,
# differ then.
SUITS_MACHINE = Mark('may change when a run goes on')
# A section, or a field, that changes no result at all.
CHANGES_NO_RESULT = Mark('changes no result')
# The field is about what is still to come, and nothing that was learnt so far depends on it.
OF_WHAT_COMES = Mark('may change for what is to come')
# The field is read only when a new model is made.
OF_NEW_MODEL = Mark('of a new model')

# Besides its choices the field may name something of the user's own.
OR_PYTHON = Mark('python:MODULE.NAME')

# The field is younger than digests that output files carry: at its default, or the value that it
# had before it was there (`before`), it is not in them.
IS_LATER = Mark('later')

T = TypeVar('T')
Machine = Annotated[T, SUITS_MACHINE]
NewModel = Annotated[T, OF_NEW_MODEL]
Neutral = Annotated[T, CHANGES_NO_RESULT]
Coming = Annotated[T, OF_WHAT_COMES]
Later = Annotated[T, IS_LATER]

Positive = Annotated[int, at_least(1)]
Count = Annotated[int, at_least(0)]
Date = Annotated[str, Day()]
NotNegative = Annotated[float, at_least(0.0)]
Share = Annotated[float, at_least(0.0), at_most(1.0)]


@dataclasses.dataclass(frozen=True)
class Setting:
  """A field as its annotation says. A tuple has the kind and the bounds of its items.

  A tuple may be empty only if that is its default.
  """

  name: str
  kind: type  # bool, int, float, str, or the dataclass of a section
  default: Any  # dataclasses.MISSING: it must be given
  choices: tuple[str, ...] = ()
  bounds: tuple[Bound, ...] = ()
  pattern: Pattern | None = None
  day: Day | None = None
  marks: frozenset[Mark] = frozenset()
  is_tuple: bool = False

  @property
  def is_section(self) -> bool:
    return dataclasses.is_dataclass(self.kind)

  @property
  def place(self) -> Place | None:
    """What the field names, if it names a place."""
    return next((mark for mark in self.marks if isinstance(mark, Place)), None)

  @property
  def before(self) -> Before | None:
    """What the field meant before it was there, if that is not its default."""
    return next((mark for mark in self.marks if isinstance(mark, Before)), None)

  @property
  def is_named(self) -> bool:
    """Whether the field maps names that the user chooses to values."""
    return self.kind is NamedValues

  @property
  def all_choices(self) -> tuple[str, ...]:
    """The choices as a person may read them."""
    return (*self.choices, OR_PYTHON.text) if OR_PYTHON in self.marks else self.choices

  @property
  def is_required(self) -> bool:
    return self.default is dataclasses.MISSING

  @property
  def range(self) -> str:
    """The bounds in words: '>= 1', or '[0, 1)' where there are two. '': none."""
    if len(self.bounds) < 2:
      return ''.join(map(str, self.bounds))
    low, high = sorted(self.bounds, key=lambda bound: not bound.is_lower)
    opening, closing = '[' if low.is_within else '(', ']' if high.is_within else ')'
    return f'{opening}{low.value:g}, {high.value:g}{closing}'

  def check(self, name: str, value: Any) -> None:
    """Raises InputError, which calls the field `name`, unless the value is allowed."""
    if self.is_tuple:
      self._check_items(name, value)
    elif self.choices:
      is_own = OR_PYTHON in self.marks and is_python_name(value)
      if not is_own:
        check_choice(name, value, self.all_choices)
    elif not all(bound.holds(value) for bound in self.bounds):
      within = 'in ' if len(self.bounds) > 1 else ''
      raise InputError(f'Expected {name} {within}{self.range}, got {value}.')
    if self.pattern:
      self._check_pattern(name, value)
    if self.day:
      self.day.check(name, value)

  def _check_items(self, name: str, values: tuple[Any, ...]) -> None:
    are_good = all(bound.holds(value) for value in values for bound in self.bounds)
    is_wanted = bool(values) or self.default == ()
    if not is_wanted or not are_good:
      raise InputError(
        f'Expected {name} to list one or more values, all {self.range}, e.g. 100,50; got {values}.'
      )

  def _check_pattern(self, name: str, value: str) -> None:
    try:
      re.compile(value)
    except re.error as e:
      raise InputError(
        f'Expected {name} to be a regular expression over {self.pattern.over}; got {value!r} ({e}).'
      ) from e


@functools.cache
def settings_of(cls: type) -> dict[str, Setting]:
  """The fields of a dataclass by name, in their order."""
  hints = typing.get_type_hints(cls, include_extras=True)
  return {field.name: _setting(field, hints[field.name]) for field in dataclasses.fields(cls)}


def _setting(field: dataclasses.Field, hint: Any) -> Setting:
  extras: tuple[Any, ...] = ()
  choices: tuple[str, ...] = ()
  if typing.get_origin(hint) is Annotated:
    hint, *extras = typing.get_args(hint)
  if isinstance(hint, types.UnionType):  # of a type and None
    hint = typing.get_args(hint)[0]
  is_tuple = typing.get_origin(hint) is tuple
  if is_tuple:
    hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Annotated:
      hint, *of_items = typing.get_args(hint)
      extras = (*extras, *of_items)
  if typing.get_origin(hint) is Literal:
    choices, hint = typing.get_args(hint), str
  patterns = [extra for extra in extras if isinstance(extra, Pattern)]
  days = [extra for extra in extras if isinstance(extra, Day)]
  return Setting(
    field.name,
    hint,
    field.default,
    choices,
    bounds=tuple(extra for extra in extras if isinstance(extra, Bound)),
    pattern=patterns[0] if patterns else None,
    day=days[0] if days else None,
    marks=frozenset(extra for extra in extras if isinstance(extra, Mark)),
    is_tuple=is_tuple,
  )
