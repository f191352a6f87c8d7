"""The picture of a run (PNG) and its report (one HTML file that works offline)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.report.figure import draw_figure
from ds_jax.report.page import render_page
from ds_jax.report.summary import make_summary

PAGE_NAME = 'report.html'
PICTURE_NAME = 'report.png'


def render_report(
  metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> tuple[str, bytes]:
  """The page, which holds the picture too, and the picture; a run without steps has them too.

  Args:
    metrics: rows of read_metrics.
    summary: fields of report/summary.py; what is missing is taken from the metrics.
  """
  summary = {**make_summary(metrics), **summary}
  picture = draw_figure(metrics, summary)
  return render_page(metrics, summary, picture), picture
