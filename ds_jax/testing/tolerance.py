"""How far apart two computations of one value may be: what rounding explains, and no more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
  from ds_jax.model.config import DecoderConfig


def tolerance(dtype: Any, num_terms: float, scale: float = 1.0) -> float:
  """Largest difference that rounding explains between two computations of the same value.

  Every operation rounds its result by at most eps / 2 of its size, as good as uniformly, which is a
  standard deviation of eps / (2 sqrt(3)). After n roundings of values of size s it is sqrt(n) as
  much, if they are independent (Higham and Mary, A new approach to probabilistic rounding error
  analysis, 2019, say when they are), and never more than n eps s / 2. The difference of two
  computations deviates sqrt(2) as much: 0.41 sqrt(n) eps s. Five deviations, which one value in two
  million exceeds, are 2 sqrt(n) eps s; for the few roundings of n < 4 the bound n eps s is smaller.

  The order of a sum, fused multiply-adds and the width of vectors decide which roundings happen;
  they make them fewer than n, never more. So the bound holds on every machine.

  Args:
    dtype: number format that the computation rounds to.
    num_terms: roundings on the longest way from the inputs to the value: the lengths of its sums,
      added up over the sums that follow each other.
    scale: size of what is summed: where terms do not cancel, that of the result.

  Returns:
    An absolute difference for values of size `scale`; with the default scale, a relative one.
  """
  eps = float(jnp.finfo(dtype).eps)
  return min(num_terms, 2 * math.sqrt(num_terms)) * eps * scale


def decoder_terms(config: DecoderConfig, length: int, num_passes: int = 1) -> int:
  """Roundings between a token and its log-probability, for `tolerance`.

  Args:
    config: the decoder's sizes.
    length: positions that a token attends to.
    num_passes: how often the layers are gone through: once for a score, three times for a gradient,
      which goes forward, and back over two products for each of the forward pass.
  """
  norm = config.width
  attention = config.width + 2 * config.head_width + 2 * length
  attention += config.num_heads * config.head_width
  mlp = config.width + config.mlp_width
  head = norm + config.width + config.vocab_size
  return num_passes * (config.num_layers * (2 * norm + attention + mlp) + head)


def assert_close(
  found: Any, expected: Any, *, num_terms: float, dtype: Any = 'float32', scale: float = 0.0
) -> None:
  """Raises where leaves of two trees differ by more than `tolerance` allows.

  Args:
    found: tree of arrays.
    expected: tree of the same structure.
    num_terms: see `tolerance`.
    dtype: number format that both were computed in.
    scale: size of what is summed, where it is more than the largest value of all leaves: a small
      value may be the difference of large ones.
  """
  theirs = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(expected)]
  ours = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]
  sizes = [float(np.abs(leaf).max()) for leaf in theirs if leaf.size]
  limit = tolerance(dtype, num_terms, max([scale, *sizes]))
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=limit)
