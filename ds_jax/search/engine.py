"""The search loop: many trees at once, slots refilled as soon as a tree is done.

A round is one expansion on the device, verification of the new ends on the host, and one advance
(backup and selection) on the device. Trees whose verdicts are slow sit out a round or more; the
others go on. A tree's result does not depend on its neighbours, its slot, or on timing.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.search import lanes
from ds_jax.search.allocation import POLICIES, Allocation
from ds_jax.search.host_tree import HostTree, Job
from ds_jax.search.keys import problem_hash, root_key_data
from ds_jax.search.options import How, Options, Rules, options_from, rules_from, width_at
from ds_jax.search.tree import Children, Tree, add_children, new_tree
from ds_jax.types import (
  ExpandFn,
  FinishedTree,
  Progress,
  Segments,
  SilentProgress,
  Verdict,
  VerifyFn,
)

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

  @property
  def num_trees(self) -> int:
    """Trees in flight, over all devices: one per slot."""
    return self.config.num_slots * sharding.num_slot_shards(self.mesh)

  @property
  def capacity(self) -> int:
    """N, node slots per tree."""
    return 1 + self.config.max_expansions * self.config.width

  @functools.cached_property
  def advance(self) -> Callable[..., Any]:
    return make_advance(self.mesh, rules_from(self.config))

  @functools.cached_property
  def make_trees(self) -> Callable[[], Tree]:
    """Returns a batch of blank trees on the mesh."""
    one = lambda _: new_tree(self.capacity, self.config.num_trajectories, jnp.zeros(2, jnp.uint32))
    return jax.jit(lambda: jax.vmap(one)(jnp.arange(self.num_trees)),
                   out_shardings=sharding.batch_sharding(self.mesh))


@dataclasses.dataclass
class Counters:
  """Of one `run`; what depends on timing is named so by `metrics`."""
  trees: int = 0
  solved: int = 0
  expansions: int = 0
  generated_tokens: int = 0
  recomputed_tokens: int = 0
  rounds: int = 0
  busy_slots: int = 0  # summed over rounds
  seconds: float = 0.0
  verdicts: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def make_advance(mesh: Mesh, rules: Rules) -> Callable[..., Any]:
  """Returns the jitted `advance(trees, is_new, keys, nodes, children, is_ready, options)`.

  For every tree: start anew where `is_new`, add the verified children, back up and select. Runs on
  each device's own trees; trees are donated.

  Returns (trees, Allocation `[B, A]`, how `[B]`, key data of the allocated nodes `[B, A, 2]`).
  """
  policy = POLICIES[rules.policy]

  def one(tree: Tree, is_new, key, node, children: Children, is_ready, options: Options):
    fresh = new_tree(tree.capacity, tree.collected.shape[0], key)
    started = jax.tree.map(lambda a, b: jnp.where(is_new, a, b), fresh, tree)
    grown, allocation = policy(add_children(started, node, children), rules, options)
    tree = jax.tree.map(lambda a, b: jnp.where(is_ready, a, b), grown, started)
    return tree, allocation, tree.how, tree.key[allocation.node]

  batch = P(sharding.BATCH_AXES)
  mapped = jax.shard_map(
      lambda *args: jax.vmap(one, in_axes=(0,) * 6 + (None,))(*args), mesh=mesh,
      in_specs=(batch,) * 6 + (P(),), out_specs=batch, check_vma=False)
  return jax.jit(mapped, donate_argnums=0, out_shardings=NamedSharding(mesh, batch))


def run(engine: Engine, params: Any, jobs: Iterable[Job], base_key: np.ndarray, *,
        on_finish: Callable[[FinishedTree], None], progress: Progress | None = None,
        should_stop: Callable[[], bool] = lambda: False) -> Counters:
  """Grows a tree for every job.

  Args:
    engine: the compiled parts.
    params: the decoder's parameters in the form for search.
    jobs: read as slots become free, so that an iterator may be long.
    base_key: `[2]` uint32, see keys.base_key_data.
    on_finish: called with each finished tree, in order of completion (which may depend on timing;
      its content does not). When it returns, the tree is considered kept.
    progress: gets updates; the caller starts and finishes the phase.
    should_stop: polled every round.

  Returns:
    Counters of this call.

  Raises:
    Interrupted: if `should_stop` said so. Trees in flight are dropped; running their jobs again
      gives the same trees.
  """
  loop = _Loop(engine, iter(jobs), base_key, on_finish, progress or SilentProgress())
  return loop.run(params, should_stop)


class _Loop:
  """State of one `run`, split into the phases of a round."""

  def __init__(self, engine: Engine, jobs: Iterator[Job], base_key: np.ndarray,
               on_finish: Callable[[FinishedTree], None], progress: Progress):
    self.engine, self.jobs, self.base_key = engine, jobs, base_key
    self.on_finish, self.progress = on_finish, progress
    self.num_shards = sharding.num_slot_shards(engine.mesh)
    self.options = options_from(engine.config)
    self.root_width = int(width_at(self.options, np.int32(0)))
    count = engine.num_trees
    self.trees: list[HostTree | None] = [None] * count
    self.slots = [lanes.Slot() for _ in range(count)]
    self.waiting: list[lanes.Request] = []  # requests without a slot yet
    self.is_new = np.zeros(count, bool)
    self.unverified: dict[int, _Expansion] = {}  # by tree: expanded, verdicts under way
    self.counters = Counters()

  def run(self, params: Any, should_stop: Callable[[], bool]) -> Counters:
    start = time.monotonic()
    caches, device_trees = self.engine.make_slots(), self.engine.make_trees()
    self.refill()
    while any(tree is not None for tree in self.trees):
      if should_stop():
        raise Interrupted
      self.waiting = lanes.assign(self.waiting, self.trees, self.slots, self.num_shards)
      if any(slot.request is not None for slot in self.slots):
        config = self.engine.config
        plan = lanes.make_plan(self.slots, self.trees, self.num_shards, config.replay_chunk,
                               config.replay_lanes)
        caches, segments = self.engine.expand_fn(params, caches, plan)
        self.grow(plan, jax.device_get(segments))
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
    if not started:
      return
    keys = root_key_data(self.base_key, [problem_hash(job.problem.id) for _, job in started],
                         [job.sample for _, job in started])
    for (i, job), key in zip(started, keys, strict=True):
      self.trees[i] = HostTree(job, key)
      self.trees[i].selections.append((0, How.ROOT.name.lower()))
      self.is_new[i] = True
      self.waiting.append(lanes.Request(i, 0, self.root_width, key))

  def grow(self, plan: Any, segments: Segments) -> None:
    """Adds the sampled children to their host trees and sends their ends to the verifier."""
    self.counters.rounds += 1
    items, owners = [], []
    for b in np.flatnonzero(plan.num_children):
      slot = self.slots[b]
      request, slot.request = slot.request, None
      expansion = _add_segments(self.trees[request.tree_index], slot, int(b), request, segments,
                                self.engine.config)
      self.unverified[request.tree_index] = expansion
      self.counters.busy_slots += 1
      self.counters.expansions += 1
      self.counters.generated_tokens += int(segments.length[b].sum())
      for child in expansion.ends():
        tree = self.trees[request.tree_index]
        text = self.engine.decode_text(tree.response_tokens(expansion.first + child))
        items.append((tree.job.problem.answer, text))
        owners.append((expansion, child))
    for (expansion, child), future in zip(owners, self.engine.verify_fn(items) if items else [],
                                          strict=True):
      expansion.futures[child] = future

  def await_verdicts(self) -> list[int]:
    """Trees whose verdicts are all in; waits for one at least, and a little for the others."""
    futures = [f for e in self.unverified.values() for f in e.futures.values()]
    concurrent.futures.wait(futures, timeout=VERIFY_GRACE_SECONDS)
    ready = lambda: [i for i, e in self.unverified.items() if e.is_verified()]
    has_work = any(slot.request is not None for slot in self.slots) or self.waiting
    while self.unverified and not ready() and not has_work:
      concurrent.futures.wait([f for f in futures if not f.done()], timeout=0.2,
                              return_when=concurrent.futures.FIRST_COMPLETED)
    return ready()

  def advance(self, device_trees: Tree, ready: list[int]) -> Tree:
    """Backs up and selects for the trees in `ready`; finished ones leave."""
    count, width = len(self.trees), self.engine.config.width
    children = _blank_children(count, width)
    nodes, is_ready = np.zeros(count, np.int32), np.zeros(count, bool)
    keys = np.zeros((count, 2), np.uint32)
    for i in ready:
      tree, expansion = self.trees[i], self.unverified.pop(i)
      for verdict in expansion.settle(tree, self.engine.config):
        self.counters.verdicts[verdict.value] += 1
      nodes[i], is_ready[i], keys[i] = expansion.node, True, tree.key
      for name, values in expansion.fields(tree, width).items():
        getattr(children, name)[i] = values
    is_new = self.is_new & is_ready
    device_trees, allocation, how, next_keys = self.engine.advance(
        device_trees, is_new, keys, nodes, children, is_ready, self.options)
    self.is_new &= ~is_ready
    allocation, how, next_keys = jax.device_get((allocation, how, next_keys))
    self.dispatch(ready, allocation, how, next_keys, device_trees)
    return device_trees

  def dispatch(self, ready: list[int], allocation: Allocation, how: np.ndarray,
               keys: np.ndarray, device_trees: Tree) -> None:
    """Queues what the policy asked for; hands over trees that asked for nothing."""
    finished = [i for i in ready if not allocation.num_children[i].any()]
    for i in ready:
      for a in np.flatnonzero(allocation.num_children[i]):
        node, count = int(allocation.node[i, a]), int(allocation.num_children[i, a])
        self.trees[i].selections.append((node, How(int(how[i])).name.lower()))
        self.waiting.append(lanes.Request(i, node, count, keys[i, a]))
    if not finished:
      return
    names = ('visit_count', 'value_sum', 'num_ends', 'num_correct', 'collected', 'num_collected')
    fields = jax.device_get({name: getattr(device_trees, name) for name in names})
    for i in finished:
      tree, self.trees[i] = self.trees[i], None
      for slot in self.slots:
        if slot.tree is tree:
          slot.tree, slot.children = None, {}
      done = tree.finish({name: np.array(value[i]) for name, value in fields.items()})
      self.counters.trees += 1
      self.counters.solved += done.is_solved
      self.counters.recomputed_tokens += tree.recomputed_tokens
      self.on_finish(done)

  def report(self) -> None:
    c = self.counters
    self.progress.update(
        c.trees, expansions=c.expansions, solved=c.solved,
        **{'tokens/s': round(c.generated_tokens / max(c.seconds, 1e-6))})


@dataclasses.dataclass
class _Expansion:
  """New siblings of one node, before their verdicts are in."""
  node: int
  first: int  # index of the first new child in its tree
  lengths: np.ndarray  # [n] int32
  is_ended: np.ndarray  # [n] bool
  is_terminal: np.ndarray  # [n] bool
  futures: dict[int, concurrent.futures.Future] = dataclasses.field(default_factory=dict)

  def ends(self) -> list[int]:
    return np.flatnonzero(self.is_terminal).tolist()

  def is_verified(self) -> bool:
    return all(f.done() for f in self.futures.values())

  def settle(self, tree: HostTree, config: SearchConfig) -> list[Verdict]:
    """Writes verdicts and rewards into the host tree."""
    verdicts = []
    for child, future in self.futures.items():
      verdict, node = future.result(), self.first + child
      is_cut = not self.is_ended[child] and tree.depth[node] == config.max_depth
      if verdict is Verdict.NO_ANSWER and is_cut:
        verdict = Verdict.INCOMPLETE
      tree.verdict[node] = verdict
      tree.reward[node] = reward_of(verdict, config.incomplete_score)
      verdicts.append(verdict)
    return verdicts

  def fields(self, tree: HostTree, width: int) -> dict[str, Any]:
    """Values of `Children` for this expansion, padded to W."""
    index = range(self.first, self.first + len(self.lengths))
    pad = lambda values, dtype: np.pad(np.asarray(values, dtype), (0, width - len(self.lengths)))
    verdicts = [tree.verdict[i] for i in index]
    ends = [tree.logprobs[i][-1] if e else 0.0 for i, e in zip(index, self.is_ended, strict=True)]
    return dict(
        count=np.int32(len(self.lengths)), num_tokens=pad(self.lengths, np.int32),
        logprob_sum=pad([tree.logprobs[i].sum(dtype=np.float64) for i in index], np.float32),
        entropy_sum=pad([tree.entropies[i].sum(dtype=np.float64) for i in index], np.float32),
        end_logprob=pad(ends, np.float32), is_ended=pad(self.is_ended, bool),
        is_terminal=pad(self.is_terminal, bool),
        is_valid=pad([v is not None and v is not Verdict.ERROR for v in verdicts], bool),
        is_correct=pad([v is Verdict.CORRECT for v in verdicts], bool),
        reward=pad([tree.reward[i] for i in index], np.float32))


def reward_of(verdict: Verdict, incomplete_score: float) -> float:
  """+1 correct; the incomplete score for a path cut off without an answer; 0 for an end masked
  through our fault; -1 otherwise (a hanging answer must not pay)."""
  return {Verdict.CORRECT: 1.0, Verdict.INCOMPLETE: incomplete_score,
          Verdict.ERROR: 0.0}.get(verdict, -1.0)


def _add_segments(tree: HostTree, slot: lanes.Slot, b: int, request: lanes.Request,
                  segments: Segments, config: SearchConfig) -> _Expansion:
  """Adds slot b's children to the tree; says which of them are ends.

  An end token in the last place of a segment ends the path here (the released code misses it;
  policy 'faithful' does as well).
  """
  count = request.num_children
  lengths, is_ended = segments.length[b, :count], segments.is_ended[b, :count]
  is_seen = is_ended & ((lengths < config.segment_length) | (config.policy != 'faithful'))
  is_terminal = is_seen | (tree.depth[request.node] + 1 >= config.max_depth)
  first = len(tree.parent)
  for j in range(count):
    cut = slice(0, int(lengths[j]))
    node = tree.add_child(request.node, segments.tokens[b, j, cut].copy(),
                          segments.logprobs[b, j, cut].copy(),
                          segments.entropies[b, j, cut].copy())
    slot.children[node] = j
  tree.num_expansions += 1
  return _Expansion(request.node, first, lengths, is_ended, is_terminal)


def _blank_children(count: int, width: int) -> Children:
  of = lambda dtype, *shape: np.zeros((count, *shape), dtype)
  return Children(
      count=of(np.int32), num_tokens=of(np.int32, width), logprob_sum=of(np.float32, width),
      entropy_sum=of(np.float32, width), end_logprob=of(np.float32, width),
      is_ended=of(bool, width), is_terminal=of(bool, width), is_valid=of(bool, width),
      is_correct=of(bool, width), reward=of(np.float32, width))
