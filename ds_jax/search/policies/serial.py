"""The paper's search: one expansion of a tree at a time, then backup and selection.

Local UCT while no end is met, then the global frontier. A node that has all its children is
revisited: passed-over ends below it are collected, or the best child is taken. Where nothing can
be expanded any more (or the budget is spent) the owed trajectories are taken from passed-over
ends, best first; what is still missing stays missing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from ds_jax.search.backup import choose_end, collect, collect_children
from ds_jax.search.policies.base import Allocation, ForkPlan, Policy, is_spent
from ds_jax.search.scores import as_number, frontier_score
from ds_jax.search.selection import How, select
from ds_jax.search.settings import Defects, Settings, width_at
from ds_jax.search.tree import (
  Tree,
  child_nodes,
  choose,
  is_used,
  mean_value,
  rows,
  while_changing,
)


@struct.dataclass
class SerialState:
  """Where the search of a tree stands, and the frontier score of each node.

  A score changes only where the node's or its parent's mean value does, so those few are written
  anew after each backup (`rescore`), and the choice over all nodes reads them.
  """

  score: jax.Array  # [N] float32, -inf for ends and the root
  current: jax.Array  # [] int32, the node that gets children next
  how: jax.Array  # [] int32, how it was chosen (a How)
  is_exhausted: jax.Array  # [] bool, no node can get children any more, or the budget is spent


def init(capacity: int, first_children: ArrayLike) -> SerialState:
  """The state of a tree with room for N nodes whose root waits for its children."""
  del first_children
  return SerialState(
    score=jnp.full(capacity, -jnp.inf),
    current=jnp.int32(Tree.ROOT),
    how=jnp.int32(How.ROOT),
    is_exhausted=jnp.bool_(False),
  )


def root_width(settings: Settings) -> jax.Array:
  """`[]` int32: the root is expanded like any node."""
  return width_at(0, settings)


def serial_policy(defects: Defects) -> Policy:
  """The policy that has these defects of the released code and no others."""

  def allocate_with(tree: Tree, settings: Settings, plan: ForkPlan) -> tuple[Tree, Allocation]:
    del plan
    return allocate(tree, settings.replace(defects=defects))

  return Policy(
    first_children=root_width,
    init=init,
    allocate=allocate_with,
    is_serial=True,
    defects=defects,
  )


def allocate(tree: Tree, settings: Settings) -> tuple[Tree, Allocation]:
  """Backs up the newest children, then steps on without generation until a node needs children."""
  has_news = tree.num_fresh > 0
  is_exhausted = tree.policy.is_exhausted | (has_news & is_spent(tree, settings))
  tree = tree.with_policy(is_exhausted=is_exhausted).replace(num_fresh=jnp.int32(0))
  tree = step(tree, has_news, settings)

  def needs_step(tree: Tree) -> jax.Array:
    is_over = tree.is_done | tree.policy.is_exhausted
    return has_news & ~is_over & (missing_children(tree, settings) <= 0)

  tree = while_changing(needs_step, lambda tree: step(tree, jnp.bool_(True), settings), tree)
  if not settings.defects.loses_passed_over_ends:
    tree = drain(tree, settings)
  state = tree.policy
  is_done = tree.is_done | state.is_exhausted
  how = jnp.where(is_done, How.DONE, state.how).astype(jnp.int32)
  count = jnp.where(has_news & ~is_done, missing_children(tree, settings), 0)
  tree = tree.with_policy(how=how).replace(
    is_done=is_done, num_in_flight=tree.num_in_flight + count
  )
  first = tree.nodes.num_children[state.current]
  return tree, Allocation(state.current[None], first[None], count[None], how[None])


def missing_children(tree: Tree, settings: Settings) -> jax.Array:
  """`[]` int32: children that the current node still lacks."""
  current = tree.policy.current
  return width_at(tree.nodes.depth[current], settings) - tree.nodes.num_children[current]


def step(tree: Tree, is_wanted: jax.Array, settings: Settings) -> Tree:
  """One backup-and-select step over the current node's children, those collected before left out.

  Args:
    tree: _unbatched_ tree.
    is_wanted: `[]` bool, False: nothing is changed.
    settings: the rules.

  Returns:
    The tree with a new `current` and `how`, and whether it `is_done` or `is_exhausted`.
  """
  before = tree.policy
  after, has_end, changed = collect_children(tree, before.current, is_wanted, settings=settings)
  # The children of the current node may be new: their scores are to be written as well.
  parent = jnp.where(is_wanted, before.current, tree.no_node)
  after = rescore(after, jnp.append(parent, changed), settings)
  node, how, is_found = select(
    after, before.current, after.policy.score, has_end=has_end, settings=settings
  )
  is_done = after.num_collected >= settings.num_trajectories
  is_exhausted = before.is_exhausted | ~is_found
  how = jnp.where(is_exhausted, How.DRAIN, how)
  decided = after.with_policy(
    current=jnp.where(is_done | is_exhausted, before.current, node),
    how=jnp.where(is_done, How.DONE, how).astype(jnp.int32),
    is_exhausted=is_exhausted,
  ).replace(is_done=tree.is_done | is_done)
  return choose(is_wanted, decided, after)


def drain(tree: Tree, settings: Settings) -> Tree:
  """Where a tree is exhausted, collects passed-over ends, best first, while any are owed."""

  def is_owed(tree: Tree) -> jax.Array:
    has_owed = tree.num_collected < settings.num_trajectories
    has_passed_over = tree.num_collected < tree.nodes.num_ends[Tree.ROOT]
    return tree.policy.is_exhausted & has_owed & has_passed_over

  def collect_best(tree: Tree) -> Tree:
    nodes = tree.nodes
    is_passed_over = is_used(tree) & ~nodes.is_collected & nodes.is_terminal & nodes.is_valid
    end, _ = choose_end(nodes, is_passed_over, settings)
    tree, changed = collect(tree, end, settings)
    return rescore(tree, changed, settings)

  return while_changing(is_owed, collect_best, tree)


def rescore(tree: Tree, changed: jax.Array, settings: Settings) -> Tree:
  """The tree with the scores of the children of the `changed` nodes written anew.

  A node's own score follows when its parent is among them, as on every path to the root. Ends have
  no score.

  Args:
    tree: _unbatched_ tree in which the children of a node came all at once.
    changed: `[C]` int32, every node whose mean value has changed, and its parent; `tree.no_node`:
      none.
    settings: see `frontier_score`.
  """
  child, is_child = jax.vmap(child_nodes, in_axes=(None, 0))(tree, changed)  # [C, W]
  is_scored = is_child & (changed < tree.no_node)[:, None]
  child = jnp.where(is_scored, child, tree.no_node).ravel()
  children = rows(tree.nodes, child)
  parent_mean = jnp.repeat(mean_value(rows(tree.nodes, changed)), tree.max_width)
  score = as_number(frontier_score(children, parent_mean, settings))
  score = jnp.where(children.is_terminal, -jnp.inf, score)
  return tree.with_policy(score=tree.policy.score.at[child].set(score, mode='drop'))


DEEPSEARCH = serial_policy(Defects())
