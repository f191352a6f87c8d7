"""What the panels of a report have in common: colours, axes, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TRAIN, EVALUATE, BEFORE = '#2563a8', '#d9480f', '#8a929c'
SECOND, THIRD = '#0f8a72', '#8a5fb0'
# Of several evaluation sets, side by side.
SETS = ('#2563a8', '#0f8a72', '#8a5fb0', '#b8860b', '#c2255c', '#5c940d', '#1098ad', '#6b4f3a')
INK, MUTED, GRID = '#20262d', '#6b7480', '#e4e7eb'


def style(axis: Any, title: str, size: float = 10.5) -> None:
  weight = 'bold' if size > 12 else 'normal'
  axis.set_title(title, loc='left', fontsize=size, color=INK, pad=8, fontweight=weight)
  for side in ('top', 'right', 'left'):
    axis.spines[side].set_visible(False)
  axis.spines['bottom'].set_color(MUTED)
  axis.tick_params(colors=MUTED, labelsize=9, length=0, pad=5)
  axis.locator_params(axis='y', nbins=6)
  axis.grid(color=GRID, linewidth=0.9, axis='y')
  axis.set_axisbelow(True)


def percent_axis(axis: Any, digits: int = 0) -> None:
  axis.yaxis.set_major_formatter(lambda y, _: f'{round(100 * y, digits):g} %')


def finish(axis: Any, loc: str = 'best') -> None:
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


def distances(evaluation: Mapping[str, Any], prefix: str = '') -> np.ndarray:
  """How far the interval reaches below and above pass@1, `[2, 1]`; NaN draws none."""
  share = evaluation[f'{prefix}pass_at_1']
  low = evaluation.get(f'{prefix}pass_at_1_low')
  high = evaluation.get(f'{prefix}pass_at_1_high')
  if low is None or high is None:
    return np.full((2, 1), np.nan)
  return np.maximum([[share - low], [high - share]], 0)


def running_mean(values: np.ndarray, radius: int) -> np.ndarray:
  """Returns the mean of the up to 2 * radius + 1 values around each; `[n]` to `[n]` float64."""
  sums = np.concatenate([[0.0], np.cumsum(values)])  # sums[i]: of the first i values
  index = np.arange(len(values))
  low = np.maximum(index - radius, 0)
  high = np.minimum(index + radius + 1, len(values))
  return (sums[high] - sums[low]) / (high - low)
