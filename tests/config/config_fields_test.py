"""What is written on the fields: types, choices, ranges, comments; and the one checker of them."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import pytest

from ds_jax.checks import InputError
from ds_jax.config import Config, config_from
from ds_jax.config.annotations import (
  SUITS_MACHINE,
  Machine,
  Pattern,
  Positive,
  above,
  at_least,
  at_most,
  below,
  settings_of,
)
from ds_jax.config.comments import comments_of


@dataclasses.dataclass(frozen=True)
class Base:
  first: int  # what comes first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Base):
  # a line above
  # and one more
  choice: Literal['a', 'b'] = 'a'  # and behind
  size: Machine[Positive] = 3
  share: Annotated[float, at_least(0.0), below(1.0)] = 0.5  # a '#' in it
  steps: tuple[Positive, ...] = (1,)
  maybe: str | None = None
  name: Annotated[str, Pattern('names, e.g. a.*')] = ''


def sections(cls=Config, prefix='config'):
  """(name, dataclass) of a Config and all within it."""
  yield prefix, cls
  for name, setting in settings_of(cls).items():
    if setting.is_section:
      yield from sections(setting.kind, f'{prefix}.{name}')


def test_annotations_are_read():
  settings = settings_of(Example)
  assert settings['first'].is_required and not settings['maybe'].is_required
  assert settings['choice'].choices == ('a', 'b') and settings['choice'].kind is str
  assert settings['size'].range == '>= 1' and settings['size'].marks == {SUITS_MACHINE}
  assert settings['share'].range == '[0, 1)' and settings['share'].kind is float
  assert settings['steps'].is_tuple and settings['steps'].kind is int
  assert settings['maybe'].kind is str and settings['maybe'].default is None


def test_comments_are_those_above_and_behind_a_field():
  comments = comments_of(Example)
  assert comments['choice'] == 'a line above and one more and behind'
  assert comments['share'] == "a '#' in it" and comments['first'] == 'what comes first'
  assert 'size' not in comments


@pytest.mark.parametrize(
  'bound, good, bad',
  [(at_least(1), (1, 2), (0,)), (above(0), (0.1,), (0, -1)), (at_most(1), (1,), (1.5,))],
)
def test_bounds(bound, good, bad):
  assert all(bound.holds(value) for value in good)
  assert not any(bound.holds(value) for value in bad)


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('choice', 'c', r"Expected x in \['a', 'b'\], got 'c'"),
    ('size', 0, 'Expected x >= 1, got 0'),
    ('share', 1.0, r'Expected x in \[0, 1\), got 1.0'),
    ('steps', (5, 0), r'Expected x to list one or more values, all >= 1.*\(5, 0\)'),
    ('steps', (), 'one or more values'),
    ('name', '(', 'regular expression over names'),
  ],
)
def test_a_value_that_is_not_allowed_is_named(name, value, words):
  with pytest.raises(InputError, match=words):
    settings_of(Example)[name].check('x', value)


def test_every_field_has_a_comment_and_an_allowed_default():
  for prefix, cls in sections():
    assert cls.__doc__ and not cls.__doc__.startswith(cls.__name__), prefix
    comments = comments_of(cls)
    for name, setting in settings_of(cls).items():
      if not setting.is_section:
        assert comments.get(name), f'{prefix}.{name} has no comment'
        setting.check(f'{prefix}.{name}', setting.default)


@pytest.mark.parametrize('prefix, cls', sections(), ids=lambda x: x if isinstance(x, str) else '')
def test_choices_and_ranges_hold_for_every_field(prefix, cls):
  """Each limited field refuses a value just outside, by its name on the command line."""
  for name, setting in settings_of(cls).items():
    value = None
    if setting.choices:
      value = 'nothing'
    elif setting.bounds:
      value = setting.kind(setting.bounds[0].value - 1)
    if value is None or prefix == 'config':
      continue
    fields = {name: (value,) if setting.is_tuple else value}
    for section in reversed(prefix.split('.')[1:]):
      fields = {section: fields}
    with pytest.raises(InputError, match=f'{prefix.removeprefix("config.")}.{name}'):
      config_from(fields)
