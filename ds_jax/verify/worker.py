"""The worker process: grades items until its standard input ends. Never imports jax.

The kernel enforces the deadline: a profiling timer counts the process's CPU time, and its signal,
left at the default disposition, ends the process even inside C code. The parent sees the pipe
close and knows which item was in work, because every finished one is reported at once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import time
import traceback

from ds_jax.checks import InputError
from ds_jax.types import Verdict
from ds_jax.verify import degenerate, verifiers, wire

_PR_SET_PDEATHSIG = 1
_MAX_NOTE = 2000  # characters of a traceback sent to the parent


def main() -> None:
  """Entry point; the only argument is the JSON object that `process.WorkerProcess` writes."""
  settings = json.loads(sys.argv[1])
  _die_with_parent(settings['parent'])
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the parent decides
  signal.signal(signal.SIGPROF, signal.SIG_DFL)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF, signal.SIGTERM})
  incoming, outgoing = _private_pipes()
  _limit('RLIMIT_CORE', 0)
  _limit('RLIMIT_AS', settings['memory_mb'] << 20)
  try:
    verifiers.resolve(settings['verifier'])
    verifiers.warm_up(settings['verifier'])
  except InputError as error:
    wire.send(outgoing, {'failed': str(error)})
    return
  wire.send(outgoing, {'ready': True})
  receiver = wire.Receiver(incoming)
  try:
    while True:
      for verifier, gold, response in receiver.receive():
        start = time.perf_counter()
        report = _grade(
          verifier,
          gold,
          response,
          cpu_seconds=settings['cpu_seconds'],
          drops_degenerate=settings['degenerate'] == 'drop',
        )
        report['ms'] = 1e3 * (time.perf_counter() - start)
        if settings['explains']:
          explanation = _explain(verifier, gold, response, settings['cpu_seconds'])
          report['explanation'] = explanation
        wire.send(outgoing, report)
  except (EOFError, BrokenPipeError):
    return  # the parent closed the pipe, or is gone


def _grade(
  name: str,
  gold: str,
  response: str,
  *,
  cpu_seconds: float,
  drops_degenerate: bool,
) -> dict:
  """Grades one item under the deadline. An answer that exhausts memory or stack times out."""
  try:
    verifier = verifiers.resolve(name)  # imports, at first, which are no work of the answer's
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    verdict = verifier(gold, response)
    may_drop = drops_degenerate and verdict is not Verdict.CORRECT
    if may_drop and degenerate.is_degenerate(response):
      verdict = Verdict.DEGENERATE
    return {'verdict': verdict.value}
  except (MemoryError, RecursionError):
    return {'verdict': Verdict.TIMEOUT.value}
  except Exception:
    return {'verdict': Verdict.ERROR.value, 'note': traceback.format_exc()[-_MAX_NOTE:]}
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)


def _explain(verifier: str, gold: str, response: str, cpu_seconds: float) -> dict | None:
  """How an item was judged, under a deadline of its own; None if the verifier cannot tell."""
  from ds_jax.verify.explain import explain

  signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
  try:
    explanation = explain(verifier, gold, response)
  except Exception:
    return None  # the verdict stands, and has told of what is wrong
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
  return None if explanation is None else dataclasses.asdict(explanation)


def _die_with_parent(parent: int) -> None:
  """Asks Linux for SIGKILL when the parent ends; elsewhere the closing pipe must do."""
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:
    os._exit(1)  # it ended before the request


def _private_pipes() -> tuple[int, int]:
  """Moves the pipes away from 0 and 1, so that a verifier's print cannot garble them."""
  incoming, outgoing = os.dup(0), os.dup(1)
  null = os.open(os.devnull, os.O_RDONLY)
  os.dup2(null, 0)
  os.dup2(2, 1)
  os.close(null)
  return incoming, outgoing


def _limit(name: str, size: int) -> None:
  """Lowers a resource limit; the hard limit may be lower already, and some systems refuse."""
  limited_resource = getattr(resource, name)
  _, hard_limit = resource.getrlimit(limited_resource)
  if hard_limit != resource.RLIM_INFINITY:
    size = min(size, hard_limit)
  try:
    resource.setrlimit(limited_resource, (size, size))
  except (ValueError, OSError) as error:
    print(f'ds_jax verifier worker: no {name}: {error}', file=sys.stderr)


if __name__ == '__main__':
  main()
