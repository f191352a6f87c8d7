"""The verifier `countdown`: replays a worked solution of the embedded task, line by line.

A solution is one line per operation, `a op b = c | r1 r2 …`, with the remaining numbers after the
bar and any number of fillers `.` behind; the last line may lack its bar. Lines follow one another
in one stream of tokens, so the replay itself knows where each ends.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterator

from ds_jax.types import Verdict

FILLER = '.'
OPERATORS = ('+', '-', '*', '/')
MAX_RESPONSE = 10_000  # characters; a longer one is wrong
_GOLD = re.compile(r'\s*(\d{1,9}) from (\d{1,9}(?: \d{1,9})*)\s*')
_FUNCTIONS = (operator.add, operator.sub, operator.mul, operator.floordiv)
_OPERATIONS = dict(zip(OPERATORS, _FUNCTIONS, strict=True))
_NUMBER = re.compile(r'0|[1-9]\d{0,8}', re.ASCII)


class _WrongError(Exception):
  """The replay met a token that breaks a rule."""


class _UnfinishedError(Exception):
  """The text stopped, without error, before the replay was done."""


def verify(gold: str, response: str) -> Verdict:
  """Replays the response against the given numbers.

  Args:
    gold: 'TARGET from a b c d'.
    response: the response text.

  Returns:
    CORRECT when every line holds and the one number left is the target; NO_ANSWER when the text
    stops before one number is left, without an error; else WRONG.

  Raises:
    ValueError: if the gold is not of that form.
  """
  match = _GOLD.fullmatch(gold)
  if match is None:
    raise ValueError(f"Expected a countdown answer like '24 from 4 6 1', got {gold[:80]!r}.")
  if len(response) > MAX_RESPONSE:
    return Verdict.WRONG
  try:
    result = _replay(iter(response.split()), Counter(map(int, match[2].split())))
  except _WrongError:
    return Verdict.WRONG
  except _UnfinishedError:
    return Verdict.NO_ANSWER
  return Verdict.CORRECT if result == int(match[1]) else Verdict.WRONG


def _replay(tokens: Iterator[str], remaining: Counter[int]) -> int:
  """Applies lines until one number is left; returns it. Only fillers may follow."""
  token = _next_token(tokens)
  while True:
    _apply_line(token, tokens, remaining)
    is_last = remaining.total() == 1
    # Behind the last line nothing need follow: the filler stands for the end of the text.
    token = next(tokens, FILLER) if is_last else _next_token(tokens)
    # The bar with what is left, which the last line may lack; then fillers up to the next line.
    if token == '|':
      _check_remaining(tokens, remaining)
      token = next(tokens, None)
    elif not is_last:
      raise _WrongError
    token = _skip_fillers(token, tokens)
    if is_last:
      _require(token is None)
      return next(remaining.elements())
    if token is None:
      raise _UnfinishedError


def _apply_line(first: str, tokens: Iterator[str], remaining: Counter[int]) -> None:
  """Checks `a op b = c`, of which `first` is a, and moves its numbers."""
  left = _take(first, remaining)
  sign = _next_token(tokens)
  _require(sign in _OPERATIONS)
  right = _take(_next_token(tokens), remaining)
  # Differences are not negative, and quotients are whole.
  _require(sign != '-' or left >= right)
  _require(sign != '/' or (right != 0 and left % right == 0))
  result = _OPERATIONS[sign](left, right)
  _require(_next_token(tokens) == '=')
  _require(_next_token(tokens) == str(result))
  remaining[result] += 1


def _take(token: str, remaining: Counter[int]) -> int:
  """Removes the number written in `token`, which must be one of those that remain."""
  _require(_NUMBER.fullmatch(token) is not None)
  number = int(token)
  _require(remaining[number] > 0)
  remaining[number] -= 1
  return number


def _check_remaining(tokens: Iterator[str], remaining: Counter[int]) -> None:
  """The numbers after the bar are those left, in any order."""
  left = remaining.copy()
  for _ in range(remaining.total()):
    _take(_next_token(tokens), left)


def _skip_fillers(token: str | None, tokens: Iterator[str]) -> str | None:
  """The first token from `token` on that is no filler; None at the end."""
  while token == FILLER:
    token = next(tokens, None)
  return token


def _next_token(tokens: Iterator[str]) -> str:
  """The next token, of which there must be one."""
  token = next(tokens, None)
  if token is None:
    raise _UnfinishedError
  return token


def _require(holds: bool) -> None:
  if not holds:
    raise _WrongError
