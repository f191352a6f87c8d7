"""The formulas of the search, node by node: UCT, the frontier score and its terms, confidence.

Every function takes rows of a tree, N of them, and returns `[N]` float32. Q is a node's mean value
(`tree.mean_value`). 'Paper' is DeepSearch (arXiv:2509.25454), 'released' its authors' code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import check_rank, check_shape
from ds_jax.search.settings import Settings
from ds_jax.search.tree import Nodes, mean_value

# Finite bounds, in place of what is not a number.
LOWEST, HIGHEST = np.finfo(np.float32).min, np.finfo(np.float32).max


def uct(children: Nodes, parent_visits: jax.Array, settings: Settings) -> jax.Array:
  """Upper confidence bounds of siblings (paper, Eq. 6),
    UCT(c) = Q_c + lambda_uct * sqrt(ln n_p / n_c),
  where n_p and n_c count the visits of the parent and the child. The second term is 0 where either
  is. (The released code names it `puct`; it has no prior.)

  Args:
    children: the siblings.
    parent_visits: `[]` int32, n_p.
    settings: `lambda_uct`.
  """
  visits = children.visit_count
  check_rank('children.visit_count', visits, 1)
  check_rank('parent_visits', parent_visits, 0)
  # sqrt(ln n_p / n_c), with 1 in place of a count of 0, …
  log_visits = jnp.log(jnp.maximum(parent_visits, 1).astype(jnp.float32))
  exploration = jnp.sqrt(log_visits / jnp.maximum(visits, 1))
  # … where it is left out.
  is_counted = (parent_visits > 0) & (visits > 0)
  exploration = jnp.where(is_counted, exploration, 0.0)
  return mean_value(children) + settings.lambda_uct * exploration


def quality(nodes: Nodes, parent_mean: jax.Array, settings: Settings) -> jax.Array:
  """What the values say of a node: lambda1 * tanh(Q_parent) + lambda4 * tanh(Q_own).

  The first term is the paper's (Eq. 7). The second is a released option, counted only for
  lambda4 > 0.
  """
  own = jnp.maximum(settings.lambda4, 0.0) * jnp.tanh(mean_value(nodes))
  return settings.lambda1 * jnp.tanh(parent_mean) + own


def uncertainty(nodes: Nodes, settings: Settings) -> jax.Array:
  """How unsure the policy was of a node: lambda2 * H(s).

  H is the mean entropy of the node's own tokens, in nats (paper, Eq. 7), or its estimate from the
  sample, minus their mean log-prob (released); `settings.uncertainty` says which, or neither.
  """
  if settings.uncertainty == 'off':
    return jnp.zeros_like(nodes.value_sum)
  if settings.uncertainty == 'entropy':
    total = nodes.entropy_sum
  else:
    total = -nodes.logprob_sum
  return settings.lambda2 * total / jnp.maximum(nodes.num_tokens, 1)


def depth_bonus(nodes: Nodes, settings: Settings) -> jax.Array:
  """What drives the search downwards: lambda3 * D(d), D(d) = sqrt(d / max_depth), ln(d + 1) or d
  (paper, Eq. 7 and its ablation)."""
  depth = nodes.depth.astype(jnp.float32)
  if settings.depth_bonus == 'sqrt':
    bonus = jnp.sqrt(depth / settings.max_depth)
  elif settings.depth_bonus == 'log':
    bonus = jnp.log(depth + 1)
  else:
    bonus = depth
  return settings.lambda3 * bonus


def frontier_score(nodes: Nodes, parent_mean: jax.Array, settings: Settings) -> jax.Array:
  """What a node promises, compared over the whole tree (paper, Eq. 7),
    F(s) = lambda1 * tanh(Q_parent) + lambda2 * H(s) + lambda3 * D(d),
  and the released code's lambda4 * tanh(Q_own).

  Args:
    nodes: the nodes.
    parent_mean: `[N]` float32, Q of each node's parent.
    settings: the kinds of terms and their weights.
  """
  check_rank('nodes.depth', nodes.depth, 1)
  check_shape('parent_mean', parent_mean, nodes.depth.shape)
  return (
    quality(nodes, parent_mean, settings)
    + uncertainty(nodes, settings)
    + depth_bonus(nodes, settings)
  )


def path_uncertainty(nodes: Nodes, settings: Settings) -> jax.Array:
  """Minus the mean log-prob of the response tokens on each node's path; NaN without tokens.

  The paper calls it a trajectory's entropy (section 3.2); the most confident end has the lowest.
  The released code leaves end tokens in a row at the end of the path out when padding and end
  token are the same id, and counts them otherwise.
  """
  # End tokens at the end of the path count, or do not.
  counts_end = settings.is_end_token_counted
  left_out = jnp.where(counts_end, 0, nodes.trailing_tokens)
  logprob_left_out = jnp.where(counts_end, 0.0, nodes.trailing_logprob)
  # The mean over the others.
  count = nodes.path_tokens - left_out
  total = nodes.path_logprob - logprob_left_out
  return jnp.where(count > 0, -total / jnp.maximum(count, 1), jnp.nan)


def confidence(nodes: Nodes) -> jax.Array:
  """Mean log-prob of each node's own tokens; the lowest number where it is none."""
  mean = nodes.logprob_sum / jnp.maximum(nodes.num_tokens, 1)
  return jnp.nan_to_num(mean, nan=LOWEST)


def as_number(scores: jax.Array) -> jax.Array:
  """Scores in which what is not a number (from a log-prob that is none) counts as the lowest."""
  return jnp.nan_to_num(scores, nan=LOWEST, neginf=LOWEST)
