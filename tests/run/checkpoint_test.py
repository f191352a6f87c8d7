"""Checkpoints: lossless, on any mesh, and never worse off for a fault while writing or reading."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_mount
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from train_cases import CONFIG, assert_same_state, random_examples, small_decoder

from ds_jax.checks import InputError, NotFinite
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import abstract_decoder
from ds_jax.run import checkpoint
from ds_jax.run.checkpoint import Checkpointer, Saved, SaveError
from ds_jax.run.leaves import checksum
from ds_jax.sharding import make_mesh, parameter_shardings
from ds_jax.testing.tolerance import decoder_terms, tolerance
from ds_jax.train.batch import pack
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import abstract_state, init_state
from ds_jax.train.step import make_learner, policy_loss_fn

HOST = {'round': 1, 'hard': ['a', 'ü'], 'rate': 0.1 + 0.2, 'replay': {'p': [[[1], [2]]]}}


def simple(scale=1.0, size=200):
  return {
    'kernel': scale * jax.random.normal(jax.random.key(0), (size, size)),
    'step': jnp.int32(7),
  }


def abstract(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def notes():
  return []


@pytest.fixture
def checkpointer(tmp_path, notes):
  made = Checkpointer(tmp_path / 'checkpoints', keep=2, note=notes.append)
  yield made
  made.close()


def files_of(folder, step):
  return [f for f in sorted((folder / str(step)).rglob('*')) if f.is_file()]


def test_writers_that_outlive_a_failed_save_do_not_spoil_the_next(
  checkpointer, tmp_path, monkeypatch
):
  """Tensorstore's threads may still write when the error of another file is known."""
  half_written = tmp_path / 'checkpoints' / '1.orbax-checkpoint-tmp/state'
  half_written.mkdir(parents=True)
  save, spoilt = ocp.save_checkpointables_async, [True, True, False]

  def save_beside_a_writer(*args, **kwargs):
    assert not half_written.exists()
    if spoilt.pop(0):
      half_written.mkdir(parents=True)
      raise OSError(errno.ENOTEMPTY, 'Directory not empty', 'state')
    return save(*args, **kwargs)

  monkeypatch.setattr(ocp, 'save_checkpointables_async', save_beside_a_writer)
  checkpointer.save(1, simple(), HOST)
  assert not spoilt
  restored, _ = checkpointer.restore(abstract(simple()))
  assert_equal(restored, simple())


def largest(folder, step):
  return max(files_of(folder, step), key=lambda f: f.stat().st_size)


def test_state_and_host_come_back_exactly(checkpointer):
  state = {
    **simple(),
    'half': jnp.arange(5, dtype=jnp.bfloat16),
    'flag': jnp.array([True, False]),
    'nan': jnp.array(jnp.nan),
  }
  assert checkpointer.latest() is None
  checkpointer.save(3, state, HOST)
  restored, host = checkpointer.restore(abstract(state))
  assert host == HOST and checkpointer.latest() == 3
  assert_equal(restored, state)
  assert jax.tree.map(lambda x: x.dtype, restored) == jax.tree.map(lambda x: x.dtype, state)


def test_keeps_the_newest(checkpointer, tmp_path):
  for step in (1, 2, 3):
    checkpointer.save(step, simple(step), {'step': step})
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['2', '3']
  restored, host = checkpointer.restore(abstract(simple()), steps=[2])
  assert host == {'step': 2}
  assert_equal(restored, simple(2))
  with pytest.raises(InputError, match=r'of step 1 .* \[2, 3\]'):
    checkpointer.restore(abstract(simple()), steps=[1])
  with pytest.raises(SaveError, match='after 3'):
    checkpointer.save(3, simple(), {})


def test_the_best_are_kept_besides_the_newest(tmp_path):
  folder = tmp_path / 'checkpoints'
  checkpointer = Checkpointer(folder, keep=1, keep_best=1)
  for step, score in enumerate((0.2, 0.9, None, 0.5, None), 1):
    checkpointer.save(step, simple(step, size=10), {'step': step}, score=score)
  kept = lambda: sorted(int(p.name) for p in folder.iterdir())
  assert kept() == [2, 5]
  checkpointer.close()
  checkpointer = Checkpointer(folder, keep=1, keep_best=1)  # scores outlive the process
  checkpointer.save(6, simple(6, size=10), {'step': 6}, score=0.8)
  assert kept() == [2, 6]
  checkpointer.save(7, simple(7, size=10), {'step': 7}, score=1.0)
  assert kept() == [7]
  checkpointer.close()


