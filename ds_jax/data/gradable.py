r"""Golds tried out: whether the verifier takes a gold for right when it is given as the answer.

A gold that fails can be answered by nobody: a whole worked solution, or what this verifier does
not read. Its problem pays no reward, in silence. A sample of golds is tried, in a bounded time.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
from collections.abc import Sequence

from ds_jax.interfaces import VerifyFn
from ds_jax.types import Gold, Problem, Verdict

SAMPLE = 200  # golds tried at most
_SECONDS = 20.0  # for all of them; those that are not judged by then do not count
_NUM_SHOWN = 5
_SHOWN_LENGTH = 60  # characters of a gold


@dataclasses.dataclass(frozen=True)
class Trial:
  """What became of the golds that were tried."""

  num_judged: int
  failures: tuple[tuple[str, str, str], ...]  # (row or id, gold, verdict)

  @property
  def most_fail(self) -> bool:
    return 2 * len(self.failures) > self.num_judged

  def describe(self, what: str, verifier: str) -> str | None:
    """A sentence about golds that fail; None if there is none."""
    if not self.failures:
      return None
    shown = [
      f'{where}: {gold!r} ({verdict})' for where, gold, verdict in self.failures[:_NUM_SHOWN]
    ]
    if len(self.failures) > _NUM_SHOWN:
      shown.append('…')
    return (
      f'{what}: {len(self.failures)} of {self.num_judged} golds tried are not right for verifier '
      f'{verifier} even when given as the answer, so nothing is: {"; ".join(shown)}.'
    )


def try_golds(problems: Sequence[Problem], verify_fn: VerifyFn) -> Trial:
  """Has the verifier judge a sample of golds against themselves.

  Args:
    problems: any number; those whose gold is no form of an answer are left out.
    verify_fn: the verifier's.
  """
  answerable = [problem for problem in problems if _responses(problem.answer)]
  count = min(SAMPLE, len(answerable))
  sample = [answerable[i * len(answerable) // count] for i in range(count)]
  items = [
    (problem.answer, response) for problem in sample for response in _responses(problem.answer)
  ]
  futures = iter(verify_fn(items))
  tried = [[next(futures) for _ in _responses(problem.answer)] for problem in sample]
  concurrent.futures.wait([future for trial in tried for future in trial], timeout=_SECONDS)
  num_judged, failures = 0, []
  for problem, trial in zip(sample, tried, strict=True):
    if not all(future.done() for future in trial):
      continue
    verdicts = [future.result() for future in trial]
    num_judged += 1
    if Verdict.CORRECT not in verdicts:
      gold = problem.answer
      shown = gold if len(gold) <= _SHOWN_LENGTH else f'{gold[:_SHOWN_LENGTH]}…'
      failures.append((problem.row or problem.id, shown, verdicts[0].value))
  return Trial(num_judged, tuple(failures))


def _responses(gold: str) -> tuple[str, ...]:
  """Responses with a gold as their answer, in the forms that verifiers read; () if unknown."""
  if not gold:
    return ()
  if not isinstance(gold, Gold):
    return f'\\boxed{{{gold}}}', gold
  if gold.verifier.startswith('gym:'):
    answer = json.loads(gold)['answer']
    return (f'<answer>{answer}</answer>',) if isinstance(answer, str) and answer else ()
  return ()
