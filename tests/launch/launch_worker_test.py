"""What runs on a worker: one process at a time, signals, environment, set-up of a machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from fake_cloud import ROOT, make_cloud, write_program


@pytest.fixture
def cloud(tmp_path):
  made = make_cloud(tmp_path)
  return made.__class__(
    made.folder,
    made.checkout,
    made.environment
    | {
      'HOME': str(made.folder / 'home'),
      'LOCK': str(made.folder / 'worker.lock'),
      'LIBTPU_LOCK': str(made.folder / 'libtpu.lock'),
    },
  )


def worker(cloud, *arguments, **environment):
  return cloud.run('run_worker.sh', *arguments, **environment)


def status(cloud, *job):
  done = worker(cloud, 'status', *job)
  assert done.stdout.startswith('ds_jax_worker ')
  return done.stdout.split()[2]


def test_sigterm_reaches_python(cloud):
  cloud.jobs('wait')
  process = cloud.start('run_worker.sh', 'run', 'train')
  assert process.stdout.readline() == 'step 1\n'
  assert cloud.started()[0]['pid'] == process.pid  # no shell in front of it
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=30)
  assert process.returncode == 42 and out == 'saved\n'


def test_a_second_start_is_refused_until_the_first_has_ended(cloud):
  cloud.jobs('wait', 0)
  first = cloud.start('run_worker.sh', 'run', 'train')
  cloud.wait_for_job()
  second = worker(cloud, 'run', 'train')
  assert second.returncode == 2 and f'process {first.pid}' in second.stderr
  first.kill()  # the lock goes with the process, however that ends
  first.communicate()
  assert worker(cloud, 'run', 'train').returncode == 0
  assert len(cloud.started()) == 2


def status_of_ended(cloud, job):
  """The status once it runs no more; a busy machine takes its time to end a process."""
  deadline = time.monotonic() + 20
  while status(cloud, job) == 'running' and time.monotonic() < deadline:
    time.sleep(0.05)
  return status(cloud, job)


def test_a_detached_job_from_start_to_stop(cloud):
  cloud.jobs('wait')
  assert status(cloud) == 'absent'
  started = time.monotonic()
  assert worker(cloud, 'start', 'one', 'train', '--x=a b').returncode == 0
  assert time.monotonic() - started < 10  # it does not wait for the job
  cloud.wait_for_job()
  assert status(cloud) == status(cloud, 'one') == 'running'
  assert 'was started before' in worker(cloud, 'start', 'one', 'train').stdout
  other = worker(cloud, 'start', 'two', 'train')
  assert other.returncode == 2 and 'job one' in other.stderr and status(cloud, 'two') == 'absent'
  assert worker(cloud, 'stop').returncode == 0
  assert status_of_ended(cloud, 'one') == '42'
  assert worker(cloud, 'log', 'one', '0').stdout == 'step 1\nsaved\n'
  assert worker(cloud, 'log', 'one', '7').stdout == 'saved\n'
  assert cloud.started()[0]['arguments'] == ['train', '--x=a b'] and len(cloud.started()) == 1


def test_a_job_whose_machine_was_restarted_is_lost(cloud):
  cloud.jobs('wait')
  assert worker(cloud, 'start', 'one', 'train').returncode == 0
  cloud.wait_for_job()
  os.killpg(os.getpgid(cloud.started()[0]['pid']), signal.SIGKILL)
  assert status_of_ended(cloud, 'one') == 'lost'


def test_libtpu_lock_of_a_dead_process_is_removed(cloud):
  lock = cloud.folder / 'libtpu.lock'
  cloud.jobs(0, 0)
  lock.touch()
  worker(cloud, 'run', 'train')
  assert not lock.exists()
  if shutil.which('fuser') is None:
    pytest.skip('fuser is not installed: whether a live process keeps its lock was not checked')
  with lock.open('w'):
    worker(cloud, 'run', 'train')
    assert lock.exists()


def test_a_bad_environment_is_named(cloud):
  done = worker(cloud, 'run', 'train', ACCEL='h100')
  assert done.returncode == 2 and "got 'h100'" in done.stderr and not cloud.started()


# env.sh


def sourced(**environment):
  """Variables that env.sh sets or changes."""
  done = subprocess.run(
    ['bash', '-c', '. launch/env.sh && env -0'],
    text=True,
    cwd=ROOT,
    capture_output=True,
    env={'PATH': os.environ['PATH'], **environment},
  )
  if done.returncode:
    return done
  after = dict(v.split('=', 1) for v in done.stdout.split('\0') if v)
  return {
    k: v
    for k, v in after.items()
    if environment.get(k) != v and k not in ('PATH', 'PWD', 'SHLVL', '_', 'OLDPWD')
  }


COMMON = {
  'PYTHONUNBUFFERED': '1',
  'TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS': '60',
  'TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES': '256',
}


def test_environment_of_each_accelerator():
  tpu = {'TPU_STDERR_LOG_LEVEL': '2', 'TPU_MIN_LOG_LEVEL': '2', 'LIBTPU_INIT_ARGS': ''}
  assert sourced() == COMMON
  assert sourced(ACCEL='v5litepod-16') == sourced(ACCEL='v5p-8') == COMMON | tpu
  assert sourced(ACCEL='v4-8', DEBUG='1')['TPU_MIN_LOG_LEVEL'] == '0'
  assert sourced(ACCEL='cpu') == COMMON | {'JAX_PLATFORMS': 'cpu'}
  gpu = sourced(ACCEL='gpu')
  assert gpu.keys() == COMMON.keys() | {'XLA_FLAGS', 'XLA_PYTHON_CLIENT_MEM_FRACTION'}


def test_the_store_keeps_programs_data_and_models():
  found = sourced(ACCEL='v6e-8', STORE='/mnt/store')
  assert found['JAX_COMPILATION_CACHE_DIR'] == '/mnt/store/jax_cache/v6e-8'
  assert found['HF_HOME'] == '/mnt/store/huggingface'
  found = sourced(STORE='gs://b/x')
  assert found['TFDS_DATA_DIR'] == 'gs://b/x/tensorflow_datasets' and 'HF_HOME' not in found


def test_variables_that_are_set_stay():
  mine = {
    'ACCEL': 'v5p-8',
    'TPU_MIN_LOG_LEVEL': '1',
    'STORE': '/s',
    'HF_HOME': '/mine',
    'JAX_COMPILATION_CACHE_DIR': '',
  }
  assert not sourced(**mine).keys() & mine.keys()


def test_profiles_of_compiler_flags():
  overlap = sourced(ACCEL='v5p-8', XLA_PROFILE='overlap')['LIBTPU_INIT_ARGS'].split()
  both = sourced(ACCEL='v5p-8', XLA_PROFILE='multislice', LIBTPU_INIT_ARGS='--mine=1')
  both = both['LIBTPU_INIT_ARGS'].split()
  assert both[: len(overlap)] == overlap and both[-1] == '--mine=1' and len(both) > len(overlap) + 1
  done = sourced(ACCEL='v5p-8', XLA_PROFILE='fast')
  assert done.returncode == 2 and "got 'fast'" in done.stderr


@pytest.mark.parametrize('profile', ['', 'overlap'])
def test_this_jax_knows_the_flags_for_gpus(profile):
  flags = sourced(ACCEL='gpu', XLA_PROFILE=profile)['XLA_FLAGS']
  code = 'import jax; print(jax.device_count())'
  run = lambda flags: subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    env=os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
  )
  assert run(flags).returncode == 0  # an unknown flag would end the process
  if profile:
    assert 'Unknown flag' in run('--xla_gpu_no_such_flag=true').stderr


# setup_tpu_vm.sh


def setup(cloud, **environment):
  write_program(cloud.folder / 'programs/uv', '#!/bin/sh\necho "$@" >> "$FAKE_CLOUD/uv"\n')
  return cloud.run('setup_tpu_vm.sh', **environment)


def test_setup_installs_once(cloud):
  huge = cloud.folder / 'huge'
  huge.touch()
  for _ in range(2):
    done = setup(cloud, HUGEPAGES=str(huge))
    assert done.returncode == 0, done.stderr
  assert (cloud.folder / 'uv').read_text() == (
    f'pip install --quiet --python {cloud.folder}/venv/bin/python '
    f'--constraint={cloud.checkout}/launch/constraints-newest.txt '
    f'--editable {cloud.checkout}[tpu]\n'
  )
  assert f'tee {huge}' in (cloud.folder / 'sudo').read_text()


def test_setup_mounts_a_bucket_or_a_share(cloud):
  write_program(cloud.folder / 'programs/gcsfuse', '#!/bin/sh\necho "$@" >> "$FAKE_CLOUD/mounts"\n')
  write_program(cloud.folder / 'programs/mount.nfs', '#!/bin/sh\n')
  point = cloud.folder / 'store'
  assert setup(cloud, MOUNT='gs://bucket', MOUNT_POINT=str(point)).returncode == 0
  mount = (cloud.folder / 'mounts').read_text().split()
  assert mount[-2:] == ['bucket', str(point)]
  assert '--rename-dir-limit=200000' in mount  # else no checkpoint gets its name
  assert setup(cloud, MOUNT='10.0.0.2:/share', MOUNT_POINT=str(point)).returncode == 0
  assert f'mount -t nfs -o hard 10.0.0.2:/share {point}' in (cloud.folder / 'sudo').read_text()
  done = setup(cloud, MOUNT='bucket', MOUNT_POINT=str(point))
  assert done.returncode == 2 and 'gs://my-bucket' in done.stderr


# test.sh


@pytest.mark.parametrize('versions', ['newest', 'oldest'])
def test_versions_have_environments_of_their_own(cloud, versions):
  version = '.'.join(map(str, sys.version_info[:2]))
  real = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
  write_program(cloud.folder / f'programs/python{version}', real)
  write_program(
    cloud.folder / 'made',
    f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\necho "$@" >> "$FAKE_CLOUD/tests"\n',
  )
  write_program(
    cloud.folder / 'programs/uv',
    '#!/bin/sh\necho "$@" >> "$FAKE_CLOUD/uv"\n'
    '[ "$1" = venv ] || exit 0\n'
    'for folder; do :; done\n'
    'mkdir -p "$folder/bin" && cp "$FAKE_CLOUD/made" "$folder/bin/python"\n',
  )
  for _ in range(2):  # the second finds the first's
    done = cloud.run('test.sh', f'--python={version}', f'--{versions}', 'tests/search')
    assert done.returncode == 0, done.stderr
  venv = f'{cloud.checkout}/.venv-{version}-{versions}'
  made, installed = (cloud.folder / 'uv').read_text().splitlines()
  assert made == (
    f'venv --quiet --allow-existing --python {cloud.folder}/programs/python{version} {venv}'
  )
  assert installed == (
    f'pip install --quiet --python {venv}/bin/python '
    f'--constraint={cloud.checkout}/launch/constraints-{versions}.txt '
    f'--editable {cloud.checkout}[test]'
  )
  (first, second) = (cloud.folder / 'tests').read_text().splitlines()
  assert first == second and first.startswith('-m pytest ') and first.endswith(' tests/search')


def test_another_version_of_python_is_fetched_not_replaced(cloud):
  write_program(cloud.folder / 'programs/uv', '#!/bin/sh\necho "$@" >> "$FAKE_CLOUD/uv"\nexit 1\n')
  done = cloud.run('test.sh', '--python=3.99', PYTHON=sys.executable)
  assert done.returncode == 2 and 'uv found no Python 3.99' in done.stderr
  assert (cloud.folder / 'uv').read_text() == (
    f'venv --quiet --allow-existing --python 3.99 {cloud.checkout}/.venv-3.99\n'
  )


# slurm.sbatch


@pytest.mark.parametrize(
  'code, restarts, is_requeued',
  [(0, '0', False), (2, '0', False), (42, '0', True), (134, '3', True), (42, '100', False)],
)
def test_slurm_requeues_what_can_go_on(cloud, code, restarts, is_requeued):
  write_program(
    cloud.folder / 'programs/srun',
    '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
  )
  write_program(cloud.folder / 'programs/scontrol', '#!/bin/sh\necho "$@" > "$FAKE_CLOUD/queue"\n')
  cloud.jobs(code)
  done = subprocess.run(
    ['bash', 'launch/slurm.sbatch', 'train', '--x=a b'],
    cwd=cloud.checkout,
    text=True,
    capture_output=True,
    timeout=30,
    env=cloud.environment
    | {'SLURM_JOB_ID': '7', 'SLURM_RESTART_COUNT': restarts, 'SLURM_LOCALID': '0'},
  )
  assert done.returncode == code, done.stderr
  assert cloud.started()[0]['arguments'] == ['train', '--x=a b']
  assert cloud.started()[0]['environment']['ACCEL'] == 'gpu'
  queue = cloud.folder / 'queue'
  assert queue.exists() == is_requeued and (not is_requeued or queue.read_text() == 'requeue 7\n')


def test_slurm_passes_sigterm_on(cloud):
  write_program(
    cloud.folder / 'programs/srun',
    '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
  )
  write_program(cloud.folder / 'programs/scontrol', '#!/bin/sh\n')
  cloud.jobs('wait')
  process = subprocess.Popen(
    ['bash', 'launch/slurm.sbatch', 'train'],
    cwd=cloud.checkout,
    text=True,
    stdout=subprocess.PIPE,
    env=cloud.environment | {'SLURM_JOB_ID': '7'},
  )
  cloud.wait_for_job()
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=30)
  assert process.returncode == 42 and out == 'step 1\nsaved\n'
