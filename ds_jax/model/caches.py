"""Decoding forms of the decoder: chunks that extend path caches, and steps of W siblings.

A slot owns a *path cache* (keys and values from the root to its node) and a short *segment cache*
for each of its W children. Caches are read-only inside the layer scan; only the new keys and
values come out of it, and are written once per step (as scan outputs, the caches would cost 1.6
instead of 0.6 times their size in temporaries on a TPU).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ds_jax.checks import check_rank, check_shape
from ds_jax.model.attention.partial import Partial, attend_part, group_heads, merge
from ds_jax.model.attention.path import group_size
from ds_jax.model.attention.reader import CacheReader, Caches
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, Layers, apply_layer, embed, layer_kind, scan_layers


class Slots(NamedTuple):
  """Caches of B slots; S is the capacity, entries at or beyond `path_length` are stale."""

  path_keys: jax.Array  # [L, B, C, S, D] compute dtype, rotated
  path_values: jax.Array  # [L, B, C, S, D]
  path_length: jax.Array  # [B] int32
  segment_keys: jax.Array  # [L, B, W, C, T, D]
  segment_values: jax.Array  # [L, B, W, C, T, D]

  @property
  def paths(self) -> Caches:
    return Caches(self.path_keys, self.path_values)

  @property
  def segments(self) -> Caches:
    return Caches(self.segment_keys, self.segment_values)

  @property
  def position_bytes(self) -> int:
    """Of one position of a path: keys and values of all layers."""
    num_layers, _, num_heads, _, head_width = self.path_keys.shape
    return sum(num_layers * num_heads * head_width * x.dtype.itemsize for x in self.paths)


def init_slots(
  config: DecoderConfig, num_slots: int, *, width: int, segment_length: int, capacity: int
) -> Slots:
  """Empty caches in the compute dtype.

  Args:
    config: the decoder's.
    num_slots: B.
    width: W, children of a slot.
    segment_length: T, positions of a child's segment.
    capacity: S, positions of a slot's path.
  """
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
  tokens: jax.Array,
  *,
  reader: CacheReader,
  slot_index: jax.Array | None = None,
) -> tuple[Caches, jax.Array]:
  """Encodes a chunk of tokens after the paths of some slots.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches, not changed.
    tokens: `[R, Q]` int32; trailing padding does no harm, since nothing before sees it.
    reader: of the paths.
    slot_index: `[R]` int32, the slot that each lane extends; None: lanes are the B slots.

  Returns:
    New keys and values `[L, R, C, Q, D]`, and hidden states `[R, Q, M]`.

  Raises:
    ValueError: if the tokens are no chunks.
  """
  check_rank('tokens', tokens, 2)
  config = decoder.config
  num_queries = tokens.shape[1]
  length = slots.path_length if slot_index is None else slots.path_length[slot_index]
  positions = length[:, None] + jnp.arange(num_queries)
  causal = jnp.tri(num_queries, dtype=bool)[None]

  def attend_chunk(q, k, v, *, window: jax.Array | None) -> Partial:
    is_seen = causal
    if window is not None:
      place = jnp.arange(num_queries)
      is_seen = causal & (place[:, None] - place < window)
    # Lanes in groups, as in attend_path: the scores of all would not stay in a CPU's cache.
    size = group_size(len(q))
    grouped = [x.reshape(-1, size, *x.shape[1:]) for x in (q, k.swapaxes(1, 2), v.swapaxes(1, 2))]
    parts = jax.lax.map(lambda group: attend_part(*group, is_seen), grouped)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)

  def body(x, xs):
    layer, index = xs
    kind = layer_kind(config, index)

    def attend_fn(q, k, v):
      q = group_heads(q, config.num_kv_heads)
      path = reader.attend_chunk_paths(
        q,
        slots.paths,
        layer=index,
        length=length,
        slot_index=slot_index,
        start=_window_start(positions, kind.window),
      )
      return merge([path, attend_chunk(q, k, v, window=kind.window)])

    x, (k, v) = apply_layer(
      layer, config, x, positions=positions, rotation=kind.rotation, attend_fn=attend_fn
    )
    return x, Caches(k.swapaxes(1, 2), v.swapaxes(1, 2))

  x = embed(decoder, tokens)
  xs = decoder.layers, jnp.arange(config.num_layers)
  hidden, new = scan_layers(body, x, xs, num_layers=config.num_layers)
  return new, hidden


def _window_start(positions: jax.Array, window: jax.Array | None) -> jax.Array | None:
  """The first positions that queries at `positions` see (below 0: all); None: no window."""
  return None if window is None else positions - window + 1


def index_after(index: jax.Array, hidden: jax.Array) -> jax.Array:
  """`index` [...] int32, known to XLA only when `hidden` is: what is written there comes later.

  New keys and values do not need what the last layer reads from the caches. On CPUs (where
  optimization barriers are gone by then) XLA copies a cache that it may write before it is read.
  """
  return index + jnp.minimum(jnp.isnan(hidden).sum(), 0)


def write_path(
  slots: Slots, new: Caches, slot_index: jax.Array, *, start: jax.Array | None = None
) -> Slots:
  """Writes keys and values `[L, R, C, Q, D]` after the paths of some slots.

  `path_length` stays: the caller says how much of what was written is valid. The capacity must
  leave Q positions beyond any path, because a slice that would overrun is shifted, not cut.

  Args:
    slots: the caches.
    new: what is written.
    slot_index: `[R]` int32.
    start: `[R]` int32, positions to write at; None: the ends of the paths.
  """
  check_shape('slot_index', slot_index, (new.keys.shape[1],))
  start = slots.path_length[slot_index] if start is None else start

  def write_lane(lane, caches):
    place = (0, slot_index[lane], 0, start[lane], 0)
    take = lambda x: jax.lax.dynamic_slice_in_dim(x, lane, 1, axis=1)
    return Caches(
      jax.lax.dynamic_update_slice(caches.keys, take(new.keys), place),
      jax.lax.dynamic_update_slice(caches.values, take(new.values), place),
    )

  paths = jax.lax.fori_loop(0, new.keys.shape[1], write_lane, slots.paths)
  return slots._replace(path_keys=paths.keys, path_values=paths.values)


def copy_path(
  paths: Caches, source: jax.Array, target: jax.Array, *, start: jax.Array, num_positions: int
) -> Caches:
  """Copies positions of one slot's path to the same positions of another's.

  Args:
    paths: of all slots.
    source, target: `[]` int32, slots.
    start: `[]` int32, the first position; a slice that would overrun is shifted, not cut.
    num_positions: how many.
  """

  def copy(cache: jax.Array) -> jax.Array:
    num_layers, _, num_heads, _, head_width = cache.shape
    sizes = (num_layers, 1, num_heads, num_positions, head_width)
    positions = jax.lax.dynamic_slice(cache, (0, source, 0, start, 0), sizes)
    return jax.lax.dynamic_update_slice(cache, positions, (0, target, 0, start, 0))

  return jax.tree.map(copy, paths)


def reorder_siblings(
  segments: Caches,
  slot: jax.Array,
  parent: jax.Array,
  *,
  start: jax.Array,
  num_positions: int,
) -> Caches:
  """Gives each child of one slot some positions of what another child of it has.

  Args:
    segments: of all slots.
    slot: `[]` int32.
    parent: `[W]` int32, the child whose positions each gets.
    start: `[]` int32, the first position; the slice must not overrun.
    num_positions: how many.
  """

  def reorder(cache: jax.Array) -> jax.Array:
    num_layers, _, width, num_heads, _, head_width = cache.shape
    sizes = (num_layers, 1, width, num_heads, num_positions, head_width)
    place = (0, slot, 0, 0, start, 0)
    positions = jax.lax.dynamic_slice(cache, place, sizes)
    return jax.lax.dynamic_update_slice(cache, jnp.take(positions, parent, axis=2), place)

  return jax.tree.map(reorder, segments)


def append_segments(slots: Slots, child: jax.Array) -> Slots:
  """Appends the segment cache of one child per slot to the slot's path.

  The child's last token stays out: it is *pending*, sampled but never encoded.

  Args:
    slots: the caches.
    child: `[B]` int32, index of the child, -1: none (what is then written beyond the path is
      stale, and the length stays).
  """
  num_slots, segment_length = child.shape[0], slots.segment_keys.shape[4]

  def pick(segments: jax.Array) -> jax.Array:  # [L, B, W, C, T, D] -> [L, B, C, T, D]
    index = jnp.maximum(child, 0)[None, :, None, None, None, None]
    return jnp.take_along_axis(segments, index, axis=2)[:, :, 0]

  every_slot = jnp.arange(num_slots)
  picked = Caches(pick(slots.segment_keys), pick(slots.segment_values))
  slots = write_path(slots, picked, every_slot)
  added = jnp.where(child >= 0, segment_length - 1, 0)
  return slots._replace(path_length=slots.path_length + added)


def decode_step(
  decoder: Decoder,
  slots: Slots,
  tokens: jax.Array,
  *,
  step: jax.Array,
  reader: CacheReader,
  layers: Sequence[Layers] | None = None,
) -> tuple[Caches, jax.Array]:
  """Encodes one token of each of the W children of every slot.

  The W siblings read the shared path once; each also reads its own segment.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches, not changed.
    tokens: `[B, W]` int32, the children's tokens at place `step` of their segments.
    step: `[]` int32, tokens already in the segment caches.
    reader: of paths and segments.
    layers: of `split_layers`; None: the decoder's, stacked.

  Returns:
    New keys and values `[L, B, W, C, D]`, and hidden states `[B, W, M]`.

  Raises:
    ValueError: if the tokens are not those of the slots' children.
  """
  check_shape('tokens', tokens, slots.segment_keys.shape[1:3])
  config = decoder.config
  num_slots, width = tokens.shape
  positions = jnp.broadcast_to((slots.path_length + step)[:, None], (num_slots, width))
  scanned, attend_segments = reader.read_segments(slots.segments, step)
  itself = jnp.ones((1, 1, 1), bool)

  def per_child(x: jax.Array) -> jax.Array:  # [B, W, ...] -> [B * W, ...]
    return x.reshape(num_slots * width, *x.shape[2:])

  def per_slot(part: Partial) -> Partial:  # [B * W, C, 1, ...] -> [B, C, W, ...]
    def regroup(x: jax.Array) -> jax.Array:
      return x[:, :, 0].reshape(num_slots, width, *x[:, :, 0].shape[1:]).swapaxes(1, 2)

    return jax.tree.map(regroup, part)

  def body(x, xs):
    layer, index, *of_layer = xs
    kind = layer_kind(config, index)

    def attend_fn(q, k, v):
      q_child = group_heads(per_child(q)[:, None], config.num_kv_heads)
      k_child, v_child = (per_child(x)[:, :, None] for x in (k, v))  # [B * W, C, 1, D]
      q = group_heads(q, config.num_kv_heads)
      path = reader.attend_paths(
        q,
        slots.paths,
        layer=index,
        length=slots.path_length,
        start=_window_start(positions, kind.window),
      )
      segment = per_slot(
        attend_segments(q_child, of_layer, index, start=_window_start(step, kind.window))
      )
      token = per_slot(attend_part(q_child, k_child, v_child, itself))
      return merge([path, segment, token])

    x, (k, v) = apply_layer(
      layer, config, x, positions=positions, rotation=kind.rotation, attend_fn=attend_fn
    )
    return x, Caches(k, v)

  x = embed(decoder, tokens)
  xs = layers or decoder.layers, jnp.arange(config.num_layers), *scanned
  hidden, new = scan_layers(body, x, xs, num_layers=config.num_layers)
  return new, hidden
