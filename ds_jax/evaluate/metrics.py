"""pass@1, pass@k and their intervals, from counts of correct samples per problem."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import stdtrit

from ds_jax.types import FinishedTree, Verdict

Row = Mapping[str, Any]  # of `outcome`, or of samples.sample_row
T = TypeVar('T')
Counts = Mapping[str, tuple[int, int]]  # {problem id: (samples, correct samples)}


def outcome(tree: FinishedTree, stop_ids: Collection[int]) -> dict[str, Any]:
  """Returns what figures need to know of one width-1 tree, as plain values.

  Args:
    tree: one rollout.
    stop_ids: any of these ids ends a response.
  """
  (end,) = [node for node, verdict in enumerate(tree.verdict) if verdict is not None]
  return {
    'id': tree.problem_id,
    'sample': tree.sample,
    'verdict': tree.verdict[end],
    'num_tokens': len(tree.tokens),
    'is_cut': tree.is_cut(end, stop_ids),
    'is_cut_correct': bool(tree.num_cut_correct(stop_ids)),
  }


def is_correct(row: Row) -> bool:
  """Whether the verifier accepted the sample of a row."""
  return row['verdict'] == Verdict.CORRECT.value


def is_cut_correct(row: Row) -> bool:
  """Whether a sample has the right answer but was cut off, whether that counts or not."""
  # Rows of older versions lack the field; there a right answer always counted.
  return row.get('is_cut_correct', row['is_cut'] and is_correct(row))


def count_correct(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
  """Returns {problem id: (samples, correct samples)} by first appearance.

  A sample whose verification failed through our fault counts in neither number.

  Args:
    rows: of `outcome`, with or without more fields.
  """
  counts: dict[str, tuple[int, int]] = {}
  for row in rows:
    samples, correct = counts.get(row['id'], (0, 0))
    is_counted = row['verdict'] != Verdict.ERROR.value
    counts[row['id']] = (samples + is_counted, correct + is_correct(row))
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


def average(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Returns the unweighted mean of the sets' pass@1 with its 95 % interval.

  The errors of the sets are independent: the squares of the distances from the shares to the ends
  of their intervals add up, each side for itself (method of variance estimates recovery, Zou and
  Donner 2008, Statistics in Medicine 27:1693-1702). So it is as good at the edges as theirs.

  Args:
    figures: of each set, from `pass_figures`.
  """
  mean = float(np.mean([of_set['pass_at_1'] for of_set in figures]))
  below = [of_set['pass_at_1'] - of_set['low'] for of_set in figures]
  above = [of_set['high'] - of_set['pass_at_1'] for of_set in figures]
  errors = [of_set['standard_error'] for of_set in figures]
  return {
    'pass_at_1': mean,
    'low': max(0.0, mean - math.hypot(*below) / len(figures)),
    'high': min(1.0, mean + math.hypot(*above) / len(figures)),
    'standard_error': math.hypot(*errors) / len(figures),
  }


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
  """Returns the mean over problems and a 95 % interval that holds near 0 and 1, too.

  It is Wilson's score interval (1927) for an effective number of independent verdicts, with the
  quantile of Student's t for one degree of freedom less than there are problems. Surveys of
  clusters use it so (Korn and Graubard 1998, Survey Methodology 24:193-201; compared with others by
  Franco, Little, Louis and Slud 2019, Journal of Survey Statistics and Methodology 7:334-364). The
  cluster is the problem: samples of one problem are not independent. `effective_count` estimates
  the number.

  One problem says nothing about the spread: its interval is [0, 1].

  Args:
    values: per problem the share of correct samples, in [0, 1].

  Returns:
    Mean, lower and upper end, 0 <= low <= mean <= high <= 1.
  """
  if not len(values):
    return 0.0, 0.0, 1.0
  mean = float(np.mean(values))
  if len(values) == 1:
    return mean, 0.0, 1.0
  count = effective_count(values)
  quantile = float(stdtrit(len(values) - 1, 0.975))
  # The p whose distance to the mean is `quantile` standard errors of p itself: a quadratic.
  added = quantile**2 / count
  center = (mean + added / 2) / (1 + added)
  error = math.sqrt(mean * (1 - mean) * added + added**2 / 4) / (1 + added)
  # Rounding must not put an end beyond the mean, or beyond what a share can be.
  return mean, min(mean, max(0.0, center - error)), max(mean, min(1.0, center + error))


