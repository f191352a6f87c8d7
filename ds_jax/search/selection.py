"""Selection: UCT among siblings, and the best node of the whole frontier.

Ties decide most selections of the released code (95 % of the global ones), so their order is part
of every rule.
"""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp

from ds_jax.checks import check_rank, check_shape
from ds_jax.search.scores import as_number, confidence, uct
from ds_jax.search.settings import Settings
from ds_jax.search.tree import (
  Nodes,
  Tree,
  child_nodes,
  first_lowest,
  is_used,
  node_draws,
  rows,
)


class How(enum.IntEnum):
  """How a node was chosen."""

  ROOT = 0
  LOCAL = 1  # best child by UCT, descending
  FALLBACK = 2  # nothing below: global frontier, strict
  UCT = 3  # best child of the root by UCT
  GLOBAL = 4  # best node of the frontier
  DRAIN = 5  # a passed-over end, taken because trajectories are owed and nothing can be expanded
  DONE = 6
  ROLLOUT = 7  # the next segment of a rollout, or a child from which its depth is probed
  FORK = 8  # one more child, because of how its rollout ended


def best(
  nodes: Nodes, scores: jax.Array, is_eligible: jax.Array, *, settings: Settings
) -> tuple[jax.Array, jax.Array]:
  """Returns the eligible node with the highest score; equal ones as `settings.ties` says.

  Args:
    nodes: rows of a tree, N of them.
    scores: `[N]` float32, see `as_number`.
    is_eligible: `[N]` bool.
    settings: `ties`.

  Returns:
    `[]` int32 row and `[]` bool, whether any was eligible.
  """
  check_rank('scores', scores, 1)
  check_shape('is_eligible', is_eligible, scores.shape)
  # The highest score of all …
  eligible_scores = jnp.where(is_eligible, scores, -jnp.inf)
  highest = eligible_scores.max()
  is_best = eligible_scores == highest
  # … of equal ones those that the rule prefers …
  if settings.ties != 'first':
    preference = confidence(nodes) if settings.ties == 'confident' else node_draws(nodes)
    preference = jnp.where(is_best, preference, -jnp.inf)
    is_best &= preference == preference.max()
  # … and of these the first in depth-first pre-order.
  rank = jnp.where(is_best, nodes.preorder, jnp.iinfo(jnp.int32).max)
  return first_lowest(rank), highest > -jnp.inf


def best_child(tree: Tree, node: jax.Array, settings: Settings) -> tuple[jax.Array, jax.Array]:
  """Returns the unfinished child of `node` with the highest UCT, or one drawn with probability
  softmax(UCT), as `settings.local_choice` says.

  Returns:
    `[]` int32 node and `[]` bool, whether there was any.
  """
  child, is_child = child_nodes(tree, node)
  children = rows(tree.nodes, child)
  scores = uct(children, tree.nodes.visit_count[node], settings)
  if settings.local_choice == 'sampled':
    # The highest of scores with Gumbel noise, -ln(-ln u), is a draw from their softmax.
    draws = node_draws(children, moment=1 + tree.nodes.visit_count.sum())
    scores += -jnp.log(-jnp.log(jnp.clip(draws, 1e-7, 1 - 1e-6)))
  is_eligible = is_child & ~children.is_terminal
  row, is_any = best(children, as_number(scores), is_eligible, settings=settings)
  return child[row], is_any


def frontier(tree: Tree, scores: jax.Array, is_strict: jax.Array) -> jax.Array:
  """`[N]` bool: the nodes open to global selection.

  Args:
    tree: _unbatched_ tree.
    scores: `[N]` float32, -inf for ends and the root.
    is_strict: `[]` bool, only nodes that still lack children, which come all at once.
  """
  lacks_children = tree.nodes.num_children == 0
  is_unfinished = is_used(tree) & (scores > -jnp.inf)
  return is_unfinished & (~is_strict | lacks_children)


def select(
  tree: Tree, current: jax.Array, scores: jax.Array, *, has_end: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the node to go to from `current`, after its children have been backed up.

  Without an end among the children: the best child by UCT, or the best node of the frontier if no
  child can be entered. After an end: the best node of the frontier, or the root's best child, as
  `settings.backtrack` says.

  Args:
    tree: _unbatched_ tree after the backup.
    current: `[]` int32, the node whose children were backed up.
    scores: `[N]` float32, frontier scores.
    has_end: `[]` bool, whether a candidate of this step was an end.
    settings: the rules.

  Returns:
    `[]` int32 node, `[]` int32 How, `[]` bool whether a node was found.
  """
  child, has_child = best_child(tree, current, settings)
  # One choice over all nodes: a fallback is strict, a jump as the settings say.
  is_eligible = frontier(tree, scores, ~has_end | settings.is_frontier_strict)
  fallback, has_fallback = best(tree.nodes, scores, is_eligible, settings=settings)
  if settings.backtrack == 'uct':
    jump, has_jump = best_child(tree, jnp.int32(Tree.ROOT), settings)
    jump_how = How.UCT
  else:
    jump, has_jump, jump_how = fallback, has_fallback, How.GLOBAL
  # An invalid end is no candidate: with nothing else below, the search jumps as after an end.
  node = jnp.where(has_end, jump, jnp.where(has_child, child, fallback))
  how = jnp.where(has_end, jump_how, jnp.where(has_child, How.LOCAL, How.FALLBACK))
  is_found = jnp.where(has_end, has_jump, has_child | has_fallback)
  return node, how, is_found
