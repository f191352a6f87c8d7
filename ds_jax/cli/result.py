"""What a command hands back."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Result:
  """The outcome of a command."""

  summary: dict[str, Any]  # what --json prints
  text: str = ''  # what a person reads
  exit_code: int = 0  # an ExitCode
