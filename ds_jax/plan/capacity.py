"""The largest number of decoder slots that fits a device."""

from __future__ import annotations

import jax

from ds_jax.plan.programs import Part, Use, measure

_MAX_SLOTS = 4096  # beyond that nothing is gained, and numbers of bytes overflow
_MULTIPLE = 8  # paths are read by groups of an eighth of the slots
_ATTEMPTS = 2


def largest_slots(part: Part, use: Use | None, memory: int) -> tuple[int, bool]:
  """Slots per device, and whether a compilation has shown that they fit.

  Caches grow linearly with the slots, temporaries at most: that gives a number, which is compiled;
  if it does not fit after all, its size corrects the line.

  Args:
    part: an expansion; its `with_slots` makes it for other numbers.
    use: of that part, None if the compiler found that it does not fit even alone.
    memory: bytes per device.
  """
  rest = part.parameters + part.optimizer
  if use is None:  # a quarter of the caches for temporaries, to begin with
    per_slot, known = 1.25 * part.caches / part.num_slots, 0
  else:
    per_slot = (use.total - rest) / part.num_slots
    known = part.num_slots if use.total <= memory else 0
  for _ in range(_ATTEMPTS):
    slots = _rounded((memory - rest) / per_slot)
    if slots <= known:
      break
    found = _measure(part.with_slots(slots))
    if found is not None and found.total <= memory:
      return slots, True
    per_slot = 1.15 * per_slot if found is None else (found.total - rest) / slots
  return (known, True) if known else (max(0, slots), False)


def _rounded(slots: float) -> int:
  slots = max(0, min(int(slots), _MAX_SLOTS))
  return slots if slots < _MULTIPLE else slots - slots % _MULTIPLE


def _measure(part: Part) -> Use | None:
  try:
    return measure(part).use
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    return None
