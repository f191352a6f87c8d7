"""Which end of a step is learnt from, and how its value is credited along the path."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ds_jax.search.selection import keep_scores, node_draws
from ds_jax.search.settings import Options, Rules
from ds_jax.search.tree import (
  Tree,
  child_rows,
  first_lowest,
  path_to,
  rows,
  uncertainty,
)


def choose_end(
  candidates: Tree, is_candidate: jax.Array, rules: Rules, options: Options
) -> tuple[jax.Array, jax.Array]:
  """Picks the one end whose value is backed up and whose trajectory is collected.

  Correct ends (value 1) compete first, then wrong ones (value -1), then the rest (incomplete).
  Within a class the lowest uncertainty wins, i.e. the *most confident* answer: for wrong ends
  that is the paper's choice of the negative (section 3.2); the released code does the same among
  correct ones. First in creation order on ties. A path whose uncertainty is not a number (no
  countable token) counts as least confident; under 'faithful' it wins iff it comes first, as in
  the released code, whose running minimum is replaced only by something smaller.

  Args:
    candidates: rows of a tree in order of creation, C of them.
    is_candidate: `[C]` bool.
    rules, options: `negatives` replaces the choice among wrong ends.

  Returns:
    `[]` int32 row and `[]` bool, whether there was any.
  """
  ends = is_candidate & candidates.is_terminal & candidates.is_valid
  is_correct, is_wrong = ends & (candidates.reward == 1), ends & (candidates.reward == -1)
  pool = jnp.where(is_correct.any(), is_correct, jnp.where(is_wrong.any(), is_wrong, ends))
  cost = uncertainty(candidates, options.is_end_token_counted)
  if rules.policy == 'faithful':
    first = jnp.argmax(pool)
    cost = cost.at[first].set(jnp.where(jnp.isnan(cost[first]), -jnp.inf, cost[first]))
  cost = jnp.nan_to_num(cost, nan=jnp.finfo(jnp.float32).max, neginf=-jnp.inf)
  if rules.negatives != 'most_confident':
    if rules.negatives == 'least_confident':
      other = -jnp.maximum(cost, jnp.finfo(jnp.float32).min)
    else:  # random: a draw that belongs to the node, so that it repeats with the seed
      other = node_draws(candidates)
    cost = jnp.where(is_correct.any(), cost, other)
  return first_lowest(jnp.where(pool, cost, jnp.inf)), ends.any()


def backup(tree: Tree, path: jax.Array, value: jax.Array, rules: Rules, options: Options) -> Tree:
  """Credits one finished trajectory to every node from its end to the root.

  The node at depth i on a path that ends at depth l receives w(i, l) * value,
    w(i, l) = max((i + 1) / (l + 1), backup_threshold),
  as released (the paper writes max(i / l, 0.1)). 'constrained' (Eq. 5): a success erases blame, a
  failure never erases credit; visits grow even where the value is kept.

  Args:
    tree: _unbatched_ tree.
    path: `[P]` int32, from the terminal to the root; places beyond the capacity are none.
    value: `[]` float32 in [-1, 1]; 0 only counts the visit.
    rules, options: `backup_rule`, `backup_threshold`.
  """
  depth = tree.depth[path]
  weight = jnp.maximum((depth + 1) / (depth[0] + 1), options.backup_threshold)
  old, new = tree.value_sum[path], weight * value
  if rules.backup_rule == 'constrained':
    on_conflict = jnp.where(value > 0, new, old)
    credited = jnp.where(old * value >= 0, old + new, on_conflict)
  else:
    credited = old + new
  return tree.replace(
    value_sum=tree.value_sum.at[path].set(credited, mode='drop'),
    visit_count=tree.visit_count.at[path].add(1, mode='drop'),
  )


def collect(tree: Tree, path: jax.Array, rules: Rules, options: Options) -> Tree:
  """Backs up the end of a path (see `backup`) and counts it as collected; no end, no change."""
  end, is_end = path[0], path[0] < tree.capacity
  place = jnp.where(is_end, tree.num_collected, tree.collected.shape[0])
  return backup(tree, path, tree.reward[end], rules, options).replace(
    is_collected=tree.is_collected.at[end].set(True, mode='drop'),
    collected=tree.collected.at[place].set(end, mode='drop'),
    num_collected=tree.num_collected + is_end,
  )


def collect_children(
  tree: Tree, is_wanted: jax.Array, rules: Rules, options: Options
) -> tuple[Tree, jax.Array]:
  """One backup step over the current node's children, those collected before left out.

  Every unfinished candidate gets a visit (its ancestors do not); the chosen end is backed up and
  joins the collected ones. Ends that are not chosen stay as they are and can be collected later.

  Args:
    tree: _unbatched_ tree.
    is_wanted: `[]` bool, False: nothing is changed.

  Returns:
    The tree, and `[]` bool: whether any candidate was an end.
  """
  slots, is_child = child_rows(tree, tree.current)
  candidates = rows(tree, slots)
  is_candidate = is_wanted & is_child & ~candidates.is_collected
  end, has_end = choose_end(candidates, is_candidate, rules, options)
  visited = jnp.where(is_candidate & ~candidates.is_terminal, slots, tree.capacity)
  above = path_to(tree, tree.current)
  path = jnp.where(has_end, jnp.append(slots[end], above), tree.capacity)
  tree = tree.replace(visit_count=tree.visit_count.at[visited].add(1, mode='drop'))
  tree = collect(tree, path, rules, options)
  parent = jnp.where(is_wanted, tree.current, tree.capacity)
  touched = jnp.concatenate([parent[None], visited, path])
  return keep_scores(tree, touched, rules, options), has_end
