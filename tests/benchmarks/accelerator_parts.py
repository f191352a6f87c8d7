r"""Measures of one device: kernels beside XLA's programs, decode steps, updates.

  python tests/benchmarks/accelerator_parts.py compare    # results of the kernels and of XLA
  python tests/benchmarks/accelerator_parts.py decode     # ms a step, share of bandwidth
  python tests/benchmarks/accelerator_parts.py update --lengths=32768 --row-tokens=32768

`accelerator.py` runs them all, within a bound of time. One JSON object a line, as soon as it is
there; a measure that fails says so, and the next one begins.

`compare`: attention of bfloat16 by kernels and by XLA's programs, each beside XLA's in float32: the
largest difference over the largest value. They agree if the kernels' is at most twice XLA's.
`decode`: bytes that a step cannot avoid (parameters, valid positions of paths and segments, each
read once, as in `ds-jax plan`), times steps, over seconds and bandwidth. `update`: FLOPs of the
model in one forward and backward pass of rows of that many tokens (6 N per token, and causal
attention; not what is computed again for lack of memory) over seconds and peak. Random weights of
the 1.5B model's shape; one device; warm; medians. Limits are those of ds_jax/plan/topology.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax import sharding
from ds_jax.checks import first_line
from ds_jax.config import TrainConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.attention import training
from ds_jax.model.attention.partial import Partial
from ds_jax.model.attention.reader import Caches, GpuReader, PlainReader, choose_reader
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.plan.command import KNOWN, update_flops
from ds_jax.plan.parts import unavoidable_bytes
from ds_jax.plan.speed import Limits
from ds_jax.plan.topology import CHIPS, device_limits
from ds_jax.train.batch import empty_batch
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import search_form
from ds_jax.train.step import make_learner, policy_loss_fn

# Part of a device's kind -> its name in CHIPS; the longest is meant where several are part of it.
KINDS = {
  'TPU v4': 'v4',
  'TPU v5': 'v5p',
  'TPU v5 lite': 'v5e',
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
PATH_BLOCK = 512
# A program runs no further time once its runs have taken so many seconds.
MAX_SECONDS = 8.0


class Measured(NamedTuple):
  """Seconds of a program."""

  median: float  # of its runs after the first
  first: float  # with its compilation


class Lanes(NamedTuple):
  """What decodes at a time, and after how much."""

  slots: int
  width: int  # children of a slot
  prefix: int  # tokens of every slot's path


def limits_here() -> Limits | None:
  """The published limits of the first device; None: not known. A CPU has a v5e's, to try this."""
  kind = jax.devices()[0].device_kind
  if jax.default_backend() == 'cpu':
    return device_limits(CHIPS['v5e'])
  known = [part for part in KINDS if part in kind]
  return device_limits(CHIPS[KINDS[max(known, key=len)]]) if known else None


def share(amount: float, limit: float | None) -> float | None:
  """An amount as a share of what is possible, if that is known."""
  return None if limit is None else round(amount / limit, 3)


def measure(run: Callable[[], Any], repeats: int) -> Measured:
  """Seconds of a program that runs twice at least."""
  times: list[float] = []
  while len(times) < 2 or (len(times) <= repeats and sum(times[1:]) < MAX_SECONDS):
    start = time.perf_counter()
    jax.block_until_ready(run())
    times.append(time.perf_counter() - start)
  return Measured(statistics.median(times[1:]), times[0])


def mesh_here() -> jax.sharding.Mesh:
  return sharding.make_mesh(devices=jax.devices()[:1])


def distance(found: Any, exact: Any) -> float:
  """Largest difference over the largest value, of the leaf where that is most."""
  shares = []
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    shares.append(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
  return max(shares)


def compared(of: str, run: Callable[..., Any], ways: tuple[Any, Any], inputs: Any) -> dict:
  """How far kernels and XLA's programs are from XLA's in float32.

  Args:
    of: what is computed.
    run: (way, inputs) -> tree of arrays.
    ways: the kernels' and XLA's.
    inputs: tree of float32 arrays.
  """
  run = jax.jit(run, static_argnums=0)
  kernels, xla = ways
  with jax.default_matmul_precision('highest'):
    exact = jax.device_get(run(xla, inputs))
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), inputs)
  by_kernels, by_xla = distance(run(kernels, rounded), exact), distance(run(xla, rounded), exact)
  return {
    'what': 'compare',
    'of': of,
    'kernels_off_by': by_kernels,
    'xla_off_by': by_xla,
    'agree': by_kernels <= 2 * by_xla,
  }


def draw(seed: int, *shape: int) -> jax.Array:
  """Normal numbers that bfloat16 holds, so that all formats begin with the same."""
  return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16).astype(jnp.float32)


