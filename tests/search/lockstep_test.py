"""Processes that search one mesh together; here threads, with an engine each and a real barrier."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import threading
import time

import pytest

from ds_jax.interfaces import ALONE
from ds_jax.search.engine.engine import Interrupted
from ds_jax.search.engine.lockstep import Lockstep, deal
from ds_jax.testing import tiny as fakes
from ds_jax.testing.tiny import assert_same_tree
from ds_jax.types import Verdict

COUNT = 2


@dataclasses.dataclass(frozen=True)
class Threads:
  """A Team of threads."""

  index: int
  barrier: threading.Barrier
  rows: list[bytes]
  count: int = COUNT

  def gather(self, data: bytes) -> list[bytes]:
    self.rows[self.index] = data
    self.barrier.wait(60)
    rows = list(self.rows)
    self.barrier.wait(60)
    return rows


def together(work):
  """Results of `work(team)` on every thread of a team."""
  barrier, rows = threading.Barrier(COUNT), [b''] * COUNT

  def one(index):
    try:
      return work(Threads(index, barrier, rows))
    except BaseException:
      barrier.abort()  # or the others would wait
      raise

  with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
    return [future.result() for future in [pool.submit(one, i) for i in range(COUNT)]]


def slow_verify(items, pool, seed):
  """The scripted verdicts, each after a while of its own."""
  draw = random.Random(seed)

  def later(future, seconds):
    time.sleep(seconds)
    return future.result()

  return [
    pool.submit(later, future, draw.choice([0.0, 0.0, 0.08]))
    for future in fakes.scripted_verify(items)
  ]


def test_jobs_are_dealt_in_turn_or_to_all_with_their_owner():
  jobs, team = fakes.make_jobs(5), Threads(1, threading.Barrier(COUNT), [])
  assert deal(jobs, team, ALONE) == jobs[1::2]
  shared = deal(jobs, team, team)
  assert [job.process for job in shared] == [0, 1, 0, 1, 0]
  assert [job.problem for job in shared] == [job.problem for job in jobs]


def test_each_verdict_is_found_by_one_process_and_known_to_all_at_once():
  verified = [[] for _ in range(COUNT)]
  items = [('7', str(i)) for i in range(9)]

  def work(team):
    def verify(own):
      verified[team.index] += own
      return slow_verify(own, pool, team.index)

    lockstep, known = Lockstep(team, verify, lambda: False), []
    futures = lockstep.verify(items[:4]) + lockstep.verify(items[4:])
    while not all(future.done() for future in futures):
      lockstep.wait([f for f in futures if not f.done()], 0.05, concurrent.futures.FIRST_COMPLETED)
      known.append([future.done() for future in futures])
    return known, [future.result() for future in futures]

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    (known, verdicts), (other_known, other_verdicts) = together(work)
  assert sorted(verified[0] + verified[1]) == items
  assert all(verified)
  assert known == other_known
  assert verdicts == other_verdicts == [f.result() for f in fakes.scripted_verify(items)]


def test_a_request_to_stop_one_process_stops_all_in_the_same_round():
  def work(team):
    calls = []

    def should_stop():
      calls.append(team.index)
      return team.index == 1 and len(calls) == 3

    lockstep, rounds = Lockstep(team, fakes.scripted_verify, should_stop), 0
    while not lockstep.should_stop():
      lockstep.wait([], 0.0)
      rounds += 1
    return rounds

  assert together(work) == [3, 3]


@pytest.mark.parametrize('policy', ['deepsearch', pytest.param('direct', marks=pytest.mark.long)])
def test_trees_grown_together_are_those_grown_alone(policy):
  """Each process keeps its own, and all run the same programs equally often."""
  config = dataclasses.replace(fakes.SEARCH, policy=policy)
  jobs = fakes.make_jobs(9)
  expected, counters = fakes.grow(fakes.make_engine(config), jobs)

  def work(team):
    verify = lambda items: slow_verify(items, pool, team.index)
    engine = dataclasses.replace(fakes.make_engine(config, verify_fn=verify), team=team)
    calls = []

    def expand(*args):
      calls.append('expand')
      return expand_fn(*args)

    expand_fn, engine = engine.expand_fn, dataclasses.replace(engine, expand_fn=expand)
    return *fakes.grow(engine, deal(jobs, team, team)), len(calls)

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = together(work)
  assert found[0][2] == found[1][2]
  for index, (trees, _, _) in enumerate(found):
    assert set(trees) == {job.problem.id for job in jobs[index::COUNT]}
    for name, tree in trees.items():
      assert_same_tree(tree, expected[name])
  for name in ('trees', 'solved', 'expansions', 'generated_tokens', 'verdicts'):
    assert sum((getattr(c, name) for _, c, _ in found), type(getattr(counters, name))()) == (
      getattr(counters, name)
    ), name


def test_a_stop_of_one_interrupts_both():
  def work(team):
    engine = dataclasses.replace(fakes.make_engine(), team=team)
    asked = []
    with pytest.raises(Interrupted):
      fakes.grow(
        engine,
        deal(fakes.make_jobs(9), team, team),
        should_stop=lambda: asked.append(1) or team.index == 0 and len(asked) > 2,
      )
    return len(asked)

  assert together(work) == [3, 3]


def test_a_verdict_is_a_verdict_after_the_way_to_the_others():
  def work(team):
    lockstep = Lockstep(team, lambda items: [done(Verdict(a)) for a, _ in items], lambda: False)
    futures = lockstep.verify([(verdict.value, '') for verdict in Verdict])
    lockstep.wait(futures, 1.0)
    return [future.result() for future in futures]

  assert together(work) == [list(Verdict)] * COUNT


def done(verdict):
  future = concurrent.futures.Future()
  future.set_result(verdict)
  return future
