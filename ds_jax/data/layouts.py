"""From the row of a data set to a Problem: which fields hold the question and the gold answer.

Recognised without configuration: the layout of verl and DeepMath (`prompt` is a list of chat
messages, `reward_model.ground_truth`, `extra_info.index`; a system message and examples may stand
before the question), and flat rows with one of PROMPT_FIELDS and one of ANSWER_FIELDS, in capitals
or not. Options that stand apart from a question are joined to it (data/choices.py), and so is the
`body` of a word problem; a `system_prompt` goes before it. Messages, lists of answers and nested
fields may be JSON text, or what Python prints of them, as in exports.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.config import DataConfig
from ds_jax.data.choices import chosen_label, read_choices, with_choices
from ds_jax.data.fields import (
  MISSING,
  RowError,
  checked_text,
  fields_of,
  lookup,
  parse_value,
  plain,
)
from ds_jax.data.golds import read_gold
from ds_jax.types import Message, Problem

PROMPT_FIELDS = ('problem', 'question', 'prompt', 'query', 'messages', 'input')
ANSWER_FIELDS = (
  'reward_model.ground_truth',
  'answer',
  'final_answer',
  'expected_answer',
  'solution',
  'ground_truth',
  'verification_info.ground_truth',
  'correct_answer',
  'answerKey',
  'correct',
  'target',
  'answers.text',
  'answers',
  'response',
)
# With these beside it a `target` is part of the question.
_OF_TARGET = ('nums', 'numbers')
ID_FIELDS = ('id', 'unique_id', 'extra_info.index')

# A system message that stands apart from the question; one among the messages goes before it.
SYSTEM_FIELDS = ('system', 'system_prompt', 'system_message')

# Chat messages as text.
_MESSAGES = re.compile(r'\s*\[?\s*\{\s*["\'](?:role|content)["\']\s*:')

# What a message may have besides text, and a chat template would read.
_UNREAD_FIELDS = ('tool_calls', 'tool_call_id', 'images', 'audio', 'videos')

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
  'is_solved',
)

# The suffix of the released code, which files prepared for it have behind every question.
RELEASED_SUFFIX = "Let's think step by step and output the final answer within \\boxed{}."


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
  preamble, text = _question(row, prompt, prompt_field)
  choices = read_choices(row)
  if answer_field.startswith('answers') and not config.answer_field:
    answer = _only_answer(answer)
  if choices:
    gold, worked_solution = chosen_label(row, answer, choices), None
  else:
    gold, worked_solution = read_gold(answer, answer_field)
  solution = lookup(row, 'solution')
  has_solution = isinstance(solution, str | bytes) and solution
  return Problem(
    id=_row_id(row, text, gold, config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer=gold,
    solution=plain(solution) if has_solution else worked_solution,
    metadata=_metadata(row),
    preamble=tuple(preamble),
  )


def read_question(row: Mapping[str, Any], config: DataConfig) -> Problem:
  """Returns the Problem of a row whose answer may be unknown: '' where it is missing or empty.

  Raises:
    RowError: if the question is missing, empty or of the wrong type, or the answer is of the wrong
      type.
  """
  fields = (config.answer_field,) if config.answer_field else ANSWER_FIELDS
  if any(lookup(row, field) not in (None, '', MISSING) for field in fields):
    return read_problem(row, config)
  prompt_field, prompt = _first_present(row, config.prompt_field, PROMPT_FIELDS)
  preamble, text = _question(row, prompt, prompt_field)
  return Problem(
    id=_row_id(row, text, '', config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer='',
    metadata=_metadata(row),
    preamble=tuple(preamble),
  )


def question_of_text(text: str, config: DataConfig) -> Problem:
  """A question without an answer, as of a row that has nothing but this text."""
  return Problem(
    id=_row_id({}, text, '', config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer='',
  )


def _question(row: Mapping[str, Any], prompt: Any, field: str) -> tuple[list[Message], str]:
  """What comes before a question, and the whole of it, with what stands in other fields."""
  *preamble, (_, text) = read_messages(prompt, field)
  body = lookup(row, 'body')
  if field.lower() == 'question' and isinstance(body, str) and body.strip() not in text:
    text = f'{body.rstrip()} {text}'
  if not (preamble and preamble[0].role == 'system'):
    preamble = [*_system_messages(row), *preamble]
  return preamble, with_choices(text, read_choices(row))


def _system_messages(row: Mapping[str, Any]) -> list[Message]:
  """The system message in a field of its own, if there is one."""
  for field in SYSTEM_FIELDS:
    value = lookup(row, field)
    if isinstance(value, str | bytes) and (text := plain(value)).strip():
      return [Message('system', checked_text(text, field))]
  return []


def _only_answer(value: Any) -> Any:
  """The answer of a list in which all are the same; others may be alternatives, or parts of one."""
  if not isinstance(value, list | tuple | np.ndarray):
    return value
  distinct = list(dict.fromkeys(str(plain(item)).strip() for item in value))
  if len(distinct) != 1:
    raise RowError(
      f'answers has {len(distinct)} different ones: {distinct!r:.80}', 'several_answers'
    )
  return value[0]


def with_instruction(text: str, instruction: str) -> str:
  """Appends the instruction after a space (or its own leading one), unless it is there."""
  if not instruction or text.rstrip().endswith(instruction.strip()):
    return text
  separator = '' if instruction[0].isspace() else ' '
  return text + separator + instruction


def without_instruction(prompt: str, instruction: str) -> str:
  """The text that `with_instruction` made a prompt of."""
  if not instruction:
    return prompt
  return prompt.rstrip().removesuffix(instruction.strip()).rstrip()


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
  metadata = {}
  for field in _METADATA_FIELDS:
    value = lookup(row, field)
    if value is not None and value is not MISSING:
      metadata[field] = plain(value)
  return metadata


def _first_present(
  row: Mapping[str, Any], configured_field: str, usual_fields: Sequence[str]
) -> tuple[str, Any]:
  """Name and value of the configured field, else of the first usual one that is there."""
  for field in (configured_field,) if configured_field else usual_fields:
    value = lookup(row, field)
    if field == 'target' and any(lookup(row, name) is not MISSING for name in _OF_TARGET):
      continue
    if value is not None and value is not MISSING:
      return field, value
  expected = configured_field or ' | '.join(usual_fields)
  fields = ', '.join(sorted(map(str, row)))[:200]
  raise RowError(f'no {expected} (fields: {fields})', 'missing_field')


def read_messages(value: Any, field: str) -> list[Message]:
  """The messages of a question, which ends with that of a user; a text is one message.

  Raises:
    RowError: for other orders of roles, and messages that are not text.
  """
  if isinstance(value, str | bytes) and _MESSAGES.match(text := plain(value)):
    value = parse_value(text)
    if value is None:
      raise RowError(f'{field} begins like chat messages, but is not JSON')
  if isinstance(value, Mapping):
    value = [value]
  if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
    return _chat(list(value), field)
  if not isinstance(value, str | bytes):
    raise RowError(f'{field} is {type(value).__name__}, expected text or messages')
  return [Message('user', checked_text(value, field))]


def as_text(problem: Problem) -> str:
  """The question of a problem as `read_messages` reads it; of several messages, JSON."""
  if not problem.preamble:
    return problem.prompt
  messages = (*problem.preamble, Message('user', problem.prompt))
  return json.dumps([message._asdict() for message in messages], ensure_ascii=False)


def _chat(messages: Sequence[Any], field: str) -> list[Message]:
  """The messages of a list, whose roles must be in order."""
  fields_of_messages = [fields_of(message) for message in messages]
  if None in fields_of_messages:
    raise RowError(f'{field} is a list, but not of chat messages')
  fields_of_messages = [fields for fields in fields_of_messages if not _is_idle(fields)]
  roles = [fields.get('role') for fields in fields_of_messages]
  turns = roles[1:] if roles[:1] == ['system'] else roles
  if len(turns) % 2 == 0 or turns != _turns(len(turns)):
    expected, kind = 'those of user and assistant in turn, the last a user', 'several_messages'
    if len(roles) < 2:
      expected, kind = 'one user message', 'unreadable'
    raise RowError(f'{field} has messages of roles {roles!r:.80}, expected {expected}', kind)
  chat = []
  for fields in fields_of_messages:
    unread = [name for name in _UNREAD_FIELDS if fields.get(name) not in (None, '', [], ())]
    if unread:
      raise RowError(f'{field} has a message with {unread[0]}, expected text', 'not_text')
    chat.append(Message(fields['role'], _content(fields.get('content'), field)))
  return chat


def _turns(count: int) -> list[str]:
  """Roles of as many messages: user, assistant, user, …"""
  return [('user', 'assistant')[i % 2] for i in range(count)]


def _content(value: Any, field: str) -> str:
  """The text of a message's content, which may be a list of parts."""
  if isinstance(value, list | tuple | np.ndarray):
    value = '\n'.join(_part_text(part, field) for part in value)
  if not isinstance(value, str | bytes):
    raise RowError(f'content of {field} is {type(value).__name__}, expected text')
  return checked_text(value, field)


