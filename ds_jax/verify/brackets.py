"""How deep brackets nest, and where one closes. Linear in the text, without recursion.

Brackets of different kinds may close one another, since `(a, b]` is an interval: only their number
counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

OPENING, CLOSING = frozenset('([{'), frozenset(')]}')


def depths(
  text: Sequence[str],
  opening: Collection[str] = OPENING,
  closing: Collection[str] = CLOSING,
) -> Iterator[int]:
  """Yields the number of open brackets behind each character.

  Args:
    text: a string, or the tokens of one.
    opening: the characters that open a bracket.
    closing: those that close one; where too many do, the number falls below 0.
  """
  return itertools.accumulate((c in opening) - (c in closing) for c in text)


def closing_index(
  text: Sequence[str],
  start: int,
  opening: Collection[str] = OPENING,
  closing: Collection[str] = CLOSING,
) -> int | None:
  """Returns where the bracket at `start` closes; None if it does not.

  Args:
    text: a string, or the tokens of one; `text[start]` is in `opening`.
    start: index of the opening bracket.
    opening: the characters that open a bracket.
    closing: those that close one.
  """
  for index, depth in enumerate(depths(text[start:], opening, closing), start):
    if depth == 0:
      return index
  return None
