"""Multiple choice: rows whose options stand apart from the question, with a number for an answer.

Without its options nobody can answer such a question, and `2` or `C` is right for nobody. So the
options follow the question, a line each, and the gold is the letter.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.data.fields import MISSING, RowError, fields_of, lookup, parse_value, plain
from ds_jax.data.flaws import has_option

_FIELDS = ('choices', 'options')
_COLUMN_PREFIXES = ('', 'option_', 'option', 'choice_')  # A, B, …; option_a, …
_INDEX_FIELDS = ('answer_index', 'answer_idx')
_OWN_LABEL = re.compile(r'\(?([A-Za-z])[).:]\s*(.*)', re.DOTALL)

Choices = dict[str, str]  # {label: text}


def read_choices(row: Mapping[str, Any]) -> Choices:
  """The options of a row by their labels, A, B, … where they have none; {} of other rows."""
  for field in _FIELDS:
    value = lookup(row, field)
    if isinstance(value, str | bytes):
      value = parse_value(plain(value))
    choices = _labelled(value)
    if len(choices) > 1:
      return choices
  for prefix in _COLUMN_PREFIXES:
    choices = _columns(row, prefix)
    if len(choices) > 1:
      return choices
  return {}


def _columns(row: Mapping[str, Any], prefix: str) -> Choices:
  """The options of columns like `option_a`, up to the first letter without a text."""
  choices = {}
  for label in string.ascii_uppercase:
    # A column that is only a letter is no option in lower case: that may be a coefficient.
    value = lookup(row, prefix + label) if prefix else row.get(label, MISSING)
    if not _is_text(value) or value == '':
      break
    choices[label] = str(plain(value))
  return choices


def _labelled(value: Any) -> Choices:
  """{label: text} of a list of texts, of a mapping of labels to texts, or of two parallel lists."""
  fields = fields_of(value) or {}
  labels, texts = fields.get('label'), fields.get('text', value)
  if fields and labels is None:
    labels, texts = list(fields), list(fields.values())
  if not isinstance(texts, list | tuple | np.ndarray) or not all(map(_is_text, texts)):
    return {}
  texts = [str(plain(text)) for text in texts]
  if labels is None:
    own_labels = [_OWN_LABEL.fullmatch(text) for text in texts]
    labels = string.ascii_uppercase[: len(texts)]
    if all(
      match and match[1].upper() == label for match, label in zip(own_labels, labels, strict=False)
    ):
      texts = [match[2] for match in own_labels]
  if len(labels) != len(texts):
    return {}
  return {str(label): text for label, text in zip(labels, texts, strict=True)}


def _is_text(value: Any) -> bool:
  return isinstance(value, str | bytes | int | float) and not isinstance(value, bool)


def with_choices(text: str, choices: Choices) -> str:
  """The question with its options below it, unless it has them already."""
  if not choices or all(has_option(text, label) for label in choices):
    return text
  lines = [f'{label}. {choice}' for label, choice in choices.items()]
  return '\n'.join([text.rstrip(), *lines])


def chosen_label(row: Mapping[str, Any], answer: Any, choices: Choices) -> str:
  """The label of the right option.

  Args:
    row: may tell the number of the option beside the answer.
    answer: label, text or number (from 0) of the option.
    choices: of the question.

  Raises:
    RowError: if it is no option, or may be two of them.
  """
  labels = list(choices)
  for field in _INDEX_FIELDS:
    index = lookup(row, field)
    if index is not MISSING and _is_index(index, labels):
      return labels[int(index)]
  text = str(plain(answer)).strip()
  bare = text.strip('().')
  if bare in choices and not isinstance(answer, int):
    return bare
  meant = {label for label, choice in choices.items() if choice.strip() == text}
  if _is_index(answer, labels):
    meant.add(labels[int(text)])
  if len(meant) != 1:
    what = 'may be several' if meant else 'is none'
    raise RowError(f'answer {text!r:.40} {what} of the choices {choices!r:.80}', 'unclear_choice')
  return meant.pop()


def _is_index(value: Any, labels: Sequence[str]) -> bool:
  """Whether a value is the number of an option."""
  text = str(plain(value))
  return not isinstance(value, bool) and text.isdecimal() and int(text) < len(labels)
