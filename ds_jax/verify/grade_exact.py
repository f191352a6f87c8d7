"""The verifier `exact`: the answer is the gold, character for character, white space aside."""

from __future__ import annotations

from ds_jax.types import Verdict
from ds_jax.verify import extract


def verify(gold: str, response: str) -> Verdict:
  r"""Compares the last `\boxed{…}`, or the whole response where there is none, with the gold.

  Args:
    gold: the answer, bare.
    response: the response text.

  Returns:
    CORRECT, WRONG, or NO_ANSWER for an empty answer or an unbalanced last box.
  """
  boxed = extract.last_boxed(response)
  has_box = boxed is not None or '\\boxed' in response or '\\fbox' in response
  answer = _normalize(boxed or '' if has_box else response[-extract.MAX_RESPONSE :])
  if not answer:
    return Verdict.NO_ANSWER
  return Verdict.CORRECT if answer == _normalize(gold) else Verdict.WRONG


def _normalize(text: str) -> str:
  return ' '.join(text.split())
