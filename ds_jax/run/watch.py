"""Watches over a run: says what is wrong at once, and again every so often while it stays so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ds_jax.run.engines import Engines
from ds_jax.run.signs import ends_of, sign_of_ends, sign_of_no_ends, sign_of_skips
from ds_jax.train.batch import Batch
from ds_jax.types import FinishedTree, Trajectory

FIRST_REPEAT = 5  # times in a row, after which a sign is told again; then after twice as many, …


class Watch:
  """What a run is told of its responses and updates (see signs.py)."""

  def __init__(self, engines: Engines):
    self._config, self._stop_ids = engines.session.config, engines.tokenizer.stop_ids
    self._vigil = Vigil(engines.session.progress.note)
    self._trees: list[FinishedTree] = []  # grown since the step began

  def begin_step(self) -> None:
    """What is grown from now on belongs to a new step."""
    self._trees = []

  def add(self, trees: Sequence[FinishedTree]) -> None:
    """Takes in trees, or rollouts, that the step grew."""
    self._trees += trees

  def see_rollouts(self, where: str, trees: Sequence[FinishedTree]) -> None:
    """Says so if all responses of an evaluation or a filter failed alike, or none is right."""
    self._vigil.see('rollouts', where, self._sign(trees))

  def see_step(
    self,
    step: int,
    groups: Sequence[Sequence[Trajectory]],
    batches: Sequence[Batch],
    *,
    is_skipped: bool,
  ) -> None:
    """Says so if a step learnt nothing, or if all of its responses failed alike.

    Args:
      step: its number.
      groups: the trajectories of each problem.
      batches: the minibatches made of them.
      is_skipped: whether all of the updates were skipped.
    """
    where, sign = f'Step {step}', self._sign(self._trees)
    if is_skipped:
      num_empty = sum(not len(batch.tokens) for batch in batches)
      skips = sign_of_skips(groups, self._config, num_updates=len(batches), num_empty=num_empty)
      self._vigil.see('skipped', where, f'{skips} {sign}'.rstrip())
      return
    self._vigil.see('skipped', where, '')
    self._vigil.see('responses', where, sign)

  def _sign(self, trees: Sequence[FinishedTree]) -> str:
    ends = ends_of(trees, self._stop_ids)
    if trees and not ends.count:
      return sign_of_no_ends(len(trees))
    return sign_of_ends(ends, self._config)


class Vigil:
  """Notes signs, each of a kind; see signs.py."""

  def __init__(self, note: Callable[[str], None]):
    """Begins with nothing seen.

    Args:
      note: told what is to be said, in one line.
    """
    self._note = note
    self._in_row: dict[str, int] = {}  # by kind, also of those that were seen once

  def see(self, kind: str, where: str, sign: str) -> None:
    """Takes in what there is to say of one step, and says it if it is due.

    It is due the first time, and when it has been so 5, 10, 20, 40, … times in a row.

    Args:
      kind: what the sign is about; a step without a sign of this kind ends its row.
      where: names the step, e.g. 'Step 3'.
      sign: in words; '': none.
    """
    if not sign:
      if kind in self._in_row:
        self._in_row[kind] = 0
      return
    is_first = kind not in self._in_row
    in_row = self._in_row.get(kind, 0) + 1
    self._in_row[kind] = in_row
    if is_first:
      self._note(f'{where}: {sign}')
    elif _is_due(in_row):
      self._note(f'{where}, {in_row} times in a row: {sign}')


def _is_due(in_row: int) -> bool:
  repeats, left = divmod(in_row, FIRST_REPEAT)
  return repeats > 0 and not left and repeats.bit_count() == 1
