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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.profiler import TraceAnnotation
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.interfaces import (
  ALONE,
  ExpandFn,
  Progress,
  Segments,
  SilentProgress,
  SlotPlan,
  Team,
  VerifyFn,
)
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.expansion import Expansion, blank_children, cut_segments
from ds_jax.search.engine.host_tree import DeviceFields, HostTree, Job
from ds_jax.search.engine.keys import problem_hash, root_key_data
from ds_jax.search.engine.lockstep import Lockstep
from ds_jax.search.engine.round import make_advance
from ds_jax.search.engine.slots import Request, Slot, assign, make_plan
from ds_jax.search.policies import Allocation, Plan, Policy, policy_of
from ds_jax.search.selection import How
from ds_jax.search.settings import settings_from
from ds_jax.search.tree import Tree, new_tree
from ds_jax.types import FinishedTree

# How long a round waits for verdicts before trees that have theirs go on without the others.
VERIFY_GRACE_SECONDS = 0.05
# How long it waits at a time where there is nothing to go on with.
VERIFY_POLL_SECONDS = 0.2


class TreeShape(NamedTuple):
  """Sizes of a batch of trees."""

  num_trees: int
  capacity: int  # N, room for nodes of a tree
  max_collected: int  # ends that a tree may collect
  max_depth: int
  max_width: int  # children that come at once


@functools.cache
def _compile_trees(mesh: Mesh, policy: Policy, shape: TreeShape) -> Callable[[], Tree]:
  """Engines that differ in less share the program, as with `make_advance`."""

  def blank(_: jax.Array) -> Tree:
    tree = new_tree(
      shape.capacity,
      shape.max_collected,
      jnp.zeros(2, jnp.uint32),
      max_depth=shape.max_depth,
      max_width=shape.max_width,
    )
    return tree.replace(policy=policy.init(shape.capacity, 0))

  return jax.jit(
    lambda: jax.vmap(blank)(jnp.arange(shape.num_trees)),
    out_shardings=sharding.batch_sharding(mesh),
  )


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
  # Of the sampler for jobs that have none of their own, which makes the expansion read it from its
  # plan; None: no job has one, and `expand_fn` knows it.
  temperature: float | None = None
  # The processes that search `mesh` together: they must call `run` with the same jobs.
  team: Team = ALONE

  @property
  def num_trees(self) -> int:
    """Trees in flight, over all devices: one per slot."""
    return self.config.num_slots * sharding.num_slot_shards(self.mesh)

  @property
  def capacity(self) -> int:
    """N, room for nodes of a tree."""
    return 1 + self.config.max_expansions * self.config.width

  @property
  def policy(self) -> Policy:
    return policy_of(self.config)

  @property
  def max_collected(self) -> int:
    """Ends that a tree may collect."""
    return self.policy.max_collected(self.config)

  @property
  def num_results(self) -> int:
    """E, expansions of one tree that one advance takes in."""
    return self.policy.num_results(self.max_collected)

  @property
  def advance(self) -> Callable[..., Any]:
    return make_advance(self.mesh, self.policy)

  @property
  def make_trees(self) -> Callable[[], Tree]:
    """Returns a batch of blank trees on the mesh."""
    return _compile_trees(self.mesh, self.policy, self.tree_shape)

  @property
  def tree_shape(self) -> TreeShape:
    return TreeShape(
      num_trees=self.num_trees,
      capacity=self.capacity,
      max_collected=self.max_collected,
      max_depth=self.config.max_depth,
      max_width=self.config.width,
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
  plan: Plan | None = None,
  check_expansion: Callable[[Expansion, HostTree], None] = lambda expansion, tree: None,
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
    plan: where forks pay, for the policy 'fork'; None: nowhere. Where it plans trees apart, it is
      the plan of those whose job has none.
    check_expansion: called with every expansion and its tree before it is verified; what it raises
      ends the search.

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
    on_finish=on_finish,
    progress=progress or SilentProgress(),
    lockstep=Lockstep(engine.team, engine.verify_fn, should_stop),
    plan=engine.policy.no_plan(engine.config.max_depth) if plan is None else plan,
    check_expansion=check_expansion,
  )
  return loop.run(params)


