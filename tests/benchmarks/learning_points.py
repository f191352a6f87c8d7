"""The points of learning.py: what every run measured, a line of learning/points.jsonl each."""

from __future__ import annotations

import collections
import json
import pathlib
import threading
from collections.abc import Iterable

import numpy as np
from learning_arms import Run

from ds_jax.evaluate.metrics import count_correct, pass_rates
from ds_jax.report.metrics import read_metrics
from ds_jax.run.workdir import Workdir

FILE = pathlib.Path(__file__).parent / 'learning' / 'points.jsonl'
PASS_RATES = ('pass_at_1', 'hard_pass_at_1', 'pass_at_k')
# What steps cost, summed by {name in a point: name in the metrics of a step}.
_COSTS = {'seconds': 'time/step', 'processor_seconds': 'time/processor'}
# Metrics of steps whose means since the point before tell how a lever was at work.
_SHOWN = (
  'search/contrast_share',
  'search/entropy',
  'memory/different',
  'memory/problems_used',
  'memory/token_share',
  'memory/mass_share',
)
_HARD_BELOW = 0.05  # pass@1 before training

Point = dict[str, object]
_writing = threading.Lock()


def key_of(point: Point) -> tuple[str, str, int]:
  """Task, arm and seed."""
  return point['task'], point['arm'], point['seed']


def read_points() -> list[Point]:
  """All points so far, in the order of the file; of a run that was made again the newest."""
  points: dict[tuple[object, ...], Point] = {}
  if FILE.exists():
    for line in FILE.read_text().splitlines():
      point = json.loads(line)
      points[*key_of(point), point['step']] = point
  return list(points.values())


def finished(points: Iterable[Point]) -> dict[tuple[str, str, int], Point]:
  """The last points of the runs that are at their end."""
  return {key_of(point): point for point in points if 'overrides' in point}


def curves(points: Iterable[Point]) -> dict[tuple[str, str, int], list[Point]]:
  """The points of every run that is at its end, in the order of their steps."""
  points = list(points)
  ended, by_run = finished(points), collections.defaultdict(list)
  for point in points:
    if key_of(point) in ended:
      by_run[key_of(point)].append(point)
  return {key: sorted(of_run, key=lambda point: point['step']) for key, of_run in by_run.items()}


def keep(points: Iterable[Point]) -> None:
  """Writes the points that are new, or that have changed."""
  with _writing:
    known = read_points()
    lines = [json.dumps(point) + '\n' for point in points if point not in known]
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open('a') as file:
      file.write(''.join(lines))


def points_of(run: Run, workdir: pathlib.Path) -> list[Point]:
  """The evaluations of a run so far, each with what had been spent on training by then.

  The last point of a run that is at its end has the overrides, too.
  """
  spent: collections.Counter[str] = collections.Counter()
  seen: dict[str, list[float]] = collections.defaultdict(list)
  points, hard = [], None
  for row in read_metrics(workdir / 'metrics.jsonl'):
    if row['kind'] == 'train':
      _add_step(row, spent, seen)
    elif row['kind'] == 'evaluate':
      rates = _rates(workdir, row)
      hard = hard or sorted(name for name, rate in rates.items() if rate < _HARD_BELOW)
      point = {
        'task': run.task,
        'arm': run.arm,
        'seed': run.seed,
        'step': row['step'],
        'tokens': spent['tokens'],
        'update_tokens': round(spent['update_tokens']),
        **{name: round(spent[name], 1) for name in _COSTS if name in spent},
        'num_samples': row['evaluate/num_samples'],
        'pass_at_1': round(row['evaluate/pass_at_1'], 5),
        'pass_at_k': round(row['evaluate/pass_at_k'], 5),
        'hard_pass_at_1': round(float(np.mean([rates[name] for name in hard])), 5),
        'figures': {name: round(float(np.mean(values)), 4) for name, values in seen.items()},
      }
      if row['when'] == 'after':
        point['overrides'] = {name: str(value) for name, value in run.overrides.items()}
      points.append(point)
      seen.clear()
  return points


def _add_step(
  row: dict[str, float], spent: collections.Counter[str], seen: dict[str, list[float]]
) -> None:
  """Adds what a step has cost, and how it went."""
  spent['tokens'] = row['search/tokens_so_far']
  # A step whose groups are all without contrast updates nothing.
  updates = row.get('train/updates', 0) * (1 - row.get('train/skipped', 0.0))
  spent['update_tokens'] += updates * row.get('train/num_tokens', 0.0)
  for name, metric in _COSTS.items():
    if metric in row:
      spent[name] += row[metric]
  for name in _SHOWN:
    if name in row:
      seen[name].append(row[name])


def _rates(workdir: pathlib.Path, row: dict[str, object]) -> dict[str, float]:
  """pass@1 of each problem in an evaluation of a run."""
  samples = Workdir(workdir).samples(row['step'], row['when']).read_text().splitlines()
  return pass_rates(count_correct(map(json.loads, samples)))
