"""Going on with the run of a workdir, also under other settings of what is still to come."""

from __future__ import annotations

import dataclasses

from ds_jax.config import Config, stored_config
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir, check_config, stored_fields


@dataclasses.dataclass(frozen=True)
class Continuation:
  """A session's claim on a workdir, and by which plan of rounds the workdir went so far."""

  session: Session
  notes: str  # what differs from before, where it may; '': nothing
  plan_before: tuple[int, ...]  # training steps of each round

  @property
  def is_replanned(self) -> bool:
    """Whether the rounds are others than they were to be."""
    return self.plan_before != self.session.config.curriculum.round_steps

  @property
  def is_finished(self) -> bool:
    """Whether the workdir's run has ended and is not to go on."""
    return self.session.workdir.summary.exists() and not self.is_replanned

  def tell(self) -> None:
    """Says in what the run goes on with other settings than before."""
    note, train = self.session.progress.note, self.session.config.train
    if self.notes:
      note(self.notes)
    if self.is_replanned and train.schedule != 'constant':
      note(
        f'train.schedule={train.schedule} falls until the last update of all rounds: from here on '
        'the learning rate is that of a run of the new length, also where it had fallen further.'
      )

  def set_summary_aside(self, step: int) -> None:
    """Keeps the summary of a run that goes on after its end at `step`: it is not finished now."""
    workdir = self.session.workdir
    if self.is_replanned and workdir.summary.exists():
      workdir.summary.rename(workdir.summary_of(step))


def continuation(session: Session) -> Continuation:
  """What a training session goes on with.

  Raises:
    InputError: if the workdir belongs to a run with another config.
  """
  notes = check_config(session.workdir, session.config)
  return Continuation(session, notes, _planned_rounds(session.workdir, session.config))


def _planned_rounds(workdir: Workdir, config: Config) -> tuple[int, ...]:
  """Training steps of each round as the workdir's config plans them; without one, as ours does."""
  if not workdir.config.exists():
    return config.curriculum.round_steps
  return stored_config(stored_fields(workdir)).curriculum.round_steps
