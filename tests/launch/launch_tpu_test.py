"""The TPU scripts against a cloud in a folder: what they ask of gcloud and make of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess

import pytest
from fake_cloud import ROOT, make_cloud
from pages import find_pages, gcloud_commands

PLACE = ('--zone=us-west4-a', '--project=p')
TRAIN = ('--', 'train', '--config=configs/deepsearch_1_5b.py', '--workdir=/mnt/ds_jax/runs/a')
REAL_GCLOUD = shutil.which('gcloud')


@pytest.fixture
def cloud(tmp_path):
  return make_cloud(tmp_path)


def queue(cloud, verb, *flags, **environment):
  return cloud.run('tpu_queued_resource.sh', verb, 'my-tpu', *PLACE, *flags, **environment)


def babysit(cloud, *flags):
  return cloud.run(
    'tpu_babysit.sh', 'my-tpu', *PLACE, '--type=v5litepod-16', '--spot', *flags, *TRAIN
  )


# The queue.


@pytest.mark.parametrize(
  'kind, runtime',
  [
    ('v4-8', 'tpu-ubuntu2204-base'),
    ('v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('v5p-8', 'v2-alpha-tpuv5'),
    ('v6e-8', 'v2-alpha-tpuv6e'),
  ],
)
def test_create_asks_for_the_runtime_of_the_type(cloud, kind, runtime):
  cloud.lives(['ACTIVE'])
  assert queue(cloud, 'create', f'--type={kind}').returncode == 0
  assert cloud.calls() == [
    [
      'compute',
      'tpus',
      'queued-resources',
      'create',
      'my-tpu',
      *PLACE,
      '--quiet',
      f'--accelerator-type={kind}',
      f'--runtime-version={runtime}',
      '--node-id=my-tpu',
    ]
  ]


def test_create_passes_on_what_it_is_told(cloud):
  cloud.lives(['ACTIVE'])
  queue(
    cloud,
    'create',
    '--type=v5p-8',
    '--nodes=4',
    '--spot',
    '--valid-for=6h',
    '--runtime=mine',
    '--',
    '--labels=team=a b',
  )
  assert cloud.calls()[0][-6:] == [
    '--runtime-version=mine',
    '--node-count=4',
    '--node-prefix=my-tpu',
    '--spot',
    '--valid-until-duration=6h',
    '--labels=team=a b',
  ]


@pytest.mark.parametrize(
  'verb, flags',
  [
    ('create', ['--type=v5litepod-16', '--spot', '--nodes=2', '--', '--labels=a=b']),
    ('create', ['--type=v5p-8', '--reserved', '--valid-for=6h']),
    ('delete', []),
    ('status', []),
  ],
)
def test_dry_run_prints_the_command_and_calls_nothing(cloud, verb, flags):
  done = queue(
    cloud,
    verb,
    '--dry-run',
    *flags[: flags.index('--') if '--' in flags else None],
    *(flags[flags.index('--') :] if '--' in flags else []),
  )
  printed = shlex.split(done.stdout)
  assert done.returncode == 0 and not cloud.calls()
  cloud.lives(['ACTIVE'])
  cloud.states('ACTIVE')
  queue(cloud, verb, *flags)
  assert printed == ['gcloud', *cloud.calls()[-1]]


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['creat', 'a'], 'Expected create, wait, status or delete'),
    (['create'], 'Expected a name'),
    (['create', 'a'], 'Expected --type'),
    (['create', 'a', 'b', '--type=v4-8'], 'Expected one name'),
    (['create', 'a', '--type=v5e-16'], 'v5litepod-16'),
    (['create', 'a', '--type=tpu7x-8'], 'gke_jobset.yaml'),
    (['create', 'a', '--type=h100'], "got 'h100'"),
    (['create', 'a', '--type=v4-8', '--nodes=0'], '--nodes of 1 or more'),
    (['create', 'a', '--type=v4-8', '--spot', '--reserved'], 'not both'),
    (['create', 'a', '--typ=v4-8'], 'Unknown flag --typ'),
  ],
)
def test_a_mistake_is_named_before_gcloud_is_called(cloud, arguments, words):
  done = cloud.run('tpu_queued_resource.sh', *arguments)
  assert done.returncode == 2 and words in done.stderr and not cloud.calls()


def test_a_quota_error_says_where_to_ask(cloud):
  (cloud.folder / 'create_error').write_text("RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPerZone'")
  done = queue(cloud, 'create', '--type=v5litepod-16')
  assert done.returncode == 2
  assert 'TPUV5sPerZone' in done.stderr and 'iam-admin/quotas' in done.stderr


def test_another_error_of_create_is_passed_on(cloud):
  (cloud.folder / 'create_error').write_text('PERMISSION_DENIED')
  done = queue(cloud, 'create', '--type=v5litepod-16')
  assert done.returncode == 1 and 'PERMISSION_DENIED' in done.stderr


def test_wait_reports_each_state_once(cloud):
  cloud.states('ACCEPTED', 'WAITING_FOR_RESOURCES', 'WAITING_FOR_RESOURCES', 'ACTIVE')
  done = queue(cloud, 'wait')
  assert done.returncode == 0
  assert [line.split()[1] for line in done.stderr.splitlines()] == [
    'ACCEPTED',
    'WAITING_FOR_RESOURCES',
    'ACTIVE',
  ]


@pytest.mark.parametrize('states', [['FAILED'], ['ACCEPTED', 'SUSPENDED'], ['NOT_FOUND']])
def test_wait_gives_up_where_there_is_no_hope(cloud, states):
  cloud.states(*states)
  done = queue(cloud, 'wait')
  assert done.returncode == 3 and 'will not become active' in done.stderr


def test_wait_has_a_timeout(cloud):
  cloud.states('WAITING_FOR_RESOURCES')
  assert queue(cloud, 'wait', '--timeout=0').returncode == 3


def test_status_and_delete_of_nothing(cloud):
  assert queue(cloud, 'status').stdout == 'ABSENT\n'
  assert queue(cloud, 'delete').returncode == 0
  assert not cloud.calls('delete')


def test_status_does_not_take_a_failure_for_an_absence(cloud):
  cloud.states('NO_NETWORK')
  done = queue(cloud, 'status')
  assert done.returncode == 1 and 'auth tokens' in done.stderr and not done.stdout


# One job on a slice.


def submit(cloud, *flags, arguments=TRAIN):
  return cloud.run(
    'tpu_submit.sh',
    'my-tpu',
    *PLACE,
    '--store=gs://bucket',
    '--type=v5litepod-16',
    *flags,
    *arguments,
  )


@pytest.mark.parametrize('code', [0, 1, 42, 134])
def test_submit_returns_the_exit_code_and_the_log(cloud, code):
  cloud.states('ACTIVE')
  cloud.jobs(code)
  done = submit(cloud)
  assert done.returncode == code, done.stderr
  assert done.stdout == 'step 1\nstep 2\n'
  (job,) = cloud.started()
  assert job['arguments'] == list(TRAIN[1:])
  commit = subprocess.run(
    ['git', '-C', cloud.checkout, 'rev-parse', '--short=12', 'HEAD'],
    text=True,
    capture_output=True,
    check=True,
  ).stdout.strip()
  assert job['cwd'] == str(cloud.folder / 'home' / f'ds_jax-{commit}')
  assert job['environment'] == {
    'ACCEL': 'v5litepod-16',
    'STORE': '/mnt/ds_jax',
    'NOTE': None,
    'JAX_COMPILATION_CACHE_DIR': '/mnt/ds_jax/jax_cache/v5litepod-16',
  }


@pytest.mark.parametrize(
  'own, peers, code',
  [
    (134, [134, 42, 134], 42),  # one was told to end, the others lost it
    (134, [1, 42], 1),
    (134, [74, 134], 74),
    (0, [134], 134),
    (0, ['lost'], 137),
    (134, [139], 139),
    (134, ['absent', 42], 137),
    (0, [0, 0], 0),
  ],
)
def test_the_reason_comes_before_its_consequences_on_other_workers(cloud, own, peers, code):
  cloud.states('ACTIVE')
  cloud.jobs(own)
  (cloud.folder / 'peers').write_text(''.join(f'ds_jax_worker w {peer}\n' for peer in peers))
  assert submit(cloud).returncode == code


def test_arguments_arrive_word_by_word(cloud):
  cloud.states('ACTIVE')
  cloud.jobs(0)
  words = ['search', '--problem=What is $HOME, "2 + 2" or \'3\'; `date`?\nSay it.', '--x=', '*', '']
  done = submit(cloud, '--env=NOTE=a "b" $c', arguments=['--', *words])
  assert done.returncode == 0, done.stderr
  (job,) = cloud.started()
  assert job['arguments'] == words and job['environment']['NOTE'] == 'a "b" $c'


def test_a_dropped_connection_starts_the_job_once(cloud):
  (cloud.folder / 'drop_ssh').touch()
  cloud.states('ACTIVE')
  cloud.jobs(0)
  done = submit(cloud)
  assert done.returncode == 0, done.stderr
  assert 'was started before' in done.stderr and len(cloud.started()) == 1


def test_a_second_job_on_the_slice_is_refused_and_the_first_can_be_stopped(cloud):
  cloud.states('ACTIVE')
  cloud.jobs('wait')
  assert submit(cloud, '--detach').returncode == 0
  cloud.wait_for_job()
  second = submit(cloud)
  assert second.returncode == 2 and 'runs on this machine already' in second.stderr
  assert len(cloud.started()) == 1
  place = ('my-tpu', *PLACE)
  attached = cloud.start('tpu_submit.sh', *place, '--attach')
  assert attached.stdout.readline() == 'step 1\n'
  assert cloud.run('tpu_submit.sh', *place, '--stop').returncode == 0
  out, _ = attached.communicate(timeout=30)
  assert attached.returncode == 42 and out == 'saved\n'  # SIGTERM reached Python


def test_uncommitted_code_is_refused(cloud):
  (cloud.checkout / 'new.py').write_text('')
  done = submit(cloud)
  assert done.returncode == 2 and 'not committed' in done.stderr and not cloud.calls()


@pytest.mark.parametrize(
  'arguments, words',
  [
    ([], 'Expected the name'),
    (['a'], 'Expected a command of ds-jax after --'),
    (['a', '--config=x'], 'come after --'),
    (['a', 'b', '--', 'train'], 'Expected one name'),
  ],
)
def test_mistakes_of_submit(cloud, arguments, words):
  done = cloud.run('tpu_submit.sh', *arguments)
  assert done.returncode == 2 and words in done.stderr and not cloud.calls()


def test_a_slice_that_goes_away_cannot_be_reached(cloud):
  cloud.states('ACTIVE')
  cloud.jobs('preempt')
  done = submit(cloud)
  # 137: the last answer of the slice was that the job had been killed.
  assert done.returncode == 137 or (done.returncode == 75 and 'cannot be reached' in done.stderr)


def test_nothing_to_attach_to(cloud):
  cloud.states('ACTIVE')
  assert cloud.run('tpu_submit.sh', 'my-tpu', *PLACE, '--attach').returncode == 5


# From preemption to preemption.


def test_babysitting_recreates_after_preemptions_until_the_job_is_done(cloud):
  cloud.lives(['WAITING_FOR_RESOURCES', 'ACTIVE'], ['ACTIVE'], ['PROVISIONING', 'ACTIVE'])
  cloud.jobs('preempt', 'preempt', 0)
  done = babysit(cloud)
  assert done.returncode == 0, done.stderr
  assert [call[3] for call in cloud.calls() if call[3] in ('create', 'delete')] == [
    'create',
    'delete',
    'create',
    'delete',
    'create',
    'delete',
  ]
  assert '--spot' in cloud.calls('create')[-1]
  assert [job['arguments'] for job in cloud.started()] == [list(TRAIN[1:])] * 3


def test_a_job_that_saved_goes_on_in_the_slice_if_that_is_left(cloud):
  cloud.lives(['ACTIVE'])
  cloud.jobs(42, 0)
  assert babysit(cloud, '--keep').returncode == 0
  assert len(cloud.calls('create')) == 1 and len(cloud.started()) == 2 and not cloud.calls('delete')


@pytest.mark.parametrize('code', [1, 2, 74])
def test_what_would_come_again_is_not_tried_again(cloud, code):
  cloud.lives(['ACTIVE'])
  cloud.jobs(code)
  done = babysit(cloud)
  assert done.returncode == code and len(cloud.started()) == 1
  assert cloud.calls()[-1][3] == 'delete'  # an idle slice costs money


def test_crashes_are_tried_again_up_to_a_number(cloud):
  cloud.lives(['ACTIVE'])
  cloud.jobs(*[134] * 9)
  done = babysit(cloud, '--max-crashes=2')
  assert done.returncode == 3 and len(cloud.started()) == 3 and 'giving up' in done.stderr


def test_preemptions_are_capped_too(cloud):
  cloud.lives(['ACTIVE'])
  cloud.jobs(*['preempt'] * 9)
  done = babysit(cloud, '--max-preemptions=2')
  assert done.returncode == 3 and len(cloud.started()) == 3


def test_pauses_grow_between_crashes(cloud):
  cloud.lives(['ACTIVE'])
  cloud.jobs(134, 134, 134, 0)
  (cloud.folder / 'programs' / 'sleep').write_text(
    '#!/bin/sh\necho "$1" >> "$FAKE_CLOUD/sleeps"\n'
    'case "$1" in 2|30|60|120) exec /bin/sleep 2;; *) exec /bin/sleep 0.1;; esac\n'
  )
  (cloud.folder / 'programs' / 'sleep').chmod(0o755)
  done = cloud.run(
    'tpu_babysit.sh', 'my-tpu', *PLACE, '--type=v5litepod-16', *TRAIN, PAUSE_SECONDS='30'
  )
  assert done.returncode == 0, done.stderr
  pauses = [s for s in (cloud.folder / 'sleeps').read_text().split() if s not in ('0.1', '2')]
  assert pauses == ['30', '60', '120']


def test_a_failed_request_is_deleted_and_made_again(cloud):
  cloud.lives(['WAITING_FOR_RESOURCES', 'FAILED'], ['ACTIVE'])
  cloud.jobs(0)
  assert babysit(cloud).returncode == 0
  assert len(cloud.calls('create')) == 2


def test_a_quota_ends_babysitting_at_once(cloud):
  (cloud.folder / 'create_error').write_text('Quota exceeded')
  done = babysit(cloud)
  assert done.returncode == 2 and len(cloud.calls('create')) == 1


def test_babysitting_again_attaches_to_the_running_job(cloud):
  cloud.states('ACTIVE')
  cloud.jobs('wait')
  assert submit(cloud, '--detach').returncode == 0
  cloud.wait_for_job()
  sitter = cloud.start('tpu_babysit.sh', 'my-tpu', *PLACE, '--type=v5litepod-16', '--keep', *TRAIN)
  assert sitter.stdout.readline() == 'step 1\n'
  cloud.jobs(0)  # of the next job
  os.kill(cloud.started()[0]['pid'], signal.SIGTERM)
  _, err = sitter.communicate(timeout=30)
  assert sitter.returncode == 0, err
  assert len(cloud.started()) == 2


# What the real gcloud says to these commands.


def test_gcloud_knows_every_command_and_flag(cloud, tmp_path):
  if REAL_GCLOUD is None:
    pytest.skip('gcloud is not installed')
  cloud.lives(['ACTIVE'])
  cloud.jobs(0)
  assert babysit(cloud, '--create-flag=--labels=a=b', '--valid-for=6h').returncode == 0
  queue(cloud, 'create', '--type=v5p-8', '--nodes=2', '--reserved')
  commands = {' '.join(['gcloud', *map(quoted, call)]) for call in cloud.calls()}
  commands |= gcloud_commands(find_pages(ROOT))
  path = tmp_path / 'commands.json'
  path.write_text(json.dumps([{'command_string': c} for c in sorted(commands)]))
  done = subprocess.run(
    [REAL_GCLOUD, 'meta', 'lint-gcloud-commands', f'--commands-file={path}'],
    env=os.environ | {'CLOUDSDK_CONFIG': str(tmp_path / 'config')},
    text=True,
    capture_output=True,
    timeout=120,
  )
  found = json.loads(done.stdout)
  assert len(found) == len(commands)
  assert not [(r['command_string'], r['error_message']) for r in found if not r['success']]


def quoted(word: str) -> str:
  """A word as people write it: --flag='its value'."""
  name, equals, value = word.partition('=')
  return name + equals + shlex.quote(value) if equals else shlex.quote(word)
