"""`ds-jax plan`: does a run fit a slice, how fast can it be, what travels; no chip, no weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ds_jax import sharding
from ds_jax.checks import check_choice
from ds_jax.config import Config, check_training
from ds_jax.interfaces import Progress
from ds_jax.model.config import DecoderConfig
from ds_jax.model.huggingface.config import read_config
from ds_jax.plan import tables
from ds_jax.plan.capacity import largest_slots
from ds_jax.plan.parts import Measured, Part, measure
from ds_jax.plan.programs import parts_of
from ds_jax.plan.slice_names import topology_of
from ds_jax.plan.speed import StepWork, Work, Workload, predict
from ds_jax.plan.topology import Place, open_place, sensible_meshes
from ds_jax.run.stopping import ExitCode
from ds_jax.train.batch import row_shape

STATUSES = {
  ExitCode.DONE: 'fits',
  ExitCode.TOO_LARGE: 'does_not_fit',
  ExitCode.NOT_COMPILED: 'does_not_compile',
}
REMEDIES = {
  'reshard': 'raise mesh.tensor',
  'expand': 'lower search.num_slots, or raise mesh.tensor',
  'direct rollouts': 'lower evaluate.num_slots, or raise mesh.tensor',
  'forward': 'lower train.micro_rows, or raise mesh.fsdp',
  'forward and backward': 'raise mesh.fsdp, lower train.micro_rows, or set model.remat=full',
  'optimizer': 'raise mesh.fsdp',
}

# Published config.json of models that configs name without a folder being here.
KNOWN = {
  'Nemotron-Research-Reasoning-Qwen-1.5B': DecoderConfig(
    vocab_size=151_936,
    num_ids=151_665,
    num_layers=28,
    width=1536,
    mlp_width=8960,
    num_heads=12,
    num_kv_heads=2,
    head_width=128,
    max_positions=131_072,
    tie_embeddings=False,
  ),
  'Qwen3-0.6B': DecoderConfig(
    vocab_size=151_936,
    num_ids=151_669,
    num_layers=28,
    width=1024,
    mlp_width=3072,
    num_heads=16,
    num_kv_heads=8,
    head_width=128,
    family='qwen3',
    max_positions=40_960,
    rope_theta=1e6,
  ),
  'gemma-3-1b-it': DecoderConfig(
    vocab_size=262_144,
    num_ids=262_144,
    num_layers=26,
    width=1152,
    mlp_width=6912,
    num_heads=4,
    num_kv_heads=1,
    head_width=256,
    family='gemma3_text',
    max_positions=32_768,
    rope_theta=1e6,
    window=512,
    is_local=tuple((i + 1) % 6 > 0 for i in range(26)),
  ),
}


def decoder_of(config: Config) -> DecoderConfig:
  """Shape of the model: of a known name, a folder's or the hub's config.json, or a new model's."""
  model = config.model
  if model.path:
    name = model.path.rstrip('/').split('/')[-1]
    known = KNOWN.get(name) or read_config(model.path, files=('config.json',))
    return dataclasses.replace(known, **model.formats)
  return DecoderConfig(
    vocab_size=256,
    num_ids=256,
    num_layers=model.num_layers,
    width=model.width,
    mlp_width=model.mlp_width,
    num_heads=model.num_heads,
    num_kv_heads=model.num_kv_heads,
    head_width=model.head_width,
    tie_embeddings=model.tie_embeddings,
    rope_theta=model.rope_theta,
    **model.formats,
  )


