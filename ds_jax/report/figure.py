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

from ds_jax.report.axes import (
  BEFORE,
  EVALUATE,
  INK,
  MUTED,
  SECOND,
  THIRD,
  TRAIN,
  distances,
  finish,
  percent_axis,
  running_mean,
  style,
)
from ds_jax.report.curve import draw_curve
from ds_jax.report.metrics import series
from ds_jax.report.summary import result_figures

Metrics = Sequence[Mapping[str, Any]]
Panel = Callable[[Any, Metrics], None]  # draws one quantity on an axis


def draw_figure(metrics: Metrics, summary: Mapping[str, Any]) -> bytes:
  """Returns a PNG, 1560 x 1200 pixels.

  Args:
    metrics: rows of read_metrics; panels without data say so.
    summary: `before` and `after` of report/summary.py give the bars, `beside` a curve of others.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(13, 10), dpi=120, layout='constrained', facecolor='white')
  figure.get_layout_engine().set(w_pad=0.14, h_pad=0.1)  # inches
  FigureCanvasAgg(figure)
  top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.5, 1, 1], hspace=0.04)
  curve, bars = top.subplots(1, 2, width_ratios=[3, 1])
  draw_curve(curve, metrics, summary.get('beside') or {})
  _draw_bars(bars, summary)
  optimisation = (_draw_ratio, _draw_clip, _draw_entropy, _draw_norm)
  _draw_row(middle, metrics, search_panels(metrics), title='Search')
  _draw_row(bottom, metrics, optimisation, title='Optimisation')
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', metadata={'Software': None})  # same run, same bytes
  return buffer.getvalue()


def search_panels(metrics: Metrics) -> list[Panel]:
  """The panels of the search: what forks bring is for runs that have some."""
  panels = [_draw_solved, _draw_reward, _draw_expansions, _draw_shares]
  if _names_by_depth(metrics):
    panels.append(_draw_depths)
  return panels


def _draw_row(part: Any, metrics: Metrics, panels: Sequence[Panel], *, title: str) -> None:
  """Draws panels side by side under one title."""
  part.suptitle(title, x=0.008, ha='left', fontsize=13, fontweight='bold', color=INK)
  for axis, draw in zip(part.subplots(1, len(panels)), panels, strict=True):
    draw(axis, metrics)


def _mark_rounds(axis: Any, metrics: Metrics) -> None:
  """Draws a thin line where a later round starts, on problems that are still hard."""
  for step in _round_ends(metrics):
    axis.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    axis.annotate(
      'only what is\nstill hard',
      (step, 0.8),
      xycoords=('data', 'axes fraction'),
      xytext=(4, 0),
      textcoords='offset points',
      fontsize=8,
      color=MUTED,
    )


def _round_ends(metrics: Metrics) -> list[int]:
  """The last steps of all rounds but the last one."""
  return [row['step'] for row in metrics if row['kind'] == 'filter' and row['step'] > 0]


def _draw_bars(axis: Any, summary: Mapping[str, Any]) -> None:
  """The result before and after, with 95 % intervals; a run that has only 'after' shows it."""
  name, before, after = result_figures(summary)
  style(axis, 'Held-out pass@1' if name == 'pass@1' else 'Mean over sets', size=13)
  percent_axis(axis)
  axis.grid(visible=False, axis='x')
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
  reach = distances(evaluation)
  axis.bar(
    x,
    share,
    width=0.6,
    color=colour,
    yerr=reach,
    capsize=5,
    error_kw={'elinewidth': 1.4, 'ecolor': INK},
  )
  axis.annotate(
    f'{100 * share:.1f} %',
    (x, share + np.nan_to_num(reach[1, 0])),
    ha='center',
    va='bottom',
    xytext=(0, 4),
    textcoords='offset points',
    fontsize=12,
    fontweight='bold',
    color=INK,
  )


def _draw_solved(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Problems solved (training)')
  percent_axis(axis)
  _plot(axis, metrics, 'search/solve_rate', colour=TRAIN)
  _mark_rounds(axis, metrics)
  finish(axis)


def _draw_reward(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Mean reward of collected ends')
  _plot(axis, metrics, 'search/reward', colour=TRAIN)
  finish(axis)


def _draw_expansions(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Expansions per tree')
  _plot(axis, metrics, 'search/expansions_per_tree', colour=TRAIN)
  finish(axis)


def _draw_shares(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Shares')
  percent_axis(axis)
  _plot(axis, metrics, 'time/occupancy', colour=THIRD, label='slots at work')
  _plot(axis, metrics, 'search/yield', colour=TRAIN, label='tokens that are trained on')
  _plot(axis, metrics, 'time/recomputed_share', colour=SECOND, label='tokens encoded again')
  finish(axis, loc='upper left')
  if axis.has_data():
    axis.set_ylim(0, max(1.55, 1.5 * axis.get_ylim()[1]))  # the legend stands above the lines
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])


def _draw_depths(axis: Any, metrics: Metrics) -> None:
  """Median over the steps of U/x by depth; where it is below 1, forking cannot pay."""
  style(axis, 'U/x by split depth (median)')
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
      'below the line forking cannot pay',
      (1, top),
      xycoords=('axes fraction', 'data'),
      ha='right',
      va='top',
      fontsize=8.5,
      color=EVALUATE,
    )
    axis.set_ylim(0, top)
    axis.xaxis.get_major_locator().set_params(integer=True)
  finish(axis)


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
  style(axis, 'Importance ratio − 1, first update')
  _plot(axis, metrics, 'train/ratio_first', colour=TRAIN, transform=lambda ratio: ratio - 1)
  finish(axis)
  largest = max(np.abs(axis.get_ylim()))
  limit = max(largest, 1e-6)  # float noise does not fill the panel
  axis.set_ylim(-limit, limit)

  def tick(y: float, _: int) -> str:
    return '0' if abs(y) < largest / 1e3 else f'{y:.0e}'

  axis.yaxis.set_major_formatter(tick)


def _draw_clip(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Clipped tokens')
  percent_axis(axis, digits=2)
  _plot(axis, metrics, 'train/clip_fraction', colour=TRAIN)
  finish(axis)
  axis.set_ylim(0, max(axis.get_ylim()[1], 1e-4))


def _draw_entropy(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Entropy (nats)')
  _plot(axis, metrics, 'train/entropy', colour=TRAIN)
  finish(axis)


def _draw_norm(axis: Any, metrics: Metrics) -> None:
  style(axis, 'Gradient norm')
  _plot(axis, metrics, 'train/grad_norm', colour=TRAIN)
  finish(axis)


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
