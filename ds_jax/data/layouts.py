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
  """Returns the Problem of a row; config's `prompt_field`, `answer_field` and
  `id_field` win over the layouts.

  Raises:
    RowError: if a field is missing, empty or of the wrong type.
  """
  prompt_field, prompt = _find(row, config.prompt_field, PROMPT_FIELDS)
  answer_field, answer = _find(row, config.answer_field, ANSWER_FIELDS)
  text, gold = _prompt_text(prompt, prompt_field), _answer_text(answer, answer_field)
  if answer_field == 'solution':
    gold = _gold_of_solution(gold)
  elif gold.count('\\boxed') == 1:
    gold = last_boxed(gold) or gold
  solution = lookup(row, 'solution')
  return Problem(
    id=_row_id(row, text, gold, config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer=gold,
    solution=_plain(solution) if isinstance(solution, str | bytes) and solution else None,
    metadata={
      field: _plain(value)
      for field in _METADATA_FIELDS
      if (value := lookup(row, field)) is not None and value is not _MISSING
    },
  )


def read_question(row: Mapping[str, Any], config: DataConfig) -> Problem:
  """`read_problem` where the answer may be unknown (missing or empty): '' then.

  Raises:
    RowError: if the question is missing, empty or of the wrong type, or the answer is.
  """
  fields = (config.answer_field,) if config.answer_field else ANSWER_FIELDS
  if any(lookup(row, field) not in (None, '', _MISSING) for field in fields):
    return read_problem(row, config)
  text = _prompt_text(*_find(row, config.prompt_field, PROMPT_FIELDS)[::-1])
  return Problem(
    id=_row_id(row, text, '', config.id_field),
    answer='',
    prompt=with_instruction(text, config.instruction),
  )


def with_instruction(text: str, instruction: str) -> str:
  """Appends the instruction after a space (or its own leading one), unless it is there."""
  if not instruction or text.rstrip().endswith(instruction.strip()):
    return text
  return text + ('' if instruction[0].isspace() else ' ') + instruction


def lookup(row: Mapping[str, Any], path: str) -> Any:
  """The value at a dotted path, by its whole name first; `_MISSING` where there is none."""
  if path in row:
    return row[path]
  value: Any = row
  for name in path.split('.'):
    if not isinstance(value, Mapping) or name not in value:
      return _MISSING
    value = value[name]
  return value


def last_boxed(text: str) -> str | None:
  """Content of the last \\boxed{…} whose braces balance; None if there is none."""
  end = len(text)
  while (start := text.rfind('\\boxed', 0, end)) >= 0:
    content = _braced(text[start + len('\\boxed') :].lstrip())
    if content is not None:
      return content
    end = start
  return None


def _braced(text: str) -> str | None:
  depth, is_escaped = 0, False
  for i, character in enumerate(text):
    if i == 0 and character != '{':
      return None
    if is_escaped:
      is_escaped = False
    elif character == '\\':
      is_escaped = True
    elif character in '{}':
      depth += 1 if character == '{' else -1
      if depth == 0:
        return text[1:i].strip()
  return None


def _find(row: Mapping[str, Any], wanted: str, usual: Sequence[str]) -> tuple[str, Any]:
  for field in (wanted,) if wanted else usual:
    value = lookup(row, field)
    if value is not None and value is not _MISSING:
      return field, value
  fields = ', '.join(sorted(map(str, row)))[:200]
  raise RowError(f'no {wanted or " | ".join(usual)} (fields: {fields})')


def _prompt_text(value: Any, field: str) -> str:
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
  if isinstance(value, list | tuple | np.ndarray) and len(value):
    return ', '.join(_single_answer(item, f'an item of {field}') for item in value)
  return _single_answer(value, field)


def _single_answer(value: Any, field: str) -> str:
  value = value.item() if isinstance(value, np.generic) else value
  if isinstance(value, float) and math.isfinite(value) and value.is_integer():
    value = int(value)  # a column of integers with gaps is read as floats
  if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
    value = str(value)
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
  boxed = last_boxed(solution)
  if boxed is not None:
    return _checked_text(boxed, 'the last \\boxed of solution')
  if len(solution) > _SHORT_ANSWER or '\n' in solution:
    raise RowError('solution has no \\boxed answer')
  return solution


def _row_id(row: Mapping[str, Any], text: str, gold: str, wanted: str) -> str:
  """The id the row brings, else a hash of its content: it survives reordering and filtering."""
  for field in (wanted,) if wanted else ID_FIELDS:
    value = lookup(row, field)
    value = value.decode(errors='replace') if isinstance(value, bytes) else value
    if isinstance(value, str | int | np.integer) and not isinstance(value, bool) and str(value):
      source = lookup(row, 'data_source') if field == 'extra_info.index' else None
      return f'{source}/{value}' if isinstance(source, str) else str(value)
  content = f'{text}\0{gold}'.encode()
  return f'text-{hashlib.sha256(content).hexdigest()[:16]}'


def _plain(value: Any) -> Any:
  """Without bytes, numpy scalars and arrays."""
  if isinstance(value, bytes):
    return value.decode(errors='replace')
  if isinstance(value, list | tuple | np.ndarray):
    return tuple(_plain(item) for item in value)
  return value.item() if isinstance(value, np.generic) else value
