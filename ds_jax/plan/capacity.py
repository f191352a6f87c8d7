"""The largest number of decoder slots that fits a device."""

from __future__ import annotations

import jax

from ds_jax.plan.parts import Part, Use, measure

_MAX_SLOTS = 4096  # beyond that nothing is gained, and numbers of bytes overflow
_MULTIPLE = 8  # paths are read by groups of an eighth of the slots
_ATTEMPTS = 2


def largest_slots(part: Part, use: Use | None, memory: int) -> tuple[int, bool]:
  """Slots per device, and whether a compilation has shown that they fit.

  Caches grow linearly with the slots, temporaries at most: that gives a number, which is compiled;
  if it does not fit after all, its size corrects the line.

  Args:
    part: an expansion.
    use: of that part, None if the compiler found that it does not fit even alone.
    memory: bytes per device.
  """
  expansion, other_bytes = part.expansion, part.resident.parameters + part.resident.optimizer
  fits = 0  # slots of which a compilation has shown it
  if use is None:  # a quarter of the caches for temporaries, to begin with
    per_slot = 1.25 * part.resident.caches / expansion.num_slots
  else:
    per_slot = (use.total - other_bytes) / expansion.num_slots
    if use.total <= memory:
      fits = expansion.num_slots
  for _ in range(_ATTEMPTS):
    slots = _rounded((memory - other_bytes) / per_slot)
    if slots <= fits:
      break
    use = _measure(expansion.with_slots(slots))
    if use is not None and use.total <= memory:
      return slots, True
    per_slot = 1.15 * per_slot if use is None else (use.total - other_bytes) / slots
  return (fits, True) if fits else (max(0, slots), False)


def _rounded(slots: float) -> int:
  slots = max(0, min(int(slots), _MAX_SLOTS))
  return slots if slots < _MULTIPLE else slots - slots % _MULTIPLE


def _measure(part: Part) -> Use | None:
  """Of a part, what it uses; None if the compiler finds that it does not fit even alone."""
  try:
    return measure(part).use
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    return None
