"""The session of a command: what it works on, whom it tells, when it stops, and with whom."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from ds_jax.config import Config
from ds_jax.hub import local_folder
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

  @property
  def data_dir(self) -> str:
    """The folder, or bucket, of prepared problems."""
    return self.config.data.data_dir or str(self.workdir.data)

  @property
  def model_folder(self) -> pathlib.Path:
    """Folder of config.model.path, or what `ds-jax warmstart` leaves in the workdir."""
    path = self.config.model.path
    return local_folder(path) if path else self.workdir.warmstart
