"""A cloud in a folder: gcloud, one TPU worker and its Python, played by small programs.

`gcloud` notes its arguments and plays the life of a queued resource; its ssh really runs the
command, in the folder `home`, and its scp really copies. The worker's Python plays ds-jax: it notes
arguments and ends as the test says.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

GCLOUD = r"""
import json, os, pathlib, shutil, subprocess, sys
folder = pathlib.Path(os.environ['FAKE_CLOUD'])
arguments = sys.argv[1:]
with (folder / 'gcloud.jsonl').open('a') as f:
  f.write(json.dumps(arguments) + '\n')

def flag(name):
  return next((a.split('=', 1)[1] for a in arguments if a.startswith(f'--{name}=')), None)

def pop(name, default):
  lines = (folder / name).read_text().splitlines() if (folder / name).exists() else []
  if len(lines) > 1:
    (folder / name).write_text('\n'.join(lines[1:]))
  return lines[0] if lines else default

def fail(text, code=1):
  print(text, file=sys.stderr)
  sys.exit(code)

assert arguments[:3] == ['compute', 'tpus', 'queued-resources'], arguments
verb = arguments[3]
if verb == 'create':
  error = (folder / 'create_error')
  if error.exists():
    fail(error.read_text())
  lives = json.loads((folder / 'lives').read_text())
  (folder / 'states').write_text('\n'.join(lives[0]))
  (folder / 'lives').write_text(json.dumps(lives[1:] or lives))
elif verb == 'describe':
  state = pop('states', 'NOT_FOUND')
  if state == 'NOT_FOUND':
    fail('ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource not found')
  if state == 'NO_NETWORK':
    fail('ERROR: there was a problem refreshing your current auth tokens')
  print(state)
elif verb == 'delete':
  (folder / 'states').write_text('NOT_FOUND')
elif (folder / 'states').read_text().splitlines()[0] != 'ACTIVE':
  fail('ssh: connect to host: Connection timed out', 255)
elif verb == 'scp':
  shutil.copy(arguments[4], folder / 'home')
elif verb == 'ssh':
  home = folder / 'home'
  environment = os.environ | {'HOME': str(home), 'LOCK': str(folder / 'worker.lock'),
                              'LIBTPU_LOCK': str(folder / 'libtpu.lock')}
  command = ['bash', '-c', flag('command')]
  run = lambda: subprocess.run(command, cwd=home, env=environment).returncode
  code = run()
  if (folder / 'drop_ssh').exists():  # the connection drops; gcloud runs the command once more
    code = run()
  if ' status ' in flag('command') and (folder / 'peers').exists():
    print((folder / 'peers').read_text())  # what other workers of the slice say
  sys.exit(code)
else:
  fail(f'unknown command {verb}')
"""

# Python of the worker. A line of `jobs` is an exit code, `preempt` (the slice is taken away while
# it works), or `wait` (works until it gets SIGTERM, then saves and ends with 42).
PYTHON = r"""
import json, os, pathlib, signal, sys, time
if sys.argv[1] == '-c':
  os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
assert sys.argv[1:3] == ['-m', 'ds_jax'], sys.argv
folder = pathlib.Path(os.environ['FAKE_CLOUD'])

def terminate(*_):
  time.sleep(0.1)
  os.write(1, b'saved\n')
  os._exit(42)

signal.signal(signal.SIGTERM, terminate)
names = ('ACCEL', 'STORE', 'JAX_COMPILATION_CACHE_DIR', 'NOTE')
with (folder / 'jobs.jsonl').open('a') as f:
  f.write(json.dumps({'arguments': sys.argv[3:], 'cwd': os.getcwd(), 'pid': os.getpid(),
                      'environment': {n: os.environ.get(n) for n in names}}) + '\n')
print('step 1', flush=True)
lines = (folder / 'jobs').read_text().splitlines()
(folder / 'jobs').write_text('\n'.join(lines[1:]))
if lines[0] == 'preempt':
  (folder / 'states').write_text('SUSPENDING\nSUSPENDED')
  os._exit(137)
if lines[0] == 'wait':
  time.sleep(30)
print('step 2', flush=True)
sys.exit(int(lines[0]))
"""


def write_program(path: Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


@dataclasses.dataclass(frozen=True)
class Cloud:
  """The folder of one test; `checkout` is a git repository with our launch scripts."""

  folder: Path
  checkout: Path
  environment: dict[str, str]

  def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
      [self.checkout / 'launch' / script, *arguments],
      text=True,
      capture_output=True,
      timeout=60,
      cwd='/',
      env=self.environment | environment,
    )

  def start(self, script: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
      [self.checkout / 'launch' / script, *arguments],
      text=True,
      cwd='/',
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      env=self.environment,
    )

  def lives(self, *lives: list[str]) -> None:
    """States that each slice passes through once it has been created."""
    (self.folder / 'lives').write_text(json.dumps(lives))

  def states(self, *states: str) -> None:
    """States of a slice that there is already."""
    (self.folder / 'states').write_text('\n'.join(states))

  def jobs(self, *ends: str | int) -> None:
    (self.folder / 'jobs').write_text('\n'.join(map(str, ends)))

  def calls(self, verb: str = '') -> list[list[str]]:
    """Arguments of gcloud, those of one verb or all, in order."""
    calls = _json_lines(self.folder / 'gcloud.jsonl')
    return [call for call in calls if not verb or call[3] == verb]

  def started(self) -> list[dict]:
    """What ran as ds-jax on the worker."""
    return _json_lines(self.folder / 'jobs.jsonl')

  def wait_for_job(self, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    while len(self.started()) < count:
      assert time.monotonic() < deadline, 'the job has not started'
      time.sleep(0.02)


def _json_lines(path: Path) -> list:
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_cloud(folder: Path) -> Cloud:
  """A cloud without a slice, with a worker on which ds_jax is installed."""
  checkout, home, programs = folder / 'checkout', folder / 'home', folder / 'programs'
  home.mkdir()
  shutil.copytree(
    ROOT / 'launch', checkout / 'launch', ignore=shutil.ignore_patterns('__pycache__')
  )
  shutil.copy(ROOT / 'pyproject.toml', checkout)
  git = ['git', '-C', checkout, '-c', 'user.name=a', '-c', 'user.email=a@b']
  for command in (['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'code']):
    subprocess.run([*git, *command], check=True)
  write_program(programs / 'gcloud', f'#!{sys.executable} -SE{GCLOUD}')
  write_program(programs / 'uv', '#!/bin/sh\nexit 0\n')
  write_program(programs / 'sudo', '#!/bin/sh\necho "$@" >> "$FAKE_CLOUD/sudo"\ncat > /dev/null\n')
  write_program(folder / 'venv/bin/python', f'#!{sys.executable} -SE{PYTHON}')
  environment = os.environ | {
    'FAKE_CLOUD': str(folder),
    'PATH': f'{programs}:{os.environ["PATH"]}',
    'POLL_SECONDS': '0.1',
    'PAUSE_SECONDS': '0',
    'VENV': str(folder / 'venv'),
    'HUGEPAGES': '/nowhere',
    'MOUNT_POINT': '/proc',
  }  # a mount point, so there is nothing to mount
  for name in (
    'JAX_COMPILATION_CACHE_DIR',
    'TFDS_DATA_DIR',
    'HF_HOME',
    'ACCEL',
    'STORE',
    'ZONE',
    'PROJECT',
  ):
    environment.pop(name, None)
  return Cloud(folder, checkout, environment)
