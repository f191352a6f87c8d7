"""The session of a command: what it works on, whom it tells, when it stops, and with whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ds_jax.config import Config
from ds_jax.interfaces import ALONE, Progress, Team
from ds_jax.run.workdir import Workdir


def never() -> bool:
  """The `should_stop` of a session that nobody interrupts."""
  return False


@dataclasses.dataclass(frozen=True)
class Session:
  """What a command passes on; commands without a config or a workdir have None there."""

  config: Config | None
  workdir: Workdir | None
  progress: Progress
  should_stop: Callable[[], bool] = never  # polled by long phases
  team: Team = ALONE  # the processes that run the command together
  step: str = ''  # of the checkpoint to read: a training step, or 'best'; '': the newest
  model: str = ''  # folder of tokenizer and config.json, instead of those that the run names

  @property
  def data_dir(self) -> str:
    """The folder, or bucket, of prepared problems."""
    return self.config.data.data_dir or str(self.workdir.data)