def effective_count(values: Sequence[float]) -> float:
  """Returns how many independent verdicts have a mean as certain as that of the values.

  With n problems, mean p and variance s2 of the values it is n p (1 - p) / s2: n problems of which
  each is always or never solved are n verdicts, and more if they are alike (the design effect of
  surveys). But s2 of values that are nearly all 0 rests on few of them, and is 0 where all are. So
  it is drawn towards p (1 - p), where a problem counts as one verdict, with the weight of one
  problem against 4 n p (1 - p): that is n for p = 1/2 and 0 at the edges. The weight is ours; with
  it the interval covers 95 % or more in simulations where without it is 83 % (p = 0.02, 20 to 60
  problems of 32 samples, correlated by 0.4 to 0.7).
  """
  count, mean = len(values), float(np.mean(values))
  if not 0.0 < mean < 1.0:
    return float(count)
  largest = mean * (1 - mean)  # variance where each problem is always or never solved
  informative = 4 * count * largest  # problems that tell something of the spread
  variance = (informative * float(np.var(values, ddof=1)) + largest) / (informative + 1)
  return count * largest / variance


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


def evaluation_metrics(
  rows: Sequence[Row], sources: Mapping[str, str] | None = None
) -> dict[str, float]:
  """Metrics of an evaluation; names are in report/README.md. k = num_samples, per problem.

  A mean over no problem, or no response, is absent. Lengths and shares of what was cut off are
  over all responses, whatever the verifier made of them.

  Args:
    rows: of `outcome`, with or without more fields.
    sources: {problem id: name of its source}, '' where there is but one. Several sources are
      evaluation sets: each has its figures, too, and there is their mean, if each has a problem
      whose samples could be verified.
  """
  counts = count_correct(rows)
  figures = pass_figures(counts)
  metrics = {
    'evaluate/num_problems': figures['num_problems'],
    'evaluate/num_samples': figures['num_samples'],
  }
  if figures['num_problems']:
    metrics |= {
      'evaluate/pass_at_1': figures['pass_at_1'],
      'evaluate/pass_at_1_low': figures['low'],
      'evaluate/pass_at_1_high': figures['high'],
      'evaluate/pass_at_k': figures['pass_at'][figures['num_samples']],
    }
  if rows:
    metrics |= {
      'evaluate/response_tokens': float(np.mean([row['num_tokens'] for row in rows])),
      'evaluate/cut_share': float(np.mean([row['is_cut'] for row in rows])),
      'evaluate/cut_correct_share': float(np.mean([is_cut_correct(row) for row in rows])),
    }
  sets = by_source(counts, sources or {})
  return metrics | _set_metrics({name: pass_figures(sets[name]) for name in sets})


def _set_metrics(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Metrics of several evaluation sets by their names, and of their mean; none of no sets."""
  metrics = {}
  for name, of_set in figures.items():
    metrics |= {
      f'evaluate/num_problems/{name}': of_set['num_problems'],
      f'evaluate/num_samples/{name}': of_set['num_samples'],
    }
    if of_set['num_problems']:
      metrics |= {
        f'evaluate/pass_at_1/{name}': of_set['pass_at_1'],
        f'evaluate/pass_at_1_low/{name}': of_set['low'],
        f'evaluate/pass_at_1_high/{name}': of_set['high'],
        f'evaluate/pass_at_k/{name}': of_set['pass_at'][of_set['num_samples']],
      }
  if figures and all(of_set['num_problems'] for of_set in figures.values()):
    mean = average(list(figures.values()))
    metrics |= {
      'evaluate/mean_pass_at_1': mean['pass_at_1'],
      'evaluate/mean_pass_at_1_low': mean['low'],
      'evaluate/mean_pass_at_1_high': mean['high'],
    }
  return metrics


def by_source(values: Mapping[str, T], sources: Mapping[str, str]) -> dict[str, dict[str, T]]:
  """Returns {source: {problem id: value}}, sorted; of problems without a source nothing.

  Args:
    values: by problem id.
    sources: {problem id: name of its source}.
  """
  parts: dict[str, dict[str, T]] = {}
  for name, value in values.items():
    source = sources.get(name, '')
    if source:
      parts.setdefault(source, {})[name] = value
  return dict(sorted(parts.items()))


def filter_figures_by_source(
  rates: Mapping[str, float], hard_ids: Collection[str], sources: Mapping[str, str]
) -> dict[str, float]:
  """Metrics of the filter for each of several sources; none where there is but one.

  Args:
    rates: pass@1 by problem id.
    hard_ids: of the hard problems.
    sources: {problem id: name of its source}.
  """
  hard, figures = set(hard_ids), {}
  for source, rates_there in by_source(rates, sources).items():
    figures |= {
      f'filter/num_problems/{source}': len(rates_there),
      f'filter/num_hard/{source}': len(hard & set(rates_there)),
      f'filter/pass_at_1/{source}': float(np.mean(list(rates_there.values()))),
    }
  return figures


def mean_or_zero(values: Sequence[float]) -> float:
  """Returns the mean as a plain float; 0 of no values."""
  return float(np.mean(values)) if len(values) else 0.0
