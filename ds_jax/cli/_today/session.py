"""What a command passes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ds_jax.cli._today.team import ALONE
from ds_jax.config import Config
from ds_jax.interfaces import Progress, Team
from ds_jax.run.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Session:
  """What every command works with."""

  config: Config | None
  workdir: Workdir | None
  progress: Progress
  should_stop: Callable[[], bool]
  team: Team = ALONE
