"""Samples of a benchmark: the row that the results file keeps of each, and figures of them all."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.evaluate.answers import GroupAnswers, answer_grouper, group_equal
from ds_jax.evaluate.metrics import (
  count_correct,
  is_correct,
  is_cut_correct,
  mean_or_zero,
  outcome,
  pass_figures,
)
from ds_jax.interfaces import Tokenizer
from ds_jax.types import FinishedTree, Problem, Verdict

# Fields that are written for people; no figure needs them.
TEXT_FIELDS = ('question', 'response')

Vote = tuple[int | None, bool]  # class of the answer, None without one; whether it is correct


def sample_row(
  tree: FinishedTree,
  problem: Problem,
  tokenizer: Tokenizer,
  read_answer: Callable[[str], str | None],
) -> dict[str, Any]:
  """Returns the row of the results file for one width-1 tree, as plain values.

  Of several evaluation sets it has the name of the problem's.

  Args:
    tree: one rollout.
    problem: what it was grown for.
    tokenizer: turns its tokens into text, and knows how a response ends.
    read_answer: returns the answer of a response text, or None.
  """
  text = tokenizer.decode_response(tree.tokens)
  row = outcome(tree, tokenizer.stop_ids)
  if problem.source:
    row['set'] = problem.source
  return row | {
    'gold': problem.answer,
    'answer': read_answer(text),
    'question': problem.prompt,
    'response': text,
  }


def summarize_samples(rows: Sequence[Mapping[str, Any]], verifier: str = 'math') -> dict[str, Any]:
  """Figures of one benchmark; the problem is the unit of every mean and interval.

  Samples whose verification failed through our fault count in no rate; they are counted apart.

  Args:
    rows: of `sample_row`, in any order.
    verifier: name of the one that judged them; it says which answers are one vote.

  Returns:
    Those of `metrics.pass_figures`, `majority_at` {k: share} for the same k, `cut_share`,
    `cut_correct_share`, tokens and verdicts.
  """
  group_answers = answer_grouper(verifier)
  rows = sorted(rows, key=lambda row: (row['id'], row['sample']))  # not in order of completion
  counted = [row for row in rows if row['verdict'] != Verdict.ERROR.value]
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for row in counted:
    groups.setdefault(row['id'], []).append(row)
  figures = pass_figures(count_correct(counted))
  majority_at = {}
  votes = [_votes(group, group_answers) for group in groups.values()]
  for k in figures['pass_at']:
    majority_at[k] = float(np.mean([_majority(problem_votes, k) for problem_votes in votes]))
  verdicts = collections.Counter(row['verdict'] for row in rows)
  return figures | {
    'num_errors': len(rows) - len(counted),
    'majority_at': majority_at,
    'cut_share': mean_or_zero([row['is_cut'] for row in counted]),
    'cut_correct_share': mean_or_zero([is_cut_correct(row) for row in counted]),
    'response_tokens': length_figures([row['num_tokens'] for row in counted]),
    'verdicts': dict(sorted(verdicts.items())),
  }


def length_figures(lengths: Sequence[int]) -> dict[str, float]:
  """Returns mean, median, 99th percentile and maximum of responses' tokens; 0 of no response."""
  if not lengths:
    return {'mean': 0.0, 'p50': 0, 'p99': 0, 'max': 0}
  median, p99 = np.percentile(lengths, [50, 99], method='nearest')
  return {
    'mean': float(np.mean(lengths)),
    'p50': int(median),
    'p99': int(p99),
    'max': max(lengths),
  }


def majority_at_k(
  group: Sequence[Mapping[str, Any]], k: int, group_answers: GroupAnswers = group_equal
) -> float:
  """Returns the chance that the answer which most of k samples give is correct.

  It is a mean over the disjoint blocks of k consecutive samples; an incomplete last block is left
  out. Arguments as in `vote_share`.
  """
  return _majority(_votes(group, group_answers), k)


def vote_share(
  block: Sequence[Mapping[str, Any]], group_answers: GroupAnswers = group_equal
) -> float:
  """Returns the chance that the answer given most often is correct, where lots break a tie.

  Samples without an answer do not vote.

  Args:
    block: rows of samples of one problem.
    group_answers: says which answers are one; see `answers.answer_grouper`.
  """
  return _share_of(_votes(block, group_answers))


def _votes(rows: Sequence[Mapping[str, Any]], group_answers: GroupAnswers) -> list[Vote]:
  """Returns for each sample the class of its answer (None: it has none) and if it is correct."""
  answered = [row for row in rows if row['answer'] is not None]
  classes = iter(group_answers([row['answer'] for row in answered]))
  return [(None if row['answer'] is None else next(classes), is_correct(row)) for row in rows]


def _majority(votes: Sequence[Vote], k: int) -> float:
  """Returns the mean of `_share_of` over the disjoint blocks of k consecutive votes."""
  starts = range(0, len(votes) - k + 1, k)
  return float(np.mean([_share_of(votes[start : start + k]) for start in starts]))


def _share_of(votes: Sequence[Vote]) -> float:
  """Returns the chance that a class with most votes is correct."""
  flags: dict[int, list[bool]] = {}
  for answer_class, flag in votes:
    if answer_class is not None:
      flags.setdefault(answer_class, []).append(flag)
  most = max(map(len, flags.values()), default=0)
  return mean_or_zero([float(np.mean(f)) for f in flags.values() if len(f) == most])
