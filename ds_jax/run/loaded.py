"""Engines and parameters of a run: opened when they are first asked for, and used again."""

from __future__ import annotations

import contextlib
import dataclasses
from types import TracebackType

from ds_jax.config import Config, EvaluateConfig
from ds_jax.run.engines import Engines, open_engines
from ds_jax.run.parameters import ChosenParams, chosen_params
from ds_jax.run.session import Session


class LoadedRun:
  """What the commands that read a run open: its engines, the newest ones alone, and parameters.

  Use it as a context manager, or call `close`. A closed one opens again when it is asked.
  """

  def __init__(self) -> None:
    self._stack = contextlib.ExitStack()  # what is open
    self._opened_for: tuple[Config, str] | None = None  # settings and model
    self._engines: dict[Config, Engines] = {}
    self._chosen: dict[str, ChosenParams] = {}  # of one step, by its name

  @property
  def is_open(self) -> bool:
    """Whether there are engines."""
    return self._opened_for is not None

  def engines(self, session: Session) -> Engines:
    """The engines of a session; those of other settings are closed.

    Sessions that differ in numbers of slots and in evaluation alone share mesh, model and verifier.

    Raises:
      InputError: for anything that does not fit.
    """
    session = dataclasses.replace(session, step='')
    opened_for = _shared(session.config), session.model
    if opened_for != self._opened_for:
      self.close()
      engines = self._stack.enter_context(open_engines(session))
      self._engines[session.config], self._opened_for = engines, opened_for
    if session.config not in self._engines:
      opened = next(iter(self._engines.values()))
      self._engines[session.config] = dataclasses.replace(opened, session=session)
    return self._engines[session.config]

  def params(self, session: Session) -> ChosenParams:
    """The parameters of the session's step for its engines, see `chosen_params`.

    They are read once: those of a checkpoint that is written meanwhile are asked for after
    `close`.

    Raises:
      InputError: if they cannot be read.
    """
    engines = self.engines(session)
    if session.step not in self._chosen:
      self._chosen.clear()  # first, for the memory
      self._chosen[session.step] = chosen_params(dataclasses.replace(engines, session=session))
    return self._chosen[session.step]

  def close(self) -> None:
    """Ends the verifier, and forgets engines and parameters."""
    self._engines.clear()
    self._chosen.clear()
    self._opened_for = None
    self._stack.close()

  def __enter__(self) -> LoadedRun:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self.close()


def _shared(config: Config) -> Config:
  """The settings that mesh, model and verifier depend on; others are as by default."""
  search = dataclasses.replace(config.search, num_slots=1, replay_lanes=1)
  return dataclasses.replace(config, search=search, evaluate=EvaluateConfig())
