"""The programs of a run, with described instead of real arguments: their memory and their work.

They are the jitted functions that the run itself calls; nothing of the model's size is allocated.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.config import (
  Config,
  EvaluateConfig,
  SamplingConfig,
  SearchConfig,
  context_length,
  goes_by_trajectory,
  num_updates,
  scored_temperature,
  trained_temperature,
)
from ds_jax.decode.expand import (
  DECODE_TOKENS,
  REORDERED_BLOCKS,
  REORDERED_SLOTS,
  REPLAY,
  SHARE_PATHS,
  SHARED_BLOCKS,
  ExpandShape,
  compile_expand,
  compile_slots,
  slots_sharding,
)
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.attention.training import BLOCK, KERNEL_SCOPES
from ds_jax.model.caches import Slots
from ds_jax.model.config import DecoderConfig
from ds_jax.plan.parts import (
  Expansion,
  Part,
  Resident,
  bytes_per_device,
  described,
  unavoidable_bytes,
)
from ds_jax.run.adapters import abstract_base, abstract_params, lora_of
from ds_jax.run.engines import direct_search, expand_shape, tree_search
from ds_jax.train.batch import Batch, RowShape, empty_batch, row_shapes
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import TrainState, abstract_state, search_form
from ds_jax.train.step import Learner, Statistics, make_learner, policy_loss_fn


def parts_of(config: Config, decoder: DecoderConfig, mesh: Mesh) -> Iterator[Part]:
  """The programs of a step: search (prefill and replay are part of the expansion) and update.

  Paths are taken as half full on average: that says how often their caches' blocks are read.

  Raises:
    InputError: if rows do not divide the mesh.
  """
  optimizer = make_optimizer(config.train, num_updates(config))
  lora = lora_of(config.train)
  state = abstract_state(abstract_params(decoder, lora), optimizer, mesh)
  *short_rows, rows = row_shapes(config.train, sharding.num_slot_shards(mesh))
  learner = make_learner(
    optimizer,
    mesh,
    micro_rows=rows.micro_rows,
    loss_fn=policy_loss_fn(config.train),
    temperature=trained_temperature(config),
    frozen=config.train.frozen,
  )
  base = abstract_base(decoder, lora)
  learner = dataclasses.replace(
    learner, base=described(base, sharding.parameter_shardings(base, mesh))
  )
  yield from _search_parts(config, decoder, learner, state=state)
  pattern = empty_batch(
    1,
    1,
    has_temperatures=scored_temperature(config) is not None,
    has_ends=goes_by_trajectory(config.train),
  )
  shapes = [rows, *short_rows]
  yield from _update_parts(learner, state, shapes, pattern=pattern, windows=decoder.windows)


def _search_parts(
  config: Config, decoder: DecoderConfig, learner: Learner, *, state: TrainState
) -> Iterator[Part]:
  """The search's form of the parameters is made, and both expansions run with it."""
  dtype, mesh = config.model.compute_dtype, learner.mesh
  policy = learner.policy(state.params)
  params, moments = bytes_per_device(policy), bytes_per_device(state.opt_state)
  form = jax.eval_shape(lambda p: search_form(p, mesh=mesh, dtype=dtype), policy)
  form = described(form, sharding.parameter_shardings(form, mesh, search=True))

  def expansion(name: str, search: SearchConfig, sampled: SamplingConfig | EvaluateConfig) -> Part:
    shape = expand_shape(config, search, decoder)
    slots = _slots(decoder, mesh, shape)
    path_length = context_length(config) // 2

    def with_slots(count: int) -> Part:
      return expansion(name, dataclasses.replace(search, num_slots=count), sampled)

    return Part(
      name,
      trace=lambda: compile_expand(mesh, shape).trace(form, slots, *_requests(mesh, shape, config)),
      resident=Resident(
        parameters=params + bytes_per_device(form),
        optimizer=moments,
        caches=bytes_per_device(slots),
      ),
      num_devices=mesh.size,
      trips=expand_trips(shape, mesh, slots, path_length=path_length, windows=decoder.windows)
      | sampling_trips(config, sampled),
      split=mesh.shape['tensor'],
      expansion=Expansion(
        num_slots=shape.num_slots,
        with_slots=with_slots,
        unavoidable=unavoidable_bytes(form, slots, path_length),
      ),
    )

  yield Part(
    'reshard',
    trace=lambda: search_form.trace(policy, mesh=mesh, dtype=dtype),
    resident=Resident(params, moments),
    num_devices=mesh.size,
  )
  yield expansion('expand', tree_search(config), config.sampling)
  yield expansion('direct rollouts', direct_search(config), config.evaluate)