def _is_idle(message: Mapping[str, Any]) -> bool:
  """Whether a message is a system message without text, which changes nothing."""
  content = message.get('content')
  return message.get('role') == 'system' and (content is None or content == '')


def _part_text(part: Any, field: str) -> str:
  """The text of one part of a message's content: `{'type': 'text', 'text': …}`, or a text."""
  if isinstance(part, str):
    return part
  fields = fields_of(part) or {}
  text, kind = fields.get('text'), fields.get('type', 'text')
  if kind != 'text' or not isinstance(text, str | bytes):
    raise RowError(f'{field} has a part of type {kind!r:.40}, expected text', 'not_text')
  return checked_text(text, f'a part of {field}')


def _row_id(row: Mapping[str, Any], text: str, gold: str, id_field: str) -> str:
  """The id that the row has, else a hash of its content; neither depends on other rows."""
  for field in (id_field,) if id_field else ID_FIELDS:
    value = plain(lookup(row, field))
    is_id = isinstance(value, str | int) and not isinstance(value, bool)
    if not is_id or value == '':
      continue
    source = lookup(row, 'data_source')
    if field == 'extra_info.index' and isinstance(source, str):
      return f'{source}/{value}'
    return str(value)
  content = f'{text}\0{gold}'.encode()
  return f'text-{hashlib.sha256(content).hexdigest()[:16]}'
