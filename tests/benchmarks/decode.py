r"""Tokens per second of batched expansion beside transformers `generate`, in one run.

  .venv/bin/python tests/benchmarks/decode.py --sizes=1M,17M --prefixes=64,1024,4096

B prefixes, W siblings of each, T tokens of every sibling, temperature 1, no stop token; the prefill
of the prefix counts on both sides. Theirs: torch on as many threads as cores it may use, the same
weights (written to a folder and loaded from it), `num_return_sequences=W`, no static shapes, in a
process of its own. Ours: on all devices that jax sees; one XLA program uses little more than one
core for a decode step, so on a CPU let each core be a device:

  XLA_FLAGS=--xla_force_host_platform_device_count=2 .venv/bin/python tests/benchmarks/decode.py

A real model's shape, SmolLM2-135M, on one core; `tokens_per_second.products` is what the matrix
products of the same rows would allow alone, by XLA and without attention, prefill and sampling:

  taskset -c 0 .venv/bin/python tests/benchmarks/decode.py --sizes=smollm2 --prefixes=100 --batch=4
  … --sizes=smollm2 --prefixes=100 --batch=16 --tokens=32

Runs are warm and alternate; figures are medians, the ratio is of medians. A run of theirs longer
than `--patience` seconds is not repeated.

A run of ours keeps freed memory (`run.mesh.keep_freed_memory`), torch gives it back to the kernel
after each operation; where pages are dear, in virtual machines, that is half of its time. With
`--keep` it keeps it too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax import sharding
from ds_jax.checks import check_divides
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import SlotPlan
from ds_jax.model.decoder import (
  Decoder,
  Layers,
  head_table,
  init_decoder,
  project,
  split_layers,
)
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.run.mesh import keep_freed_memory
from ds_jax.testing.sizes import SIZES

STOP_ID = 1_000_000  # no token: every sibling runs to its end


def expansion(
  decoder: Decoder,
  prefixes: np.ndarray,
  *,
  width: int,
  num_tokens: int,
  chunk: int,
  block: int,
) -> Callable[[], np.ndarray]:
  """Returns a function that encodes the prefixes [B, P] and samples [B, W, T] tokens."""
  num_prefixes, length = prefixes.shape
  mesh = sharding.make_mesh(data=-1)
  check_divides('--batch', num_prefixes, 'devices', mesh.size)
  num_slots = num_prefixes // mesh.size
  shape = ExpandShape(
    num_slots=num_slots,
    width=width,
    segment_length=num_tokens,
    context_length=length + num_tokens,
    replay_chunk=chunk,
    replay_lanes=num_slots,
    path_block=block,
    num_kv_heads=decoder.config.num_kv_heads,
    head_width=decoder.config.head_width,
  )
  expand_fn = bind_sampling(compile_expand(mesh, shape), sampling_options(), [STOP_ID])
  make_slots = compile_slots(decoder.config, mesh, shape)
  decoder = jax.device_put(decoder, sharding.parameter_shardings(decoder, mesh, search=True))
  plans = list(_plans(prefixes, width, chunk))

  def run() -> np.ndarray:
    slots = make_slots()
    for plan in plans:
      slots, segments = expand_fn(decoder, slots, plan)
    assert np.all(np.asarray(segments.length) == num_tokens)
    return np.asarray(segments.tokens)

  return run


def _plans(prefixes: np.ndarray, width: int, chunk: int):
  """Replay all but the last token of every prefix in chunks; with the last chunk, expand."""
  num_slots, length = prefixes.shape
  full = lambda value: np.full(num_slots, value, np.int32)
  for start in range(0, length - 1, chunk):
    end = min(start + chunk, length - 1)
    tokens = np.zeros((num_slots, chunk), np.int32)
    tokens[:, : end - start] = prefixes[:, start:end]
    is_last = end == length - 1
    yield SlotPlan(
      append_child=full(-1),
      keep_length=full(start),
      replay_tokens=tokens,
      replay_length=full(end - start),
      copy_from=full(-1),
      pending_token=prefixes[:, -1].astype(np.int32),
      num_children=full(width if is_last else 0),
      first_child=full(0),
      key=np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), num_slots))),
    )


@functools.cache
def load_generation(folder: str, keep: bool):
  """The model in transformers, in a process of its own."""
  import torch
  import transformers

  if keep:
    keep_freed_memory()
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
  model.generation_config = transformers.GenerationConfig()
  return model


def generate(folder: str, keep: bool, prefixes: np.ndarray, width: int, num_tokens: int) -> float:
  """The same with transformers on torch; seconds."""
  import torch

  model, inputs = load_generation(folder, keep), torch.tensor(prefixes)
  started = time.perf_counter()
  with torch.inference_mode():
    out = model.generate(
      inputs,
      attention_mask=torch.ones_like(inputs),
      do_sample=True,
      top_k=0,
      num_return_sequences=width,
      max_new_tokens=num_tokens,
      pad_token_id=0,
    )
  assert out.shape == (len(prefixes) * width, prefixes.shape[1] + num_tokens)
  return time.perf_counter() - started


def seconds(run: Callable[[], np.ndarray]) -> float:
  started = time.perf_counter()
  run()
  return time.perf_counter() - started


def products(decoder: Decoder, num_rows: int) -> Callable[[], jax.Array]:
  """Returns a function that multiplies rows by every matrix of a decoder once, layers apart."""
  layers = split_layers(decoder)
  table = head_table(decoder)
  table = table.T if decoder.head is None else table

  @jax.jit
  def multiply(x: jax.Array, layers: Sequence[Layers], table: jax.Array) -> jax.Array:
    for layer in layers:
      q, k, v = (
        project(x, p[...]) for p in (layer.query_kernel, layer.key_kernel, layer.value_kernel)
      )
      # Keys and values are used, or XLA would leave their products out.
      x = project(q + k.mean() + v.mean(), layer.output_kernel[...], num_inputs=2)
      x = project(
        project(x, layer.gate_kernel[...]) * project(x, layer.up_kernel[...]),
        layer.down_kernel[...],
      )
    return x @ table

  x = jnp.ones((num_rows, decoder.config.width))
  return lambda: multiply(x, layers, table).block_until_ready()


def compare(name: str, prefix: int, arguments: argparse.Namespace) -> dict:
  """One cell of the table."""
  config = SIZES[name]
  decoder = init_decoder(config, jax.random.key(0))
  prefixes = np.random.default_rng(0).integers(0, config.num_ids, (arguments.batch, prefix))
  ours = functools.partial(
    seconds,
    expansion(
      decoder,
      prefixes,
      width=arguments.width,
      num_tokens=arguments.tokens,
      chunk=min(arguments.chunk, prefix),
      block=arguments.block,
    ),
  )
  multiply = functools.partial(seconds, products(decoder, arguments.batch * arguments.width))
  times = {'ours': [], 'theirs': [], 'products': []}
  first = ours()  # compiles
  multiply()
  with (
    tempfile.TemporaryDirectory() as folder,
    concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process,
  ):
    save_decoder(decoder, folder, stop_ids=(0,), pad_id=0)
    theirs = lambda: process.submit(
      generate, folder, arguments.keep, prefixes, arguments.width, arguments.tokens
    ).result()
    is_slow = not arguments.ours_only and theirs() > arguments.patience
    for repeat in range(arguments.repeats):
      times['ours'].append(ours())
      times['products'].append(multiply() * arguments.tokens)
      if not arguments.ours_only and not (is_slow and repeat):
        times['theirs'].append(theirs())
  count = arguments.batch * arguments.width * arguments.tokens
  median = {side: statistics.median(t) for side, t in times.items() if t}
  return {
    'size': name,
    'parameters': config.num_parameters(),
    'prefix': prefix,
    'runs': {side: len(t) for side, t in times.items()},
    'tokens_per_second': {side: round(count / t) for side, t in median.items()},
    'seconds_more_of_first_run': round(first - median['ours'], 1),
    'spread_ours': round(max(times['ours']) / min(times['ours']), 2),
    'ratio': round(median['theirs'] / median['ours'], 2) if 'theirs' in median else None,
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--sizes', default='1M,17M')
  parser.add_argument('--prefixes', default='64,1024,4096')
  parser.add_argument('--batch', type=int, default=16, help='B, prefixes')
  parser.add_argument('--width', type=int, default=8, help='W, siblings of each')
  parser.add_argument('--tokens', type=int, default=64, help='T, sampled tokens of each sibling')
  parser.add_argument('--chunk', type=int, default=256, help='prefix tokens encoded at a time')
  parser.add_argument('--block', type=int, default=256, help='path positions read at a time')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--patience', type=float, default=60, help='seconds')
  parser.add_argument('--ours-only', action='store_true')
  parser.add_argument('--keep', action='store_true', help='torch keeps freed memory, too')
  arguments = parser.parse_args()
  keep_freed_memory()
  for name in arguments.sizes.split(','):
    for prefix in map(int, arguments.prefixes.split(',')):
      print(json.dumps(compare(name, prefix, arguments)), flush=True)


if __name__ == '__main__':
  main()
