"""Which chat template of a model's folder is used, and where it stands."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError, first_line, suggest
from ds_jax.data.tokenizer_files import (
  OLD_TEMPLATE_FILE,
  SETTINGS_FILE,
  TEMPLATE_FILE,
  TEMPLATE_FOLDER,
)

# Of several templates, the one that is used where none is named.
DEFAULT = 'default'


def choose_template(loaded: Any, folder: pathlib.Path, name: str) -> tuple[str, str] | None:
  """Text and origin (for people) of the template called `name`; '': the default one.

  Args:
    loaded: what transformers has read: a text, texts by name, or None.
    folder: of the model.
    name: of `data.template_name`.

  Raises:
    InputError: if there is none of that name, or there are several and none is the default.
  """
  if loaded is None:
    loaded = _old_template(folder)
  if loaded is None:
    if name:
      raise InputError(f'data.template_name = {name!r}, but {folder} has no chat template.')
    return None
  texts = loaded if isinstance(loaded, Mapping) else {DEFAULT: loaded}
  chosen = name or DEFAULT
  if chosen not in texts:
    names = ', '.join(sorted(texts))
    if not name:
      raise InputError(
        f'{folder} has several chat templates ({names}) and none is called {DEFAULT!r}; choose one '
        'with data.template_name.'
      )
    raise InputError(
      f'{folder} has no chat template {name!r} (data.template_name).{suggest(name, texts)} '
      f'It has: {names}.'
    )
  origin = _origin(folder, chosen, is_only=len(texts) == 1)
  if not isinstance(texts[chosen], str):
    raise InputError(f'{origin} is no text but {type(texts[chosen]).__name__}.')
  return texts[chosen], origin


def _old_template(folder: pathlib.Path) -> Any:
  """What chat_template.json says, where models had their template once; tokenizers ignore it."""
  file = folder / OLD_TEMPLATE_FILE
  if not file.is_file():
    return None
  try:
    return json.loads(file.read_text(encoding='utf-8'))['chat_template']
  except (ValueError, KeyError, TypeError) as e:
    raise InputError(
      f'Expected {str(file)!r} to be a JSON object with chat_template: {first_line(e)}.'
    ) from e


def _origin(folder: pathlib.Path, name: str, *, is_only: bool) -> str:
  """The file of a template, and its name where there are several, for people."""
  places = (
    f'{TEMPLATE_FOLDER}/{name}.jinja',
    TEMPLATE_FILE,
    SETTINGS_FILE,
    OLD_TEMPLATE_FILE,
  )
  file = next((place for place in places if _has_template(folder / place)), SETTINGS_FILE)
  which = '' if is_only else f' {name!r}'
  return f'The chat template{which} of {folder / file}'


def _has_template(file: pathlib.Path) -> bool:
  if not file.is_file():
    return False
  return file.suffix == '.jinja' or 'chat_template' in file.read_text(encoding='utf-8')
