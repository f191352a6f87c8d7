"""From the row of a data set to a Problem: which fields hold the question and the gold answer.

Recognised without configuration: the layout of verl and DeepMath (`prompt` is a list of chat
messages, `reward_model.ground_truth`, `extra_info.index`), and flat rows with one of
problem | question | prompt and one of answer | final_answer | expected_answer | solution, in
capitals or not. Messages, lists of answers and nested fields may be JSON text, or what Python
prints of them, as in exports.

The gold is what stands behind the `####` in the last line of an answer, as in GSM8K, else the
content of an answer's only \\boxed{…}, and of the last one of a `solution` that is the only answer.
Several answers in a list are joined by commas, or by semicolons where a comma could be read as that
of thousands. Numbers are written out with the digits they have, never as 1e-05.
"""

from __future__ import annotations

import ast
import decimal
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.config import DataConfig
from ds_jax.data.files import WrittenFloat
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

# The last line of an answer of GSM8K.
_HASH_ANSWER = re.compile(r'(?:^|\n)[ \t]*####[ \t]*([^\n]*)\s*$')
_THOUSANDS = re.compile(r'[-+]?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?')
# What a comma in front of it makes the thousands of a number.
_THREE_DIGITS = re.compile(r'[\s$\\{]*\d{3}')
_REPR_FLOAT = re.compile(
  r'[-+]?\d(?:\.\d+)?e(?:-0\d|\+\d\d+)'
)  # as Python prints floats, not people
_MAX_EXPONENT = 400  # of a number that is written out; that of a float is at most 324

_MESSAGES = re.compile(r'\s*\[?\s*\{\s*["\'](?:role|content)["\']\s*:')
_ANSWER_LIST = re.compile(r'\s*\[\s*["\']')  # of texts: [1, 2] is an interval

