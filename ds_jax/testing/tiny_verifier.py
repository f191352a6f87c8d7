"""A verifier for tests: whether a text is correct depends on its characters alone, a third are."""

from __future__ import annotations

import zlib


def verify(gold: str, response: str) -> bool:
  """Answers differ from text to text, so that even an untrained decoder solves something."""
  return zlib.crc32(f'{gold}/{response}'.encode()) % 3 == 0
