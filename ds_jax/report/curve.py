"""The learning curve of a run: held-out pass@1 and pass@k over what was generated."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.report.axes import (
  EVALUATE,
  MUTED,
  SECOND,
  SETS,
  distances,
  finish,
  percent_axis,
  style,
)
from ds_jax.report.text import visible

_TOKENS = 'search/tokens_so_far'
_MEAN = 'mean_'  # before figures of the mean over several evaluation sets

Metrics = Sequence[Mapping[str, Any]]


def draw_curve(axis: Any, metrics: Metrics, beside: Mapping[str, Any]) -> None:
  """Held-out pass@1 and pass@k over what was generated; by training step where nothing was."""
  style(axis, 'Learning curve', size=13)
  percent_axis(axis)
  evaluations = [row for row in _with_tokens(metrics) if row['kind'] == 'evaluate']
  has_tokens = any(map(_tokens_so_far, evaluations))
  place = _tokens_so_far if has_tokens else operator.itemgetter('step')
  _plot_evaluations(axis, evaluations, place)
  label = 'tokens generated to learn from' if has_tokens else 'training step'
  axis.set_xlabel(label, fontsize=10, color=MUTED)
  if has_tokens:
    axis.xaxis.set_major_formatter(_tokens_tick)
    _plot_beside(axis, beside)
  finish(axis, loc='lower right' if len(evaluations) > 2 else 'best')
  if axis.has_data():
    axis.set_ylim(0, max(axis.get_ylim()[1], 0.01))


def _with_tokens(metrics: Metrics) -> list[Mapping[str, Any]]:
  """Rows with the tokens generated before them; evaluations of older versions did not note them."""
  rows, tokens = [], 0
  for row in metrics:
    tokens = row.get(_TOKENS) or tokens
    rows.append({**row, _TOKENS: tokens})
  return rows


def _tokens_so_far(row: Mapping[str, Any]) -> int:
  return row[_TOKENS]


def _tokens_tick(x: float, _: int) -> str:
  """'250 k', '1.5 M'."""
  if abs(x) >= 1e6:
    return f'{x / 1e6:g} M'
  return f'{x / 1e3:g} k' if x else '0'


def _plot_evaluations(axis: Any, evaluations: Metrics, place: Callable[[Any], float]) -> None:
  """pass@1 with 95 % intervals, and pass@k above it; or pass@1 of several sets and their mean."""
  if any(row.get(f'evaluate/{_MEAN}pass_at_1') is not None for row in evaluations):
    _plot_sets(axis, evaluations, place)
    return
  measured = _plot_pass_at_1(axis, evaluations, place, label='held-out pass@1')
  with_k = [row for row in measured if _has_k(row)]
  if with_k:
    x, y = [place(row) for row in with_k], [row['evaluate/pass_at_k'] for row in with_k]
    label = f'held-out pass@{with_k[-1]["evaluate/num_samples"]}'
    axis.plot(x, y, color=SECOND, linewidth=2, marker='o', markersize=4.5, label=label)


def _plot_sets(axis: Any, evaluations: Metrics, place: Callable[[Any], float]) -> None:
  """pass@1 of each evaluation set, and the mean over them with 95 % intervals."""
  prefix = 'evaluate/pass_at_1/'
  names = sorted({name for row in evaluations for name in row if name.startswith(prefix)})
  for name, colour in zip(names, itertools.cycle(SETS), strict=False):
    measured = [row for row in evaluations if row.get(name) is not None]
    x, y = [place(row) for row in measured], [row[name] for row in measured]
    label = visible(name.removeprefix(prefix))
    axis.plot(x, y, color=colour, linewidth=1.6, marker='o', markersize=4, label=label)
  _plot_pass_at_1(axis, evaluations, place, label='mean over sets', of=_MEAN)


def _plot_pass_at_1(
  axis: Any, evaluations: Metrics, place: Callable[[Any], float], *, label: str, of: str = ''
) -> Metrics:
  """pass@1 with 95 % intervals, `of` all problems or of the mean; returns the rows that have it."""
  name = f'evaluate/{of}pass_at_1'
  measured = [row for row in evaluations if row.get(name) is not None]
  if not measured:
    return ()
  x, y = [place(row) for row in measured], [row[name] for row in measured]
  reach = np.hstack([distances(row, prefix=f'evaluate/{of}') for row in measured])
  line = {'color': EVALUATE, 'linewidth': 2, 'zorder': 5}
  axis.plot(x, y, marker='o', markersize=5.5, label=label, **line)
  axis.errorbar(x, y, yerr=reach, fmt='none', color=EVALUATE, capsize=3, elinewidth=1.2)
  return measured


def _has_k(row: Mapping[str, Any]) -> bool:
  is_known = row.get('evaluate/pass_at_k') is not None
  return is_known and (row.get('evaluate/num_samples') or 1) > 1


def _plot_beside(axis: Any, beside: Mapping[str, Any]) -> None:
  """The curve of other runs, broken."""
  points = beside.get('points') or ()
  tokens = [point['tokens'] for point in points]
  for name, k, dashes in (('pass_at_1', 1, (4, 3)), ('pass_at_k', beside.get('k'), (1, 2))):
    if points:
      axis.plot(
        tokens,
        [point[name] for point in points],
        color=MUTED,
        linewidth=1.6,
        linestyle=(0, dashes),
        label=f'{visible(beside["label"])}: pass@{k}',
      )
