r"""The verifier `math`: the last `\boxed{…}` of a response against the gold, by meaning.

`ds_jax.verify.math` reads both into structures and compares them in named stages. The rules that a
user should know:

* What is not understood whole is only equal to its own spelling, and what is not *shown* equal is
  wrong. No algebra system is asked, and nothing evaluates text.
* The last box counts. Boxes that only commas, `and` or `or` join are one list, for the reward and
  for `ds-jax grade` alike. An empty box behind an answer is a mention of the command. Boxes before
  `</think>` are thoughts; a thought without an end holds no answer.
* Units and currency: ignored when one side has none; when both name one, they must agree. A percent
  sign may be left out or carried out (28 %, 28, 0.28), and so may a degree sign (45 degrees, pi/4).
* A decimal of at least six significant digits equals what it rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flint import fmpq

from ds_jax.types import Verdict
from ds_jax.verify import extract
from ds_jax.verify.math import reader, structures, units
from ds_jax.verify.math.compare import compare
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.equality import rational_value
from ds_jax.verify.math.judge import Step

MAX_CLASSES = 64  # of answers that are compared with one another in a vote


@dataclasses.dataclass(frozen=True)
class Decision:
  """Whether two answers are equal, which stage said so, and what was read of each."""

  is_equal: bool
  stage: str
  gold_reading: str
  answer_reading: str
  steps: tuple[str, ...] = ()  # the decisions on it and on its parts, a line each


def verify(gold: str, response: str) -> Verdict:
  r"""Grades a response by its last box.

  Args:
    gold: the answer, bare, in `$…$` or boxed.
    response: the response text (never the prompt).

  Returns:
    NO_ANSWER without a balanced, non-empty last box; else CORRECT or WRONG.
  """
  return _verdict(*boxed_answers(gold, response))


def verify_bare(gold: str, prediction: str) -> Verdict:
  """Like `verify`, for predictions that need not be boxed (`extract.final_answer`)."""
  return _verdict(*bare_answers(gold, prediction))


def verify_last_number(gold: str, response: str) -> Verdict:
  """Like `verify`, with the last number of the response as its answer (`extract.last_number`)."""
  return _verdict(*last_number_answers(gold, response))


def boxed_answers(gold: str, response: str) -> tuple[str, str]:
  """The two answers that `verify` compares; the second is '' where the response has none."""
  return extract.boxed_answer(gold) or gold, extract.boxed_answer(response) or ''


def bare_answers(gold: str, prediction: str) -> tuple[str, str]:
  """The two answers that `verify_bare` compares; the second is '' where there is none."""
  answer = extract.final_answer(prediction)
  if answer and reader.read(gold).key != reader.read(answer).key:
    gold = extract.final_answer(gold, is_gold=True)  # else it is a bare answer, as in "Player 2"
  return gold, answer


def last_number_answers(gold: str, response: str) -> tuple[str, str]:
  """The two answers that `verify_last_number` compares; the second is '' where there is none."""
  return extract.boxed_answer(gold) or gold, extract.last_number(response)


def _verdict(gold: str, answer: str) -> Verdict:
  if not answer:
    return Verdict.NO_ANSWER
  return Verdict.CORRECT if is_equal(gold, answer) else Verdict.WRONG


def is_equal(gold: str, answer: str) -> bool:
  """Whether two bare answers mean the same; False if either is empty."""
  return bool(_decide(gold, answer)[0].is_equal)


def decide(gold: str, answer: str) -> Decision:
  """How two bare answers are compared: for those who want to know why."""
  finding, steps = _decide(gold, answer)
  readings = str(reader.read(gold)), str(reader.read(answer))
  return Decision(bool(finding.is_equal), finding.stage, *readings, tuple(map(_line, steps)))


def _line(step: Step) -> str:
  """One step for people, indented by its depth."""
  sign = {True: '=', False: '!=', None: '?'}[step.finding.is_equal]
  pair = f'{structures.describe(step.gold)} {sign} {structures.describe(step.answer)}'
  return f'{"  " * step.depth}{step.stage}: {pair} ({step.finding.stage})'


def _decide(gold: str, answer: str) -> tuple[Finding, list[Step]]:
  if max(len(gold), len(answer)) > extract.MAX_ANSWER:
    return Finding(False, 'too long'), []
  first, second = reader.read(gold), reader.read(answer)
  if not first.key or not second.key:
    return Finding(False, 'empty'), []
  if first.key == second.key:
    return Finding(True, 'same text'), []
  return compare(first.answer, second.answer)


def group_answers(texts: Sequence[str]) -> list[int]:
  """Classes of equal answers, for votes: the same number for each two that `is_equal` holds equal.

  Answers with the same spelling are one class at once; the others are compared with one answer of
  each class before, up to MAX_CLASSES classes. Beyond those only spelling counts.

  Args:
    texts: bare answers.

  Returns:
    For each the number of its class, in the order of their first members.
  """
  classes: dict[str, int] = {}  # key -> class
  members: list[str] = []  # one answer per class
  groups = []
  for text in texts:
    key = equivalence_key(text)
    if key not in classes:
      candidates = enumerate(members[:MAX_CLASSES])
      same = next((i for i, other in candidates if _may_be_equal(other, text)), None)
      if same is None:
        same = len(members)
        members.append(text)
      classes[key] = same
    groups.append(classes[key])
  return groups


def equivalence_key(text: str) -> str:
  """The same for answers of one spelling, or of one rational value; cheap."""
  reading = reader.read(text)
  value = _rational(reading.answer)
  return (reading.key or text) if value is None else str(value)


def _rational(answer: structures.Answer) -> fmpq | None:
  """The value of a plain number, or of a short sum, product or quotient of such."""
  if not isinstance(answer, structures.Quantity) or answer.unit != units.NONE:
    return None
  return rational_value(answer.node)


def _may_be_equal(first: str, second: str) -> bool:
  """Whether two answers with different keys are equal after all; two integers never are."""
  values = [_rational(reader.read(text).answer) for text in (first, second)]
  if all(value is not None and value.q == 1 for value in values):
    return False
  return is_equal(first, second)


def warm_up() -> None:
  """Builds what the first answer would otherwise pay for."""
  is_equal(r'\frac{x^2-1}{x-1}', 'x+1')
  is_equal(r'(-1, 1)', '|x| < 1')
