"""Selection: UCT among siblings and the global frontier score, over all nodes at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ds_jax.search.options import Options, Rules, width_at
from ds_jax.search.tree import Tree, children_of, is_used, mean_value


def uct_scores(tree: Tree, options: Options) -> jax.Array:
  """Q_c + lambda_uct * sqrt(ln n_p / n_c) of every node among its siblings; `[N]` float32.

  The second term is 0 where n_p or n_c is 0. (The released code names it `puct`; it has no prior.)
  """
  parent_visits = tree.visit_count[tree.parent]
  log_visits = jnp.log(jnp.maximum(parent_visits, 1).astype(jnp.float32))
  bonus = jnp.sqrt(log_visits / jnp.maximum(tree.visit_count, 1))
  is_counted = (parent_visits > 0) & (tree.visit_count > 0)
  return mean_value(tree) + options.lambda_uct * jnp.where(is_counted, bonus, 0.0)


def quality(tree: Tree, options: Options) -> jax.Array:
  """lambda1 * tanh(Q_parent) + lambda4 * tanh(Q_own); `[N]` float32. The released code counts the
  second only for lambda4 > 0."""
  q = jnp.tanh(mean_value(tree))
  return options.lambda1 * q[tree.parent] + jnp.maximum(options.lambda4, 0.0) * q


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


def frontier_scores(tree: Tree, rules: Rules, options: Options) -> jax.Array:
  """F(s) = quality + uncertainty + depth bonus of every node (paper, Eq. 7); `[N]` float32."""
  return (quality(tree, options) + segment_uncertainty(tree, rules, options)
          + depth_bonus(tree, rules, options))


def frontier(tree: Tree, options: Options) -> jax.Array:
  """`[N]` bool: unfinished nodes other than the root that still lack children."""
  return open_nodes(tree) & (tree.num_children < width_at(options, tree.depth))


def open_nodes(tree: Tree) -> jax.Array:
  """`[N]` bool: unfinished nodes other than the root."""
  return is_used(tree) & ~tree.is_terminal & (tree.depth > 0)


def best(tree: Tree, scores: jax.Array, eligible: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The eligible node with the highest score, the first in depth-first pre-order on ties.

  Ties decide most global selections of the released code (95 %), so the order is part of the rule.

  Returns:
    `[]` int32 node and `[]` bool, whether any was eligible.
  """
  masked = jnp.where(eligible, scores, -jnp.inf)
  is_best = eligible & (masked == masked.max())
  rank = jnp.where(is_best, tree.preorder, jnp.iinfo(jnp.int32).max)
  return jnp.argmin(rank), eligible.any()


def best_child(tree: Tree, node: jax.Array, options: Options) -> tuple[jax.Array, jax.Array]:
  """The unfinished child of `node` with the highest UCT; see `best`."""
  return best(tree, uct_scores(tree, options), children_of(tree, node) & ~tree.is_terminal)
