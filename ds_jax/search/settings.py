"""Search settings: `Rules` are enumerations and static, `Options` are numbers and traced.

One compiled program serves all values of the numbers; only capacities and rules recompile.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.config import SearchConfig


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


@dataclasses.dataclass(frozen=True)
class Rules:
  """Which rule where; hashable, static under jit. 'Released' is the code of the paper's authors."""

  policy: str = 'deepsearch'  # see allocation.POLICIES
  backtrack: str = 'global'
  """Where to go after an end: 'global', the best node of the frontier (paper, Eq. 7; released
  default), or 'uct', the root's best child, whence revisits descend (released option; the paper's
  vanilla search)."""
  depth_bonus: str = 'sqrt'
  """D(d): 'sqrt': sqrt(d / max_depth) (paper's best; released default), 'log': ln(d + 1), 'linear':
  d (both ablated in the paper; the released code calls the last one 'constant')."""
  uncertainty: str = 'off'
  """H(s) of the frontier score: 'off' (released default), 'sampled': minus the mean log-prob of the
  sampled tokens (released), 'entropy': the exact mean entropy (what the paper writes)."""
  backup_rule: str = 'constrained'
  """'constrained': a success erases blame, a failure never erases credit (paper, Eq. 5; released);
  'vanilla': the plain running sum (the paper's ablation)."""
  negatives: str = 'most_confident'
  """Which wrong end of a step is learnt from: 'most_confident' (paper, section 3.2; released, which
  does the same among correct ends), 'random' or 'least_confident' (paper's Table 5)."""
  local_choice: str = 'best'
  """Among siblings: 'best', the highest UCT (paper, Eq. 6; released), or 'sampled', with
  probability softmax(UCT), drawn from the tree's own key."""
  ties: str = 'first'
  """Equal scores, which decide most selections: 'first' in depth-first pre-order (released),
  'confident': the highest mean log-prob of the node's own tokens, 'random': by the node's own key.
  The paper says nothing. Released with its shipped numbers, UCT among new siblings always ties."""


class Options(NamedTuple):
  """Traced numbers; see SearchConfig for the origin of each."""

  width: jax.Array  # [] int32, children per expansion at the root
  min_width: jax.Array  # [] int32, floor of the dynamic width
  width_decay: jax.Array  # [] int32, children fewer per stage; 0 (paper, released default): off
  max_depth: jax.Array  # [] int32, segments on a path
  segment_length: jax.Array  # [] int32, tokens of a full segment
  num_trajectories: jax.Array  # [] int32, K ends to collect; rollouts of a wave under 'fork'
  max_expansions: jax.Array  # [] int32, budget per tree; ours
  max_tokens: jax.Array  # [] int32, budget per tree; ours
  is_frontier_strict: jax.Array  # [] bool, only nodes that lack children (released default)
  is_end_token_counted: jax.Array  # [] bool, released: only if padding is another token
  lambda_uct: jax.Array  # [] float32, exploration weight of UCT; released 2
  lambda1: jax.Array  # [] float32, parent quality; paper and released 0.4
  lambda2: jax.Array  # [] float32, uncertainty; released 0.4, switched off by Rules.uncertainty
  lambda3: jax.Array  # [] float32, depth bonus; paper's best and released 0.01
  lambda4: jax.Array  # [] float32, own quality; released option, off; not in the paper
  backup_threshold: jax.Array  # [] float32, floor of the backup weight; paper and released 0.1
  probe_share: jax.Array  # [] float32, rollouts with a random fork under 'fork'; ours


def rules_from(config: SearchConfig) -> Rules:
  return Rules(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Rules)})


def options_from(config: SearchConfig) -> Options:
  """Host arrays of one dtype each, so that another value never means another program."""
  whole = {
    name: np.int32(getattr(config, name))
    for name in (
      'width',
      'min_width',
      'width_decay',
      'max_depth',
      'segment_length',
      'num_trajectories',
      'max_expansions',
    )
  }
  if not config.width_decay:
    whole['min_width'] = whole['width']
  real = {
    name: np.float32(getattr(config, name))
    for name in (
      'lambda_uct',
      'lambda1',
      'lambda2',
      'lambda3',
      'lambda4',
      'backup_threshold',
      'probe_share',
    )
  }
  return Options(
    max_tokens=np.int32(config.max_tokens or np.iinfo(np.int32).max),
    is_frontier_strict=np.bool_(config.frontier_only),
    is_end_token_counted=np.bool_(config.count_end_token),
    **whole,
    **real,
  )


def width_at(options: Options, depth: jax.Array) -> jax.Array:
  """Children a node of this depth gets: max(min_width, W - width_decay * floor(d / s)), where
  s = floor(max_depth / W) as released (at least 1 here; the released code divides by zero)."""
  # A floor of floats, exact for depths below 2**20: integer division is many times slower.
  length = jnp.maximum(options.max_depth // options.width, 1)
  stage = jnp.floor((depth + 0.5) / length).astype(jnp.int32)
  return jnp.maximum(options.min_width, options.width - options.width_decay * stage)
