"""What a run keeps on disk while it goes on: checkpoints, journals and metrics, in step.

A checkpoint covers the journals of the work that its state has taken in. They are removed once it
is committed, never before: a kill leaves the newest checkpoint and the journals since.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ds_jax.config import best_metric
from ds_jax.report.metrics import MetricsWriter, NoMetrics
from ds_jax.report.writers import OpenWriter, openers
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.durable import write_atomically
from ds_jax.run.growing import Journal
from ds_jax.run.session import Session
from ds_jax.run.state import RunState
from ds_jax.train.state import TrainState


class Saving:
  """The files of a run; use `contextlib.closing`."""

  def __init__(self, session: Session):
    """Opens them, or makes them."""
    config = session.config
    self._session = session
    with contextlib.ExitStack() as opened:  # closed if a later line fails
      self._checkpointer = Checkpointer(
        session.workdir.checkpoints,
        config.checkpoint.keep,
        note=session.progress.note,
        keep_best=config.checkpoint.keep_best,
        metric=best_metric(config),
        renames_folders=session.workdir.renames_folders,
      )
      opened.callback(self._checkpointer.close)
      self.metrics: MetricsWriter | NoMetrics = NoMetrics()
      if session.team.is_first:
        self.metrics = MetricsWriter(
          session.workdir.root, writer_openers(session), session.progress.note
        )
      opened.callback(self.metrics.close)
      self._opened = opened.pop_all()
    self._finished: list[Journal] = []  # of finished work, which the next checkpoint covers
    self._covered: list[Journal] = []  # by the checkpoint that is being written
    self._in_flight: list[Journal] = []  # of the step under way

  def close(self) -> None:
    """Closes the files, after the checkpoint that is being written."""
    self._opened.close()

  def restore(self, abstract_state: TrainState) -> tuple[TrainState | None, RunState]:
    """The newest good checkpoint, whose journals are removed; else None and a new run's state."""
    if self._checkpointer.latest() is None:
      return None, RunState.new(self._session.config.curriculum.max_cached_per_problem)
    state, fields = self._checkpointer.restore(abstract_state)
    host = RunState.from_json(fields)
    # A kill may have come before those that it covers were removed.
    self.drop_journals(lambda work: not host.covers(work))
    self._session.progress.note(f'Continuing at round {host.round_index}, step {host.step}.')
    return state, host

  def drop_journals(self, is_needed: Callable[[str], bool]) -> None:
    """Removes the journals of work that is not needed; `is_needed` is asked by name."""
    for path in self._session.workdir.journal('').parent.glob('*.process_*'):
      if not is_needed(path.name.split('.')[0]):
        path.unlink(missing_ok=True)

  def open_journal(self, name: str) -> Journal:
    """The journal of a part of the step under way."""
    journal = Journal(self._session.workdir.journal(name, self._session.team.index))
    self._in_flight.append(journal)
    return journal

  def settle(self) -> None:
    """The step under way is part of the state now."""
    self._finished += self._in_flight
    self._in_flight = []

  def begin_save(self, state: Any, host: RunState, score: float | None = None) -> None:
    """Begins a checkpoint of the present state; `commit` waits until it is written.

    Args:
      state: the arrays; they may change at once.
      host: the rest; it notes what is saved.
      score: by which the best checkpoints are kept; None: not a candidate.

    Raises:
      SaveError: if it, or the one before, cannot be written.
    """
    self.commit()
    host.num_saves += 1
    host.metrics_size = self.metrics.size()
    self._checkpointer.begin_save(host.num_saves, state, host.to_json(), score)
    self._covered, self._finished = self._finished, []

  def commit(self) -> None:
    """Waits for the checkpoint being written; journals that it covers are removed after that."""
    self._checkpointer.wait()
    for journal in self._covered:
      journal.remove()
    self._covered = []

  def export_solutions(self, host: RunState, decode: Callable[[np.ndarray], str]) -> None:
    """Writes the cached solutions for people to read; the checkpoint has them, too."""
    if self._session.team.is_first:
      content = host.solutions().to_jsonl(decode)
      write_atomically(self._session.workdir.root / 'replay.jsonl', content)


def writer_openers(session: Session) -> dict[str, OpenWriter]:
  """What opens the writers of `log.writers`, besides metrics.jsonl; see report/writers.py.

  Raises:
    InputError: if one of them cannot be imported.
  """
  config, note = session.config, session.progress.note
  return openers(config.log.writers, session.workdir.root, dataclasses.asdict(config), note)
