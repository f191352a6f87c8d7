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


@dataclasses.dataclass(frozen=True)
class Rules:
  """Which rule where; hashable, static under jit."""
  policy: str = 'deepsearch'  # see allocation.POLICIES
  backtrack: str = 'global'  # after an end: 'global' frontier or 'uct' from the root
  depth_bonus: str = 'sqrt'  # sqrt(d / max_depth) (paper's best), 'log': ln(d + 1), 'linear': d
  uncertainty: str = 'off'  # 'off', 'sampled': mean -log-prob, 'entropy': exact, of the segment
  backup_rule: str = 'constrained'  # Eq. 5, or 'vanilla': the plain running sum
  negatives: str = 'most_confident'  # which wrong end is learnt from; also 'random' (paper's
  #   Table 5) and 'least_confident'


class Options(NamedTuple):
  """Traced numbers; see SearchConfig for the meaning of each."""
  width: jax.Array  # [] int32
  min_width: jax.Array  # [] int32
  width_decay: jax.Array  # [] int32
  max_depth: jax.Array  # [] int32
  num_trajectories: jax.Array  # [] int32, K
  max_expansions: jax.Array  # [] int32
  max_tokens: jax.Array  # [] int32
  is_frontier_strict: jax.Array  # [] bool
  is_end_token_counted: jax.Array  # [] bool
  lambda_uct: jax.Array  # [] float32
  lambda1: jax.Array  # [] float32
  lambda2: jax.Array  # [] float32
  lambda3: jax.Array  # [] float32
  lambda4: jax.Array  # [] float32
  backup_threshold: jax.Array  # [] float32


def rules_from(config: SearchConfig) -> Rules:
  return Rules(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Rules)})


def options_from(config: SearchConfig) -> Options:
  """Host arrays of one dtype each, so that another value never means another program."""
  whole = {name: np.int32(getattr(config, name)) for name in (
      'width', 'min_width', 'width_decay', 'max_depth', 'num_trajectories', 'max_expansions')}
  if not config.width_decay:
    whole['min_width'] = whole['width']
  real = {name: np.float32(getattr(config, name)) for name in (
      'lambda_uct', 'lambda1', 'lambda2', 'lambda3', 'lambda4', 'backup_threshold')}
  return Options(max_tokens=np.int32(config.max_tokens or np.iinfo(np.int32).max),
                 is_frontier_strict=np.bool_(config.frontier_only),
                 is_end_token_counted=np.bool_(config.count_end_token), **whole, **real)


def width_at(options: Options, depth: jax.Array) -> jax.Array:
  """Children a node of this depth gets: max(min_width, W - width_decay * floor(d / s)), where
  s = floor(max_depth / W) as released (at least 1 here; the released code divides by zero)."""
  stage = depth // jnp.maximum(options.max_depth // options.width, 1)
  return jnp.maximum(options.min_width, options.width - options.width_decay * stage)