def compare_updates(config: DecoderConfig, length: int) -> dict:
  """Attention of the training form, and its gradients."""
  heads, kv_heads, width = config.num_heads, config.num_kv_heads, config.head_width
  at = lambda part: int(part * length)
  ends = np.zeros((2, length), np.int32)
  # Two sequences and padding; a tree whose branches are holes to each other.
  ends[0, : at(0.3)], ends[0, at(0.3) : at(0.7)] = at(0.3), at(0.7)
  ends[1, : at(0.2)], ends[1, at(0.2) : at(0.5)] = length, at(0.5)
  ends[1, at(0.5) : at(0.8)], ends[1, at(0.8) :] = at(0.8), length
  ends[1, at(0.5) : at(0.52)] = at(0.64)

  def run(blocks: training.BlockAttention, inputs: tuple[jax.Array, ...]) -> Any:
    *inputs, d_out = inputs
    attend = functools.partial(training.attend, key_end=jnp.asarray(ends), blocks=blocks)
    out, pull = jax.vjp(attend, *inputs)
    return out, pull(d_out.astype(out.dtype))

  inputs = (
    draw(0, 2, length, heads, width),
    draw(1, 2, length, kv_heads, width),
    draw(2, 2, length, kv_heads, width),
    draw(3, 2, length, heads, width),
  )
  kernels = training.choose_block_attention('auto', heads_are_whole=True)
  return compared('attention of updates, and gradients', run, (kernels, training.LOOPS), inputs)


def cache_readers(config: DecoderConfig, capacity: int, segment_length: int) -> tuple[Any, Any]:
  """The kernels' reader of caches and XLA's."""
  kernels: Any = GpuReader(interpret=True)  # on a CPU, as ordinary operations
  if jax.default_backend() != 'cpu':
    kernels = choose_reader(
      'on',
      mesh_here(),
      block=PATH_BLOCK,
      capacity=capacity,
      segment_length=segment_length,
      head_width=config.head_width,
    )
  return kernels, PlainReader(PATH_BLOCK)


def normalised(part: Partial) -> tuple[jax.Array, jax.Array]:
  """Attention, and the log of each query's normaliser."""
  out = part.weighted_values / part.sum_exp[..., None]
  return out, part.max_score + jnp.log(part.sum_exp)


def compare_paths(config: DecoderConfig, lanes: Lanes, segment_length: int) -> dict[str, Any]:
  """Attention of a decode step over paths of many lengths."""
  slots, width, prefix = lanes
  kv_heads, head_width = config.num_kv_heads, config.head_width
  capacity = -(-prefix // PATH_BLOCK) * PATH_BLOCK
  length = jnp.linspace(1, prefix, slots).astype(jnp.int32)

  def read(reader: Any, inputs: tuple[jax.Array, ...]) -> Any:
    q, *paths = inputs
    return normalised(reader.attend_paths(q, Caches(*paths), layer=jnp.int32(1), length=length))

  caches = (2, slots, kv_heads, capacity, head_width)
  query = draw(4, slots, kv_heads, width, config.num_heads // kv_heads, head_width)
  readers = cache_readers(config, capacity, segment_length)
  return compared('attention of paths', read, readers, (query, draw(5, *caches), draw(6, *caches)))


def compare_segments(config: DecoderConfig, lanes: Lanes, segment_length: int) -> dict[str, Any]:
  """Attention of a decode step over segments that are half written."""
  kv_heads, head_width = config.num_kv_heads, config.head_width
  num_written = jnp.int32(segment_length // 2 + 1)

  def read(reader: Any, inputs: tuple[jax.Array, ...]) -> Any:
    q, *segments = inputs
    arrays, attend = reader.read_segments(Caches(*segments), num_written)
    return normalised(attend(q, [x[1] for x in arrays], jnp.int32(1)))

  caches = (2, lanes.slots, lanes.width, kv_heads, segment_length, head_width)
  group = config.num_heads // kv_heads
  query = draw(7, lanes.slots * lanes.width, kv_heads, 1, group, head_width)
  inputs = query, draw(8, *caches), draw(9, *caches)
  readers = cache_readers(config, PATH_BLOCK, segment_length)
  return compared('attention of segments', read, readers, inputs)


def decode(config: DecoderConfig, lanes: Lanes, kernel: str, flags: argparse.Namespace) -> dict:
  """One expansion of paths that are there already."""
  slots, width, prefix = lanes
  mesh = mesh_here()
  shape = ExpandShape(
    num_slots=slots,
    width=width,
    segment_length=flags.tokens,
    context_length=prefix + flags.tokens,
    replay_chunk=flags.tokens,
    replay_lanes=1,
    path_block=PATH_BLOCK,
    num_kv_heads=config.num_kv_heads,
    head_width=config.head_width,
    cache_kernel=kernel,
  )
  model = search_form(
    init_decoder(config, jax.random.key(0)), mesh=mesh, dtype=config.compute_dtype
  )
  expand_fn = bind_sampling(compile_expand(mesh, shape), sampling_options(), [2**30])
  full = lambda value: np.full(slots, value, np.int32)
  plan = SlotPlan(
    append_child=full(-1),
    keep_length=full(prefix - 1),
    replay_tokens=np.zeros((slots, flags.tokens), np.int32),
    replay_length=full(0),
    copy_from=full(-1),
    pending_token=full(1),
    num_children=full(width),
    first_child=full(0),
    key=np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), slots))),
  )
  caches = [compile_slots(config, mesh, shape)()]
  unavoidable = unavoidable_bytes(model, caches[0], prefix)

  def run() -> Any:
    caches[0], sampled = expand_fn(model, caches[0], plan)
    return sampled

  seconds = measure(run, flags.repeats)
  limits = limits_here()
  return {
    'what': 'decode',
    'of': 'search' if width > 1 else 'direct rollouts',
    **lanes._asdict(),
    'kernels': kernel,
    'ms_per_step': round(1e3 * seconds.median / flags.tokens, 3),
    'tokens_per_second': round(slots * width * flags.tokens / seconds.median),
    'unavoidable_gb': round(unavoidable / 1e9, 3),
    'share_of_bandwidth': share(
      unavoidable * flags.tokens / seconds.median, limits and limits.bandwidth
    ),
    'first_seconds': round(seconds.first, 1),
  }


