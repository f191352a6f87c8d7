r"""Whole searches: ours beside drivers that encode every prefix again. Ratios of one run only.

  JAX_PLATFORMS=cpu .venv/bin/python tests/benchmarks/search.py --sizes=1M,17M --repeats=5
  … --growth                  how time and memory of ours grow with B, W and depth

All drivers serve the same engine: same weights, W, T, stop rules, expansions per tree, verdicts.
There is no stop token, so that all sample equally many tokens, and the trees' shape is the same.

  ours            path caches: a child's segment is appended, a jump replays what is not shared
  without_reuse   ours, but every expansion encodes its whole prefix (in chunks, all slots at once)
  generate        transformers `generate` on torch, as released: every expansion sends the prefixes
                  of all B trees as one left-padded batch, num_return_sequences=W (they are encoded
                  W times); the log-probs of the sampled tokens are asked for, as the search needs
  generate_shared the same, but each prefix is encoded once and its cache repeated W times

Times are medians over runs that alternate; each run grows B trees. Peak memory is that of a process
which does one run of one driver.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import ExpandFn, Segments, SlotPlan
from ds_jax.model.decoder import init_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.search.engine import engine as engine_lib
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.testing.sizes import SIZES
from ds_jax.types import Problem, Verdict

STOP_ID = 1_000_000  # no token: every child runs to its end


@dataclasses.dataclass(frozen=True)
class Setting:
  """One search: B trees side by side."""

  size: str = '1M'
  trees: int = 16  # B
  width: int = 8  # W
  tokens: int = 64  # T
  depth: int = 16
  expansions: int = 20  # per tree: one descent, then jumps
  prompt: int = 64  # tokens

  @property
  def num_tokens(self) -> int:
    return self.trees * self.expansions * self.width * self.tokens

  def config(self) -> SearchConfig:
    return SearchConfig(
      num_slots=self.trees,
      width=self.width,
      width_decay=0,
      max_depth=self.depth,
      segment_length=self.tokens,
      num_trajectories=8 * self.expansions,
      max_expansions=self.expansions,
      lambda_uct=1.0,
      incomplete_score=-0.5,
      replay_chunk=256,
      replay_lanes=self.trees,
      path_block=256,
    )

  def shape(self) -> ExpandShape:
    c = self.config()
    return ExpandShape(
      num_slots=self.trees,
      width=self.width,
      segment_length=self.tokens,
      context_length=self.prompt + self.depth * self.tokens,
      replay_chunk=c.replay_chunk,
      replay_lanes=c.replay_lanes,
      path_block=c.path_block,
      num_kv_heads=SIZES[self.size].num_kv_heads,
      head_width=SIZES[self.size].head_width,
    )


class Prefixes:
  """The whole path of every slot on the host, followed through the plans."""

  def __init__(self, num_slots: int):
    self.paths = [np.zeros(0, np.int32)] * num_slots
    self.children: list[np.ndarray] = [np.zeros((0, 0), np.int32)] * num_slots

  def follow(self, plan: SlotPlan) -> list[np.ndarray]:
    """The full prefix of each slot, its pending token included (idle slots: the path alone)."""
    prefixes = []
    for b, path in enumerate(self.paths):
      if plan.append_child[b] >= 0:
        path = np.concatenate([path, self.children[b][plan.append_child[b]][:-1]])
      replayed = plan.replay_tokens[b, : plan.replay_length[b]]
      pending = [plan.pending_token[b]] if plan.num_children[b] else []
      self.paths[b] = np.concatenate([path[: plan.keep_length[b]], replayed, pending]).astype(
        np.int32
      )
      prefixes.append(self.paths[b])
    return prefixes

  def remember(self, plan: SlotPlan, segments: Segments) -> None:
    for b in np.flatnonzero(plan.num_children):
      self.children[b] = np.asarray(segments.tokens[b])


def ours(setting: Setting, mesh: Any) -> tuple[ExpandFn, Callable[[], Any]]:
  program = compile_expand(mesh, setting.shape())
  return (
    bind_sampling(program, sampling_options(), [STOP_ID]),
    compile_slots(SIZES[setting.size], mesh, setting.shape()),
  )


def without_reuse(setting: Setting, mesh: Any) -> tuple[ExpandFn, Callable[[], Any]]:
  """Every expansion starts from empty paths."""
  expand_fn, make_slots = ours(setting, mesh)
  chunk = setting.shape().replay_chunk

  def expand(params: Any, state: Any, plan: SlotPlan) -> tuple[Any, Segments]:
    slots, tracked = state
    prefixes = tracked.follow(plan)
    active = plan.num_children > 0
    lengths = np.array([len(p) - 1 if a else 0 for p, a in zip(prefixes, active, strict=True)])
    for start in range(0, max(int(lengths.max()), 1), chunk):
      count = np.clip(lengths - start, 0, chunk).astype(np.int32)
      tokens = np.zeros((len(prefixes), chunk), np.int32)
      for b, prefix in enumerate(prefixes):
        tokens[b, : count[b]] = prefix[start : start + count[b]]
      is_last = start + chunk >= lengths.max()
      slots, segments = expand_fn(
        params,
        slots,
        plan._replace(
          append_child=np.full_like(plan.append_child, -1),
          keep_length=np.minimum(lengths, start).astype(np.int32),
          replay_tokens=tokens,
          replay_length=count,
          num_children=plan.num_children if is_last else np.zeros_like(plan.num_children),
        ),
      )
    tracked.remember(plan, segments)
    return (slots, tracked), segments

  return expand, lambda: (make_slots(), Prefixes(setting.trees))


def generate(
  setting: Setting, mesh: Any, folder: str, is_shared: bool
) -> tuple[ExpandFn, Callable[[], Any]]:
  """transformers on torch; `is_shared`: prefixes are encoded once each."""
  del mesh
  import torch
  import transformers

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
  model.generation_config = transformers.GenerationConfig()
  width, length = setting.width, setting.tokens

  def encode(inputs: torch.Tensor, mask: torch.Tensor) -> Any:
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, :-1]
    cache = model(
      inputs[:, :-1],
      attention_mask=mask[:, :-1],
      position_ids=positions,
      use_cache=True,
      logits_to_keep=1,
    ).past_key_values
    cache.batch_repeat_interleave(width)
    return cache

  def expand(params: Any, tracked: Prefixes, plan: SlotPlan) -> tuple[Prefixes, Segments]:
    del params
    active = np.flatnonzero(plan.num_children)
    prefixes = tracked.follow(plan)
    longest = max(len(prefixes[b]) for b in active)
    inputs = torch.zeros((len(active), longest), dtype=torch.long)
    mask = torch.zeros_like(inputs)
    for row, b in enumerate(active):
      inputs[row, longest - len(prefixes[b]) :] = torch.from_numpy(prefixes[b].astype(np.int64))
      mask[row, longest - len(prefixes[b]) :] = 1
    more = dict(num_return_sequences=width)
    with torch.inference_mode():
      if is_shared:
        more = dict(past_key_values=encode(inputs, mask))
        inputs, mask = (x.repeat_interleave(width, 0) for x in (inputs, mask))
      out = model.generate(
        inputs,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        max_new_tokens=length,
        output_logits=True,
        return_dict_in_generate=True,
        **more,
      )
      sampled = out.sequences[:, longest:]
      logprobs = torch.stack(
        [
          torch.log_softmax(x, -1).gather(1, sampled[:, t : t + 1])[:, 0]
          for t, x in enumerate(out.logits)
        ],
        1,
      )
    segments = _segments(setting, active, sampled.numpy(), logprobs.numpy())
    tracked.remember(plan, segments)
    return tracked, segments

  return expand, lambda: Prefixes(setting.trees)


def _segments(
  setting: Setting, active: np.ndarray, sampled: np.ndarray, logprobs: np.ndarray
) -> Segments:
  shape = (setting.trees, setting.width, setting.tokens)
  put = lambda values, dtype: _filled(shape, active, values.reshape(-1, *shape[1:]), dtype)
  floats = np.zeros(shape, np.float32)
  fields = dict.fromkeys(Segments._fields, floats) | dict(
    tokens=put(sampled, np.int32),
    logprobs=put(logprobs, np.float32),
    length=_filled(shape[:2], active, setting.tokens, np.int32),
    is_ended=np.zeros(shape[:2], bool),
  )
  return Segments(**fields)


def _filled(shape: Sequence[int], rows: np.ndarray, values: Any, dtype: Any) -> np.ndarray:
  array = np.zeros(shape, dtype)
  array[rows] = values
  return array


def verify(items: Sequence[tuple[str, str]]) -> list[concurrent.futures.Future]:
  """A tenth of the texts are correct."""
  futures = []
  for answer, text in items:
    futures.append(concurrent.futures.Future())
    is_correct = zlib.crc32(f'{answer}/{text}'.encode()) % 10 == 0
    futures[-1].set_result(Verdict.CORRECT if is_correct else Verdict.WRONG)
  return futures


def prepare(driver: str, setting: Setting, folder: str) -> Callable[[], engine_lib.Counters]:
  """Returns a function that grows all trees of a setting once."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  make = {
    'ours': ours,
    'without_reuse': without_reuse,
    'generate': functools.partial(generate, folder=folder, is_shared=False),
    'generate_shared': functools.partial(generate, folder=folder, is_shared=True),
  }[driver]
  expand_fn, make_slots = make(setting, mesh)
  engine = engine_lib.Engine(
    config=setting.config(),
    mesh=mesh,
    expand_fn=expand_fn,
    make_slots=make_slots,
    verify_fn=verify,
    decode_text=lambda tokens: tokens.tobytes().hex(),
  )
  decoder = weights(setting.size)
  decoder = jax.device_put(decoder, sharding.parameter_shardings(decoder, mesh, search=True))
  rng = np.random.default_rng(0)
  jobs = [
    Job(
      Problem(id=str(i), prompt='', answer=str(i)),
      rng.integers(0, decoder.config.num_ids, setting.prompt).astype(np.int32),
    )
    for i in range(setting.trees)
  ]

  def run() -> engine_lib.Counters:
    trees = []
    counters = engine_lib.run(
      engine, decoder, jobs, base_key_data(0, Purpose.SEARCH, 0, 0), on_finish=trees.append
    )
    assert counters.generated_tokens == setting.num_tokens, counters
    assert all(tree.depth.max() == setting.depth for tree in trees)
    return counters

  return run


