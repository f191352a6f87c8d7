"""Writers of metrics besides metrics.jsonl: what they get, and what they cannot do to a run."""

from __future__ import annotations

import json
import struct
import sys
import threading
import types
from contextlib import closing
from pathlib import Path

import pytest

from ds_jax.checks import InputError
from ds_jax.report import writers
from ds_jax.report.metrics import FILE_NAME, MetricsWriter, read_metrics
from ds_jax.report.writers import openers

TENSORBOARD = ('jsonl', 'tensorboard')
MODULE = """
opened = []


class Mine:
  def __init__(self, workdir, config, rows):
    self.workdir, self.config, self.rows = workdir, config, list(rows)
    self.is_closed = False
    opened.append(self)

  def write(self, row):
    self.rows.append(row)

  def close(self):
    self.is_closed = True


def broken(workdir, config, rows):
  raise OSError('no route')
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
  """A user's module with a writer, beside the workdir."""
  (tmp_path / 'their_writers.py').write_text(MODULE)
  monkeypatch.syspath_prepend(str(tmp_path))
  yield
  sys.modules.pop('their_writers', None)


def metrics_in(folder, names, notes, config=None):
  return closing(
    MetricsWriter(folder, openers(names, folder, config or {}, notes.append), notes.append)
  )


def write_steps(writer, steps):
  """Writes a line per step; returns the size after each."""
  sizes = {}
  for step in steps:
    writer.write(step, 'train', {'search/reward': step / 2, 'time/step': 1.0, 'note': 'text'})
    sizes[step] = writer.size()
  return sizes


def steps_of(folder):
  return [row['step'] for row in read_metrics(folder / FILE_NAME)]


def _scalars(folder: Path) -> list[tuple]:
  """(tag, step, value, time) of every event file, in order."""
  from tensorboardX.proto.event_pb2 import Event

  found = []
  for path in sorted((folder / 'tensorboard').iterdir()):
    content, at = path.read_bytes(), 0
    while at < len(content):
      (length,) = struct.unpack_from('<Q', content, at)
      event = Event.FromString(content[at + 12 : at + 12 + length])
      found += [(v.tag, event.step, v.simple_value, event.wall_time) for v in event.summary.value]
      at += length + 16
  return found


def test_resume_cuts_lines_and_rewrites_tensorboard(tmp_path):
  path, notes = tmp_path / FILE_NAME, []
  with metrics_in(tmp_path, TENSORBOARD, notes) as first:
    size = write_steps(first, range(3))[1]
  (events,) = (tmp_path / 'tensorboard').iterdir()
  events.rename(events.with_name('events.out.tfevents.1.earlier'))  # names hold whole seconds
  kept = path.read_bytes()[:size]
  path.write_bytes(path.read_bytes() + b'{"step": 3, "ki')  # killed while writing

  assert steps_of(tmp_path) == [0, 1, 2]
  with metrics_in(tmp_path, TENSORBOARD, notes) as second:
    second.cut(size)
  assert path.read_bytes() == kept
  assert [s[1] for s in _scalars(tmp_path)] == [0, 0, 1, 1]
  with metrics_in(tmp_path, TENSORBOARD, notes) as third:
    third.write(2, 'train', {'search/reward': 7.0})
  rows = read_metrics(path)
  expected = [
    (tag, row['step'], row[name], row['time/unix'])
    for row in rows
    for tag, name in (('search/reward', 'search/reward'), ('time/train/step', 'time/step'))
    if name in row
  ]
  assert _scalars(tmp_path) == expected and rows[-1]['search/reward'] == 7.0 and not notes


def test_a_users_writer_is_told_what_counts(tmp_path, mine):
  folder, notes = tmp_path / 'run', []
  names, config = ('jsonl', 'python:their_writers.Mine'), {'search': {'width': 4}}
  with metrics_in(folder, names, notes, config) as writer:
    writer.cut(0)
    size = write_steps(writer, range(3))[1]
  with metrics_in(folder, names, notes, config) as writer:
    writer.cut(size)
    writer.write(7, 'evaluate', {'when': 'after'})
  first, second = sys.modules['their_writers'].opened
  assert [row['step'] for row in first.rows] == [0, 1, 2] and first.is_closed
  assert second.rows == read_metrics(folder / FILE_NAME)
  assert [row['step'] for row in second.rows] == [0, 1, 7] and second.is_closed
  assert (second.workdir, second.config) == (folder, config) and not notes


@pytest.mark.parametrize(
  'name, words',
  [
    ('python:nowhere_at_all.writer', 'log.writers python:nowhere_at_all.writer: importing'),
    ('python:their_writers.other', r'to be a function \(workdir, config, rows\)'),
  ],
)
def test_a_writer_that_is_not_there_is_refused(tmp_path, mine, name, words):
  with pytest.raises(InputError, match=words):
    openers(('jsonl', name), tmp_path, {}, print)