def update(config: DecoderConfig, length: int, kernel: str, flags: argparse.Namespace) -> dict:
  """One forward and backward pass over rows of `length` tokens, each one sequence."""
  config = dataclasses.replace(config, remat=flags.remat, attention_kernel=kernel)
  mesh = mesh_here()
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

  seconds = measure(run, flags.repeats)
  flops = update_flops(dataclasses.replace(config, remat='none'), rows, length)
  limits = limits_here()
  return {
    'what': 'update',
    'length': length,
    'rows': rows,
    'kernels': kernel,
    'remat': flags.remat,
    'seconds': round(seconds.median, 4),
    'tokens_per_second': round(rows * length / seconds.median),
    'model_tflop': round(flops / 1e12, 2),
    'share_of_peak': share(flops / seconds.median, limits and limits.flops),
    'first_seconds': round(seconds.first, 1),
  }


def measures_of(part: str, flags: argparse.Namespace) -> Iterator[Callable[[], dict[str, Any]]]:
  """The measures of a part; those with kernels come first."""
  config = dataclasses.replace(next(iter(KNOWN.values())), compute_dtype='bfloat16')
  if flags.tiny:
    config = TINY
  search = Lanes(flags.slots, flags.width, flags.prefix)
  direct = Lanes(flags.direct_slots, 1, flags.direct_prefix)
  lengths = [int(length) for length in flags.lengths.split(',')]
  if part == 'compare':
    yield functools.partial(compare_updates, config, min(lengths))
    yield functools.partial(compare_paths, config, search, flags.tokens)
    yield functools.partial(compare_segments, config, search, flags.tokens)
    return
  measure_one, cases = (update, lengths) if part == 'update' else (decode, (search, direct))
  # search.cache_kernel = auto leaves the caches of some TPUs to XLA; CPUs have no kernel.
  with_kernels = 'auto' if part == 'update' or jax.default_backend() == 'cpu' else 'on'
  for kernels in (with_kernels, 'off'):
    if flags.kernels in ('both', kernels):
      for case in cases:
        yield functools.partial(measure_one, config, case, kernels, flags)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('part', choices=('compare', 'decode', 'update'))
  for name, default in (
    ('slots', 8),
    ('width', 8),
    ('prefix', 8192),
    ('direct-slots', 64),
    ('direct-prefix', 2048),
    ('tokens', 32),
    ('row-tokens', 16_384),
    ('repeats', 5),
  ):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--lengths', default='4096,16384', help='tokens of a row of an update')
  parser.add_argument('--kernels', default='both', help="'both', 'on' or 'auto' (update), 'off'")
  parser.add_argument('--remat', default='dots', help='model.remat of the update')
  parser.add_argument('--tiny', action='store_true', help='sizes that any machine runs')
  flags = parser.parse_args()
  if flags.tiny:
    flags.slots, flags.prefix, flags.direct_slots, flags.direct_prefix = 4, 64, 4, 64
    flags.tokens, flags.row_tokens, flags.lengths, flags.repeats = 16, 1024, '768,1024', 1
  device = {'device': jax.devices()[0].device_kind}
  for run in measures_of(flags.part, flags):
    try:
      figures = run()
    except Exception as e:  # e.g. too little memory: what comes after may fit
      figures = {'what': flags.part, 'error': f'{type(e).__name__}: {first_line(e)}'}
    print(json.dumps(device | figures), flush=True)


if __name__ == '__main__':
  main()
