"""The picture of a run (PNG) and its report (one HTML file that works offline)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ds_jax.report.figure import draw_figure
from ds_jax.report.page import render_page
from ds_jax.report.summary import make_summary, summary_table

__all__ = ['summary_table', 'write_report']

PAGE_NAME = 'report.html'
PICTURE_NAME = 'report.png'


def write_report(
  workdir: str | Path, metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> tuple[Path, Path]:
  """Writes `workdir/report.html` and `workdir/report.png`; a run without steps has a report too.

  Each file is complete or absent: it is written beside its place and then renamed.

  Args:
    workdir: an existing folder.
    metrics: rows of read_metrics.
    summary: fields of report/summary.py; what is missing is taken from the metrics.

  Returns:
    The paths of the page and of the picture.
  """
  summary = {**make_summary(metrics), **summary}
  picture = draw_figure(metrics, summary)
  page_path, picture_path = Path(workdir) / PAGE_NAME, Path(workdir) / PICTURE_NAME
  _write_atomically(picture_path, picture)
  _write_atomically(page_path, render_page(metrics, summary, picture).encode())
  return page_path, picture_path


def _write_atomically(path: Path, content: bytes) -> None:
  descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  try:
    with os.fdopen(descriptor, 'wb') as f:
      f.write(content)
      f.flush()
      os.fsync(f.fileno())
    os.chmod(name, 0o644)  # mkstemp's files are for their owner only
    os.replace(name, path)
  except BaseException:
    Path(name).unlink(missing_ok=True)
    raise
