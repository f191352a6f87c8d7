"""Rounds: which problems are hard, and in which order they are trained on. Pure functions.

The batch of a step depends on (hard set, seed, round, step) alone, so that a resumed run needs no
cursor beyond its counters. With several sources each has its weight's share of all places so far,
to within a place or so, and goes through its own problems in epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

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
  places = range(step * batch_size, (step + 1) * batch_size)
  return _at_places(ids, places, seed=seed, round_index=round_index)


def mixed_batch(
  ids_of: Mapping[str, Sequence[str]],
  weights: Mapping[str, float],
  batch_size: int,
  *,
  seed: int,
  round_index: int,
  step: int,
) -> tuple[str, ...]:
  """Returns the problems of one training step out of several sources.

  The problems of a source stand evenly spread in the batch, so that its minibatches are mixed, too.

  Args:
    ids_of: the hard set of the round by source; a source without any leaves its places to others.
    weights: of each source, > 0.
    batch_size: problems per step.
    seed: the run's, >= 0.
    round_index: from 0.
    step: within the round, from 0.

  Raises:
    ValueError: if there is no problem.
  """
  present = [source for source in weights if ids_of.get(source)]
  if len(present) < 2:
    ids = ids_of[present[0]] if present else ()
    return batch_of(ids, batch_size, seed=seed, round_index=round_index, step=step)
  shares = [weights[source] for source in present]
  positions: list[tuple[float, int, str]] = []  # (where in the batch, source, problem)
  for i, places in enumerate(source_places(shares, batch_size, step)):
    drawn = _at_places(ids_of[present[i]], places, seed=seed, round_index=round_index)
    for j, name in enumerate(drawn):
      positions.append(((j + 0.5) / len(drawn), i, name))
  return tuple(name for _, _, name in sorted(positions, key=lambda position: position[:2]))


def source_places(weights: Sequence[float], batch_size: int, step: int) -> list[range]:
  """Returns which of its own places, counted from the first step on, each source has in a step.

  A step gives every source what it lacks to its share of all places so far, rounded down, and the
  places that are left to those that then lack most (the method of largest remainders).

  Args:
    weights: of the sources.
    batch_size: places of a step.
    step: from 0.
  """
  total = math.fsum(weights)
  before = [0] * len(weights)  # places that each had in earlier steps
  counts = before
  for t in range(step + 1):
    before = [num + count for num, count in zip(before, counts, strict=True)]
    due = [(t + 1) * batch_size * weight / total for weight in weights]
    lacking = [max(0.0, whole - have) for whole, have in zip(due, before, strict=True)]
    counts = [math.floor(part) for part in lacking]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - lacking[i], i))
    for i in range(batch_size - sum(counts)):
      counts[by_remainder[i % len(weights)]] += 1
    excess = sum(counts) - batch_size
    for i in reversed(by_remainder):  # where some had more than their share before
      taken = min(max(excess, 0), counts[i])
      counts[i] -= taken
      excess -= taken
  return [range(first, first + count) for first, count in zip(before, counts, strict=True)]


def _at_places(
  ids: Iterable[str], places: Iterable[int], *, seed: int, round_index: int
) -> tuple[str, ...]:
  """The problems at some places of the epochs of a round."""
  ids = tuple(ids)
  if not ids:
    raise ValueError(
      'Expected at least one problem to train on, got none; the run ends when a '
      'round has no hard problem left.'
    )
  orders: dict[int, tuple[str, ...]] = {}  # by epoch
  batch = []
  for place in places:
    epoch, index = divmod(place, len(ids))
    if epoch not in orders:
      orders[epoch] = problem_order(ids, seed, round_index, epoch=epoch)
    batch.append(orders[epoch][index])
  return tuple(batch)
