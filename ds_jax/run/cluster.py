"""The processes of a job: how they find each other, and how they end together.

On TPU VMs, GKE and Slurm jax finds coordinator and peers by itself; elsewhere flags name them; a
machine with neither is a job of one process. A process that is lost, or that fails, ends the others
within HEARTBEAT_SECONDS and a little: they name it and abort with ExitCode.LOST_PEER, never hang.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from ds_jax.checks import InputError
from ds_jax.interfaces import ALONE, Team
from ds_jax.run.attendant import Attendant
from ds_jax.run.stopping import ExitCode, StoppedAlone
from ds_jax.run.team import Processes

# Silence after which a process is taken for lost. jax's own 100 s (and 300 s at the end) let the
# others wait for minutes; much less, and a busy machine is taken for a dead one.
HEARTBEAT_SECONDS = 30
SHUTDOWN_SECONDS = 30  # how long a process that has finished waits for the others

# jax's runtime does not say in one line which process it missed, so we keep beats of our own, and
# have attendants for the loss of process 0.
BEAT_SECONDS = 3
SILENT_SECONDS = 15  # without a beat, until we name a process; jax ends the job after this
BEATS = 'ds_jax/beats'  # folder of the coordinator's key-value store
ENDED = 'ended'  # the last beat of a process that waits for the others to end

# Process 0 coordinates: when it leaves the others abort. It gives those that were asked to stop as
# well this long to leave before it.
LINGER_SECONDS = 3

# Where the values come from when the flag is not given (the first is jax's own).
VARIABLES = {
  'coordinator': 'JAX_COORDINATOR_ADDRESS',
  'num_processes': 'JAX_NUM_PROCESSES',
  'process_id': 'JAX_PROCESS_ID',
}


@dataclasses.dataclass(frozen=True)
class Cluster:
  """A job whose processes were named by hand."""

  coordinator: str  # HOST:PORT of process 0, reachable from all
  num_processes: int
  process_id: int  # 0 … num_processes - 1


def cluster_from(
  flags: Mapping[str, str | None], environment: Mapping[str, str] = os.environ
) -> Cluster | None:
  """The cluster that flags, or else variables, name; None if they name none.

  Raises:
    InputError: for a part of them only, or for values that do not fit.
  """
  values = {
    name: flags.get(name) or environment.get(variable) for name, variable in VARIABLES.items()
  }
  if values['num_processes'] is None and values['process_id'] is None:
    if not flags.get('coordinator'):
      return None  # the address alone is left to jax, which finds the rest
  missing = [f'--{name}' for name, value in values.items() if value is None]
  if missing:
    raise InputError(
      f'Missing {", ".join(missing)}. A process of a job by hand needs all three: '
      '--coordinator=HOST:PORT --num_processes=N --process_id=I; TPU VMs, GKE and '
      'Slurm need none.'
    )
  numbers = {name: _integer(name, values[name]) for name in ('num_processes', 'process_id')}
  host, _, port = values['coordinator'].rpartition(':')
  if not host or not port.isdigit():
    raise InputError(f'Expected --coordinator=HOST:PORT, got {values["coordinator"]!r}.')
  if not 0 <= numbers['process_id'] < numbers['num_processes']:
    raise InputError(
      f'Expected --process_id from 0 to {numbers["num_processes"] - 1} '
      f'(--num_processes={numbers["num_processes"]}), got {numbers["process_id"]}.'
    )
  return Cluster(values['coordinator'], **numbers)


def join(cluster: Cluster | None) -> Team:
  """Joins the job, before jax is used for anything else. On a machine by itself: a team of one.

  A program that has used jax already, and calls us after that, is a team of one as well.

  Raises:
    InputError: if such a program is one of several processes, which can no longer be joined.
  """
  import jax

  atexit.register(dismiss_attendants)  # before jax's, so it runs after that has left the job
  if not jax.distributed.is_initialized():
    named: dict[str, Any] = {}
    if cluster:
      named = {
        'coordinator_address': cluster.coordinator,
        'num_processes': cluster.num_processes,
        'process_id': cluster.process_id,
        'cluster_detection_method': 'deactivate',
      }
    try:
      jax.distributed.initialize(
        **named,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
      )
    except ValueError as e:
      if named or 'coordinator_address' not in str(e):
        raise
      return ALONE  # nothing was detected
    except RuntimeError as e:
      if 'must be called before' not in str(e):
        raise
      if named or jax.process_count() > 1:
        raise InputError(
          'jax was used before this process joined its job; call '
          'jax.distributed.initialize first, or use the command ds-jax.'
        ) from e
      return ALONE
  count = jax.process_count()
  if count == 1:
    return ALONE
  watch_peers(jax.process_index())
  return Processes(jax.process_index(), count)


def watch_peers(index: int) -> None:
  """Starts the thread that beats for process `index`, and names processes that fall silent; and
  the attendant that names process 0, if that is not this one."""
  from jax._src.distributed import global_state  # there is no public way to the store

  if index:
    _attendants.append(Attendant(global_state.coordinator_address, index))
  ending = threading.Event()
  thread = threading.Thread(target=_beat, args=(global_state.client, index, ending), daemon=True)
  thread.start()

  def end() -> None:  # a thread inside jax's runtime would crash the interpreter's own end
    ending.set()
    thread.join()

  atexit.register(end)  # after jax's, so it runs before


_attendants: list[Attendant] = []


def dismiss_attendants() -> None:
  """What ends this process from now on is its own affair."""
  for attendant in _attendants:
    attendant.dismiss()


def _beat(client: Any, index: int, ending: threading.Event) -> None:
  heard: dict[str, tuple[str, float]] = {}
  named: set[str] = set()
  beats = map(str, itertools.count())
  try:
    while True:
      beat = ENDED if ending.is_set() else next(beats)
      client.key_value_set(f'{BEATS}/{index}', beat, allow_overwrite=True)
      if beat == ENDED:
        return
      now = time.monotonic()
      heard = last_heard(heard, dict(client.key_value_dir_get(BEATS)), now)
      silent = silent_peers(heard, now)
      for peer in sorted(silent - named):
        os.write(
          2,
          f'ds-jax: process {peer} has not been heard of for {SILENT_SECONDS} s. If it '
          f'is dead, the job ends soon, with exit code {ExitCode.LOST_PEER}.\n'.encode(),
        )
        dismiss_attendants()  # process 0 will be gone as well, for that reason
      named = silent
      ending.wait(BEAT_SECONDS)
  except RuntimeError:  # jax.errors.JaxRuntimeError: without its coordinator jax ends this process
    return


def last_heard(
  heard: Mapping[str, tuple[str, float]], beats: Mapping[str, str], now: float
) -> dict[str, tuple[str, float]]:
  """For every process its newest beat, and when we saw that for the first time (seconds)."""
  return {
    key: heard[key] if key in heard and heard[key][0] == beat else (beat, now)
    for key, beat in beats.items()
  }


def silent_peers(heard: Mapping[str, tuple[str, float]], now: float) -> set[str]:
  """Processes, by their numbers, that have neither ended nor been heard of for SILENT_SECONDS."""
  return {
    key.rpartition('/')[2]
    for key, (beat, since) in heard.items()
    if beat != ENDED and now - since > SILENT_SECONDS
  }


@contextlib.contextmanager
def ending_together(team: Team) -> Iterator[None]:
  """Inside, whatever ends this process too early ends its peers as well, in HEARTBEAT_SECONDS.

  An ordinary exit would wait for them at a barrier, while they wait for us in a collective. So this
  process leaves at once, with the exit code that says why; unless it is a peer that was lost: then
  it waits for the coordinator, which names the lost process and ends us with ExitCode.LOST_PEER.
  """
  if team.count == 1:
    yield
    return
  try:
    yield
  except StoppedAlone:
    print(
      f'ds-jax: process {team.index} was asked to stop and has kept its finished trees. The '
      'same command continues.',
      file=sys.stderr,
    )
    if team.is_first:
      time.sleep(LINGER_SECONDS)
    leave(ExitCode.TERMINATED)
  except InputError as e:
    print(f'ds-jax: process {team.index}: {e}', file=sys.stderr)
    leave(ExitCode.BAD_INPUT)
  except Exception as e:
    traceback.print_exc()
    if not is_lost_peer(e):
      print(
        f'ds-jax: process {team.index} failed; its peers end within {HEARTBEAT_SECONDS} s.',
        file=sys.stderr,
      )
      leave(ExitCode.DEFECT)
    print(
      f'ds-jax: process {team.index} has lost a peer; which one, process 0 says within '
      f'{HEARTBEAT_SECONDS} s.',
      file=sys.stderr,
      flush=True,
    )
    import jax

    jax.distributed.shutdown()  # does not return: the barrier fails once the peer is taken for lost
    leave(ExitCode.LOST_PEER)


def is_lost_peer(error: BaseException) -> bool:
  """Whether a collective failed because a peer went away."""
  return bool(
    re.search(
      r'Gloo|Connection (closed|reset)|Socket closed|UNAVAILABLE|heartbeat|'
      r'DEADLINE_EXCEEDED|coordination service',
      str(error),
    )
  )


def leave(code: int) -> NoReturn:
  """Ends this process now, without waiting for others."""
  dismiss_attendants()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _integer(name: str, text: str) -> int:
  try:
    return int(text)
  except ValueError:
    raise InputError(f'Expected --{name} to be a number, got {text!r}.') from None
