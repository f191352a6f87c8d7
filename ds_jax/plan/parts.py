"""A program of a run by itself: what lies in memory beside it, and what the compiler says of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ds_jax.decode.expand import DECODE_TOKENS
from ds_jax.model.caches import Slots
from ds_jax.model.decoder import Decoder, parameters_read
from ds_jax.plan.hlo import read_traffic
from ds_jax.plan.products import count_flops, declared_bytes
from ds_jax.plan.speed import Work


@dataclasses.dataclass(frozen=True)
class Resident:
  """Bytes per device of the run's arrays that are there while a program runs."""

  parameters: int  # of all forms that are there
  optimizer: int
  caches: int = 0
  gradients: int = 0

  @property
  def total(self) -> int:
    return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Use(Resident):
  """Bytes per device while a program runs."""

  temporaries: int = 0  # with outputs that take no argument's place


class Expansion(NamedTuple):
  """What is known of a part that is an expansion."""

  num_slots: int  # per device
  with_slots: Callable[[int], Part]  # the same expansion with another number of slots
  unavoidable: float  # bytes of a decode step: parameters and valid caches read once


@dataclasses.dataclass(frozen=True)
class Part:
  """One program, and what of the run lies in memory while it runs."""

  name: str
  trace: Callable[[], Any]  # () -> jax.stages.Traced
  resident: Resident
  num_devices: int = 1
  trips: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of loops, by named scope
  split: int = 1  # devices that share a product: by tensor parallelism, or the optimizer's
  expansion: Expansion | None = None


def bytes_per_device(tree: Any) -> int:
  """Bytes that a device holds of arrays described by shape, dtype and sharding."""
  total = 0
  for x in jax.tree.leaves(tree):
    total += math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return total


def unavoidable_bytes(decoder: Decoder, slots: Slots, path_length: float) -> float:
  """Bytes per device that a decode step must read: parameters and what is valid of the caches.

  Args:
    decoder: in the form for search.
    slots: the caches; segments are half written on average.
    path_length: valid positions of a path, on average; local layers read their windows of it.
  """
  parameters = bytes_per_device(parameters_read(decoder))
  windows = decoder.config.windows
  seen = sum(min(path_length, window or path_length) for window in windows) / len(windows)
  share_valid = seen / slots.path_keys.shape[3]
  paths, segments = bytes_per_device(slots.paths), bytes_per_device(slots.segments)
  return parameters + paths * share_valid + segments / 2


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
  temporaries = memory.temp_size_in_bytes + max(new_outputs, 0)
  devices = jax.tree.leaves(compiled.input_shardings)[0].device_set
  platform, declared = next(iter(devices)).platform, declared_bytes(traced.jaxpr)

  def work(loop: str | None) -> Work:
    flops = count_flops(traced.jaxpr, part.trips, loop=loop, platform=platform)
    traffic = read_traffic(text, part.trips, part.num_devices, loop=loop, declared=declared)
    return Work(flops / part.split, traffic)

  return Measured(
    use=Use(**dataclasses.asdict(part.resident), temporaries=temporaries),
    work=work(None),
    decode_step=work(DECODE_TOKENS) if part.expansion else None,
  )


def described(tree: Any, shardings: Any) -> Any:
  """Arrays as shapes with the shardings they have in the run."""
  describe = lambda x, target: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=target)
  return jax.tree.map(describe, tree, shardings)
