"""Trees of distinct siblings: what they hold, and what they do not depend on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ds_jax.search.statistics import count_siblings, summarize
from ds_jax.testing import tiny as fakes
from ds_jax.testing.tiny import assert_same_tree

# Decaying widths: nodes at depths of 1 and 2 ask for fewer children than there is room for.
DISTINCT = dataclasses.replace(fakes.SEARCH, siblings='distinct', width_decay=1, min_width=2)


@pytest.fixture(scope='module')
def grown():
  engine, jobs = fakes.make_engine(DISTINCT), fakes.make_jobs(6)
  trees, _ = fakes.grow(engine, jobs)
  return engine, jobs, trees


def siblings_of(tree):
  """Texts of the children of each node that has some."""
  families = {}
  for node in range(1, len(tree.parent)):
    text = tuple(tree.tokens[tree.node_slice(node)].tolist())
    families.setdefault(int(tree.parent[node]), []).append(text)
  return families


def test_no_two_siblings_are_alike(grown):
  _, _, trees = grown
  sizes = set()
  for tree in trees.values():
    for texts in siblings_of(tree).values():
      assert len(set(texts)) == len(texts)
      sizes.add(len(texts))
  assert sizes == {2, 3}
  metrics = summarize(list(trees.values()), 4, stop_ids=[fakes.STOP_ID])
  assert metrics['search/duplicate_share'] == 0


def test_order_neighbours_and_devices_do_not_change_a_bit(grown):
  engine, jobs, trees = grown
  count = fakes.CompileCounter()
  other, _ = fakes.grow(engine, jobs[::-1])
  alone, _ = fakes.grow(engine, jobs[2:3])
  assert count.compilations() == 0
  split, _ = fakes.grow(fakes.make_engine(DISTINCT, num_devices=2), jobs)
  for result in (other, alone, split):
    for name in result:
      assert_same_tree(trees[name], result[name])


@pytest.mark.long
def test_one_slot_and_a_split_decoder_grow_the_same_trees(grown):
  _, jobs, trees = grown
  one_slot = fakes.make_engine(dataclasses.replace(DISTINCT, num_slots=1))
  for engine in (one_slot, fakes.make_engine(DISTINCT, num_devices=4, tensor=2)):
    other, _ = fakes.grow(engine, jobs[:3])
    for name in other:
      assert_same_tree(trees[name], other[name], bits=False)


def test_copies_are_counted_among_siblings_that_came_together(grown):
  """The first two children of the root, made alike by hand; and a tree of the same nodes that came
  one by one, of which nothing is counted."""
  tree = next(iter(grown[2].values()))
  num_parents = len(set(tree.parent[1:].tolist()))
  assert count_siblings([tree]) == (len(tree.parent) - 1 - num_parents, 0)
  first, second, third = np.flatnonzero(tree.parent == 0)
  assert (first, second, third) == (1, 2, 3)
  start, end = int(tree.token_start[1]), int(tree.token_start[2])
  text = tree.tokens[start:end]
  added = len(text) - (int(tree.token_start[3]) - end)
  copied = dataclasses.replace(
    tree,
    tokens=np.concatenate([text, text, tree.tokens[int(tree.token_start[3]) :]]),
    token_start=np.append(tree.token_start[:3], tree.token_start[3:] + added),
  )
  assert count_siblings([copied, tree]) == (2 * (len(tree.parent) - 1 - num_parents), 1)
  one_by_one = dict(tree.statistics, expansions=len(tree.parent) - 1)
  assert count_siblings([dataclasses.replace(copied, statistics=one_by_one)]) == (0, 0)
