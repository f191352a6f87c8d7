"""Samples of a benchmark: the row that the results file keeps of each, and figures of them all."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.evaluate.answers import compared_form
from ds_jax.evaluate.metrics import mean_or_zero, mean_with_interval, pass_at_k
from ds_jax.interfaces import Tokenizer
from ds_jax.types import FinishedTree, Problem, Verdict

# Fields that are written for people; no figure needs them.
TEXT_FIELDS = ('question', 'response')


def sample_row(
  tree: FinishedTree,
  problem: Problem,
  tokenizer: Tokenizer,
  read_answer: Callable[[str], str | None],
) -> dict[str, Any]:
  """Returns the row of the results file for one width-1 tree, as plain values.

  Args:
    tree: one rollout.
    problem: what it was grown for.
    tokenizer: turns its tokens into text, and knows how a response ends.
    read_answer: returns the answer of a response text, or None.
  """
  text = tokenizer.decode_response(tree.tokens)
  is_ended = len(tree.tokens) > 0 and int(tree.tokens[-1]) in tokenizer.stop_ids
  verdicts = [verdict for verdict in tree.verdict if verdict is not None]
  return {
    'id': problem.id,
    'sample': tree.sample,
    'gold': problem.answer,
    'verdict': verdicts[-1],
    'answer': read_answer(text),
    'num_tokens': len(tree.tokens),
    'is_cut': not is_ended,
    'question': problem.prompt,
    'response': text,
  }


def summarize_samples(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Figures of one benchmark; the problem is the unit of every mean and interval.

  Samples whose verification failed through our fault count in no rate; they are counted apart.

  Args:
    rows: of `sample_row`, in any order.

  Returns:
    `pass_at_1` with its 95 % interval `low`, `high` and `standard_error`; `pass_at` and
    `majority_at` {k: share} for powers of two and all samples; `cut_share`, tokens, verdicts.
  """
  rows = sorted(rows, key=lambda row: (row['id'], row['sample']))  # not in order of completion
  counted = [row for row in rows if row['verdict'] != Verdict.ERROR.value]
  groups = [list(group) for _, group in itertools.groupby(counted, key=lambda row: row['id'])]
  rates = [float(np.mean([is_correct(row) for row in group])) for group in groups]
  mean, low, high = mean_with_interval(rates)
  pass_at, majority_at = {}, {}
  for k in sample_counts(groups):
    pass_at[k] = float(np.mean([group_pass_at_k(group, k) for group in groups]))
    majority_at[k] = float(np.mean([majority_at_k(group, k) for group in groups]))
  verdicts = collections.Counter(row['verdict'] for row in rows)
  return {
    'pass_at_1': mean,
    'low': low,
    'high': high,
    'standard_error': standard_error(rates),
    'num_problems': len(groups),
    'num_samples': min(map(len, groups), default=0),
    'num_errors': len(rows) - len(counted),
    'pass_at': pass_at,
    'majority_at': majority_at,
    'cut_share': mean_or_zero([row['is_cut'] for row in counted]),
    'response_tokens': length_figures([row['num_tokens'] for row in counted]),
    'verdicts': dict(sorted(verdicts.items())),
  }


def length_figures(lengths: Sequence[int]) -> dict[str, float]:
  """Mean, median, 99th percentile and maximum of the responses' tokens; 0 where there is none."""
  if not lengths:
    return {'mean': 0.0, 'p50': 0, 'p99': 0, 'max': 0}
  median, p99 = np.percentile(lengths, [50, 99], method='nearest')
  return {
    'mean': float(np.mean(lengths)),
    'p50': int(median),
    'p99': int(p99),
    'max': max(lengths),
  }


def is_correct(row: Mapping[str, Any]) -> bool:
  """Whether the verifier accepted the sample of a row."""
  return row['verdict'] == Verdict.CORRECT.value


def sample_counts(groups: Sequence[Sequence[Any]]) -> list[int]:
  """Returns 1, 2, 4, … and the number of samples that every problem has."""
  least = min(map(len, groups), default=0)
  if not least:
    return []
  powers_of_two = {2**i for i in range(least.bit_length())}
  return sorted(powers_of_two | {least})


def standard_error(rates: Sequence[float]) -> float:
  """Returns the standard error of the mean of `rates`, from their spread; 0 of fewer than two."""
  if len(rates) < 2:
    return 0.0
  return float(np.std(rates, ddof=1)) / math.sqrt(len(rates))


def group_pass_at_k(group: Sequence[Mapping[str, Any]], k: int) -> float:
  """Returns pass@k of the samples of one problem."""
  return pass_at_k(len(group), sum(map(is_correct, group)), k)


def majority_at_k(group: Sequence[Mapping[str, Any]], k: int) -> float:
  """Returns the chance that the answer which most of k samples give is correct.

  It is a mean over the disjoint blocks of k consecutive samples; an incomplete last block is left
  out.
  """
  starts = range(0, len(group) - k + 1, k)
  return float(np.mean([vote_share(group[start : start + k]) for start in starts]))


def vote_share(block: Sequence[Mapping[str, Any]]) -> float:
  """Returns the chance that the answer given most often is correct, where lots break a tie.

  Answers of one spelling or one rational value are one; samples without an answer do not vote.
  """
  votes: dict[str, list[bool]] = {}
  for row in block:
    if row['answer'] is not None:
      votes.setdefault(compared_form(row['answer']), []).append(is_correct(row))
  most = max(map(len, votes.values()), default=0)
  winners = [float(np.mean(flags)) for flags in votes.values() if len(flags) == most]
  return mean_or_zero(winners)


def average(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Returns the unweighted mean of the benchmarks' pass@1 with its 95 % normal interval.

  The errors of the benchmarks are independent: the variance of the sum is the sum of theirs.
  """
  mean = float(np.mean([benchmark['pass_at_1'] for benchmark in figures]))
  variance = sum(benchmark['standard_error'] ** 2 for benchmark in figures)
  error = math.sqrt(variance) / len(figures)
  return {
    'pass_at_1': mean,
    'low': max(0.0, mean - 1.96 * error),
    'high': min(1.0, mean + 1.96 * error),
    'standard_error': error,
  }
