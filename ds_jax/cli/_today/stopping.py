"""Exit codes, and how a run is stopped."""

from __future__ import annotations

import enum

from ds_jax.run.workdir import Stopped, StoppedAlone, StopRequest

__all__ = ['ExitCode', 'StopRequest', 'Stopped', 'StoppedAlone']


class ExitCode(enum.IntEnum):
  DONE = 0
  DEFECT = 1
  BAD_INPUT = 2
  TOO_LARGE = 3
  NOT_COMPILED = 4
  TERMINATED = 42
  CANNOT_WRITE = 74
  INTERRUPTED = 130
  LOST_PEER = 134