def plan(
  config: Config, topologies: Sequence[str], meshes: str, progress: Progress
) -> tuple[dict[str, Any], str]:
  """Compiles every program of a step; returns the summary with its exit code, and tables.

  Args:
    config: of the run.
    topologies: TPU slices ('v5e:4x4', or Google's 'v5litepod-16'), GPUs of a host ('h200:8');
      none: the devices that are here.
    meshes: 'config', or 'all': every sensible one, of which one that fits is enough.
    progress: hears what is being compiled.

  Returns:
    One plan's summary, or with several {'plans': [...]}; the worst slice gives the exit code.

  Raises:
    InputError: for a bad topology or mesh, before anything is compiled.
  """
  check_training(config)
  check_choice('--meshes', meshes, ('config', 'all'))
  decoder = decoder_of(config)
  places: list[list[Place]] = []
  for topology in _known_topologies(topologies, progress) or [None]:
    chosen = [config.mesh]
    if meshes == 'all':
      chosen = sensible_meshes(topology, decoder.num_kv_heads)
    places.append([open_place(topology, mesh) for mesh in chosen])
  plans, codes = [], []
  for same_slice in places:
    summaries = [_plan_one(config, decoder, place, progress=progress) for place in same_slice]
    codes.append(min(summary['exit_code'] for summary in summaries))
    plans += summaries
  texts = [tables.memory(one, REMEDIES) + '\n' + tables.work(one) for one in plans]
  if len(plans) == 1:
    return plans[0], texts[0]
  summary = {'status': STATUSES[max(codes)], 'exit_code': max(codes), 'plans': plans}
  return summary, '\n\n'.join([*texts, tables.scaling(plans)])


def _known_topologies(names: Sequence[str], progress: Progress) -> list[str]:
  """Topologies of slices and hosts; says which topology the name of an accelerator type means."""
  known = []
  for name in names:
    topology = topology_of(name)
    if topology != name:
      progress.note(f'{name} is {topology}.')
    known.append(topology)
  return known


def _plan_one(
  config: Config, decoder: DecoderConfig, place: Place, *, progress: Progress
) -> dict[str, Any]:
  """The summary of one mesh on one slice."""
  measured: dict[str, Measured] = {}
  faults: dict[str, str] = {}
  slots: dict[str, dict[str, Any]] = {}
  unavoidable: dict[str, float] = {}
  code = ExitCode.DONE
  for part in parts_of(config, decoder, place.mesh):
    progress.note(f'Compiling {part.name} for {place.name}.')
    try:
      measured[part.name] = measure(part)
    except jax.errors.JaxRuntimeError as e:
      is_memory = 'RESOURCE_EXHAUSTED' in str(e)
      faults[part.name] = str(e)[:300]
      code = max(code, ExitCode.TOO_LARGE if is_memory else ExitCode.NOT_COMPILED)
      if not is_memory:
        continue
    if part.expansion:
      unavoidable[part.name] = part.expansion.unavoidable
      slots[part.name] = _slots_summary(part, measured.get(part.name), place)
  if max((one.use.total for one in measured.values()), default=0) > place.memory:
    code = max(code, ExitCode.TOO_LARGE)
  parts = {name: _part_summary(one, place, unavoidable.get(name)) for name, one in measured.items()}
  return {
    'status': STATUSES[code],
    'place': place.name,
    'mesh': dict(place.mesh.shape),
    'memory': place.memory,
    'memory_source': place.source,
    'faults': faults,
    'exit_code': code,
    'slots': slots,
    'parts': parts,
    'fsdp_minimum': fsdp_minimum(decoder, place, is_frozen=bool(config.train.lora_rank)),
    **_prediction(config, decoder, place, measured=measured),
  }


def _slots_summary(part: Part, measured: Measured | None, place: Place) -> dict[str, Any]:
  """How many slots are asked for, and how many fit."""
  use = measured.use if measured else None
  largest, is_compiled = largest_slots(part, use, place.memory)
  configured = part.expansion.num_slots
  return {'configured': configured, 'largest': largest, 'is_compiled': is_compiled}


def _part_summary(measured: Measured, place: Place, unavoidable: float | None) -> dict[str, Any]:
  """What a program uses and does; `unavoidable`: bytes of a decode step, of an expansion."""
  use = measured.use
  summary = dataclasses.asdict(use)
  summary |= {'total': use.total, 'spare': 1 - use.total / place.memory}
  summary |= _work_summary(measured.work, place)
  if measured.decode_step is not None:
    ratio = measured.decode_step.traffic.bytes / unavoidable
    step = _work_summary(measured.decode_step, place) | {'bytes_over_unavoidable': ratio}
    summary['decode_step'] = step
  return summary


