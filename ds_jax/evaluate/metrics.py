"""pass@1, pass@k and their intervals, from counts of correct samples per problem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ds_jax.types import FinishedTree, Verdict


def count_correct(rollouts: Iterable[FinishedTree]) -> dict[str, tuple[int, int]]:
  """{problem id: (samples, correct samples)} of width-1 trees, in order of first appearance.

  A rollout whose verification failed through our fault counts in neither number.
  """
  counts: dict[str, tuple[int, int]] = {}
  for tree in rollouts:
    samples, correct = counts.get(tree.problem_id, (0, 0))
    is_counted = any(v not in (None, Verdict.ERROR.value) for v in tree.verdict)
    counts[tree.problem_id] = (samples + is_counted, correct + tree.is_solved)
  return counts


def pass_rates(counts: Mapping[str, tuple[int, int]]) -> dict[str, float]:
  """Share of correct samples per problem; problems without a counted sample are left out."""
  return {name: correct / samples for name, (samples, correct) in counts.items() if samples}


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
  """Mean over problems and its 95 % normal interval, clipped to [0, 1].

  The problem is the unit (samples of one problem are not independent).
  """
  if not len(values):
    return 0.0, 0.0, 1.0
  mean = float(np.mean(values))
  error = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 1.0
  return mean, max(0.0, mean - error), min(1.0, mean + error)


def pass_at_k(samples: int, correct: int, k: int) -> float:
  """Chance that k of the n samples drawn without replacement hold a correct one.

  1 - C(n - c, k) / C(n, k) (arXiv:2107.03374), unbiased for k <= n.
  """
  if not 0 < k <= samples:
    raise ValueError(f'Expected 0 < k <= samples, got k = {k}, samples = {samples}.')
  return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def evaluation_metrics(rollouts: Sequence[FinishedTree]) -> dict[str, float]:
  """Metrics of an evaluation; names are documented in README. k = num_samples, per problem."""
  counts = {name: c for name, c in count_correct(rollouts).items() if c[0]}
  mean, low, high = mean_with_interval(list(pass_rates(counts).values()))
  k = min((samples for samples, _ in counts.values()), default=0)
  best = [pass_at_k(samples, correct, k) for samples, correct in counts.values()]
  lengths = [len(tree.tokens) for tree in rollouts]
  is_cut = [v == 'incomplete' for tree in rollouts for v in tree.verdict if v is not None]
  return {
    'evaluate/pass_at_1': mean,
    'evaluate/pass_at_1_low': low,
    'evaluate/pass_at_1_high': high,
    'evaluate/pass_at_k': float(np.mean(best)) if best else 0.0,
    'evaluate/num_problems': len(counts),
    'evaluate/num_samples': k,
    'evaluate/response_tokens': float(np.mean(lengths)) if lengths else 0.0,
    'evaluate/cut_share': float(np.mean(is_cut)) if is_cut else 0.0,
  }
