"""Allocation in waves: direct rollouts, and forks of rollouts where they pay.

Many expansions of one tree are under way at once, and they come back in any order. What is decided
while a wave runs is local (an unfinished node gets its next segment); ends are backed up and new
waves planned only when everything asked for is there, in depth-first order. So a tree's content
depends on nothing but its key.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.search.backup import collect
from ds_jax.search.selection import NOT_A_CHILD
from ds_jax.search.settings import How, Options, Rules
from ds_jax.search.tree import (
  Tree,
  children_of,
  choose,
  fresh_nodes,
  is_used,
  on_path,
  path_to,
  while_changing,
)

MAX_FORKS = 4  # of one rollout, the probe not counted
MAX_ASKED = 16  # nodes that one call asks children for; the others follow in later calls
RARE = 0.15  # below this share of correct rollouts a success is worth more forks


class Allocation(NamedTuple):
  """A nodes of one tree that get children next (A is 1 for the serial policies)."""

  node: jax.Array  # [A] int32
  first_child: jax.Array  # [A] int32, place of the first new child among its siblings
  num_children: jax.Array  # [A] int32, 0: none
  is_fork: jax.Array  # [A] bool, asked for because of an outcome


class ForkPlan(NamedTuple):
  """Where forks pay: what the split-depth counts of recent steps say (statistics.fork_plan)."""

  is_allowed: jax.Array  # [D] bool, by depth of the forked node; the root is never
  best_depth: jax.Array  # [] int32
  is_steep: jax.Array  # [] bool, all forks go to the best depth, twice as many


def no_forks(max_depth: int) -> ForkPlan:
  """Nothing is known: no depth is allowed."""
  return ForkPlan(np.zeros(max_depth, bool), np.int32(0), np.bool_(False))


def is_spent(tree: Tree, options: Options) -> jax.Array:
  """`[]` bool: a budget of the tree is used up."""
  return (tree.num_expansions >= options.max_expansions) | (
    tree.num_generated >= options.max_tokens
  )


def first_rollouts(options: Options) -> jax.Array:
  """Rollouts of the first wave, `[]` int32: K, or fewer where the longest ones would not fit the
  budgets, but one in any case."""
  by_tokens = options.max_tokens // (options.max_depth * options.segment_length)
  fitting = jnp.minimum(options.max_expansions // options.max_depth, by_tokens)
  return jnp.clip(options.num_trajectories, 1, jnp.maximum(fitting, 1)).astype(jnp.int32)


def direct(tree: Tree, rules: Rules, options: Options, plan: ForkPlan) -> tuple[Tree, Allocation]:
  """K rollouts from the root, each a line of single children.

  An end that could not be verified is not made up for. Where budgets did not allow all K at once,
  more follow while what is left allows for them.
  """
  del plan
  received, is_over = _receive(tree, rules, options)
  missing = options.num_trajectories - received.num_asked[Tree.ROOT]
  return _ask(tree, _add_rollouts(received, missing, is_over, options))


def fork(tree: Tree, rules: Rules, options: Options, plan: ForkPlan) -> tuple[Tree, Allocation]:
  """Rollouts from the root, then a few forks of them at depths where forking beats restarting.

  For any problem a fresh continuation from depth d of a failed rollout succeeds with probability
  p U_d at the share x of a rollout's price, so forking there beats restarting iff U_d / x > 1.
  First K rollouts. Then, from each failed rollout, and each successful one where success is
  common, 2 forks spread over the allowed depths (4 at the best depth where U/x is steep). Where
  success is rare, each successful rollout gets 4 forks over all depths instead. A share of
  rollouts gets one more fork at a random depth, whatever its outcome: only those, and the
  rollouts, count for U. With a token budget, waves alternate until it is used up; without one the
  tree ends after the forks. No allowed depth: direct rollouts.

  An addition of ours; neither paper nor released code has it.
  """
  received, is_over = _receive(tree, rules, options)
  forked = _add_forks(received, is_over, options, plan)
  is_bounded = options.max_tokens < jnp.iinfo(jnp.int32).max
  is_next = is_over & (forked.children_due.sum() + forked.forks_due.sum() == 0) & is_bounded
  return _ask(tree, _add_rollouts(forked, options.num_trajectories, is_next, options))


def _receive(tree: Tree, rules: Rules, options: Options) -> tuple[Tree, jax.Array]:
  """Lets new unfinished nodes go on; at the end of a wave backs up its ends.

  Returns:
    The tree and `[]` bool, whether the wave is over.
  """
  going_on = fresh_nodes(tree) & ~tree.is_terminal
  tree = tree.replace(
    children_due=tree.children_due + going_on,
    visit_count=tree.visit_count + going_on,
    num_fresh=jnp.int32(0),
  )
  is_over = (tree.num_in_flight == 0) & (tree.children_due.sum() + tree.forks_due.sum() == 0)

  def open_ends(tree: Tree) -> jax.Array:
    return is_over & is_used(tree) & tree.is_terminal & tree.is_valid & ~tree.is_collected

  def collect_first(tree: Tree) -> Tree:
    end = jnp.argmin(jnp.where(open_ends(tree), tree.preorder, jnp.iinfo(jnp.int32).max))
    return collect(tree, path_to(tree, end), rules, options)

  changed = ('visit_count', 'value_sum', 'is_collected', 'collected', 'num_collected')
  return while_changing(changed, lambda t: open_ends(t).any(), collect_first, tree), is_over


def _add_rollouts(tree: Tree, wanted: jax.Array, is_next: jax.Array, options: Options) -> Tree:
  """Up to `wanted` more rollouts, as the budgets allow; none where `is_next` is False.

  Expansions are reserved for the longest path, tokens for the mean one so far.
  """
  left = options.max_expansions - tree.num_expansions
  ends = rollout_ends(tree)
  longest = options.max_depth * options.segment_length
  mean = jnp.where(
    ends.any(), jnp.where(ends, tree.path_tokens, 0).sum() / jnp.maximum(ends.sum(), 1), longest
  )
  affordable = (options.max_tokens - tree.num_generated) / jnp.maximum(mean, 1)
  fitting = jnp.minimum(left // options.max_depth, affordable.astype(jnp.int32))
  count = jnp.where(is_next, jnp.clip(wanted, 0, jnp.maximum(fitting, 0)), 0)
  return tree.replace(children_due=tree.children_due.at[Tree.ROOT].add(count))


def rollout_ends(tree: Tree) -> jax.Array:
  """`[N]` bool: verified ends of rollouts that no fork belongs to."""
  return is_used(tree) & tree.is_rollout & tree.is_terminal & tree.is_valid


def _add_forks(tree: Tree, is_over: jax.Array, options: Options, plan: ForkPlan) -> Tree:
  """Decides on the forks of all rollouts that none have been decided for."""
  ends = rollout_ends(tree)
  solve_rate = (ends & (tree.reward == 1)).sum() / jnp.maximum(ends.sum(), 1)

  def add(state):
    children_due, forks_due, planned, expansions, tokens = state
    rollout = jnp.argmax(children_of(tree, jnp.int32(Tree.ROOT)) & (tree.child_index == planned))
    rank, size = tree.preorder[rollout], tree.subtree_size[rollout]
    mine = ends & (tree.preorder >= rank) & (tree.preorder < rank + size)
    end = jnp.argmax(mine)
    depths, is_probe, is_wanted = _fork_depths(tree, rollout, end, solve_rate, options, plan)
    is_wanted &= mine.any()
    path = (
      jnp.zeros(plan.is_allowed.shape[0] + 1, jnp.int32)
      .at[jnp.where(on_path(tree, end), tree.depth, tree.capacity)]
      .set(jnp.arange(tree.capacity), mode='drop')
    )  # nodes by depth
    node = path[depths]
    segments = options.max_depth - depths  # at most
    price = tree.path_tokens[end] - tree.path_tokens[node]  # as long as the forked rollout's rest
    total = lambda values: jnp.cumsum(jnp.where(is_wanted, values, 0))
    is_wanted &= (total(segments) <= expansions) & (total(price) <= tokens)
    return (
      children_due.at[node].add(is_wanted & is_probe),
      forks_due.at[node].add(is_wanted & ~is_probe),
      planned + 1,
      expansions - total(segments)[-1],
      tokens - total(price)[-1],
    )

  children_due, forks_due, planned, _, _ = jax.lax.while_loop(
    lambda state: is_over & (state[2] < tree.num_children[Tree.ROOT]),
    add,
    (
      tree.children_due,
      tree.forks_due,
      tree.num_planned,
      options.max_expansions - tree.num_expansions,
      options.max_tokens - tree.num_generated,
    ),
  )
  return tree.replace(children_due=children_due, forks_due=forks_due, num_planned=planned)


def _fork_depths(
  tree: Tree,
  rollout: jax.Array,
  end: jax.Array,
  solve_rate: jax.Array,
  options: Options,
  plan: ForkPlan,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Depths of the nodes where a rollout is forked.

  Args:
    tree: _unbatched_ tree.
    rollout, end: `[]` int32, the rollout's first and last node.
    solve_rate: `[]` float32, share of correct ends among the tree's rollouts.

  Returns:
    `[5]` int32 depths, `[5]` bool is_probe, `[5]` bool is_wanted.
  """
  key = jax.random.fold_in(jax.random.wrap_key_data(tree.key[rollout]), NOT_A_CHILD)
  draws = jax.random.uniform(key, (MAX_FORKS + 2,))
  length = tree.depth[end]
  depth = jnp.arange(plan.is_allowed.shape[0])
  inner = (depth > 0) & (depth < length)
  is_correct = tree.reward[end] == 1
  is_rare = is_correct & (solve_rate < RARE)

  place = jnp.arange(MAX_FORKS)
  regular = jnp.where(plan.is_steep, 4, 2)
  count = jnp.where(is_rare, MAX_FORKS, regular)
  allowed = inner & jnp.where(is_rare, True, plan.is_allowed)
  # Stratified: the j-th of n forks falls in the j-th n-th of the allowed depths.
  depths = _nth(allowed, (place + draws[:MAX_FORKS]) / count)
  is_best = plan.is_steep & ~is_rare
  depths = jnp.where(is_best, jnp.minimum(plan.best_depth, length - 1), depths)
  is_wanted = (place < count) & allowed.any() & (depths > 0)
  probe = _nth(inner, draws[MAX_FORKS + 1])
  is_probed = (draws[MAX_FORKS] < options.probe_share) & inner.any()
  return (
    jnp.append(depths, probe),
    jnp.arange(MAX_FORKS + 1) == MAX_FORKS,
    jnp.append(is_wanted, is_probed),
  )