# What helps against rows that are refused, by their kind.
_REMEDIES = {
  'system_message': (
    'System messages cannot be used yet: there is no data.system_message. Give every problem one '
    'user message, with the text of the system message in it or in data.instruction.'
  ),
  'several_messages': (
    'Only a question of one user message can be used: write the conversation into it, or leave '
    'its rows out.'
  ),
  'not_text': 'Only questions in text can be used: leave out rows with images and other parts.',
}

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
  gold, worked_solution = _gold(_answer_text(answer, answer_field), answer_field)
  solution = lookup(row, 'solution')
  has_solution = isinstance(solution, str | bytes) and solution
  return Problem(
    id=_row_id(row, text, gold, config.id_field),
    prompt=with_instruction(text, config.instruction),
    answer=gold,
    solution=_plain(solution) if has_solution else worked_solution,
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


def remedies_of(kinds: Iterable[str]) -> list[str]:
  """What helps against rows that were refused, for some kinds of RowError."""
  return [_REMEDIES[kind] for kind in sorted(set(kinds)) if kind in _REMEDIES]


def lookup(row: Mapping[str, Any], path: str) -> Any:
  """The value at a dotted path, or of a field with the whole path for its name.

  Names that differ in case only are found too.

  Returns `_MISSING` where there is none.
  """
  if path in row:
    return row[path]
  value: Any = row
  for name in path.split('.'):
    fields = _fields(value)
    value = _MISSING if fields is None else _field(fields, name)
    if value is _MISSING:
      return _MISSING
  return value


def _field(fields: Mapping[str, Any], name: str) -> Any:
  """The value of a field; `_MISSING` without one of that name, in capitals or not."""
  if name in fields:
    return fields[name]
  spelling = _spellings(tuple(fields)).get(name.lower())
  return _MISSING if spelling is None else fields[spelling]


@functools.lru_cache(64)
def _spellings(names: tuple[str, ...]) -> dict[str, str]:
  """How the names of fields are spelt, by their spelling in lower case; the first counts."""
  spellings: dict[str, str] = {}
  for name in names:
    spellings.setdefault(str(name).lower(), name)
  return spellings


def _fields(value: Any) -> Mapping[str, Any] | None:
  """The fields of a mapping, of the text of one, or of the pairs that a map column has."""
  if isinstance(value, dict):
    return value
  if isinstance(value, str | bytes):
    value = _parse(_plain(value)) if value.lstrip()[:1] in ('{', b'{') else None
  elif isinstance(value, list) and value and all(map(_is_pair, value)):
    value = dict(value)
  return value if isinstance(value, Mapping) else None


def _is_pair(value: Any) -> bool:
  return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def _parse(text: str) -> Any:
  """The value of JSON text, or of what Python prints of a value; None of other text."""
  try:
    return json.loads(text, parse_float=WrittenFloat)
  except (ValueError, RecursionError):
    pass
  try:
    value = ast.literal_eval(text)
    return value if repr(value) == text.strip() else None
  except (ValueError, SyntaxError, RecursionError, MemoryError):
    return None


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
  raise RowError(f'no {expected} (fields: {fields})', 'missing_field')


def _prompt_text(value: Any, field: str) -> str:
  """The text of a question, which may be the one chat message of a user."""
  if isinstance(value, str | bytes) and _MESSAGES.match(text := _plain(value)):
    value = _parse(text)
    if value is None:
      raise RowError(f'{field} begins like chat messages, but is not JSON')
  if isinstance(value, Mapping):
    value = [value]
  if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
    value = _message_text(list(value), field)
  if not isinstance(value, str | bytes):
    raise RowError(f'{field} is {type(value).__name__}, expected text or one user message')
  return _checked_text(value, field)


def _message_text(messages: Sequence[Any], field: str) -> Any:
  """The content of the only message, which must be a user's; a text unless the row is broken."""
  fields_of_messages = [_fields(message) for message in messages]
  if None in fields_of_messages:
    raise RowError(f'{field} is a list, but not of chat messages')
  roles = [fields.get('role') for fields in fields_of_messages]
  if roles != ['user']:
    kind = 'several_messages' if len(roles) > 1 else 'unreadable'
    if 'system' in roles or 'developer' in roles:
      kind = 'system_message'
    raise RowError(f'{field} has messages of roles {roles!r:.80}, expected one user message', kind)
  content = fields_of_messages[0].get('content')
  if isinstance(content, list | tuple | np.ndarray):
    return '\n'.join(_part_text(part, field) for part in content)
  return content


def _part_text(part: Any, field: str) -> str:
  """The text of one part of a message's content: `{'type': 'text', 'text': …}`, or a text."""
  if isinstance(part, str):
    return part
  fields = _fields(part) or {}
  text, kind = fields.get('text'), fields.get('type', 'text')
  if kind != 'text' or not isinstance(text, str | bytes):
    raise RowError(f'{field} has a part of type {kind!r:.40}, expected text', 'not_text')
  return _checked_text(text, f'a part of {field}')


def _answer_text(value: Any, field: str) -> str:
  """The text of an answer; several in a list are joined."""
  if isinstance(value, str | bytes) and _ANSWER_LIST.match(text := _plain(value)):
    value = _parse(text) or value
  if not isinstance(value, list | tuple | np.ndarray) or not len(value):
    return _single_answer(value, field)
  items = [_unboxed(_single_answer(item, f'an item of {field}')) for item in value]
  has_comma = any(',' in item for item in items)
  needs_semicolon = has_comma or any(map(_THREE_DIGITS.match, items[1:]))
  return ('; ' if needs_semicolon else ', ').join(items)


def _single_answer(value: Any, field: str) -> str:
  """The text of a text or of a finite number."""
  number = _number_text(value)
  if number is not None:
    return number
  if not isinstance(value, str | bytes):
    raise RowError(f'{field} is {type(value).__name__}, expected text or a number')
  text = _checked_text(value, field).strip()
  if _REPR_FLOAT.fullmatch(text):
    return _written_out(text) or text
  return text


def _number_text(value: Any) -> str | None:
  """A finite number with the digits it has; None of anything else."""
  if isinstance(value, bool | np.bool_):
    return None
  if isinstance(value, int | np.integer):
    return str(int(value))
  if isinstance(value, WrittenFloat):
    return _written_out(value.text)
  if isinstance(value, decimal.Decimal | float | np.floating):
    return _written_out(str(value))  # the fewest digits that mean this number of its type
  return None


def _written_out(number: str) -> str | None:
  """A number without exponent and without zeros at its end, which columns add; None if infinite."""
  try:
    exact = decimal.Decimal(number)
  except decimal.InvalidOperation:  # the exponent itself is too large
    return None
  if not exact.is_finite() or abs(exact.adjusted()) > _MAX_EXPONENT:
    return None
  if not exact:
    return '0'
  digits = f'{exact:f}'
  return digits.rstrip('0').rstrip('.') if '.' in digits else digits


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


def _gold(text: str, field: str) -> tuple[str, str | None]:
  """The gold in the text of an answer field, and the worked solution if that came with it."""
  marked = _HASH_ANSWER.search(text)
  if marked is not None:
    gold = _checked_text(marked[1], f'what follows #### in {field}').strip()
    if _THOUSANDS.fullmatch(gold):
      gold = gold.replace(',', '')
    return gold, text[: marked.start()].strip() or None
  if field == 'solution':
    return _gold_of_solution(text), None
  return _unboxed(text), None


def _unboxed(text: str) -> str:
  """The content of the only box of an answer."""
  return (last_closed_box(text) if text.count('\\boxed') == 1 else None) or text


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
  if isinstance(value, decimal.Decimal | float):
    return float(value)
  return value.item() if isinstance(value, np.generic) else value
