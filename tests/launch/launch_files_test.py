"""Files for GKE, SkyPilot and Docker: their structure, and that what they name exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from ds_jax.cli.flags import parse

ROOT = Path(__file__).parents[2]
TRIED_ELSEWHERE = ('.md', '.ipynb')  # in pages_test.py and colab_test.py
LAUNCH = sorted(
  p for p in (ROOT / 'launch').iterdir() if p.is_file() and p.suffix not in TRIED_ELSEWHERE
)


@pytest.mark.parametrize('path', LAUNCH, ids=lambda path: path.name)
def test_each_file_begins_with_what_it_does_and_an_example(path):
  lines = path.read_text().splitlines()
  if lines[0].startswith('#!') or 'shellcheck shell' in lines[0]:
    del lines[0]
  summary, example = lines[0].strip('#" '), '\n'.join(lines[1:9])
  assert summary.endswith(('.', ':')) or lines[1].startswith('# '), summary
  assert f'launch/{path.name}' in example


def jobset():
  return yaml.safe_load((ROOT / 'launch/gke_jobset.yaml').read_text())


def test_jobset_runs_one_pod_per_host_and_restarts_all_together():
  spec = jobset()['spec']
  (group,) = spec['replicatedJobs']
  job = group['template']['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  rows, columns = map(int, pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'))
  chips = container['resources']['limits']['google.com/tpu']
  assert job['parallelism'] == job['completions'] == rows * columns // chips
  assert job['backoffLimit'] == 0 and pod['restartPolicy'] == 'Never'
  assert spec['failurePolicy']['maxRestarts'] > 0
  assert pod['terminationGracePeriodSeconds'] >= 60
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['onExitCodes']['values'] == [1, 2, 74]  # the same as in tpu_babysit.sh
  assert rule['onExitCodes']['containerName'] == container['name']
  named = spec['failurePolicy']['rules'][0]
  assert named['action'] == 'FailJobSet' and named['onJobFailureReasons'] == ['PodFailurePolicy']


def test_jobset_mounts_what_its_arguments_name():
  pod = jobset()['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  (container,) = pod['containers']
  mounted = {m['name']: m['mountPath'] for m in container['volumeMounts']}
  assert mounted.keys() == {v['name'] for v in pod['volumes']}
  for argument in container['args']:
    if '/mnt' in argument:
      assert mounted['store'] in argument
  assert {e['name']: e['value'] for e in container['env']}['STORE'] == mounted['store']


def test_jobset_mounts_a_bucket_in_which_folders_can_be_renamed():
  pod = jobset()['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  (store,) = [volume['csi'] for volume in pod['volumes'] if 'csi' in volume]
  assert 'rename-dir-limit=200000' in store['volumeAttributes']['mountOptions'].split(',')


def skypilot():
  return yaml.safe_load((ROOT / 'launch/skypilot.yaml').read_text())


def test_skypilot_recovers_what_can_go_on():
  task = skypilot()
  recovery = task['resources']['job_recovery']
  assert task['resources']['use_spot'] and recovery['recover_on_exit_codes'] == [42, 134, 137]
  assert task['envs']['ACCEL'] in task['resources']['accelerators']
  assert task['envs']['STORE'] in task['file_mounts']
  assert set(re.findall(r'\$\{(\w+)\}', str(task))) <= task['envs'].keys()
  assert (ROOT / task['setup']).is_file() and run_of_skypilot().startswith('exec ')
  assert (ROOT / shlex.split(run_of_skypilot())[1]).is_file()


def run_of_skypilot():
  return skypilot()['run'].replace('\\\n', ' ')


def commands():
  """Arguments of ds-jax in both files."""
  pod = jobset()['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  return [pod['containers'][0]['args'], shlex.split(run_of_skypilot())[3:]]


@pytest.mark.parametrize('arguments', commands(), ids=['jobset', 'skypilot'])
def test_their_commands_are_valid(arguments, monkeypatch):
  monkeypatch.chdir(ROOT)
  invocation = parse(arguments[0], arguments[1:])
  assert invocation.workdir and invocation.config.data.source.startswith('file:')


def docker():
  """[(instruction, rest)] of the Dockerfile, continued lines joined."""
  text = (ROOT / 'launch/Dockerfile').read_text().replace('\\\n', ' ')
  lines = [line for line in text.splitlines() if line and not line.startswith('#')]
  return [tuple(line.split(maxsplit=1)) for line in lines]


def test_docker_copies_what_exists_and_what_is_needed():
  copied = [source for word, rest in docker() if word == 'COPY' for source in rest.split()[:-1]]
  assert all((ROOT / source).exists() for source in copied)
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  needed = {
    'pyproject.toml',
    'ds_jax',
    'configs',
    'launch',
    project['readme'],
    *project['license-files'],
  }
  assert needed <= set(copied)
  extra = next(rest for word, rest in docker() if word == 'ARG').split('=')[1]
  assert extra in project['optional-dependencies']
  (entry,) = (rest for word, rest in docker() if word == 'ENTRYPOINT')
  assert yaml.safe_load(entry) == ['launch/run_worker.sh', 'run']


def pins_of(versions, python):
  """{name: version} of a file of constraints, under a version of Python."""
  pins = {}
  for line in (ROOT / f'launch/constraints-{versions}.txt').read_text().splitlines():
    if line.startswith('#'):
      continue
    assert '/' not in line  # names no registry
    pin = Requirement(line)
    environment = {'python_version': python, 'python_full_version': f'{python}.0'}
    if pin.marker is None or pin.marker.evaluate(environment):
      assert pin.name not in pins
      (specifier,) = pin.specifier
      pins[pin.name] = specifier.version
  return pins


def requirements():
  """What the project and the extra for TPUs need, by the names that files of constraints use."""
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  for text in [*project['dependencies'], *project['optional-dependencies']['tpu']]:
    needed = Requirement(text)
    yield re.sub(r'[-_.]+', '-', needed.name).lower(), needed.specifier


@pytest.mark.parametrize('versions', ['newest', 'oldest'])
@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
def test_constraints_allow_what_the_project_needs(versions, python):
  pins = pins_of(versions, python)
  assert 'libtpu' in pins and 'torch' not in pins
  for name, specifier in requirements():
    assert specifier.contains(pins[name]), f'{specifier} excludes {name} {pins[name]}'


def test_the_oldest_versions_are_the_lower_bounds():
  pins = pins_of('oldest', '3.11')
  for name, specifier in requirements():
    for bound in specifier:
      if bound.operator == '>=':
        assert Version(pins[name]) == Version(bound.version), name


@pytest.mark.long
@pytest.mark.parametrize('versions', ['newest', 'oldest'])
def test_an_installation_for_tpus_resolves(versions):
  """By pip, for this Python, without installing it."""
  if versions == 'oldest' and sys.version_info >= (3, 12):
    pytest.skip('the oldest versions have wheels for Python 3.11 alone')
  command = [sys.executable, '-m', 'pip', 'install', '--dry-run', '--ignore-installed', '--quiet']
  command += [f'--constraint={ROOT}/launch/constraints-{versions}.txt', '--report=-']
  done = subprocess.run([*command, f'{ROOT}[tpu]'], capture_output=True, text=True)
  if '(from versions: none)' in done.stderr:
    pytest.skip('packages cannot be had here')
  assert done.returncode == 0, done.stderr
  pins = pins_of(versions, '{}.{}'.format(*sys.version_info))
  chosen = {}
  for entry in json.loads(done.stdout)['install']:
    metadata = entry['metadata']
    chosen[re.sub(r'[-_.]+', '-', metadata['name']).lower()] = metadata['version']
  assert chosen.pop('ds-jax') and 'libtpu' in chosen
  assert chosen == {name: pins[name] for name in chosen}
