"""Which end of a step is learnt from, and how its value is credited along the path."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ds_jax.search.frontier import node_draws
from ds_jax.search.options import Options, Rules
from ds_jax.search.tree import Tree, choose, on_path, uncertainty


def choose_end(tree: Tree, candidates: jax.Array, rules: Rules,
               options: Options) -> tuple[jax.Array, jax.Array]:
  """Picks the one end whose value is backed up and whose trajectory is collected.

  Correct ends (value 1) compete first, then wrong ones (value -1), then the rest (incomplete).
  Within a class the lowest uncertainty wins, i.e. the *most confident* answer: for wrong ends
  that is the paper's choice of the negative (section 3.2); the released code does the same among
  correct ones. First in creation order on ties. A path whose uncertainty is not a number (no
  countable token) counts as least confident; under 'faithful' it wins iff it comes first, as in
  the released code, whose running minimum is replaced only by something smaller.

  Args:
    tree: _unbatched_ tree.
    candidates: `[N]` bool.
    rules, options: `negatives` replaces the choice among wrong ends.

  Returns:
    `[]` int32 node and `[]` bool, whether there was any.
  """
  ends = candidates & tree.is_terminal & tree.is_valid
  is_correct, is_wrong = ends & (tree.reward == 1), ends & (tree.reward == -1)
  pool = jnp.where(is_correct.any(), is_correct, jnp.where(is_wrong.any(), is_wrong, ends))
  cost = uncertainty(tree, options.is_end_token_counted)
  if rules.policy == 'faithful':
    first = jnp.argmax(pool)
    cost = cost.at[first].set(jnp.where(jnp.isnan(cost[first]), -jnp.inf, cost[first]))
  cost = jnp.nan_to_num(cost, nan=jnp.finfo(jnp.float32).max, neginf=-jnp.inf)
  if rules.negatives != 'most_confident':
    if rules.negatives == 'least_confident':
      other = -jnp.maximum(cost, jnp.finfo(jnp.float32).min)
    else:  # random: a draw that belongs to the node, so that it repeats with the seed
      other = node_draws(tree)
    cost = jnp.where(is_correct.any(), cost, other)
  return jnp.argmin(jnp.where(pool, cost, jnp.inf)), ends.any()


def backup(tree: Tree, leaf: jax.Array, value: jax.Array, rules: Rules, options: Options) -> Tree:
  """Credits one finished trajectory to every node from its end to the root.

  The node at depth i on a path that ends at depth l receives w(i, l) * value,
    w(i, l) = max((i + 1) / (l + 1), backup_threshold),
  as released (the paper writes max(i / l, 0.1)). 'constrained' (Eq. 5): a success erases blame, a
  failure never erases credit; visits grow even where the value is kept.

  Args:
    tree: _unbatched_ tree.
    leaf: `[]` int32, the terminal.
    value: `[]` float32 in [-1, 1]; 0 only counts the visit.
    rules, options: `backup_rule`, `backup_threshold`.
  """
  path = on_path(tree, leaf)
  weight = jnp.maximum((tree.depth + 1) / (tree.depth[leaf] + 1), options.backup_threshold)
  old, new = tree.value_sum, weight * value
  if rules.backup_rule == 'constrained':
    on_conflict = jnp.where(value > 0, new, old)
    credited = jnp.where(old * value >= 0, old + new, on_conflict)
  else:
    credited = old + new
  return tree.replace(value_sum=jnp.where(path, credited, old),
                      visit_count=tree.visit_count + path)


def collect(tree: Tree, candidates: jax.Array, rules: Rules,
            options: Options) -> tuple[Tree, jax.Array]:
  """One backup step over some candidates.

  Every unfinished candidate gets a visit (its ancestors do not); the chosen end is backed up and
  joins the collected ones. Ends that are not chosen stay as they are and can be collected later.

  Args:
    tree: _unbatched_ tree.
    candidates: `[N]` bool.

  Returns:
    The tree, and `[]` bool: whether any candidate was an end.
  """
  chosen, has_end = choose_end(tree, candidates, rules, options)
  unfinished = candidates & ~tree.is_terminal
  visited = tree.replace(visit_count=tree.visit_count + unfinished)
  credited = backup(visited, chosen, tree.reward[chosen], rules, options)
  credited = credited.replace(
      is_collected=credited.is_collected.at[chosen].set(True),
      collected=credited.collected.at[credited.num_collected].set(chosen, mode='drop'),
      num_collected=credited.num_collected + 1)
  return choose(has_end, credited, visited), has_end
