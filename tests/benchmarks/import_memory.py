"""Peak host memory of importing a checkpoint, as a multiple of the parameters in memory.

  JAX_PLATFORMS=cpu .venv/bin/python tests/benchmarks/import_memory.py --folder=/tmp/shape_1_5b

Writes a checkpoint of the shape of Qwen2.5-1.5B (random numbers, bfloat16, four files; 3.1 GB) into
the folder if it has none, and loads it in a fresh process per number format. The peak is the
kernel's (VmHWM): Python, jax and mapped pages of the files count. On CPU the parameters do, too, so
that 1.0 would be an import that needs nothing beside them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

GIB = 2**30


def write_checkpoint(folder: pathlib.Path) -> None:
  """A checkpoint of random numbers; one file's tensors are in memory at a time."""
  import jax.numpy as jnp

  from ds_jax.model.config import DecoderConfig
  from ds_jax.model.decoder import abstract_decoder
  from ds_jax.model.huggingface import layout
  from ds_jax.model.huggingface.config import config_to_hf
  from ds_jax.model.huggingface.tensors import write_tensors

  config = DecoderConfig(
    vocab_size=151_936,
    num_ids=151_936,
    num_layers=28,
    width=1536,
    mlp_width=8960,
    num_heads=12,
    num_kv_heads=2,
    head_width=128,
    max_positions=32_768,
    rope_theta=1e6,
  )
  plan = []
  for parameter in layout.all_parameters(abstract_decoder(config)):
    plan += parameter.entries
  rng = np.random.default_rng(0)
  tensors = (rng.standard_normal(e.shape, np.float32).astype(jnp.bfloat16) for e in plan)
  folder.mkdir(parents=True, exist_ok=True)
  write_tensors(folder, plan, tensors, dtype=jnp.bfloat16, max_file_bytes=10**9)
  fields = config_to_hf(config, (0,), 0, dtype='bfloat16')
  (folder / 'config.json').write_text(json.dumps(fields))


def load(folder: pathlib.Path, dtype: str) -> dict[str, float]:
  """Loads the checkpoint in this process and says what it took."""
  import jax

  from ds_jax.model.huggingface.load import load_decoder

  jax.numpy.zeros(1).block_until_ready()  # the backend starts
  before, start = _peak_bytes(), time.monotonic()
  decoder = jax.block_until_ready(load_decoder(folder, dtype=dtype))
  seconds = time.monotonic() - start
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(decoder))
  return {
    'dtype': dtype,
    'parameters GiB': size / GIB,
    'before GiB': before / GIB,
    'peak GiB': _peak_bytes() / GIB,
    'peak / parameters': _peak_bytes() / size,
    'seconds': seconds,
  }


def _peak_bytes() -> int:
  # Not ru_maxrss: a process inherits that of the one that started it.
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.split('VmHWM:')[1].split()[0]) * 1024


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--load', choices=('float32', 'bfloat16'), help='load only, in this process')
  arguments = parser.parse_args()
  if arguments.load:
    print(json.dumps(load(arguments.folder, arguments.load)))
    return
  if not (arguments.folder / 'config.json').exists():
    write_checkpoint(arguments.folder)
  for dtype in ('float32', 'bfloat16'):
    out = subprocess.run(
      [sys.executable, __file__, f'--folder={arguments.folder}', f'--load={dtype}'],
      check=True,
      capture_output=True,
      text=True,
    )
    figures = json.loads(out.stdout.splitlines()[-1])
    print('  '.join(f'{k} {v if isinstance(v, str) else round(v, 3)}' for k, v in figures.items()))


if __name__ == '__main__':
  main()
