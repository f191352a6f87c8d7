"""The jitted expansion: append, rewind or replay a path, then decode W children per slot.

One compiled program does everything a round of search needs. It runs under `shard_map` over
data x fsdp without collectives: each device loops until its own children have ended, so its
results do not depend on how many devices there are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.decode.distinct import Race, draw_distinct, start_race
from ds_jax.decode.sampling import (
  Draw,
  SamplingOptions,
  child_keys,
  draw_tokens,
  token_keys,
)
from ds_jax.interfaces import ExpandFn, Segments, SlotPlan
from ds_jax.model.attention.path import positions_read
from ds_jax.model.attention.reader import CacheReader, Caches, KernelChoice, choose_reader
from ds_jax.model.caches import (
  Slots,
  append_segments,
  copy_path,
  decode_step,
  encode_chunk,
  index_after,
  init_slots,
  reorder_siblings,
  write_path,
)
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, compute_logits, split_layers

# Named scopes of loops, by which a plan knows how often they run.
REPLAY, SHARE_PATHS, SHARED_BLOCKS = 'replay', 'share_paths', 'shared_blocks'
DECODE_TOKENS = 'decode_tokens'
REORDERED_SLOTS, REORDERED_BLOCKS = 'reordered_slots', 'reordered_blocks'

# Positions of segments that are reordered at a time, where they divide a segment.
REORDER_BLOCK = 64

# No pass of a replay is narrower, unless the chunk is: there are few programs to compile.
MIN_PASS_WIDTH = 64
# Tokens of a pass, at least: products of fewer rows do not use a device. Short chunks are of small
# decoders, where it is what is around the products that counts.
MIN_PASS_TOKENS, MIN_TOKENS_OF_SHORT_CHUNKS = 256, 4096


class ReplayPass(NamedTuple):
  """Lanes that are encoded together; counts are per device."""

  num_lanes: int
  width: int  # tokens of each


@dataclasses.dataclass(frozen=True)
class ExpandShape:
  """Static sizes of an expansion; counts of slots and lanes are per device."""

  num_slots: int  # B
  width: int  # W
  segment_length: int  # T
  context_length: int  # longest path, prompt included
  replay_chunk: int  # tokens one lane encodes per expansion
  replay_lanes: int  # slots that may replay in one expansion
  path_block: int  # path positions that attention reads at a time
  num_kv_heads: int  # C; `tensor` splits the caches where it divides
  head_width: int  # D
  cache_kernel: KernelChoice = 'auto'  # search.cache_kernel
  has_distinct_siblings: bool = False  # search.siblings

  @property
  def capacity(self) -> int:
    """Path positions allocated per slot: slices written after a path must not overrun."""
    needed = self.context_length + max(self.replay_chunk, self.segment_length)
    if needed <= self.path_block:
      return needed
    return -(-needed // self.path_block) * self.path_block

  def replay_passes(self) -> list[ReplayPass]:
    """The shapes in which a replay encodes, the narrowest first.

    A lane goes through the narrowest that holds its tokens. So its shape never follows from what
    the other slots do, and with it no bit of the result.
    """
    widths = [self.replay_chunk]
    while widths[0] % 4 == 0 and widths[0] // 4 >= MIN_PASS_WIDTH:
      widths.insert(0, widths[0] // 4)
    passes = []
    for width in widths:
      is_short = width < MIN_PASS_WIDTH
      least = MIN_TOKENS_OF_SHORT_CHUNKS if is_short else MIN_PASS_TOKENS
      num_lanes = min(-(-least // width), self.replay_lanes, self.num_slots)
      passes.append(ReplayPass(num_lanes, width))
    return passes

  def positions_read(self, path_length: np.ndarray) -> int:
    """Path positions that a decode step reads for slots whose paths have `path_length` `[B]`.

    Of a layer that sees whole paths; local ones read less.
    """
    return positions_read(path_length, self.path_block, self.capacity)

  def reader(self, mesh: Mesh) -> CacheReader:
    """The reader of such caches on a mesh; InputError if its kernel is asked for and cannot run."""
    return choose_reader(
      self.cache_kernel,
      mesh,
      block=self.path_block,
      capacity=self.capacity,
      segment_length=self.segment_length,
      head_width=self.head_width,
    )


class DecodeState(NamedTuple):
  """What the decode loop carries."""

  step: jax.Array  # [] int32, tokens sampled so far
  token: jax.Array  # [B, W] int32, the last of them
  is_ended: jax.Array  # [B, W] bool, ended or not asked for
  segment_keys: jax.Array  # [L, B, W, C, T, D]
  segment_values: jax.Array  # [L, B, W, C, T, D]
  segments: Segments
  race: Race | None = None  # of distinct siblings


@functools.cache
def compile_expand(mesh: Mesh, shape: ExpandShape) -> Any:
  """Returns the jitted `expand(decoder, slots, plan, options, stop_ids)`; slots are donated.

  The same arguments return the same function, so engines that differ in less share its programs.

  Args:
    mesh: the mesh; slots are split over data x fsdp, the decoder may be split over tensor.
    shape: static sizes.

  Raises:
    InputError: if the kernel is asked for where it cannot run.
  """
  slot_specs, batch = slots_spec(), P(sharding.BATCH_AXES)
  reader = shape.reader(mesh)

  def local(decoder, slots, plan, options, stop_ids):
    return expand(
      decoder, slots, plan, options=options, stop_ids=stop_ids, shape=shape, reader=reader
    )

  # With tensor parallelism that axis stays automatic: XLA inserts its all-reduces.
  manual = set(sharding.AXES if mesh.shape['tensor'] == 1 else sharding.BATCH_AXES)
  mapped = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(P(), slot_specs, batch, P(), P()),
    out_specs=(slot_specs, batch),
    axis_names=manual,
    check_vma=False,
  )
  # Without out_shardings the returned slots differ in name from the first ones: a second program.
  out_shardings = (slots_sharding(mesh, shape), NamedSharding(mesh, batch))
  return jax.jit(mapped, donate_argnums=1, out_shardings=out_shardings)


def bind_sampling(program: Any, options: SamplingOptions, stop_ids: Sequence[int]) -> ExpandFn:
  """Returns `expand_fn(decoder, slots, plan) -> (slots, Segments)` of a compiled expand program.

  Args:
    program: from `compile_expand`; other options or stop ids (equally many) compile nothing.
    options: how tokens are drawn; a plan may say at which temperature.
    stop_ids: any of these ids ends a segment.
  """
  ids = np.asarray(stop_ids, np.int32)

  def expand_fn(decoder: Decoder, slots: Slots, plan: SlotPlan) -> tuple[Slots, Segments]:
    return program(decoder, slots, plan, options, ids)

  return expand_fn


def compile_slots(config: DecoderConfig, mesh: Mesh, shape: ExpandShape) -> Callable[[], Slots]:
  """Returns a jitted function that makes empty slots: `shape.num_slots` per device group."""

  def init() -> Slots:
    return init_slots(
      config,
      shape.num_slots * sharding.num_slot_shards(mesh),
      width=shape.width,
      segment_length=shape.segment_length,
      capacity=shape.capacity,
    )

  return jax.jit(init, out_shardings=slots_sharding(mesh, shape))


def slots_spec() -> Slots:
  """Partition of every field of Slots over the axes under which slots are independent."""
  cache, count = P(None, sharding.BATCH_AXES), P(sharding.BATCH_AXES)
  return Slots(cache, cache, count, cache, cache)


def slots_sharding(mesh: Mesh, shape: ExpandShape) -> Slots:
  """Sharding of every field of Slots, heads over `tensor` included."""
  heads = 'tensor' if shape.num_kv_heads % mesh.shape['tensor'] == 0 else None
  path = NamedSharding(mesh, P(None, sharding.BATCH_AXES, heads))
  segment = NamedSharding(mesh, P(None, sharding.BATCH_AXES, None, heads))
  return Slots(path, path, NamedSharding(mesh, P(sharding.BATCH_AXES)), segment, segment)


def expand(
  decoder: Decoder,
  slots: Slots,
  plan: SlotPlan,
  *,
  options: SamplingOptions,
  stop_ids: jax.Array,
  shape: ExpandShape,
  reader: CacheReader,
) -> tuple[Slots, Segments]:
  """One expansion on one device; see SlotPlan for the order of events.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches of B slots.
    plan: what every slot does.
    options: how tokens are drawn.
    stop_ids: `[stops]` int32; any of these ids ends a segment.
    shape: static sizes.
    reader: of the caches.
  """
  slots = append_segments(slots, plan.append_child)
  slots = slots._replace(path_length=plan.keep_length)
  slots = replay(decoder, slots, plan, passes=shape.replay_passes(), reader=reader)
  slots = share_paths(slots, plan, block=shape.path_block)
  slots, logits = encode_pending(decoder, slots, plan, reader=reader)
  return decode(
    decoder,
    slots,
    plan,
    logits=logits,
    options=options,
    stop_ids=stop_ids,
    reader=reader,
    is_distinct=shape.has_distinct_siblings,
  )


def replay(
  decoder: Decoder,
  slots: Slots,
  plan: SlotPlan,
  *,
  passes: Sequence[ReplayPass],
  reader: CacheReader,
) -> Slots:
  """Encodes `replay_tokens`, in as many passes as the slots that replay take.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches.
    plan: which slots replay what.
    passes: shapes of a pass, the narrowest first; the last one holds a whole chunk.
    reader: of the caches.
  """
  encoded, narrower = slots, 0
  for shape in passes:
    is_lane = (narrower < plan.replay_length) & (plan.replay_length <= shape.width)
    encoded = _encode_lanes(decoder, encoded, plan, is_lane=is_lane, shape=shape, reader=reader)
    narrower = shape.width
  return encoded._replace(path_length=slots.path_length + plan.replay_length)


def _encode_lanes(
  decoder: Decoder,
  slots: Slots,
  plan: SlotPlan,
  *,
  is_lane: jax.Array,
  shape: ReplayPass,
  reader: CacheReader,
) -> Slots:
  """Encodes the slots of `is_lane` [B], `shape.num_lanes` at a time; path lengths stay."""
  num_slots, capacity = len(is_lane), slots.path_keys.shape[3]
  lanes_first = jnp.argsort(~is_lane, stable=True)
  count = is_lane.sum()
  readable = read_by(slots, is_lane)

  def run_pass(index: jax.Array, caches: Caches) -> Caches:
    place = index * shape.num_lanes + jnp.arange(shape.num_lanes)
    lanes = lanes_first[jnp.minimum(place, num_slots - 1)]
    current = readable._replace(path_keys=caches.keys, path_values=caches.values)
    tokens = plan.replay_tokens[lanes, : shape.width]
    new, _ = encode_chunk(decoder, current, tokens, slot_index=lanes, reader=reader)
    # Lanes left over write at the end of a cache, where no path reaches.
    start = jnp.where(place < count, slots.path_length[lanes], capacity - shape.width)
    return write_path(current, new, lanes, start=start).paths

  with jax.named_scope(REPLAY):
    # A loop, where a conditional would do for one pass: a GPU's copies the caches.
    num_passes = (count + shape.num_lanes - 1) // shape.num_lanes
    paths = jax.lax.fori_loop(0, num_passes, run_pass, slots.paths)
  return slots._replace(path_keys=paths.keys, path_values=paths.values)


def share_paths(slots: Slots, plan: SlotPlan, *, block: int) -> Slots:
  """Copies what slots take over from the paths of others: keys and values, `block` at a time."""
  size = min(block, slots.path_keys.shape[3])
  takers_first = jnp.argsort(plan.copy_from < 0, stable=True)

  def take_over(index: jax.Array, paths: Caches) -> Caches:
    slot = takers_first[index]

    def copy_block(block_index: jax.Array, paths: Caches) -> Caches:
      return copy_path(
        paths, plan.copy_from[slot], slot, start=block_index * size, num_positions=size
      )

    num_blocks = (plan.keep_length[slot] + size - 1) // size
    with jax.named_scope(SHARED_BLOCKS):
      return jax.lax.fori_loop(0, num_blocks, copy_block, paths)

  with jax.named_scope(SHARE_PATHS):
    paths = jax.lax.fori_loop(0, (plan.copy_from >= 0).sum(), take_over, slots.paths)
  return slots._replace(path_keys=paths.keys, path_values=paths.values)


def encode_pending(
  decoder: Decoder, slots: Slots, plan: SlotPlan, *, reader: CacheReader
) -> tuple[Slots, jax.Array]:
  """Encodes the path's last token once for all siblings; returns logits `[B, V]` after it."""
  every_slot, is_active = jnp.arange(plan.pending_token.shape[0]), plan.num_children > 0
  new, hidden = encode_chunk(
    decoder, read_by(slots, is_active), plan.pending_token[:, None], reader=reader
  )
  length = index_after(slots.path_length, hidden)
  slots = write_path(slots._replace(path_length=length), new, every_slot)
  slots = slots._replace(path_length=length + is_active)
  return slots, compute_logits(decoder, hidden[:, 0])


