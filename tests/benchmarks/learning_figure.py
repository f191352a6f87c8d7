"""The figure of learning.py: what arms reach by what they spend, as SVG."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from learning_arms import FIRST_TUNING_SEED
from learning_points import PASS_RATES, Point, curves, read_points
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_COSTS = {
  'tokens': ('million generated tokens', 1e-6),
  'update_tokens': ('million update tokens', 1e-6),
  'processor_seconds': ('processor seconds of training', 1.0),
}
_TITLES = {'pass_at_1': 'pass@1', 'hard_pass_at_1': 'hard pass@1', 'pass_at_k': 'pass@k'}
# Of middle lightness: readable on white and on dark pages.
_COLOURS = ('#3b82c4', '#e0702a', '#2a9d6e', '#b065c9', '#c9a227', '#d1495b', '#5aa9a3', '#8a8f98')
_TEXT = '#7d8590'
_GRID = '#7d859040'  # the last two digits: opacity
_MAX_POINTS = 10  # of a drawn curve; more cannot be told apart, and make the file large

_METADATA = ('Creator', 'Date', 'Format', 'Type')  # left out

Runs = dict[str, list[list[Point]]]  # points of each run, by arm
Curve = tuple[np.ndarray, np.ndarray]  # cost and pass rate of each point of a run


@dataclasses.dataclass(frozen=True)
class Panels:
  """What is drawn: a row for each pass rate, a column for each cost, and what arms are called."""

  rates: Sequence[str] = PASS_RATES
  costs: Sequence[str] = tuple(_COSTS)
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # others: the arm's name


def draw(task: str, arms: Sequence[str], panels: Panels = Panels()) -> str:  # noqa: B008, frozen
  """Draws pass rates of arms over what they cost: thin lines are seeds, thick ones their means.

  Args:
    task: whose finished runs on test seeds are drawn.
    arms: those that are drawn; others are left out.
    panels: pass rates, costs and labels of arms.

  Returns:
    SVG with a transparent background; the same points give the same text.
  """
  buffer = io.StringIO()
  settings = {'svg.fonttype': 'none', 'svg.hashsalt': task, 'font.sans-serif': ['DejaVu Sans']}
  with matplotlib.rc_context(settings):
    figure = draw_panels(_runs_by_arm(task, arms), panels)
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format='svg', transparent=True, metadata=dict.fromkeys(_METADATA))
  return _compact(buffer.getvalue())


def _compact(svg: str) -> str:
  """The same picture in fewer characters: lengths to a tenth of a point, no names of groups."""
  rounded = re.sub(r'\d+\.\d{2,}', lambda match: f'{float(match[0]):.1f}', svg)
  unnamed = re.sub(r'<g id="[^"]*">', '<g>', rounded)
  upright = re.sub(r' transform="rotate\(-0 [^"]*"', '', unnamed)
  short = re.sub(r'\s*\nL ', ' ', upright)  # lines go on without the letter
  return '\n'.join(line.strip() for line in short.splitlines()) + '\n'


def draw_panels(runs: Runs, panels: Panels) -> Figure:
  """A panel for each pass rate over each cost."""
  shape = len(panels.rates), len(panels.costs)
  figure = Figure(figsize=(11, 0.4 + 2.7 * shape[0]), layout='constrained')
  axes = figure.subplots(*shape, sharex='col', sharey='row', squeeze=False)
  named = {panels.labels.get(arm, arm): of_arm for arm, of_arm in runs.items()}
  for rate, row in zip(panels.rates, axes, strict=True):
    for cost, axis in zip(panels.costs, row, strict=True):
      _draw_panel(axis, named, cost=cost, rate=rate)
  _label(axes, panels)
  handles, labels = axes[0, 0].get_legend_handles_labels()
  legend = figure.legend(handles, labels, loc='outside upper center', ncols=4, frameon=False)
  for text in legend.get_texts():
    text.set_color(_TEXT)
  return figure


def _runs_by_arm(task: str, arms: Sequence[str]) -> Runs:
  """The points of each finished run on a test seed, by arm, in the order of `arms`."""
  runs: Runs = {arm: [] for arm in arms}
  for (of_task, arm, seed), of_run in curves(read_points()).items():
    if of_task == task and arm in runs and seed < FIRST_TUNING_SEED:
      runs[arm].append(of_run)
  return {arm: of_arm for arm, of_arm in runs.items() if of_arm}


def _draw_panel(axis: Any, runs: Runs, *, cost: str, rate: str) -> None:
  """One pass rate over one cost; runs without that cost are left out."""
  for i, (arm, of_arm) in enumerate(runs.items()):
    colour = _COLOURS[i % len(_COLOURS)]
    curves = [_curve(points, cost, rate) for points in of_arm if cost in points[-1]]
    if curves:
      axis.plot(*_side_by_side(curves), color=colour, linewidth=0.8, alpha=0.5)
      axis.plot(*_mean_curve(curves), color=colour, linewidth=2.2, label=f'{arm} ({len(of_arm)})')


def _curve(points: Sequence[Point], cost: str, rate: str) -> Curve:
  scale = _COSTS[cost][1]
  if len(points) > _MAX_POINTS:
    chosen = np.linspace(0, len(points) - 1, _MAX_POINTS).round().astype(int)
    points = [points[i] for i in chosen]
  # The first point has cost nothing.
  x = np.array([scale * point.get(cost, 0.0) for point in points])
  return x, np.array([100 * point[rate] for point in points])


def _side_by_side(curves: Sequence[Curve]) -> Curve:
  """Curves as one, which is interrupted between them."""
  gap = np.array([[np.nan], [np.nan]])
  x, y = np.hstack([np.hstack([curve, gap]) for curve in curves])
  return x, y


def _mean_curve(curves: Sequence[Curve]) -> Curve:
  """The mean of curves, as far as all of them go."""
  x = np.linspace(0, min(x[-1] for x, _ in curves), _MAX_POINTS)
  return x, np.mean([np.interp(x, *curve) for curve in curves], axis=0)


def _label(axes: np.ndarray, panels: Panels) -> None:
  for axis in axes.flat:
    axis.patch.set_visible(False)
    axis.grid(axis='y', color=_GRID, linewidth=0.8)
    axis.locator_params(nbins=3)
    axis.tick_params(colors=_TEXT, labelsize=9, bottom=False, left=False)
    axis.spines[:].set_visible(False)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
  for axis, cost in zip(axes[-1], panels.costs, strict=True):
    axis.set_xlabel(_COSTS[cost][0], color=_TEXT)
  for axis, rate in zip(axes[:, 0], panels.rates, strict=True):
    axis.set_ylabel(f'{_TITLES[rate]}, %', color=_TEXT)
