"""The training form on a mesh, where rows and parameters are split over the same devices.

Left to XLA's propagation, a product of rows and a kernel that are split over one axis is done by
moving the rows: `[all rows, S, F]` is summed over all devices, in every layer. Here it is said
instead, under `shard_map` like the expansion: a device gathers the parameters of a layer when it
comes to it, and the gradients go back to their owners as float32 sums. `tensor` stays with XLA.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ds_jax.model.decoder import (
  WHOLE,
  Decoder,
  Layers,
  Parts,
  embed,
  head_table,
  sequence_logprobs,
)
from ds_jax.sharding import AXES, BATCH_AXES, num_slot_shards, parameter_shardings

_UNSPLIT = -1  # instead of an axis: this parameter is not split over fsdp


def mesh_logprobs(
  decoder: Decoder,
  tokens: jax.Array,
  positions: jax.Array,
  key_end: jax.Array,
  targets: jax.Array,
  predecessor: jax.Array,
  *,
  mesh: Mesh,
  temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """`sequence_logprobs` of rows on a mesh.

  Args:
    decoder: float32 parameters, split as `sharding.parameter_shardings` says.
    tokens, positions, key_end, targets, predecessor: `[R, S]` int32, R a multiple of data x fsdp.
    mesh: the whole mesh.
    temperature: that of the sampler.

  Returns:
    Log-probs and entropies (nats), `[R, S]` float32, rows over data x fsdp.
  """
  # With tensor parallelism that axis stays automatic: XLA inserts its all-reduces.
  manual = set(AXES if mesh.shape['tensor'] == 1 else BATCH_AXES)
  specs = jax.tree.map(
    lambda s: P(*(a if a == 'fsdp' else None for a in s.spec)), parameter_shardings(decoder, mesh)
  )
  axes = jax.tree.map(
    lambda spec: np.int32(spec.index('fsdp') if 'fsdp' in spec else _UNSPLIT),
    specs,
    is_leaf=lambda x: isinstance(x, P),
  )
  parts = _gathered(axes, decoder.config.compute_dtype) if mesh.shape['fsdp'] > 1 else WHOLE
  parts = parts._replace(heads_are_whole=mesh.shape['tensor'] == 1)

  def local(decoder, tokens, positions, key_end, targets, predecessor):
    return sequence_logprobs(
      decoder,
      tokens,
      positions,
      key_end,
      targets,
      predecessor=predecessor,
      temperature=temperature,
      parts=parts,
    )

  if num_slot_shards(mesh) == 1 < mesh.shape['tensor']:  # XLA fails on a map over nothing
    return local(decoder, tokens, positions, key_end, targets, predecessor)
  rows = P(BATCH_AXES)
  mapped = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(specs, *[rows] * 5),
    out_specs=rows,
    axis_names=manual,
    check_vma=False,
  )
  return mapped(decoder, tokens, positions, key_end, targets, predecessor)


def _gathered(axes: Any, dtype: str) -> Parts:
  """How a device has the whole of what it holds a part of; `axes`: the split axis of each leaf."""

  def layer(layer: Layers) -> Layers:  # the scan has taken the first axis off
    whole = lambda x, axis: x if axis == _UNSPLIT else gather(x, int(axis) - 1, dtype)
    return jax.tree.map(whole, layer, axes.layers)

  def table(decoder: Decoder) -> jax.Array:
    axis = int(head_table(axes))
    # In float32, since its gradient is summed over chunks of positions.
    return head_table(decoder) if axis == _UNSPLIT else gather(head_table(decoder), axis, 'float32')

  return Parts(embed if axes.embedding[...] == _UNSPLIT else _embed_columns, layer, table)


def _embed_columns(decoder: Decoder, tokens: jax.Array) -> jax.Array:
  """`embed` for a table split by columns: tokens and their columns move, the table does not."""
  everyone = jax.lax.all_gather(tokens, 'fsdp', axis=0, tiled=True)
  return jax.lax.all_to_all(
    embed(decoder, everyone), 'fsdp', split_axis=0, concat_axis=2, tiled=True
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gather(x: jax.Array, axis: int, dtype: str) -> jax.Array:
  """The whole of a float32 parameter that is split along `axis` over fsdp, cast to `dtype`.

  Its gradient is summed in float32, whatever `dtype` is.
  """
  return jax.lax.all_gather(x.astype(dtype), 'fsdp', axis=axis, tiled=True)


def _gather_forward(x, axis, dtype):
  return gather(x, axis, dtype), None


def _gather_backward(axis, dtype, _, cotangent):
  """A matrix's axis is cut in two: else TPUs' compiler sums all of a large one, then drops most."""
  del dtype
  whole, is_matrix = cotangent.astype(jnp.float32), cotangent.ndim == 2
  if is_matrix:
    num = jax.lax.axis_size('fsdp')
    whole = whole.reshape(*whole.shape[:axis], num, -1, *whole.shape[axis + 1 :])
  return (jax.lax.psum_scatter(whole, 'fsdp', scatter_dimension=axis, tiled=not is_matrix),)


gather.defvjp(_gather_forward, _gather_backward)
