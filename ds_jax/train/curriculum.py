"""Rounds: which problems are hard, and in which order they are trained on. Pure functions.

The batch of a step depends on (hard set, seed, round, step) alone, so that a resumed run needs no
cursor beyond its counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

_PURPOSE = 0x0C0DE  # keeps these random numbers apart from others of the same seed


def hard_problems(pass_rates: Mapping[str, float], threshold: float) -> tuple[str, ...]:
  """Returns the problems with pass@1 below a threshold, sorted (arXiv:2509.25454, section 4.3)."""
  hard = [name for name, rate in pass_rates.items() if rate < threshold]
  return tuple(sorted(hard))


def problem_order(
  ids: Iterable[str], seed: int, round_index: int, *, epoch: int
) -> tuple[str, ...]:
  """Returns the order of one epoch of one round; the order of `ids` does not matter."""
  ids = sorted(ids)
  entropy = np.random.SeedSequence((_PURPOSE, seed, round_index, epoch))
  rng = np.random.default_rng(entropy)
  return tuple(ids[i] for i in rng.permutation(len(ids)))


def num_rehearsed(batch_size: int, share: float, num_easy: int) -> int:
  """Returns how many places of a batch are for problems outside the hard set.

  Args:
    batch_size: places.
    share: of them, `curriculum.rehearsal_share`.
    num_easy: problems outside the hard set; without any there is no such place.
  """
  if not num_easy:
    return 0
  return round(batch_size * share)


def batch_of(
  ids: Iterable[str], batch_size: int, *, seed: int, round_index: int, step: int
) -> tuple[str, ...]:
  """Returns the problems of one training step.

  Epochs follow one another without a gap, so a batch may span two and then hold a problem twice;
  with fewer problems than `batch_size` every batch does.

  Args:
    ids: the hard set of the round, not empty.
    batch_size: problems per step.
    seed: the run's, >= 0.
    round_index: from 0.
    step: within the round, from 0.

  Raises:
    ValueError: if `ids` is empty.
  """
  ids = tuple(ids)
  if not ids:
    raise ValueError(
      'Expected at least one problem to train on, got none; the run ends when a '
      'round has no hard problem left.'
    )
  orders: dict[int, tuple[str, ...]] = {}  # by epoch
  batch = []
  for place in range(step * batch_size, (step + 1) * batch_size):
    epoch, index = divmod(place, len(ids))
    if epoch not in orders:
      orders[epoch] = problem_order(ids, seed, round_index, epoch=epoch)
    batch.append(orders[epoch][index])
  return tuple(batch)