def test_the_best_go_by_a_metric_whatever_was_the_score(tmp_path):
  """A run may go on with another `checkpoint.best_by`."""
  folder = tmp_path / 'checkpoints'
  with contextlib.closing(Checkpointer(folder, keep=3)) as checkpointer:
    evaluations = {}
    for step, of_set in enumerate((0.9, 0.2), 1):
      evaluations[f'at_{step}'] = {'of_all': step / 10, 'of_set': of_set}
      host = {'step': step, 'evaluations': evaluations}
      checkpointer.save(step, simple(step, size=10), host, score=step / 10)
    checkpointer.save(3, simple(3, size=10), {'step': 3, 'evaluations': evaluations})
  best = Checkpointer(folder, keep=1, keep_best=1, metric='of_set')
  with contextlib.closing(best) as checkpointer:
    assert checkpointer.saved() == [Saved(1, 1, 0.9), Saved(2, 2, 0.2), Saved(3, 3, None)]
    host = {'step': 4, 'evaluations': evaluations | {'at_4': {'of_set': 0.5}}}
    checkpointer.save(4, simple(4, size=10), host, score=0.5)
  assert sorted(int(path.name) for path in folder.iterdir()) == [1, 4]


def test_what_is_saved_is_the_state_at_the_call(checkpointer):
  """The write goes on while the next updates overwrite the donated state."""
  change = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
  state = {'kernel': jnp.full((2000, 1000), 3.0)}
  checkpointer.begin_save(1, state, {'step': 1})
  for _ in range(3):
    state = change(state)
  jax.block_until_ready(state)
  checkpointer.wait()
  restored, _ = checkpointer.restore(abstract(state))
  assert_equal(restored['kernel'], np.full((2000, 1000), 3.0))


def test_the_host_may_change_while_it_is_written(checkpointer, monkeypatch):
  host, save = {'step': 1, 'hard': ['a']}, ocp.save_checkpointables_async

  def save_late(*args):
    host['hard'].append('b')
    return save(*args)

  monkeypatch.setattr(ocp, 'save_checkpointables_async', save_late)
  checkpointer.save(1, simple(), host)
  assert checkpointer.restore(abstract(simple()))[1] == {'step': 1, 'hard': ['a']}


def test_train_state_continues_on_another_mesh(tmp_path):
  if len(jax.devices()) < 8:
    pytest.skip('needs 8 devices')
  config = TrainConfig(learning_rate=1e-2, warmup_steps=5, weight_decay=0.0, beta2=0.95)
  optimizer, batch = make_optimizer(config), pack(random_examples(12), 16)[0]
  meshes = [make_mesh(1, 1, 1, devices=jax.devices()[:1]), make_mesh(2, 2, 2)]
  learners = [
    make_learner(optimizer, mesh, micro_rows=8, loss_fn=policy_loss_fn(config)) for mesh in meshes
  ]
  state, _ = learners[0].update(init_state(small_decoder(), optimizer, meshes[0]), batch)
  checkpointer = Checkpointer(tmp_path, keep=1)
  checkpointer.save(1, state, HOST)
  wanted = abstract_state(abstract_decoder(CONFIG), optimizer, meshes[1])
  moved, _ = checkpointer.restore(wanted)
  assert_equal(jax.device_get(moved), jax.device_get(state))
  jax.tree.map(
    lambda x, y: x.sharding.is_equivalent_to(y, x.ndim) or pytest.fail(str(x.sharding)),
    moved,
    parameter_shardings(wanted, meshes[1]),
  )
  state, expected = learners[0].update(state, batch)
  moved, metrics = learners[1].update(moved, batch)
  noise = tolerance('float32', decoder_terms(CONFIG, 16, 3) + 8 * 16)
  assert metrics == pytest.approx(expected, rel=noise, abs=5 * noise)
  assert_same_state(jax.device_get(moved), jax.device_get(state), config, num_updates=2)


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize('harm', [truncate, flip_a_bit, Path.unlink])
def test_damaged_newest_is_reported_and_passed_over(checkpointer, tmp_path, notes, harm):
  for step in (1, 2):
    checkpointer.save(step, simple(step), {'step': step})
  harm(largest(tmp_path / 'checkpoints', 2))
  restored, host = checkpointer.restore(abstract(simple()))
  assert host == {'step': 1} and checkpointer.latest() == 1
  assert_equal(restored, simple(1))
  assert len(notes) == 1 and 'checkpoint 2 is damaged and passed over' in notes[0]
  checkpointer.save(2, simple(5), {'step': 2})  # the step can be written again
  assert_equal(checkpointer.restore(abstract(simple()))[0], simple(5))
  assert (tmp_path / 'checkpoints/damaged.2').is_dir()


