"""pass@1, pass@k and their intervals, from counts of correct samples per problem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.types import FinishedTree, Verdict

Counts = Mapping[str, tuple[int, int]]  # {problem id: (samples, correct samples)}


def count_correct(rollouts: Iterable[FinishedTree]) -> dict[str, tuple[int, int]]:
  """Returns {problem id: (samples, correct samples)} of width-1 trees, by first appearance.

  A rollout whose verification failed through our fault counts in neither number.
  """
  counts: dict[str, tuple[int, int]] = {}
  for tree in rollouts:
    samples, correct = counts.get(tree.problem_id, (0, 0))
    is_counted = any(verdict not in (None, Verdict.ERROR.value) for verdict in tree.verdict)
    counts[tree.problem_id] = (samples + is_counted, correct + tree.is_solved)
  return counts


def pass_rates(counts: Counts) -> dict[str, float]:
  """Share of correct samples per problem; problems without a counted sample are left out."""
  return {name: correct / samples for name, (samples, correct) in counts.items() if samples}


def pass_figures(counts: Counts) -> dict[str, Any]:
  """pass@1 and pass@k over problems; the problem is the unit of every mean and interval.

  Returns:
    `pass_at_1` with its 95 % interval `low`, `high` and `standard_error`; `num_problems` and
    `num_samples`, the fewest of one problem; `pass_at` {k: share} for the `sample_counts`.
  """
  rates = list(pass_rates(counts).values())
  counted = [count for count in counts.values() if count[0]]
  mean, low, high = mean_with_interval(rates)
  fewest = min((samples for samples, _ in counted), default=0)
  pass_at = {}
  for k in sample_counts(fewest):
    pass_at[k] = float(np.mean([pass_at_k(samples, correct, k) for samples, correct in counted]))
  return {
    'pass_at_1': mean,
    'low': low,
    'high': high,
    'standard_error': standard_error(rates),
    'num_problems': len(counted),
    'num_samples': fewest,
    'pass_at': pass_at,
  }


def sample_counts(fewest: int) -> list[int]:
  """1, 2, 4, … and `fewest`, the number of samples that every problem has."""
  powers = {2**i for i in range(fewest.bit_length()) if 2**i <= fewest}
  return sorted((powers | {fewest}) - {0})


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
  """Returns the mean over problems and its 95 % normal interval, clipped to [0, 1].

  The problem is the unit, since samples of one problem are not independent. One problem says
  nothing about the spread: its interval is [0, 1].
  """
  if not len(values):
    return 0.0, 0.0, 1.0
  mean = float(np.mean(values))
  error = 1.0  # of a single value nothing is known
  if len(values) > 1:
    error = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
  return mean, max(0.0, mean - error), min(1.0, mean + error)


def standard_error(rates: Sequence[float]) -> float:
  """Of the mean over problems, from their spread; 0 of fewer than two."""
  return float(np.std(rates, ddof=1)) / math.sqrt(len(rates)) if len(rates) > 1 else 0.0


def pass_at_k(samples: int, correct: int, k: int) -> float:
  """Returns the chance that k of the samples, drawn without replacement, hold a correct one.

  With n samples, c of them correct, it is 1 - C(n - c, k) / C(n, k) (arXiv:2107.03374), which is
  unbiased for k <= n.

  Raises:
    ValueError: unless 0 < k <= samples.
  """
  if not 0 < k <= samples:
    raise ValueError(f'Expected 0 < k <= samples, got k = {k}, samples = {samples}.')
  return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def evaluation_metrics(rollouts: Sequence[FinishedTree]) -> dict[str, float]:
  """Metrics of an evaluation; names are documented in README. k = num_samples, per problem."""
  figures = pass_figures(count_correct(rollouts))
  lengths = [len(tree.tokens) for tree in rollouts]
  verdicts = [v for tree in rollouts for v in tree.verdict if v is not None]
  is_cut = [v == Verdict.INCOMPLETE.value for v in verdicts]
  return {
    'evaluate/pass_at_1': figures['pass_at_1'],
    'evaluate/pass_at_1_low': figures['low'],
    'evaluate/pass_at_1_high': figures['high'],
    'evaluate/pass_at_k': figures['pass_at'].get(figures['num_samples'], 0.0),
    'evaluate/num_problems': figures['num_problems'],
    'evaluate/num_samples': figures['num_samples'],
    'evaluate/response_tokens': float(np.mean(lengths)) if lengths else 0.0,
    'evaluate/cut_share': float(np.mean(is_cut)) if is_cut else 0.0,
  }


def mean_or_zero(values: Sequence[float]) -> float:
  """Returns the mean as a plain float; 0 of no values."""
  return float(np.mean(values)) if len(values) else 0.0
