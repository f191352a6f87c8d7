"""Chain: facts, splits that never overlap, and solutions of the warm start with mistakes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import ChainConfig
from ds_jax.data import chain
from ds_jax.types import Verdict
from ds_jax.verify import grade_chain

CONFIG = ChainConfig(depth=4, num_train=300, num_heldout=100, num_warmstart=400)


def problems(split, config=CONFIG):
  return list(chain.generate_problems(config, split))


def test_functions_are_permutations_and_mistakes_are_mistakes():
  facts = chain.facts_of(CONFIG)
  assert (np.sort(facts.right) == np.arange(61)).all()
  assert (facts.wrong != facts.right).all() and facts.wrong.min() >= 0 and facts.wrong.max() < 61
  weak = facts.share_right < 1
  assert 0.4 < weak.mean() < 0.6
  assert 0.1 <= facts.share_right[weak].min() and facts.share_right[weak].max() <= 0.5


def test_facts_depend_on_the_seed_and_not_on_the_sizes_of_splits():
  same = chain.facts_of(ChainConfig(depth=9, num_train=1))
  assert (same.right == chain.facts_of(CONFIG).right).all()
  assert (chain.facts_of(ChainConfig(seed=1)).right != same.right).any()


def test_a_written_out_problem():
  facts = chain.Facts(
    right=np.array([[1, 2, 0], [2, 1, 0]]), wrong=np.zeros((2, 3), int), share_right=np.ones((2, 3))
  )
  problem = chain.read_problem('0 f1 f0 f0', facts)
  assert problem.solution == '0 f1 2 . 2 f0 0 . 0 f0 1'
  assert problem.answer == '0 f1 2 2 f0 0 0 f0 1'
  assert problem.id == 'chain/0_f1_f0_f0'


@pytest.mark.parametrize('text', ['', '0', '3 f0', '0 f2', '0 f0 1', 'f0 0', '00 f0'])
def test_other_texts_are_no_problems(text):
  facts = chain.Facts(np.zeros((2, 3), int), np.zeros((2, 3), int), np.ones((2, 3)))
  with pytest.raises(InputError, match='Expected a problem of chain'):
    chain.read_problem(text, facts)


def test_splits_do_not_overlap_and_hold_each_problem_once():
  texts = [problem.prompt for split in chain.SPLITS for problem in problems(split)]
  assert len(texts) == len(set(texts)) == 800


def test_a_smaller_split_is_the_beginning_of_a_larger_one():
  larger = ChainConfig(depth=4, num_train=310)
  assert problems('train', larger)[:300] == problems('train')


def test_solutions_to_train_on_are_right_and_those_of_the_warm_start_often_not():
  def share_correct(split):
    verdicts = [grade_chain.verify(p.answer, p.solution) for p in problems(split)]
    return np.mean([verdict == Verdict.CORRECT for verdict in verdicts])

  assert share_correct('train') == share_correct('heldout') == 1
  # 400 solutions; a line is right with probability 1/2 + 1/2 * 0.3 on average.
  assert 0.05 < share_correct('warmstart') < 0.4


def test_lines_of_the_warm_start_show_two_values_of_a_fact_at_most_and_follow_each_other():
  facts = chain.facts_of(CONFIG)
  for problem in problems('warmstart'):
    lines = [line.split() for line in problem.solution.split(' . ')]
    for value, name, following in lines:
      index = int(name[1:]), int(value)
      assert int(following) in (facts.right[index], facts.wrong[index])
    for line, after in itertools.pairwise(lines):
      assert line[2] == after[0]
    assert all(len(f'{" ".join(line)} .'.split()) == chain.SEGMENT_LENGTH for line in lines)


def test_too_few_problems_are_told_with_their_number():
  config = ChainConfig(depth=1, num_values=3, num_functions=2, num_train=50)
  with pytest.raises(InputError, match=r'3 \* 2\^1 problems in all'):
    problems('train', config)


def test_bounds_of_weak_facts_that_cross_are_refused():
  with pytest.raises(InputError, match='weak_low'):
    problems('train', ChainConfig(weak_low=0.6))