def _nth(mask: jax.Array, share: jax.Array) -> jax.Array:
  """Index of the element of `mask` below which lies `share` of its True ones; int32."""
  seen = jnp.cumsum(mask)
  wanted = jnp.minimum(jnp.floor(share * seen[-1]), seen[-1] - 1) + 1
  return jnp.searchsorted(seen, jnp.maximum(wanted, 1)).clip(0, mask.shape[0] - 1).astype(jnp.int32)


def num_asked_at_once(max_collected: int) -> int:
  """A: nodes in one Allocation."""
  return min(max_collected, MAX_ASKED)


def _ask(given: Tree, tree: Tree) -> tuple[Tree, Allocation]:
  """Turns what is due into an Allocation of A nodes; what does not fit is asked for later.

  What is due whatever the outcomes were goes first, so that child indices do not depend on when.
  Where `given` has no new children, it is returned as it is, and nothing is asked for.
  """
  due = jnp.concatenate([tree.children_due, tree.forks_due])
  order = jnp.concatenate([tree.preorder, tree.preorder + tree.capacity])
  key, entry = jax.lax.top_k(
    -jnp.where(due > 0, order, jnp.iinfo(jnp.int32).max), num_asked_at_once(tree.collected.shape[0])
  )
  is_asked = key > -jnp.iinfo(jnp.int32).max
  node, is_fork = entry % tree.capacity, entry >= tree.capacity
  count = jnp.where(is_asked, due[entry], 0)
  before = jnp.where(is_fork, tree.children_due[node], 0)
  first = tree.num_asked[node] + before
  zero = lambda array, mine: array.at[jnp.where(is_asked & mine, node, tree.capacity)].set(
    0, mode='drop'
  )
  is_done = (tree.num_in_flight == 0) & ~is_asked.any()
  tree = tree.replace(
    children_due=zero(tree.children_due, ~is_fork),
    forks_due=zero(tree.forks_due, is_fork),
    num_asked=tree.num_asked.at[node].add(count),
    num_in_flight=tree.num_in_flight + count.sum(),
    is_done=is_done,
    how=jnp.where(is_done, How.DONE, How.ROLLOUT).astype(jnp.int32),
  )
  has_news = given.num_fresh > 0
  return (
    choose(has_news, tree, given),
    Allocation(node, first, jnp.where(has_news, count, 0), is_fork),
  )