class _Loop:
  """State of one `run`, split into the phases of a round."""

  def __init__(
    self,
    engine: Engine,
    jobs: Iterator[Job],
    base_key: np.ndarray,
    *,
    on_finish: Callable[[FinishedTree], None],
    progress: Progress,
    lockstep: Lockstep,
    plan: Plan,
    check_expansion: Callable[[Expansion, HostTree], None],
  ):
    self.engine, self.jobs, self.base_key = engine, jobs, base_key
    self.on_finish, self.progress = on_finish, progress
    self.lockstep, self.plan = lockstep, plan
    self.check_expansion = check_expansion
    self.num_shards = sharding.num_slot_shards(engine.mesh)
    self.settings = settings_from(engine.config)
    self.first_children = int(engine.policy.first_children(self.settings))
    count = engine.num_trees
    self.trees: list[HostTree | None] = [None] * count
    self.slots = [Slot() for _ in range(count)]
    self.waiting: list[Request] = []  # requests without a slot yet
    self.plans = [plan] * count  # by tree
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
      self.waiting = assign(self.waiting, self.trees, self.slots, num_shards=self.num_shards)
      if self.has_requests():
        slot_plan = make_plan(
          self.slots,
          num_shards=self.num_shards,
          replay_chunk=self.engine.config.replay_chunk,
          replay_lanes=self.engine.config.replay_lanes,
          temperature=self.engine.temperature,
        )
        self.announce_first()
        caches, segments = self.engine.expand_fn(params, caches, self.engine.put(slot_plan))
        self.grow(slot_plan, self.engine.read(segments))
      with TraceAnnotation('verify'):
        ready = self.await_verdicts()
      if ready:
        device_trees = self.advance(device_trees, ready)
        self.refill()
      self.counters.seconds = time.monotonic() - start
      self.report()
    return self.counters

  def has_requests(self) -> bool:
    """Whether a slot has something to do."""
    return any(slot.request is not None for slot in self.slots)

  def refill(self) -> None:
    """Starts a job in every free tree place."""
    free = [i for i, tree in enumerate(self.trees) if tree is None]
    jobs = list(itertools.islice(self.jobs, len(free)))
    self.has_jobs = len(jobs) == len(free)
    if not jobs:
      return
    _check_temperatures(jobs, self.engine.temperature)
    hashes = [problem_hash(job.problem.id) for job in jobs]
    keys = root_key_data(self.base_key, hashes, [job.sample for job in jobs])
    for i, job, key in zip(free, jobs, keys, strict=False):  # more places than jobs at the end
      self.trees[i] = HostTree(job, key, capacity=self.engine.capacity)
      self.is_new[i] = True
      self.plans[i] = self.plan if job.plan is None else job.plan
      self.ask(i, Tree.ROOT, first_child=0, num_children=self.first_children, key=key, how=How.ROOT)

  def ask(
    self,
    tree_index: int,
    node: int,
    *,
    first_child: int,
    num_children: int,
    key: np.ndarray,
    how: How,
  ) -> None:
    """Queues requests for children of a node, W at most in each."""
    self.trees[tree_index].selections.append((node, how.name.lower()))
    width = self.engine.config.width
    for done in range(0, num_children, width):
      self.waiting.append(
        Request(
          tree_index=tree_index,
          node=node,
          first_child=first_child + done,
          num_children=min(width, num_children - done),
          key=key,
          is_fork=how is How.FORK,
        )
      )

  def grow(self, plan: SlotPlan, segments: Segments) -> None:
    """Takes in the sampled children and sends their ends to the verifier."""
    self.counters.rounds += 1
    self.count_work(plan, segments)
    items, owners = [], []
    for b in np.flatnonzero(plan.num_children).tolist():
      slot = self.slots[b]
      request, slot.request = slot.request, None
      tree = self.trees[request.tree_index]
      expansion = cut_segments(
        segments, b, request, slot=slot, tree=tree, config=self.engine.config
      )
      self.check_expansion(expansion, tree)
      slot.expansion = expansion
      self.unverified.setdefault(request.tree_index, []).append(expansion)
      if self.is_own(tree):
        self.counters.expansions += 1
        self.counters.generated_tokens += expansion.num_tokens
      for child in expansion.ends():
        path = [tree.response_tokens(request.node), expansion.segments[child].tokens]
        text = self.engine.decode_text(np.concatenate(path))
        items.append((tree.job.problem.answer, text))
        owners.append((expansion, child))
    if not items:
      return
    for (expansion, child), future in zip(owners, self.lockstep.verify(items), strict=True):
      expansion.futures[child] = future

  def count_work(self, plan: SlotPlan, segments: Segments) -> None:
    """Notes what the round kept busy, and how much of what it read was of use."""
    counters, is_busy = self.counters, plan.num_children > 0
    for b in np.flatnonzero((plan.replay_length > 0) | (plan.copy_from >= 0)).tolist():
      if self.is_own(self.slots[b].tree):
        counters.encoded_tokens += int(plan.replay_length[b])
        counters.copied_tokens += int(plan.keep_length[b]) * int(plan.copy_from[b] >= 0)
    if self.has_jobs:
      counters.slots_in_demand += len(is_busy)
      counters.busy_in_demand += int(is_busy.sum())
    lengths = np.array([slot.length for slot in self.slots])
    steps = np.maximum(segments.length.max(-1) - 1, 0)  # the first token takes no step
    by_shard = zip(
      np.split(lengths, self.num_shards), np.split(steps, self.num_shards), strict=True
    )
    for shard_lengths, last_step in by_shard:
      # Slots stop reading when their children have ended.
      for start, end in itertools.pairwise([0, *np.unique(last_step).tolist()]):
        read = np.where(last_step > start, shard_lengths, 0)
        counters.positions_read += (end - start) * self.engine.count_read(read)
        counters.positions_valid += (end - start) * int(read.sum())

  def is_own(self, tree: HostTree) -> bool:
    """Whether the tree belongs to this process, which keeps and counts it."""
    return tree.job.process == self.engine.team.index

  def await_verdicts(self) -> dict[int, list[Expansion]]:
    """Expansions by tree whose verdicts are all in, E at most of each; waits for one at least if
    there is nothing else to do, and a little for the others."""
    pending = []
    for expansion in self.expansions():
      pending += [future for future in expansion.futures.values() if not future.done()]
    self.lockstep.wait(pending, VERIFY_GRACE_SECONDS)
    has_work = self.has_requests() or bool(self.waiting)
    while (
      self.unverified
      and not has_work
      and not self.lockstep.should_stop()
      and not any(expansion.is_verified() for expansion in self.expansions())
    ):
      still_pending = [future for future in pending if not future.done()]
      self.lockstep.wait(still_pending, VERIFY_POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
    ready = {}
    for i, under_way in self.unverified.items():
      verified = [expansion for expansion in under_way if expansion.is_verified()]
      if verified:
        ready[i] = verified[: self.engine.num_results]
    return ready

  def expansions(self) -> list[Expansion]:
    return list(itertools.chain.from_iterable(self.unverified.values()))

  def advance(self, device_trees: Tree, ready: dict[int, list[Expansion]]) -> Tree:
    """Backs up and allocates for the trees in `ready`; finished ones leave."""
    count, config = len(self.trees), self.engine.config
    shape = (count, self.engine.num_results)
    children = blank_children(shape, config.width)
    nodes, is_ready = np.zeros(shape, np.int32), np.zeros(count, bool)
    keys = np.zeros((count, 2), np.uint32)
    for i, expansions in ready.items():
      tree = self.trees[i]
      is_ready[i], keys[i] = True, tree.key
      for e, expansion in enumerate(expansions):
        expansion.settle(tree, config)
        if self.is_own(tree):
          self.counters.verdicts.update(v.value for v in expansion.verdicts if v)
        nodes[i, e] = expansion.request.node
        expansion.write(children, (i, e))
      self.forget(i, expansions)
    is_new = self.is_new & is_ready
    device_trees, *answers = self.engine.advance(
      device_trees,
      *self.engine.put((is_new, keys, nodes, children)),
      self.settings,
      self.plan_of_trees(),
    )
    self.is_new &= ~is_ready
    allocation, is_done, next_keys = self.engine.read(tuple(answers))
    self.dispatch(list(ready), allocation, next_keys)
    finished = [i for i in ready if is_done[i]]
    if finished:
      self.hand_over(finished, self.engine.read(DeviceFields.of(device_trees)))
    return device_trees

  def plan_of_trees(self) -> Plan:
    """The plan as `advance` takes it: one for all trees, or `[B]` of them."""
    if not self.engine.policy.plans_apart:
      return self.plan
    return self.engine.put(jax.tree.map(lambda *plans: np.stack(plans), *self.plans))

  def forget(self, tree_index: int, expansions: Sequence[Expansion]) -> None:
    """Drops expansions that a tree has taken in from the unverified ones."""
    left = [e for e in self.unverified[tree_index] if e not in expansions]
    if left:
      self.unverified[tree_index] = left
    else:
      del self.unverified[tree_index]

  def dispatch(self, ready: Sequence[int], allocation: Allocation, keys: np.ndarray) -> None:
    """Queues what the policy asked for."""
    for i in ready:
      for a in np.flatnonzero(allocation.num_children[i]).tolist():
        self.ask(
          i,
          int(allocation.node[i, a]),
          first_child=int(allocation.first_child[i, a]),
          num_children=int(allocation.num_children[i, a]),
          key=keys[i, a],
          how=How(int(allocation.how[i, a])),
        )

  def hand_over(self, finished: Sequence[int], fields: DeviceFields) -> None:
    """Lets finished trees leave, with what the device knows of them."""
    for i in finished:
      tree, self.trees[i] = self.trees[i], None
      for slot in self.slots:
        if slot.tree is tree:
          slot.release()
      if not self.is_own(tree):
        continue
      done = tree.finish(fields.row(i), is_depth_first=not self.engine.policy.is_serial)
      self.counters.trees += 1
      self.counters.solved += done.is_solved
      self.counters.recomputed_tokens += tree.recomputed_tokens
      num_collected = len(done.collected)
      self.counters.out_of_budget += tree.is_out_of_budget(num_collected, self.engine.config)
      self.on_finish(done)

  def announce_first(self) -> None:
    """Says that the first expansion is under way: the device is silent until it has ended."""
    if not self.counters.rounds:
      self.progress.tell(now='first expansion')

  def report(self) -> None:
    counters = self.counters
    speed = counters.generated_tokens / max(counters.seconds, 1e-6)
    self.progress.update(
      counters.trees,
      expansions=counters.expansions,
      solved=counters.solved,
      tokens=counters.generated_tokens,
      **{'tokens/s': round(speed)},
    )


def _check_temperatures(jobs: Sequence[Job], temperature: float | None) -> None:
  """Raises ValueError for a job with a temperature that the engine would not read."""
  has_own = any(job.temperature is not None for job in jobs)
  if has_own and temperature is None:
    raise ValueError('Expected jobs without temperatures, got one; give the engine a temperature.')
