"""Progress in a notebook: one line a phase, below the cell, which changes in place."""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ds_jax.report.text import phase_state, visible

_SECONDS_BETWEEN_CHANGES = 0.5
_TICK_SECONDS = 5.0  # a phase that has nothing new to tell shows how long it has been going on

# IPython.display.display: shows data by MIME type, and returns a handle that can change them.
Display = Callable[..., Any]


def notebook_display() -> Display | None:
  """Returns what shows things below the cell of a notebook that runs us; None: none does.

  A notebook has loaded IPython, and its shell has a kernel; that of a terminal has none.
  """
  ipython = sys.modules.get('IPython')
  shell = ipython.get_ipython() if ipython else None
  if getattr(shell, 'kernel', None) is None:
    return None
  return sys.modules['IPython.display'].display


class NotebookProgress:
  """A line for every phase, which changes in place; notes are lines of their own."""

  def __init__(self, display: Display, clock: Callable[[], float] = time.monotonic):
    """Begins outside a phase.

    Args:
      display: from `notebook_display`.
      clock: seconds.
    """
    self._display, self._clock = display, clock
    self._lock = threading.RLock()
    self._handle: Any = None  # of the line of the running phase; None outside a phase
    self._has_ended = threading.Event()  # the phase

  def start(self, phase: str, total: int | None = None) -> None:
    with self._lock:
      self.finish()
      self._phase, self._total, self._completed, self._fields = visible(phase), total, 0, {}
      self._started = self._shown_at = self._clock()
      self._handle = self._display(self._data(), raw=True, display_id=True)
      self._has_ended = threading.Event()
      threading.Thread(
        target=self._keep_showing, args=(self._has_ended,), name='progress', daemon=True
      ).start()

  def update(self, completed: int, **fields: float | int | str) -> None:
    with self._lock:
      if self._handle is None:
        return
      self._completed, self._fields = completed, fields
      if self._clock() - self._shown_at >= _SECONDS_BETWEEN_CHANGES:
        self._show()

  def tell(self, **fields: float | int | str) -> None:
    with self._lock:
      if self._handle is not None:
        self.update(self._completed, **fields)

  def finish(self) -> None:
    with self._lock:
      self._has_ended.set()
      if self._handle is not None:
        self._handle.update(self._data(is_done=True), raw=True)
        self._handle = None

  def note(self, message: str) -> None:
    self._display(_line(visible(message), ''), raw=True)

  def _keep_showing(self, has_ended: threading.Event) -> None:
    while not has_ended.wait(_TICK_SECONDS):
      with self._lock:
        if not has_ended.is_set():
          self._show()

  def _show(self) -> None:
    self._shown_at = self._clock()
    self._handle.update(self._data(), raw=True)

  def _data(self, *, is_done: bool = False) -> dict[str, str]:
    """The line of the phase, by MIME type."""
    elapsed = self._clock() - self._started
    state = phase_state(self._completed, self._total, elapsed, fields=self._fields, is_done=is_done)
    bar = ''
    if self._total and not is_done:
      bar = f'<progress value="{self._completed}" max="{self._total}"></progress> '
    return _line(f'{self._phase}: {state}', bar)


def _line(text: str, bar: str) -> dict[str, str]:
  """A line by MIME type; `bar` is HTML that stands before it."""
  style = 'margin:0; font-family:monospace; white-space:pre-wrap'
  return {
    'text/plain': text,
    'text/html': f'<div style="{style}">{bar}{html.escape(text)}</div>',
  }
