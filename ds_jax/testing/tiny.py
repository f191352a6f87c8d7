"""Small real parts for tests: a two-layer decoder, an engine around it, scripted verdicts."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import zlib

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
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
  replay_chunk=4,
  replay_lanes=2,
  path_block=8,
)


@functools.cache
def decoder():
  return init_decoder(DECODER, jax.random.key(1))


def scripted_verify(items):
  """Verdicts that depend on the text alone: a fifth correct, some without an answer."""
  futures = []
  for answer, text in items:
    number = zlib.crc32(f'{answer}/{text}'.encode()) % 10
    future = concurrent.futures.Future()
    future.set_result(
      Verdict.CORRECT if number < 2 else Verdict.NO_ANSWER if number < 4 else Verdict.WRONG
    )
    futures.append(future)
  return futures


def make_engine(config=SEARCH, num_devices=1, verify_fn=scripted_verify, prompt_limit=12, tensor=1):
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


def make_jobs(count, seed=0):
  rng = np.random.default_rng(seed)
  return [
    Job(
      Problem(id=f'p{i}', prompt='', answer=str(i)),
      rng.integers(4, 22, rng.integers(2, 12)).astype(np.int32),
    )
    for i in range(count)
  ]


def grow(engine, jobs, **kwargs):
  """Runs the engine; finished trees by problem id."""
  trees = {}
  params = jax.device_put(
    decoder(), sharding.parameter_shardings(decoder(), engine.mesh, search=True)
  )
  counters = run(
    engine,
    params,
    jobs,
    base_key_data(0, Purpose.SEARCH, 0, 0),
    on_finish=lambda tree: trees.__setitem__(tree.problem_id, tree),
    **kwargs,
  )
  return trees, counters


def assert_same_tree(a: FinishedTree, b: FinishedTree, bits: bool = True):
  for field in dataclasses.fields(FinishedTree):
    x, y = getattr(a, field.name), getattr(b, field.name)
    if field.name == 'statistics':
      x, y = ({k: v for k, v in s.items() if k != 'recomputed_tokens'} for s in (x, y))
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

  def __init__(self):
    self._count = 0
    jax.monitoring.register_event_duration_secs_listener(self._listen)

  def _listen(self, event, duration, **kwargs):
    del duration, kwargs
    self._count += event == self.EVENT

  def compilations(self) -> int:
    return self._count
