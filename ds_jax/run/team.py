"""The processes of a job as a Team: what they tell each other, and where they wait."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from ds_jax.interfaces import Team

GATHER_BYTES = 2**25  # bytes of each process in one collective


@dataclasses.dataclass(frozen=True)
class Processes:
  """The Team of a job of several processes; see interfaces.Team."""

  index: int
  count: int

  @property
  def is_first(self) -> bool:
    return self.index == 0

  def gather(self, data: bytes) -> list[bytes]:
    import numpy as np
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32)).ravel()
    parts: list[list[bytes]] = [[] for _ in sizes]
    # Few sizes, as each is a program of its own; lockstep.py gathers a little every round.
    width = min(GATHER_BYTES, 2 ** max(8, int(sizes.max() - 1).bit_length()))
    for start in range(0, int(sizes.max()), width):
      piece = np.frombuffer(data[start : start + width], np.uint8)
      rows = multihost_utils.process_allgather(np.pad(piece, (0, width - len(piece))))
      for part, row, size in zip(parts, rows, sizes, strict=True):
        part.append(row.tobytes()[: max(0, int(size) - start)])
    return [b''.join(part) for part in parts]

  def barrier(self) -> None:
    self.gather(b'')


@contextlib.contextmanager
def first_process_first(team: Team) -> Iterator[None]:
  """Lets the other processes of a job wait here until the first has been through."""
  if not team.is_first:
    team.barrier()
  yield
  if team.is_first:
    team.barrier()
