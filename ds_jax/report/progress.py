"""Where a long phase stands: a live bar on a terminal, one line in a notebook, else plain lines.

Everything goes to standard error (a notebook shows it below the cell); standard output is kept for
results. A phase ends with its
elapsed time in both forms, also when the next one starts without finish(). One that has nothing new
to tell says every so often that it is alive: a device is asked for many tokens at once, and does
not speak before it has them all.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from ds_jax.interfaces import Progress
from ds_jax.report.notebook import NotebookProgress, notebook_display
from ds_jax.report.text import fields_line, phase_state, visible

_SECONDS_BETWEEN_LINES = 10.0
_SHARE_BETWEEN_LINES = 0.1
_FASTEST_LINES = 1.0  # seconds: a phase of two seconds needs no ten lines
# Lines without news come after 10 s, 20 s, 40 s, then every minute.
_LONGEST_SILENCE = 60.0  # seconds
_TICK_SECONDS = 1.0


def make_progress(stream: TextIO | None = None) -> Progress:
  """Returns a Progress for `stream` (default: standard error): live on a terminal, else plain.

  update() outside a phase shows nothing, and finish() may be called twice.
  """
  if stream is None and notebook_display() is not None:
    return NotebookProgress(notebook_display())
  stream = sys.stderr if stream is None else stream
  can_redraw = stream.isatty() and os.environ.get('TERM', '') not in ('', 'dumb')
  if not can_redraw:
    return PlainProgress(stream, tick_seconds=_TICK_SECONDS)
  progress = LiveProgress(stream)
  atexit.register(progress.finish)  # gives the cursor back after an exception
  return progress


class PlainProgress:
  """One line when a phase starts, one every ten seconds or ten percent, one when it ends."""

  def __init__(
    self,
    stream: TextIO,
    clock: Callable[[], float] = time.monotonic,
    *,
    tick_seconds: float = 0.0,
  ):
    """Begins outside a phase.

    Args:
      stream: written to.
      clock: seconds.
      tick_seconds: between calls of `tick` from a thread, within a phase; 0: nobody calls it.
    """
    self._stream = stream
    self._clock = clock
    self._tick_seconds = tick_seconds
    self._lock = threading.RLock()
    self._phase: str | None = None  # None outside a phase
    self._has_ended = threading.Event()  # the phase

  def start(self, phase: str, total: int | None = None) -> None:
    with self._lock:
      self.finish()
      self._phase, self._total = visible(phase), total
      self._completed, self._fields = 0, {}
      self._started = self._clock()
      self._shown, self._shown_at = 0, self._started  # what the last line said, and when
      self._silence = _SECONDS_BETWEEN_LINES  # after which a line comes without news
      count = '' if total is None else f', 0/{total:,}'
      self._line(f'{self._phase}: started{count}')
      if self._tick_seconds:
        self._has_ended = threading.Event()
        ticking = threading.Thread(
          target=self._keep_ticking, args=(self._has_ended,), name='progress', daemon=True
        )
        ticking.start()

  def update(self, completed: int, **fields: float | int | str) -> None:
    with self._lock:
      if self._phase is None:
        return
      self._completed, self._fields = completed, fields
      self._silence = _SECONDS_BETWEEN_LINES
      if self._is_due():
        self._show()

  def tell(self, **fields: float | int | str) -> None:
    with self._lock:
      if self._phase is not None:
        self.update(self._completed, **fields)

  def tick(self) -> None:
    """Says that the phase is alive, if it has been silent for long."""
    with self._lock:
      if self._phase is not None and self._clock() - self._shown_at >= self._silence:
        self._silence = min(2 * self._silence, _LONGEST_SILENCE)
        self._show()

  def finish(self) -> None:
    with self._lock:
      self._has_ended.set()
      if self._phase is not None:
        self._line(self._state(self._clock(), is_done=True))
        self._phase = None

  def note(self, message: str) -> None:
    with self._lock:
      self._line(visible(message))

  def _keep_ticking(self, has_ended: threading.Event) -> None:
    while not has_ended.wait(self._tick_seconds):
      try:
        self.tick()
      except ValueError:
        if self._stream.closed:  # nobody has ended the phase
          return
        raise

  def _show(self) -> None:
    """Writes where the phase stands."""
    self._shown, self._shown_at = self._completed, self._clock()
    self._line(self._state(self._shown_at, is_done=False))

  def _is_due(self) -> bool:
    waited = self._clock() - self._shown_at
    gained = self._completed - self._shown
    is_step = bool(self._total) and gained >= _SHARE_BETWEEN_LINES * self._total
    return waited >= _SECONDS_BETWEEN_LINES or (is_step and waited >= _FASTEST_LINES)

  def _state(self, now: float, *, is_done: bool) -> str:
    elapsed = now - self._started
    state = phase_state(self._completed, self._total, elapsed, fields=self._fields, is_done=is_done)
    return f'{self._phase}: {state}'

  def _line(self, line: str) -> None:
    self._stream.write(line + '\n')
    self._stream.flush()


class LiveProgress:
  """One bar by rich: the running phase. A finished phase stays on the screen as its last bar."""

  def __init__(self, stream: TextIO):
    from rich.console import Console

    self._console = Console(file=stream, force_terminal=True)
    self._lock = threading.RLock()
    self._bars: Any = None  # rich's Progress; None outside a phase

  def start(self, phase: str, total: int | None = None) -> None:
    with self._lock:
      self.finish()
      self._bars = _bars(self._console)
      self._task = self._bars.add_task(visible(phase), total=total, shown='')
      self._bars.start()

  def update(self, completed: int, **fields: float | int | str) -> None:
    with self._lock:
      if self._bars is not None:
        self._bars.update(self._task, completed=completed, shown=fields_line(fields))

  def tell(self, **fields: float | int | str) -> None:
    with self._lock:
      if self._bars is not None:
        self._bars.update(self._task, shown=fields_line(fields))

  def finish(self) -> None:
    with self._lock:
      if self._bars is not None:
        self._bars.stop_task(self._task)
        self._bars.stop()
        self._bars = None

  def note(self, message: str) -> None:
    with self._lock:
      self._console.print(visible(message), markup=False, highlight=False, soft_wrap=True)


def _bars(console: Any) -> Any:
  """Returns an empty rich Progress. On a narrow terminal the fields are cut, then the bar."""
  from rich import progress
  from rich.table import Column

  def text(template: str, **style: Any) -> progress.TextColumn:
    column = Column(no_wrap=True, overflow='ellipsis', **style)
    return progress.TextColumn(template, markup=False, table_column=column)

  return progress.Progress(
    text('{task.description}', style='bold'),
    progress.BarColumn(bar_width=24),
    progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
    progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
    progress.TextColumn('left'),
    progress.TimeRemainingColumn(table_column=Column(no_wrap=True)),
    text('{task.fields[shown]}', ratio=1),  # what is left of the line
    expand=True,
    console=console,
    refresh_per_second=4,
    redirect_stdout=False,  # results on standard output must not end up on standard error
  )
