"""What the stages of a comparison share: the work that is left, and ways to compare parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ds_jax.verify.math import equality, expressions
from ds_jax.verify.math.balls import Work
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.structures import Answer

_MAX_PAIRS = 400  # of parts of a list
_MAX_STEPS = 60  # that are kept


class Step(NamedTuple):
  """What decided a pair of answers, or of parts of them, `depth` levels inside."""

  depth: int
  stage: str  # the function that applied
  gold: Answer
  answer: Answer
  finding: Finding


class Judge:
  """Compares two answers by an ordered list of stages, and parts of them by the same list.

  Attributes:
    work: the budget of the whole comparison.
    steps: the pairs that were decided so far, each in front of its parts.
  """

  def __init__(self, stages: Sequence[Stage]):
    self._stages = stages
    self._depth = 0
    self.work = Work()
    self.steps: list[Step] = []

  def compare(self, gold: Answer, answer: Answer) -> Finding:
    """Asks the stages in order; the first that applies decides."""
    position = len(self.steps)
    name = 'none'
    finding = None
    self._depth += 1
    for stage in self._stages:
      finding = stage(gold, answer, self)
      if finding is not None:
        name = stage.__name__
        break
    self._depth -= 1
    if finding is None:
      finding = Finding(False, 'different kinds')
    if len(self.steps) < _MAX_STEPS:
      self.steps.insert(position, Step(self._depth, name, gold, answer, finding))
    return finding

  def is_same(self, gold: Answer, answer: Answer) -> bool | None:
    return self.compare(gold, answer).is_equal

  def all_equal(self, pairs: Iterable[tuple[Answer, Answer]], stage: str) -> Finding:
    """Whether the two of each pair are equal."""
    for gold, answer in pairs:
      finding = self.compare(gold, answer)
      if not finding.is_equal:
        return Finding(finding.is_equal, f'{stage}: {finding.stage}')
    return Finding(True, stage)

  def same_expression(self, gold: Node, answer: Node) -> Finding:
    return equality.same_expression(gold, answer, self.work)

  def is_zero(self, node: Node) -> bool:
    return self.same_expression(node, expressions.ZERO).is_equal is True

  def is_whole(self, node: Node) -> bool:
    """Whether a constant is an integer."""
    if not expressions.is_constant(node):
      return False
    return self.same_expression(('call', 'round', node), node).is_equal is True


Stage = Callable[[Answer, Answer, Judge], Finding | None]


def each_way(gold: Answer, answer: Answer, kind: type) -> tuple[Answer, Answer] | None:
  """The two, the one of `kind` first; None if neither is."""
  if isinstance(gold, kind):
    return gold, answer
  if isinstance(answer, kind):
    return answer, gold
  return None


def pair_off(first: Sequence, second: Sequence, is_same: Callable) -> bool | None:
  """Whether the parts of one side are those of the other, in any order.

  Equal structures are paired first, and then what `is_same` finds equal; None if it leaves a part
  open.
  """
  if len(first) != len(second):
    return False
  unmatched = list(second)
  missing = []
  for part in first:
    if part in unmatched:
      unmatched.remove(part)
    else:
      missing.append(part)
  if len(missing) ** 2 > _MAX_PAIRS:
    return None
  is_open = False
  for part in missing:
    verdicts = [is_same(part, other) for other in unmatched]
    is_open |= None in verdicts
    if True not in verdicts:
      return None if is_open else False
    del unmatched[verdicts.index(True)]
  return True
