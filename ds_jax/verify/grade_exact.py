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
  answer = answer_of(response)
  if not answer:
    return Verdict.NO_ANSWER
  return Verdict.CORRECT if answer == single_spaced(gold) else Verdict.WRONG


def answer_of(response: str) -> str:
  """What is compared of a response; '' where it has no answer."""
  boxed = extract.last_boxed(response)
  if boxed is None and '\\boxed' not in response and '\\fbox' not in response:
    boxed = response[-extract.MAX_RESPONSE :]
  return single_spaced(boxed or '')


def single_spaced(text: str) -> str:
  """The text with one space for each run of white space."""
  return ' '.join(text.split())
