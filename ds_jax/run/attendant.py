"""Says that process 0 of a job was lost, where a process that this ends cannot say so itself.

jax's runtime aborts a process within a millisecond of losing the coordinator, which process 0
holds, before any Python of that process can speak. So each of the others has an attendant: a small
child that waits for its end, and looks whether anybody still listens at the coordinator's address.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys

LOOKING_SECONDS = 2.0
_DISMISSED = b'dismissed'


class Attendant:
  """The attendant of this process, which is number `index` of a job."""

  def __init__(self, coordinator: str, index: int):
    """`coordinator`: HOST:PORT."""
    # By its path and without site-packages: it starts in a few milliseconds, whatever is installed.
    # In a session of its own it outlives what is sent to the process's group.
    self._child = subprocess.Popen(
      [sys.executable, '-I', '-S', __file__, coordinator, str(index)],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      start_new_session=True,
    )

  def dismiss(self) -> None:
    """Ends it; nothing will be said. A second call does nothing."""
    if self._child.poll() is None:
      with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        self._child.communicate(_DISMISSED, timeout=LOOKING_SECONDS)


def is_listening(address: str) -> bool:
  """Whether somebody accepts connections at HOST:PORT."""
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), LOOKING_SECONDS).close()
  except OSError:
    return False
  return True


def attend(coordinator: str, index: str) -> None:
  """Waits for the end of the process at the other side of standard input."""
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  if sys.stdin.buffer.read() != _DISMISSED and not is_listening(coordinator):
    print(
      f'ds-jax: process 0, the coordinator at {coordinator}, is gone, and process {index} has '
      'ended with it.',
      file=sys.stderr,
      flush=True,
    )


if __name__ == '__main__':
  attend(*sys.argv[1:])
