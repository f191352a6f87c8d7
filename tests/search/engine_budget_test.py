"""What bounds a search and what it counts: budgets, early stops, slots in use, cache reads."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.search.journal import tree_from_line, tree_to_line
from ds_jax.search.trajectories import trajectories
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny as fakes


@pytest.fixture(scope='module')
def grown():
  return fakes.grow(fakes.make_engine(), fakes.make_jobs(7))


def test_a_token_budget_ends_a_tree_with_what_it_has(grown):
  budget = 60
  config = dataclasses.replace(fakes.SEARCH, max_tokens=budget, num_trajectories=8)
  trees, counters = fakes.grow(fakes.make_engine(config), fakes.make_jobs(7))
  one_expansion = config.width * config.segment_length
  num_cut = 0
  for tree in trees.values():
    assert tree.statistics['generated_tokens'] < budget + one_expansion
    assert len(tree.collected) == min(int(tree.is_terminal.sum()), 8)  # owed ones are drained
    num_cut += len(tree.collected) < 8 and tree.statistics['generated_tokens'] >= budget
  assert counters.out_of_budget == num_cut > 0
  assert grown[1].out_of_budget == sum(
    len(t.collected) < 4 and t.statistics['expansions'] >= 20 for t in grown[0].values()
  )


def test_an_expansion_stops_once_all_children_have_ended():
  shape = ExpandShape(
    num_slots=2,
    width=3,
    segment_length=5,
    context_length=20,
    replay_chunk=4,
    replay_lanes=2,
    path_block=8,
    num_kv_heads=fakes.DECODER.num_kv_heads,
    head_width=fakes.DECODER.head_width,
  )
  mesh = make_mesh(devices=jax.devices()[:1])
  everything = tuple(range(fakes.DECODER.num_ids))
  expand_fn = bind_sampling(compile_expand(mesh, shape), sampling_options(), everything)
  slots = compile_slots(fakes.DECODER, mesh, shape)()
  ints = lambda *values: np.array(values, np.int32)
  plan = SlotPlan(
    append_child=ints(-1, -1),
    keep_length=ints(0, 0),
    replay_tokens=np.zeros((2, 4), np.int32),
    replay_length=ints(0, 0),
    copy_from=ints(-1, -1),
    pending_token=ints(5, 6),
    num_children=ints(3, 2),
    first_child=ints(0, 0),
    key=np.zeros((2, 2), np.uint32),
  )
  slots, segments = expand_fn(fakes.decoder(), slots, plan)
  assert np.asarray(segments.length).tolist() == [[1, 1, 1], [1, 1, 0]]
  assert not np.asarray(slots.segment_keys).any()  # no further token was encoded


def test_what_a_tree_knows_of_its_tokens_reaches_the_learner(grown):
  """Node ids, values per node, log-probs and entropies per token; through the journal as well."""
  for tree in grown[0].values():
    again = tree_from_line(tree_to_line(tree))
    np.testing.assert_array_equal(again.entropies, tree.entropies)
    for found in trajectories(again, 3):
      nodes = tree.path(int(found.node_ids[-1]))
      assert found.node_ids.tolist() == nodes and found.group == 3
      np.testing.assert_array_equal(found.node_values, tree.value_sum[nodes])
      assert found.node_lengths.sum() == len(found.tokens)
      for name, whole in (
        ('tokens', tree.tokens),
        ('behavior_logprobs', tree.logprobs),
      ):
        want = np.concatenate([whole[tree.node_slice(i)] for i in nodes])
        np.testing.assert_array_equal(getattr(found, name), want)


def test_counters_say_how_well_the_slots_were_used(grown):
  counters = grown[1]
  assert 0 < counters.busy_in_demand <= counters.slots_in_demand
  assert counters.positions_read == counters.positions_valid > 0  # no count_read
  metrics = counters.metrics()
  assert 0 < metrics['time/occupancy'] <= 1 and metrics['time/path_read_over_valid'] == 1
