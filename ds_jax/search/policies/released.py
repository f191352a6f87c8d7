"""The released code's search, with the defects that its recorded traces show."""

from __future__ import annotations

from ds_jax.search.policies.serial import serial_policy
from ds_jax.search.settings import Defects

# A spent budget, which the released code does not know, ends a tree like a missing node does.
FAITHFUL = serial_policy(
  Defects(
    misses_end_in_last_place=True,
    first_end_wins_without_confidence=True,
    loses_passed_over_ends=True,
    keeps_degenerate=True,
    pays_cut_ends=True,
  )
)
