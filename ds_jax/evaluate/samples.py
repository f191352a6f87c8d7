"""Samples of a benchmark: a line of the results file for each, and what all of them come to."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.evaluate.answers import compared_form
from ds_jax.evaluate.metrics import pass_figures
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
  lengths = [row['num_tokens'] for row in counted]
  percentile = lambda q: int(np.percentile(lengths, q, method='nearest')) if lengths else 0
  return figures | {
    'num_errors': len(rows) - len(counted),
    'majority_at': majority_at,
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
