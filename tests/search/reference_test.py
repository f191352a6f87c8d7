"""Formulas and whole searches against written-out numbers, in batches whose rows do other things.

Those of formulas are below, worked out by hand. Those of whole searches are in
tests/golden/search.json; they come from reference.py, which knows neither arrays nor ds_jax, and
`python tests/search/reference_test.py` writes them anew.
"""

from __future__ import annotations

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import search_reference as reference

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.search.backup import backup, choose_end
from ds_jax.search.engine.expansion import blank_children
from ds_jax.search.engine.host_tree import NO_TOKENS, HostTree, Job
from ds_jax.search.engine.round import make_advance
from ds_jax.search.policies import policy_of
from ds_jax.search.policies.base import no_forks
from ds_jax.search.scores import frontier_score, uct
from ds_jax.search.settings import Defects, settings_from
from ds_jax.search.tree import add_children, new_tree
from ds_jax.types import Problem

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'search.json'
COMMON = SearchConfig(
  width=3,
  width_decay=0,
  max_depth=4,
  num_trajectories=4,
  max_expansions=12,
  incomplete_score=-0.5,
  lambda_uct=1.0,
  lambda1=0.4,
  lambda3=0.01,
)
SEARCHES = {
  'deepsearch': dict(),
  'uct': dict(backtrack='uct', backup_threshold=0.5),
  'vanilla': dict(backup_rule='vanilla', depth_bonus='log', negatives='least_confident'),
  'sampled': dict(uncertainty='sampled', lambda2=0.3, lambda4=0.2, depth_bonus='linear'),
  'decaying': dict(width=4, width_decay=1, min_width=2, frontier_only=False, max_expansions=6),
  'faithful': dict(policy='faithful', num_trajectories=7, max_expansions=5),
}
CAPACITY, WIDTH, MAX_COLLECTED = 64, 4, 8  # room that all have, so that programs are shared
SEEDS = ('first', 'second', 'all end')  # of the trees of a batch; the last ends with its root


def config_of(name):
  return SearchConfig(**vars(COMMON) | SEARCHES[name])


def blank_trees(count, capacity):
  keys = jnp.zeros((count, 2), jnp.uint32)
  return jax.vmap(lambda key: new_tree(capacity, 1, key))(keys)


def nodes_of(**fields):
  """Nodes with these numbers, `[B, N]`, and what a blank tree has elsewhere."""
  nodes = blank_trees(*np.shape(next(iter(fields.values())))).nodes
  arrays = {name: jnp.array(x, getattr(nodes, name).dtype) for name, x in fields.items()}
  return nodes.replace(**arrays)


def batched(function, *args):
  """Over the rows of a batch, compiled."""
  return jax.device_get(jax.jit(jax.vmap(function))(*args))


