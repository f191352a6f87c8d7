"""Random trees under every policy: nothing crashes, invariants hold, neighbours do not matter.

Trees of one batch differ in all numbers, which are traced; a batch is grown by the device functions
alone, as fast as expansions can be invented.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.search.engine.round import advance_tree
from ds_jax.search.policies import FORK_RULES, POLICIES
from ds_jax.search.policies.base import ForkPlan
from ds_jax.search.policies.fork_sampling import ForkCounts, fork_odds
from ds_jax.search.scores import as_number, frontier_score
from ds_jax.search.settings import Settings, width_at
from ds_jax.search.tree import Children, add_children, mean_value, new_tree
from ds_jax.testing.tolerance import tolerance

CAPACITY, WIDTH, MAX_COLLECTED, MAX_DEPTH = 192, 8, 16, 64


def random_settings(rng, count, policy, rules=None) -> Settings:
  """Numbers of `count` searches, `[count]`, under the same rules."""
  ints = lambda low, high: rng.integers(low, high + 1, count).astype(np.int32)
  floats = lambda low, high: rng.uniform(low, high, count).astype(np.float32)
  width, depth = ints(1, WIDTH), ints(2, MAX_DEPTH)
  limit = (CAPACITY - 1) // width
  expansions = np.minimum(ints(1, 48), limit).astype(np.int32)
  if not policy.is_serial:
    depth = np.minimum(depth, 8)
    expansions = np.maximum(ints(1, (CAPACITY - 1) // WIDTH), depth).astype(np.int32)
  max_trajectories = MAX_COLLECTED if policy.is_serial else WIDTH
  bound = np.where(rng.random(count) < 0.5, np.iinfo(np.int32).max, ints(1, 400))
  return Settings(
    width=width,
    min_width=np.minimum(ints(1, 8), width),
    width_decay=ints(0, 2) * (rng.random(count) < 0.5).astype(np.int32),
    max_depth=depth,
    segment_length=np.full(count, 4, np.int32),
    num_trajectories=ints(1, max_trajectories),
    max_expansions=expansions,
    max_tokens=bound.astype(np.int32),
    is_frontier_strict=rng.random(count) < 0.5,
    is_end_token_counted=rng.random(count) < 0.5,
    lambda_uct=floats(0, 3),
    lambda1=floats(0, 1),
    lambda2=floats(0, 1),
    lambda3=floats(0, 1),
    lambda4=floats(-1, 1),
    backup_threshold=floats(0, 1),
    probe_share=floats(0, 1),
    min_continuations=ints(1, 4),
    **(rules or {}),
  )


def invent(key, asked, depth, *, end_rate, nan_rate, settings) -> Children:
  """Children of a node at `depth`: ends at the given rate, some log-probs not numbers."""
  draws = jax.random.uniform(key, (8, WIDTH))
  is_ended = draws[0] < end_rate
  is_valid = draws[1] > 0.05
  is_terminal = is_ended | (depth + 1 >= settings.max_depth)
  tokens = jnp.where(is_ended & (draws[2] < 0.8), 1 + jnp.floor(draws[2] * 4), 4).astype(jnp.int32)
  strange = draws[4] < nan_rate
  logprob = jnp.where(strange, jnp.where(draws[5] < 0.5, jnp.nan, -jnp.inf), -draws[3] * tokens)
  is_correct = is_terminal & is_valid & (draws[6] < 0.3)
  bad = jnp.where(draws[7] < 0.5, -1.0, jnp.where(draws[7] < 0.8, -0.5, 0.0))
  reward = jnp.where(is_terminal & is_valid, jnp.where(is_correct, 1.0, bad), 0.0)
  return Children(
    count=asked,
    first_child=jnp.int32(0),
    num_tokens=tokens,
    logprob_sum=logprob,
    entropy_sum=jnp.where(strange, jnp.nan, draws[3]),
    end_logprob=jnp.where(is_ended, -draws[5], 0.0),
    is_ended=is_ended,
    is_terminal=is_terminal,
    is_valid=is_terminal & is_valid,
    is_correct=is_correct,
    reward=reward,
  )


def grow_one(key, settings, plan, end_rate, nan_rate, policy):
  """A whole search of one tree; (tree, whether it ever asked for what it must not)."""
  root_key, key = jax.random.split(key)
  max_collected = MAX_COLLECTED if policy.is_serial else CAPACITY
  root = jax.random.key_data(root_key)
  tree = new_tree(CAPACITY, max_collected, root, max_depth=MAX_DEPTH, max_width=WIDTH)
  tree = policy.start(tree, settings)
  size = policy.num_results(CAPACITY)
  count = policy.first_children(settings)
  pad = lambda value: jnp.zeros(size, jnp.int32).at[0].set(value)
  asked = (pad(0), pad(0), pad(count))

  def go_on(state):
    return ~state[0].is_done & (state[4] < 2 * CAPACITY)

  def expand(state):
    tree, (nodes, firsts, counts), key, is_bad, rounds = state
    key, now = jax.random.split(key)
    is_bad |= (tree.nodes.is_terminal[nodes] & (counts > 0)).any()
    is_bad |= (counts > WIDTH).any() | (counts.sum() == 0)

    def children_of_one(node, first, count, now):
      depth = tree.nodes.depth[node]
      children = invent(now, count, depth, end_rate=end_rate, nan_rate=nan_rate, settings=settings)
      return children._replace(first_child=first)

    children = jax.vmap(children_of_one)(nodes, firsts, counts, jax.random.split(now, size))
    is_bad |= tree.num_nodes + counts.sum() > CAPACITY
    tree, allocation, _ = advance_tree(
      tree, nodes, children, policy=policy, settings=settings, plan=plan
    )
    asked = (allocation.node, allocation.first_child, allocation.num_children)
    return tree, asked, key, is_bad, rounds + 1

  state = (tree, asked, key, jnp.bool_(False), jnp.int32(0))
  tree, _, _, is_bad, _ = jax.lax.while_loop(go_on, expand, state)
  return tree, is_bad


@functools.partial(jax.jit, static_argnames='policy')
def grow(keys, settings, plan, end_rate, nan_rate, policy):
  return jax.vmap(functools.partial(grow_one, policy=policy), in_axes=(0, 0, None, 0, 0))(
    keys, settings, plan, end_rate, nan_rate
  )


def check(tree, settings, policy):
  """Invariants of finished trees, fields `[B, N]` on the host."""
  nodes = tree.nodes
  used = np.arange(CAPACITY) < tree.num_nodes[:, None]
  ends = used & nodes.is_terminal & nodes.is_valid
  assert tree.is_done.all() and (tree.num_in_flight == 0).all()
  assert (tree.num_expansions <= settings.max_expansions).all()
  collected = np.minimum(tree.num_collected, tree.collected.shape[1])
  wanted = settings.num_trajectories
  if policy.collects_all:
    assert (collected >= np.minimum(ends.sum(1), 1)).all()
  elif (
    policy.defects.loses_passed_over_ends
  ):  # ends early where the released code stops with an assertion
    assert (collected <= np.minimum(wanted, ends.sum(1))).all()
  else:
    assert (collected == np.minimum(wanted, ends.sum(1))).all()
  assert (nodes.num_ends[:, 0] == ends.sum(1)).all()
  assert np.isfinite(nodes.value_sum).all()
  for b in range(len(used)):
    n = int(tree.num_nodes[b])
    found = tree.collected[b, : collected[b]]
    assert len(set(found.tolist())) == len(found) and ends[b, found].all()
    assert sorted(nodes.preorder[b, :n].tolist()) == list(range(n))
    parents = nodes.parent[b, 1:n]
    assert (parents < np.arange(1, n)).all() and not nodes.is_terminal[b, parents].any()
    np.testing.assert_array_equal(np.bincount(parents, minlength=n), nodes.num_children[b, :n])
    assert (nodes.depth[b, 1:n] == nodes.depth[b, parents] + 1).all()
    assert nodes.depth[b, :n].max() <= settings.max_depth[b]
    siblings = set(zip(parents.tolist(), nodes.child_index[b, 1:n].tolist(), strict=True))
    assert len(siblings) == n - 1


@jax.jit
def compute_anew(nodes, settings):
  """Scores (-inf: not on the frontier) and full widths of all nodes of all trees, `[B, N]`."""

  def of_one(nodes, settings):
    scores = frontier_score(nodes, mean_value(nodes)[nodes.parent], settings)
    is_open = (nodes.depth > 0) & ~nodes.is_terminal
    return jnp.where(is_open, as_number(scores), -jnp.inf), width_at(nodes.depth, settings)

  return jax.device_get(jax.vmap(of_one)(nodes, settings))


def scored_by(nodes, settings):
  """What a score is computed from, `[B, N, X]` bits: nodes alike in all of it must tie."""
  of = np.where(nodes.visit_count > 0, nodes.value_sum / np.maximum(nodes.visit_count, 1), 0)
  parents = np.maximum(nodes.parent, 0)
  values = [
    nodes.depth,
    nodes.is_terminal,
    nodes.parent < 0,
    of.astype(np.float32),
    np.take_along_axis(of, parents, 1).astype(np.float32),
  ]
  if settings.uncertainty != 'off':
    values += [nodes.num_tokens, nodes.logprob_sum, nodes.entropy_sum]
  as_bits = lambda x: x.view(np.int32) if x.dtype == np.float32 else x.astype(np.int32)
  return np.stack([as_bits(x) for x in values], -1)


# A score is a sum of four terms, each a quotient, a root or a logarithm.
FEW = tolerance('float32', 16)


def check_kept(tree, settings):
  """What serial policies rely on: all children of a node side by side or none; kept scores."""
  nodes, score = tree.nodes, tree.policy.score
  scores, widths = compute_anew(nodes, settings)
  inputs = scored_by(nodes, settings)
  for b in range(len(tree.num_nodes)):
    n = int(tree.num_nodes[b])
    np.testing.assert_allclose(score[b, :n], scores[b, :n], rtol=FEW, atol=FEW)
    _, first, alike = np.unique(inputs[b, :n], axis=0, return_index=True, return_inverse=True)
    of_its_like = score[b, first][alike.ravel()]  # with axes in numpy 2.0
    np.testing.assert_array_equal(score[b, :n], of_its_like)
    counts, parents = nodes.num_children[b, :n], nodes.parent[b, 1:n]
    assert ((counts == 0) | (counts == widths[b, :n])).all()
    children = nodes.oldest_child[b, parents] + nodes.child_index[b, 1 : 1 + len(parents)]
    np.testing.assert_array_equal(children, np.arange(1, 1 + len(parents)))


def fuzz(name, num_trees, batch, seed):
  policy, rules = SEARCHES[name]
  rng = np.random.default_rng(seed)
  plan = ForkPlan(np.arange(MAX_DEPTH) % 3 == 1, np.int32(4), np.bool_(seed % 2))
  if policy is FORK_RULES['sampling']:
    plan = fork_odds(ForkCounts(), MAX_DEPTH)
  for start in range(0, num_trees, batch):
    settings = random_settings(rng, batch, policy, rules)
    rates = [
      np.where(
        rng.random(batch) < share, rng.choice([0.0, 1.0], batch), rng.random(batch) ** 2
      ).astype(np.float32)
      for share in (0.3, 0.6)
    ]
    keys = jax.random.split(jax.random.key(seed + start), batch)
    tree, is_bad = jax.device_get(grow(keys, settings, plan, *rates, policy=policy))
    assert not is_bad.any(), np.flatnonzero(is_bad)
    check(tree, settings, policy)
    if policy.is_serial:
      check_kept(tree, settings)
  return keys, settings, plan, rates, tree


RULES = {
  'options': dict(
    backtrack='uct',
    uncertainty='entropy',
    depth_bonus='log',
    ties='random',
    local_choice='sampled',
    negatives='least_confident',
    backup_rule='vanilla',
  ),
  'sampled': dict(uncertainty='sampled', depth_bonus='linear', ties='confident'),
}
SEARCHES = {
  'deepsearch': (POLICIES['deepsearch'], {}),
  'options': (POLICIES['deepsearch'], RULES['options']),
  'faithful': (POLICIES['faithful'], {}),
  'direct': (POLICIES['direct'], {}),
  'fork': (POLICIES['fork'], {}),
  'sampled': (POLICIES['deepsearch'], RULES['sampled']),
  'sampling': (FORK_RULES['sampling'], {}),
}


@pytest.mark.parametrize('name', ['deepsearch', 'options', 'direct', 'fork'])
def test_random_trees(name):
  fuzz(name, 256, 256, seed=1)


@pytest.mark.long
@pytest.mark.parametrize('seed, name', list(enumerate(SEARCHES, 2)))
def test_twenty_thousand_random_trees(seed, name):
  count = 20_480 if name == 'deepsearch' else 4_096
  fuzz(name, count, 512, seed=seed)


def test_neighbours_do_not_change_a_tree():
  policy, _ = SEARCHES['deepsearch']
  keys, settings, plan, rates, first = fuzz('deepsearch', 256, 256, seed=1)
  others = random_settings(np.random.default_rng(9), 256, policy)
  mixed = jax.tree.map(lambda x, y: np.concatenate([y[:200], x[:56]]), settings, others)
  rates = [np.roll(rate, 200) for rate in rates]
  second, _ = grow(jnp.roll(keys, 200), mixed, plan, *rates, policy=policy)
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(x[:56], y[200:]), first, jax.device_get(second)
  )


@pytest.mark.long
@pytest.mark.parametrize('name', list(SEARCHES)[:5])
def test_a_tree_alone_is_the_tree_among_others(name):
  policy, _ = SEARCHES[name]
  keys, settings, plan, rates, together = fuzz(name, 256, 256, seed=1)
  for b in range(0, 256, 8):
    pick = lambda x, b=b: jax.tree.map(lambda v: v[b : b + 1], x)
    alone, _ = grow(pick(keys), pick(settings), plan, *pick(rates), policy=policy)
    jax.tree.map(
      lambda x, y, b=b: np.testing.assert_array_equal(x[0], y[b]), jax.device_get(alone), together
    )


def test_every_child_can_be_an_end_at_once():
  """All children of the root end: the owed trajectories are those passed over, best first."""
  policy, _ = SEARCHES['deepsearch']
  settings = random_settings(np.random.default_rng(0), 1, policy).replace(
    width=np.int32([6]),
    min_width=np.int32([6]),
    width_decay=np.int32([0]),
    num_trajectories=np.int32([4]),
    max_expansions=np.int32([8]),
    max_tokens=np.int32([10_000]),
    max_depth=np.int32([5]),
  )
  rewards = np.float32([-1, -0.5, 1, -1, 1, -1, 0, 0])
  first = jax.tree.map(lambda x: x[0], settings)
  of = lambda *values: np.array([*values, 0, 0])
  children = Children(
    count=np.int32(6),
    first_child=np.int32(0),
    num_tokens=of(2, 2, 2, 2, 2, 2),
    logprob_sum=np.float32(of(-1, -2, -3, -4, -2, -3)),
    entropy_sum=np.zeros(8, np.float32),
    end_logprob=np.zeros(8, np.float32),
    is_ended=np.ones(8, bool),
    is_terminal=np.ones(8, bool),
    is_valid=np.ones(8, bool),
    is_correct=rewards == 1,
    reward=rewards,
  )
  plan = ForkPlan(np.zeros(4, bool), np.int32(0), np.bool_(False))

  @functools.partial(jax.jit, static_argnums=0)
  def run(policy, settings, children):
    tree = policy.start(new_tree(16, MAX_COLLECTED, jnp.zeros(2, jnp.uint32)), settings)
    return policy.allocate(add_children(tree, jnp.int32(0), children), settings, plan)

  for name, wanted in (('deepsearch', [5, 3, 1, 6]), ('faithful', [5])):
    done, allocation = run(POLICIES[name], first, children)
    assert bool(done.is_done) and int(allocation.num_children.sum()) == 0
    assert np.asarray(done.collected)[: int(done.num_collected)].tolist() == wanted
