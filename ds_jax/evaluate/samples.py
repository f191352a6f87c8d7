"""Samples of a benchmark: the row that the results file keeps of each, and figures of them all."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.evaluate.answers import compared_form
from ds_jax.evaluate.metrics import mean_or_zero, pass_figures
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
    Those of `metrics.pass_figures`, `majority_at` {k: share} for the same k, `cut_share`, tokens
    and verdicts.
  """
  rows = sorted(rows, key=lambda row: (row['id'], row['sample']))  # not in order of completion
  counted = [row for row in rows if row['verdict'] != Verdict.ERROR.value]
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for row in counted:
    groups.setdefault(row['id'], []).append(row)
  counts = {name: (len(group), sum(map(is_correct, group))) for name, group in groups.items()}
  figures = pass_figures(counts)
  majority_at = {}
  for k in figures['pass_at']:
    majority_at[k] = float(np.mean([majority_at_k(group, k) for group in groups.values()]))
  verdicts = collections.Counter(row['verdict'] for row in rows)
  return figures | {
    'num_errors': len(rows) - len(counted),
    'majority_at': majority_at,
    'cut_share': mean_or_zero([row['is_cut'] for row in counted]),
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


def is_correct(row: Mapping[str, Any]) -> bool:
  """Whether the verifier accepted the sample of a row."""
  return row['verdict'] == Verdict.CORRECT.value


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
