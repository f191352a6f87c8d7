"""Length-prefixed JSON over a pipe: the language between the pool and its workers."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

_HEADER = struct.Struct('>I')
_CHUNK = 1 << 16


def send(descriptor: int, message: Any) -> None:
  """Writes one message whole.

  Raises:
    OSError: if the other side is gone.
  """
  body = json.dumps(message).encode()  # ASCII escapes: lone surrogates pass unharmed
  unsent = memoryview(_HEADER.pack(len(body)) + body)
  while unsent:
    num_written = os.write(descriptor, unsent)
    unsent = unsent[num_written:]


class Receiver:
  """Reads messages from one end of a pipe."""

  def __init__(self, descriptor: int):
    self._descriptor = descriptor
    self._buffer = bytearray()

  def receive(self, timeout: float | None = None) -> Any:
    """Waits for the next message.

    Args:
      timeout: seconds; None waits for ever.

    Returns:
      The message.

    Raises:
      EOFError: the other side is gone.
      TimeoutError: nothing whole arrived in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    (size,) = _HEADER.unpack(self._take(_HEADER.size, deadline))
    return json.loads(self._take(size, deadline))

  def _take(self, size: int, deadline: float | None) -> bytes:
    """Waits for `size` bytes and takes them from the buffer."""
    while len(self._buffer) < size:
      self._wait(deadline)
      chunk = os.read(self._descriptor, _CHUNK)
      if not chunk:
        raise EOFError
      self._buffer += chunk
    taken = bytes(self._buffer[:size])
    del self._buffer[:size]
    return taken

  def _wait(self, deadline: float | None) -> None:
    """Waits until there is something to read, or the other side is gone."""
    poll = select.poll()  # select() fails beyond 1024 open files
    poll.register(self._descriptor, select.POLLIN | select.POLLHUP)
    milliseconds = None
    if deadline is not None:
      milliseconds = max(0.0, deadline - time.monotonic()) * 1000
    if not poll.poll(milliseconds):
      raise TimeoutError
