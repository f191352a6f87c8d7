"""Verifiers in separate processes that can be killed: `VerifierPool` is an interfaces.VerifyFn.

A verdict never depends on other answers or on load: the deadline is CPU time of the answer alone,
and an answer whose worker died for another reason than its deadline gets a second worker before
it is blamed.

* TIMEOUT: the deadline, the wall-clock back-stop, exhausted memory or stack, or a second death by
  a signal (a crash in C, the kernel's memory killer): a too expensive answer must not pay.
* ERROR: the verifier raised or left the process, which is no fault of the answer: noted once per
  kind.

An alert is noted when ALERT answers in a row end in one of these two: a broken verifier would
otherwise pass for a model that learns nothing.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import logging
import signal
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import VerifyConfig
from ds_jax.types import Verdict
from ds_jax.verify import verifiers
from ds_jax.verify.process import WorkerDiedError, WorkerProcess

CACHE_SIZE = 1 << 17  # verdicts kept
MAX_BATCH = 64  # items per message to a worker
ALERT = 16  # answers in a row
_MAX_STARTS = 3  # of a worker that dies while starting
_JOIN_SECONDS = 10.0

# Gold, response, verdict and the worker's report: `ms`, and `explanation` where it was asked for.
Observer = Callable[[str, str, Verdict, Mapping[str, Any]], None]


@dataclasses.dataclass
class _Item:
  """One answer in work, and everybody who waits for it."""

  key: bytes
  verifier: str  # its name
  gold: str
  response: str
  futures: list[Future]
  num_deaths: int = 0


class VerifierPool:
  """Checks answers in `config.num_workers` processes, started on first use.

  Works from any thread. Use it as a context manager, or call `close`; a pool that is forgotten
  ends with the interpreter, and its workers end with a killed parent.

    with VerifierPool(VerifyConfig(verifier='math')) as pool:
      futures = pool.verify([(r'\\frac12', r'so it is \\boxed{0.5}')])
      assert futures[0].result() is Verdict.CORRECT
  """

  def __init__(
    self,
    config: VerifyConfig,
    note: Callable[[str], None] | None = None,
    observe: Observer | None = None,
    *,
    explains: bool = False,
  ):
    """Checks the settings; starts nothing.

    Args:
      config: the verifier's name, deadlines and limits.
      note: receives alerts, and one line per kind of verifier error; default: the log.
      observe: is told gold, response, verdict and report of every answer that a worker checked,
        before its future is done and from any thread; cached ones are not told. The report is empty
        where the worker was ended, else it holds `ms`, milliseconds in the worker.
      explains: reports hold an `explanation`, too (fields of explain.Explanation, or None).

    Raises:
      InputError: for an unknown verifier or a bound that is not positive.
    """
    verifiers.check_name(config.verifier)
    for field in ('num_workers', 'cpu_seconds', 'wall_seconds', 'memory_mb', 'recycle_after'):
      if getattr(config, field) <= 0:
        raise InputError(f'Expected verify.{field} > 0, got {getattr(config, field)}.')
    note = note or logging.getLogger(__name__).warning
    self._desk = _Desk(config, note, observe, explains=explains)
    self._finalizer = weakref.finalize(self, _Desk.close, self._desk)  # also at exit

  def verify(self, items: Sequence[tuple[str, str]]) -> list[Future]:
    """Queues (gold, response) pairs; never blocks.

    Args:
      items: pairs of gold answer and response text.

    Returns:
      A future Verdict each, in order. It raises InputError or RuntimeError when no worker can
      start or the pool is closed first.

    Raises:
      RuntimeError: the pool is closed.
    """
    return self._desk.submit(items)

  __call__ = verify

  @property
  def counts(self) -> dict[Verdict, int]:
    """Verdicts given so far, cached ones included."""
    return self._desk.counts_now()

  @property
  def worker_pids(self) -> list[int]:
    """Process ids of the workers that run now."""
    return self._desk.pids()

  def close(self) -> None:
    """Ends the workers; answers still in work raise RuntimeError. May be called twice."""
    self._finalizer()

  def __enter__(self) -> VerifierPool:
    return self

  def __exit__(self, *exception) -> None:
    self.close()


class _Desk:
  """What the threads share. They never hold the pool itself, so that it can be collected."""

  def __init__(
    self,
    config: VerifyConfig,
    note: Callable[[str], None],
    observe: Observer | None,
    *,
    explains: bool,
  ):
    self.config, self.explains = config, explains
    self._note, self._observe = note, observe
    self._changed = threading.Condition()
    self._queue: collections.deque[_Item] = collections.deque()
    self._in_work: dict[bytes, _Item] = {}
    self._cache: collections.OrderedDict[bytes, Verdict] = collections.OrderedDict()
    self._counts = collections.Counter()
    self._noted: set[str] = set()
    self._num_failing = 0  # timeouts and errors since the last answer that was judged
    self._threads: list[threading.Thread] = []
    self._workers: set[WorkerProcess] = set()
    self._failure: Exception | None = None
    self._is_closed = False

  def submit(self, items: Sequence[tuple[str, str]]) -> list[Future]:
    """Queues items, or answers what is known; starts the threads at first."""
    futures: list[Future] = []
    known_results: list[tuple[Future, Verdict | Exception]] = []
    with self._changed:
      if self._is_closed:
        raise RuntimeError('The verifier pool is closed.')
      for gold, response in items:
        future = Future()
        future.set_running_or_notify_cancel()  # work is shared, so one waiter cannot cancel it
        futures.append(future)
        result = self._enqueue(gold, response, future)
        if result is not None:
          known_results.append((future, result))
      if self._queue and not self._threads:
        self._start_threads()
      self._changed.notify_all()
    for future, result in known_results:
      _settle(future, result)
    return futures

  def _enqueue(self, gold: str, response: str, future: Future) -> Verdict | Exception | None:
    """Queues one answer, or returns what is known of it."""
    if self._failure is not None:
      return self._failure
    verifier = verifiers.name_for(gold, self.config.verifier)
    text = f'{len(gold)} {gold}{response}'
    if verifier != self.config.verifier:
      text = f'{verifier} {text}'
    text = text.encode('utf-8', 'surrogatepass')
    key = hashlib.blake2b(text, digest_size=16).digest()
    if key in self._cache:
      verdict = self._cache[key]
      self._cache.move_to_end(key)
      self._counts[verdict] += 1
      return verdict
    if key in self._in_work:
      self._in_work[key].futures.append(future)
      return None
    item = _Item(key, verifier, gold, response, futures=[future])
    self._in_work[key] = item
    self._queue.append(item)
    return None

  def _start_threads(self) -> None:
    for i in range(self.config.num_workers):
      thread = threading.Thread(target=_serve, args=(self,), name=f'verifier-{i}', daemon=True)
      self._threads.append(thread)
      thread.start()

  def take_batch(self) -> list[_Item]:
    """Waits for work; an empty list means that the pool is closed."""
    with self._changed:
      self._changed.wait_for(lambda: self._queue or self._is_closed)
      if self._is_closed:
        return []
      # A share of the queue, so that one slow answer keeps few others waiting.
      share = len(self._queue) // (2 * self.config.num_workers)
      size = min(MAX_BATCH, max(1, share))
      return [self._queue.popleft() for _ in range(size)]

  def give_back(self, items: list[_Item]) -> None:
    """Puts items that were not reached in front of the queue again."""
    with self._changed:
      self._queue.extendleft(reversed(items))
      self._changed.notify_all()

  def answer(
    self,
    item: _Item,
    verdict: Verdict,
    *,
    note: str | None = None,
    report: Mapping[str, Any] = types.MappingProxyType({}),
  ) -> None:
    """Gives everybody who waits for an item its verdict, and notes what a person should know."""
    if self._observe is not None:
      self._observe(item.gold, item.response, verdict, report)
    with self._changed:
      if self._in_work.pop(item.key, None) is None:
        return  # closed meanwhile
      if verdict is not Verdict.ERROR:  # it may not happen again
        self._cache[item.key] = verdict
        if len(self._cache) > CACHE_SIZE:
          self._cache.popitem(last=False)
      self._counts[verdict] += len(item.futures)
      is_judged = verdict not in (Verdict.TIMEOUT, Verdict.ERROR)
      self._num_failing = 0 if is_judged else self._num_failing + 1
      is_alert = self._num_failing == ALERT
    for future in item.futures:
      _settle(future, verdict)
    if note is not None:
      self._note_once(note, item.verifier)
    if is_alert:
      self._note(
        f'The last {ALERT} answers all ended in a timeout or an error of verifier '
        f'{item.verifier!r}: nothing can be learnt from such rewards. Look at the '
        'golds, verify.cpu_seconds and verify.memory_mb.'
      )

  def _note_once(self, note: str, verifier: str) -> None:
    """Notes an error of a verifier, a traceback, unless one of the same type was noted."""
    kind = note.strip().rpartition('\n')[2].partition(':')[0]
    with self._changed:
      if kind in self._noted:
        return
      self._noted.add(kind)
    self._note(
      f'verifier {verifier!r} failed (verdict error; further {kind} are only '
      f'counted):\n{note.strip()}'
    )

  def fail(self, error: Exception) -> None:
    """No worker can start: everybody who waits, now or later, gets the reason."""
    with self._changed:
      self._failure = error
    self._drop_all(error)

  def _drop_all(self, error: Exception) -> None:
    """Raises `error` in everybody who waits."""
    with self._changed:
      items = list(self._in_work.values())
      self._in_work.clear()
      self._queue.clear()
    for item in items:
      for future in item.futures:
        _settle(future, error)

  def start_worker(self) -> WorkerProcess:
    """Starts a worker; one that dies while starting is tried again.

    Raises:
      InputError: the verifier cannot be imported.
      RuntimeError: no worker came up.
    """
    num_starts = 0
    while True:
      num_starts += 1
      worker = WorkerProcess(self.config, explains=self.explains)
      with self._changed:
        self._workers.add(worker)
        if self._is_closed:
          worker.signal_kill()
      try:
        worker.wait_ready()
        return worker
      except (InputError, RuntimeError) as error:
        self.forget(worker)
        if isinstance(error, InputError) or self._is_closed or num_starts == _MAX_STARTS:
          raise

  def forget(self, worker: WorkerProcess) -> None:
    """Takes a worker off the list of those that run."""
    with self._changed:
      self._workers.discard(worker)

  def counts_now(self) -> dict[Verdict, int]:
    with self._changed:
      return {verdict: self._counts[verdict] for verdict in Verdict}

  def pids(self) -> list[int]:
    with self._changed:
      return [worker.pid for worker in self._workers]

  def close(self) -> None:
    """Kills the workers, drops what waits and ends the threads."""
    with self._changed:
      self._is_closed = True
      workers = list(self._workers)
      self._changed.notify_all()
    for worker in workers:
      worker.signal_kill()
    self._drop_all(RuntimeError('The verifier pool was closed before this answer was checked.'))
    for thread in self._threads:
      if thread is not threading.current_thread():
        thread.join(timeout=_JOIN_SECONDS)


def _settle(future: Future, result: Verdict | Exception) -> None:
  if isinstance(result, Exception):
    future.set_exception(result)
  else:
    future.set_result(result)


def _serve(desk: _Desk) -> None:
  """The life of one thread: it owns at most one worker and feeds it until the pool is closed."""
  worker = None
  try:
    while batch := desk.take_batch():
      if worker is not None and not worker.is_running():  # it died idle: no answer's fault
        _discard(desk, worker)
        worker = None
      if worker is None:
        try:
          worker = desk.start_worker()
        except (InputError, RuntimeError, OSError) as error:
          desk.fail(error)
          continue
      is_alive = _grade_batch(desk, worker, batch)
      if not is_alive or worker.num_answered >= desk.config.recycle_after:
        _discard(desk, worker)
        worker = None
  finally:
    if worker is not None:
      _discard(desk, worker)


def _discard(desk: _Desk, worker: WorkerProcess) -> None:
  desk.forget(worker)
  worker.kill()


def _grade_batch(desk: _Desk, worker: WorkerProcess, batch: list[_Item]) -> bool:
  """Sends a batch and settles its items; False if the worker is gone."""
  worker.send([(item.verifier, item.gold, item.response) for item in batch])
  for index, item in enumerate(batch):
    try:
      report = worker.receive(desk.config.wall_seconds)
    except (WorkerDiedError, TimeoutError) as end:
      desk.give_back(batch[index + 1 :])
      _blame(desk, item, end)
      return False
    verdict = Verdict(report['verdict'])
    desk.answer(item, verdict, note=report.get('note'), report=report)
  return True


def _blame(desk: _Desk, item: _Item, end: WorkerDiedError | TimeoutError) -> None:
  """Decides about the item in whose hands the worker ended (module docstring)."""
  item.num_deaths += 1
  if isinstance(end, TimeoutError) or end.signal == signal.SIGPROF:
    desk.answer(item, Verdict.TIMEOUT)
  elif item.num_deaths == 1:
    desk.give_back([item])
  elif end.signal is not None:
    desk.answer(item, Verdict.TIMEOUT)
  else:
    desk.answer(item, Verdict.ERROR, note=f'WorkerExit: {end}')
