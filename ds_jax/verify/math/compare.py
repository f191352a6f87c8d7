r"""Whether two structured answers are equal, by an ordered list of stages.

`compare` asks the stages of STAGES in order; the first that applies to the two structures decides,
and its name is part of the result. A stage that cannot show equality says so: what is not shown
equal is wrong. Parts (of lists, brackets, cases, relations) go through the same list again.
"""

from __future__ import annotations

import dataclasses

from ds_jax.verify.math import units
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.judge import Judge, Stage, Step
from ds_jax.verify.math.stages import families, lists, quantities, sets, statements, words
from ds_jax.verify.math.structures import Answer, Quantity

# In this order; the first that finds something decides.
STAGES: tuple[Stage, ...] = (
  words.unread,
  words.same_structure,
  words.truth,
  words.options,
  families.families,
  statements.false_statements,
  statements.assignments,
  statements.other_relations,
  statements.equations,
  families.congruences,
  families.cases,
  words.words,
  words.numerals,
  words.ratios,
  sets.real_sets,
  lists.sequences,
  lists.collections,
  quantities.quantities,
)


def compare(gold: Answer, answer: Answer) -> tuple[Finding, list[Step]]:
  """Compares two whole answers. What a gold counts (`30 widgets`) may be left out there.

  Returns:
    The decision, and the pairs of parts that led to it.
  """
  if isinstance(gold, Quantity) and isinstance(answer, Quantity) and answer.unit == units.NONE:
    gold = dataclasses.replace(gold, unit=gold.unit._replace(unknown=()))
  judge = Judge(STAGES)
  return judge.compare(gold, answer), judge.steps
