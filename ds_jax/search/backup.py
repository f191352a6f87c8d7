"""Which end of a step is learnt from, and how its value is credited along the path.

All functions are pure: they return the tree, and the nodes whose value or visits have changed, for
whoever keeps something computed from these.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ds_jax.checks import check_rank, check_shape
from ds_jax.search.scores import HIGHEST, LOWEST, path_uncertainty
from ds_jax.search.settings import Settings
from ds_jax.search.tree import Nodes, Tree, child_nodes, first_lowest, node_draws, path_to, rows


def choose_end(
  candidates: Nodes, is_candidate: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
  """Picks the one end whose value is backed up and whose trajectory is collected.

  Correct ends (value 1) compete first, then wrong ones (value -1), then the rest (incomplete).
  Within a class the lowest uncertainty wins, i.e. the *most confident* answer: for wrong ends
  that is the paper's choice of the negative (section 3.2); the released code does the same among
  correct ones. First in creation order on ties. A path whose uncertainty is not a number (no
  countable token) counts as least confident.

  Args:
    candidates: rows of a tree in order of creation, C of them.
    is_candidate: `[C]` bool.
    settings: `negatives` replaces the choice among wrong ends; `defects`.

  Returns:
    `[]` int32 row and `[]` bool, whether there was any.
  """
  check_rank('is_candidate', is_candidate, 1)
  check_shape('candidates.reward', candidates.reward, is_candidate.shape)
  # The best class that has an end: correct, else wrong, else any.
  is_end = is_candidate & candidates.is_terminal & candidates.is_valid
  is_correct = is_end & (candidates.reward == 1)
  is_wrong = is_end & (candidates.reward == -1)
  has_correct = is_correct.any()
  in_class = jnp.where(is_wrong.any(), is_wrong, is_end)
  in_class = jnp.where(has_correct, is_correct, in_class)

  # Within it the lowest cost wins: the path's uncertainty, the largest number where it is none.
  cost = path_uncertainty(candidates, settings)
  if settings.defects.first_end_wins_without_confidence:
    first = jnp.argmax(in_class)
    cost_of_first = jnp.where(jnp.isnan(cost[first]), -jnp.inf, cost[first])
    cost = cost.at[first].set(cost_of_first)
  cost = jnp.nan_to_num(cost, nan=HIGHEST, neginf=-jnp.inf)

  # Unless no end is correct and another rule chooses among wrong ones.
  if settings.negatives == 'least_confident':
    reversed_cost = -jnp.maximum(cost, LOWEST)
    cost = jnp.where(has_correct, cost, reversed_cost)
  elif settings.negatives == 'random':  # a draw that belongs to the node repeats with the seed
    cost = jnp.where(has_correct, cost, node_draws(candidates))
  return first_lowest(jnp.where(in_class, cost, jnp.inf)), is_end.any()


def backup(tree: Tree, path: jax.Array, value: jax.Array, *, settings: Settings) -> Tree:
  """Credits one finished trajectory to every node from its end to the root.

  The node at depth i on a path that ends at depth l receives w(i, l) * value,
    w(i, l) = max((i + 1) / (l + 1), backup_threshold),
  as released (the paper writes max(i / l, 0.1), Eq. 4). Under the rule 'constrained' (Eq. 5)
    q' = q + w v   where q v >= 0,
    q' = w v       where q < 0 < v: a success erases blame,
    q' = q         where v < 0 < q: a failure never erases credit;
  visits grow even where the value is kept.

  Args:
    tree: _unbatched_ tree.
    path: `[P]` int32, from the terminal to the root, see `path_to`.
    value: `[]` float32 in [-1, 1]; 0 only counts the visit.
    settings: `backup_rule`, `backup_threshold`.
  """
  check_rank('path', path, 1)
  check_rank('value', value, 0)
  nodes = tree.nodes
  # w(i, l), and what each node is to be credited with.
  depth = nodes.depth[path]
  weight = jnp.maximum((depth + 1) / (depth[0] + 1), settings.backup_threshold)
  credit = weight * value
  # The sum, unless the signs of old and new are at odds.
  old = nodes.value_sum[path]
  value_sum = old + credit
  if settings.backup_rule == 'constrained':
    on_conflict = jnp.where(value > 0, credit, old)
    value_sum = jnp.where(old * value >= 0, value_sum, on_conflict)
  return tree.with_nodes(
    value_sum=nodes.value_sum.at[path].set(value_sum, mode='drop'),
    visit_count=nodes.visit_count.at[path].add(1, mode='drop'),
  )


def collect(tree: Tree, end: jax.Array, settings: Settings) -> tuple[Tree, jax.Array]:
  """Backs up an end (see `backup`) and counts it as collected.

  Args:
    tree: _unbatched_ tree.
    end: `[]` int32, or `tree.no_node`: nothing changes.
    settings: see `backup`.

  Returns:
    The tree, and the nodes that have changed, `[D + 1]` int32; `tree.no_node` beyond.
  """
  path = path_to(tree, end)
  tree = backup(tree, path, tree.nodes.reward[end], settings=settings)
  is_end = end < tree.no_node
  place = jnp.where(is_end, tree.num_collected, tree.collected.shape[0])  # beyond: dropped
  is_collected = tree.nodes.is_collected.at[end].set(True, mode='drop')
  tree = tree.with_nodes(is_collected=is_collected).replace(
    collected=tree.collected.at[place].set(end, mode='drop'),
    num_collected=tree.num_collected + is_end,
  )
  return tree, path


def collect_children(
  tree: Tree, node: jax.Array, is_wanted: jax.Array, *, settings: Settings
) -> tuple[Tree, jax.Array, jax.Array]:
  """One backup step over the children of `node`, those collected before left out.

  Every unfinished candidate gets a visit (its ancestors do not); the chosen end is backed up and
  joins the collected ones. Ends that are not chosen stay as they are and can be collected later.

  Args:
    tree: _unbatched_ tree in which the children of a node came all at once.
    node: `[]` int32.
    is_wanted: `[]` bool, False: nothing is changed.
    settings: see `choose_end` and `backup`.

  Returns:
    The tree, `[]` bool whether any candidate was an end, and the nodes that have changed, `[C]`
    int32; `tree.no_node` beyond.
  """
  child, is_child = child_nodes(tree, node)
  candidates = rows(tree.nodes, child)
  is_candidate = is_wanted & is_child & ~candidates.is_collected
  row, has_end = choose_end(candidates, is_candidate, settings)
  end = jnp.where(has_end, child[row], tree.no_node)
  visited = jnp.where(is_candidate & ~candidates.is_terminal, child, tree.no_node)
  visit_count = tree.nodes.visit_count.at[visited].add(1, mode='drop')
  tree, path = collect(tree.with_nodes(visit_count=visit_count), end, settings)
  return tree, has_end, jnp.concatenate([visited, path])
