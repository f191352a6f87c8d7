"""What a command hands back."""

from __future__ import annotations

import dataclasses
from typing import Any

from ds_jax.run.stopping import ExitCode


@dataclasses.dataclass(frozen=True)
class Result:
  """The outcome of a command."""

  summary: dict[str, Any]  # what --json prints
  text: str = ''  # what a person reads
  exit_code: int = ExitCode.DONE
