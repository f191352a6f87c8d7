"""What slots are told to encode: a prompt once per device, whoever asks for its rollouts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ds_jax.search.engine.host_tree import HostTree, Job, Segment
from ds_jax.search.engine.slots import Request, Slot, assign, make_plan
from ds_jax.search.tree import Tree
from ds_jax.types import Problem

KEY = np.zeros(2, np.uint32)
PROMPT, OTHER = np.arange(1, 11, dtype=np.int32), np.arange(50, 57, dtype=np.int32)


class Device:
  """Slots and trees of one device, or several; `go` is a round of the engine's."""

  def __init__(self, num_slots, *, chunk=16, lanes=8, num_shards=1):
    self.slots = [Slot() for _ in range(num_slots)]
    self.trees = [None] * num_slots
    self.settings = dict(replay_chunk=chunk, replay_lanes=lanes, num_shards=num_shards)
    self.waiting = []

  def ask(self, index, prompt, node=Tree.ROOT, *, temperature=None):
    if self.trees[index] is None:
      job = Job(Problem('p', '', ''), prompt, temperature=temperature)
      self.trees[index] = HostTree(job, KEY)
    self.waiting.append(Request(index, node, 0, 1, KEY))

  def go(self):
    num_shards = self.settings['num_shards']
    self.waiting = assign(self.waiting, self.trees, self.slots, num_shards=num_shards)
    plan = make_plan(self.slots, **self.settings)
    for b in np.flatnonzero(plan.num_children):
      self.slots[b].request = None
    return plan

  def finish(self, index):
    tree, self.trees[index] = self.trees[index], None
    for slot in self.slots:
      if slot.tree is tree:
        slot.release()


def test_one_slot_encodes_the_prompt_and_all_expand_in_the_same_round():
  device = Device(4)
  for i in range(3):
    device.ask(i, PROMPT)
  device.ask(3, OTHER)
  plan = device.go()
  assert plan.replay_length.tolist() == [9, 0, 0, 6]
  assert plan.copy_from.tolist() == [-1, 0, 0, -1]
  assert plan.keep_length.tolist() == [0, 9, 9, 0]
  assert plan.num_children.tolist() == [1] * 4
  assert plan.pending_token.tolist() == [10, 10, 10, 56]
  assert [slot.length for slot in device.slots] == [10, 10, 10, 7]
  assert [tree.recomputed_tokens for tree in device.trees] == [0] * 4


def test_the_others_wait_for_a_long_prompt():
  device = Device(3, chunk=4)
  for i in range(3):
    device.ask(i, PROMPT)
  lengths, copies, counts = [], [], []
  for _ in range(3):
    plan = device.go()
    lengths.append(plan.replay_length.tolist())
    copies.append(plan.copy_from.tolist())
    counts.append(plan.num_children.tolist())
  assert lengths == [[4, 0, 0], [4, 0, 0], [1, 0, 0]]
  assert copies == [[-1] * 3, [-1] * 3, [-1, 0, 0]]
  assert counts == [[0] * 3, [0] * 3, [1] * 3]


def test_a_lane_is_left_for_another_prompt():
  device = Device(4, lanes=2)
  for i, prompt in enumerate((PROMPT, PROMPT, OTHER, OTHER)):
    device.ask(i, prompt)
  plan = device.go()
  assert plan.copy_from.tolist() == [-1, 0, -1, 2]
  assert plan.num_children.all()


def test_the_next_rollout_keeps_what_its_slot_holds_or_takes_it_from_a_neighbour():
  device = Device(3)
  device.ask(0, PROMPT)
  device.ask(1, OTHER)
  device.go()
  device.finish(0)
  device.ask(0, PROMPT)  # in the slot that is free, and holds the prompt
  device.ask(2, PROMPT)
  plan = device.go()
  assert plan.replay_length.tolist() == [0, 0, 0]
  assert plan.keep_length.tolist() == [9, 7, 9]
  assert plan.copy_from.tolist() == [-1, -1, 0]


def test_a_free_slot_of_another_prompt_is_left_to_it():
  device = Device(2)
  device.ask(0, PROMPT)
  device.ask(1, OTHER)
  device.go()
  device.finish(0)
  device.finish(1)
  device.ask(0, OTHER)
  device.ask(1, PROMPT)
  plan = device.go()
  assert not plan.replay_length.any() and plan.copy_from.tolist() == [-1, -1]
  assert plan.pending_token.tolist() == [10, 56]


def test_a_path_that_was_overwritten_is_no_source():
  device = Device(2)
  device.ask(0, PROMPT)
  device.go()
  device.finish(0)
  device.ask(0, OTHER)  # the first free slot is taken, which held the prompt
  device.ask(1, PROMPT)
  plan = device.go()
  assert plan.replay_length.tolist() == [6, 9]
  assert plan.copy_from.tolist() == [-1, -1]


def test_each_device_encodes_for_itself():
  device = Device(4, num_shards=2)
  for i in range(4):
    device.ask(i, PROMPT)
  plan = device.go()
  assert plan.replay_length.tolist() == [9, 0, 9, 0]
  assert plan.copy_from.tolist() == [-1, 0, -1, 0]  # counted on its device


@pytest.mark.parametrize('is_held', [True, False])
def test_the_prompt_of_a_path_that_was_replayed_as_a_whole_is_encoded_anew(is_held):
  """It has been through a pass of another shape, and the last bits may differ."""
  device = Device(2)
  device.ask(0, PROMPT)
  device.go()
  tree = device.trees[0]
  nothing = np.zeros(3, np.float32)
  segment = Segment(np.array([21, 22, 23], np.int32), nothing, nothing)
  node = tree.add_child(Tree.ROOT, segment, verdict=None, reward=0.0, is_fork=False)
  if not is_held:
    device.slots[0].tree = None
  device.ask(0, PROMPT, node)
  plan = device.go()
  assert plan.replay_length.tolist() == ([2, 0] if is_held else [12, 0])
  assert plan.keep_length[0] == (10 if is_held else 0)
  assert tree.recomputed_tokens == plan.replay_length[0]
  device.ask(1, PROMPT)
  plan = device.go()
  assert plan.copy_from.tolist() == ([-1, 0] if is_held else [-1, -1])
  assert plan.replay_length.tolist() == ([0, 0] if is_held else [0, 9])


def test_a_prompt_of_one_token_has_nothing_to_share():
  device = Device(2)
  device.ask(0, PROMPT[:1])
  device.ask(1, PROMPT[1:2])
  plan = device.go()
  assert not plan.replay_length.any() and (plan.copy_from == -1).all()
  assert plan.num_children.tolist() == [1, 1]


def test_a_plan_has_the_temperatures_of_its_trees_or_none():
  device = Device(4)
  for i, temperature in enumerate((1.25, None, 0.5)):
    device.ask(i, PROMPT, temperature=temperature)
  off = device.go()
  assert off.temperature is None and len(jax.tree.leaves(off)) == 9
  device = Device(4)
  device.settings['temperature'] = 0.75
  for i, temperature in enumerate((1.25, None, 0.5)):
    device.ask(i, PROMPT, temperature=temperature)
  plan = device.go()
  assert plan.temperature.dtype == np.float32
  assert plan.temperature.tolist() == [1.25, 0.75, 0.5, 0.75]
