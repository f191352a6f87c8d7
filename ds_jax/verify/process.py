"""One worker process as its parent sees it: start it, send items, read verdicts, end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ds_jax.checks import InputError
from ds_jax.config import VerifyConfig
from ds_jax.verify import wire

START_SECONDS = 120.0  # imports of a worker on a loaded machine
_STOP_SECONDS = 5.0


class WorkerDiedError(Exception):
  """The worker ended while it had work; `signal` is the one that ended it, or None."""

  def __init__(self, return_code: int):
    super().__init__(f'the worker ended with code {return_code}')
    self.signal = -return_code if return_code < 0 else None


class WorkerProcess:
  """A started worker. The thread that starts one must outlive it (PR_SET_PDEATHSIG)."""

  def __init__(self, config: VerifyConfig, *, explains: bool = False):
    """Starts it; with `explains` its reports hold how each verdict came about."""
    settings = {
      'explains': explains,
      'verifier': config.verifier,
      'cpu_seconds': config.cpu_seconds,
      'memory_mb': config.memory_mb,
      'degenerate': config.degenerate,
      'parent': os.getpid(),
    }
    # -P: the working directory is not put before the parent's own path.
    self._process = subprocess.Popen(
      [sys.executable, '-P', '-m', 'ds_jax.verify.worker', json.dumps(settings)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=worker_environment(),
      bufsize=0,
    )
    self._receiver = wire.Receiver(self._process.stdout.fileno())
    self.num_answered = 0

  @property
  def pid(self) -> int:
    return self._process.pid

  def is_running(self) -> bool:
    return self._process.poll() is None

  def wait_ready(self) -> None:
    """Waits until the verifier is imported.

    Raises:
      InputError: the verifier cannot be imported.
      RuntimeError: the process ended or said nothing in START_SECONDS.
    """
    try:
      message = self._receiver.receive(START_SECONDS)
    except TimeoutError as error:
      self.kill()
      raise RuntimeError(_start_message('said nothing')) from error
    except EOFError as error:
      self.kill(_STOP_SECONDS)
      raise RuntimeError(_start_message(f'ended with code {self._process.returncode}')) from error
    if 'failed' in message:
      self.kill()
      raise InputError(message['failed'])

  def send(self, items: list[tuple[str, str, str]]) -> None:
    """Sends (verifier, gold, response) items; the next `receive` notices a worker that is gone."""
    try:
      wire.send(self._process.stdin.fileno(), items)
    except BrokenPipeError:
      pass

  def receive(self, wall_seconds: float) -> dict:
    """The report of the next item: {'verdict', 'ms'}, and 'note', 'explanation' where there are.

    Raises:
      WorkerDiedError: the worker ended.
      TimeoutError: no report in `wall_seconds`; the worker is killed.
    """
    try:
      report = self._receiver.receive(wall_seconds)
    except EOFError:
      self.kill(_STOP_SECONDS)
      raise WorkerDiedError(self._process.returncode) from None
    except TimeoutError:
      self.kill()
      raise
    self.num_answered += 1
    return report

  def signal_kill(self) -> None:
    """Sends SIGKILL and returns at once; for any thread."""
    self._process.send_signal(signal.SIGKILL)

  def kill(self, grace: float = 0.0) -> None:
    """Ends the process and closes its pipes; for the thread that reads them.

    Args:
      grace: seconds it may take to end by itself, so that its own return code is seen.
    """
    try:
      self._process.wait(grace)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait(_STOP_SECONDS)
    self._process.stdin.close()
    self._process.stdout.close()


def _start_message(what_happened: str) -> str:
  return (
    f'A verifier worker could not start: it {what_happened} (its messages are on standard error). '
    'If memory is short, raise verify.memory_mb or lower verify.num_workers.'
  )


def worker_environment() -> dict[str, str]:
  """The parent's, with its module path, one thread per library, and fixed hashes of strings."""
  package_root = str(Path(__file__).parents[2])
  module_path = [entry or os.getcwd() for entry in sys.path]
  return {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(dict.fromkeys([*module_path, package_root])),
    'OPENBLAS_NUM_THREADS': '1',
    'OMP_NUM_THREADS': '1',
    'PYTHONHASHSEED': '0',
  }
