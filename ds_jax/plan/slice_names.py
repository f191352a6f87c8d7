"""Names that Cloud TPU, GKE and SkyPilot give to slices, as topologies: v5litepod-16 is v5e:4x4."""

from __future__ import annotations

import re

from ds_jax.checks import InputError

# Generations by the names of gcloud's accelerator types and of GKE's node selectors.
GENERATIONS = {
  'v5litepod': 'v5e',
  'v5lite': 'v5e',
  'v7x': 'tpu7x',
  'tpu-v4-podslice': 'v4',
  'tpu-v5-lite-podslice': 'v5e',
  'tpu-v5-lite-device': 'v5e',
  'tpu-v5p-slice': 'v5p',
  'tpu-v6e-slice': 'v6e',
}

# Slices by their number of chips; pages v4, v5e, v5p and v6e of docs.cloud.google.com/tpu/docs.
_FLAT = {
  1: '1x1',
  4: '2x2',
  8: '2x4',
  16: '4x4',
  32: '4x8',
  64: '8x8',
  128: '8x16',
  256: '16x16',
}
_CUBIC = {
  4: '2x2x1',
  8: '2x2x2',
  16: '2x2x4',
  32: '2x4x4',
  64: '4x4x4',
  128: '4x4x8',
  256: '4x8x8',
  512: '8x8x8',
  1024: '8x8x16',
  2048: '8x16x16',
}
_SLICES = {'v4': _CUBIC, 'v5e': _FLAT, 'v5p': _CUBIC, 'v6e': _FLAT}
# The number in `v4-8` and `v5p-8` counts TensorCores, of which a chip has two.
_CORES_PER_CHIP = {'v4': 2, 'v5p': 2}


def topology_of(name: str) -> str:
  """The topology that `name` means; names that are none of these lists come back as they are.

  Args:
    name: e.g. 'v5litepod-16', 'v5p-8', 'tpu-v6e-8', 'tpu-v5-lite-podslice:4x4' or 'v5e:4x4'.

  Raises:
    InputError: for a number of chips that no slice of the generation has.
  """
  generation, separator, size = re.fullmatch(r'(.*?)(?:(:|-)([\dx]+))?', name, re.DOTALL).groups()
  if separator is None:
    return name
  generation = GENERATIONS.get(generation) or generation.removeprefix('tpu-')
  generation = GENERATIONS.get(generation, generation)
  if separator == ':':
    return f'{generation}:{size}'
  if generation not in _SLICES or not size.isdigit():
    return name
  cores = _CORES_PER_CHIP.get(generation, 1)
  shapes = {count * cores: shape for count, shape in _SLICES[generation].items()}
  if int(size) not in shapes:
    unit = 'cores' if cores > 1 else 'chips'
    sizes = ', '.join(map(str, shapes))
    raise InputError(
      f'Expected --topology={generation}-N with N of {sizes} {unit}, or a shape such as '
      f'{generation}:{next(iter(shapes.values()))}, got {name!r}.'
    )
  return f'{generation}:{shapes[int(size)]}'
