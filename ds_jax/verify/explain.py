"""How a verifier comes to its verdict, for those who want to know why.

A verdict is never taken from here: this repeats the comparison and tells its steps.
"""

from __future__ import annotations

import dataclasses

from ds_jax.verify import extract, grade_exact, grade_math, grade_released
from ds_jax.verify.math.compare import STAGES

_MAX_READING = 1000  # characters of a reading that are told


@dataclasses.dataclass(frozen=True)
class Explanation:
  """What a verifier compared, and what decided."""

  gold: str  # the answer that it took out of the gold
  answer: str  # and out of the response; '': there is none
  gold_reading: str  # what it understood
  answer_reading: str
  stage: str  # what decided
  passed_over: tuple[str, ...] = ()  # stages that were asked before and did not apply
  steps: tuple[str, ...] = ()  # decisions on the whole and on its parts, a line each


def explain(verifier: str, gold: str, response: str) -> Explanation | None:
  """How the verifier of this name judges a response; None for one that cannot tell."""
  if verifier == 'math':
    return _by_meaning(*grade_math.boxed_answers(gold, response))
  if verifier == 'math_bare':
    return _by_meaning(*grade_math.bare_answers(gold, response))
  if verifier == 'last_number':
    return _by_meaning(*grade_math.last_number_answers(gold, response))
  if verifier in ('released', 'released_bare'):
    return _by_normal_form(gold, response, may_be_bare=verifier == 'released_bare')
  if verifier == 'exact':
    return _by_text(grade_exact.single_spaced(gold), grade_exact.answer_of(response))
  return None


def _by_meaning(gold: str, answer: str) -> Explanation:
  decision = grade_math.decide(gold, answer)
  if not answer:
    return Explanation(gold, '', decision.gold_reading[:_MAX_READING], '', 'no answer')
  passed_over: list[str] = []
  if decision.steps:
    deciding_stage = decision.steps[0].partition(':')[0]
    for stage in STAGES:
      if stage.__name__ == deciding_stage:
        break
      passed_over.append(stage.__name__)
  return Explanation(
    gold,
    answer,
    decision.gold_reading[:_MAX_READING],
    decision.answer_reading[:_MAX_READING],
    decision.stage,
    tuple(passed_over),
    decision.steps,
  )


def _by_normal_form(gold: str, response: str, *, may_be_bare: bool) -> Explanation:
  if may_be_bare:
    response = grade_released.boxed(response)
  answer = grade_released.parse_response(response)
  explanation = _by_text(grade_released.normalize(gold), answer)
  if answer == grade_released.INVALID and explanation.stage == 'different strings':
    return dataclasses.replace(explanation, answer='', stage='no answer')
  return explanation


def _by_text(gold: str, answer: str) -> Explanation:
  """Of two strings that are compared as they are."""
  stage = 'same string' if gold == answer else 'different strings'
  if not answer:
    stage = 'no answer'
  readings = gold[:_MAX_READING], answer[:_MAX_READING]
  return Explanation(gold[: extract.MAX_ANSWER], answer[: extract.MAX_ANSWER], *readings, stage)
