"""Settings of a search: rules are static, numbers are traced.

One compiled program serves all values of the numbers; only capacities and rules recompile.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ds_jax.config import SearchConfig


@dataclasses.dataclass(frozen=True)
class Defects:
  """Defects of the released code that a policy repeats; its own default is to have none."""

  misses_end_in_last_place: bool = False
  """An end token in the last place of a full segment goes unnoticed; the path goes on."""
  first_end_wins_without_confidence: bool = False
  """An end whose confidence is not a number is chosen iff it comes first: a running minimum starts
  from it, and nothing is smaller than NaN."""
  loses_passed_over_ends: bool = False
  """Where nothing can be expanded any more, ends that were passed over stay lost although
  trajectories are owed. (The released code stops there with an assertion that takes the whole batch
  with it, in 28 % of runs when 80 % of children end; here the tree ends alone.)"""
  keeps_degenerate: bool = False
  """Garbled or endlessly repeating texts are learnt from like other wrong ones."""
  pays_cut_ends: bool = False
  """A right answer pays although the depth limit cut its response off."""


def _rule(default: str) -> str:
  return struct.field(pytree_node=False, default=default)


@struct.dataclass
class Settings:
  """Which rule where, and the numbers in them; see SearchConfig for the origin of each.

  'Released' is the code of the paper's authors (arXiv:2509.25454).
  """

  # Numbers.
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
  lambda2: jax.Array  # [] float32, uncertainty; released 0.4, switched off by `uncertainty`
  lambda3: jax.Array  # [] float32, depth bonus; paper's best and released 0.01
  lambda4: jax.Array  # [] float32, own quality; released option, off; not in the paper
  backup_threshold: jax.Array  # [] float32, floor of the backup weight; paper and released 0.1
  probe_share: jax.Array  # [] float32, rollouts with a random fork under 'fork'; ours
  min_continuations: jax.Array  # [] int32, of a node that 'fork' forks; ours

  # Rules.
  backtrack: str = _rule('global')
  """Where to go after an end: 'global', the best node of the frontier (paper, Eq. 7; released
  default), or 'uct', the root's best child, whence revisits descend (released option; the paper's
  vanilla search)."""
  depth_bonus: str = _rule('sqrt')
  """D(d): 'sqrt': sqrt(d / max_depth) (paper's best; released default), 'log': ln(d + 1), 'linear':
  d (both ablated in the paper; the released code calls the last one 'constant')."""
  uncertainty: str = _rule('off')
  """H(s) of the frontier score: 'off' (released default), 'sampled': minus the mean log-prob of the
  sampled tokens (released), 'entropy': the exact mean entropy (what the paper writes)."""
  backup_rule: str = _rule('constrained')
  """'constrained': a success erases blame, a failure never erases credit (paper, Eq. 5; released);
  'vanilla': the plain running sum (the paper's ablation)."""
  negatives: str = _rule('most_confident')
  """Which wrong end of a step is learnt from: 'most_confident' (paper, section 3.2; released, which
  does the same among correct ends), 'random' or 'least_confident' (paper's Table 5)."""
  local_choice: str = _rule('best')
  """Among siblings: 'best', the highest UCT (paper, Eq. 6; released), or 'sampled', with
  probability softmax(UCT), drawn from the tree's own key."""
  ties: str = _rule('first')
  """Equal scores, which decide most selections: 'first' in depth-first pre-order (released),
  'confident': the highest mean log-prob of the node's own tokens, 'random': by the node's own key.
  The paper says nothing. Released with its shipped numbers, UCT among new siblings always ties."""

  # Sizes.
  forks_per_failure: int = struct.field(pytree_node=False, default=4)  # draws of 'fork'; ours

  # Set by the policy.
  defects: Defects = struct.field(pytree_node=False, default=Defects())


def settings_from(config: SearchConfig) -> Settings:
  """The settings as host arrays of one dtype each: another value never means another program."""
  no_bound = np.iinfo(np.int32).max
  return Settings(
    width=np.int32(config.width),
    min_width=np.int32(config.min_width if config.width_decay else config.width),
    width_decay=np.int32(config.width_decay),
    max_depth=np.int32(config.max_depth),
    segment_length=np.int32(config.segment_length),
    num_trajectories=np.int32(config.num_trajectories),
    max_expansions=np.int32(config.max_expansions),
    max_tokens=np.int32(config.max_tokens or no_bound),
    is_frontier_strict=np.bool_(config.frontier_only),
    is_end_token_counted=np.bool_(config.count_end_token),
    lambda_uct=np.float32(config.lambda_uct),
    lambda1=np.float32(config.lambda1),
    lambda2=np.float32(config.lambda2),
    lambda3=np.float32(config.lambda3),
    lambda4=np.float32(config.lambda4),
    backup_threshold=np.float32(config.backup_threshold),
    probe_share=np.float32(config.probe_share),
    min_continuations=np.int32(config.min_continuations),
    backtrack=config.backtrack,
    depth_bonus=config.depth_bonus,
    uncertainty=config.uncertainty,
    backup_rule=config.backup_rule,
    negatives=config.negatives,
    local_choice=config.local_choice,
    ties=config.ties,
    forks_per_failure=config.forks_per_failure,
  )


def width_at(depth: jax.Array, settings: Settings) -> jax.Array:
  """Number of children that a node of this depth gets,
    max(min_width, W - width_decay * floor(d / s)),
  where s = floor(max_depth / W) is the length of a stage, as released (at least 1 here; the
  released code divides by zero)."""
  stage_length = jnp.maximum(settings.max_depth // settings.width, 1)
  # A floor of floats, exact for depths below 2**20: integer division is many times slower.
  stage = jnp.floor((depth + 0.5) / stage_length).astype(jnp.int32)
  return jnp.maximum(settings.min_width, settings.width - settings.width_decay * stage)
