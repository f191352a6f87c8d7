"""Samples of a benchmark: a line of the results file for each, and what all of them come to."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.evaluate.answers import compared_form
from ds_jax.evaluate.metrics import mean_with_interval, pass_at_k
from ds_jax.interfaces import Tokenizer
from ds_jax.types import FinishedTree, Problem, Verdict

# Written for people; the figures do without.
TEXT_FIELDS = ('question', 'response')


def sample_row(
  tree: FinishedTree,
  problem: Problem,
  tokenizer: Tokenizer,
  read_answer: Callable[[str], str | None],
) -> dict[str, Any]:
  """What a line of the results holds of a width-1 tree, as plain values.

  Args:
    tree: one rollout.
    problem: what it was grown for.
    tokenizer: turns its tokens into text, and knows how a response ends.
    read_answer: response text -> its answer, or None.
  """
  text = tokenizer.decode_response(tree.tokens)
  is_ended = len(tree.tokens) > 0 and int(tree.tokens[-1]) in tokenizer.stop_ids
  return {
    'id': problem.id,
    'sample': tree.sample,
    'gold': problem.answer,
    'verdict': next(v for v in tree.verdict[::-1] if v is not None),
    'answer': read_answer(text),
    'num_tokens': len(tree.tokens),
    'is_cut': not is_ended,
    'question': problem.prompt,
    'response': text,
  }


def summarize_samples(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Figures of one benchmark; the problem is the unit of every mean and interval.

  Samples whose verification failed through our fault count in no rate; they are counted apart.

  Returns:
    `pass_at_1` with its 95 % interval `low`, `high` and `standard_error`; `pass_at` and
    `majority_at` {k: share} for powers of two and all samples; `cut_share`, tokens, verdicts.
  """
  rows = sorted(rows, key=lambda row: (row['id'], row['sample']))  # not in order of completion
  counted = [row for row in rows if row['verdict'] != Verdict.ERROR.value]
  groups = [list(group) for _, group in itertools.groupby(counted, key=lambda row: row['id'])]
  rates = [float(np.mean([is_correct(row) for row in group])) for group in groups]
  mean, low, high = mean_with_interval(rates)
  lengths = [row['num_tokens'] for row in counted]
  percentile = lambda q: int(np.percentile(lengths, q, method='nearest')) if lengths else 0
  return {
    'pass_at_1': mean,
    'low': low,
    'high': high,
    'standard_error': standard_error(rates),
    'num_problems': len(groups),
    'num_samples': min(map(len, groups), default=0),
    'num_errors': len(rows) - len(counted),
    'pass_at': {
      k: float(np.mean([pass_at_k(len(group), sum(map(is_correct, group)), k) for group in groups]))
      for k in sample_counts(groups)
    },
    'majority_at': {
      k: float(np.mean([majority_at_k(group, k) for group in groups]))
      for k in sample_counts(groups)
    },
    'cut_share': float(np.mean([row['is_cut'] for row in counted])) if counted else 0.0,
    'response_tokens': {
      'mean': float(np.mean(lengths)) if lengths else 0.0,
      'p50': percentile(50),
      'p99': percentile(99),
      'max': percentile(100),
    },
    'verdicts': dict(sorted(collections.Counter(row['verdict'] for row in rows).items())),
  }


def is_correct(row: Mapping[str, Any]) -> bool:
  return row['verdict'] == Verdict.CORRECT.value


def sample_counts(groups: Sequence[Sequence[Any]]) -> list[int]:
  """1, 2, 4, … and the number of samples that every problem has."""
  least = min(map(len, groups), default=0)
  return sorted({2**i for i in range(least.bit_length()) if 2**i <= least} | {least} - {0})


def standard_error(rates: Sequence[float]) -> float:
  """Of the mean over problems, from their spread; 0 of fewer than two."""
  return float(np.std(rates, ddof=1)) / math.sqrt(len(rates)) if len(rates) > 1 else 0.0


def majority_at_k(group: Sequence[Mapping[str, Any]], k: int) -> float:
  """Chance that the answer which most of k samples give is correct.

  A mean over the disjoint blocks of k consecutive samples, the last incomplete one left out.
  """
  blocks = [group[start : start + k] for start in range(0, len(group) - k + 1, k)]
  return float(np.mean([vote_share(block) for block in blocks]))


def vote_share(block: Sequence[Mapping[str, Any]]) -> float:
  """Share of correct ones among the answers given most often: a tie is broken by lot.

  Answers of one spelling or one rational value are one; samples without an answer do not vote.
  """
  votes: dict[str, list[bool]] = {}
  for row in block:
    if row['answer'] is not None:
      votes.setdefault(compared_form(row['answer']), []).append(is_correct(row))
  most = max(map(len, votes.values()), default=0)
  winners = [float(np.mean(flags)) for flags in votes.values() if len(flags) == most]
  return float(np.mean(winners)) if winners else 0.0


def average(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Unweighted mean of the benchmarks' pass@1; their errors are independent."""
  mean = float(np.mean([f['pass_at_1'] for f in figures]))
  error = math.sqrt(sum(f['standard_error'] ** 2 for f in figures)) / len(figures)
  return {
    'pass_at_1': mean,
    'low': max(0.0, mean - 1.96 * error),
    'high': min(1.0, mean + 1.96 * error),
    'standard_error': error,
  }
