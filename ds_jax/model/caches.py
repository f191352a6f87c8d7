"""Decoding forms of the decoder: chunks that extend path caches, and steps of W siblings.

A slot owns a *path cache* (keys and values from the root to its node) and a short *segment cache*
for each of its W children. Caches are read-only inside the layer scan; only the new keys and
values come out of it, and are written once per step (as scan outputs, the caches would cost 1.6
instead of 0.6 times their size in temporaries on a TPU: design.md section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ds_jax.model.attention import partial as attention
from ds_jax.model.attention.kernels import gpu_cache as gpu_cache_kernel
from ds_jax.model.attention.kernels.tpu_cache import (
  PATH_KERNEL,
  SEGMENT_KERNEL,
  attend_caches,
  segment_block,
)
from ds_jax.model.attention.path import attend_path, group_size
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, Layers, apply_layer, embed, scan_layers


class Slots(NamedTuple):
  """Caches of B slots; S is the capacity, entries at or beyond `path_length` are stale."""

  path_keys: jax.Array  # [L, B, C, S, D] compute dtype, rotated
  path_values: jax.Array  # [L, B, C, S, D]
  path_length: jax.Array  # [B] int32
  segment_keys: jax.Array  # [L, B, W, C, T, D]
  segment_values: jax.Array  # [L, B, W, C, T, D]


def init_slots(
  config: DecoderConfig, num_slots: int, width: int, segment_length: int, capacity: int
) -> Slots:
  """Empty caches in the compute dtype."""
  layers, heads, dtype = config.num_layers, config.num_kv_heads, config.compute_dtype
  path = (layers, num_slots, heads, capacity, config.head_width)
  segment = (layers, num_slots, width, heads, segment_length, config.head_width)
  return Slots(
    jnp.zeros(path, dtype),
    jnp.zeros(path, dtype),
    jnp.zeros(num_slots, jnp.int32),
    jnp.zeros(segment, dtype),
    jnp.zeros(segment, dtype),
  )


def encode_chunk(
  decoder: Decoder,
  slots: Slots,
  slot_index: jax.Array | None,
  tokens: jax.Array,
  block: int,
  kernel: str = '',
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Encodes a chunk of tokens after the paths of some slots.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches, not changed.
    slot_index: `[R]` int32, the slot that each lane extends; None: lanes are the B slots.
    tokens: `[R, Q]` int32; trailing padding does no harm, since nothing before sees it.
    block: path positions that attention reads at a time.
    kernel: of `cache_kernel.kernel_for`; a GPU's reads the paths here too.

  Returns:
    New keys and values `[L, R, C, Q, D]` and hidden states `[R, Q, M]`.
  """
  config = decoder.config
  num_queries = tokens.shape[1]
  length = slots.path_length if slot_index is None else slots.path_length[slot_index]
  positions = length[:, None] + jnp.arange(num_queries)
  causal = jnp.tri(num_queries, dtype=bool)[None]

  def attend_chunk(q, k, v):
    # Lanes in groups, as in attend_path: the scores of all would not stay in a CPU's cache.
    size = group_size(len(q))
    grouped = [x.reshape(-1, size, *x.shape[1:]) for x in (q, k.swapaxes(1, 2), v.swapaxes(1, 2))]
    parts = jax.lax.map(lambda group: attention.attend_part(*group, causal), grouped)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)

  def attend_paths(q, index):
    path = slots.path_keys, slots.path_values, index, length
    if kernel == 'gpu':
      return gpu_cache_kernel.attend_caches(q, *path, slot_index, name=PATH_KERNEL)
    return attend_path(q, *path, block, slot_index)

  def body(x, xs):
    layer, index = xs

    def attend_fn(q, k, v):
      q = attention.group_heads(q, config.num_kv_heads)
      return attention.merge([attend_paths(q, index), attend_chunk(q, k, v)])

    x, (k, v) = apply_layer(layer, config, x, positions, attend_fn)
    return x, (k.swapaxes(1, 2), v.swapaxes(1, 2))

  hidden, (keys, values) = scan_layers(
    body, embed(decoder, tokens), (decoder.layers, jnp.arange(config.num_layers)), config.num_layers
  )
  return keys, values, hidden


def index_after(index: jax.Array, hidden: jax.Array) -> jax.Array:
  """`index` [...] int32, known to XLA only when `hidden` is: what is written there comes later.

  New keys and values do not need what the last layer reads from the caches. On CPUs (where
  optimization barriers are gone by then) XLA copies a cache that it may write before it is read.
  """
  return index + jnp.minimum(jnp.isnan(hidden).sum(), 0)


