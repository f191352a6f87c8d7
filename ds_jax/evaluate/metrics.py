"""pass@1, pass@k and their intervals, from counts of correct samples per problem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ds_jax.types import FinishedTree, Verdict


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


def pass_rates(counts: Mapping[str, tuple[int, int]]) -> dict[str, float]:
  """Returns each problem's share of correct samples; problems without a sample are left out."""
  return {name: correct / samples for name, (samples, correct) in counts.items() if samples}


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
  """Returns the mean over problems and its 95 % normal interval, clipped to [0, 1].

  The problem is the unit, since samples of one problem are not independent. One problem says
  nothing about the spread: its interval is [0, 1].
  """
  if not len(values):
    return 0.0, 0.0, 1.0
  mean = float(np.mean(values))
  error = 1.0
  if len(values) > 1:
    error = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
  return mean, max(0.0, mean - error), min(1.0, mean + error)


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
  """Returns the metrics of an evaluation, whose names README explains.

  k of pass@k is the smallest number of counted samples of a problem.
  """
  counts = {
    name: (samples, correct)
    for name, (samples, correct) in count_correct(rollouts).items()
    if samples
  }
  mean, low, high = mean_with_interval(list(pass_rates(counts).values()))
  k = min((samples for samples, _ in counts.values()), default=0)
  rates_at_k = [pass_at_k(samples, correct, k) for samples, correct in counts.values()]
  lengths = [len(tree.tokens) for tree in rollouts]
  verdicts = [v for tree in rollouts for v in tree.verdict if v is not None]
  is_cut = [verdict == Verdict.INCOMPLETE.value for verdict in verdicts]
  return {
    'evaluate/pass_at_1': mean,
    'evaluate/pass_at_1_low': low,
    'evaluate/pass_at_1_high': high,
    'evaluate/pass_at_k': mean_or_zero(rates_at_k),
    'evaluate/num_problems': len(counts),
    'evaluate/num_samples': k,
    'evaluate/response_tokens': mean_or_zero(lengths),
    'evaluate/cut_share': mean_or_zero(is_cut),
  }


def mean_or_zero(values: Sequence[float]) -> float:
  """Returns the mean as a plain float; 0 of no values."""
  return float(np.mean(values)) if len(values) else 0.0
