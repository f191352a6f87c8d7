"""Tables of answers for the tests of the math verifier: one line is `+ gold ;; answer`."""

from __future__ import annotations

from typing import NamedTuple

from ds_jax.verify import grade_math


class Case(NamedTuple):
  """A pair of answers, and whether they are equal."""

  is_equal: bool
  gold: str
  answer: str

  def __str__(self) -> str:
    return f'{self.gold} {"=" if self.is_equal else "!="} {self.answer}'


def read_cases(table: str) -> list[Case]:
  """Reads the lines of a table."""
  cases = []
  for line in table.strip().splitlines():
    verdict, pair = line[0], line[2:]
    gold, separator, answer = pair.partition(' ;; ')
    if verdict not in '+-' or not separator:
      raise ValueError(f'Expected a line "+ gold ;; answer", got {line!r}.')
    cases.append(Case(verdict == '+', gold, answer))
  return cases


def check(case: Case) -> None:
  """Compares the answers of a case, and shows how they were read if the verdict is another."""
  decision = grade_math.decide(case.gold, case.answer)
  assert decision.is_equal is case.is_equal, decision