def test_any_truncated_file_is_harmless_or_noticed(tmp_path, notes):
  checkpointer = Checkpointer(tmp_path / 'good', keep=2, note=notes.append)
  for step in (1, 2):
    checkpointer.save(step, simple(step, size=20), {'step': step})
  for victim in files_of(tmp_path / 'good', 2):
    if not victim.stat().st_size:
      continue
    copy = tmp_path / 'copy'
    subprocess.run(['rm', '-rf', copy], check=True)
    subprocess.run(['cp', '-r', tmp_path / 'good', copy], check=True)
    truncate(copy / victim.relative_to(tmp_path / 'good'))
    wanted = abstract(simple(size=20))
    restored, host = Checkpointer(copy, keep=2, note=notes.append).restore(wanted)
    assert host['step'] in (1, 2)
    assert_equal(restored, simple(host['step'], size=20))


def test_nothing_readable_is_an_input_error(checkpointer, tmp_path, notes):
  with pytest.raises(InputError, match='found steps'):
    checkpointer.restore(abstract(simple()))
  checkpointer.save(1, simple(), {})
  truncate(largest(tmp_path / 'checkpoints', 1))
  with pytest.raises(InputError, match=r'can be read \(tried steps \[1\]\)'):
    checkpointer.restore(abstract(simple()))


def test_another_model_is_not_taken_for_damage(checkpointer, notes):
  checkpointer.save(1, simple(), {})
  with pytest.raises(InputError, match=r'kernel as float32\[200, 200\].* needs float32\[10, 10\]'):
    checkpointer.restore(abstract(simple(size=10)))
  with pytest.raises(InputError, match='other as nothing'):
    checkpointer.restore(abstract({**simple(), 'other': jnp.zeros(2)}))
  assert not notes


def test_parameters_that_are_not_finite_are_neither_saved_nor_restored(
  checkpointer, notes, monkeypatch
):
  kernel, broken = jnp.ones((4, 4)), jnp.full((4, 4), jnp.inf)
  good = {'params': {'kernel': kernel}, 'moments': {'kernel': broken}}  # moments may be anything
  checkpointer.save(1, good, {'step': 1})
  bad = good | {'params': {'kernel': kernel.at[1, 2].set(jnp.nan)}}
  with pytest.raises(
    NotFinite, match='kernel of the state to be saved as checkpoint 2.*Checkpoint 1'
  ):
    checkpointer.save(2, bad, {'step': 2})
  assert checkpointer.latest() == 1
  with monkeypatch.context() as patched:  # as versions before this check saved them
    patched.setattr(checkpoint, '_not_finite', lambda examined: [])
    checkpointer.save(2, bad, {'step': 2})
  with pytest.raises(NotFinite, match='Checkpoint 2 in .* holds kernel with'):
    checkpointer.restore(abstract(good))
  assert_equal(checkpointer.restore(abstract(good), steps=[1])[0], good)
  assert not notes  # it is not damaged


def test_full_disk_keeps_the_earlier_checkpoint(checkpointer, tmp_path, capfd):
  checkpointer.save(1, simple(), {'step': 1})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # writes fail as on a full disk
    for report in (checkpointer.wait, lambda: checkpointer.begin_save(3, simple(), {'step': 3})):
      checkpointer.begin_save(2, simple(), {'step': 2})
      with pytest.raises(SaveError, match='disk is full.*Checkpoint 1 is still good'):
        report()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['1']
  assert checkpointer.restore(abstract(simple()))[1] == {'step': 1}
  checkpointer.save(2, simple(), {'step': 2})
  assert checkpointer.latest() == 2
  out, err = capfd.readouterr()
  assert not out and not err  # one clear error, no wall of text


