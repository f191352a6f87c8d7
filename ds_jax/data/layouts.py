"""From the row of a data set to a Problem: which fields hold the question and the gold answer.

Recognised without configuration: the layout of verl and DeepMath (`prompt` is a list of chat
messages, `reward_model.ground_truth`, `extra_info.index`), and flat rows with one of
problem | question | prompt and one of answer | final_answer | expected_answer | solution. Of a
`solution` that is the only answer, the content of its last \\boxed{…} is the gold, and so is that
of an answer's only box; several answers in a list are joined by commas.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.config import DataConfig
from ds_jax.types import Problem
from ds_jax.verify.extract import last_closed_box

PROMPT_FIELDS = ('problem', 'question', 'prompt')
ANSWER_FIELDS = (
  'reward_model.ground_truth',
  'answer',
  'final_answer',
  'expected_answer',
  'solution',
)
ID_FIELDS = ('id', 'unique_id', 'extra_info.index')

# Kept in Problem.metadata where they are plain values.
_METADATA_FIELDS = (
  'data_source',
  'source',
  'subject',
  'topic',
  'level',
  'difficulty',
  'extra_info.topic',
  'extra_info.difficulty',
  'numbers',
  'target',
)

# The suffix of the released code, which files prepared for it have behind every question.
RELEASED_SUFFIX = "Let's think step by step and output the final answer within \\boxed{}."

# A solution without a box is itself the answer if it is no longer than this.
_SHORT_ANSWER = 64  # characters

_MISSING = object()


class RowError(ValueError):
  """Why a row cannot be used; `kind` is the name under which such rows are counted."""

  def __init__(self, message: str, kind: str = 'unreadable'):
    super().__init__(message)
    self.kind = kind


def read_problem(row: Mapping[str, Any], config: DataConfig) -> Problem:
  """Returns the Problem of a row.

  Args:
    row: the fields of the row.
    config: its `prompt_field`, `answer_field` and `id_field` win over the layouts.

  Raises:
    RowError: if a field is missing, empty or of the wrong type.
  """
  prompt_field, prompt = _first_present(row, config.prompt_field, PROMPT_FIELDS)
  answer_field, answer = _first_present(row, config.answer_field, ANSWER_FIELDS)
  text = _prompt_text(prompt, prompt_field)
  gold = _answer_text(answer, answer_field)
  if answer_field == 'solution':
    gold = _gold_of_solution(gold)
  elif gold.count('\\boxed') == 1:
    gold = last_closed_box(gold) or gold
  solution = lookup(row, 'solution')
  has_solution = isinstance(solution, str | bytes) and solution
  return Problem(
    id=_row_id(row, text, gold, config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer=gold,
    solution=_plain(solution) if has_solution else None,
    metadata=_metadata(row),
  )


def read_question(row: Mapping[str, Any], config: DataConfig) -> Problem:
  """Returns the Problem of a row whose answer may be unknown: '' where it is missing or empty.

  Raises:
    RowError: if the question is missing, empty or of the wrong type, or the answer is of the wrong
      type.
  """
  fields = (config.answer_field,) if config.answer_field else ANSWER_FIELDS
  if any(lookup(row, field) not in (None, '', _MISSING) for field in fields):
    return read_problem(row, config)
  prompt_field, prompt = _first_present(row, config.prompt_field, PROMPT_FIELDS)
  text = _prompt_text(prompt, prompt_field)
  return Problem(
    id=_row_id(row, text, '', config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer='',
  )


def with_instruction(text: str, instruction: str) -> str:
  """Appends the instruction after a space (or its own leading one), unless it is there."""
  if not instruction or text.rstrip().endswith(instruction.strip()):
    return text
  separator = '' if instruction[0].isspace() else ' '
  return text + separator + instruction


def lookup(row: Mapping[str, Any], path: str) -> Any:
  """The value at a dotted path, or of a field with the whole path for its name.

  Returns `_MISSING` where there is none.
  """
  if path in row:
    return row[path]
  value: Any = row
  for name in path.split('.'):
    if not isinstance(value, Mapping) or name not in value:
      return _MISSING
    value = value[name]
  return value


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
  metadata = {}
  for field in _METADATA_FIELDS:
    value = lookup(row, field)
    if value is not None and value is not _MISSING:
      metadata[field] = _plain(value)
  return metadata


def _first_present(
  row: Mapping[str, Any], configured_field: str, usual_fields: Sequence[str]
) -> tuple[str, Any]:
  """Name and value of the configured field, else of the first usual one that is there."""
  for field in (configured_field,) if configured_field else usual_fields:
    value = lookup(row, field)
    if value is not None and value is not _MISSING:
      return field, value
  expected = configured_field or ' | '.join(usual_fields)
  fields = ', '.join(sorted(map(str, row)))[:200]
  raise RowError(f'no {expected} (fields: {fields})')


def _prompt_text(value: Any, field: str) -> str:
  """The text of a question, which may be the one chat message of a user."""
  if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
    messages = list(value)
    if not all(isinstance(message, Mapping) for message in messages):
      raise RowError(f'{field} is a list, but not of chat messages')
    roles = [message.get('role') for message in messages]
    if roles != ['user']:
      raise RowError(f'{field} has messages of roles {roles!r:.80}, expected one user message')
    value = messages[0].get('content')
  if not isinstance(value, str | bytes):
    raise RowError(f'{field} is {type(value).__name__}, expected text or one user message')
  return _checked_text(value, field)


def _answer_text(value: Any, field: str) -> str:
  """The text of an answer; several in a list are joined by commas."""
  if isinstance(value, list | tuple | np.ndarray) and len(value):
    return ', '.join(_single_answer(item, f'an item of {field}') for item in value)
  return _single_answer(value, field)


def _single_answer(value: Any, field: str) -> str:
  """The text of a text or of a finite number."""
  if isinstance(value, np.generic):
    value = value.item()
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if is_number and math.isfinite(value):
    # A column of integers with gaps is read as floats.
    is_integer = isinstance(value, float) and value.is_integer()
    value = str(int(value) if is_integer else value)
  if not isinstance(value, str | bytes):
    raise RowError(f'{field} is {type(value).__name__}, expected text or a number')
  return _checked_text(value, field).strip()


def _checked_text(value: str | bytes, field: str) -> str:
  """The text; it must have something to read, and be Unicode that a tokenizer can take."""
  try:
    text = value.decode() if isinstance(value, bytes) else value
    text.encode()
  except UnicodeError as e:
    raise RowError(f'{field} is not UTF-8') from e
  if not text.strip():
    raise RowError(f'{field} is empty', 'empty')
  return text


def _gold_of_solution(solution: str) -> str:
  """The boxed answer of a worked solution, or the whole of a short one."""
  boxed = last_closed_box(solution)
  if boxed is not None:
    return _checked_text(boxed, 'the last \\boxed of solution')
  if len(solution) > _SHORT_ANSWER or '\n' in solution:
    raise RowError('solution has no \\boxed answer')
  return solution


def _row_id(row: Mapping[str, Any], text: str, gold: str, id_field: str) -> str:
  """The id that the row has, else a hash of its content; neither depends on other rows."""
  for field in (id_field,) if id_field else ID_FIELDS:
    value = _plain(lookup(row, field))
    is_id = isinstance(value, str | int) and not isinstance(value, bool)
    if not is_id or value == '':
      continue
    source = lookup(row, 'data_source')
    if field == 'extra_info.index' and isinstance(source, str):
      return f'{source}/{value}'
    return str(value)
  content = f'{text}\0{gold}'.encode()
  return f'text-{hashlib.sha256(content).hexdigest()[:16]}'


def _plain(value: Any) -> Any:
  """The value with text for bytes, and Python's types for those of numpy."""
  if isinstance(value, bytes):
    return value.decode(errors='replace')
  if isinstance(value, list | tuple | np.ndarray):
    return tuple(_plain(item) for item in value)
  return value.item() if isinstance(value, np.generic) else value
