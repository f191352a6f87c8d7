"""The attendant of a process that ends in one way or another, with and without a coordinator."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENDS = {
  'aborts': 'os.abort()',
  'is killed': 'os.kill(os.getpid(), signal.SIGKILL)',
  'is killed with its group': 'os.killpg(0, signal.SIGTERM)',
  'says goodbye first': 'attendant.dismiss(); os.abort()',
  'says goodbye twice': 'attendant.dismiss(); attendant.dismiss(); os._exit(1)',
}
SPEAKS = ('aborts', 'is killed', 'is killed with its group')


def end(how, address):
  """What is said, and the seconds until nobody holds standard error any more."""
  source = (
    'import os, signal; from ds_jax.run.attendant import Attendant; '
    f'attendant = Attendant({address!r}, 3); {ENDS[how]}'
  )
  start = time.monotonic()
  process = subprocess.run(
    [sys.executable, '-c', source],
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    start_new_session=True,
  )
  assert process.returncode
  return process.stderr, time.monotonic() - start


@pytest.mark.parametrize('how', ENDS)
def test_the_loss_of_process_0_is_said_by_those_that_cannot_speak(how):
  with socket.create_server(('127.0.0.1', 0)) as server:
    address = f'127.0.0.1:{server.getsockname()[1]}'
    said, seconds = end(how, address)
    assert said == '' and seconds < 20  # the coordinator is there: others say why
  said, seconds = end(how, address)
  wanted = (
    f'ds-jax: process 0, the coordinator at {address}, is gone, and process 3 has ended with it.\n'
  )
  assert said == (wanted if how in SPEAKS else '') and seconds < 20
