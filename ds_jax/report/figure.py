"""The picture of a run: learning curve, before and after, search statistics, optimisation.

Small multiples with one quantity each (or a few shares of one axis): quantities of different size
are not put on one axis. Uses matplotlib's objects only; pyplot's global state stays untouched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.report.metrics import series

TRAIN, EVALUATE, BEFORE = '#2563a8', '#d9480f', '#8a929c'
SECOND, THIRD = '#0f8a72', '#8a5fb0'
INK, MUTED, GRID = '#20262d', '#6b7480', '#e4e7eb'

Metrics = Sequence[Mapping[str, Any]]
Panel = Callable[[Any, Metrics], None]  # draws one quantity on an axis


def draw_figure(metrics: Metrics, summary: Mapping[str, Any]) -> bytes:
  """Returns a PNG, 1560 x 1200 pixels.

  Args:
    metrics: rows of read_metrics; panels without data say so.
    summary: `before` and `after` of report/summary.py give the bars.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(13, 10), dpi=120, layout='constrained', facecolor='white')
  figure.get_layout_engine().set(w_pad=0.14, h_pad=0.1)  # inches
  FigureCanvasAgg(figure)
  top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.5, 1, 1], hspace=0.04)
  curve, bars = top.subplots(1, 2, width_ratios=[3, 1])
  _draw_curve(curve, metrics)
  _draw_bars(bars, summary)
  search = (_draw_reward, _draw_expansions, _draw_shares, _draw_depths)
  optimisation = (_draw_ratio, _draw_clip, _draw_entropy, _draw_norm)
  _draw_row(middle, metrics, search, title='Search')
  _draw_row(bottom, metrics, optimisation, title='Optimisation')
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', metadata={'Software': None})  # same run, same bytes
  return buffer.getvalue()


def _draw_row(part: Any, metrics: Metrics, panels: Sequence[Panel], *, title: str) -> None:
  """Draws panels side by side under one title."""
  part.suptitle(title, x=0.008, ha='left', fontsize=13, fontweight='bold', color=INK)
  for axis, draw in zip(part.subplots(1, len(panels)), panels, strict=True):
    draw(axis, metrics)


def _draw_curve(axis: Any, metrics: Metrics) -> None:
  """Solve rate of the trees by training step, and pass@1 where it was evaluated."""
  _style(axis, 'Learning curve', size=13)
  _percent_axis(axis)
  axis.set_xlabel('training step', fontsize=10, color=MUTED)
  label = 'problems solved by search (training)'
  _plot(axis, metrics, 'search/solve_rate', colour=TRAIN, label=label)
  _plot_evaluations(axis, metrics)
  _mark_rounds(axis, metrics)
  _finish(axis)
  if axis.has_data():
    axis.set_ylim(0, axis.get_ylim()[1])


def _plot_evaluations(axis: Any, metrics: Metrics) -> None:
  """Held-out pass@1 as points with 95 % intervals; grey before training."""
  before, after = [], []
  for row in metrics:
    if row['kind'] == 'evaluate' and row.get('evaluate/pass_at_1') is not None:
      (before if row.get('when') == 'before' else after).append(row)
  _plot_points(axis, before, colour=BEFORE, label='held-out pass@1 before training')
  _plot_points(axis, after, colour=EVALUATE, label='held-out pass@1 after it')


def _plot_points(axis: Any, evaluations: Metrics, *, colour: str, label: str) -> None:
  if not evaluations:
    return
  axis.errorbar(
    [row['step'] for row in evaluations],
    [row['evaluate/pass_at_1'] for row in evaluations],
    yerr=np.hstack([_distances(row, prefix='evaluate/') for row in evaluations]),
    fmt='o',
    color=colour,
    markersize=7,
    capsize=4,
    linewidth=1.6,
    zorder=5,
    label=label,
  )


def _mark_rounds(axis: Any, metrics: Metrics) -> None:
  """Draws a thin line where a later round starts, on problems that are still hard."""
  for step in _round_ends(metrics):
    axis.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    axis.annotate(
      'only what is\nstill hard',
      (step, 0.62),
      xycoords=('data', 'axes fraction'),
      xytext=(5, 0),
      textcoords='offset points',
      fontsize=9,
      color=MUTED,
    )


def _round_ends(metrics: Metrics) -> list[int]:
  """The last steps of all rounds but the last one."""
  return [row['step'] for row in metrics if row['kind'] == 'filter' and row['step'] > 0]


