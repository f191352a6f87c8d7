"""How long programs take to compile: told as soon as it is over, and left out of other times."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import jax

from ds_jax.report.text import duration
from ds_jax.search.engine.host_tree import Job
from ds_jax.types import FinishedTree

# jax's names of the events that say how long a program took to compile, or to be read from the
# cache, and that it was in the cache.
COMPILATION = '/jax/core/compile/backend_compile_duration'
CACHE_HIT = '/jax/compilation_cache/cache_hits'

_WORTH_TELLING = 1.0  # seconds


@contextlib.contextmanager
def compilations_told(note: Callable[[str], None]) -> Iterator[None]:
  """Within it, every program that takes a second or more to compile is told when it is over.

  Args:
    note: told in one line.
  """
  is_cached = False

  def listen(event: str, **fields: Any) -> None:
    nonlocal is_cached
    del fields
    is_cached |= event == CACHE_HIT

  def listen_duration(event: str, seconds: float, **fields: Any) -> None:
    nonlocal is_cached
    del fields
    if event != COMPILATION:
      return
    if seconds >= _WORTH_TELLING:
      what = 'Loaded a program from the compilation cache' if is_cached else 'Compiled a program'
      note(f'{what} in {duration(seconds)}.')
    is_cached = False

  jax.monitoring.register_event_listener(listen)
  jax.monitoring.register_event_duration_secs_listener(listen_duration)
  try:
    yield
  finally:
    jax.monitoring.unregister_event_listener(listen)
    jax.monitoring.unregister_event_duration_listener(listen_duration)


class Clock:
  """How long each tree took: from the moment the engine asks for its job, compilation left out."""

  def __init__(self) -> None:
    self._compiling = 0.0
    self._started: dict[str, float] = {}
    self.taken: dict[str, float] = {}  # seconds of the trees that are finished, by problem

  def __enter__(self) -> Clock:
    jax.monitoring.register_event_duration_secs_listener(self._note_compilation)
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    jax.monitoring.unregister_event_duration_listener(self._note_compilation)

  def start(self, job: Job) -> None:
    self._started[job.problem.id] = self._now()

  def stop(self, tree: FinishedTree) -> None:
    self.taken[tree.problem_id] = self.seconds(tree.problem_id)

  def seconds(self, problem_id: str) -> float:
    """From the start of a problem's tree until now."""
    return self._now() - self._started[problem_id]

  def _now(self) -> float:
    return time.monotonic() - self._compiling

  def _note_compilation(self, event: str, seconds: float, **fields: Any) -> None:
    del fields
    if event == COMPILATION:
      self._compiling += seconds
