"""All launch scripts: syntax, help. Install and quickstart: refusals, signals, arguments."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob('launch/*.sh'), ROOT / 'launch/slurm.sbatch', ROOT / '.ci/run'])
SOURCED = ('install.sh', 'env.sh', 'slurm.sbatch')  # not run by their names

# A ds-jax that shows its arguments, works for a while, and saves when it is told to end.
FAKE_DS_JAX = """#!{python}
import signal, sys, time

class Terminated(BaseException):
  pass

def terminate(*_):
  raise Terminated

signal.signal(signal.SIGTERM, terminate)
print(*sys.argv[1:], flush=True)
try:
  time.sleep({seconds} if sys.argv[1] == '{slow}' else 0)
except Terminated:
  time.sleep(0.2)
  print('saved', flush=True)
  sys.exit(42)
except KeyboardInterrupt:
  time.sleep(0.2)
  print('saved', flush=True)
  sys.exit(130)
"""


def write_program(path: Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def path_with(folder: Path, *programs: str) -> str:
  """A PATH of `folder` and these ordinary programs only: no uv, no other Python."""
  for program in programs:
    folder.joinpath(program).symlink_to(shutil.which(program))
  return str(folder)


def run_script(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [ROOT / 'launch' / script, *arguments],
    env={**os.environ, **environment},
    text=True,
    capture_output=True,
    timeout=60,
    cwd='/',
  )


@pytest.fixture
def programs(tmp_path) -> Path:
  """An empty folder for a PATH; the interpreters of this machine are not on it."""
  folder = tmp_path / 'programs'
  folder.mkdir()
  path_with(folder, 'bash', 'env', 'dirname', 'cat', 'cksum', 'sed', 'id', 'tee')
  return folder


def use_installation(tmp_path: Path, slow: str = '', seconds: float = 0) -> Path:
  """A finished installation whose ds-jax is FAKE_DS_JAX; returns its folder."""
  venv = tmp_path / 'venv'
  write_program(
    venv / 'bin/ds-jax', FAKE_DS_JAX.format(python=sys.executable, slow=slow, seconds=seconds)
  )
  (venv / 'bin/python').symlink_to(sys.executable)
  checksum = subprocess.run(
    ['cksum'], stdin=(ROOT / 'pyproject.toml').open(), text=True, capture_output=True, check=True
  ).stdout.strip()
  (venv / '.ds_jax-').write_text(f'{ROOT} {checksum}')
  return venv


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
  subprocess.run(['bash', '-n', script], check=True)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script):
  if shutil.which('shellcheck') is None:
    pytest.skip('shellcheck is not installed')
  done = subprocess.run(
    ['shellcheck', '-x', '-P', 'SCRIPTDIR', script], text=True, capture_output=True
  )
  assert not done.stdout


@pytest.mark.parametrize(
  'script', [s for s in SCRIPTS if s.name not in SOURCED], ids=lambda path: path.name
)
def test_is_executable(script):
  assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
  'script',
  [
    'quickstart.sh',
    'test.sh',
    'run_worker.sh',
    'setup_tpu_vm.sh',
    'tpu_babysit.sh',
    'tpu_queued_resource.sh',
    'tpu_submit.sh',
  ],
)
def test_help_shows_an_example_and_installs_nothing(script, tmp_path):
  done = run_script(script, '--help', VENV=str(tmp_path / 'venv'))
  assert done.returncode == 0
  assert f'launch/{script}' in done.stdout
  assert not (tmp_path / 'venv').exists()


def test_missing_venv_package_names_the_apt_command(programs, tmp_path):
  # Debian's python3 without python3-venv: everything works but `import ensurepip`.
  write_program(
    programs / 'python3',
    f"""#!/bin/sh
case "$2" in *ensurepip*) echo "No module named 'ensurepip'" >&2; exit 1 ;; esac
exec {sys.executable} "$@"
""",
  )
  done = run_script('quickstart.sh', PATH=str(programs), VENV=str(tmp_path / 'venv'), PYTHON='')
  version = '.'.join(map(str, sys.version_info[:2]))
  assert done.returncode == 2
  assert f'apt install python{version}-venv' in done.stderr
  assert not (tmp_path / 'venv').exists()


def test_old_python_is_refused_by_its_version(programs, tmp_path):
  write_program(
    programs / 'python3',
    f"""#!/bin/sh
[ "$1" = --version ] && echo Python 3.9.2 && exit
exec {sys.executable} -c 'import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])' "$2"
""",
  )
  done = run_script('quickstart.sh', PATH=str(programs), VENV=str(tmp_path / 'venv'), PYTHON='')
  assert done.returncode == 2
  assert 'Expected Python 3.11 or newer, got Python 3.9.2' in done.stderr
  assert not (tmp_path / 'venv').exists()


def test_uv_without_any_python_says_what_to_do(programs, tmp_path):
  write_program(programs / 'uv', '#!/bin/sh\nexit 1\n')
  done = run_script('quickstart.sh', PATH=str(programs), VENV=str(tmp_path / 'venv'), PYTHON='')
  assert done.returncode == 2
  assert 'uv python install' in done.stderr


def test_newer_python_is_found_behind_an_old_one(programs, tmp_path):
  log = tmp_path / 'uv.log'
  write_program(programs / 'python3', '#!/bin/sh\nexit 1\n')
  write_program(programs / 'python3.12', f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  write_program(programs / 'uv', f'#!/bin/sh\necho "$*" >> {log}\n')
  run_script('quickstart.sh', PATH=str(programs), VENV=str(tmp_path / 'venv'), PYTHON='')
  assert f'venv --quiet --allow-existing --python {programs}/python3.12' in log.read_text()


def test_both_commands_get_the_arguments(tmp_path):
  venv = use_installation(tmp_path)
  done = run_script('quickstart.sh', '--config.seed=1', VENV=str(venv), WORKDIR=str(tmp_path / 'w'))
  settings = f'--config={ROOT}/configs/quickstart.py --workdir={tmp_path}/w --config.seed=1'
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == f'warmstart {settings}'
  assert lines[-1] == f'train {settings}'
  assert 'Installing' not in done.stdout  # an installation that is up to date is left alone


@pytest.mark.parametrize('slow', ['warmstart', 'train'])
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 42), (signal.SIGINT, 130)])
def test_signals_reach_the_command(tmp_path, slow, number, code):
  venv = use_installation(tmp_path, slow=slow, seconds=30)
  process = subprocess.Popen(
    [ROOT / 'launch/quickstart.sh'],
    text=True,
    stdout=subprocess.PIPE,
    start_new_session=True,
    env={**os.environ, 'VENV': str(venv), 'WORKDIR': str(tmp_path)},
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  try:
    while not process.stdout.readline().startswith(slow):
      assert process.poll() is None
    time.sleep(0.2)  # the command is in its sleep
    # A supervisor tells the script alone; a terminal tells its whole foreground group.
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
    rest = process.communicate(timeout=20)[0]
  finally:
    process.kill()
  assert process.returncode == code
  assert rest == 'saved\n'