def _draw_bars(axis: Any, summary: Mapping[str, Any]) -> None:
  """Held-out pass@1 before and after, with 95 % intervals; a run that has only 'after' shows it."""
  _style(axis, 'Held-out pass@1', size=13)
  _percent_axis(axis)
  axis.grid(visible=False, axis='x')
  before, after = summary.get('before') or {}, summary.get('after') or {}
  bars = {'before': (before, BEFORE), 'after': (after, EVALUATE)}
  if after and not before:
    del bars['before']
  for x, (evaluation, colour) in enumerate(bars.values()):
    _draw_bar(axis, x, evaluation, colour=colour)
  axis.set_xticks(range(len(bars)), list(bars), fontsize=11)
  axis.set_xlim(-0.6, len(bars) - 0.4)
  axis.set_ylim(0, max(axis.get_ylim()[1] * 1.1, 0.01))


def _draw_bar(axis: Any, x: float, evaluation: Mapping[str, Any], *, colour: str) -> None:
  """One bar with its interval and its number above; words where nothing was evaluated."""
  share = evaluation.get('pass_at_1')
  if share is None:
    axis.annotate(
      'not yet',
      (x, 0),
      ha='center',
      va='bottom',
      xytext=(0, 4),
      textcoords='offset points',
      fontsize=10,
      color=MUTED,
    )
    return
  distances = _distances(evaluation)
  axis.bar(
    x,
    share,
    width=0.6,
    color=colour,
    yerr=distances,
    capsize=5,
    error_kw={'elinewidth': 1.4, 'ecolor': INK},
  )
  axis.annotate(
    f'{100 * share:.1f} %',
    (x, share + np.nan_to_num(distances[1, 0])),
    ha='center',
    va='bottom',
    xytext=(0, 4),
    textcoords='offset points',
    fontsize=12,
    fontweight='bold',
    color=INK,
  )


def _draw_reward(axis: Any, metrics: Metrics) -> None:
  _style(axis, 'Mean reward of collected ends')
  _plot(axis, metrics, 'search/reward', colour=TRAIN)
  _finish(axis)


def _draw_expansions(axis: Any, metrics: Metrics) -> None:
  _style(axis, 'Expansions per tree')
  _plot(axis, metrics, 'search/expansions_per_tree', colour=TRAIN)
  _finish(axis)


def _draw_shares(axis: Any, metrics: Metrics) -> None:
  _style(axis, 'Shares')
  _percent_axis(axis)
  _plot(axis, metrics, 'time/occupancy', colour=THIRD, label='slots at work')
  _plot(axis, metrics, 'search/yield', colour=TRAIN, label='tokens that are trained on')
  _plot(axis, metrics, 'time/recomputed_share', colour=SECOND, label='tokens encoded again')
  _finish(axis, loc='upper left')
  if axis.has_data():
    axis.set_ylim(0, max(1.55, 1.5 * axis.get_ylim()[1]))  # the legend stands above the lines
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])


def _draw_depths(axis: Any, metrics: Metrics) -> None:
  """Median over the steps of U/x by depth; above 1, forking there beats restarting."""
  _style(axis, 'U/x by split depth (median)')
  medians = {}
  for depth, name in sorted(_names_by_depth(metrics).items()):
    _, values = series(metrics, 'train', name)
    if values:
      medians[depth] = np.median(values)
  if medians:
    axis.bar(list(medians), list(medians.values()), width=0.6, color=TRAIN)
    axis.axhline(1, color=EVALUATE, linewidth=1.2, linestyle=(0, (4, 3)))
    top = max(1.3, 1.25 * max(medians.values()))
    axis.annotate(
      'above the line: forking pays',
      (1, top),
      xycoords=('axes fraction', 'data'),
      ha='right',
      va='top',
      fontsize=8.5,
      color=EVALUATE,
    )
    axis.set_ylim(0, top)
    axis.xaxis.get_major_locator().set_params(integer=True)
  _finish(axis)


def _names_by_depth(metrics: Metrics) -> dict[int, str]:
  """Names of the metrics of U/x, by the depth that they are of."""
  pattern = re.compile(r'search/u_over_x_depth_(\d+)$')
  names = {}
  for row in metrics:
    for name in row:
      match = pattern.match(name)
      if match:
        names[int(match[1])] = name
  return names


