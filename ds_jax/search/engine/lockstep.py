"""Processes that search one mesh together, where the model is split over the devices of several.

All must call the same programs in the same order. What the host decides follows from the jobs, the
sampled tokens and the verdicts. The first two are the same everywhere; a verdict is found by one
process, and told to all once a round, together with whether a process was asked to stop.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future

from ds_jax.interfaces import Team, VerifyFn
from ds_jax.search.engine.host_tree import Job
from ds_jax.types import Verdict


def deal(jobs: Sequence[Job], team: Team, searching_together: Team) -> list[Job]:
  """The jobs with which a process calls the engine.

  Args:
    jobs: of the whole team, in the same order everywhere.
    team: all processes; job i belongs to process i modulo their number.
    searching_together: the engine's team.

  Returns:
    This process's jobs; if it searches together with the others, those of all.
  """
  if searching_together.count == 1:
    return list(jobs[team.index :: team.count])
  return [dataclasses.replace(job, process=i % team.count) for i, job in enumerate(jobs)]


class Lockstep:
  """Verdicts and requests to stop of one run of the engine, alike on all processes of a team.

  Of a team of one it adds nothing: verdicts count as soon as they are in.
  """

  def __init__(self, team: Team, verify_fn: VerifyFn, should_stop: Callable[[], bool]):
    self._team, self._verify_fn, self._should_stop = team, verify_fn, should_stop
    self._numbers = itertools.count()  # of the ends sent to `verify`, in the same order everywhere
    self._verifying: dict[int, Future[Verdict]] = {}  # by this process, by those numbers
    self._promised: dict[int, Future[Verdict]] = {}  # what the search waits for
    self._is_stopping = False

  def should_stop(self) -> bool:
    """Whether a process was asked to stop, as far as all know of it."""
    return self._should_stop() if self._team.count == 1 else self._is_stopping

  def verify(self, items: Sequence[tuple[str, str]]) -> list[Future[Verdict]]:
    """As a VerifyFn; each process verifies its share of the items."""
    if self._team.count == 1:
      return self._verify_fn(items)
    promised, share = {}, {}
    for item in items:
      number = next(self._numbers)
      promised[number] = Future()
      if number % self._team.count == self._team.index:
        share[number] = item
    if share:
      futures = self._verify_fn(list(share.values()))
      self._verifying.update(zip(share, futures, strict=True))
    self._promised |= promised
    return list(promised.values())

  def wait(
    self,
    futures: Collection[Future[Verdict]],
    timeout: float,
    return_when: str = concurrent.futures.ALL_COMPLETED,
  ) -> None:
    """Waits at most `timeout` seconds for verdicts, as concurrent.futures.wait. All processes must
    call it equally often: it is where they tell each other what they found."""
    if self._team.count == 1:
      concurrent.futures.wait(futures, timeout=timeout, return_when=return_when)
      return
    concurrent.futures.wait(self._verifying.values(), timeout=timeout, return_when=return_when)
    self._share()

  def _share(self) -> None:
    """Tells the others what this process found and learns what they did."""
    verdicts, verifying = {}, {}
    for number, future in self._verifying.items():
      if future.done():
        verdicts[number] = future.result().value
      else:
        verifying[number] = future
    self._verifying = verifying
    for data in self._team.gather(json.dumps([self._should_stop(), verdicts]).encode()):
      is_stopping, their_verdicts = json.loads(data)
      self._is_stopping |= is_stopping
      for number, value in their_verdicts.items():
        self._promised.pop(int(number)).set_result(Verdict(value))