def test_uct():
  """Q + 2 sqrt(ln n_p / n); no second term where a count is 0."""
  children = nodes_of(
    visit_count=[[1, 2, 4], [1, 1, 0], [3, 0, 0]], value_sum=[[0.5, -1, 2], [0, 1, 0], [3, 0, 0]]
  )
  settings = settings_from(SearchConfig(lambda_uct=2.0))
  got = batched(lambda nodes, visits: uct(nodes, visits, settings), children, np.int32([8, 1, 0]))
  wanted = [[3.384054, 1.539334, 1.942027], [0, 1, 0], [1, 0, 0]]
  np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
  'uncertainty, depth_bonus, wanted',
  [
    ('off', 'sqrt', [[0.363038, -0.357139], [-0.354988, 0.258947], [-0.147319, -0.17603]]),
    ('sampled', 'log', [[0.51497, 0.248956], [-0.201073, 0.339149], [0.004613, 0.425902]]),
    ('entropy', 'linear', [[0.818038, -0.252139], [-0.267059, 0.880286], [-0.067319, -0.02103]]),
  ],
)
def test_frontier_score(uncertainty, depth_bonus, wanted):
  """0.4 tanh Q_parent + 0.2 tanh Q + 0.3 H + 0.01 D(d), at most 4 deep."""
  nodes = nodes_of(
    depth=[[1, 4], [2, 3], [1, 1]],
    visit_count=[[1, 2], [0, 1], [4, 2]],
    value_sum=[[0.5, -2], [0, 1], [-4, -3]],
    num_tokens=[[2, 4], [1, 3], [4, 1]],
    logprob_sum=[[-1, -8], [-0.5, -0.75], [-2, -2]],
    entropy_sum=[[3, 1], [0.25, 6], [1, 0.5]],
  )
  parent_mean = np.float32([[0.8, -0.6], [-1.5, 0.25], [0, 0]])
  config = SearchConfig(
    uncertainty=uncertainty,
    depth_bonus=depth_bonus,
    max_depth=4,
    lambda1=0.4,
    lambda2=0.3,
    lambda3=0.01,
    lambda4=0.2,
  )
  settings = settings_from(config)
  got = batched(lambda nodes, mean: frontier_score(nodes, mean, settings), nodes, parent_mean)
  np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
  'negatives, defects, wanted',
  [
    ('most_confident', Defects(), [1, 2, 1, 0]),
    ('least_confident', Defects(), [1, 0, 0, 0]),
    ('most_confident', Defects(first_end_wins_without_confidence=True), [1, 2, 0, 0]),
  ],
)
def test_choice_of_the_end(negatives, defects, wanted):
  """Rows: right ends go first; of wrong ones the best verified; one without a countable token;
  nothing to choose from."""
  yes, no = True, False
  candidates = nodes_of(
    reward=[[1, 1, -1, 1], [-1, -0.5, -1, -1], [-1, -1, -1, 0], [1, 1, 1, 1]],
    is_terminal=[[yes] * 4, [yes] * 4, [yes, yes, yes, no], [no] * 4],
    is_valid=[[yes] * 4, [yes, yes, yes, no], [yes] * 4, [yes] * 4],
    path_tokens=[[4, 2, 1, 1], [2, 1, 2, 4], [1, 2, 2, 1], [1] * 4],
    trailing_tokens=[[0] * 4, [0] * 4, [1, 0, 0, 0], [0] * 4],
    path_logprob=[[-4, -1, -0.1, -0.1], [-2, -0.1, -1, -0.1], [-1, -1, -2, -1], [-1] * 4],
  )
  is_candidate = np.array([[yes, yes, yes, no], [yes] * 4, [yes] * 4, [yes] * 4])
  settings = settings_from(SearchConfig(negatives=negatives)).replace(defects=defects)
  end, is_any = batched(
    lambda nodes, mask: choose_end(nodes, mask, settings), candidates, is_candidate
  )
  assert end.tolist() == wanted and is_any.tolist() == [yes, yes, yes, no]


@pytest.mark.parametrize(
  'rule, wanted',
  [
    ('constrained', [[0.4, 1, 0.75, 1], [0.5, -0.916667, -2, 7], [1, -1.25, -0.375, -0.5]]),
    ('vanilla', [[-1.6, 1, 0.75, 0.75], [0.1, -0.916667, -2, 7], [0.8, -1.25, -0.375, -0.5]]),
  ],
)
def test_backup(rule, wanted):
  """Weights 0.4, 0.5, 0.75, 1 on the way down to depth 3, and 0.4, 2/3, 1 to depth 2."""
  nodes = nodes_of(
    depth=[[0, 1, 2, 3]] * 3,
    value_sum=[[-2, 0.5, 0, -0.25], [0.5, -0.25, -1, 7], [1, -1, 0, 0]],
    visit_count=[[5, 3, 1, 0], [1, 1, 1, 1], [2, 2, 2, 2]],
  )
  trees = blank_trees(3, 4).replace(nodes=nodes)
  paths = np.int32([[3, 2, 1, 0], [2, 1, 0, 4], [3, 2, 1, 0]])  # 4: beyond the root
  values = np.float32([1, -1, -0.5])
  settings = settings_from(SearchConfig(backup_rule=rule, backup_threshold=0.4))
  after = batched(functools.partial(backup, settings=settings), trees, paths, values)
  np.testing.assert_allclose(after.nodes.value_sum, wanted, atol=1e-6)
  visits = [[6, 4, 2, 1], [2, 2, 2, 1], [3, 3, 3, 3]]
  np.testing.assert_array_equal(after.nodes.visit_count, visits)


@pytest.mark.parametrize('name', SEARCHES)
def test_whole_searches(name):
  golden = json.loads(GOLDEN.read_text())[name]
  got = grow_batch(config_of(name))
  assert any(got[0] != other for other in got[1:])  # the rows do other things
  for seed, record in zip(SEEDS, got, strict=True):
    assert record['expanded'] == golden[seed]['expanded']
    assert record['collected'] == golden[seed]['collected']
    assert record['visits'] == golden[seed]['visits']
    assert list(record['q']) == list(golden[seed]['q'])
    np.testing.assert_allclose(
      list(record['q'].values()), list(golden[seed]['q'].values()), atol=1e-5
    )


@pytest.mark.parametrize('name', SEARCHES)
def test_the_written_numbers_are_those_of_the_reference(name):
  assert json.loads(GOLDEN.read_text())[name] == golden_of(name)


