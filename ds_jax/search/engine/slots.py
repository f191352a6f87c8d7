"""What each decoder slot does next: append a child, rewind to the common ancestor, or replay.

A slot works for one tree at a time, but nothing ties a tree to a slot: requests go to the slot
whose cached path they share most with. Trees of one prompt encode it once per device: the slots
that come later take over its keys and values from one that has them, or keep those that they hold.
All of this is bookkeeping on the host; no device work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ds_jax.interfaces import SlotPlan
from ds_jax.search.engine.host_tree import HostTree, Prefix
from ds_jax.search.tree import Tree

if TYPE_CHECKING:
  from ds_jax.search.engine.expansion import Expansion


@dataclasses.dataclass(frozen=True)
class Request:
  """`num_children` new children for `node` of the tree in place `tree_index`."""

  tree_index: int
  node: int
  first_child: int  # place of the first among its siblings
  num_children: int
  key: np.ndarray  # [2] uint32, key data of the node
  is_fork: bool = False  # asked for because of an outcome


@dataclasses.dataclass
class Slot:
  """A slot's cached path, and what it still has to encode before it can expand.

  The path outlives its tree: the next one may have the same prompt.
  """

  tree: HostTree | None = None
  node: int = 0  # the cached path belongs to this node
  length: int = 0  # valid positions of the path cache
  # The path begins with it, as far as it is valid, and it was encoded as other slots would encode
  # it: as a prompt, not as the beginning of a longer path. None: that is not so.
  prefix: Prefix | None = None
  children: dict[int, int] = dataclasses.field(default_factory=dict)  # node -> segment cache
  expansion: Expansion | None = None  # whose segments the slot holds
  request: Request | None = None
  append_child: int = -1
  backlog: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
  is_again: bool = False  # what the backlog holds was encoded before, by some slot
  pending: int = 0  # last token of the requested path

  def holds(self, prefix: Prefix) -> bool:
    """Whether a prompt's keys and values are here, all of them."""
    return self.prefix == prefix and self.length >= prefix.length

  @property
  def is_at_start(self) -> bool:
    """Whether the slot is to encode a prompt, and has none of it yet."""
    return self.length == 0 and len(self.backlog) > 0 and self.prefix is not None

  def shared_length(self, tree: HostTree, node: int) -> int:
    """Positions of the path to `node` that this slot holds already."""
    if self.tree is not tree:
      return 0
    return min(self.length, tree.common_length(self.node, node))

  def take(self, tree: HostTree, request: Request) -> None:
    """Points the slot at a request; sets what is to be appended, kept and replayed."""
    node, path = request.node, tree.path_tokens(request.node)
    if self.tree is tree and node in self.children:
      self.append_child = self.children[node]
      self.length += len(tree.segments[node].tokens) - 1
    else:
      self.append_child = -1
      self.length = self._kept_length(tree, node, num_encoded=len(path) - 1)
      if not self.length:
        self.prefix = tree.prefix if node == Tree.ROOT else None
    self.is_again = tree.is_encoded
    self.backlog, self.pending = path[self.length : -1], int(path[-1])
    self.tree, self.node, self.request = tree, node, request
    self.expansion, self.children = None, {}

  def _kept_length(self, tree: HostTree, node: int, *, num_encoded: int) -> int:
    """Positions of the path to `node` that stay; its last token is not among the encoded ones."""
    if self.tree is not tree and node == Tree.ROOT and self.holds(tree.prefix):
      return num_encoded
    return min(self.shared_length(tree, node), num_encoded)

  def take_over(self) -> int:
    """Notes that another slot's path makes up the backlog; returns its length."""
    self.length, self.backlog = len(self.backlog), self.backlog[:0]
    return self.length

  def encode(self, num_tokens: int) -> np.ndarray:
    """Takes up to `num_tokens` tokens off the backlog, to be encoded now."""
    chunk, self.backlog = self.backlog[:num_tokens], self.backlog[num_tokens:]
    self.length += len(chunk)
    if self.is_again:
      self.tree.recomputed_tokens += len(chunk)
    return chunk

  def release(self) -> None:
    """Forgets a tree that is done, not its path."""
    self.tree, self.expansion, self.children = None, None, {}


def assign(
  requests: Sequence[Request],
  trees: Sequence[HostTree | None],
  slots: Sequence[Slot],
  *,
  num_shards: int,
) -> list[Request]:
  """Gives requests to free slots on the shard of their tree; returns those that must wait.

  Nodes that a free slot holds go first and to that slot, so that a path goes on where it is.
  The others follow in order, each to the slot with the longest shared path, the first of equals.
  """
  trees_per_shard, slots_per_shard = len(trees) // num_shards, len(slots) // num_shards
  holders: dict[tuple[int, int], Slot] = {}
  for slot in slots:
    if slot.request is None:
      for node in slot.children:
        holders[id(slot.tree), node] = slot
  others, waiting = [], []
  for request in requests:
    slot = holders.get((id(trees[request.tree_index]), request.node))
    if slot is not None and slot.request is None:
      slot.take(trees[request.tree_index], request)
    else:
      others.append(request)
  for request in others:
    tree = trees[request.tree_index]
    first = request.tree_index // trees_per_shard * slots_per_shard
    free = [slot for slot in slots[first : first + slots_per_shard] if slot.request is None]
    if free:
      _closest(free, tree, request.node).take(tree, request)
    else:
      waiting.append(request)
  return waiting