def test_host_that_is_not_json_is_refused_and_harmless(checkpointer):
  checkpointer.save(1, simple(), {})
  with pytest.raises(SaveError, match='Checkpoint 1 is still good'):
    checkpointer.save(2, simple(), {'bad': object()})
  assert checkpointer.latest() == 1


@pytest.fixture
def in_place(tmp_path, notes, monkeypatch):
  """Opens checkpoints where folders cannot be renamed."""
  fake_mount.install(monkeypatch, tmp_path)
  with contextlib.ExitStack() as opened:

    def open_in_place(keep=2, **fields):
      made = Checkpointer(
        tmp_path / 'checkpoints', keep, notes.append, renames_folders=False, **fields
      )
      opened.callback(made.close)
      return made

    yield open_in_place


def uncommit(folder):
  """A checkpoint as a kill leaves it before the commit."""
  (folder / 'commit_success.txt').unlink()
  fields = json.loads((folder / '_CHECKPOINT_METADATA').read_text())
  fields['commit_timestamp_nsecs'] = None
  (folder / '_CHECKPOINT_METADATA').write_text(json.dumps(fields))


def only_made(folder):
  """The same, right after the folder was made."""
  shutil.rmtree(folder)
  folder.mkdir()


def test_without_renames_a_save_fails_unless_it_is_in_place(tmp_path, in_place, notes):
  usual = Checkpointer(tmp_path / 'usual', keep=2)
  with pytest.raises(SaveError, match='could not be written'):
    usual.save(1, simple(), HOST)
  usual.close()
  checkpointer = in_place(keep_best=1)
  for step, score in enumerate((0.9, 0.1, None, 0.2), 1):
    checkpointer.save(step, simple(step), HOST | {'step': step}, score=score)
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['1', '3', '4']
  assert_equal(checkpointer.restore(abstract(simple()))[0], simple(4))
  assert in_place().latest() == 4 and not notes


@pytest.mark.parametrize('harm', [uncommit, only_made])
def test_a_checkpoint_in_place_counts_once_it_is_committed(in_place, tmp_path, notes, harm):
  folder = tmp_path / 'checkpoints'
  checkpointer = in_place()
  for step in (1, 2):
    checkpointer.save(step, simple(step), {'step': step})
  harm(folder / '2')
  reader = Checkpointer(folder, keep=None, note=notes.append)
  assert reader.latest() == 1 and (folder / '2').exists()  # somebody may be writing it
  again = in_place()
  assert again.latest() == 1 and not (folder / '2').exists()
  again.save(2, simple(5), {'step': 2})
  assert_equal(again.restore(abstract(simple()))[0], simple(5))
  assert not notes


@pytest.mark.parametrize('harm', [truncate, Path.unlink])
def test_a_damaged_one_in_place_is_set_aside(in_place, tmp_path, notes, harm):
  checkpointer = in_place()
  for step in (1, 2):
    checkpointer.save(step, simple(step), {'step': step})
  harm(largest(tmp_path / 'checkpoints', 2))
  assert checkpointer.restore(abstract(simple()))[1] == {'step': 1}
  checkpointer.save(2, simple(5), {'step': 2})
  assert_equal(checkpointer.restore(abstract(simple()))[0], simple(5))
  assert len(notes) == 1 and (tmp_path / 'checkpoints/damaged.2/host').is_dir()


def test_a_run_may_come_to_a_place_without_renames_and_leave_it(tmp_path, notes, monkeypatch):
  folder = tmp_path / 'checkpoints'
  for step, renames_folders in ((1, True), (2, False), (3, True), (4, False)):
    with monkeypatch.context() as patch:
      if not renames_folders:
        fake_mount.install(patch, tmp_path)
      checkpointer = Checkpointer(folder, 2, notes.append, renames_folders=renames_folders)
      if step > 1:
        assert checkpointer.restore(abstract(simple()))[1] == {'step': step - 1}
      checkpointer.save(step, simple(step), {'step': step})
      checkpointer.close()
      if step < 3:  # as orbax 0.11 renamed them
        (folder / str(step) / 'commit_success.txt').unlink()
  assert sorted(p.name for p in folder.iterdir()) == ['3', '4'] and not notes


