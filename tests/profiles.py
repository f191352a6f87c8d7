"""Reads the profiles of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from jax.profiler import ProfileData

from ds_jax.run.workdir import Workdir

PHASES = ('search', 'verify', 'score', 'update')


def files(workdir: Workdir) -> list[pathlib.Path]:
  """The profiles of a workdir, by their first steps."""
  return sorted(workdir.profile.rglob('*.xplane.pb'))


def spans_of(path: pathlib.Path) -> Iterator[tuple[str, int | None]]:
  """('train', step) of the steps and (name, None) of the phases in a profile, in order."""
  for plane in ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        if event.name == 'train' and 'step_num' in dict(event.stats):
          yield 'train', dict(event.stats)['step_num']
        elif event.name in PHASES:
          yield event.name, None