def _draw_ratio(axis: Any, metrics: Metrics) -> None:
  """How far search and learner disagree about one parameter vector; float noise if sound."""
  _style(axis, 'Importance ratio − 1, first update')
  _plot(axis, metrics, 'train/ratio_first', colour=TRAIN, transform=lambda ratio: ratio - 1)
  _finish(axis)
  largest = max(np.abs(axis.get_ylim()))
  limit = max(largest, 1e-6)  # float noise does not fill the panel
  axis.set_ylim(-limit, limit)

  def tick(y: float, _: int) -> str:
    return '0' if abs(y) < largest / 1e3 else f'{y:.0e}'

  axis.yaxis.set_major_formatter(tick)


def _draw_clip(axis: Any, metrics: Metrics) -> None:
  _style(axis, 'Clipped tokens')
  _percent_axis(axis, digits=2)
  _plot(axis, metrics, 'train/clip_fraction', colour=TRAIN)
  _finish(axis)
  axis.set_ylim(0, max(axis.get_ylim()[1], 1e-4))


def _draw_entropy(axis: Any, metrics: Metrics) -> None:
  _style(axis, 'Entropy (nats)')
  _plot(axis, metrics, 'train/entropy', colour=TRAIN)
  _finish(axis)


def _draw_norm(axis: Any, metrics: Metrics) -> None:
  _style(axis, 'Gradient norm')
  _plot(axis, metrics, 'train/grad_norm', colour=TRAIN)
  _finish(axis)


def _plot(
  axis: Any,
  metrics: Metrics,
  name: str,
  *,
  colour: str,
  label: str | None = None,
  transform: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> None:
  """Each step as a faint line, and a running mean over it, apart for every round."""
  steps, values = series(metrics, 'train', name)
  if not steps:
    return
  values = transform(np.array(values))
  axis.plot(steps, values, color=colour, linewidth=0.9, alpha=0.3)
  radius = max(1, len(values) // 12)
  ends = np.searchsorted(steps, _round_ends(metrics), side='right')
  rounds = zip(np.split(np.array(steps), ends), np.split(values, ends), strict=True)
  for x, y in rounds:
    if not len(x):
      continue
    mean = running_mean(y, radius)
    marker = 'o' if len(x) == 1 else None  # a line needs two points
    axis.plot(x, mean, color=colour, linewidth=2, label=label, marker=marker)
    label = None  # one entry of the legend for all rounds


def running_mean(values: np.ndarray, radius: int) -> np.ndarray:
  """Returns the mean of the up to 2 * radius + 1 values around each; `[n]` to `[n]` float64."""
  sums = np.concatenate([[0.0], np.cumsum(values)])  # sums[i]: of the first i values
  index = np.arange(len(values))
  low = np.maximum(index - radius, 0)
  high = np.minimum(index + radius + 1, len(values))
  return (sums[high] - sums[low]) / (high - low)


def _distances(evaluation: Mapping[str, Any], prefix: str = '') -> np.ndarray:
  """How far the interval reaches below and above pass@1, `[2, 1]`; NaN draws none."""
  share = evaluation[f'{prefix}pass_at_1']
  low = evaluation.get(f'{prefix}pass_at_1_low')
  high = evaluation.get(f'{prefix}pass_at_1_high')
  if low is None or high is None:
    return np.full((2, 1), np.nan)
  return np.maximum([[share - low], [high - share]], 0)


def _style(axis: Any, title: str, size: float = 10.5) -> None:
  weight = 'bold' if size > 12 else 'normal'
  axis.set_title(title, loc='left', fontsize=size, color=INK, pad=8, fontweight=weight)
  for side in ('top', 'right', 'left'):
    axis.spines[side].set_visible(False)
  axis.spines['bottom'].set_color(MUTED)
  axis.tick_params(colors=MUTED, labelsize=9, length=0, pad=5)
  axis.locator_params(axis='y', nbins=6)
  axis.grid(color=GRID, linewidth=0.9, axis='y')
  axis.set_axisbelow(True)


def _percent_axis(axis: Any, digits: int = 0) -> None:
  axis.yaxis.set_major_formatter(lambda y, _: f'{round(100 * y, digits):g} %')


def _finish(axis: Any, loc: str = 'best') -> None:
  """A legend where lines are named; a word where there is nothing to see."""
  if axis.get_legend_handles_labels()[0]:
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, loc=loc, handlelength=1.4)
  elif not axis.has_data():
    axis.text(
      0.5,
      0.5,
      'no data',
      transform=axis.transAxes,
      ha='center',
      va='center',
      fontsize=10,
      color=MUTED,
    )
    axis.set_xticks([])
    axis.set_yticks([])