def test_a_full_disk_in_place_keeps_the_earlier_checkpoint(in_place, tmp_path, caplog):
  checkpointer = in_place()
  checkpointer.save(1, simple(), {'step': 1})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # writes fail as on a full disk
    with pytest.raises(SaveError, match='disk is full.*Checkpoint 1 is still good'):
      checkpointer.save(2, simple(), {'step': 2})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)
  assert not caplog.records
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['1']
  checkpointer.save(2, simple(), {'step': 2})
  assert checkpointer.latest() == 2


KILLED = """
import sys, jax, jax.numpy as jnp
from ds_jax.run.checkpoint import Checkpointer
checkpointer = Checkpointer(sys.argv[1], keep=2, renames_folders=sys.argv[2] == 'renames')
for step in range(1, 1000):
  checkpointer.save(step, {'kernel': jnp.full((600, 600), step, jnp.float32)}, {'step': step})
  print(step, flush=True)
"""


@pytest.mark.parametrize('way', ['renames', 'in place'])
def test_killed_while_saving_leaves_whole_checkpoints(tmp_path, root, notes, way):
  folder, rng = tmp_path / 'checkpoints', np.random.default_rng(0)
  process = subprocess.Popen(
    [sys.executable, '-c', KILLED, folder, way],
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONPATH': str(root)},
    text=True,
  )
  committed = [int(process.stdout.readline()) for _ in range(4)][-1]
  time.sleep(rng.uniform(0, 0.15))
  process.kill()
  rest = re.findall(r'\d+', process.communicate()[0])
  committed = int(rest[-1]) if rest else committed
  checkpointer = Checkpointer(folder, 2, notes.append, renames_folders=way == 'renames')
  wanted = abstract({'kernel': jnp.zeros((600, 600))})
  restored, host = checkpointer.restore(wanted)
  assert host['step'] in (committed, committed + 1) and not notes
  assert_equal(restored['kernel'], np.full((600, 600), host['step'], np.float32))
  checkpointer.save(host['step'] + 1, restored, host)
  assert not list(folder.glob('*tmp*'))


@pytest.mark.parametrize('has_score', [True, False])
def test_a_run_that_orbax_wrote_by_its_interface_v0_goes_on(tmp_path, root, notes, has_score):
  """Its first version had the score in orbax's file alone."""
  shutil.unpack_archive(root / 'tests/golden/orbax_v0_checkpoints.zip', tmp_path)
  folder = tmp_path / 'checkpoints'
  if not has_score:
    path = folder / '1/host/metadata'
    fields = json.loads(path.read_text())
    del fields['score']
    path.write_text(json.dumps(fields))
  half = jnp.arange(3, dtype=jnp.bfloat16)
  params = lambda step: {'kernel': step * jnp.arange(6.0).reshape(2, 3), 'half': half}
  state = lambda step: {'params': params(step), 'step': jnp.int32(step)}
  checkpointer = Checkpointer(folder, keep=1, note=notes.append, keep_best=1)
  assert checkpointer.saved() == [Saved(1, 10, 0.9), Saved(2, 20, None)]
  restored, host = checkpointer.restore(abstract(state(0)))
  assert_equal(restored, state(2))
  assert host == {'step': 20, 'hard': ['a'], 'rate': 0.1 + 0.2}
  assert_equal(checkpointer.restore(abstract(params(0)), steps=[1], part='params')[0], params(1))
  checkpointer.save(3, state(3), host, score=0.5)
  assert sorted(p.name for p in folder.iterdir()) == ['1', '3'] and not notes
  checkpointer.close()


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, bool])
def test_checksum_sees_bits_and_order(dtype):
  array = jnp.arange(24).reshape(2, 3, 4).astype(dtype)
  changed = array.at[1, 2, 3].set(jnp.zeros((), dtype))
  assert int(checksum(array)) == int(checksum(jnp.array(array)))
  assert int(checksum(array)) != int(checksum(changed))
  if dtype is not bool:
    assert int(checksum(array)) != int(checksum(array[::-1]))
