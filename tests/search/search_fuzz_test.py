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
from ds_jax.search.policies.serial import POLICIES, begin
from ds_jax.search.policies.waves import ForkPlan, num_asked_at_once
from ds_jax.search.selection import as_number, frontier_scores
from ds_jax.search.settings import Options, Rules, width_at
from ds_jax.search.tree import Children, add_children, mean_value, new_tree
from ds_jax.testing.tolerance import tolerance

CAPACITY, WIDTH, MAX_COLLECTED, MAX_DEPTH = 192, 8, 16, 64


def random_options(rng, count, policy) -> Options:
  """Numbers of `count` searches, fields `[count]`."""
  ints = lambda low, high: rng.integers(low, high + 1, count).astype(np.int32)
  floats = lambda low, high: rng.uniform(low, high, count).astype(np.float32)
  width, depth = ints(1, WIDTH), ints(2, MAX_DEPTH)
  limit = (CAPACITY - 1) // width
  expansions = np.minimum(ints(1, 48), limit).astype(np.int32)
  if not POLICIES[policy].is_serial:
    depth = np.minimum(depth, 8)
    expansions = np.maximum(ints(1, (CAPACITY - 1) // WIDTH), depth).astype(np.int32)
  max_trajectories = MAX_COLLECTED if POLICIES[policy].is_serial else WIDTH
  bound = np.where(rng.random(count) < 0.5, np.iinfo(np.int32).max, ints(1, 400))
  return Options(
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
  )


def invent(key, asked, depth, end_rate, nan_rate, options) -> Children:
  """Children of a node at `depth`: ends at the given rate, some log-probs not numbers."""
  draws = jax.random.uniform(key, (8, WIDTH))
  is_ended = draws[0] < end_rate
  is_valid = draws[1] > 0.05
  is_terminal = is_ended | (depth + 1 >= options.max_depth)
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


def grow_one(key, options, plan, end_rate, nan_rate, rules):
  """A whole search of one tree; (tree, whether it ever asked for what it must not)."""
  root_key, key = jax.random.split(key)
  is_serial = POLICIES[rules.policy].is_serial
  tree = begin(
    new_tree(
      CAPACITY,
      MAX_COLLECTED if is_serial else CAPACITY,
      jax.random.key_data(root_key),
      MAX_DEPTH,
      WIDTH,
    ),
    rules,
    options,
  )
  size = 1 if is_serial else num_asked_at_once(CAPACITY)
  count = POLICIES[rules.policy].first_children(options)
  pad = lambda value: jnp.zeros(size, jnp.int32).at[0].set(value)
  asked = (pad(0), pad(0), pad(count))

  def go_on(state):
    return ~state[0].is_done & (state[4] < 2 * CAPACITY)

  def expand(state):
    tree, (nodes, firsts, counts), key, is_bad, rounds = state
    key, now = jax.random.split(key)
    is_bad |= (tree.is_terminal[nodes] & (counts > 0)).any()
    is_bad |= (counts > WIDTH).any() | (counts.sum() == 0)
    one = lambda node, first, count, now: invent(
      now, count, tree.depth[node], end_rate, nan_rate, options
    )._replace(first_child=first)
    children = jax.vmap(one)(nodes, firsts, counts, jax.random.split(now, size))
    is_bad |= tree.num_nodes + counts.sum() > CAPACITY
    tree, allocation, _, _ = advance_tree(tree, nodes, children, options, plan, rules)
    asked = (allocation.node, allocation.first_child, allocation.num_children)
    return tree, asked, key, is_bad, rounds + 1

  state = (tree, asked, key, jnp.bool_(False), jnp.int32(0))
  tree, _, _, is_bad, _ = jax.lax.while_loop(go_on, expand, state)
  return tree, is_bad


@functools.partial(jax.jit, static_argnames='rules')
def grow(keys, options, plan, end_rate, nan_rate, rules):
  return jax.vmap(functools.partial(grow_one, rules=rules), in_axes=(0, 0, None, 0, 0))(
    keys, options, plan, end_rate, nan_rate
  )


def check(tree, options, policy):
  """Invariants of finished trees, fields `[B, N]` on the host."""
  used = np.arange(CAPACITY) < tree.num_nodes[:, None]
  ends = used & tree.is_terminal & tree.is_valid
  assert tree.is_done.all() and (tree.num_in_flight == 0).all()
  assert (tree.num_expansions <= options.max_expansions).all()
  collected = np.minimum(tree.num_collected, tree.collected.shape[1])
  wanted = options.num_trajectories
  if policy == 'fork':
    assert (collected >= np.minimum(ends.sum(1), 1)).all()
  elif policy == 'faithful':  # ends early where the released code stops with an assertion
    assert (collected <= np.minimum(wanted, ends.sum(1))).all()
  else:
    assert (collected == np.minimum(wanted, ends.sum(1))).all()
  assert (tree.num_ends[:, 0] == ends.sum(1)).all()
  assert np.isfinite(tree.value_sum).all()
  for b in range(len(used)):
    n = int(tree.num_nodes[b])
    found = tree.collected[b, : collected[b]]
    assert len(set(found.tolist())) == len(found) and ends[b, found].all()
    assert sorted(tree.preorder[b, :n].tolist()) == list(range(n))
    parents = tree.parent[b, 1:n]
    assert (parents < np.arange(1, n)).all() and not tree.is_terminal[b, parents].any()
    np.testing.assert_array_equal(np.bincount(parents, minlength=n), tree.num_children[b, :n])
    assert (tree.depth[b, 1:n] == tree.depth[b, parents] + 1).all()
    assert tree.depth[b, :n].max() <= options.max_depth[b]
    siblings = set(zip(parents.tolist(), tree.child_index[b, 1:n].tolist(), strict=True))
    assert len(siblings) == n - 1


@functools.partial(jax.jit, static_argnames='rules')
def compute_anew(tree, options, rules):
  """Scores (-inf: not on the frontier) and full widths of all nodes of all trees, `[B, N]`."""

  def of_one(tree, options):
    scores = frontier_scores(tree, mean_value(tree)[tree.parent], rules, options)
    is_open = (tree.depth > 0) & ~tree.is_terminal
    return jnp.where(is_open, as_number(scores), -jnp.inf), width_at(options, tree.depth)

  return jax.device_get(jax.vmap(of_one)(tree, options))


def scored_by(tree, rules):
  """What a score is computed from, `[B, N, X]` bits: nodes alike in all of it must tie."""
  of = np.where(tree.visit_count > 0, tree.value_sum / np.maximum(tree.visit_count, 1), 0)
  parents = np.maximum(tree.parent, 0)
  values = [
    tree.depth,
    tree.is_terminal,
    tree.parent < 0,
    of.astype(np.float32),
    np.take_along_axis(of, parents, 1).astype(np.float32),
  ]
  if rules.uncertainty != 'off':
    values += [tree.num_tokens, tree.logprob_sum, tree.entropy_sum]
  as_bits = lambda x: x.view(np.int32) if x.dtype == np.float32 else x.astype(np.int32)
  return np.stack([as_bits(x) for x in values], -1)


# A score is a sum of four terms, each a quotient, a root or a logarithm.
FEW = tolerance('float32', 16)


def check_kept(tree, options, rules):
  """What serial policies rely on: all children of a node side by side or none; kept scores."""
  scores, widths = compute_anew(tree, options, rules)
  inputs = scored_by(tree, rules)
  for b in range(len(tree.num_nodes)):
    n = int(tree.num_nodes[b])
    np.testing.assert_allclose(tree.score[b, :n], scores[b, :n], rtol=FEW, atol=FEW)
    _, first, alike = np.unique(inputs[b, :n], axis=0, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(tree.score[b, :n], tree.score[b, first][alike])
    counts, parents = tree.num_children[b, :n], tree.parent[b, 1:n]
    assert ((counts == 0) | (counts == widths[b, :n])).all()
    slots = tree.first_slot[b, parents] + tree.child_index[b, 1 : 1 + len(parents)]
    np.testing.assert_array_equal(slots, np.arange(1, 1 + len(parents)))


def fuzz(policy, rules, num_trees, batch, seed):
  rng = np.random.default_rng(seed)
  plan = ForkPlan(np.arange(MAX_DEPTH) % 3 == 1, np.int32(4), np.bool_(seed % 2))
  for start in range(0, num_trees, batch):
    options = random_options(rng, batch, policy)
    rates = [
      np.where(
        rng.random(batch) < share, rng.choice([0.0, 1.0], batch), rng.random(batch) ** 2
      ).astype(np.float32)
      for share in (0.3, 0.6)
    ]
    keys = jax.random.split(jax.random.key(seed + start), batch)
    tree, is_bad = jax.device_get(grow(keys, options, plan, *rates, rules=rules))
    assert not is_bad.any(), np.flatnonzero(is_bad)
    check(tree, options, policy)
    if POLICIES[policy].is_serial:
      check_kept(tree, options, rules)
  return keys, options, plan, rates, tree


RULES = {
  'deepsearch': Rules(),
  'options': Rules(
    backtrack='uct',
    uncertainty='entropy',
    depth_bonus='log',
    ties='random',
    local_choice='sampled',
    negatives='least_confident',
    backup_rule='vanilla',
  ),
  'faithful': Rules(policy='faithful'),
  'direct': Rules(policy='direct'),
  'fork': Rules(policy='fork'),
}
MORE_RULES = RULES | {
  'sampled': Rules(uncertainty='sampled', depth_bonus='linear', ties='confident')
}


@pytest.mark.parametrize('name', ['deepsearch', 'options', 'direct', 'fork'])
def test_random_trees(name):
  fuzz(RULES[name].policy, RULES[name], 256, 256, seed=1)


@pytest.mark.long
@pytest.mark.parametrize('seed, name', list(enumerate(MORE_RULES, 2)))
def test_twenty_thousand_random_trees(seed, name):
  count = 20_480 if name == 'deepsearch' else 4_096
  fuzz(MORE_RULES[name].policy, MORE_RULES[name], count, 512, seed=seed)


def test_neighbours_do_not_change_a_tree():
  keys, options, plan, rates, first = fuzz('deepsearch', RULES['deepsearch'], 256, 256, seed=1)
  others = random_options(np.random.default_rng(9), 256, 'deepsearch')
  mixed = jax.tree.map(lambda x, y: np.concatenate([y[:200], x[:56]]), options, others)
  rates = [np.roll(rate, 200) for rate in rates]
  second, _ = grow(jnp.roll(keys, 200), mixed, plan, *rates, rules=RULES['deepsearch'])
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(x[:56], y[200:]), first, jax.device_get(second)
  )


@pytest.mark.long
@pytest.mark.parametrize('name', RULES)
def test_a_tree_alone_is_the_tree_among_others(name):
  rules = RULES[name]
  keys, options, plan, rates, together = fuzz(rules.policy, rules, 256, 256, seed=1)
  for b in range(0, 256, 8):
    pick = lambda x, b=b: jax.tree.map(lambda v: v[b : b + 1], x)
    alone, _ = grow(pick(keys), pick(options), plan, *pick(rates), rules=rules)
    jax.tree.map(
      lambda x, y, b=b: np.testing.assert_array_equal(x[0], y[b]), jax.device_get(alone), together
    )


def test_every_child_can_be_an_end_at_once():
  """All children of the root end: the owed trajectories are those passed over, best first."""
  options = random_options(np.random.default_rng(0), 1, 'deepsearch')._replace(
    width=np.int32([6]),
    min_width=np.int32([6]),
    width_decay=np.int32([0]),
    num_trajectories=np.int32([4]),
    max_expansions=np.int32([8]),
    max_tokens=np.int32([10_000]),
    max_depth=np.int32([5]),
  )
  rewards = np.float32([-1, -0.5, 1, -1, 1, -1, 0, 0])
  first = jax.tree.map(lambda x: x[0], options)
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
  def run(rules, options, children):
    tree = begin(new_tree(16, MAX_COLLECTED, jnp.zeros(2, jnp.uint32)), rules, options)
    return POLICIES[rules.policy].allocate(
      add_children(tree, jnp.int32(0), children, 0), rules, options, plan
    )

  for policy, wanted in (('deepsearch', [5, 3, 1, 6]), ('faithful', [5])):
    done, allocation = run(Rules(policy=policy), first, children)
    assert bool(done.is_done) and int(allocation.num_children.sum()) == 0
    assert np.asarray(done.collected)[: int(done.num_collected)].tolist() == wanted