def test_a_writer_that_fails_is_left_alone_and_said_once(tmp_path, mine, monkeypatch):
  monkeypatch.setenv('THEIR_API_KEY', 'very-secret-key')
  broken = types.SimpleNamespace(write=lambda row: 1 / (row['step'] - 1), close=lambda: None)
  notes, folder = [], tmp_path / 'run'
  found = openers(('jsonl', 'python:their_writers.broken'), folder, {}, notes.append)
  found |= {'halfway': lambda rows: broken, 'leaks': lambda rows: 'very-secret-key' + 1}
  found |= {'quits': lambda rows: sys.exit('very-secret-key is no key')}
  with closing(MetricsWriter(folder, found, notes.append)) as writer:
    writer.cut(0)
    write_steps(writer, range(4))
  assert steps_of(folder) == [0, 1, 2, 3]
  notes = sorted(notes)
  assert len(notes) == 4 and all('metrics.jsonl has them all' in note for note in notes)
  assert 'python:their_writers.broken failed with OSError: no route' in notes[2]
  assert 'halfway failed with ZeroDivisionError' in notes[0]
  assert 'quits failed with SystemExit: $THEIR_API_KEY is no key' in notes[3]
  assert 'very-secret-key' not in ' '.join(notes)


def test_a_writer_that_hangs_delays_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(writers, 'SECONDS_TO_CLOSE', 0.01)
  monkeypatch.setattr(writers, 'MOST_BEHIND', 2)
  released, notes = threading.Event(), []
  hanging = types.SimpleNamespace(write=lambda row: released.wait(), close=lambda: None)
  with closing(
    MetricsWriter(tmp_path / 'a', {'slow': lambda rows: hanging}, notes.append)
  ) as writer:
    write_steps(writer, range(1))
  with closing(
    MetricsWriter(tmp_path / 'b', {'far': lambda rows: hanging}, notes.append)
  ) as writer:
    write_steps(writer, range(9))
  released.set()
  assert steps_of(tmp_path / 'b') == list(range(9))
  assert len(notes) == 2 and 'slow was not done within' in notes[0]
  assert 'far is 2 lines behind' in notes[1]


class FakeWandb(types.ModuleType):
  """A server's side of W&B: one run, whose steps stay from start to start."""

  class Error(Exception):
    pass

  def __init__(self):
    super().__init__('wandb')
    self.steps, self.begun, self.refuses, self.is_in_use = [], [], (), False

  def setup(self, settings):
    assert settings == {'silent': True}

  def teardown(self):
    self.is_in_use = False

  def Settings(self, **settings):  # noqa: N802
    return settings

  def init(self, **how):
    self.begun.append(next(name for name in ('mode', 'resume_from', 'resume') if name in how))
    self.how = how
    assert not self.is_in_use
    if self.begun[-1] in self.refuses:
      self.is_in_use = 'resume' in how
      raise self.Error(f'{self.begun[-1]} is not for you')
    if 'resume_from' in how:
      self.steps = self.steps[: int(how['resume_from'].rpartition('=')[2]) + 1]
    return FakeRun(self, how)


class FakeRun:
  url = 'https://there/run'

  def __init__(self, wandb, how):
    self.wandb, self.offline = wandb, how.get('mode') == 'offline'
    self.settings = types.SimpleNamespace(sync_dir=f'{how["dir"]}/wandb/offline-run-2-{how["id"]}')
    self.starting_step = 0 if self.offline else len(wandb.steps)

  def define_metric(self, name, step_metric):
    assert (name, step_metric) == ('*', 'step')

  def log(self, values, step, commit):
    assert commit and step == len(self.wandb.steps)
    self.wandb.steps.append(values)

  def finish(self):
    pass


@pytest.fixture
def fake(monkeypatch):
  wandb = FakeWandb()
  monkeypatch.setitem(sys.modules, 'wandb', wandb)
  return wandb


def start(folder, keep, further):
  """A start of a run that goes back to `keep` lines and writes `further` ones; what it said."""
  notes, ends = [], [0]
  if (folder / FILE_NAME).exists():
    for line in (folder / FILE_NAME).read_bytes().splitlines(keepends=True):
      ends.append(ends[-1] + len(line))
  with metrics_in(folder, ('jsonl', 'wandb'), notes, {'seed': 3}) as writer:
    writer.cut(ends[keep])
    write_steps(writer, further)
  return notes


