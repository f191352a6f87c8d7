"""Searches of the paper's shape: how little is encoded again, read in vain, or left idle."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from ds_jax.config import SearchConfig
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.model.attention.path import positions_read
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny as fakes
from ds_jax.types import Problem

# The paper's shape: W = 8, K = 8, up to 64 segments, about 100-200 expansions per tree, 16 trees at
# once; segments of 8 tokens instead of 256, everything else in proportion.
PAPER = SearchConfig(
  num_slots=16,
  width=8,
  width_decay=0,
  max_depth=64,
  segment_length=8,
  num_trajectories=8,
  max_expansions=512,
  lambda_uct=2.0,
  incomplete_score=-1.0,
  replay_chunk=64,
  replay_lanes=4,
  path_block=16,
)


@functools.cache
def paper_search():
  decoder = DecoderConfig(
    vocab_size=1024,
    num_ids=1024,
    num_layers=1,
    width=8,
    mlp_width=8,
    num_heads=2,
    num_kv_heads=1,
    head_width=4,
  )
  mesh = make_mesh(devices=jax.devices()[:1])
  shape = ExpandShape(
    num_slots=PAPER.num_slots,
    width=8,
    segment_length=8,
    context_length=8 + 64 * 8,
    replay_chunk=64,
    replay_lanes=4,
    path_block=16,
    num_kv_heads=decoder.num_kv_heads,
    head_width=decoder.head_width,
  )
  engine = Engine(
    config=PAPER,
    mesh=mesh,
    make_slots=compile_slots(decoder, mesh, shape),
    expand_fn=bind_sampling(compile_expand(mesh, shape), sampling_options(), [3]),
    verify_fn=fakes.scripted_verify,
    decode_text=lambda tokens: tokens.tobytes().hex(),
    count_read=functools.partial(positions_read, block=PAPER.path_block, capacity=shape.capacity),
  )
  rng = np.random.default_rng(0)
  jobs = [
    Job(
      Problem(id=str(i), prompt='', answer=str(i)),
      rng.integers(4, 1024, rng.integers(2, 8)).astype(np.int32),
    )
    for i in range(40)
  ]
  trees = []
  params = init_decoder(decoder, jax.random.key(1))
  return run(
    engine, params, jobs, base_key_data(0, Purpose.SEARCH, 0, 0), on_finish=trees.append
  ), trees


@pytest.mark.long
def test_a_search_of_the_papers_shape_wastes_little():
  counters, trees = paper_search()
  expansions = np.mean([tree.statistics['expansions'] for tree in trees])
  depth = np.mean([tree.depth[tree.collected].mean() for tree in trees])
  figures = counters.metrics() | {
    'recomputed': counters.recomputed_tokens / counters.generated_tokens,
    'expansions': expansions,
    'depth': depth,
  }
  print(figures)
  assert expansions > 60 and depth > 12, figures  # the shape is the paper's
  assert figures['recomputed'] <= 0.05, figures
  assert figures['time/path_read_over_valid'] <= 1.3, figures
  assert figures['time/occupancy'] >= 0.9, figures