def _closest(free: Sequence[Slot], tree: HostTree, node: int) -> Slot:
  """The slot with the longest shared path; without any, one that is nobody else's."""
  of_tree = [slot for slot in free if slot.tree is tree]
  if of_tree:
    return max(of_tree, key=lambda slot: slot.shared_length(tree, node))
  of_nobody = [slot for slot in free if slot.tree is None]
  if node == Tree.ROOT:
    for slot in of_nobody:
      if slot.holds(tree.prefix):
        return slot
  return (of_nobody or free)[0]


def make_plan(
  slots: Sequence[Slot],
  *,
  num_shards: int,
  replay_chunk: int,
  replay_lanes: int,
  temperature: float | None = None,
) -> SlotPlan:
  """The next SlotPlan; slots advance their backlog as if it were carried out.

  At most `replay_lanes` slots per shard replay a chunk each. A slot whose backlog fits in the chunk
  (or is empty) expands in the same round, the others go on in the next one. Of the slots of a shard
  that begin with the same prompt one encodes it; the others wait for it, and take it over in the
  round in which it is whole.

  Args:
    slots: of all devices.
    num_shards: devices that have slots of their own.
    replay_chunk: tokens that a slot replays at a time.
    replay_lanes: slots per shard that replay at a time.
    temperature: of trees that have none of their own; None: the plan has no temperatures.
  """
  count, per_shard = len(slots), len(slots) // num_shards
  plan = _idle_plan(count, replay_chunk)
  for b, slot in enumerate(slots):
    plan.append_child[b], slot.append_child = slot.append_child, -1
    plan.keep_length[b] = slot.length
  for first in range(0, count, per_shard):
    of_shard = slots[first : first + per_shard]
    _fill_caches(plan, of_shard, first, replay_chunk=replay_chunk, replay_lanes=replay_lanes)
  for b, slot in enumerate(slots):
    if slot.request is not None and not len(slot.backlog):
      plan.pending_token[b] = slot.pending
      plan.num_children[b] = slot.request.num_children
      plan.first_child[b] = slot.request.first_child
      plan.key[b] = slot.request.key
      slot.tree.is_encoded = True
      slot.length += 1
  if temperature is None:
    return plan
  return plan._replace(temperature=_temperatures(slots, temperature))


def _temperatures(slots: Sequence[Slot], default: float) -> np.ndarray:
  """That of each slot's tree `[B]` float32; idle slots and other trees have the default."""
  temperatures = np.full(len(slots), default, np.float32)
  for b, slot in enumerate(slots):
    if slot.request is not None and slot.tree.job.temperature is not None:
      temperatures[b] = slot.tree.job.temperature
  return temperatures


def _idle_plan(count: int, replay_chunk: int) -> SlotPlan:
  """The plan of slots that do nothing."""
  return SlotPlan(
    append_child=np.full(count, -1, np.int32),
    keep_length=np.zeros(count, np.int32),
    replay_tokens=np.zeros((count, replay_chunk), np.int32),
    replay_length=np.zeros(count, np.int32),
    copy_from=np.full(count, -1, np.int32),
    pending_token=np.zeros(count, np.int32),
    num_children=np.zeros(count, np.int32),
    first_child=np.zeros(count, np.int32),
    key=np.zeros((count, 2), np.uint32),
  )


def _fill_caches(
  plan: SlotPlan, slots: Sequence[Slot], first: int, *, replay_chunk: int, replay_lanes: int
) -> None:
  """Has the slots of one shard, numbered from `first` on, replay or take over what they lack."""
  encoders = _encoders(slots)
  free_lanes = replay_lanes
  for b, slot in enumerate(slots, first):
    has_other_encoder = slot.is_at_start and slots[encoders[slot.prefix]] is not slot
    if len(slot.backlog) and free_lanes and not has_other_encoder:
      free_lanes -= 1
      chunk = slot.encode(replay_chunk)
      plan.replay_tokens[b, : len(chunk)], plan.replay_length[b] = chunk, len(chunk)
  for b, slot in enumerate(slots, first):
    if slot.is_at_start and slots[encoders[slot.prefix]].holds(slot.prefix):
      plan.copy_from[b] = encoders[slot.prefix]
      plan.keep_length[b] = slot.take_over()


def _encoders(slots: Sequence[Slot]) -> dict[Prefix, int]:
  """The slot of one shard that has encoded most of each prompt, the first of equals."""
  encoders: dict[Prefix, int] = {}
  for b, slot in enumerate(slots):
    if slot.prefix is not None:
      best = encoders.setdefault(slot.prefix, b)
      if slot.length > slots[best].length:
        encoders[slot.prefix] = b
  return encoders