def test_wandb_goes_on_with_one_run_and_lacks_no_line(tmp_path, fake):
  assert start(tmp_path, 0, [0, 1, 2]) == ['Weights & Biases: https://there/run']
  name = fake.how['id']
  assert fake.how['config'] == {'seed': 3} and fake.how['name'] == tmp_path.name
  del fake.steps[2]  # killed before it was sent
  start(tmp_path, 3, [3])
  assert [values['step'] for values in fake.steps] == [0, 1, 2, 3]
  row = read_metrics(tmp_path / FILE_NAME)[3]
  assert fake.steps[3] == {
    'step': 3,
    'search/reward': 1.5,
    'time/train/step': 1.0,
    '_timestamp': row['time/unix'],
  }
  assert fake.begun == ['resume', 'resume'] and fake.how['id'] == name


def test_wandb_is_rewound_to_the_last_line_that_counts(tmp_path, fake):
  start(tmp_path, 0, [0, 1, 2, 3])
  start(tmp_path, 2, [20])
  assert [values['step'] for values in fake.steps] == [0, 1, 20]
  assert fake.begun == ['resume', 'resume', 'resume_from']
  assert fake.how['resume_from'].endswith('?_step=1')
  start(tmp_path, 0, [30])  # what is undone from the first line on keeps that
  assert [values['step'] for values in fake.steps] == [0]


def test_a_refused_rewind_is_said_and_writes_nothing_twice(tmp_path, fake):
  start(tmp_path, 0, [0, 1, 2, 3])
  fake.refuses = ('resume_from',)
  notes = start(tmp_path, 2, [2, 3, 4])
  assert [values['step'] for values in fake.steps] == [0, 1, 2, 3, 4]
  assert 'could not be cut back to line 2: resume_from is not for you' in notes[0]


def test_without_a_way_to_wandb_it_is_written_offline(tmp_path, fake):
  fake.refuses = ('resume',)
  notes = start(tmp_path, 0, [0])
  assert 'is written to disk alone: resume is not for you' in notes[0]
  assert '`wandb sync' in notes[1] and len(fake.steps) == 1


@pytest.mark.parametrize('module', [None, types.ModuleType('wandb')])  # the latter: a folder
def test_wandb_that_is_not_installed_is_refused(tmp_path, monkeypatch, module):
  monkeypatch.setitem(sys.modules, 'wandb', module)
  with pytest.raises(InputError, match=r"pip install 'ds_jax\[wandb\]'"):
    openers(('jsonl', 'wandb'), tmp_path, {}, print)


def offline_records(folder):
  """Of the only offline run: its name, and what it holds.

  Its file is a log of LevelDB's form: blocks of 32 KiB of pieces, each with checksum, length, kind.
  """
  from wandb.proto.wandb_internal_pb2 import Record

  (path,) = folder.glob('wandb/offline-run-*/*.wandb')
  content, at, record, records = path.read_bytes(), 7, b'', []
  while at + 7 <= len(content):
    if 2**15 - at % 2**15 < 7:  # no room for a piece
      at += 2**15 - at % 2**15
    _, length, kind = struct.unpack_from('<IHB', content, at)
    record += content[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # whole, or the last piece of several
      records.append(Record.FromString(record))
      record = b''
  return path.stem, records


def test_wandb_offline_goes_on_and_is_cut_back(tmp_path, monkeypatch):
  wandb = pytest.importorskip('wandb')
  if not hasattr(wandb, 'init'):
    pytest.skip('a folder of this name')
  for name, value in {'MODE': 'offline', 'API_KEY': 'f' * 40, 'CONFIG_DIR': str(tmp_path)}.items():
    monkeypatch.setenv(f'WANDB_{name}', value)
  folder = tmp_path / 'run'
  start(folder, 0, [0, 1, 2, 3])
  first, _ = offline_records(folder)
  notes = start(folder, 2, [20, 21])
  wandb.teardown()
  second, records = offline_records(folder)
  assert first == second == f'run-{(folder / "wandb/run_id").read_text().strip()}'
  assert len(notes) == 1 and notes[0].startswith('Weights & Biases, offline: `wandb sync ')
  logged, settings = [], {}
  for record in records:
    items = {
      '/'.join(item.nested_key) or item.key: json.loads(item.value_json)
      for item in record.history.item
    }
    if items:
      logged.append(items)
    settings |= {item.key: item.value_json for item in record.run.config.update}
  rows = read_metrics(folder / FILE_NAME)
  assert [items['step'] for items in logged] == [0, 1, 20, 21]
  assert [items['_step'] for items in logged] == [0, 1, 2, 3]
  assert [items['_timestamp'] for items in logged] == [row['time/unix'] for row in rows]
  assert [items['search/reward'] for items in logged] == [0.0, 0.5, 10.0, 10.5]
  assert settings['seed'] == '3'
  for path in folder.rglob('*'):
    assert path.is_dir() or b'f' * 40 not in path.read_bytes(), path
