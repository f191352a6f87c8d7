r"""What fits where: programs of a 1.5B decoder, compiled ahead of time for TPUs that are not here.

  TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu .venv/bin/python tests/aot.py --slots=8,16

Needs libtpu (`pip install 'jax[tpu]'`), no TPU. Bytes are per chip, as the compiler reports them:
what a program is given (parameters, optimizer, caches) and its temporaries.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds_jax import sharding
from ds_jax.config import TrainConfig
from ds_jax.decode.expand import ExpandShape, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import abstract_decoder
from ds_jax.train.batch import empty_batch
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import abstract_state, search_params
from ds_jax.train.step import Statistics, make_learner, policy_loss_fn
from ds_jax.types import Plan

# Memory of a chip in bytes: cloud.google.com/tpu/docs/v5e and /v5p.
CHIPS = {'v5e:2x4': 16 * 2**30, 'v5p:2x2x1': 95 * 2**30}

# DeepSeek-R1-Distill-Qwen-1.5B and what was trained from it: 1.78e9 parameters, head untied.
QWEN_1_5B = DecoderConfig(
    vocab_size=151_936, num_ids=151_665, num_layers=28, width=1536, mlp_width=8960, num_heads=12,
    num_kv_heads=2, head_width=128, max_positions=131_072, tie_embeddings=False,
    compute_dtype='bfloat16', remat='full')

# configs/deepsearch_1_5b.py
SHAPE = ExpandShape(num_slots=16, width=8, segment_length=256, context_length=18_432,
                    replay_chunk=2048, replay_lanes=1, path_block=512)
ROW_LENGTH = 18_432


@dataclasses.dataclass(frozen=True)
class Use:
  """Bytes per chip of one program."""
  arguments: int
  temporaries: int
  new_outputs: int  # outputs that do not take the place of an argument

  @property
  def total(self) -> int:
    return self.arguments + self.temporaries + self.new_outputs


def has_libtpu() -> bool:
  return importlib.util.find_spec('libtpu') is not None


def topology_mesh(name: str, **sizes: int) -> Mesh:
  """A mesh over the chips of a TPU slice by its name; `sizes` as in make_mesh."""
  from jax.experimental import topologies
  devices = topologies.get_topology_desc(platform='tpu', topology_name=name).devices
  return sharding.make_mesh(**({'data': 1, 'fsdp': -1} | sizes), devices=devices)


def use_of(jitted: Any, *arguments: Any) -> Use:
  """Compiles and asks; RESOURCE_EXHAUSTED if it does not fit even alone."""
  memory = jitted.lower(*arguments).compile().memory_analysis()
  return Use(memory.argument_size_in_bytes, memory.temp_size_in_bytes,
             memory.output_size_in_bytes - memory.alias_size_in_bytes)


def bytes_per_chip(tree: Any) -> int:
  """Of arguments that are described by shape, dtype and sharding."""
  return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
             for x in jax.tree.leaves(tree))


def abstract(tree: Any, shardings: Any) -> Any:
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                      tree, shardings)


@functools.cache
def training_state(config: DecoderConfig, mesh: Mesh):
  return abstract_state(abstract_decoder(config), make_optimizer(TrainConfig()), mesh)


def learner_uses(config: DecoderConfig, mesh: Mesh, rows_per_chip: int = 1,
                 row_length: int = ROW_LENGTH) -> Iterator[tuple[str, Use]]:
  """Forward, forward and backward, and the optimizer's part of a train step."""
  rows = rows_per_chip * sharding.num_slot_shards(mesh)
  optimizer = make_optimizer(TrainConfig())
  learner = make_learner(optimizer, mesh, micro_rows=rows, loss_fn=policy_loss_fn(TrainConfig()))
  state = training_state(config, mesh)
  of = lambda dtype: jax.ShapeDtypeStruct((rows, row_length), dtype,
                                          sharding=sharding.batch_sharding(mesh))
  batch = jax.tree.map(lambda x: of(x.dtype), empty_batch(1, 1))
  scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))
  total = (state.params, Statistics(*[scalar] * len(Statistics._fields)))
  yield 'forward', use_of(learner.score_rows, state.params, batch)
  yield 'forward and backward', use_of(learner.accumulate, state.params, total, batch)
  yield 'optimizer', use_of(learner.apply, state, state.params)


def search_form(config: DecoderConfig, mesh: Mesh):
  """The parameters as the search reads them."""
  state = training_state(config, mesh)
  form = jax.eval_shape(lambda s: search_params(s, mesh, config.compute_dtype), state)
  return abstract(form, sharding.parameter_shardings(form, mesh, search=True))


def abstract_slots(config: DecoderConfig, mesh: Mesh, shape: ExpandShape):
  make = compile_slots(config, mesh, shape)
  return abstract(jax.eval_shape(make), make.lower().compile().output_shardings)


def expand_use(config: DecoderConfig, mesh: Mesh, shape: ExpandShape) -> Use:
  """One expansion; its arguments are the search form, the caches and a plan."""
  slots = shape.num_slots * sharding.num_slot_shards(mesh)
  of = lambda dtype, *rest: jax.ShapeDtypeStruct((slots, *rest), dtype,
                                                 sharding=sharding.batch_sharding(mesh))
  count = of(jnp.int32)
  plan = Plan(count, count, of(jnp.int32, shape.replay_chunk), count, count, count, count,
              of(jnp.uint32, 2))
  options = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh)),
      sampling_options())
  stop_ids = jax.ShapeDtypeStruct((2,), jnp.int32, sharding=sharding.replicated(mesh))
  return use_of(compile_expand(mesh, shape), search_form(config, mesh),
                abstract_slots(config, mesh, shape), plan, options, stop_ids)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--topologies', default=','.join(CHIPS))
  parser.add_argument('--slots', default='8,16', help='decoder slots per chip, several')
  arguments = parser.parse_args()
  for name in arguments.topologies.split(','):
    mesh, config = topology_mesh(name), QWEN_1_5B
    state = training_state(config, mesh)
    parts = {'parameters': state.params, 'optimizer': state.opt_state, 'gradients': state.params,
             'search form': search_form(config, mesh)}
    sizes = {part: bytes_per_chip(tree) for part, tree in parts.items()}
    show(name, 'chip', CHIPS[name])
    for part, size in sizes.items():
      show(name, part, size)
    for program, use in learner_uses(config, mesh):
      # The optimizer's moments lie beside every program but their own.
      beside = 0 if program == 'optimizer' else sizes['optimizer']
      show(name, f'{program}: temporaries', use.temporaries + use.new_outputs)
      show(name, f'{program}: in all', use.total + beside)
    for count in map(int, arguments.slots.split(',')):
      shape = dataclasses.replace(SHAPE, num_slots=count)
      show(name, f'caches of {count} slots', bytes_per_chip(abstract_slots(config, mesh, shape)))
      try:
        use = expand_use(config, mesh, shape)
      except jax.errors.JaxRuntimeError as e:
        print(f'{name:10} {f"expansion, {count} slots":40} does not fit: {str(e)[:150]}',
              flush=True)
        continue
      show(name, f'expansion, {count} slots: temporaries', use.temporaries + use.new_outputs)
      show(name, f'expansion, {count} slots: in all',
           use.total + sizes['parameters'] + sizes['optimizer'])


def show(name: str, what: str, size: int) -> None:
  print(f'{name:10} {what:40} {size / 2**30:7.2f} GiB', flush=True)


if __name__ == '__main__':
  main()
