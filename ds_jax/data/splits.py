"""Splits of the embedded tasks: what a problem is says which split may use it."""

from __future__ import annotations

import hashlib

SPLITS = ('warmstart', 'train', 'heldout')

# The hash of a problem, in [0, 1), says which split may use it, whatever the sizes and the seed.
_SPLIT_ENDS = {'heldout': 0.125, 'train': 0.5, 'warmstart': 1.0}


def split_of(identity: str) -> str:
  """The one split that may use the problem of this identity: warmstart, train or heldout."""
  digest = hashlib.sha256(identity.encode()).digest()
  position = int.from_bytes(digest[:8], 'big') / 2**64  # uniform in [0, 1)
  return next(split for split, end in _SPLIT_ENDS.items() if position < end)
