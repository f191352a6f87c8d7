#!/usr/bin/env python3
"""Runs a ds-jax command as several processes on this machine, each with some devices.

  launch/run_local.py --processes=2 --devices=4 -- \\
    train --config=configs/quickstart.py --workdir=runs/two

The devices are fakes made of CPU cores; what is tried here runs alike on many hosts. Lines of
process I begin with [I]. Ctrl-C and SIGTERM go to all processes. When one fails, the others are
given --grace seconds to end by themselves, then they are killed. Exit code: that of a process that
failed for a reason of its own; those that lost a peer (134) come last.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOST_PEER = 134


def main(argv: Sequence[str]) -> int:
  own, _, command = _split(argv)
  parser = argparse.ArgumentParser(
    description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--devices', type=int, default=1, help='of each process')
  parser.add_argument('--grace', type=float, default=60, help='seconds after a failure')
  parser.add_argument('--port', type=int, default=0, help="the coordinator's; 0: a free one")
  flags = parser.parse_args(own)
  if flags.processes < 1 or flags.devices < 1 or not command:
    parser.error('expected --processes and --devices of 1 or more, and a command after --')
  address = f'127.0.0.1:{flags.port or free_port()}'
  processes = [
    start(command, flags.devices, address, flags.processes, i) for i in range(flags.processes)
  ]
  threads = [threading.Thread(target=_forward, args=(i, p)) for i, p in enumerate(processes)]
  for thread in threads:
    thread.start()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: _send(processes, number))
  wait(processes, flags.grace)
  for thread in threads:
    thread.join()
  codes = [exit_code(p) for p in processes]
  print('Exit codes:', *codes, file=sys.stderr)
  return worst(codes)


def start(
  command: Sequence[str], num_devices: int, address: str, num_processes: int, index: int
) -> subprocess.Popen:
  """One process of the job, in a session of its own, so that Ctrl-C reaches it once, from us."""
  kept = [f for f in os.environ.get('XLA_FLAGS', '').split() if 'device_count' not in f]
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'PYTHONUNBUFFERED': '1',
    'PYTHONPATH': os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')])),
    'XLA_FLAGS': ' '.join([*kept, f'--xla_force_host_platform_device_count={num_devices}']),
  }
  peers = [f'--coordinator={address}', f'--num_processes={num_processes}', f'--process_id={index}']
  return subprocess.Popen(
    [interpreter(), '-m', 'ds_jax', *command, *(peers if num_processes > 1 else [])],
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
  )


def interpreter() -> str:
  """This one, or if it lacks jax that of the environment which the other scripts install into."""
  installed = pathlib.Path(os.environ.get('VENV', ROOT / '.venv')) / 'bin' / 'python'
  has_jax = importlib.util.find_spec('jax') is not None
  return sys.executable if has_jax or not installed.exists() else str(installed)


def wait(processes: Sequence[subprocess.Popen], grace: float) -> None:
  """Waits for all; once one has failed, for `grace` seconds at most."""
  deadline = None
  while any(p.poll() is None for p in processes):
    first = next((i for i, p in enumerate(processes) if p.returncode), None)
    if deadline is None and first is not None:
      print(
        f'Process {first} was the first to fail, with exit code {exit_code(processes[first])}.',
        file=sys.stderr,
      )
      deadline = time.monotonic() + grace
    if deadline is not None and time.monotonic() > deadline:
      _send(processes, signal.SIGKILL)
    time.sleep(0.1)


def exit_code(process: subprocess.Popen) -> int:
  """As a shell would say it: 128 + the signal's number for a process that a signal ended."""
  return process.returncode if process.returncode >= 0 else 128 - process.returncode


def worst(codes: Sequence[int]) -> int:
  """The reason comes before its consequences on other processes."""
  failed = [code for code in codes if code]
  return next((code for code in failed if code != LOST_PEER), failed[0] if failed else 0)


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def _split(argv: Sequence[str]) -> tuple[list[str], str, list[str]]:
  at = list(argv).index('--') if '--' in argv else len(argv)
  return list(argv[:at]), '--', list(argv[at + 1 :])


def _forward(index: int, process: subprocess.Popen) -> None:
  for line in process.stdout:
    print(f'[{index}] {line}', end='', flush=True)


def _send(processes: Sequence[subprocess.Popen], number: int) -> None:
  for process in processes:
    if process.poll() is None:
      process.send_signal(number)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
