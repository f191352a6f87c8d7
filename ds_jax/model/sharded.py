"""The training form on a mesh, where rows and parameters are split over the same devices.

Left to XLA's propagation, a product of rows and a kernel that are split over one axis is done by
moving the rows: `[all rows, S, F]` is summed over all devices, in every layer. Here it is said
instead, under `shard_map` like the expansion: a device gathers the parameters of a layer when it
comes to it, and the gradients go back to their owners as float32 sums. `tensor` stays with XLA.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax.model.decoder import (
  WHOLE,
  Decoder,
  Layers,
  Parts,
  Rows,
  embed,
  head_table,
  sequence_logprobs,
)
from ds_jax.model.lora import NO_ADAPTERS, Adapted, Adapters, LayerAdapters
from ds_jax.sharding import AXES, BATCH_AXES, num_slot_shards, parameter_shardings

_UNSPLIT = -1  # instead of an axis: this parameter is not split over fsdp


def mesh_logprobs(
  policy: Decoder | Adapted, rows: Rows, *, mesh: Mesh, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
  """`sequence_logprobs` of rows on a mesh.

  Args:
    policy: float32 parameters, or frozen ones with adapters, split as
      `sharding.parameter_shardings` says.
    rows: R is a multiple of data x fsdp.
    mesh: the whole mesh.
    temperature: that of the sampler; rows that have temperatures do not read it.

  Returns:
    Log-probs and entropies (nats), `[R, S]` float32, rows over data x fsdp.
  """
  decoder, adapters = policy if isinstance(policy, Adapted) else (policy, NO_ADAPTERS)
  specs, adapter_specs = (
    jax.tree.map(_over_fsdp, parameter_shardings(tree, mesh)) for tree in (decoder, adapters)
  )
  parts = WHOLE
  if mesh.shape['fsdp'] > 1:
    axes, adapter_axes = (
      jax.tree.map(_fsdp_axis, tree, is_leaf=lambda x: isinstance(x, P))
      for tree in (specs, adapter_specs)
    )
    parts = _gathered(axes, adapter_axes, decoder.config.compute_dtype)
  parts = parts._replace(
    heads_are_whole=mesh.shape['tensor'] == 1, device_kind=mesh.devices.flat[0].device_kind
  )

  def local(decoder: Decoder, adapters: Adapters, rows: Rows) -> tuple[jax.Array, jax.Array]:
    return sequence_logprobs(decoder, rows, temperature=temperature, parts=parts, adapters=adapters)

  if num_slot_shards(mesh) == 1 < mesh.shape['tensor']:  # XLA fails on a map over nothing
    return local(decoder, adapters, rows)
  mapped = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(specs, adapter_specs, P(BATCH_AXES)),
    out_specs=P(BATCH_AXES),
    # With tensor parallelism that axis stays automatic: XLA inserts its all-reduces.
    axis_names=set(AXES if mesh.shape['tensor'] == 1 else BATCH_AXES),
    check_vma=False,
  )
  return mapped(decoder, adapters, rows)


def _over_fsdp(sharding: NamedSharding) -> P:
  """Partition of a parameter over fsdp alone."""
  return P(*(axis if axis == 'fsdp' else None for axis in sharding.spec))


def _fsdp_axis(spec: P) -> np.int32:
  """The axis of a parameter that is split over fsdp, or _UNSPLIT."""
  return np.int32(spec.index('fsdp') if 'fsdp' in spec else _UNSPLIT)


def _gathered(axes: Decoder, adapter_axes: Adapters, dtype: str) -> Parts:
  """How a device has the whole of what it holds a part of.

  Args:
    axes: of every parameter, the axis that is split over fsdp.
    adapter_axes: likewise, of the adapters.
    dtype: compute dtype, in which layers are gathered. Adapters are, before they are merged, in
      float32.
  """

  def whole(x: jax.Array, axis: np.int32, dtype: str) -> jax.Array:
    return x if axis == _UNSPLIT else gather(x, int(axis) - 1, dtype)  # the scan took L off

  def gather_layer(layer: Layers) -> Layers:
    return jax.tree.map(lambda x, axis: whole(x, axis, dtype), layer, axes.layers)

  def gather_adapters(adapters: LayerAdapters) -> LayerAdapters:
    return jax.tree.map(lambda x, axis: whole(x, axis, 'float32'), adapters, adapter_axes.layers)

  def gather_table(decoder: Decoder) -> jax.Array:
    axis = int(head_table(axes))
    # In float32, since its gradient is summed over chunks of positions.
    return head_table(decoder) if axis == _UNSPLIT else gather(head_table(decoder), axis, 'float32')

  return Parts(
    embed=embed if axes.embedding[...] == _UNSPLIT else _embed_columns,
    layer=gather_layer,
    adapters=gather_adapters,
    head_table=gather_table,
  )


def _embed_columns(decoder: Decoder, tokens: jax.Array) -> jax.Array:
  """`embed` for a table split by columns: tokens and their columns move, the table does not."""
  all_tokens = jax.lax.all_gather(tokens, 'fsdp', axis=0, tiled=True)
  columns = embed(decoder, all_tokens)  # [all rows, S, M / fsdp]
  return jax.lax.all_to_all(columns, 'fsdp', split_axis=0, concat_axis=2, tiled=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gather(x: jax.Array, axis: int, dtype: str) -> jax.Array:
  """The whole of a parameter that is split along `axis` over fsdp, cast to `dtype`.

  Its gradient is summed in float32, whatever `dtype` is.
  """
  return jax.lax.all_gather(x.astype(dtype), 'fsdp', axis=axis, tiled=True)


def _gather_forward(x: jax.Array, axis: int, dtype: str):
  return gather(x, axis, dtype), None


def _gather_backward(axis, dtype, _, cotangent):
  """A matrix's axis is cut in two: else TPUs' compiler sums all of a large one, then drops most."""
  del dtype
  whole, is_matrix = cotangent.astype(jnp.float32), cotangent.ndim == 2
  if is_matrix:
    num_parts = jax.lax.axis_size('fsdp')
    whole = whole.reshape(*whole.shape[:axis], num_parts, -1, *whole.shape[axis + 1 :])
  return (jax.lax.psum_scatter(whole, 'fsdp', scatter_dimension=axis, tiled=not is_matrix),)


gather.defvjp(_gather_forward, _gather_backward)
