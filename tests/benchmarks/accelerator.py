r"""Decode steps and updates at 1.5B in bfloat16 beside the published limits of the GPU or TPU here.

  python tests/benchmarks/accelerator.py                 # 8 prefixes of 8,192, 8 siblings each
  python tests/benchmarks/accelerator.py --kernel=off --attention=off   # left to XLA
  python tests/benchmarks/accelerator.py --tiny          # tries the script, on a CPU too

`decode`: bytes that a step cannot avoid (parameters, valid positions of paths and segments, each
read once, as in `ds-jax plan`), times steps, over seconds and bandwidth. `update`: FLOPs of the
model in one forward and backward pass of rows of that many tokens (6 N per token, and causal
attention; not what is computed again for lack of memory) over seconds and peak. One device; warm;
medians. Limits are those of ds_jax/plan/topology.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import TrainConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.plan.command import KNOWN, update_flops
from ds_jax.plan.parts import unavoidable_bytes
from ds_jax.plan.topology import CHIPS, Chip, device_limits
from ds_jax.train.batch import empty_batch
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import search_form
from ds_jax.train.step import make_learner, policy_loss_fn

KINDS = {
  'TPU v4': 'v4',
  'TPU v5 lite': 'v5e',
  'TPU v5': 'v5p',
  'TPU v6 lite': 'v6e',
  'A100': 'a100',
  'H100': 'h100',
  'H200': 'h200',
}
TINY = DecoderConfig(
  vocab_size=256,
  num_ids=256,
  num_layers=2,
  width=64,
  mlp_width=128,
  num_heads=4,
  num_kv_heads=2,
  head_width=16,
  max_positions=32768,
)


def chip_here() -> Chip:
  """The limits of the first device; a CPU has those of a v5e, to try the script."""
  kind = jax.devices()[0].device_kind
  if jax.default_backend() == 'cpu':
    return CHIPS['v5e']
  return CHIPS[next(name for part, name in reversed(KINDS.items()) if part in kind)]


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
  """Of runs after the first, which compiles."""
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(run())
    times.append(time.perf_counter() - start)
  return statistics.median(times[1:])


def decode(config: DecoderConfig, flags: argparse.Namespace) -> dict[str, Any]:
  """One expansion of paths that are there already."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  shape = ExpandShape(
    num_slots=flags.slots,
    width=flags.width,
    segment_length=flags.tokens,
    context_length=flags.prefix + flags.tokens,
    replay_chunk=flags.tokens,
    replay_lanes=1,
    path_block=512,
    num_kv_heads=config.num_kv_heads,
    head_width=config.head_width,
    cache_kernel=flags.kernel,
  )
  model = search_form(
    init_decoder(config, jax.random.key(0)), mesh=mesh, dtype=config.compute_dtype
  )
  expand_fn = bind_sampling(compile_expand(mesh, shape), sampling_options(), [2**30])
  full = lambda value: np.full(flags.slots, value, np.int32)
  plan = SlotPlan(
    append_child=full(-1),
    keep_length=full(flags.prefix - 1),
    replay_tokens=np.zeros((flags.slots, flags.tokens), np.int32),
    replay_length=full(0),
    copy_from=full(-1),
    pending_token=full(1),
    num_children=full(flags.width),
    first_child=full(0),
    key=np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), flags.slots))),
  )
  slots = [compile_slots(config, mesh, shape)()]
  unavoidable = unavoidable_bytes(model, slots[0], flags.prefix)

  def run() -> Any:
    slots[0], sampled = expand_fn(model, slots[0], plan)
    return sampled

  seconds = median_seconds(run, flags.repeats)
  share = unavoidable * flags.tokens / seconds / device_limits(chip_here()).bandwidth
  return {
    'what': 'decode',
    'prefix': flags.prefix,
    'slots': flags.slots,
    'width': flags.width,
    'kernel': flags.kernel,
    'ms_per_step': round(1e3 * seconds / flags.tokens, 3),
    'tokens_per_second': round(flags.slots * flags.width * flags.tokens / seconds),
    'unavoidable_gb': round(unavoidable / 1e9, 3),
    'share_of_bandwidth': round(share, 3),
  }


def update(config: DecoderConfig, length: int, flags: argparse.Namespace) -> dict[str, Any]:
  """One forward and backward pass over rows of `length` tokens, each one sequence."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  rows = max(1, flags.row_tokens // length)
  settings = TrainConfig(row_length=length, micro_rows=rows)
  learner = make_learner(
    make_optimizer(settings), mesh, micro_rows=rows, loss_fn=policy_loss_fn(settings)
  )
  params = jax.device_put(init_decoder(config, jax.random.key(0)), jax.devices()[0])
  index = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
  ones = np.ones((rows, length), np.float32)
  batch = empty_batch(rows, length)._replace(
    positions=index,
    key_end=np.full_like(index, length),
    predecessor=np.maximum(index - 1, 0),
    weight=ones,
    positive=ones,
    num_copies=ones,
    num_positive=ones,
    behavior_logprobs=-np.log(config.num_ids) * ones,
  )
  batch = sharding.put_rows(batch, mesh)
  total = [learner.start(params)]

  def run() -> Any:
    total[0] = learner.accumulate(params, total[0], batch)
    return total[0]

  seconds = median_seconds(run, flags.repeats)
  flops = update_flops(dataclasses.replace(config, remat='none'), rows, length)
  return {
    'what': 'update',
    'length': length,
    'rows': rows,
    'seconds': round(seconds, 4),
    'tokens_per_second': round(rows * length / seconds),
    'remat': flags.remat,
    'kernel': flags.attention,
    'model_tflop': round(flops / 1e12, 2),
    'flop_utilisation': round(flops / seconds / device_limits(chip_here()).flops, 3),
  }


def results(config: DecoderConfig, flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
  yield decode(config, flags)
  for length in map(int, flags.lengths.split(',')):
    yield update(config, length, flags)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name, default in (
    ('prefix', 8192),
    ('slots', 8),
    ('width', 8),
    ('tokens', 256),
    ('row-tokens', 16_384),
    ('repeats', 5),
  ):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--lengths', default='4096,16384', help='tokens of a row of an update')
  parser.add_argument('--kernel', default='auto', help="search.cache_kernel: 'auto' or 'off'")
  parser.add_argument('--attention', default='auto', help="model.attention_kernel, or 'off'")
  parser.add_argument('--remat', default='dots', help='model.remat of the update')
  parser.add_argument('--tiny', action='store_true', help='a decoder that any machine runs')
  flags = parser.parse_args()
  formats = {'remat': flags.remat, 'attention_kernel': flags.attention}
  if flags.tiny:
    config = dataclasses.replace(TINY, **formats)
    flags.prefix, flags.tokens, flags.row_tokens, flags.lengths = 64, 16, 1024, '1024'
  else:
    config = dataclasses.replace(next(iter(KNOWN.values())), compute_dtype='bfloat16', **formats)
  for found in results(config, flags):
    print(json.dumps({'device': jax.devices()[0].device_kind} | found), flush=True)


if __name__ == '__main__':
  main()
