"""The search loop: many trees at once, slots refilled as soon as a tree is done.

A round is one expansion on the device, verification of the new ends on the host, and one advance
(backup and selection) on the device. Trees whose verdicts are slow sit out a round or more; the
others go on. Policies in waves have many expansions of a tree under way, each in a slot of its
own. A tree's result does not depend on its neighbours, its slots, or on timing. Where a model is
split over several processes, all of them run the same rounds (lockstep.py).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.interfaces import ALONE, ExpandFn, Progress, Segments, SilentProgress, Team, VerifyFn
from ds_jax.search.engine import slots as lanes
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.expansion import Expansion, blank_children, cut_segments
from ds_jax.search.engine.host_tree import HostTree, Job
from ds_jax.search.engine.keys import problem_hash, root_key_data
from ds_jax.search.engine.lockstep import Lockstep
from ds_jax.search.engine.round import make_advance
from ds_jax.search.policies.serial import POLICIES, Allocation, Policy
from ds_jax.search.policies.waves import ForkPlan, no_forks, num_asked_at_once
from ds_jax.search.settings import How, options_from, rules_from
from ds_jax.search.tree import Tree, new_tree
from ds_jax.types import FinishedTree

# How long a round waits for verdicts before trees that have theirs go on without the others.
VERIFY_GRACE_SECONDS = 0.05


class Interrupted(Exception):
  """The search was asked to stop; finished trees have been handed over."""


@dataclasses.dataclass(frozen=True)
class Engine:
  """Everything a search needs but the parameters, the problems and the caches."""

  config: SearchConfig
  mesh: Mesh
  expand_fn: ExpandFn
  make_slots: Callable[[], Any]  # the decoder's own state, empty
  verify_fn: VerifyFn
  decode_text: Callable[[np.ndarray], str]  # response tokens -> response text
  # Path lengths `[B]` of one device's slots -> cache positions that a decode step reads for them.
  count_read: Callable[[np.ndarray], int] = lambda lengths: int(lengths.sum())
  # The processes that search `mesh` together: they must call `run` with the same jobs.
  team: Team = ALONE

  @property
  def num_trees(self) -> int:
    """Trees in flight, over all devices: one per slot."""
    return self.config.num_slots * sharding.num_slot_shards(self.mesh)

  @property
  def capacity(self) -> int:
    """N, node slots per tree."""
    return 1 + self.config.max_expansions * self.config.width

  @property
  def policy(self) -> Policy:
    return POLICIES[self.config.policy]

  @property
  def max_collected(self) -> int:
    """Ends that a tree may collect."""
    return (
      self.config.max_expansions if self.config.policy == 'fork' else self.config.num_trajectories
    )

  @property
  def num_results(self) -> int:
    """E, expansions of one tree that one advance takes in."""
    return 1 if self.policy.is_serial else num_asked_at_once(self.max_collected)

  @property
  def advance(self) -> Callable[..., Any]:
    return make_advance(self.mesh, rules_from(self.config))

  @functools.cached_property
  def make_trees(self) -> Callable[[], Tree]:
    """Returns a batch of blank trees on the mesh."""
    one = lambda _: new_tree(
      self.capacity,
      self.max_collected,
      jnp.zeros(2, jnp.uint32),
      self.config.max_depth,
      self.config.width,
    )
    return jax.jit(
      lambda: jax.vmap(one)(jnp.arange(self.num_trees)),
      out_shardings=sharding.batch_sharding(self.mesh),
    )

  def put(self, tree: Any) -> Any:
    """Host arrays `[B, …]` as the programs take them."""
    return tree if self.team.count == 1 else sharding.put_rows(tree, self.mesh)

  def read(self, tree: Any) -> Any:
    """Device arrays `[B, …]` as host arrays, all rows on every process."""
    return jax.device_get(tree if self.team.count == 1 else sharding.gather_rows(tree, self.mesh))


def run(
  engine: Engine,
  params: Any,
  jobs: Iterable[Job],
  base_key: np.ndarray,
  *,
  on_finish: Callable[[FinishedTree], None],
  progress: Progress | None = None,
  should_stop: Callable[[], bool] = lambda: False,
  plan: ForkPlan | None = None,
) -> Counters:
  """Grows a tree for every job.

  Args:
    engine: the compiled parts.
    params: the decoder's parameters in the form for search.
    jobs: read as slots become free, so that an iterator may be long.
    base_key: `[2]` uint32, see keys.base_key_data.
    on_finish: called with each finished tree of this process's jobs, in order of completion (which
      may depend on timing; its content does not). When it returns, the tree is considered kept.
    progress: gets updates; the caller starts and finishes the phase.
    should_stop: polled every round.
    plan: where forks pay, for the policy 'fork'; None: nowhere.

  Returns:
    Counters of this call, of this process's jobs.

  Raises:
    Interrupted: if `should_stop` said so. Trees in flight are dropped; running their jobs again
      gives the same trees.
  """
  loop = _Loop(
    engine,
    iter(jobs),
    base_key,
    on_finish,
    progress or SilentProgress(),
    Lockstep(engine.team, engine.verify_fn, should_stop),
    no_forks(engine.config.max_depth) if plan is None else plan,
  )
  return loop.run(params)


class _Loop:
  """State of one `run`, split into the phases of a round."""

  def __init__(
    self,
    engine: Engine,
    jobs: Iterator[Job],
    base_key: np.ndarray,
    on_finish: Callable[[FinishedTree], None],
    progress: Progress,
    lockstep: Lockstep,
    plan: ForkPlan,
  ):
    self.engine, self.jobs, self.base_key = engine, jobs, base_key
    self.on_finish, self.progress = on_finish, progress
    self.lockstep, self.plan = lockstep, plan
    self.num_shards = sharding.num_slot_shards(engine.mesh)
    self.options = options_from(engine.config)
    self.first_children = int(engine.policy.first_children(self.options))
    count = engine.num_trees
    self.trees: list[HostTree | None] = [None] * count
    self.slots = [lanes.Slot() for _ in range(count)]
    self.waiting: list[lanes.Request] = []  # requests without a slot yet
    self.is_new = np.zeros(count, bool)
    self.has_jobs = True  # as far as is known
    self.unverified: dict[int, list[Expansion]] = {}  # by tree: expanded, verdicts under way
    self.counters = Counters()

  def run(self, params: Any) -> Counters:
    start = time.monotonic()
    caches, device_trees = self.engine.make_slots(), self.engine.make_trees()
    self.refill()
    while any(tree is not None for tree in self.trees):
      if self.lockstep.should_stop():
        raise Interrupted
      self.waiting = lanes.assign(self.waiting, self.trees, self.slots, self.num_shards)
      if any(slot.request is not None for slot in self.slots):
        config = self.engine.config
        plan = lanes.make_plan(
          self.slots, self.trees, self.num_shards, config.replay_chunk, config.replay_lanes
        )
        caches, segments = self.engine.expand_fn(params, caches, self.engine.put(plan))
        self.grow(plan, self.engine.read(segments))
      ready = self.await_verdicts()
      if ready:
        device_trees = self.advance(device_trees, ready)
        self.refill()
      self.counters.seconds = time.monotonic() - start
      self.report()
    return self.counters

  def refill(self) -> None:
    """Starts a job in every free tree place."""
    free = [i for i, tree in enumerate(self.trees) if tree is None]
    started = [(i, job) for i, job in zip(free, self.jobs, strict=False)]
    self.has_jobs = len(started) == len(free)
    if not started:
      return
    keys = root_key_data(
      self.base_key,
      [problem_hash(job.problem.id) for _, job in started],
      [job.sample for _, job in started],
    )
    for (i, job), key in zip(started, keys, strict=True):
      self.trees[i] = HostTree(job, key)
      self.is_new[i] = True
      self.ask(i, 0, 0, self.first_children, key, False, How.ROOT)

  def ask(
    self,
    tree_index: int,
    node: int,
    first: int,
    count: int,
    key: np.ndarray,
    is_fork: bool,
    how: How,
  ) -> None:
    """Queues requests for `count` children of a node, W at most in each."""
    self.trees[tree_index].selections.append((node, how.name.lower()))
    width = self.engine.config.width
    for done in range(0, count, width):
      self.waiting.append(
        lanes.Request(tree_index, node, first + done, min(width, count - done), key, is_fork)
      )

  def grow(self, plan: Any, segments: Segments) -> None:
    """Takes in the sampled children and sends their ends to the verifier."""
    self.counters.rounds += 1
    self.count_work(plan, segments)
    items, owners = [], []
    for b in np.flatnonzero(plan.num_children):
      slot = self.slots[b]
      request, slot.request = slot.request, None
      tree = self.trees[request.tree_index]
      expansion = cut_segments(tree, slot, int(b), request, segments, self.engine.config)
      slot.expansion = expansion
      self.unverified.setdefault(request.tree_index, []).append(expansion)
      if self.is_own(tree):
        self.counters.expansions += 1
        self.counters.generated_tokens += expansion.num_tokens
      for child in expansion.ends():
        tokens = [tree.response_tokens(request.node), expansion.tokens[child]]
        items.append((tree.job.problem.answer, self.engine.decode_text(np.concatenate(tokens))))
        owners.append((expansion, child))
    for (expansion, child), future in zip(
      owners, self.lockstep.verify(items) if items else [], strict=True
    ):
      expansion.futures[child] = future

  def count_work(self, plan: Any, segments: Segments) -> None:
    """Notes what the round kept busy, and how much of what it read was of use."""
    c, is_busy = self.counters, plan.num_children > 0
    c.busy_slots += int(is_busy.sum())
    if self.has_jobs:
      c.slots_in_demand += len(is_busy)
      c.busy_in_demand += int(is_busy.sum())
    lengths = np.array([slot.length for slot in self.slots])
    steps = np.maximum(segments.length.max(-1) - 1, 0)  # the first token takes no step
    for own, last in zip(
      np.split(lengths, self.num_shards), np.split(steps, self.num_shards), strict=True
    ):
      for start, end in itertools.pairwise([0, *np.unique(last)]):
        read = np.where(last > start, own, 0)  # slots stop reading when their children have ended
        c.positions_read += int(end - start) * self.engine.count_read(read)
        c.positions_valid += int(end - start) * int(read.sum())

  def is_own(self, tree: HostTree) -> bool:
    """Whether the tree belongs to this process, which keeps and counts it."""
    return tree.job.process == self.engine.team.index

  def await_verdicts(self) -> dict[int, list[Expansion]]:
    """Expansions by tree whose verdicts are all in, E at most of each; waits for one at least if
    there is nothing else to do, and a little for the others."""
    pending = [f for e in self.expansions() for f in e.futures.values() if not f.done()]
    self.lockstep.wait(pending, VERIFY_GRACE_SECONDS)
    has_work = any(slot.request is not None for slot in self.slots) or self.waiting
    while (
      self.unverified
      and not has_work
      and not self.lockstep.should_stop()
      and not any(e.is_verified() for e in self.expansions())
    ):
      self.lockstep.wait(
        [f for f in pending if not f.done()], 0.2, concurrent.futures.FIRST_COMPLETED
      )
    ready = {
      i: [e for e in under_way if e.is_verified()][: self.engine.num_results]
      for i, under_way in self.unverified.items()
    }
    return {i: expansions for i, expansions in ready.items() if expansions}

  def expansions(self) -> list[Expansion]:
    return [e for under_way in self.unverified.values() for e in under_way]

  def advance(self, device_trees: Tree, ready: dict[int, list[Expansion]]) -> Tree:
    """Backs up and allocates for the trees in `ready`; finished ones leave."""
    count, config = len(self.trees), self.engine.config
    shape = (count, self.engine.num_results)
    children = blank_children(shape, config.width)
    nodes, is_ready = np.zeros(shape, np.int32), np.zeros(count, bool)
    keys = np.zeros((count, 2), np.uint32)
    for i, expansions in ready.items():
      self.unverified[i] = [e for e in self.unverified[i] if e not in expansions]
      is_ready[i], keys[i] = True, self.trees[i].key
      for e, expansion in enumerate(expansions):
        expansion.settle(self.trees[i], config)
        if self.is_own(self.trees[i]):
          self.counters.verdicts.update(v.value for v in expansion.verdicts if v)
        nodes[i, e] = expansion.request.node
        expansion.write(children, (i, e))
    self.unverified = {i: under_way for i, under_way in self.unverified.items() if under_way}
    is_new = self.is_new & is_ready
    device_trees, allocation, how, next_keys = self.engine.advance(
      device_trees, *self.engine.put((is_new, keys, nodes, children)), self.options, self.plan
    )
    self.is_new &= ~is_ready
    self.dispatch(list(ready), *self.engine.read((allocation, how, next_keys)), device_trees)
    return device_trees

  def dispatch(
    self,
    ready: list[int],
    allocation: Allocation,
    how: np.ndarray,
    keys: np.ndarray,
    device_trees: Tree,
  ) -> None:
    """Queues what the policy asked for; hands over trees that are done."""
    for i in ready:
      for a in np.flatnonzero(allocation.num_children[i]):
        is_fork = bool(allocation.is_fork[i, a])
        self.ask(
          i,
          int(allocation.node[i, a]),
          int(allocation.first_child[i, a]),
          int(allocation.num_children[i, a]),
          keys[i, a],
          is_fork,
          How.FORK if is_fork else How(int(how[i])),
        )
    finished, config = [i for i in ready if How(int(how[i])) is How.DONE], self.engine.config
    if not finished:
      return
    names = (
      'visit_count',
      'value_sum',
      'num_ends',
      'num_correct',
      'collected',
      'num_collected',
      'preorder',
    )
    fields = self.engine.read({name: getattr(device_trees, name) for name in names})
    for i in finished:
      tree, self.trees[i] = self.trees[i], None
      for slot in self.slots:
        if slot.tree is tree:
          slot.release()
      if not self.is_own(tree):
        continue
      done = tree.finish(
        {name: np.array(value[i]) for name, value in fields.items()},
        is_depth_first=not self.engine.policy.is_serial,
      )
      self.counters.trees += 1
      self.counters.solved += done.is_solved
      self.counters.recomputed_tokens += tree.recomputed_tokens
      self.counters.out_of_budget += tree.is_out_of_budget(len(done.collected), config)
      self.on_finish(done)

  def report(self) -> None:
    c = self.counters
    self.progress.update(
      c.trees,
      expansions=c.expansions,
      solved=c.solved,
      **{'tokens/s': round(c.generated_tokens / max(c.seconds, 1e-6))},
    )
