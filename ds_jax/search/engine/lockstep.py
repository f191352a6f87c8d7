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
  if searching_together.count > 1:
    return [dataclasses.replace(job, process=i % team.count) for i, job in enumerate(jobs)]
  return list(jobs[team.index :: team.count])


class Lockstep:
  """Verdicts and requests to stop of one run of the engine, alike on all processes of a team.

  Of a team of one it adds nothing: verdicts count as soon as they are in.
  """

  def __init__(self, team: Team, verify_fn: VerifyFn, should_stop: Callable[[], bool]):
    self._team, self._verify_fn, self._should_stop = team, verify_fn, should_stop
    self._numbers = itertools.count()  # of the ends sent to `verify`, in the same order everywhere
    self._own: dict[int, Future[Verdict]] = {}  # what this process finds, by those numbers
    self._promised: dict[int, Future[Verdict]] = {}  # what the search waits for
    self._is_stopping = False

  def should_stop(self) -> bool:
    """Whether a process was asked to stop, as far as all know of it."""
    return self._should_stop() if self._team.count == 1 else self._is_stopping

  def verify(self, items: Sequence[tuple[str, str]]) -> list[Future[Verdict]]:
    """As a VerifyFn; each process verifies its share of the items."""
    if self._team.count == 1:
      return self._verify_fn(items)
    numbered = {next(self._numbers): item for item in items}
    own = {n: item for n, item in numbered.items() if n % self._team.count == self._team.index}
    if own:
      self._own |= zip(own, self._verify_fn(list(own.values())), strict=True)
    promised: dict[int, Future[Verdict]] = {n: Future() for n in numbered}
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
    if self._team.count > 1:
      futures = self._own.values()
    concurrent.futures.wait(futures, timeout=timeout, return_when=return_when)
    if self._team.count > 1:
      self._share()

  def _share(self) -> None:
    found = {n: future for n, future in self._own.items() if future.done()}
    self._own = {n: future for n, future in self._own.items() if n not in found}
    told = [self._should_stop(), {n: future.result().value for n, future in found.items()}]
    for data in self._team.gather(json.dumps(told).encode()):
      is_stopping, verdicts = json.loads(data)
      self._is_stopping |= is_stopping
      for number, value in verdicts.items():
        self._promised.pop(int(number)).set_result(Verdict(value))
