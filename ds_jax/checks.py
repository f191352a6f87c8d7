"""Boundary checks: every error says what was expected, what was got and what to do.

`InputError` is the one exception for bad input from a person (a config field, a data file, a
checkpoint folder, a mesh that does not divide). The command line turns it into exit code 2;
anything else is a defect of this package. This module imports neither jax nor numpy.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

PYTHON = 'python:'  # prefix of names of things of the user's own


class InputError(ValueError):
  """Bad input from a person; the message names what was expected, got, and the remedy."""


class NotFinite(InputError):
  """A model has parameters, or computes log-probs, that are NaN or infinite."""


def check_rank(name: str, array: Any, rank: int) -> None:
  """Raises ValueError unless `array` has `rank` axes."""
  if array.ndim != rank:
    raise ValueError(
      f'Expected {name} with {rank} axes, got shape {tuple(array.shape)}; '
      'the functions are written for one example: use jax.vmap for a batch.'
    )


def check_shape(name: str, array: Any, shape: Sequence[int | None]) -> None:
  """Raises ValueError unless `array.shape` equals `shape`; None matches any size."""
  got = tuple(array.shape)
  has_rank = len(got) == len(shape)
  if not has_rank or any(
    expected not in (None, size) for expected, size in zip(shape, got, strict=True)
  ):
    raise ValueError(f'Expected {name} of shape {tuple(shape)}, got {got}.')


def check_divides(what: str, size: int, by_what: str, by: int) -> None:
  """Raises InputError unless `by` divides `size`; names the nearest sizes that would do."""
  if size % by:
    below = size // by * by
    divisible = f'{below} or {below + by}' if below > 0 else f'{by}'
    raise InputError(f'{what} = {size} is not divisible by {by_what} = {by}; use {divisible}.')


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
  """Raises InputError unless `value` is one of `choices`."""
  choices = sorted(choices)
  if value not in choices:
    raise InputError(f'Expected {name} in {choices}, got {value!r}.{suggest(value, choices)}')


def is_python_name(name: str) -> bool:
  """Whether a setting names something of the user's own, as 'python:MODULE.NAME'."""
  path = name.removeprefix(PYTHON)
  return path != name and '.' in path and all(map(str.isidentifier, path.split('.')))


def import_python(what: str, name: str) -> Any:
  """Imports what 'python:MODULE.NAME' names; None if the module has none of that name.

  Raises:
    InputError: if the module cannot be imported; it says `what` the name is of.
  """
  module, _, attribute = name.removeprefix(PYTHON).rpartition('.')
  try:
    return getattr(importlib.import_module(module), attribute, None)
  except MemoryError:
    raise  # the limit of a verifier's worker, not the user's module
  except Exception as error:
    raise InputError(
      f'{what} {name}: importing {module} failed with {type(error).__name__}: {error}; is it on '
      'PYTHONPATH?'
    ) from error


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
  """Within it, the system's errors name the file: those of writing to an open one do not."""
  try:
    yield
  except OSError as e:
    if e.filename is None:
      e.filename = os.fspath(path)
    raise


def suggest(name: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean …?' when something close to `name` is known, else ''."""
  similar_names = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
  if not similar_names:
    return ''
  return f' Did you mean {" or ".join(map(repr, similar_names))}?'


def first_line(error: BaseException, max_length: int = 300) -> str:
  """Returns the first line of an error's message, or the name of its type if it says nothing.

  Messages of other packages go on for pages, for example with all data sets that they know.
  """
  message = str(error).strip() or type(error).__name__
  return message.splitlines()[0][:max_length]
