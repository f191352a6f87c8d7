"""Tables of learning.py, drawn from points: what arms reach, and what tuning has tried."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from learning_arms import FIRST_TUNING_SEED, LABELS, family, run_command
from learning_points import PASS_RATES, Point, curves, finished, key_of, read_points
from scipy.special import stdtrit

_ENOUGH_SEEDS = 3  # fewer are a sketch
_NUM_SAMPLES_BEFORE = 16  # of points that do not say
_OF_CURVE = ('tokens', 'pass_at_1', 'pass_at_k')
COSTS_TO_REACH = ('tokens', 'processor_seconds')


def table(task: str, baselines: Sequence[str]) -> str:
  """What every arm reaches on the test seeds, and paired differences to each of the baselines.

  Args:
    task: whose runs.
    baselines: arms; a difference is over the seeds that both have. Shares of what the baseline
      spends say when an arm gets to the mean pass@1 that the baseline ends with.
  """
  ends = _ends_by_arm(task, is_tuning=False)
  by_run = curves(read_points())
  names = ['arm', 'seeds', 'pass@1', 'hard pass@1', 'pass@k', 'processor s', 'M update tokens']
  for baseline in baselines:
    names += [f'minus {baseline}', f'{baseline} reached after: tokens, time']
  lines = [_row(names), _row(['---'] * len(names))]
  for arm, ends_by_seed in ends.items():
    points = list(ends_by_seed.values())
    is_sketch = len(points) < _ENOUGH_SEEDS
    lines.append(
      _row(
        [
          f'`{arm}`',
          f'{len(points)} (sketch)' if is_sketch else len(points),
          *(interval([100 * point[name] for point in points]) for name in PASS_RATES),
          _processor_seconds(points),
          f'{np.mean([point["update_tokens"] for point in points]) / 1e6:.2f}',
          *(
            cell
            for baseline in baselines
            for cell in _compare(ends_by_seed, ends.get(baseline, {}), by_run)
          ),
        ]
      )
    )
  commands = [run_command(task, arm, sorted(ends_by_seed)) for arm, ends_by_seed in ends.items()]
  return '\n'.join([*lines, '', *commands])


def curve(task: str, arm: str) -> dict[str, object]:
  """The mean curve of an arm's finished runs on test seeds, as a report draws it beside its own.

  Returns:
    Fields as ds_jax/report/summary.py has them of `beside`.
  """
  ends, by_run = _ends_by_arm(task, is_tuning=False)[arm], curves(read_points())
  points = []
  for together in zip(*(by_run[key_of(end)] for end in ends.values()), strict=False):
    mean = {name: float(np.mean([point[name] for point in together])) for name in _OF_CURVE}
    points.append({name: round(value, 4) for name, value in mean.items()})
  return {
    'label': f'{LABELS.get(arm, arm)}, {len(ends)} seeds',
    'command': run_command(task, arm, ends),
    'k': next(iter(ends.values())).get('num_samples', _NUM_SAMPLES_BEFORE),
    'points': points,
  }


def tuning(task: str) -> str:
  """All tuning runs of a task, arm by arm, and whether arms have had equal numbers of them."""
  ends = _ends_by_arm(task, is_tuning=True)
  families: dict[str, list[str]] = collections.defaultdict(list)
  for arm in ends:
    families[family(arm)].append(arm)
  lines, counts = [], {}
  for name, arms in families.items():
    counts[name] = sum(len(ends[arm]) for arm in arms)
    lines.append(f'{name}: {counts[name]} tuning runs')
    for arm in sorted(arms, key=lambda arm: -_mean(ends[arm].values())):
      rates = [f'{100 * point["pass_at_1"]:.1f}' for point in ends[arm].values()]
      seeds = ', '.join(map(str, ends[arm]))
      lines.append(f'  {arm}: pass@1 {", ".join(rates)} % (seeds {seeds})')
  if len(set(counts.values())) > 1:
    numbers = ', '.join(f'{name} {count}' for name, count in counts.items())
    lines.append(f'Unequal numbers of tuning runs: {numbers}.')
  return '\n'.join(lines)


def interval(values: Sequence[float]) -> str:
  """Mean and half of the 95 % interval over seeds; of few seeds their values."""
  if len(values) < _ENOUGH_SEEDS:
    return ', '.join(f'{value:.1f}' for value in values)
  error = float(np.std(values, ddof=1)) / len(values) ** 0.5
  half = error * float(stdtrit(len(values) - 1, 0.975))
  return f'{np.mean(values):.1f} ± {half:.1f}'


def _ends_by_arm(task: str, *, is_tuning: bool) -> dict[str, dict[int, Point]]:
  """The ends of the finished runs of a task, by arm and seed, seeds in order."""
  ends: dict[str, dict[int, Point]] = collections.defaultdict(dict)
  for (of_task, arm, seed), point in finished(read_points()).items():
    if of_task == task and (seed >= FIRST_TUNING_SEED) == is_tuning:
      ends[arm][seed] = point
  return {arm: dict(sorted(by_seed.items())) for arm, by_seed in ends.items()}


def _compare(
  ends: Mapping[int, Point],
  baseline: Mapping[int, Point],
  by_run: Mapping[tuple[str, str, int], Sequence[Point]],
) -> list[str]:
  """The cells of a row beside one baseline; empty for itself."""
  if ends is baseline:
    return ['', '']
  goal, shares = _mean(baseline.values()), []
  for cost in COSTS_TO_REACH:
    spent = [point[cost] for point in baseline.values() if cost in point]
    if spent:
      reached = [cost_to_reach(by_run[key_of(end)], goal, cost) for end in ends.values()]
      shares.append(_median_share(np.divide(reached, np.mean(spent))))
  return [_paired(ends, baseline), ', '.join(filter(None, shares))]


def cost_to_reach(curve: Sequence[Point], goal: float, cost: str) -> float:
  """What a run had spent when its pass@1 first was at the goal, between points by a straight line.

  Args:
    curve: points of a run, in order.
    goal: pass@1.
    cost: a name in points, such as 'tokens'; the first point of a run has cost nothing.

  Returns:
    Infinity if it never was; not a number if the run did not measure that cost.
  """
  if cost not in curve[-1]:
    return np.nan
  spent = [point.get(cost, 0.0) for point in curve]
  for i, point in enumerate(curve):
    if point['pass_at_1'] >= goal:
      if i == 0:
        return spent[0]
      before = curve[i - 1]['pass_at_1']
      share = (goal - before) / (point['pass_at_1'] - before)
      return spent[i - 1] + share * (spent[i] - spent[i - 1])
  return np.inf


def _median_share(shares: Sequence[float]) -> str:
  """The median over the seeds that measured it, and how many got there at all."""
  measured = [share for share in shares if not np.isnan(share)]
  if not measured:
    return ''
  reached = sum(map(np.isfinite, measured))
  median = float(np.median(measured))
  number = f'x {median:.2f}' if np.isfinite(median) else 'not'
  return f'{number} ({reached} of {len(measured)})'


def _paired(ends: Mapping[int, Point], others: Mapping[int, Point]) -> str:
  """The difference in pass@1 over the seeds that both have, points; '' of an arm to itself."""
  if ends is others:
    return ''
  seeds = sorted(ends.keys() & others.keys())
  return interval([100 * (ends[s]['pass_at_1'] - others[s]['pass_at_1']) for s in seeds])


def _processor_seconds(points: Sequence[Point]) -> str:
  """Their mean over the runs that measured them; `wall` where none did."""
  measured = [point['processor_seconds'] for point in points if 'processor_seconds' in point]
  if measured:
    return f'{np.mean(measured):.0f}'
  return f'{np.mean([point["seconds"] for point in points]):.0f} (wall)'


def _mean(points: Iterable[Point]) -> float:
  return float(np.mean([point['pass_at_1'] for point in points]))


def _row(cells: Sequence[object]) -> str:
  return f'| {" | ".join(map(str, cells))} |'