def test_children_beyond_the_capacity_are_an_error_where_numbers_are_known():
  tree = new_tree(4, 1, jnp.zeros(2, jnp.uint32))
  children = blank_children((), 4)
  grown = add_children(tree, jnp.int32(0), children._replace(count=np.int32(3)))
  assert int(grown.num_nodes) == 4
  with pytest.raises(ValueError, match='at most 4 nodes, got 5'):
    add_children(grown, jnp.int32(1), children._replace(count=np.int32(1)))


def test_the_host_tree_of_a_device_tree_that_is_full_takes_no_more():
  job = Job(Problem('p0', '', ''), np.zeros(1, np.int32))
  tree = HostTree(job, np.zeros(2, np.uint32), capacity=2)
  tree.add_child(0, NO_TOKENS, verdict=None, reward=0.0, is_fork=False)
  with pytest.raises(ValueError, match="at most 2 nodes of 'p0', got 3"):
    tree.add_child(1, NO_TOKENS, verdict=None, reward=0.0, is_fork=False)


def grow_batch(config):
  """Records of the trees of a batch, grown together by the compiled step of the engine."""
  settings, policy, size = settings_from(config), policy_of(config), len(SEEDS)
  advance = make_advance(sharding.make_mesh(devices=jax.devices()[:1]), policy)

  def blank(_):
    key = jnp.zeros(2, jnp.uint32)
    tree = new_tree(CAPACITY, MAX_COLLECTED, key, max_depth=config.max_depth, max_width=WIDTH)
    return tree.replace(policy=policy.init(CAPACITY, 0))

  trees = jax.vmap(blank)(jnp.arange(size))
  nodes = [[reference.Node('0', None, seed, config)] for seed in SEEDS]
  expanded = [[] for _ in SEEDS]
  asked = [(0, int(policy.first_children(settings)))] * size
  is_new, keys = np.ones(size, bool), np.zeros((size, 2), np.uint32)
  while any(count for _, count in asked):
    children, parents = blank_children((size, 1), WIDTH), np.zeros((size, 1), np.int32)
    for b, (parent, count) in enumerate(asked):
      if count:
        parents[b] = parent
        expanded[b].append(nodes[b][parent].tag)
        nodes[b] += write_children(children, b, nodes[b][parent], count, config)
    trees, allocation, is_done, _ = advance(
      trees, is_new, keys, parents, children, settings, no_forks(config.max_depth)
    )
    is_new[:] = False
    asked = [(int(allocation.node[b, 0]), int(allocation.num_children[b, 0])) for b in range(size)]
  assert is_done.all()
  return [record_of(jax.device_get(trees), b, nodes[b], expanded[b]) for b in range(size)]


def write_children(children, b, parent, count, config):
  """Scripted children of a node, put in row `b` of the arrays; returned as the script's nodes."""
  new = [reference.Node(f'{parent.tag}.{j}', parent, parent.seed, config) for j in range(count)]
  children.count[b] = count
  for j, node in enumerate(new):
    place = (b, 0, j)
    children.num_tokens[place] = node.tokens
    children.logprob_sum[place] = node.logprob
    children.is_terminal[place] = children.is_valid[place] = node.reward is not None
    children.is_correct[place] = node.reward == 1
    children.reward[place] = node.reward or 0.0
  return new


def record_of(trees, b, nodes, expanded):
  tags = [node.tag for node in nodes]
  collected = trees.collected[b, : trees.num_collected[b]]
  return {
    'expanded': expanded,
    'collected': [tags[end] for end in collected],
    'visits': dict(sorted(zip(tags, trees.nodes.visit_count[b].tolist(), strict=False))),
    'q': dict(sorted(zip(tags, trees.nodes.value_sum[b].tolist(), strict=False))),
  }


def golden_of(name):
  """The reference's records of a search, by seed."""
  records = {}
  for seed in SEEDS:
    root = reference.Node('0', None, seed, config_of(name))
    expanded, collected = reference.search(root, config_of(name))
    nodes = sorted(root.walk(), key=lambda node: node.tag)
    records[seed] = {
      'expanded': [node.tag for node in expanded],
      'collected': [node.tag for node in collected],
      'visits': {node.tag: node.visits for node in nodes},
      'q': {node.tag: round(node.q, 6) for node in nodes},
    }
  return records


if __name__ == '__main__':
  searches = ',\n'.join(f' {json.dumps(name)}: {json.dumps(golden_of(name))}' for name in SEARCHES)
  GOLDEN.write_text('{\n' + searches.replace('}, "', '},\n  "') + '\n}\n')