def _work_summary(work: Work, place: Place) -> dict[str, Any]:
  """What a device does in a run, and what that takes where limits are published."""
  traffic, limits = work.traffic, place.limits
  return {
    'flops': work.flops,
    'bytes': traffic.bytes,
    'sent': traffic.sent,
    'collectives': {kind: dataclasses.asdict(c) for kind, c in traffic.collectives.items()},
    'loops_counted_once': traffic.loops_counted_once,
    'seconds': work.seconds(limits) if limits else None,
    'bound': work.bound(limits)[0] if limits else None,
  }


def fsdp_minimum(decoder: DecoderConfig, place: Place, *, is_frozen: bool = False) -> float:
  """Bytes that a device must send in one forward and backward pass of a fully sharded model.

  Parameters are gathered for the forward and again for the backward pass in the compute dtype,
  gradients are summed in float32; over `data`, sums of what a device holds. Frozen weights, under
  adapters, have no gradients; those of adapters are left out.
  """
  fsdp, data = place.mesh.shape['fsdp'], place.mesh.shape['data']
  size = decoder.num_parameters() / place.mesh.shape['tensor']
  gathered = 2 * jax.numpy.dtype(decoder.compute_dtype).itemsize
  # On a ring of n, a gather or a scattered sum sends (n - 1) / n of the whole, a sum twice that.
  if is_frozen:
    return size * (fsdp - 1) / fsdp * gathered
  over_fsdp = (fsdp - 1) / fsdp * (gathered + 4)
  over_data = 2 * 4 * (data - 1) / data / fsdp
  return size * (over_fsdp + over_data)


def _prediction(
  config: Config, decoder: DecoderConfig, place: Place, *, measured: Mapping[str, Measured]
) -> dict[str, Any]:
  """Ratios to what must be computed, and times where limits are published."""
  if not {'expand', 'forward and backward', 'optimizer', 'reshard'} <= set(measured):
    return {}
  work = StepWork(
    decode_step=measured['expand'].decode_step,
    update=measured['forward and backward'].work,
    optimizer=measured['optimizer'].work,
    reshard=measured['reshard'].work,
  )
  num_groups = sharding.num_slot_shards(place.mesh)
  rows = row_shape(config.train, num_groups)
  needed = update_flops(
    decoder,
    rows.micro_rows / num_groups,
    rows.row_length,
    is_frozen=bool(config.train.lora_rank),
  )
  summary: dict[str, Any] = {
    'micro_rows': rows.micro_rows,
    'row_length': rows.row_length,
    'update_flops_over_needed': work.update.flops / (needed / place.mesh.shape['tensor']),
  }
  if place.limits is None:
    return summary
  workload = Workload.of(config, num_groups, micro_rows=rows.micro_rows, row_length=rows.row_length)
  predicted = predict(
    config,
    workload,
    work,
    limits=place.limits,
    num_groups=num_groups,
    num_chips=place.num_chips,
  )
  assumed = {
    'expansions_per_tree': workload.expansions_per_tree,
    'tokens_per_path': workload.path_length,
    'epochs': config.train.epochs,
  }
  return summary | {'assumed': assumed, 'predicted': predicted}


def update_flops(
  decoder: DecoderConfig, rows: float, row_length: int, *, is_frozen: bool = False
) -> float:
  """6ND with attention over whole causal rows, plus a forward pass where remat repeats it.

  Embedding lookups are no products; the head counts (arXiv:2203.15556, appendix F). Frozen weights,
  under adapters, take no product for their gradients: 4ND; what adapters take is left out.
  """
  c = decoder
  heads = c.num_heads * c.head_width
  layer = c.width * (2 * heads + 2 * c.num_kv_heads * c.head_width + 3 * c.mlp_width)
  per_token = 2 * (c.num_layers * layer + c.width * c.vocab_size)
  # Scores and weighted values, 2 FLOPs each, with half of the row on average.
  attention = c.num_layers * 4 * heads * row_length / 2
  passes = 4 if c.remat == 'full' else 3  # the backward pass counts twice
  of_weights = passes - 1 if is_frozen else passes
  return rows * row_length * (of_weights * per_token + passes * attention)
