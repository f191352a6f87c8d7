"""Compiled programs on a mount: a local copy is used, and new ones are brought back."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from ds_jax.run import program_cache

MOUNTS = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
90 22 0:55 / /mnt/ds_jax rw,nosuid shared:2 - fuse.gcsfuse my-bucket rw,user_id=0
91 22 0:56 / /mnt/a\\040share rw shared:3 - nfs4 10.0.0.2:/share rw,hard
92 90 0:57 / /mnt/ds_jax/local rw - tmpfs tmpfs rw
93 22 0:58 / /home rw - fuse.fuse-overlayfs fuse-overlayfs rw
"""


@pytest.mark.parametrize(
  'path, is_remote',
  [
    ('gs://bucket/jax_cache', True),
    ('/mnt/ds_jax/runs/first/jax_cache', True),
    ('/mnt/a share/x', True),
    ('/mnt/ds_jax/local/x', False),
    ('/mnt/ds_jax2', False),
    ('/home/me', False),
    ('/tmp/x', False),
  ],
)
def test_mounts_and_buckets_are_remote(path, is_remote):
  assert program_cache.is_remote(path, MOUNTS) == is_remote


@pytest.fixture
def places(tmp_path, monkeypatch):
  """Programs whose store counts as remote."""
  store = tmp_path / 'store'
  monkeypatch.setattr(program_cache, 'is_remote', lambda path: path.startswith(str(store)))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  return program_cache.programs_of(str(store))


def test_a_local_workdir_keeps_its_programs(tmp_path, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  assert program_cache.programs_of(str(tmp_path)) == program_cache.Programs(
    str(tmp_path / 'jax_cache')
  )
  assert program_cache.programs_of('') == program_cache.Programs('')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/elsewhere')
  assert program_cache.programs_of(str(tmp_path)) == program_cache.Programs('/elsewhere')


def test_a_workdir_that_is_only_read_keeps_nothing_but_lends_what_it_has(tmp_path, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setattr(program_cache, 'is_writable', lambda folder: False)
  store = tmp_path / 'jax_cache'
  store.mkdir()
  (store / 'old-cache').write_bytes(b'old')
  programs = program_cache.programs_of(str(tmp_path))
  with programs.brought(print, writes=True):
    local = pathlib.Path(programs.folder)
    assert (local / 'old-cache').read_bytes() == b'old'
    (local / 'new-cache').write_bytes(b'new')
  assert [path.name for path in store.iterdir()] == ['old-cache']


def test_programs_are_brought_and_taken_back(places):
  store, local, notes = pathlib.Path(places.store), pathlib.Path(places.folder), []
  assert store.name == 'jax_cache' and local != store
  store.mkdir(parents=True)
  (store / 'old-cache').write_bytes(b'old')
  with places.brought(notes.append, writes=True):
    assert (local / 'old-cache').read_bytes() == b'old'
    (local / 'new-cache').write_bytes(b'new')
  assert sorted(path.name for path in store.glob('*-cache')) == ['new-cache', 'old-cache']
  assert (store / 'new-cache').read_bytes() == b'new'
  assert len(notes) == 1 and notes[0].startswith('Brought 1 compiled programs from')


def test_only_one_process_takes_programs_back(places):
  with places.brought(print, writes=False):
    local = pathlib.Path(places.folder)
    local.mkdir(parents=True)
    (local / 'new-cache').write_bytes(b'new')
  assert not pathlib.Path(places.store).exists()


def test_programs_go_to_the_store_while_the_command_runs(places, monkeypatch):
  monkeypatch.setattr(program_cache, '_PUSH_SECONDS', 0.01)
  local, store = pathlib.Path(places.folder), pathlib.Path(places.store)
  with places.brought(print, writes=True):
    local.mkdir(parents=True)
    (local / 'half-cache').write_bytes(b'ha')  # jax is writing it
    (local / 'whole-cache').write_bytes(b'whole')
    os.utime(local / 'whole-cache', (0, 0))
    while not (store / 'whole-cache').exists():
      pass
    assert not (store / 'half-cache').exists()
  assert (store / 'half-cache').exists()


def test_a_store_that_fails_is_noted_and_the_command_goes_on(places, monkeypatch):
  def refuse(*_):
    raise OSError(30, 'Read-only file system')

  notes = []
  monkeypatch.setattr(program_cache, '_copy_missing', refuse)
  with places.brought(notes.append, writes=True):
    notes.append('the command')
  assert notes[1] == 'the command' and 'Read-only' in notes[0] and 'Read-only' in notes[2]


def test_a_second_machine_compiles_nothing(tmp_path):
  """A command with its workdir on a mount, then another machine with an empty local disk."""
  script = tmp_path / 'command.py'
  script.write_text(
    'import pathlib, sys\n'
    'from ds_jax.run import program_cache\n'
    'program_cache.is_remote = lambda path: path.startswith(sys.argv[1])\n'
    'programs = program_cache.programs_of(sys.argv[1])\n'
    'programs.tell_jax()\n'
    'with programs.brought(print, writes=True):\n'
    '  import jax\n'
    '  hits = []\n'
    '  jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n'
    '  jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((8, 8))).block_until_ready()\n'
    '  print("hits", hits.count("/jax/compilation_cache/cache_hits"))\n'
  )
  outputs = []
  for machine in ('first', 'second'):
    environment = os.environ | {
      'XDG_CACHE_HOME': str(tmp_path / machine),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_COMPILATION_CACHE_MAX_SIZE': '1000000',
    }
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    command = [sys.executable, str(script), str(tmp_path / 'workdir')]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    outputs.append(done.stdout)
  assert 'hits 0' in outputs[0] and 'Brought' not in outputs[0]
  assert 'hits 0' not in outputs[1] and 'hits ' in outputs[1] and 'Brought' in outputs[1]