def weights(size: str):
  return init_decoder(SIZES[size], jax.random.key(0))


def seconds(run: Callable[[], Any]) -> float:
  started = time.perf_counter()
  run()
  return time.perf_counter() - started


def compare(setting: Setting, drivers: Sequence[str], arguments: argparse.Namespace) -> dict:
  """One row: every driver's time per tree and tokens per second, and ratios to ours."""
  with tempfile.TemporaryDirectory() as folder:
    save_decoder(weights(setting.size), folder, stop_ids=(0,), pad_id=0)
    runs = {driver: prepare(driver, setting, folder) for driver in drivers}
    times: dict[str, list[float]] = {driver: [] for driver in drivers}
    for driver, run in runs.items():
      if not driver.startswith('generate'):
        seconds(run)  # compiles
    for _ in range(arguments.repeats):
      for driver, run in runs.items():
        if sum(times[driver]) < arguments.patience:
          times[driver].append(seconds(run))
          print(f'{driver}: {times[driver][-1]:.1f} s', file=sys.stderr, flush=True)
  median = {driver: statistics.median(values) for driver, values in times.items()}
  row = {
    **dataclasses.asdict(setting),
    'runs': {d: len(t) for d, t in times.items()},
    'seconds_per_tree': {d: round(t / setting.trees, 3) for d, t in median.items()},
    'tokens_per_second': {d: round(setting.num_tokens / t) for d, t in median.items()},
    'times_slower': {d: round(t / median['ours'], 2) for d, t in median.items()},
  }
  if arguments.memory:
    row['peak_mib'] = {driver: peak_memory(driver, setting) for driver in drivers}
  return row


