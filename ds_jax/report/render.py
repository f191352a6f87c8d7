"""The report of a run: its picture (PNG), and one HTML page around it that works offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ds_jax.report.figure import draw_figure
from ds_jax.report.page import render_page
from ds_jax.report.summary import make_summary

PAGE_NAME = 'report.html'
PICTURE_NAME = 'report.png'


class Report(NamedTuple):
  """The content of the two files."""

  page: str
  picture: bytes


def render_report(metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Report:
  """Returns the report of a run; one without steps has a report, too.

  Args:
    metrics: rows of read_metrics.
    summary: fields of report/summary.py; what is missing is taken from the metrics.
  """
  summary = {**make_summary(metrics), **summary}
  picture = draw_figure(metrics, summary)
  return Report(render_page(metrics, summary, picture), picture)
