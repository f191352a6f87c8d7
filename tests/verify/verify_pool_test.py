"""The pool: deadlines, deaths, limits, cache, threads, orphans. Verifiers below run in workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ds_jax.checks import InputError
from ds_jax.config import VerifyConfig
from ds_jax.types import Verdict
from ds_jax.verify.pool import VerifierPool

HERE = f'python:{__name__}'
GOLD = '24 from 4 6'


def obey(gold: str, response: str):
  """A verifier that does what the response says (it runs in a worker)."""
  del gold
  command, _, argument = response.partition(' ')
  if command == 'sleep':
    time.sleep(float(argument))
  elif command == 'spin':
    while True:
      pass
  elif command == 'power':  # one C call that never looks at signals
    return pow(7, 10**9) == 0
  elif command == 'regex':
    return re.fullmatch(r'(a+)+b', 'a' * 60) is not None
  elif command == 'memory':
    return len(bytearray(1 << 40)) > 0
  elif command == 'grow':
    blocks = []
    while True:
      blocks.append(bytearray(16 << 20))
  elif command == 'recurse':
    return obey('', response)
  elif command == 'raise':
    raise KeyError(argument)
  elif command == 'exit':
    os._exit(int(argument))
  elif command == 'segfault':
    os.kill(os.getpid(), signal.SIGSEGV)
  elif command == 'print':
    print('garbage on standard output' * 1000, flush=True)
  elif command == 'odd':
    return 3.5
  elif command == 'die_once':
    path = Path(argument)
    if not path.exists():
      path.write_text(str(os.getpid()))
      os.kill(os.getpid(), signal.SIGKILL)
  elif command == 'modules':
    return not {'jax', 'flax', 'sympy', 'transformers'} & set(sys.modules)
  return command != 'wrong'


def make_pool(verifier: str = f'{HERE}.obey', note=None, **changes) -> VerifierPool:
  defaults = {'num_workers': 2, 'cpu_seconds': 1.0, 'wall_seconds': 20.0}
  return VerifierPool(VerifyConfig(verifier=verifier, **(defaults | changes)), note)


def verdicts(pool: VerifierPool, *responses: str, gold: str = '') -> list[Verdict]:
  futures = pool.verify([(gold, response) for response in responses])
  return [future.result(timeout=60) for future in futures]


@pytest.fixture(scope='module')
def pool():
  with make_pool(memory_mb=1024) as pool:
    yield pool


def is_running(pid: int) -> bool:
  try:
    state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
  except (FileNotFoundError, ProcessLookupError):
    return False
  return state not in 'ZX'


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
  deadline = time.monotonic() + seconds
  while (alive := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
    time.sleep(0.05)
  return alive


def test_verdicts_come_in_order_and_are_counted(pool):
  before = pool.counts
  responses = [f'{"wrong" if i % 3 else "right"} {i}' for i in range(300)]
  expected = [Verdict.WRONG if i % 3 else Verdict.CORRECT for i in range(300)]
  assert verdicts(pool, *responses) == expected
  after = pool.counts
  assert after[Verdict.CORRECT] - before[Verdict.CORRECT] == 100
  assert after[Verdict.WRONG] - before[Verdict.WRONG] == 200


@pytest.mark.parametrize('bad', ['spin', 'power', 'regex', 'memory', 'grow', 'recurse', 'segfault'])
def test_a_too_expensive_answer_is_a_timeout_and_harms_no_other(pool, bad):
  start = time.monotonic()
  responses = [
    *(f'right {bad}{i}' for i in range(20)),
    bad,
    *(f'wrong {bad}{i}' for i in range(20)),
  ]
  assert verdicts(pool, *responses) == [
    *[Verdict.CORRECT] * 20,
    Verdict.TIMEOUT,
    *[Verdict.WRONG] * 20,
  ]
  assert time.monotonic() - start < 15  # two cores may be busy; alone it is below 2 s


def test_an_exception_is_an_error_and_is_noted_once():
  notes = []
  with make_pool(note=notes.append, num_workers=1) as pool:
    assert verdicts(pool, 'raise a', 'raise b', 'right', 'odd') == [
      Verdict.ERROR,
      Verdict.ERROR,
      Verdict.CORRECT,
      Verdict.ERROR,
    ]
  assert len(notes) == 2
  assert 'KeyError' in notes[0] and 'TypeError' in notes[1]


def test_leaving_the_process_is_an_error(pool):
  assert verdicts(pool, 'exit 0', 'exit 3', 'right exit') == [
    Verdict.ERROR,
    Verdict.ERROR,
    Verdict.CORRECT,
  ]


def test_a_death_from_outside_is_not_the_answers_fault(pool, tmp_path):
  assert (
    verdicts(pool, 'right x', f'die_once {tmp_path / "mark"}', 'right y') == [Verdict.CORRECT] * 3
  )
  assert not is_running(int((tmp_path / 'mark').read_text()))


def test_killing_an_idle_and_a_busy_worker(pool):
  verdicts(pool, 'right before')
  for pid in pool.worker_pids:
    os.kill(pid, signal.SIGKILL)
  assert verdicts(pool, 'right after kill') == [Verdict.CORRECT]
  (future,) = pool.verify([('', 'sleep 1.5')])
  time.sleep(0.5)
  for pid in pool.worker_pids:
    os.kill(pid, signal.SIGKILL)
  assert future.result(timeout=30) is Verdict.CORRECT


def test_the_wall_clock_stops_what_uses_no_cpu():
  with make_pool(wall_seconds=0.5, num_workers=1) as pool:
    assert verdicts(pool, 'right', 'sleep 60', 'wrong') == [
      Verdict.CORRECT,
      Verdict.TIMEOUT,
      Verdict.WRONG,
    ]


def test_the_deadline_counts_cpu_not_waiting():
  with make_pool(cpu_seconds=0.3, num_workers=1) as pool:
    assert verdicts(pool, 'sleep 1') == [Verdict.CORRECT]


def test_standard_output_of_a_verifier_does_not_garble_the_pipe(pool):
  assert verdicts(pool, 'print', 'right z') == [Verdict.CORRECT] * 2


def test_any_text_survives_the_pipe():
  texts = ['\udc80 lone', '\x00', '½ ٣ \u202e', '', '"' * 100, 'a' * 300_000]
  with make_pool('exact', num_workers=1) as pool:
    futures = pool.verify([(text, text) for text in texts])
    assert [f.result(timeout=60) for f in futures] == [
      Verdict.NO_ANSWER if not text.strip() else Verdict.CORRECT for text in texts
    ]


def test_the_cache_answers_without_a_worker():
  with make_pool(num_workers=1) as pool:
    verdicts(pool, 'right', 'wrong', 'spin')
    for pid in pool.worker_pids:
      os.kill(pid, signal.SIGSTOP)
    assert verdicts(pool, 'spin', 'wrong', 'right') == [
      Verdict.TIMEOUT,
      Verdict.WRONG,
      Verdict.CORRECT,
    ]
    assert pool.counts[Verdict.CORRECT] == 2


def test_equal_answers_in_work_share_one_check(tmp_path):
  with make_pool(num_workers=2) as pool:
    start = time.monotonic()
    assert verdicts(pool, *['sleep 1'] * 50) == [Verdict.CORRECT] * 50
    assert time.monotonic() - start < 20
    assert pool.counts[Verdict.CORRECT] == 50


def test_workers_are_replaced_after_their_share():
  with make_pool(num_workers=1, recycle_after=10) as pool:
    pids = set()
    for i in range(3):
      verdicts(pool, *(f'right {i} {j}' for j in range(10)))
      verdicts(pool, f'right {i} again')
      pids.update(pool.worker_pids)
  assert len(pids) >= 3


def test_many_threads_may_ask(pool):
  failures = []

  def ask(name: int):
    responses = [f'{"wrong" if (name + i) % 2 else "right"} {name} {i}' for i in range(50)]
    expected = [Verdict.WRONG if (name + i) % 2 else Verdict.CORRECT for i in range(50)]
    if verdicts(pool, *responses) != expected:
      failures.append(name)

  threads = [threading.Thread(target=ask, args=(name,)) for name in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failures


def test_workers_import_no_heavy_module(pool):
  assert verdicts(pool, 'modules') == [Verdict.CORRECT]


def test_verify_does_not_block_and_close_settles_everything():
  pool = make_pool(num_workers=1)
  start = time.monotonic()
  futures = pool.verify([('', f'sleep {i}') for i in range(1, 9)])
  assert time.monotonic() - start < 1
  while not pool.worker_pids:
    time.sleep(0.01)
  pids = pool.worker_pids
  pool.close()
  pool.close()
  assert time.monotonic() - start < 15
  with pytest.raises(RuntimeError, match='closed before'):
    futures[-1].result(timeout=1)
  with pytest.raises(RuntimeError, match='closed'):
    pool.verify([('', 'right')])
  assert not wait_until_gone(pids, 5)


@pytest.mark.parametrize('name', ['maths', 'python:', 'python:nodots', 'sympy', ''])
def test_an_unknown_verifier_is_refused_at_once(name):
  with pytest.raises(InputError, match='countdown'):
    VerifierPool(VerifyConfig(verifier=name))


@pytest.mark.parametrize('name', ['python:no_such_module.f', f'{HERE}.no_such_function'])
def test_a_verifier_that_cannot_be_imported_is_an_error_not_a_hang(name):
  with make_pool(name) as pool:
    for _ in range(2):  # those who ask later hear of it as well
      with pytest.raises(InputError, match=name):
        verdicts(pool, 'x')


def test_a_worker_that_cannot_start_is_an_error_not_a_hang():
  with make_pool(memory_mb=8, num_workers=1) as pool:
    with pytest.raises(RuntimeError, match='could not start'):
      verdicts(pool, 'x')


def test_bad_bounds_are_refused():
  with pytest.raises(InputError, match='cpu_seconds'):
    make_pool(cpu_seconds=0.0)


PARENT = """
import json, os, sys, time
from ds_jax.config import VerifyConfig
from ds_jax.verify.pool import VerifierPool
pool = VerifierPool(VerifyConfig(verifier='python:verify_pool_test.obey', num_workers=2,
                                 cpu_seconds=60.0, wall_seconds=60.0))
