"""`ds-jax plan`: does a run fit a slice, and by how much; no chip and no weights are needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from ds_jax.config import Config
from ds_jax.model.config import DecoderConfig
from ds_jax.model.convert import read_config
from ds_jax.plan.programs import Use, measure, parts_of
from ds_jax.plan.topology import Place, open_place
from ds_jax.types import Progress

EXIT_FITS, EXIT_TOO_LARGE, EXIT_NOT_COMPILED = 0, 3, 4
REMEDIES = {
    'reshard': 'raise mesh.tensor',
    'expand': 'lower search.num_slots, or raise mesh.tensor',
    'direct rollouts': 'lower evaluate.num_slots, or raise mesh.tensor',
    'forward and backward': 'raise mesh.fsdp, lower train.micro_rows, or set model.remat=full',
    'optimizer': 'raise mesh.fsdp',
}

# Published config.json of models that configs name without a folder being here.
KNOWN = {'Nemotron-Research-Reasoning-Qwen-1.5B': DecoderConfig(
    vocab_size=151_936, num_ids=151_665, num_layers=28, width=1536, mlp_width=8960, num_heads=12,
    num_kv_heads=2, head_width=128, max_positions=131_072, tie_embeddings=False)}


def decoder_of(config: Config) -> DecoderConfig:
  """Shape of the model: of a known name, a folder with config.json, or a new model's."""
  model = config.model
  formats = {'compute_dtype': model.compute_dtype, 'remat': model.remat}
  if model.path:
    found = KNOWN.get(model.path.rstrip('/').split('/')[-1]) or read_config(model.path)
    return dataclasses.replace(found, **formats)
  names = ('num_layers', 'width', 'mlp_width', 'num_heads', 'num_kv_heads', 'head_width',
           'tie_embeddings', 'rope_theta')
  return DecoderConfig(vocab_size=256, num_ids=256, **formats,
                       **{name: getattr(model, name) for name in names})


def plan(config: Config, topology: str | None, progress: Progress) -> tuple[dict[str, Any], str]:
  """Compiles every program of a step; returns the summary with its exit code, and a table.

  Raises:
    InputError: for a bad topology or mesh, before anything is compiled.
  """
  place, decoder = open_place(topology, config.mesh), decoder_of(config)
  uses: dict[str, Use] = {}
  faults: dict[str, str] = {}
  code = EXIT_FITS
  for part in parts_of(config, decoder, place.mesh):
    progress.note(f'Compiling {part.name} for {place.name}.')
    try:
      uses[part.name] = measure(part)
    except jax.errors.JaxRuntimeError as e:
      is_memory = 'RESOURCE_EXHAUSTED' in str(e)
      faults[part.name] = str(e)[:300]
      code = max(code, EXIT_TOO_LARGE if is_memory else EXIT_NOT_COMPILED)
  if max((use.total for use in uses.values()), default=0) > place.memory:
    code = max(code, EXIT_TOO_LARGE)
  summary = {
      'status': {EXIT_FITS: 'fits', EXIT_TOO_LARGE: 'does_not_fit',
                 EXIT_NOT_COMPILED: 'does_not_compile'}[code],
      'place': place.name, 'mesh': dict(place.mesh.shape), 'memory': place.memory,
      'memory_source': place.source, 'faults': faults, 'exit_code': code,
      'parts': {name: dataclasses.asdict(use) | {
          'total': use.total, 'spare': 1 - use.total / place.memory}
                for name, use in uses.items()}}
  return summary, table(place, uses, faults)


def table(place: Place, uses: dict[str, Use], faults: dict[str, str]) -> str:
  """GiB per device of every program, and what to do about those that do not fit."""
  gib = lambda size: f'{size / 2**30:10.2f}'
  fields = [field.name for field in dataclasses.fields(Use)]
  mesh = ' '.join(f'{name}={size}' for name, size in place.mesh.shape.items())
  lines = [f'{place.name}, {mesh}: GiB of {place.memory / 2**30:.2f} per device ({place.source})',
           f'{"":<22}' + ''.join(f'{name:>14}' for name in [*fields, 'total', 'spare'])]
  for name, use in uses.items():
    sizes = [gib(size) for size in (*dataclasses.astuple(use), use.total)]
    share = f'{1 - use.total / place.memory:.0%}'
    lines.append(f'{name:<22}' + ''.join(f'{text:>14}' for text in [*sizes, share]))
  bad = [name for name, use in uses.items() if use.total > place.memory]
  lines += [f'{name} does not fit: {REMEDIES[name]}.' for name in bad]
  lines += [f'{name} was refused by the compiler ({REMEDIES[name]}): {text}'
            for name, text in faults.items()]
  return '\n'.join(lines)
