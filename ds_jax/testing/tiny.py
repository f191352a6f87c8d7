"""Small real parts for tests: a two-layer decoder, an engine around it, scripted verdicts.

Everything runs in seconds on a CPU and needs no download; sampled trees are the same each time.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import VerifyFn
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.testing.tolerance import decoder_terms, tolerance
from ds_jax.types import FinishedTree, Problem, Verdict

STOP_ID = 3
DECODER = DecoderConfig(
  vocab_size=24,
  num_ids=22,
  num_layers=2,
  width=16,
  mlp_width=24,
  num_heads=4,
  num_kv_heads=2,
  head_width=4,
)
SEARCH = SearchConfig(
  num_slots=4,
  width=3,
  width_decay=0,
  max_depth=4,
  segment_length=5,
  num_trajectories=4,
  max_expansions=20,
  lambda_uct=1.0,
  incomplete_score=-0.5,
  replay_chunk=4,
  replay_lanes=2,
  path_block=8,
)


@functools.cache
def decoder() -> Decoder:
  """The decoder's parameters, drawn at random."""
  return init_decoder(DECODER, jax.random.key(1))


def scripted_verify(items: Sequence[tuple[str, str]]) -> list[Future[Verdict]]:
  """Verdicts that depend on the text alone: a fifth correct, some without an answer."""
  return [decided(scripted_verdict(answer, text)) for answer, text in items]


def scripted_verdict(answer: str, text: str) -> Verdict:
  number = zlib.crc32(f'{answer}/{text}'.encode()) % 10
  if number < 2:
    return Verdict.CORRECT
  return Verdict.NO_ANSWER if number < 4 else Verdict.WRONG


def decided(verdict: Verdict) -> Future[Verdict]:
  """A verdict that is in."""
  future = Future()
  future.set_result(verdict)
  return future


def make_engine(
  config: SearchConfig = SEARCH,
  num_devices: int = 1,
  *,
  verify_fn: VerifyFn = scripted_verify,
  prompt_limit: int = 12,
  tensor: int = 1,
) -> Engine:
  """An engine around the decoder, on a mesh of the first devices."""
  mesh = sharding.make_mesh(data=-1, tensor=tensor, devices=jax.devices()[:num_devices])
  shape = ExpandShape(
    num_slots=config.num_slots,
    width=config.width,
    segment_length=config.segment_length,
    context_length=prompt_limit + config.max_depth * config.segment_length,
    replay_chunk=config.replay_chunk,
    replay_lanes=config.replay_lanes,
    path_block=config.path_block,
    num_kv_heads=DECODER.num_kv_heads,
    head_width=DECODER.head_width,
    has_distinct_siblings=config.siblings == 'distinct',
  )
  program = compile_expand(mesh, shape)
  return Engine(
    config=config,
    mesh=mesh,
    expand_fn=bind_sampling(program, sampling_options(), [STOP_ID]),
    make_slots=compile_slots(DECODER, mesh, shape),
    verify_fn=verify_fn,
    decode_text=lambda tokens: ' '.join(map(str, tokens.tolist())),
  )


def make_jobs(count: int, seed: int = 0) -> list[Job]:
  """Problems p0, p1, …, with random prompts of different lengths."""
  rng = np.random.default_rng(seed)
  jobs = []
  for i in range(count):
    length = rng.integers(2, 12)
    prompt_tokens = rng.integers(4, 22, length).astype(np.int32)
    jobs.append(Job(Problem(id=f'p{i}', prompt='', answer=str(i)), prompt_tokens))
  return jobs


def grow(
  engine: Engine, jobs: Sequence[Job], **kwargs: Any
) -> tuple[dict[str, FinishedTree], Counters]:
  """Runs the engine; returns finished trees by problem id, and counters."""
  trees: dict[str, FinishedTree] = {}

  def keep(tree: FinishedTree) -> None:
    trees[tree.problem_id] = tree

  shardings = sharding.parameter_shardings(decoder(), engine.mesh, search=True)
  params = jax.device_put(decoder(), shardings)
  base_key = base_key_data(0, Purpose.SEARCH, 0, 0)
  counters = run(engine, params, jobs, base_key, on_finish=keep, **kwargs)
  return trees, counters


def assert_same_tree(a: FinishedTree, b: FinishedTree, bits: bool = True) -> None:
  """Asserts that two trees are equal but for how often the engine encoded tokens again.

  Args:
    a, b: finished trees.
    bits: whether floats must agree to the last bit, not only to 1e-4.
  """
  for field in dataclasses.fields(FinishedTree):
    x, y = getattr(a, field.name), getattr(b, field.name)
    if field.name == 'statistics':
      x, y = dict(x, recomputed_tokens=0), dict(y, recomputed_tokens=0)
    if not isinstance(x, np.ndarray):
      assert x == y, field.name
    elif bits:
      np.testing.assert_array_equal(x, y, err_msg=field.name)
    else:
      # Sums over a segment of log-probabilities and entropies, at most 4 a token.
      limit = tolerance('float32', decoder_terms(DECODER, 40), 4 * SEARCH.segment_length)
      np.testing.assert_allclose(x, y, atol=limit, err_msg=field.name)


class CompileCounter:
  """Counts XLA compilations from its creation on."""

  EVENT = '/jax/core/compile/backend_compile_duration'

  def __init__(self) -> None:
    self._count = 0
    jax.monitoring.register_event_duration_secs_listener(self._listen)

  def _listen(self, event: str, duration: float, **kwargs: Any) -> None:
    del duration, kwargs
    self._count += event == self.EVENT

  def compilations(self) -> int:
    return self._count
