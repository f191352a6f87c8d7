"""Embedded tasks: a user's problem gets its gold answer, whatever the run appends to it."""

from __future__ import annotations

import pytest

from ds_jax.config import ChainConfig, DataConfig
from ds_jax.data import chain
from ds_jax.data.embedded import answered
from ds_jax.data.sources import asked_problem
from ds_jax.types import Problem

CHAIN = ChainConfig(depth=3)
RIGHT = chain.read_problem('7 f2 f0', chain.facts_of(CHAIN)).answer


@pytest.mark.parametrize('instruction', ['', 'line by line', '\nline by line'])
@pytest.mark.parametrize(
  'verifier, question, gold',
  [('countdown', '24 from 3 5 7 2', '24 from 3 5 7 2'), ('chain', '7 f2 f0', RIGHT)],
)
def test_a_question_has_its_answer_with_and_without_an_instruction(
  verifier, question, gold, instruction
):
  config = DataConfig(instruction=instruction, chain=CHAIN)
  problem = asked_problem(question, '', config)
  assert instruction.strip() in problem.prompt
  assert answered(problem, verifier, config).answer == gold
  assert answered(problem, verifier, config).prompt == problem.prompt


def test_an_answer_that_is_given_counts_and_must_be_one_of_the_task():
  config = DataConfig(chain=CHAIN)
  assert answered(Problem('a', 'x', '7 f2 3'), 'chain', config).answer == '7 f2 3'
  for verifier in ('countdown', 'chain'):
    with pytest.raises(ValueError, match='Expected a'):
      answered(Problem('a', '24 from 3 5', 'no answer'), verifier, config)
    with pytest.raises(ValueError, match='Expected a'):
      answered(Problem('a', 'what is 2 + 2?', ''), verifier, config)


def test_problems_of_other_verifiers_stay_as_they_are():
  problem = Problem('a', 'what is 2 + 2?', '')
  assert answered(problem, 'math', DataConfig()) is problem