[f.result() for f in pool.verify([('', f'right {i}') for i in range(8)])]
busy = pool.verify([('', 'spin'), ('', 'sleep 50')])
time.sleep(0.3)
print(json.dumps(pool.worker_pids), flush=True)
if sys.argv[1] == 'wait':
  time.sleep(60)
"""


def start_parent(root: Path, how: str, tmp_path: Path) -> subprocess.Popen:
  """Another process with a busy pool, started in a foreign folder."""
  path = os.pathsep.join([str(root), str(Path(__file__).parent)])
  return subprocess.Popen(
    [sys.executable, '-W', 'error::ResourceWarning', '-c', PARENT, how],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def test_a_killed_parent_leaves_no_orphan(root, tmp_path):
  parent = start_parent(root, 'wait', tmp_path)
  try:
    pids = json.loads(parent.stdout.readline())
    assert len(pids) == 2 and all(map(is_running, pids))
    parent.kill()
    assert not wait_until_gone(pids, 5)
  finally:
    parent.kill()
    parent.communicate()


def test_an_interpreter_ends_with_a_forgotten_busy_pool(root, tmp_path):
  parent = start_parent(root, 'end', tmp_path)
  try:
    output, errors = parent.communicate(timeout=30)
  finally:
    parent.kill()
  assert (parent.returncode, errors) == (0, b'')
  assert not wait_until_gone(json.loads(output), 5)


def test_workers_ignore_ctrl_c(pool):
  verdicts(pool, 'right ctrl')
  pids = pool.worker_pids
  for pid in pids:
    os.kill(pid, signal.SIGINT)
  assert verdicts(pool, 'right after ctrl') == [Verdict.CORRECT]
  assert all(map(is_running, pids))
