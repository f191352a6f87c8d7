"""How long the parameters take from the training form to the search form.

  python tests/benchmarks/reshard.py --mesh=1x8x1 --width=512 --layers=4

One compiled program casts them to bfloat16 and gathers them over fsdp. On fake devices every copy
goes through memory, so the bound is a plain copy (memcpy) of the same bytes: each parameter's
bfloat16 form arrives on every device that does not hold it, and the own part is cast.
"""

from __future__ import annotations

import argparse
import os
import time

DEVICES = 8
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={DEVICES}'
)

import jax  # noqa: E402
import numpy as np  # noqa: E402

from ds_jax.model.config import DecoderConfig  # noqa: E402
from ds_jax.model.decoder import init_decoder  # noqa: E402
from ds_jax.sharding import make_mesh, parameter_shardings  # noqa: E402
from ds_jax.train.state import search_form  # noqa: E402


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--mesh', default='1x8x1', help='data x fsdp x tensor')
  parser.add_argument('--width', type=int, default=512)
  parser.add_argument('--layers', type=int, default=4)
  parser.add_argument('--repeats', type=int, default=5)
  flags = parser.parse_args()
  mesh = make_mesh(*map(int, flags.mesh.split('x')))
  config = DecoderConfig(
    num_layers=flags.layers,
    width=flags.width,
    mlp_width=4 * flags.width,
    num_heads=8,
    num_kv_heads=8,
    head_width=flags.width // 8,
    num_ids=4096,
    vocab_size=4096,
  )
  decoder = init_decoder(config, jax.random.key(0))
  params = jax.device_put(decoder, parameter_shardings(decoder, mesh))
  before = search_form._cache_size()
  out = jax.block_until_ready(search_form(params, mesh=mesh, dtype='bfloat16'))
  moved = sum(
    shard.data.nbytes for leaf in jax.tree.leaves(out) for shard in leaf.addressable_shards
  )
  seconds = fastest(
    lambda: jax.block_until_ready(search_form(params, mesh=mesh, dtype='bfloat16')), flags.repeats
  )
  source, target = np.ones(moved, np.uint8), np.empty(moved, np.uint8)
  copy = fastest(lambda: np.copyto(target, source), flags.repeats)
  print(
    f'{config.num_parameters():,} parameters, mesh {flags.mesh}: '
    f'{search_form._cache_size() - before} program, {moved / 1e6:.0f} MB written in '
    f'{1e3 * seconds:.1f} ms; memcpy of as much: {1e3 * copy:.1f} ms; ratio '
    f'{seconds / copy:.1f}'
  )


def fastest(work, repeats: int) -> float:
  """Seconds of the fastest of some runs, after one to warm up."""
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    work()
    times.append(time.perf_counter() - start)
  return min(times[1:])


if __name__ == '__main__':
  main()
