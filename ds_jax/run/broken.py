"""What a run says of a model that computes no numbers.

Weights are looked at when they are imported, saved and restored, and sampled log-probs in every
round, so that NaN ends a command where it appears and is never learnt from.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ds_jax.checks import NotFinite
from ds_jax.run.leaves import examine
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
  leaves = jax.tree_util.tree_leaves_with_path(params)
  examined = jax.device_get(examine({path_name(path): leaf for path, leaf in leaves}))
  return [name for name, leaf in examined.items() if not leaf.is_finite]
