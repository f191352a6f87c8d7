"""The gold in the answer field of a row: of worked solutions, boxes, lists, texts and numbers.

It is what stands behind the `####` in the last line of an answer, as in GSM8K, or at the end of a
worked solution behind `The answer is` or in <answer> tags; else the content of an answer's only
\\boxed{…}, and of the last one of a `solution` that is the only answer. Several answers in a list
are joined by commas, or by semicolons where a comma could be read as that of thousands. Numbers are
written out with the digits they have, never as 1e-05.
"""

from __future__ import annotations

import decimal
import re
from typing import Any

import numpy as np

from ds_jax.data.fields import RowError, checked_text, parse_value, plain
from ds_jax.data.files import WrittenFloat
from ds_jax.verify.extract import last_closed_box

# A solution without a box is itself the answer if it is no longer than this.
_SHORT_ANSWER = 64  # characters

# The last line of an answer of GSM8K.
_HASH_ANSWER = re.compile(r'(?:^|\n)[ \t]*####[ \t]*([^\n]*)\s*$')
# How worked solutions end: `The answer is: 72`, `**Final answer:** $x$.`, <answer>72</answer>.
_CLOSING = re.compile(
  r'(?:(?<=\n)|(?<=[.!?]\s))[ \t*#]*'
  r'(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final )?answer'
  r'(?:[ \t*]*:[ \t*]*| is:?[ \t*]+)(?P<gold>[^\n]{1,100}?)[ \t*]*\.?\s*$',
  re.IGNORECASE,
)
_TAGGED = re.compile(r'<answer>\s*(?P<gold>[^<>]{1,200}?)\s*</answer>\s*$')
_WORKED = 8  # words before a closing statement that make it that of a worked solution
_THOUSANDS = re.compile(r'[-+]?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?')
# What a comma in front of it makes the thousands of a number.
_THREE_DIGITS = re.compile(r'[\s$\\{]*\d{3}')
# As Python prints floats; people leave out the zero and the plus.
_REPR_FLOAT = re.compile(r'[-+]?\d(?:\.\d+)?e(?:-0\d|\+\d\d+)')
_MAX_EXPONENT = 400  # of a number that is written out; that of a float is at most 324
# What \f of \frac and the like become where a backslash was not doubled.
_CONTROL = re.compile(r'[\x00-\x1f]')
_ANSWER_LIST = re.compile(r'\s*\[\s*["\']')  # of texts: [1, 2] is an interval


def read_gold(value: Any, field: str) -> tuple[str, str | None]:
  """Reads the gold in an answer field, and the worked solution if that comes with it.

  Args:
    value: a text, a number, or a list of these, which may be JSON text.
    field: its name.

  Raises:
    RowError: if there is none.
  """
  text = _answer_text(value, field)
  marked = _HASH_ANSWER.search(text)
  if marked is not None:
    gold = checked_text(marked[1], f'what follows #### in {field}').strip()
    return _without_thousands(gold), text[: marked.start()].strip() or None
  tagged = _TAGGED.search(text)
  closing = tagged or _CLOSING.search(text)
  if closing is not None and (tagged or _is_worked(text[: closing.start()])):
    gold = _unboxed(closing['gold'].strip())
    return _without_thousands(gold), _before_hashes(text[: closing.start()]) or None
  if field == 'solution':
    return _gold_of_solution(text), None
  return _unboxed(text), None


def _without_thousands(gold: str) -> str:
  return gold.replace(',', '') if _THOUSANDS.fullmatch(gold) else gold


def _is_worked(text: str) -> bool:
  return '\n' in text.strip() or len(text.split()) >= _WORKED


def _before_hashes(text: str) -> str:
  """A worked solution without a line `#### 72` that comes before its closing statement."""
  return _HASH_ANSWER.sub('', text).strip()


def _answer_text(value: Any, field: str) -> str:
  """The text of an answer; several in a list are joined."""
  if isinstance(value, str | bytes) and _ANSWER_LIST.match(text := plain(value)):
    value = _listed(text) or value
  if not isinstance(value, list | tuple | np.ndarray) or not len(value):
    return _single_answer(value, field)
  items = [_unboxed(_single_answer(item, f'an item of {field}')) for item in value]
  has_comma = any(',' in item for item in items)
  needs_semicolon = has_comma or any(map(_THREE_DIGITS.match, items[1:]))
  return ('; ' if needs_semicolon else ', ').join(items)


def _listed(text: str) -> list[Any] | None:
  """The items of a list in JSON, or as Python prints it; backslashes need not be doubled there."""
  for spelling in (text, text.replace('\\', '\\\\')):
    items = parse_value(spelling)
    if isinstance(items, list) and not any(map(_CONTROL.search, map(str, items))):
      return items
  return None


def _single_answer(value: Any, field: str) -> str:
  """The text of a text or of a finite number."""
  number = number_text(value)
  if number is not None:
    return number
  if not isinstance(value, str | bytes):
    raise RowError(f'{field} is {type(value).__name__}, expected text or a number')
  text = checked_text(value, field).strip()
  if _REPR_FLOAT.fullmatch(text):
    return _written_out(text) or text
  return text


def number_text(value: Any) -> str | None:
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


def _unboxed(text: str) -> str:
  """The content of the only box of an answer."""
  return (last_closed_box(text) if text.count('\\boxed') == 1 else None) or text


def _gold_of_solution(solution: str) -> str:
  """The boxed answer of a worked solution, or the whole of a short one."""
  boxed = last_closed_box(solution)
  if boxed is not None:
    return checked_text(boxed, 'the last \\boxed of solution')
  if len(solution) > _SHORT_ANSWER or '\n' in solution:
    raise RowError('solution has no \\boxed answer')
  return solution
