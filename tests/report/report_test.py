"""Progress, metrics, trees as text, and the report: what a person sees, hostile text included."""

from __future__ import annotations

import io
import itertools
import json
import re
import struct
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ds_jax.checks import InputError
from ds_jax.report.axes import running_mean
from ds_jax.report.curve import draw_curve
from ds_jax.report.figure import search_panels
from ds_jax.report.inspect import format_tree, tree_to_dict
from ds_jax.report.metrics import FILE_NAME, MetricsWriter, read_metrics
from ds_jax.report.progress import LiveProgress, PlainProgress, make_progress
from ds_jax.report.summary import make_summary, read_beside, summary_table, table_rows
from ds_jax.report.text import duration, shorten, visible
from ds_jax.run.reporting import write_report
from ds_jax.types import FinishedTree

HOSTILE = '\x1b[2J<script>alert(1)</script>\n\u202e"&\ud800\x00'


class Clock:
  """Seconds that pass when told."""

  now = 0.0

  def __call__(self) -> float:
    return self.now


def test_plain_progress_lines():
  stream, clock = io.StringIO(), Clock()
  progress = PlainProgress(stream, clock)
  progress.start('search', 100)
  for i in range(1, 101):
    clock.now += 0.5
    progress.update(i, solved=i // 2, **{'tokens/s': 4210.4})
  progress.finish()
  progress.finish()
  lines = stream.getvalue().splitlines()
  assert lines[0] == 'search: started, 0/100'
  assert lines[1] == (
    'search: 10/100 (10 %) · 5.0 s elapsed · 45.0 s left · solved 5 · tokens/s 4,210'
  )
  assert lines[-1].startswith('search: 100/100 (100 %) · done in 50.0 s')
  assert len(lines) == 12


def test_plain_progress_is_slow_enough_and_never_silent():
  stream, clock = io.StringIO(), Clock()
  progress = PlainProgress(stream, clock)
  progress.start('fast', 10)
  for i in range(1, 11):
    clock.now += 0.01
    progress.update(i)
  progress.start('unknown')  # closes the phase before
  for i in range(1, 31):
    clock.now += 1
    progress.update(i)
  progress.note(f'skipped: {HOSTILE}')
  progress.finish()
  progress.update(3)  # outside a phase: nothing
  lines = stream.getvalue().splitlines()
  assert [line.split(':')[0] for line in lines] == (
    ['fast'] * 2 + ['unknown'] * 4 + ['skipped', 'unknown']
  )
  assert '\x1b' not in stream.getvalue()


def test_a_phase_that_is_silent_for_long_says_that_it_is_alive():
  stream, clock = io.StringIO(), Clock()
  progress = PlainProgress(stream, clock)
  progress.start('evaluate', 48)
  progress.tell(now='first expansion')
  for _ in range(300):
    clock.now += 1
    progress.tick()
  lines = stream.getvalue().splitlines()
  assert lines[1] == 'evaluate: 0/48 (0 %) · 10.0 s elapsed · now first expansion'
  assert [line.split(' · ')[1] for line in lines[1:]] == [
    '10.0 s elapsed',
    '30.0 s elapsed',
    '1 min 10 s elapsed',
    '2 min 10 s elapsed',
    '3 min 10 s elapsed',
    '4 min 10 s elapsed',
  ]
  clock.now += 9
  progress.update(5, tokens=99)  # news: it is told, and the next silence is short again
  for _ in range(10):
    clock.now += 1
    progress.tick()
  last = stream.getvalue().splitlines()[-1]
  assert last.startswith('evaluate: 5/48 (10 %)') and last.endswith('tokens 99')
  progress.finish()
  progress.tick()
  assert stream.getvalue().splitlines()[-1].startswith('evaluate: 5/48 (10 %) · done')
  assert '\r' not in stream.getvalue()


def test_the_thread_of_a_phase_ends_with_it():
  stream = io.StringIO()
  progress = PlainProgress(stream, tick_seconds=1e-3)
  before = set(threading.enumerate())
  progress.start('search', 3)
  (first,) = set(threading.enumerate()) - before
  progress.start('update')
  threads = {first, *(set(threading.enumerate()) - before)}
  assert len(threads) == 2
  progress.finish()
  for thread in threads:
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_the_thread_of_a_phase_that_nobody_ends_ends_with_its_stream(monkeypatch):
  errors = []
  monkeypatch.setattr(threading, 'excepthook', errors.append)
  stream, before = io.StringIO(), set(threading.enumerate())
  hours = itertools.count(step=3600).__next__  # a line is due at every tick
  PlainProgress(stream, hours, tick_seconds=1e-3).start('search')
  (thread,) = set(threading.enumerate()) - before
  stream.close()
  thread.join(timeout=60)
  assert not thread.is_alive() and not errors


@pytest.mark.parametrize('phase', ['evaluate', 'evaluate (before training)'])
def test_a_narrow_terminal_keeps_count_and_times(phase, monkeypatch):
  monkeypatch.setenv('COLUMNS', '80')
  stream = io.StringIO()
  progress = LiveProgress(stream)
  progress.start(phase, 1800)
  progress.update(1200, expansions=2590, solved=471, tokens=18141, tokens_per_second=4079)
  progress.finish()
  last_bar = re.sub(r'\x1b\[[\d;?]*[a-zA-Z]', '', stream.getvalue().strip().split('\r')[-1])
  assert re.match(re.escape(phase) + r' [━╸╺]+ 1200/1800 \d:\d\d:\d\d left \S+', last_bar), last_bar
  assert '…' not in last_bar.split('left')[0]


def test_live_progress_keeps_notes_and_the_cursor():
  stream = io.StringIO()
  progress = LiveProgress(stream)
  progress.start('filter [bold]', 4)
  progress.update(2, solved=1)
  progress.note('compiling [red] \x1b[2J')
  progress.start('search', None)
  progress.update(3, tokens=12)
  progress.finish()
  text = stream.getvalue()
  assert 'compiling [red] \\x1b[2J\n' in text and '\x1b[2J' not in text
  assert 'filter [bold]' in text and '2/4' in text and 'tokens 12' in text
  assert text.rindex('\x1b[?25h') > text.rindex('\x1b[?25l')  # the cursor is back


def test_plain_progress_needs_no_rich():
  code = (
    'import io, sys; from ds_jax.report.progress import make_progress; '
    'p = make_progress(io.StringIO()); p.start("a", 1); p.finish(); '
    'import ds_jax.report.render, ds_jax.report.metrics, ds_jax.report.inspect; '
    'print([m for m in ("rich", "matplotlib", "tensorboardX", "jax") if m in sys.modules])'
  )
  root = Path(__file__).parents[2]
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'
  assert isinstance(make_progress(io.StringIO()), PlainProgress)


def test_metrics_are_plain_sorted_lines(tmp_path):
  writer = MetricsWriter(tmp_path)
  writer.write(3, 'train', {'b': np.float32(0.5), 'a': float('nan'), 'c': np.int64(2), 'd': 'x'})
  with pytest.raises(ValueError, match='number or text'):
    writer.write(4, 'train', {'a': [1]})
  with pytest.raises(ValueError, match='taken'):
    writer.write(4, 'train', {'step': 1})
  writer.close()
  line = (tmp_path / FILE_NAME).read_text()
  assert len(line) == writer.size() and list(json.loads(line)) == sorted(json.loads(line))
  (row,) = read_metrics(tmp_path / FILE_NAME)
  del row['time/unix']
  assert row == {'a': None, 'b': 0.5, 'c': 2, 'd': 'x', 'kind': 'train', 'step': 3}
  assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_unfinished_line_goes_when_the_file_is_continued(tmp_path):
  path = tmp_path / FILE_NAME
  path.write_bytes(b'{"kind": "train", "step": 0}\n{"kind": "tr')
  with closing(MetricsWriter(tmp_path)) as writer:
    writer.write(1, 'train', {})
  assert [row['step'] for row in read_metrics(path)] == [0, 1]


def test_bad_metrics_are_refused(tmp_path):
  path = tmp_path / FILE_NAME
  assert read_metrics(path) == []
  with (
    closing(MetricsWriter(tmp_path)) as writer,
    pytest.raises(InputError, match='at least 99 bytes'),
  ):
    writer.cut(99)
  path.write_bytes(b'{"kind": "train", "step": 0}\nbroken\n{"kind": "train", "step": 1}\n')
  with pytest.raises(InputError, match=':2: '):
    read_metrics(path)


TEXTS = ('', 'first step', HOSTILE, 'left', 'right ' * 40)


def make_tree() -> FinishedTree:
  """root -> 1, 2;  1 -> 3 (correct), 4 (wrong). Two tokens per node, the node's index."""
  lengths = np.array([0, 2, 2, 2, 2])
  floats = lambda *values: np.array(values, np.float32)
  ints = lambda *values: np.array(values, np.int32)
  return FinishedTree(
    problem_id='p-1',
    sample=0,
    prompt_tokens=ints(9),
    parent=ints(-1, 0, 0, 1, 1),
    depth=ints(0, 1, 1, 2, 2),
    token_start=np.concatenate([[0], lengths.cumsum()]),
    tokens=np.repeat(np.arange(5, dtype=np.int32), lengths),
    logprobs=floats(*[-1] * 8),
    entropies=floats(0.5, 1, 0, 0, 0, 0, 0, 0),
    visit_count=ints(4, 2, 0, 1, 1),
    value_sum=floats(1, 0.5, 0, 1, -1),
    num_ends=ints(2, 2, 0, 1, 1),
    num_correct=ints(1, 1, 0, 1, 0),
    is_terminal=np.array([0, 0, 0, 1, 1], bool),
    is_outcome_chosen=np.zeros(5, bool),
    reward=floats(0, 0, 0, 1, -1),
    verdict=(None, None, None, 'correct', 'wrong'),
    collected=ints(4, 3),
    selections=((0, 'root'), (1, 'local'), (1, 'global')),
    statistics={'expansions': 3, 'generated_tokens': np.int64(8), 'rate': float('nan')},
  )


def decode(tokens: np.ndarray) -> str:
  return TEXTS[int(tokens[0])]


def test_tree_has_one_line_per_node():
  lines = format_tree(make_tree(), decode, max_text=30).split('\n')
  assert lines[0] == 'problem p-1, tree 0: solved, 1 correct'
  assert 'expansions 3' in lines[1] and len(lines) == 3 + 5
  assert all(line.isprintable() for line in lines)
  starts = ('0 root', '├─ 1 first step', '│  ├─ 3 left', '│  └─ 4 right', '└─ 2 \\x1b[2J<script>')
  assert all(line.startswith(start) for line, start in zip(lines[3:], starts, strict=True))
  assert re.search(r' 2  +\+0\.25  +0\.75  chosen 2 \(local\), 3 \(global\)$', lines[4])
  assert lines[5].endswith('correct +1.00, collected #2')
  assert lines[6].endswith('wrong -1.00, collected #1')
  assert re.search(r' 0  +–  +0\.00$', lines[7])


def test_deep_tree_needs_no_recursion():
  n = 1500
  tree = make_tree()
  fields = {
    'parent': np.arange(-1, n - 1),
    'depth': np.arange(n),
    'token_start': np.zeros(n + 1, np.int32),
  }
  fields |= dict.fromkeys(
    ('visit_count', 'value_sum', 'num_ends', 'num_correct', 'is_terminal', 'reward'),
    np.zeros(n, np.int32),
  )
  deep = FinishedTree(
    **{
      **tree.__dict__,
      **fields,
      'verdict': (None,) * n,
      'selections': (),
      'collected': np.zeros(0, np.int32),
    }
  )
  assert format_tree(deep, decode).count('└─ ') == n - 1


def test_tree_dict_is_json():
  fields = json.loads(json.dumps(tree_to_dict(make_tree(), decode), allow_nan=False))
  assert fields['statistics'] == {'expansions': 3, 'generated_tokens': 8, 'rate': None}
  assert fields['nodes'][2]['text'] == HOSTILE and fields['nodes'][2]['q'] is None
  assert fields['nodes'][1]['chosen'] == [
    {'iteration': 2, 'how': 'local'},
    {'iteration': 3, 'how': 'global'},
  ]


def make_metrics() -> list[dict]:
  rounds = [{'kind': 'filter', 'step': 0, 'round': 1, 'filter/num_problems': 99}]
  train = [train_row(step) for step in range(1, 11)]
  return [evaluate_row(0, 'before', 0.1), *rounds, *train, evaluate_row(10, 'after', 0.25)]


def evaluate_row(step: int, when: str, share: float) -> dict:
  return {
    'kind': 'evaluate',
    'step': step,
    'when': when,
    'evaluate/pass_at_1': share,
    'evaluate/pass_at_1_low': share - 0.02,
    'evaluate/pass_at_1_high': share + 0.02,
    'evaluate/pass_at_k': 0.5,
    'evaluate/num_problems': 256,
    'evaluate/num_samples': 8,
  }


def train_row(step: int) -> dict:
  return {
    'kind': 'train',
    'step': step,
    'search/solve_rate': 0.3 + step / 50,
    'search/tokens': 1000,
    'search/u_over_x_depth_1': 1.2,
    'search/yield': 0.4,
    'train/ratio_first': 1.0,
    'train/grad_norm': None,
    'time/step': 2.0,
    'time/search': 1.0,
    'time/unix': 1e9,
  }


def test_what_forks_bring_is_drawn_of_runs_that_fork():
  row = train_row(1)
  assert len(search_panels([row])) == 5
  del row['search/u_over_x_depth_1']
  assert len(search_panels([row])) == 4


def _png_size(content: bytes) -> tuple[int, int]:
  assert content[:8] == b'\x89PNG\r\n\x1a\n' and content[12:16] == b'IHDR'
  return struct.unpack('>II', content[16:24])


@pytest.mark.parametrize(
  'metrics',
  [
    [],
    make_metrics(),
    make_metrics()[:1],
    make_metrics()[2:3],
    [{'kind': 'evaluate', 'step': 0, 'when': 'before', 'evaluate/pass_at_1': 0.0}],
  ],
  ids=['empty', 'whole', 'before', 'one step', 'no interval'],
)
def test_report_of_any_stage(tmp_path, metrics):
  page, picture = write_report(tmp_path, metrics, {})
  assert _png_size(picture.read_bytes()) == (1560, 1200)
  assert 20_000 < picture.stat().st_size < 1_000_000
  assert page.read_text().endswith('</html>\n')
  assert sorted(p.name for p in tmp_path.iterdir()) == ['report.html', 'report.png']


BESIDE = {
  'label': 'DAPO, 5 seeds',
  'command': 'python …',
  'k': 16,
  'points': [
    {'tokens': 0, 'pass_at_1': 0.1, 'pass_at_k': 0.5},
    {'tokens': 9000, 'pass_at_1': 0.2, 'pass_at_k': 0.6},
  ],
}


def drawn_curve(metrics, beside):
  """Points of each line of the learning curve by its label, and the label of the axis below."""
  axis = Figure().subplots()
  draw_curve(axis, metrics, beside)
  lines = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
  return {name: xy for name, xy in lines.items() if name[0] != '_'}, axis.get_xlabel()


def test_the_curve_rises_over_what_was_generated():
  """An evaluation of an older version, which did not note tokens, has those of the step before."""
  metrics = [
    evaluate_row(0, 'before', 0.1),
    train_row(1) | {'search/tokens_so_far': 4000},
    evaluate_row(1, 'step_000001', 0.15),
    train_row(2) | {'search/tokens_so_far': 9000},
    evaluate_row(2, 'after', 0.25) | {'search/tokens_so_far': 9000},
  ]
  lines, label = drawn_curve(metrics, BESIDE)
  assert label == 'tokens generated to learn from'
  assert lines['held-out pass@1'] == [[0, 0.1], [4000, 0.15], [9000, 0.25]]
  assert [x for x, _ in lines['held-out pass@8']] == [0, 4000, 9000]
  assert lines['DAPO, 5 seeds: pass@1'] == [[0, 0.1], [9000, 0.2]]
  assert lines['DAPO, 5 seeds: pass@16'] == [[0, 0.5], [9000, 0.6]]


def test_a_run_that_generates_nothing_has_its_curve_over_steps():
  metrics = [evaluate_row(0, 'before', 0.1), train_row(1), evaluate_row(1, 'after', 0.2)]
  lines, label = drawn_curve(metrics, BESIDE)
  assert label == 'training step'
  assert lines['held-out pass@1'] == [[0, 0.1], [1, 0.2]]
  assert not any('DAPO' in name for name in lines)


def test_the_page_says_where_the_curve_beside_comes_from(tmp_path):
  hostile = BESIDE | {'label': HOSTILE}
  page, _ = write_report(tmp_path, make_metrics(), {'beside': hostile})
  text = page.read_bytes().decode()
  assert '<script' not in text and 'of `python …`' in text
  page, _ = write_report(tmp_path, make_metrics(), {})
  assert 'Broken lines' not in page.read_text()


@pytest.mark.parametrize(
  'text, message',
  [
    ('{', 'cannot be read'),
    ('[]', 'to hold label, command, k, points'),
    (json.dumps(BESIDE | {'points': []}), 'to hold label'),
    (json.dumps(BESIDE | {'points': [{'tokens': 1, 'pass_at_1': 0.1}]}), 'pass_at_k'),
    (json.dumps(BESIDE | {'k': 'many'}), 'to hold label'),
  ],
)
def test_a_file_that_is_no_curve_is_refused(tmp_path, text, message):
  path = tmp_path / 'curve.json'
  path.write_text(text)
  with pytest.raises(InputError, match=message):
    read_beside(str(path))
  with pytest.raises(InputError, match='cannot be read'):
    read_beside(str(tmp_path / 'none.json'))
  assert read_beside('') == {}


def test_one_sample_per_problem_has_one_pass_rate():
  row = evaluate_row(0, 'before', 0.1)
  assert [line[0] for line in table_rows({'after': figures_of(row)})][2] == 'pass@8'
  alone = figures_of(row | {'evaluate/num_samples': 1})
  assert not any(line[0] == 'pass@1' for line in table_rows({'after': alone}))


def figures_of(row: dict) -> dict:
  """The figures of an evaluation as a summary has them."""
  return {name.removeprefix('evaluate/'): value for name, value in row.items()}


def test_report_is_repeatable_and_says_the_result(tmp_path):
  pages = [write_report(tmp_path, make_metrics(), {})[0].read_text() for _ in range(2)]
  assert pages[0] == pages[1]
  assert 'pass@1 went from 10.0 % to 25.0 % (+15.0 points)' in pages[0]
  assert 'search/yield' in pages[0] and 'train/grad_norm' not in pages[0]


def test_hostile_text_is_escaped_in_the_page(tmp_path):
  tree = {'title': HOSTILE, 'text': format_tree(make_tree(), decode, max_text=200) + HOSTILE}
  summary = {'title': HOSTILE, 'trees': [tree], 'config': {'data': {'source': HOSTILE}}}
  page = write_report(tmp_path, make_metrics(), summary)[0].read_bytes().decode()
  assert '<script' not in page and '&lt;script&gt;' in page
  assert all(c not in page for c in '\x1b\x00\u202e')
  assert not re.search(r'(src|href)="(?!data:)', page)


def test_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
  page, _ = write_report(tmp_path, [], {})
  before = page.read_bytes()

  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.fsync', full)
  with pytest.raises(OSError, match='No space'):
    write_report(tmp_path, make_metrics(), {})
  assert page.read_bytes() == before
  assert sorted(p.name for p in tmp_path.iterdir()) == ['report.html', 'report.png']


def test_summary_table():
  summary = make_summary(make_metrics())
  assert json.loads(json.dumps(summary)) == summary
  assert (summary['steps'], summary['tokens'], summary['seconds']) == (10, 10_000, 20.0)
  table = summary_table(summary)
  assert '10.0 % [8.0, 12.0]' in table and '+15.0 points' in table and 'pass@8' in table
  assert '10 training steps · 1 rounds' not in table and '10,000 tokens' in table
  assert 'no training steps yet' in summary_table({})


def test_levers_at_work_are_shown_and_no_others(tmp_path):
  with_memory = [row | {'memory/mass_share': 0.25} for row in make_metrics()]
  page, _ = write_report(tmp_path, with_memory, {})
  assert '25.0 %</td><td>memory/mass_share' in page.read_text()
  assert 'explore/temperature' not in page.read_text()


def test_tokens_are_those_of_filters_and_rollouts_too():
  older, newer = train_row(1), train_row(2) | {'search/tokens_so_far': 1500}
  last = train_row(3) | {'search/tokens': 0, 'search/tokens_so_far': 2700}
  assert make_summary([older, newer, last])['tokens'] == 1000 + 2700


def test_a_run_that_was_not_evaluated_before_has_one_column(tmp_path):
  metrics = make_metrics()[1:]
  table = summary_table(make_summary(metrics))
  assert table.splitlines()[0].split() == ['after'] and 'change' not in table
  assert table.splitlines()[-1] == 'pass@1 25.0 % [23.0, 27.0]'
  page, picture = write_report(tmp_path, metrics, {})
  assert 'pass@1 after training is 25.0 %' in page.read_text()
  assert _png_size(picture.read_bytes()) == (1560, 1200)


def test_the_last_line_is_the_result():
  last = summary_table(make_summary(make_metrics())).splitlines()[-1]
  assert last == 'pass@1 25.0 % [23.0, 27.0], before training 10.0 % [8.0, 12.0]'


def test_skipped_updates_are_counted(tmp_path):
  metrics = make_metrics()
  for row, share in zip(metrics[2:5], (1.0, 0.25, 0.0), strict=True):
    row |= {'train/skipped': share, 'train/updates': 4}
  summary = make_summary(metrics)
  assert (summary['updates'], summary['skipped_updates'], summary['skipped_steps']) == (19, 5, 1)
  line = '5 of 19 updates were skipped; 1 of 10 steps learnt nothing.'
  assert line in summary_table(summary)
  assert line in write_report(tmp_path, metrics, {})[0].read_text()


def test_text():
  assert visible('a\\b é\n\t\x1b') == 'a\\b é\\n\\t\\x1b'
  assert shorten('abcdefghij', 7) == 'abcd…ij' and shorten('abc', 3) == 'abc'
  assert [duration(s) for s in (3.21, 59.97, 245, 7500)] == [
    '3.2 s',
    '1 min 00 s',
    '4 min 05 s',
    '2 h 05 min',
  ]
  np.testing.assert_allclose(running_mean(np.array([1.0, 2, 6, 3]), 1), [1.5, 3, 11 / 3, 4.5])
