"""Allocation policies: from a tree to the nodes that get children next, and how many.

A policy is a pure function of one tree (new children included, not yet backed up), the rules, the
options and what is known of where forks pay. It returns the tree after its bookkeeping and an
`Allocation`. A tree without new children is left as it is. Trees that are done allocate nothing.
The serial policies wait for one expansion and then ask for the next; the policies of rollouts.py
ask for many at once, in waves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ds_jax.search import selection as frontier_lib
from ds_jax.search.backup import choose_end, collect, collect_children
from ds_jax.search.policies import waves as rollouts
from ds_jax.search.policies.waves import Allocation, ForkPlan, is_spent
from ds_jax.search.settings import How, Options, Rules, width_at
from ds_jax.search.tree import Tree, choose, is_used, path_to, while_changing

# (tree, rules, options, plan) -> (tree, Allocation)
AllocateFn = Callable[[Tree, Rules, Options, ForkPlan], tuple[Tree, Allocation]]


CHANGED_BY_COLLECTING = (
  'visit_count',
  'value_sum',
  'score',
  'is_collected',
  'collected',
  'num_collected',
)
CHANGED_BY_STEP = (*CHANGED_BY_COLLECTING, 'current', 'how', 'is_exhausted', 'is_done')


class Policy(NamedTuple):
  """How a tree starts, and how it goes on."""

  first_children: Callable[[Options], jax.Array]  # `[]` int32, of the root; host numbers will do
  allocate: AllocateFn
  is_serial: bool  # one expansion of a tree at a time; its node order is that of creation


def begin(tree: Tree, rules: Rules, options: Options) -> Tree:
  """A blank tree whose first children have been asked for."""
  count = POLICIES[rules.policy].first_children(options)
  return tree.replace(
    num_asked=tree.num_asked.at[Tree.ROOT].set(count), num_in_flight=jnp.int32(count)
  )


def deepsearch(
  tree: Tree, rules: Rules, options: Options, plan: ForkPlan
) -> tuple[Tree, Allocation]:
  """The paper's search with the released code's defects mended.

  Local UCT while no end is met, then the global frontier. A node that has all its children is
  revisited: passed-over ends below it are collected, or the best child is taken. Where nothing can
  be expanded any more (or the budget is spent) the owed trajectories are taken from passed-over
  ends, best first; what is still missing stays missing. (Released: an assertion that takes the
  whole batch with it, in 28 % of runs when 80 % of children end.)
  """
  del plan
  return _serial(tree, rules, options, drains=True)


def faithful(tree: Tree, rules: Rules, options: Options, plan: ForkPlan) -> tuple[Tree, Allocation]:
  """The released rules, defects included; where the released code stops with an assertion, the
  tree ends with what it has collected, alone. (Ours: a spent budget ends it likewise.)"""
  del plan
  return _serial(tree, rules, options, drains=False)


def root_width(options: Options) -> jax.Array:
  """`[]` int32: the serial policies expand the root like any node."""
  return width_at(options, 0)


POLICIES: dict[str, Policy] = {
  'deepsearch': Policy(root_width, deepsearch, is_serial=True),
  'faithful': Policy(root_width, faithful, is_serial=True),
  'direct': Policy(rollouts.first_rollouts, rollouts.direct, is_serial=False),
  'fork': Policy(rollouts.first_rollouts, rollouts.fork, is_serial=False),
}


def _serial(tree: Tree, rules: Rules, options: Options, drains: bool) -> tuple[Tree, Allocation]:
  """Backs up the newest children, then steps on without generation until a node needs children.

  `drains` is static: whether what is owed at the end is taken from passed-over ends.
  """
  has_news = tree.num_fresh > 0
  tree = tree.replace(
    is_exhausted=tree.is_exhausted | (has_news & is_spent(tree, options)), num_fresh=jnp.int32(0)
  )
  tree = step(tree, has_news, rules, options)

  def needs_step(tree: Tree) -> jax.Array:
    return has_news & ~tree.is_done & ~tree.is_exhausted & (missing_children(tree, options) <= 0)

  tree = while_changing(
    CHANGED_BY_STEP, needs_step, lambda tree: step(tree, jnp.bool_(True), rules, options), tree
  )
  tree = drain(tree, rules, options) if drains else tree
  is_done = tree.is_done | tree.is_exhausted
  tree = tree.replace(is_done=is_done, how=jnp.where(is_done, How.DONE, tree.how).astype(jnp.int32))
  count = jnp.where(has_news & ~is_done, missing_children(tree, options), 0)
  tree = tree.replace(num_in_flight=tree.num_in_flight + count)
  first = tree.num_children[tree.current]
  return tree, Allocation(tree.current[None], first[None], count[None], jnp.zeros(1, bool))


def drain(tree: Tree, rules: Rules, options: Options) -> Tree:
  """Where a tree is exhausted, collects passed-over ends, best first, while any are owed."""

  def passed_over(tree: Tree) -> jax.Array:
    return is_used(tree) & ~tree.is_collected & tree.is_terminal & tree.is_valid

  def is_owed(tree: Tree) -> jax.Array:
    return (
      tree.is_exhausted
      & (tree.num_collected < options.num_trajectories)
      & (tree.num_collected < tree.num_ends[Tree.ROOT])
    )

  def collect_best(tree: Tree) -> Tree:
    end, _ = choose_end(tree, passed_over(tree), rules, options)
    path = path_to(tree, end)
    return frontier_lib.keep_scores(collect(tree, path, rules, options), path, rules, options)

  return while_changing(CHANGED_BY_COLLECTING, is_owed, collect_best, tree)


def missing_children(tree: Tree, options: Options) -> jax.Array:
  """`[]` int32: children that the current node still lacks."""
  return width_at(options, tree.depth[tree.current]) - tree.num_children[tree.current]


def step(tree: Tree, is_wanted: jax.Array, rules: Rules, options: Options) -> Tree:
  """One backup-and-select step over the current node's children, those collected before left out;
  sets `current`, `how`, `is_done`. Nothing is changed unless `is_wanted` `[]` bool."""
  after, has_end = collect_children(tree, is_wanted, rules, options)
  is_done = after.num_collected >= options.num_trajectories
  node, how, is_found = select(after, has_end, rules, options)
  is_exhausted = tree.is_exhausted | ~is_found
  how = jnp.where(is_exhausted, How.DRAIN, how)
  decided = after.replace(
    current=jnp.where(is_done | is_exhausted, tree.current, node),
    how=jnp.where(is_done, How.DONE, how).astype(jnp.int32),
    is_exhausted=is_exhausted,
    is_done=tree.is_done | is_done,
  )
  unchanged = {name: getattr(tree, name) for name in ('current', 'how', 'is_exhausted', 'is_done')}
  return choose(is_wanted, decided, after.replace(**unchanged))


def select(
  tree: Tree, has_end: jax.Array, rules: Rules, options: Options
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The node to go to: local UCT, or after an end the root's best child or the global frontier.

  Args:
    tree: _unbatched_ tree after the backup.
    has_end: `[]` bool, whether a candidate of this step was an end.

  Returns:
    `[]` int32 node, `[]` int32 How, `[]` bool whether a node was found.
  """
  child, has_child = frontier_lib.best_child(tree, tree.current, rules, options)
  # One choice over all nodes: a fallback is strict, a jump as the option says.
  eligible = frontier_lib.frontier(tree, ~has_end | options.is_frontier_strict)
  fallback, has_fallback = jump, has_jump = frontier_lib.best(tree, tree.score, eligible, rules)
  if rules.backtrack == 'uct':
    jump, has_jump = frontier_lib.best_child(tree, jnp.int32(Tree.ROOT), rules, options)
  jump_how = How.UCT if rules.backtrack == 'uct' else How.GLOBAL
  # An invalid end is no candidate: with nothing else below, the search jumps as after an end.
  node = jnp.where(has_end, jump, jnp.where(has_child, child, fallback))
  how = jnp.where(has_end, jump_how, jnp.where(has_child, How.LOCAL, How.FALLBACK))
  found = jnp.where(has_end, has_jump, has_child | has_fallback)
  return node, how, found