def read_by(slots: Slots, is_reader: jax.Array) -> Slots:
  """Slots as they are read if only those of `is_reader` [B] need to see their paths."""
  return slots._replace(path_length=jnp.where(is_reader, slots.path_length, 0))


def decode(
  decoder: Decoder,
  slots: Slots,
  plan: SlotPlan,
  *,
  logits: jax.Array,
  options: SamplingOptions,
  stop_ids: jax.Array,
  reader: CacheReader,
  is_distinct: bool,
) -> tuple[Slots, Segments]:
  """Samples up to T tokens of every child; stops early once all of this device's have ended.

  Args:
    decoder: the parameters, in the form for search.
    slots: the caches, the pending tokens encoded.
    plan: what every slot does.
    logits: `[B, V]` float32 after the pending tokens.
    options: how tokens are drawn.
    stop_ids: `[stops]` int32; any of these ids ends a segment.
    reader: of the caches.
    is_distinct: whether the children of a slot are sampled without replacement.
  """
  num_slots, width, _, length = slots.segment_keys.shape[1:5]
  keys = child_keys(plan.key, plan.first_child, width)
  if plan.temperature is not None:
    options = options._replace(temperature=plan.temperature)
  is_asked = jnp.arange(width) < plan.num_children[:, None]
  state = DecodeState(
    segments=_empty_segments(num_slots, width, length),
    step=jnp.int32(0),
    token=jnp.zeros((num_slots, width), jnp.int32),
    is_ended=~is_asked,
    segment_keys=slots.segment_keys,
    segment_values=slots.segment_values,
    race=start_race(is_asked) if is_distinct else None,
  )
  layers = split_layers(decoder) if reader.splits_layers else None

  def draw(state: DecodeState, logits: jax.Array) -> DecodeState:
    keys_now = token_keys(keys, state.step)
    if state.race is None:
      return record(state, draw_tokens(keys_now, logits, options), stop_ids)
    heat = draw_distinct(
      keys_now, logits, options, race=state.race, is_ended=state.is_ended, is_asked=is_asked
    )
    state = follow(state, heat.parent, reader=reader)._replace(race=heat.race)
    return record(state, heat.draw, stop_ids)

  def step(state: DecodeState) -> DecodeState:
    current = slots._replace(segment_keys=state.segment_keys, segment_values=state.segment_values)
    place, is_running = state.step - 1, ~jnp.all(state.is_ended, -1)
    new, hidden = decode_step(
      decoder,
      read_by(current, is_running),
      state.token,
      step=place,
      reader=reader,
      layers=layers,
    )
    place = index_after(place, hidden)

    def put(cache: jax.Array, new: jax.Array) -> jax.Array:
      written = _put_active(cache, new[:, :, :, :, None], place, is_asked=is_asked)
      return reader.keep_layout(written)

    state = state._replace(
      segment_keys=put(state.segment_keys, new.keys),
      segment_values=put(state.segment_values, new.values),
    )
    return draw(state, compute_logits(decoder, hidden))

  def is_unfinished(state: DecodeState) -> jax.Array:
    return (state.step < length) & ~jnp.all(state.is_ended)

  state = draw(state, jnp.broadcast_to(logits[:, None], (num_slots, width, logits.shape[-1])))
  with jax.named_scope(DECODE_TOKENS):
    state = jax.lax.while_loop(is_unfinished, step, state)
  slots = slots._replace(segment_keys=state.segment_keys, segment_values=state.segment_values)
  return slots, state.segments