def write_path(slots: Slots, slot_index: jax.Array, keys: jax.Array, values: jax.Array) -> Slots:
  """Writes `[L, R, C, Q, D]` keys and values after the paths of distinct slots `[R]`.

  `path_length` stays: the caller says how much of what was written is valid. The capacity must
  leave Q positions beyond any path, because a slice that would overrun is shifted, not cut.
  """
  length = slots.path_length[slot_index]

  def write(lane, caches):
    start = (0, slot_index[lane], 0, length[lane], 0)
    take = lambda x: jax.lax.dynamic_slice_in_dim(x, lane, 1, axis=1)
    return tuple(
      jax.lax.dynamic_update_slice(cache, take(new), start)
      for cache, new in zip(caches, (keys, values), strict=True)
    )

  path_keys, path_values = jax.lax.fori_loop(
    0, keys.shape[1], write, (slots.path_keys, slots.path_values)
  )
  return slots._replace(path_keys=path_keys, path_values=path_values)


def append_segments(slots: Slots, child: jax.Array) -> Slots:
  """Appends the segment cache of one child per slot to the slot's path.

  The child's last token stays out: it is *pending*, sampled but never encoded.

  Args:
    slots: the caches.
    child: `[B]` int32, index of the child, -1: none (what is then written beyond the path is
      stale, and the length stays).
  """
  num_slots = child.shape[0]
  segment_length = slots.segment_keys.shape[4]
  pick = lambda x: jnp.take_along_axis(
    x, jnp.maximum(child, 0)[None, :, None, None, None, None], axis=2
  )[:, :, 0]
  slots = write_path(
    slots, jnp.arange(num_slots), pick(slots.segment_keys), pick(slots.segment_values)
  )
  added = jnp.where(child >= 0, segment_length - 1, 0)
  return slots._replace(path_length=slots.path_length + added)


def decode_step(
  decoder: Decoder,
  slots: Slots,
  tokens: jax.Array,
  step: jax.Array,
  block: int,
  kernel: str = '',
  layers: Sequence[Layers] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Encodes one token of each of the W children of every slot.

  The W siblings read the shared path once; each also reads its own segment.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches, not changed.
    tokens: `[B, W]` int32, the children's tokens at place `step` of their segments.
    step: `[]` int32, tokens already in the segment caches.
    block: path positions that attention reads at a time.
    kernel: by which caches are read, of `cache_kernel.kernel_for`.
    layers: of `split_layers`; None: the decoder's, stacked.

  Returns:
    New keys and values `[L, B, W, C, D]` and hidden states `[B, W, M]`.
  """
  config = decoder.config
  num_slots, width = tokens.shape
  segment_length = slots.segment_keys.shape[4]
  positions = jnp.broadcast_to((slots.path_length + step)[:, None], (num_slots, width))
  in_segment = (jnp.arange(segment_length) < step)[None, None]
  itself = jnp.ones((1, 1, 1), bool)
  # [B, W, ...] <-> [B * W, ...]; of a Partial, [B * W, C, 1, ...] -> [B, C, W, ...].
  per_child = lambda x: x.reshape(num_slots * width, *x.shape[2:])
  per_slot = lambda part: attention.Partial(
    *(x[:, :, 0].reshape(num_slots, width, *x[:, :, 0].shape[1:]).swapaxes(1, 2) for x in part)
  )

  def attend_slots(q, index):
    path = slots.path_keys, slots.path_values, index, slots.path_length
    if kernel == 'gpu':
      return gpu_cache_kernel.attend_caches(q, *path, name=PATH_KERNEL)
    if kernel == 'tpu':
      return attend_caches(q, *path, block=block, name=PATH_KERNEL)
    return attend_path(q, *path, block)

  def attend_segments(q_child, index, caches):
    if kernel:
      children = (
        x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (slots.segment_keys, slots.segment_values)
      )
      written = *children, index, jnp.full(num_slots * width, step)
      if kernel == 'gpu':
        return gpu_cache_kernel.attend_caches(q_child, *written, name=SEGMENT_KERNEL)
      return attend_caches(
        q_child, *written, block=segment_block(segment_length), rows=width, name=SEGMENT_KERNEL
      )
    return attention.attend_part(q_child, *map(per_child, caches), in_segment)

  def body(x, xs):
    layer, index, *caches = xs

    def attend_fn(q, k, v):
      q_child = attention.group_heads(per_child(q)[:, None], config.num_kv_heads)
      own = [per_child(x)[:, :, None] for x in (k, v)]  # [B * W, C, 1, D]
      return attention.merge(
        [
          attend_slots(attention.group_heads(q, config.num_kv_heads), index),
          per_slot(attend_segments(q_child, index, caches)),
          per_slot(attention.attend_part(q_child, *own, itself)),
        ]
      )

    return apply_layer(layer, config, x, positions, attend_fn)

  # Kernels read a layer's segments where they lie.
  cut = () if kernel else (slots.segment_keys, slots.segment_values)
  hidden, (keys, values) = scan_layers(
    body,
    embed(decoder, tokens),
    (layers or decoder.layers, jnp.arange(config.num_layers), *cut),
    config.num_layers,
  )
  return keys, values, hidden
