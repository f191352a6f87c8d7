"""Selection: UCT among siblings and the global frontier score, over all nodes at once.

A score changes only where the node's or its parent's mean value does. So the scores of those few
are written anew after each backup (`keep_scores`), and the choice over all nodes reads them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ds_jax.search.settings import Options, Rules
from ds_jax.search.tree import Tree, child_rows, first_lowest, is_used, mean_value, rows

# What a node's key is folded with where a number is wanted, not a child's key (indices from 0).
NOT_A_CHILD = 0x7FFF_FFFF


def uct_scores(children: Tree, parent_visits: jax.Array, options: Options) -> jax.Array:
  """Q_c + lambda_uct * sqrt(ln n_p / n_c) of the children c of a node p with n_p visits.

  The second term is 0 where n_p or n_c is 0. (The released code names it `puct`; it has no prior.)

  Args:
    children: rows of a tree, C of them.
    parent_visits: `[]` int32.
    options: `lambda_uct`.

  Returns:
    `[C]` float32.
  """
  log_visits = jnp.log(jnp.maximum(parent_visits, 1).astype(jnp.float32))
  bonus = jnp.sqrt(log_visits / jnp.maximum(children.visit_count, 1))
  is_counted = (parent_visits > 0) & (children.visit_count > 0)
  return mean_value(children) + options.lambda_uct * jnp.where(is_counted, bonus, 0.0)


def quality(tree: Tree, parent_mean: jax.Array, options: Options) -> jax.Array:
  """lambda1 * tanh(Q_parent) + lambda4 * tanh(Q_own); `[N]` float32. The released code counts the
  second only for lambda4 > 0."""
  own = jnp.maximum(options.lambda4, 0.0) * jnp.tanh(mean_value(tree))
  return options.lambda1 * jnp.tanh(parent_mean) + own


def segment_uncertainty(tree: Tree, rules: Rules, options: Options) -> jax.Array:
  """lambda2 * H(s); `[N]` float32. H: the mean entropy of the node's own tokens (paper), or minus
  their mean sampled log-prob (released), in nats."""
  if rules.uncertainty == 'off':
    return jnp.zeros_like(tree.value_sum)
  total = tree.entropy_sum if rules.uncertainty == 'entropy' else -tree.logprob_sum
  return options.lambda2 * total / jnp.maximum(tree.num_tokens, 1)


def depth_bonus(tree: Tree, rules: Rules, options: Options) -> jax.Array:
  """lambda3 * D(d); `[N]` float32."""
  depth = tree.depth.astype(jnp.float32)
  if rules.depth_bonus == 'sqrt':
    bonus = jnp.sqrt(depth / options.max_depth)
  elif rules.depth_bonus == 'log':
    bonus = jnp.log(depth + 1)
  else:
    bonus = depth
  return options.lambda3 * bonus


def frontier_scores(
  tree: Tree, parent_mean: jax.Array, rules: Rules, options: Options
) -> jax.Array:
  """F(s) = quality + uncertainty + depth bonus of every node (paper, Eq. 7); `[N]` float32.

  Args:
    tree: _unbatched_ tree, or rows of one.
    parent_mean: `[N]` float32, Q of each node's parent.
    rules, options: the kinds of terms and their weights.
  """
  return (
    quality(tree, parent_mean, options)
    + segment_uncertainty(tree, rules, options)
    + depth_bonus(tree, rules, options)
  )


def keep_scores(tree: Tree, nodes: jax.Array, rules: Rules, options: Options) -> Tree:
  """The tree with the scores of the children of `nodes` written anew. Ends and the root have none.

  Args:
    tree: _unbatched_ tree in which the children of a node came all at once.
    nodes: `[C]` int32, with every node whose mean value has changed, and its parent; beyond the
      capacity: none.
    rules, options: see `frontier_scores`.
  """
  slots, is_child = jax.vmap(child_rows, in_axes=(None, 0))(tree, nodes)  # [C, W]
  slots = jnp.where(is_child & (nodes < tree.capacity)[:, None], slots, tree.capacity).ravel()
  children = rows(tree, slots)
  parent_mean = jnp.repeat(mean_value(rows(tree, nodes)), tree.max_width)
  score = jnp.where(
    children.is_terminal,
    -jnp.inf,
    as_number(frontier_scores(children, parent_mean, rules, options)),
  )
  return tree.replace(score=tree.score.at[slots].set(score, mode='drop'))


def as_number(scores: jax.Array) -> jax.Array:
  """A score that is not a number (from a log-prob that is none) counts as the lowest."""
  lowest = jnp.finfo(jnp.float32).min
  return jnp.nan_to_num(scores, nan=lowest, neginf=lowest)


def frontier(tree: Tree, is_strict: jax.Array) -> jax.Array:
  """`[N]` bool: unfinished nodes other than the root; where `is_strict` `[]` bool, only those that
  still lack children, which come all at once."""
  return is_used(tree) & (tree.score > -jnp.inf) & (~is_strict | (tree.num_children == 0))


def best(
  tree: Tree, scores: jax.Array, eligible: jax.Array, rules: Rules
) -> tuple[jax.Array, jax.Array]:
  """The eligible node with the highest score; equal ones as `rules.ties` says.

  Ties decide most global selections of the released code (95 %), so the order is part of the rule.

  Args:
    tree: _unbatched_ tree, or rows of one.
    scores: `[N]` float32, see `as_number`.
    eligible: `[N]` bool.

  Returns:
    `[]` int32 node (or row) and `[]` bool, whether any was eligible.
  """
  masked = jnp.where(eligible, scores, -jnp.inf)
  highest = masked.max()
  is_best = masked == highest
  if rules.ties != 'first':
    score = confidence(tree) if rules.ties == 'confident' else node_draws(tree)
    score = jnp.where(is_best, score, -jnp.inf)
    is_best &= score == score.max()
  return first_lowest(jnp.where(is_best, tree.preorder, jnp.iinfo(jnp.int32).max)), (
    highest > -jnp.inf
  )


def confidence(tree: Tree) -> jax.Array:
  """Mean log-prob of each node's own tokens, `[N]` float32; the lowest number where it is none."""
  mean = tree.logprob_sum / jnp.maximum(tree.num_tokens, 1)
  return jnp.nan_to_num(mean, nan=jnp.finfo(jnp.float32).min)


def node_draws(tree: Tree, moment: jax.Array | int = 0) -> jax.Array:
  """A number in [0, 1) per node from its own key, so that it repeats with the seed; `[N]` float32.

  Args:
    tree: _unbatched_ tree.
    moment: `[]` int32; another one gives other numbers.
  """

  def draw(key_data: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data), NOT_A_CHILD)
    return jax.random.uniform(jax.random.fold_in(key, moment))

  return jax.vmap(draw)(tree.key)


def best_child(
  tree: Tree, node: jax.Array, rules: Rules, options: Options
) -> tuple[jax.Array, jax.Array]:
  """The unfinished child of `node` with the highest UCT, or one drawn with probability
  softmax(UCT), as `rules.local_choice` says; see `best`."""
  slots, is_child = child_rows(tree, node)
  children = rows(tree, slots)
  scores = uct_scores(children, tree.visit_count[node], options)
  if rules.local_choice == 'sampled':  # adding Gumbel noise draws from the softmax
    draws = node_draws(children, moment=1 + tree.visit_count.sum())
    scores += -jnp.log(-jnp.log(jnp.clip(draws, 1e-7, 1 - 1e-6)))
  child, is_any = best(children, as_number(scores), is_child & ~children.is_terminal, rules)
  return slots[child], is_any
