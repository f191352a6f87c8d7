"""What each decoder slot does next: append a child, rewind to the common ancestor, or replay.

A slot works for one tree at a time, but nothing ties a tree to a slot: requests go to the slot
whose cached path they share most with. All of this is bookkeeping on the host; no device work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ds_jax.interfaces import SlotPlan
from ds_jax.search.engine.host_tree import HostTree

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
  """A slot's cached path, and what it still has to encode before it can expand."""

  tree: HostTree | None = None
  node: int = 0  # the cached path belongs to this node
  length: int = 0  # valid positions of the path cache
  children: dict[int, int] = dataclasses.field(default_factory=dict)  # node -> segment cache
  expansion: Expansion | None = None  # whose segments the slot holds
  request: Request | None = None
  append_child: int = -1
  backlog: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
  pending: int = 0  # last token of the requested path

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
      # The last token is encoded anew in any case: its logits are wanted.
      shared = min(self.shared_length(tree, node), len(path) - 1)
      if tree.is_encoded:
        tree.recomputed_tokens += len(path) - 1 - shared
      self.length = shared
    tree.is_encoded = True
    self.backlog, self.pending = path[self.length : -1], int(path[-1])
    self.tree, self.node, self.request = tree, node, request
    self.expansion, self.children = None, {}

  def release(self) -> None:
    """Forgets a tree that is done."""
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
  return next((slot for slot in free if slot.tree is None), free[0])


def make_plan(
  slots: Sequence[Slot], *, num_shards: int, replay_chunk: int, replay_lanes: int
) -> SlotPlan:
  """The next SlotPlan; slots advance their backlog as if it were carried out.

  At most `replay_lanes` slots per shard replay a chunk each. A slot whose backlog fits in the chunk
  (or is empty) expands in the same round, the others go on in the next one.
  """
  count, per_shard = len(slots), len(slots) // num_shards
  plan = SlotPlan(
    append_child=np.full(count, -1, np.int32),
    keep_length=np.zeros(count, np.int32),
    replay_tokens=np.zeros((count, replay_chunk), np.int32),
    replay_length=np.zeros(count, np.int32),
    pending_token=np.zeros(count, np.int32),
    num_children=np.zeros(count, np.int32),
    first_child=np.zeros(count, np.int32),
    key=np.zeros((count, 2), np.uint32),
  )
  for first in range(0, count, per_shard):
    free_lanes = replay_lanes
    for b in range(first, first + per_shard):
      slot = slots[b]
      plan.append_child[b], slot.append_child = slot.append_child, -1
      plan.keep_length[b] = slot.length
      if slot.request is None:
        continue
      if len(slot.backlog) and free_lanes:
        free_lanes -= 1
        chunk, slot.backlog = slot.backlog[:replay_chunk], slot.backlog[replay_chunk:]
        plan.replay_tokens[b, : len(chunk)], plan.replay_length[b] = chunk, len(chunk)
        slot.length += len(chunk)
      if not len(slot.backlog):
        plan.pending_token[b] = slot.pending
        plan.num_children[b] = slot.request.num_children
        plan.first_child[b] = slot.request.first_child
        plan.key[b] = slot.request.key
        slot.length += 1
  return plan
