"""Progress in a notebook: one line a phase, which changes in place."""

from __future__ import annotations

import sys
import types

from ds_jax.report import progress as progress_lib
from ds_jax.report.notebook import NotebookProgress


class Cell:
  """What stands below a cell: outputs in order, each with all that it was."""

  def __init__(self):
    self.outputs = []

  def display(self, data, *, raw, display_id=False):
    states = [data]
    self.outputs.append(states)
    assert raw
    if display_id:
      return types.SimpleNamespace(update=lambda data, raw: states.append(data))
    return None

  def lines(self):
    return [states[-1]['text/plain'] for states in self.outputs]


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def test_a_phase_is_one_line_that_changes():
  cell, clock = Cell(), Clock()
  progress = NotebookProgress(cell.display, clock)
  progress.start('search', 40)
  for completed in range(41):
    clock.now += 0.1
    progress.update(completed, solved=3)
  progress.note('a note')
  progress.finish()
  assert cell.lines() == ['search: 40/40 (100 %) · done in 4.1 s · solved 3', 'a note']
  states = [state['text/plain'] for state in cell.outputs[0]]
  assert 5 < len(states) < 15  # not one for each update
  assert '<progress value="0" max="40">' in cell.outputs[0][0]['text/html']
  assert '<progress' not in cell.outputs[0][-1]['text/html']


def test_outside_a_phase_nothing_is_shown_and_the_next_ends_the_one_before():
  cell = Cell()
  progress = NotebookProgress(cell.display, Clock())
  progress.update(1)
  progress.tell(solved=1)
  progress.finish()
  assert not cell.outputs
  progress.start('first')
  progress.start('second', 2)
  progress.tell(now='update')
  progress.finish()
  first, second = cell.lines()
  assert first == 'first: 0 · done in 0.0 s' and second.endswith('now update')


def test_hostile_text_stays_text():
  cell = Cell()
  NotebookProgress(cell.display, Clock()).note('<b>\x1b[2J')
  assert cell.outputs[0][0]['text/plain'] == r'<b>\x1b[2J'
  assert '&lt;b&gt;' in cell.outputs[0][0]['text/html']


def test_a_notebook_is_told_from_a_terminal(monkeypatch):
  shell = types.SimpleNamespace(kernel=None)
  cell = Cell()
  monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: shell))
  monkeypatch.setitem(sys.modules, 'IPython.display', cell)
  assert not isinstance(progress_lib.make_progress(), NotebookProgress)
  shell.kernel = object()
  assert isinstance(progress_lib.make_progress(), NotebookProgress)
  assert not isinstance(progress_lib.make_progress(sys.stderr), NotebookProgress)
