"""A Progress for tests of what people are told."""

from __future__ import annotations

from ds_jax.interfaces import SilentProgress


class Notes(SilentProgress):
  """Keeps what it is told; phases are silent."""

  def __init__(self) -> None:
    self.messages: list[str] = []

  def note(self, message: str) -> None:
    self.messages.append(message)