def _update_parts(
  learner: Learner,
  state: TrainState,
  shapes: Sequence[RowShape],
  *,
  pattern: Batch,
  windows: Sequence[int | None],
) -> Iterator[Part]:
  """Rows are scored, gradients accumulated, and applied; with every length that rows may have.

  The fields of the rows are those of `pattern`.
  """
  rows, *short_rows = shapes
  mesh, policy = learner.mesh, learner.policy(state.params)
  params, moments = bytes_per_device(policy), bytes_per_device(state.opt_state)
  grads, statistics = jax.eval_shape(learner.start, state.params)
  grads = described(grads, sharding.parameter_shardings(grads, mesh))
  statistics = Statistics(*(_whole(x, mesh) for x in statistics))
  while_updating = Resident(params, moments, gradients=bytes_per_device(grads))

  def passes(shape: RowShape, which: str) -> Iterator[Part]:
    batch = _described_rows(shape, mesh, pattern)
    trips = attention_trips(shape.row_length, windows)
    yield Part(
      f'forward{which}',
      trace=lambda: learner.score_rows.trace(policy, batch),
      resident=Resident(params, moments),
      num_devices=mesh.size,
      trips=trips,
      split=mesh.shape['tensor'],
    )
    yield Part(
      f'forward and backward{which}',
      trace=lambda: learner.accumulate.trace(
        state.params, (grads, statistics), batch, learner.base
      ),
      resident=while_updating,
      num_devices=mesh.size,
      trips=trips,
      split=mesh.shape['tensor'],
    )

  yield from passes(rows, '')
  for shape in short_rows:
    yield from passes(shape, f', rows of {shape.row_length}')
  yield Part(
    'optimizer',
    trace=lambda: learner.apply.trace(state, grads),
    resident=while_updating,
    num_devices=mesh.size,
    split=mesh.size,
  )


def attention_trips(row_length: int, windows: Sequence[int | None]) -> dict[str, float]:
  """How often loops of the update's attention run, and which share of what kernels declare.

  Kernels declare rows without windows, which may differ from layer to layer.

  Args:
    row_length: of a row, which is taken as one sequence.
    windows: of the layers, None where one sees all.
  """
  visited = blocks_visited(row_length, windows)
  share = visited / blocks_visited(row_length, [None])
  return {'key_blocks': visited, **dict.fromkeys(KERNEL_SCOPES, share)}


def blocks_visited(row_length: int, windows: Sequence[int | None]) -> float:
  """Blocks of keys that a block of queries visits, on average: those before it, in its window.

  Args:
    row_length: of a row, which is taken as one sequence.
    windows: of the layers, None where one sees all.
  """
  num_blocks, visited = -(-row_length // BLOCK), 0
  for window, num_layers in collections.Counter(windows).items():
    for i in range(num_blocks):
      first = 0 if window is None else max(0, i * BLOCK - window + 1) // BLOCK
      visited += (i + 1 - first) * num_layers
  return visited / (num_blocks * len(windows))


def _described_rows(shape: RowShape, mesh: Mesh, pattern: Batch) -> Batch:
  """The rows of one pass."""
  rows = sharding.batch_sharding(mesh)
  describe = lambda x: jax.ShapeDtypeStruct(tuple(shape), x.dtype, sharding=rows)
  return jax.tree.map(describe, pattern)


def expand_trips(
  shape: ExpandShape,
  mesh: Mesh,
  slots: Slots,
  *,
  path_length: int,
  windows: Sequence[int | None],
) -> dict[str, float]:
  """How often the loops of an expansion run, and what share of the caches its kernels read.

  Prefills and replays are left out: they are rare (0.8 % of the tokens). Distinct siblings change
  places mostly in their first tokens; here all slots' do at every token, in one block.

  Args:
    shape: static sizes.
    mesh: where it runs.
    slots: the caches, described.
    path_length: valid positions of every path.
    windows: of the layers, None where one sees all; what differs between them is averaged.
  """
  reader, counts = shape.reader(mesh), collections.defaultdict(float)
  for window, num_layers in collections.Counter(windows).items():
    of_layer = reader.scope_counts(
      path_length, shape.num_slots, slots.paths, segments=slots.segments, window=window
    )
    for name, count in of_layer.items():
      counts[name] += count * num_layers / len(windows)
  rare = {REPLAY: 0.0, SHARE_PATHS: 0.0, SHARED_BLOCKS: 0.0}
  if shape.has_distinct_siblings:
    rare |= {REORDERED_SLOTS: float(shape.num_slots), REORDERED_BLOCKS: 1.0}
  return {DECODE_TOKENS: shape.segment_length, **rare, **counts}


def sampling_trips(config: Config, sampled: SamplingConfig | EvaluateConfig) -> dict[str, float]:
  """Whether top-k and top-p are computed at all, as shares of their conditionals."""
  return {'top_k': float(config.sampling.top_k > 0), 'top_p': float(sampled.top_p < 1)}


def _whole(x: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh))


def _slots(decoder: DecoderConfig, mesh: Mesh, shape: ExpandShape) -> Slots:
  return described(jax.eval_shape(compile_slots(decoder, mesh, shape)), slots_sharding(mesh, shape))


def _requests(mesh: Mesh, shape: ExpandShape, config: Config) -> tuple[Any, Any, Any]:
  """A plan, the sampling options and two stop ids."""
  num_slots = shape.num_slots * sharding.num_slot_shards(mesh)
  rows = sharding.batch_sharding(mesh)
  count = jax.ShapeDtypeStruct((num_slots,), jnp.int32, sharding=rows)
  temperature = None
  if config.explore.temperature != 'constant':
    temperature = jax.ShapeDtypeStruct((num_slots,), jnp.float32, sharding=rows)
  plan = SlotPlan(
    append_child=count,
    keep_length=count,
    replay_tokens=jax.ShapeDtypeStruct((num_slots, shape.replay_chunk), jnp.int32, sharding=rows),
    replay_length=count,
    copy_from=count,
    pending_token=count,
    num_children=count,
    first_child=count,
    key=jax.ShapeDtypeStruct((num_slots, 2), jnp.uint32, sharding=rows),
    temperature=temperature,
  )
  options = jax.tree.map(lambda x: _whole(x, mesh), sampling_options())
  return plan, options, _whole(jax.ShapeDtypeStruct((2,), jnp.int32), mesh)
