"""A verifier for tests: whether a text is correct depends on its characters alone, a third are."""

from __future__ import annotations

import zlib


def verify(gold: str, response: str) -> bool:
  """Answers differ from text to text, so that even an untrained decoder solves something."""
  return zlib.crc32(f'{gold}/{response}'.encode()) % 3 == 0


def verify_early(gold: str, response: str) -> bool:
  """A right answer is soon there: the longer a text, the likelier."""
  del gold
  return '+' in response.split()