def peak_memory(driver: str, setting: Setting) -> int:
  """MiB of a process that does one run."""
  done = subprocess.run(
    [
      sys.executable,
      __file__,
      f'--only={driver}',
      f'--setting={json.dumps(dataclasses.asdict(setting))}',
    ],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return int(done.stdout.split()[-1])


def run_alone(driver: str, setting: Setting) -> None:
  with tempfile.TemporaryDirectory() as folder:
    save_decoder(weights(setting.size), folder, stop_ids=(0,), pad_id=0)
    prepare(driver, setting, folder)()
  # Not getrusage: its maximum is handed down by the process that started this one.
  high_water = re.search(r'VmHWM:\s+(\d+) kB', pathlib.Path('/proc/self/status').read_text())
  print(int(high_water.group(1)) // 1024)


def growth(base: Setting) -> list[Setting]:
  """The base, and half and twice of B, W and depth."""
  scaled = [
    dataclasses.replace(base, **{name: round(getattr(base, name) * factor)})
    for name in ('trees', 'width', 'depth')
    for factor in (0.5, 2)
  ]
  return [base, *(dataclasses.replace(s, expansions=s.depth + 4) for s in scaled)]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--sizes', default='1M,17M')
  parser.add_argument('--drivers', default='ours,without_reuse,generate,generate_shared')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument(
    '--patience', type=float, default=3600, help='seconds after which a driver is not run again'
  )
  parser.add_argument('--growth', action='store_true')
  parser.add_argument('--memory', action='store_true', help='peak memory as well')
  for field in dataclasses.fields(Setting):
    if field.type == 'int':
      parser.add_argument(f'--{field.name}', type=int, default=field.default)
  parser.add_argument('--only', help=argparse.SUPPRESS)
  parser.add_argument('--setting', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.only:
    run_alone(arguments.only, Setting(**json.loads(arguments.setting)))
    return
  fields = {
    f.name: getattr(arguments, f.name) for f in dataclasses.fields(Setting) if f.name != 'size'
  }
  for size in arguments.sizes.split(','):
    base = Setting(size, **fields)
    for setting in growth(base) if arguments.growth else [base]:
      print(json.dumps(compare(setting, arguments.drivers.split(','), arguments)), flush=True)


if __name__ == '__main__':
  main()
