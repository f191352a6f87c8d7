"""What a run says of a model that computes no numbers.

Weights are looked at when they are imported, saved and restored, and sampled log-probs in every
round, so that NaN ends a command where it appears and is never learnt from.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import NotFinite
from ds_jax.search.engine.expansion import Expansion
from ds_jax.search.engine.host_tree import HostTree
from ds_jax.sharding import path_name


def check_expansion(expansion: Expansion, tree: HostTree) -> None:
  """Raises NotFinite if a sampled token has a log-prob that is none."""
  for segment in expansion.segments:
    if not np.isfinite(segment.logprobs).all():
      raise NotFinite(
        f'The log-probs that the model gives to tokens of problem {tree.job.problem.id!r} are not '
        'finite'
      )


def explain(error: NotFinite, params: Any) -> NotFinite:
  """The error with its cause, as far as the parameters tell it, and a remedy."""
  names = not_finite(params)
  if names:
    return NotFinite(
      f'{error}: parameters are not, {", ".join(names)}. Use another checkpoint or model.'
    )
  return NotFinite(
    f'{error}, though its parameters are: activations overflow. Set model.compute_dtype=float32; '
    'if it is, the model is broken: use another checkpoint or model.'
  )


def not_finite(params: Any) -> list[str]:
  """Names of the parameters that hold NaN or infinite numbers."""
  names = []
  for path, is_finite in jax.tree_util.tree_leaves_with_path(jax.device_get(_are_finite(params))):
    if not is_finite:
      names.append(path_name(path))
  return names


@jax.jit
def _are_finite(params: Any) -> Any:
  def is_finite(leaf: jax.Array) -> jax.Array:
    return jnp.isfinite(leaf).all()

  return jax.tree.map(is_finite, params)
