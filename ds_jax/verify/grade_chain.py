"""The verifier `chain`: compares the lines of a response with those of the one right chain.

A line is `a f c`: the value so far, the function, the value that follows. Fillers `.` may stand
anywhere.
"""

from __future__ import annotations

import re

from ds_jax.types import Verdict

FILLER = '.'
MAX_RESPONSE = 10_000  # characters; a longer one is wrong
_GOLD = re.compile(r'(\d+ f\d+ \d+)( \d+ f\d+ \d+)*', re.ASCII)


def verify(gold: str, response: str) -> Verdict:
  """Compares a response with the right chain, token by token.

  Args:
    gold: the lines of the right chain, 'a f c' each, joined by spaces.
    response: the response text.

  Returns:
    CORRECT when all lines are there and right; NO_ANSWER when the text stops before, without an
    error; else WRONG.

  Raises:
    ValueError: if the gold is not of that form.
  """
  if _GOLD.fullmatch(gold) is None:
    raise ValueError(f"Expected a chain like '7 f2 40 40 f0 3', got {gold[:80]!r}.")
  if len(response) > MAX_RESPONSE:
    return Verdict.WRONG
  right = gold.split()
  tokens = [token for token in response.split() if token != FILLER]
  if tokens == right:
    return Verdict.CORRECT
  is_unfinished = tokens == right[: len(tokens)]
  return Verdict.NO_ANSWER if is_unfinished else Verdict.WRONG
