"""How a command ends: exit codes, requests to stop, and what a process raises that heeds one."""

from __future__ import annotations

import contextlib
import enum
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from ds_jax.interfaces import Team


class ExitCode(enum.IntEnum):
  """What `ds-jax` returns to the shell; `--json` says it as well."""

  DONE = 0
  DEFECT = 1  # an exception that is not the user's fault
  BAD_INPUT = 2
  TOO_LARGE = 3  # of `plan`: a program does not fit the memory
  NOT_COMPILED = 4  # of `plan`: a program does not compile
  TERMINATED = 42  # saved after SIGTERM
  CANNOT_WRITE = 74  # disk full or not writable; what was saved before is good
  INTERRUPTED = 130  # saved after Ctrl-C
  LOST_PEER = 134  # SIGABRT, as a shell says it; jax's runtime ends the process


class Stopped(Exception):
  """The run was asked to stop and has saved."""

  words = 'Saved.'  # for a person


class StoppedAlone(Stopped):
  """Asked to stop where it cannot save: amid a search while its peers may be anywhere, or amid the
  updates of a step. The newest checkpoint and the journals of finished trees are kept."""

  words = (
    'Stopped amid the updates of a step, which would have taken too long. Finished trees and the '
    'last checkpoint are kept.'
  )


def stopped(team: Team) -> Stopped:
  """What a process raises that was asked to stop amid a search and has kept what is finished."""
  return StoppedAlone() if team.count > 1 else Stopped()


class StopRequest:
  """Turns Ctrl-C and SIGTERM into a flag that long phases poll; a second Ctrl-C stops at once."""

  def __init__(self) -> None:
    self.signal: int | None = None

  def __call__(self) -> bool:
    return self.signal is not None

  @property
  def exit_code(self) -> ExitCode:
    if self.signal == signal.SIGINT:
      return ExitCode.INTERRUPTED
    return ExitCode.TERMINATED  # also without a signal here: a peer had one

  @contextlib.contextmanager
  def installed(self) -> Iterator[StopRequest]:
    """Handles both signals inside the block; outside the main thread Python lets nobody do that.

    What was asked before is forgotten.
    """
    self.signal = None
    if threading.current_thread() is not threading.main_thread():
      yield self
      return
    before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
      yield self
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self.signal is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal = number
