"""Several processes of the main job on this machine: the same run as one process, and their ends.

Parameters of a run of several processes equal those of one within TOLERANCE: the sum of a gradient
over devices has another order. Trees, solutions, evaluations and keys are the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from profiles import PHASES, files, spans_of

from ds_jax.checks import InputError
from ds_jax.interfaces import ALONE
from ds_jax.run.cluster import (
  ENDED,
  SILENT_SECONDS,
  Cluster,
  cluster_from,
  last_heard,
  silent_peers,
)
from ds_jax.run.durable import LineFile, open_results, part_path
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location('run_local', ROOT / 'launch' / 'run_local.py')
run_local = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run_local)

TOLERANCE = 1e-6  # absolute; parameters of the tiny run are of the order of 0.1
FLOAT_METRICS = ('train/', 'search/entropy')  # of float sums over devices
PATIENCE = 240  # seconds, on a loaded machine
PROMISED = 45  # seconds until a job has ended after one of its processes was lost
SHORT = {'curriculum': {'round_steps': (2,)}}
LONG = {'curriculum': {'round_steps': (30,), 'hard_threshold': 1.1}}


def test_a_python_without_jax_gives_way_to_the_installed_one(monkeypatch, tmp_path):
  """README starts the script without the environment's being active."""
  assert run_local.interpreter() == sys.executable
  monkeypatch.setattr(run_local.importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setenv('VENV', str(tmp_path))
  assert run_local.interpreter() == sys.executable  # nothing is installed there
  (tmp_path / 'bin').mkdir()
  (tmp_path / 'bin' / 'python').touch()
  assert run_local.interpreter() == str(tmp_path / 'bin' / 'python')


def test_flags_come_before_variables_and_none_is_a_single_process():
  variables = {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '3', 'JAX_PROCESS_ID': '2'}
  assert cluster_from({}, {}) is None
  assert cluster_from({}, variables) == Cluster('a:1', 3, 2)
  assert cluster_from({'process_id': '0'}, variables) == Cluster('a:1', 3, 0)
  # GKE and Slurm may set the address alone; jax finds the rest.
  assert cluster_from({}, {'JAX_COORDINATOR_ADDRESS': 'a:1'}) is None


@pytest.mark.parametrize(
  'flags, said',
  [
    ({'num_processes': '2'}, 'Missing --coordinator, --process_id'),
    ({'coordinator': 'a:1', 'num_processes': '2', 'process_id': '2'}, 'from 0 to 1'),
    ({'coordinator': 'a', 'num_processes': '2', 'process_id': '0'}, 'HOST:PORT'),
    ({'coordinator': 'a:1', 'num_processes': 'two', 'process_id': '0'}, 'number'),
  ],
)
def test_a_cluster_named_in_part_or_wrongly_is_refused(flags, said):
  with pytest.raises(InputError, match=said):
    cluster_from(flags, {})


def test_processes_without_a_new_beat_are_silent_unless_they_have_ended():
  late = SILENT_SECONDS + 1.0
  heard = last_heard({}, {'b/0': '7', 'b/1': '7', 'b/2': ENDED}, now=0.0)
  heard = last_heard(heard, {'b/0': '8', 'b/1': '7', 'b/2': ENDED}, now=late)
  assert silent_peers(heard, late) == {'1'}
  heard = last_heard(heard, {'b/0': '9', 'b/1': '8', 'b/2': ENDED}, now=late + 1)
  assert not silent_peers(heard, late + 1)


@pytest.fixture(scope='module', autouse=True)
def verifier():
  """Lets the processes find the verifier of the tiny run, which lies beside this file."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PYTHONPATH', str(ROOT / 'tests'))
    yield


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  return tiny_run.warmstart(tmp_path_factory.mktemp('warm') / 'warm', tiny_run.config(**SHORT))


@pytest.fixture(scope='module')
def alone(warm, tmp_path_factory):
  """The run of one process."""
  workdir = copy(warm, tmp_path_factory.mktemp('alone'))
  tiny_run.train(workdir, tiny_run.config(**SHORT))
  return workdir


def copy(workdir, folder):
  shutil.copytree(workdir.root, folder / 'run')
  return Workdir(folder / 'run')


def start(workdir, sections, count, name='train', *flags, devices=1):
  """The processes of a job with `devices` each, as launch/run_local.py starts them."""
  path = tiny_run.config_file(workdir.root.parent, **sections)
  command = [name, f'--config={path}', f'--workdir={workdir.root}', *flags]
  address = f'127.0.0.1:{run_local.free_port()}'
  return [run_local.start(command, devices, address, count, i) for i in range(count)]


def end(processes, patience=PATIENCE):
  """Exit codes and outputs; whatever still runs after `patience` seconds is killed and fails."""
  outputs = []
  try:
    deadline = time.monotonic() + patience
    for process in processes:
      outputs.append(process.communicate(timeout=max(1, deadline - time.monotonic()))[0])
  finally:
    for process in processes:
      process.kill()
  return [run_local.exit_code(p) for p in processes], outputs


def assert_same(ours, alone, sections):
  """The same samples, verdicts and keys in every phase; floats of the learner within TOLERANCE."""
  assert (ours.root / 'replay.jsonl').read_bytes() == (alone.root / 'replay.jsonl').read_bytes()
  for row, expected in zip(tiny_run.metrics(ours), tiny_run.metrics(alone), strict=True):
    floats = {name for name in expected if name.startswith(FLOAT_METRICS)}
    for name in row.keys() | expected.keys():
      if name in floats:
        assert row[name] == pytest.approx(expected[name], abs=1e-4), name
      else:
        assert row[name] == expected[name], name
  config = tiny_run.config(**sections)
  for x, y in zip(
    tiny_run.final_arrays(ours, config), tiny_run.final_arrays(alone, config), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=0, atol=TOLERANCE)


def test_two_processes_make_the_run_of_one(warm, alone, tmp_path):
  workdir = copy(warm, tmp_path)
  codes, outputs = end(start(workdir, SHORT | {'log': dict(profile_steps=(1, 1))}, 2))
  assert codes == [0, 0], outputs
  assert_same(workdir, alone, SHORT)
  profiles = files(workdir)
  assert [path.name.split('.')[-3] for path in profiles] == ['process_0', 'process_1']
  for path in profiles:
    assert {name for name, _ in spans_of(path)} == {'train', *PHASES}


def runs_of_one_and_two(warm, tmp_path, sections):
  """The workdirs of a run of one process, and of two with as many devices together."""
  runs = []
  for processes in (1, 2):
    (tmp_path / str(processes)).mkdir()
    workdir = copy(warm, tmp_path / str(processes))
    (workdir.root / 'config.json').unlink()
    codes, outputs = end(start(workdir, sections, processes, devices=2 // processes))
    assert codes == [0] * processes, outputs
    runs.append(workdir)
  return runs


@pytest.mark.long
def test_two_processes_learn_by_the_levers_as_one(warm, tmp_path):
  """Memory, several passes, weighted successes and draws until groups have contrast; siblings that
  differ."""
  memory = {'when': 'at_once', 'per_update': 4, 'further_updates': 1, 'rate_bound': 2.0}
  train = {'epochs': 2, 'success_weight': 1.0, 'max_refills': 1, 'contrast_groups': 4}
  sections = {'curriculum': {'round_steps': (3,)}, 'memory': memory, 'train': train}
  sections['search'] = {'siblings': 'distinct'}
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  assert rows[-1]['memory/mass_share'] > 0 and rows[-1]['memory/further_updates'] == 1
  assert_same(*runs, sections)


@pytest.mark.long
@pytest.mark.parametrize('tensor', [1, 2])
def test_two_processes_train_adapters_as_one(warm, tmp_path, tensor):
  """Each with a replica, and both with halves of one."""
  train = {'lora_rank': 4, 'lora_alpha': 8.0, 'learning_rate': 2e-2, 'kl_coefficient': 0.01}
  mesh = {'tensor': tensor}
  sections = {'curriculum': {'round_steps': (3,)}, 'train': train, 'mesh': mesh}
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  assert 0 < rows[0]['train/lora_norm'] < rows[-1]['train/lora_norm']
  assert_same(*runs, sections)


FORKS = {
  'strata': {'fork_rule': 'strata', 'probe_share': 1.0, 'min_continuations': 3},
  'sampling': {'fork_rule': 'sampling', 'forks_per_failure': 2},
}


@pytest.mark.long
@pytest.mark.parametrize('rule, num_steps', [('strata', 5), ('sampling', 3)])
def test_two_processes_fork_as_one(warm, tmp_path, rule, num_steps):
  search = {'policy': 'fork', 'max_expansions': 30} | FORKS[rule]
  sections = {'curriculum': {'round_steps': (num_steps,)}, 'search': search}
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  assert sum(row['search/forks'] for row in rows) > 0
  assert_same(*runs, sections)


@pytest.mark.long
def test_two_processes_start_from_prefixes_as_one_by_all_levers(warm, tmp_path):
  """With memory, several passes, and draws until groups have contrast; solved problems, too."""
  sections = {
    'search': {'policy': 'prefix', 'max_expansions': 12},
    'prefix': {
      'root_share': 0.2,
      'first_share': 0.8,
      'withdraw_rate': 0.2,
      'failure_rate': 0.2,
      'advantage': 0.5,
      'worked': True,
    },
    'curriculum': {'round_steps': (4,), 'filter_samples': 0},
    'memory': {'when': 'at_once', 'per_update': 4, 'rate_bound': 2.0},
    'train': {'epochs': 2, 'success_weight': 1.0, 'max_refills': 1, 'contrast_groups': 4},
  }
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  assert all(row['prefix/share'] > 0 for row in rows)  # worked solutions, from the first step on
  assert any(row['prefix/failure_share'] > 0 for row in rows)
  assert any(row.get('prefix/mass_share', 0) > 0 for row in rows)
  assert rows[-1]['memory/mass_share'] > 0
  assert_same(*runs, sections)


@pytest.mark.long
def test_two_processes_learn_by_all_levers_at_once_as_one(warm, tmp_path):
  sections = tiny_run.LEVERS | {'curriculum': {'round_steps': (4,)}}
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  levers = ('memory/mass_share', 'prefix/share', 'search/waited_groups', 'search/wave_rollouts')
  for name in levers:
    assert max(row.get(name, 0) for row in rows) > 0, name
  assert_same(*runs, sections)


@pytest.mark.long
def test_two_processes_sample_in_waves_as_one(warm, tmp_path):
  """Levers of how much is sampled: budgets of problems, a bound of tokens, groups that wait."""
  budget = {'max_rollouts': 8, 'wave': 2, 'until': 'success', 'max_tokens': 450}
  budget |= {'first_wave': 1, 'first_wave_rate': 0.35}
  train = {'max_refills': 2, 'waiting_groups': 2}
  sections = {'curriculum': {'round_steps': (3,)}, 'budget': budget, 'train': train}
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  for name in ('wave_contrasts', 'short_groups', 'refills', 'waited_groups'):
    assert max(row[f'search/{name}'] for row in rows) > 0, name
  assert_same(*runs, sections)


@pytest.mark.long
@pytest.mark.parametrize('explore', ['bandit', 'steered'])
def test_two_processes_choose_temperatures_as_one(warm, tmp_path, explore):
  """Also the levers whose groups have temperatures: refills and memory."""
  sections = {
    'curriculum': {'round_steps': (3,)},
    'explore': {'temperature': explore, 'target': 1.0},
    'memory': {'when': 'at_once', 'per_update': 4, 'further_updates': 1, 'rate_bound': 2.0},
    'train': {'max_refills': 1, 'contrast_groups': 4},
    'evaluate': {'further_temperatures': (1.4,)},
  }
  runs = runs_of_one_and_two(warm, tmp_path, sections)
  rows = [row for row in tiny_run.metrics(runs[0]) if row['kind'] == 'train']
  assert len({row['explore/temperature'] for row in rows}) == 3
  assert_same(*runs, sections)


@pytest.mark.long
def test_four_processes_make_the_run_of_one(warm, alone, tmp_path):
  workdir = copy(warm, tmp_path)
  codes, outputs = end(start(workdir, SHORT, 4))
  assert codes == [0] * 4, outputs
  assert_same(workdir, alone, SHORT)


def test_rows_of_other_processes_become_rows_of_the_first_each_once(tmp_path):
  path = tmp_path / 'a[1].jsonl'
  with LineFile(part_path(path, 1), 'run', ()) as part:
    for i in range(3):
      part.append({'id': i, 'sample': 0, 'text': f'long {i}'})
  with open_results(path, 'run', ALONE, drop=('text',)) as file:
    assert [row['id'] for row in file.rows] == [0, 1, 2]
  # The same part again, as after a kill between taking in and removing.
  with LineFile(part_path(path, 3), 'run', ()) as part:
    part.append({'id': 2, 'sample': 0, 'text': 'long 2'})
    part.append({'id': 2, 'sample': 1, 'text': 'long 2'})
  with open_results(path, 'run', ALONE, drop=('text',)) as file:
    assert [(row['id'], row['sample']) for row in file.rows] == [(0, 0), (1, 0), (2, 0), (2, 1)]
  assert path.read_text().count('long') == 4
  assert list(tmp_path.iterdir()) == [path]


def evaluated(workdir, sections, count, output, devices):
  """The summary of `ds-jax evaluate` by so many processes, and the samples that it kept."""
  flags = ('--json', f'--output={output}')
  codes, said = end(start(workdir, sections, count, 'evaluate', *flags, devices=devices))
  assert codes == [0] * count, said
  assert [path.name for path in output.iterdir()] == ['samples.jsonl']
  summary = json.loads(said[0].strip().splitlines()[-1])
  assert summary.pop('output') == str(output)
  return summary, sorted((output / 'samples.jsonl').read_text().splitlines())


@pytest.mark.long
def test_several_processes_go_on_after_the_end(warm, alone, tmp_path):
  """A run of one step is made one of two."""
  workdir = copy(warm, tmp_path)
  for sections in ({'curriculum': {'round_steps': (1,)}}, SHORT):
    codes, outputs = end(start(workdir, sections, 2))
    assert codes == [0, 0], outputs
  rows = tiny_run.metrics(workdir)
  assert [row['step'] for row in rows if row.get('when') == 'after'] == [1, 2]
  assert (workdir.root / 'replay.jsonl').read_bytes() == (alone.root / 'replay.jsonl').read_bytes()
  runs = [tiny_run.final_arrays(run, tiny_run.config(**SHORT)) for run in (workdir, alone)]
  for x, y in zip(*runs, strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=TOLERANCE)


@pytest.mark.long
@pytest.mark.parametrize('count, tensor', [(2, 1), (4, 1), (2, 2)])
def test_several_processes_evaluate_and_search_as_one(warm, tmp_path, count, tensor):
  """Figures, rows and keys; with two processes, first a part that an earlier start has left."""
  workdir, sections, found = copy(warm, tmp_path), SHORT | {'mesh': {'tensor': tensor}}, {}
  problems = tmp_path / 'problems.jsonl'
  problems.write_text(
    ''.join(
      json.dumps({'id': f'p{i}', 'problem': f'{7 + i} from 1 2 {3 + i}', 'answer': ''}) + '\n'
      for i in range(5)
    )
  )
  for n in (1, count):
    output = tmp_path / f'trees_{n}.jsonl'
    devices = tensor if n == 1 else 1
    summary = evaluated(workdir, sections, n, tmp_path / f'samples_{n}', devices=devices)
    if n == 2:  # what an earlier start of four has left is not grown again
      lines = (tmp_path / 'trees_1.jsonl').read_text().splitlines(keepends=True)
      part_path(output, 3).write_text(lines[0])
    codes, said = end(
      start(
        workdir,
        sections,
        n,
        'search',
        f'--problems={problems}',
        f'--output={output}',
        '--json',
        devices=devices,
      )
    )
    assert codes == [0] * n, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    for row in rows:
      del row['table']  # has times
    found[n] = summary, sorted(rows, key=lambda row: row['id'])
    assert len(rows) == 5
    assert not list(tmp_path.glob('*.process_*'))
  assert found[count] == found[1]


def test_processes_that_share_a_model_evaluate_together(warm, tmp_path):
  """Each has one of the two devices over which the model is split."""
  workdir, sections = copy(warm, tmp_path), SHORT | {'mesh': {'tensor': 2}}
  found = []
  for processes, devices in ((1, 2), (2, 1)):
    output = tmp_path / f'samples_{processes}'
    found.append(evaluated(workdir, sections, processes, output, devices=devices))
  assert found[0] == found[1]


@pytest.mark.long
@pytest.mark.parametrize('count', [2, 4])
def test_processes_that_share_a_model_make_the_run_of_one(warm, tmp_path, count):
  """Two processes with one model, and four with two."""
  sections, runs = SHORT | {'mesh': {'tensor': 2}}, []
  for processes, devices in ((1, count), (count, 1)):
    (tmp_path / str(processes)).mkdir()
    workdir = copy(warm, tmp_path / str(processes))
    codes, outputs = end(start(workdir, sections, processes, devices=devices))
    assert codes == [0] * processes, outputs
    runs.append(workdir)
  assert_same(*runs, sections)


@pytest.fixture(scope='module')
def long_runs(tmp_path_factory):
  """A warm-started workdir to copy, and the run of one process."""
  folder = tmp_path_factory.mktemp('long')
  warm = tiny_run.warmstart(folder / 'warm', tiny_run.config(**LONG))
  workdir = copy(warm, folder)
  tiny_run.train(workdir, tiny_run.config(**LONG))
  return warm, workdir


def until_training(workdir, processes):
  """Waits until a checkpoint of the training steps is there."""
  deadline = time.monotonic() + PATIENCE
  while not (workdir.checkpoints / '3').exists():
    assert all(p.poll() is None for p in processes) and time.monotonic() < deadline
    time.sleep(0.05)


FAULTS = {  # what happens to which process; exit codes that each process may have
  'kill -9 of a worker': (1, signal.SIGKILL, ({134}, {137})),
  'kill -9 of process 0': (0, signal.SIGKILL, ({137}, {134})),
  # In the update both save at the same step (42, 42); amid a search one leaves alone.
  'SIGTERM to a worker': (1, signal.SIGTERM, ({42, 134}, {42})),
  'SIGTERM to process 0': (0, signal.SIGTERM, ({42}, {42, 134})),
}


@pytest.mark.long
@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_ends_the_job_in_time_and_it_goes_on(fault, long_runs, tmp_path):
  warm, long_alone = long_runs
  index, number, allowed = FAULTS[fault]
  workdir = copy(warm, tmp_path)
  processes = start(workdir, LONG, 2)
  until_training(workdir, processes)
  os.kill(processes[index].pid, number)
  since = time.monotonic()
  codes, outputs = end(processes, PROMISED)
  assert time.monotonic() - since < PROMISED
  assert all(code in codes_ for code, codes_ in zip(codes, allowed, strict=True)), (codes, outputs)
  if fault == 'kill -9 of a worker':
    assert 'process 1 has not been heard of' in outputs[0]
  if fault == 'kill -9 of process 0':
    assert 'process 0, the coordinator at' in outputs[1]
  elif 'worker' in fault:
    assert 'process 0, the coordinator at' not in outputs[0] + outputs[1]
  codes, outputs = end(start(workdir, LONG, 2))
  assert codes == [0, 0], outputs
  assert 'Continuing' in outputs[0]
  assert_same(workdir, long_alone, LONG)


@pytest.mark.long
@pytest.mark.parametrize('index', [0, 1])
def test_a_stop_of_one_that_shares_a_model_stops_all_and_they_go_on(long_runs, tmp_path, index):
  """Both leave with 42: amid a search all hear of it in the same round."""
  warm, sections = long_runs[0], LONG | {'mesh': {'tensor': 2}}
  (tmp_path / 'alone').mkdir()
  workdir, alone = copy(warm, tmp_path), copy(warm, tmp_path / 'alone')
  codes, outputs = end(start(alone, sections, 1, devices=2))
  assert codes == [0], outputs
  processes = start(workdir, sections, 2)
  until_training(workdir, processes)
  processes[index].send_signal(signal.SIGTERM)
  codes, outputs = end(processes, PROMISED)
  assert codes == [42, 42], outputs
  codes, outputs = end(start(workdir, sections, 2))
  assert codes == [0, 0], outputs
  assert_same(workdir, alone, sections)


RAISES = """
import sys
from ds_jax.run.training import Training
if '--process_id=1' in sys.argv:
  step = Training.train_step
  def fails(self):
    if self.host.step == 1:
      raise RuntimeError('a defect on purpose')
    step(self)
  Training.train_step = fails
from ds_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_an_exception_in_one_process_ends_the_others(warm, tmp_path):
  workdir = copy(warm, tmp_path)
  path = tiny_run.config_file(tmp_path, **SHORT)
  address = f'127.0.0.1:{run_local.free_port()}'
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '',
    'PYTHONPATH': os.pathsep.join(map(str, (ROOT, ROOT / 'tests'))),
  }
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        '-c',
        RAISES,
        'train',
        f'--config={path}',
        f'--workdir={workdir.root}',
        f'--coordinator={address}',
        '--num_processes=2',
        f'--process_id={i}',
      ],
      env=environment,
      text=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
    )
    for i in range(2)
  ]
  codes, outputs = end(processes)
  assert codes == [134, 1], outputs
  assert 'a defect on purpose' in outputs[1]
  assert 'process 1 failed' in outputs[1]
