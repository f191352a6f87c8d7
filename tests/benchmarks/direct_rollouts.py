r"""K direct rollouts of one prompt beside K siblings of it, through the engine.

  .venv/bin/python tests/benchmarks/direct_rollouts.py --sizes=1M,17M --prompts=100,1000

Both sides sample K x T tokens after a prompt of P. K siblings are children of one slot: the prompt
is encoded once, and every step reads it once. K direct rollouts are trees of their own in K slots:
the prompt is encoded once as well, and each slot reads its copy. With `--slots` fewer than K, later
rollouts take the slots of those that have ended.

Runs are warm and alternate; figures are medians, the ratio is one of medians. Seconds are those of
the processor on a CPU, which neighbours disturb less, else of the clock. `encoded` counts the
tokens of prompts that went through the decoder.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from concurrent.futures import Future

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.run.mesh import keep_freed_memory
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.testing.sizes import SIZES
from ds_jax.types import Problem, Verdict

STOP_ID = 1_000_000  # no token: every rollout runs to its end


def verify(items):
  """A VerifyFn that calls everything wrong at once."""
  futures = [Future() for _ in items]
  for future in futures:
    future.set_result(Verdict.WRONG)
  return futures


def make_engine(search: SearchConfig, size: str, prompt: int) -> Engine:
  config, mesh = SIZES[size], sharding.make_mesh(devices=jax.devices()[:1])
  shape = ExpandShape(
    num_slots=search.num_slots,
    width=search.width,
    segment_length=search.segment_length,
    context_length=prompt + search.segment_length,
    replay_chunk=search.replay_chunk,
    replay_lanes=search.replay_lanes,
    path_block=search.path_block,
    num_kv_heads=config.num_kv_heads,
    head_width=config.head_width,
  )
  return Engine(
    config=search,
    mesh=mesh,
    expand_fn=bind_sampling(compile_expand(mesh, shape), sampling_options(), [STOP_ID]),
    make_slots=compile_slots(config, mesh, shape),
    verify_fn=verify,
    decode_text=lambda tokens: '',
  )


def searches(count: int, flags: argparse.Namespace) -> dict[str, SearchConfig]:
  """The settings of both sides, of one segment per path."""
  common = dict(
    width_decay=0,
    max_depth=1,
    segment_length=flags.tokens,
    replay_chunk=flags.chunk,
    path_block=flags.block,
  )
  slots = flags.slots or count
  return {
    'rollouts': SearchConfig(
      policy='direct',
      width=1,
      num_slots=slots,
      replay_lanes=slots,
      num_trajectories=1,
      max_expansions=1,
      **common,
    ),
    'siblings': SearchConfig(
      width=count,
      num_slots=1,
      replay_lanes=1,
      num_trajectories=count,
      max_expansions=1,
      **common,
    ),
  }


def grow(engine: Engine, decoder: Decoder, prompt: np.ndarray, num_trees: int) -> Counters:
  jobs = [Job(Problem('p', '', ''), prompt, sample) for sample in range(num_trees)]
  key = base_key_data(0, Purpose.DIRECT, 0, 0)
  return run(engine, decoder, jobs, key, on_finish=lambda tree: None)


def compare(
  size: str, prompt_length: int, count: int, *, flags: argparse.Namespace
) -> dict[str, object]:
  """One row of the table."""
  decoder = init_decoder(SIZES[size], jax.random.key(0))
  prompt = np.random.default_rng(0).integers(0, SIZES[size].num_ids, prompt_length)
  sides, encoded = {}, {}
  for name, search in searches(count, flags).items():
    engine = make_engine(search, size, prompt_length)
    num_trees = count if name == 'rollouts' else 1
    sides[name] = functools.partial(grow, engine, decoder, prompt.astype(np.int32), num_trees)
    counters = sides[name]()  # compiles
    assert counters.generated_tokens == count * flags.tokens
    encoded[name] = getattr(counters, 'encoded_tokens', None)
  clock = time.process_time if jax.default_backend() == 'cpu' else time.monotonic
  seconds = {name: [] for name in sides}
  for _ in range(flags.repeats):
    for name, side in sides.items():
      start = clock()
      side()
      seconds[name].append(clock() - start)
  median = {name: statistics.median(values) for name, values in seconds.items()}
  return {
    'size': size,
    'prompt': prompt_length,
    'K': count,
    'seconds': {name: round(value, 4) for name, value in median.items()},
    'spread': {name: round(max(v) / min(v), 2) for name, v in seconds.items()},
    'encoded': encoded,
    'ratio': round(median['rollouts'] / median['siblings'], 2),
  }


def numbers(text: str) -> list[int]:
  return [int(number) for number in text.split(',')]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--sizes', default='1M,17M')
  parser.add_argument('--prompts', type=numbers, default=[100, 1000], help='P, tokens')
  parser.add_argument('--counts', type=numbers, default=[8, 32], help='K, rollouts of a prompt')
  parser.add_argument('--slots', type=int, default=0, help='for rollouts; 0: K')
  parser.add_argument('--tokens', type=int, default=64, help='T, sampled tokens of each')
  parser.add_argument('--chunk', type=int, default=256, help='prompt tokens encoded at a time')
  parser.add_argument('--block', type=int, default=256, help='path positions read at a time')
  parser.add_argument('--repeats', type=int, default=5)
  flags = parser.parse_args()
  keep_freed_memory()
  for size in flags.sizes.split(','):
    for prompt in flags.prompts:
      for count in flags.counts:
        print(json.dumps(compare(size, prompt, count, flags=flags)), flush=True)


if __name__ == '__main__':
  main()