def _empty_segments(num_slots: int, width: int, length: int) -> Segments:
  """Segments [B, W, T] of which nothing is sampled."""
  shape = (num_slots, width, length)
  tokens, numbers = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
  return Segments(
    tokens=tokens,
    logprobs=numbers,
    sampled_logprobs=numbers,
    entropies=numbers,
    length=jnp.zeros((num_slots, width), jnp.int32),
    is_ended=jnp.zeros((num_slots, width), bool),
  )


def _put_active(
  cache: jax.Array, new: jax.Array, place: jax.Array, *, is_asked: jax.Array
) -> jax.Array:
  """Writes `[L, B, W, C, 1, D]` at `place`; an idle slot keeps the children it may yet append."""
  old = jax.lax.dynamic_slice_in_dim(cache, place, 1, axis=4)
  merged = jnp.where(is_asked[None, :, :, None, None, None], new, old)
  return jax.lax.dynamic_update_slice_in_dim(cache, merged, place, axis=4)


def follow(state: DecodeState, parent: jax.Array, *, reader: CacheReader) -> DecodeState:
  """Gives every sibling what its parent among them [B, W] has: tokens, scores, keys and values.

  Of the caches, only slots whose siblings change are touched, and only where they are written.
  """
  caches = Caches(state.segment_keys, state.segment_values)
  width, segment_length = caches.keys.shape[2], caches.keys.shape[4]
  is_changed = jnp.any(parent != jnp.arange(width), -1)
  changed_first = jnp.argsort(~is_changed, stable=True)
  size = segment_length if segment_length % REORDER_BLOCK else REORDER_BLOCK

  def reorder_slot(index: jax.Array, caches: Caches) -> Caches:
    slot = changed_first[index]

    def reorder_block(block_index: jax.Array, caches: Caches) -> Caches:
      start = block_index * size
      return reorder_siblings(caches, slot, parent[slot], start=start, num_positions=size)

    num_blocks = (state.step + size - 1) // size
    with jax.named_scope(REORDERED_BLOCKS):
      return jax.lax.fori_loop(0, num_blocks, reorder_block, caches)

  with jax.named_scope(REORDERED_SLOTS):
    caches = jax.lax.fori_loop(0, is_changed.sum(), reorder_slot, caches)

  def take(array: jax.Array) -> jax.Array:
    index = parent.reshape(*parent.shape, *[1] * (array.ndim - 2))
    return jnp.take_along_axis(array, index, axis=1)

  return state._replace(
    is_ended=take(state.is_ended),
    segments=jax.tree.map(take, state.segments),
    segment_keys=reader.keep_layout(caches.keys),
    segment_values=reader.keep_layout(caches.values),
  )


def record(state: DecodeState, draw: Draw, stop_ids: jax.Array) -> DecodeState:
  """Notes the token at place `step` of every child that is still running."""
  segments, is_running = state.segments, ~state.is_ended

  def put(array: jax.Array, value: jax.Array) -> jax.Array:
    value = jnp.where(is_running, value, 0).astype(array.dtype)[..., None]
    return jax.lax.dynamic_update_slice_in_dim(array, value, state.step, axis=2)

  stops = is_running & jnp.any(draw.token[..., None] == stop_ids, -1)
  segments = Segments(
    tokens=put(segments.tokens, draw.token),
    logprobs=put(segments.logprobs, draw.logprob),
    sampled_logprobs=put(segments.sampled_logprobs, draw.sampled_logprob),
    entropies=put(segments.entropies, draw.entropy),
    length=segments.length + is_running,
    is_ended=segments.is_ended | stops,
  )
  return state._replace(
    step=state.step + 1, token=draw.token, is_ended=state.is_ended | stops, segments=segments
  )
