"""The programs of a run, with described instead of real arguments: their memory and their work.

They are the jitted functions that the run itself calls; nothing of the model's size is allocated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.config import (
  Config,
  EvaluateConfig,
  SamplingConfig,
  SearchConfig,
  context_length,
  num_updates,
)
from ds_jax.decode.expand import ExpandShape, compile_expand, compile_slots, slots_sharding
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.attention.training import BLOCK
from ds_jax.model.caches import Slots
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import abstract_decoder
from ds_jax.plan.hlo import read_traffic
from ds_jax.plan.products import count_flops, declared_bytes
from ds_jax.plan.speed import Work
from ds_jax.run.engines import direct_config, expand_shape
from ds_jax.search.policies import policy_of
from ds_jax.train.batch import empty_batch, row_shape
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import abstract_state, search_form
from ds_jax.train.step import Statistics, make_learner, policy_loss_fn


class Part(NamedTuple):
  """One program, and what of the run lies in memory while it runs."""

  name: str
  trace: Callable[[], Any]  # () -> jax.stages.Traced
  parameters: int  # bytes per device, of all forms that are there
  optimizer: int
  caches: int
  gradients: int
  num_devices: int
  trips: Mapping[str, float]  # how often loops run, by their named scopes
  split: int = 1  # devices that share a product by tensor parallelism
  num_slots: int = 0  # per device, of an expansion
  with_slots: Callable[[int], Part] | None = None  # the same expansion with other slots
  loop: str | None = None  # of an expansion: the loop whose body is a decode step
  unavoidable: float = 0.0  # bytes of a decode step: parameters and valid caches read once


@dataclasses.dataclass(frozen=True)
class Use:
  """Bytes per device while one program runs."""

  parameters: int
  optimizer: int
  caches: int
  gradients: int
  temporaries: int  # with outputs that take no argument's place

  @property
  def total(self) -> int:
    return sum(dataclasses.astuple(self))


def bytes_per_device(tree: Any) -> int:
  """Of arguments that are described by shape, dtype and sharding."""
  return sum(
    int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def unavoidable_bytes(decoder: Any, slots: Any, path_length: float) -> float:
  """Bytes per device that a decode step must read: parameters and what is valid of the caches.

  Args:
    decoder: in the form for search; of an embedding that is not the head only a few rows are read.
    slots: the caches; segments are half written on average.
    path_length: valid positions of a path, on average.
  """
  table = 0 if decoder.head is None else bytes_per_device(decoder.embedding)
  share = path_length / slots.path_keys.shape[3]
  return (
    bytes_per_device(decoder)
    - table
    + bytes_per_device((slots.path_keys, slots.path_values)) * share
    + bytes_per_device((slots.segment_keys, slots.segment_values)) / 2
  )


class Measured(NamedTuple):
  """What the compiler says of a part."""

  use: Use
  work: Work
  decode_step: Work | None  # of one step of an expansion


def measure(part: Part) -> Measured:
  """Compiles; JaxRuntimeError if that fails (RESOURCE_EXHAUSTED: it does not fit even alone)."""
  traced = part.trace()
  compiled = traced.lower().compile()
  memory, text = compiled.memory_analysis(), compiled.as_text()
  new_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
  use = Use(
    part.parameters,
    part.optimizer,
    part.caches,
    part.gradients,
    memory.temp_size_in_bytes + max(new_outputs, 0),
  )
  devices = jax.tree.leaves(compiled.input_shardings)[0].device_set
  platform, declared = next(iter(devices)).platform, declared_bytes(traced.jaxpr)

  def work(loop: str | None) -> Work:
    return Work(
      count_flops(traced.jaxpr, part.trips, loop, platform) / part.split,
      read_traffic(text, part.trips, part.num_devices, loop, declared),
    )

  return Measured(use, work(None), part.loop and work(part.loop))


def parts_of(config: Config, decoder: DecoderConfig, mesh: Mesh) -> Iterator[Part]:
  """The programs of a step: search (prefill and replay are part of the expansion) and update.

  Paths are taken as half full on average: that says how often their caches' blocks are read.

  Raises:
    InputError: if rows do not divide the mesh.
  """
  optimizer = make_optimizer(config.train, num_updates(config))
  state = abstract_state(abstract_decoder(decoder), optimizer, mesh)
  params, moments = bytes_per_device(state.params), bytes_per_device(state.opt_state)
  rows = row_shape(config.train, sharding.num_slot_shards(mesh))
  learner = make_learner(
    optimizer,
    mesh,
    micro_rows=rows.micro_rows,
    loss_fn=policy_loss_fn(config.train),
    temperature=config.sampling.temperature or 1.0,
    frozen=config.train.frozen,
  )
  form = jax.eval_shape(
    lambda p: search_form(p, mesh=mesh, dtype=config.model.compute_dtype), state.params
  )
  form = described(form, sharding.parameter_shardings(form, mesh, search=True))
  both = params + bytes_per_device(form)
  path_length = context_length(config) // 2

  def expansion(name: str, search: SearchConfig, sampled: SamplingConfig | EvaluateConfig) -> Part:
    shape = expand_shape(config, search, decoder)
    slots = _slots(decoder, mesh, shape)
    trace = lambda: compile_expand(mesh, shape).trace(form, slots, *_requests(mesh, shape))
    chosen = {'top_k': float(config.sampling.top_k > 0), 'top_p': float(sampled.top_p < 1)}
    again = lambda count: expansion(name, dataclasses.replace(search, num_slots=count), sampled)
    return Part(
      name,
      trace,
      both,
      moments,
      bytes_per_device(slots),
      0,
      mesh.size,
      expand_trips(shape, shape.reader(mesh), slots, path_length) | chosen,
      mesh.shape['tensor'],
      shape.num_slots,
      again,
      'decode_tokens',
      unavoidable_bytes(form, slots, path_length),
    )

  yield Part(
    'reshard',
    lambda: search_form.trace(state.params, mesh=mesh, dtype=config.model.compute_dtype),
    params,
    moments,
    0,
    0,
    mesh.size,
    {},
  )
  direct = direct_config(config.search, config.evaluate.num_slots)
  yield expansion('expand', policy_of(config.search).as_searched(config.search), config.sampling)
  yield expansion('direct rollouts', direct, config.evaluate)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      (rows.micro_rows, rows.row_length), x.dtype, sharding=sharding.batch_sharding(mesh)
    ),
    empty_batch(1, 1),
  )
  grads, statistics = jax.eval_shape(learner.start, state.params)
  total = (
    described(grads, sharding.parameter_shardings(grads, mesh)),
    Statistics(*(_whole(x, mesh) for x in statistics)),
  )
  gradients = bytes_per_device(total[0])
  trips = {'key_blocks': (-(-rows.row_length // BLOCK) + 1) / 2}
  rest = (mesh.size, trips, mesh.shape['tensor'])
  yield Part(
    'forward', lambda: learner.score_rows.trace(state.params, batch), params, moments, 0, 0, *rest
  )
  yield Part(
    'forward and backward',
    lambda: learner.accumulate.trace(state.params, total, batch),
    params,
    moments,
    0,
    gradients,
    *rest,
  )
  yield Part(
    'optimizer',
    lambda: learner.apply.trace(state, total[0]),
    params,
    moments,
    0,
    gradients,
    mesh.size,
    {},
    mesh.size,
  )


def expand_trips(
  shape: ExpandShape, reader: Any, slots: Slots, path_length: int
) -> dict[str, float]:
  return {
    'decode_tokens': shape.segment_length,
    'replay': 0.0,
    **reader.scope_counts(path_length, shape.num_slots, slots.paths, segments=slots.segments),
  }


def described(tree: Any, shardings: Any) -> Any:
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
  )


def _whole(x: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh))


def _slots(decoder: DecoderConfig, mesh: Mesh, shape: ExpandShape) -> Any:
  return described(jax.eval_shape(compile_slots(decoder, mesh, shape)), slots_sharding(mesh, shape))


def _requests(mesh: Mesh, shape: ExpandShape) -> tuple[Any, Any, Any]:
  """A plan, the sampling options and two stop ids."""
  num_slots = shape.num_slots * sharding.num_slot_shards(mesh)
  of = lambda dtype, *rest: jax.ShapeDtypeStruct(
    (num_slots, *rest), dtype, sharding=sharding.batch_sharding(mesh)
  )
  count = of(jnp.int32)
  plan = SlotPlan(
    count, count, of(jnp.int32, shape.replay_chunk), count, count, count, count, of(jnp.uint32, 2)
  )
  options = jax.tree.map(lambda x: _whole(x, mesh), sampling_options())
  return plan, options, _whole(jax.ShapeDtypeStruct((2,), jnp.int32), mesh)
