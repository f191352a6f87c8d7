"""Trees that start within an earlier response: what is decoded, verified, counted and kept."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax import sharding
from ds_jax.interfaces import Segments
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.expansion import cut_segments
from ds_jax.search.engine.host_tree import HostTree, Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.engine.slots import Request, Slot
from ds_jax.search.journal import tree_from_line, tree_to_line
from ds_jax.search.trajectories import trajectories
from ds_jax.testing import scripted_model
from ds_jax.testing import tiny as fakes
from ds_jax.testing.tiny import assert_same_tree
from ds_jax.testing.tolerance import assert_close, decoder_terms
from ds_jax.types import Given, Problem

PREFIX = dataclasses.replace(
  fakes.SEARCH, policy='prefix', width=1, num_trajectories=3, max_expansions=60
)
LENGTH = 40


def given_jobs(count, num_given):
  """Jobs whose trees start after random tokens."""
  rng = np.random.default_rng(7)
  jobs = []
  for job in fakes.make_jobs(count):
    tokens = rng.integers(4, 22, num_given).astype(np.int32)
    jobs.append(dataclasses.replace(job, given=Given(tokens, is_right=True)))
  return jobs


def test_rollouts_within_a_response_are_what_a_full_forward_scores():
  jobs = given_jobs(3, fakes.SEARCH.segment_length + 1)
  trees, counters = fakes.grow(fakes.make_engine(PREFIX), jobs)
  found, rows = [], []
  for job in jobs:
    for t in trajectories(trees[job.problem.id], 0):
      np.testing.assert_array_equal(t.question_tokens, job.prompt_tokens)
      np.testing.assert_array_equal(t.given_tokens, job.given.tokens)
      whole = np.concatenate([job.prompt_tokens, t.response_tokens])
      rows.append(np.pad(whole, (0, LENGTH - len(whole))))
      found.append((t, len(whole)))
  rows = np.stack(rows)
  logprobs, _ = jax.jit(sequence_logprobs)(
    fakes.decoder(),
    Rows(
      rows,
      jnp.broadcast_to(jnp.arange(LENGTH), rows.shape),
      jnp.full(rows.shape, LENGTH),
      jnp.roll(rows, -1, 1),
    ),
  )
  for (t, length), scored in zip(found, logprobs, strict=True):
    expected = scored[length - len(t.tokens) - 1 : length - 1]
    assert_close(
      (expected,), (t.behavior_logprobs,), num_terms=decoder_terms(fakes.DECODER, LENGTH)
    )
  # What was given fills a segment and a token of the next: the last one sampled is cut off there.
  limit = fakes.SEARCH.max_depth * fakes.SEARCH.segment_length
  assert max(len(t.response_tokens) for t, _ in found) == limit
  assert max(int(tree.depth.max()) for tree in trees.values()) == fakes.SEARCH.max_depth - 1
  for tree in trees.values():
    for node in range(1, len(tree.parent)):
      tokens = tree.tokens[tree.node_slice(node)]
      is_cut = tree.depth[node] == fakes.SEARCH.max_depth - 1 and fakes.STOP_ID not in tokens
      assert len(tokens) == fakes.SEARCH.segment_length - is_cut or fakes.STOP_ID in tokens
      assert tree.is_terminal[node] == (is_cut or fakes.STOP_ID in tokens)
      assert tree.is_cut(node, [fakes.STOP_ID]) == (fakes.STOP_ID not in tokens)
  # It counts as nothing that was generated.
  sampled = sum(len(tree.tokens) for tree in trees.values())
  assert sampled == counters.generated_tokens
  assert sampled == sum(tree.statistics['generated_tokens'] for tree in trees.values())


def test_rollouts_of_a_prefix_encode_it_once_and_nobody_elses():
  """More trees than slots, of one problem: from its root, and from a prefix longer than a chunk."""
  engine = fakes.make_engine(PREFIX)
  (job,) = given_jobs(1, fakes.SEARCH.replay_chunk + 2)
  root = dataclasses.replace(job, given=None, sample=10)
  jobs = [dataclasses.replace(job, sample=i) for i in range(5)] + [root]
  base, trees = base_key_data(0, Purpose.SEARCH, 0, 0), {}

  def keep(tree):
    trees[tree.sample] = tree

  counters = run(engine, fakes.decoder(), jobs, base, on_finish=keep)
  num_prompt = len(job.prompt_tokens)
  once = num_prompt + len(job.given.tokens) - 1
  assert once <= counters.encoded_tokens - counters.recomputed_tokens <= once + num_prompt - 1
  for one in jobs:  # as if it were alone
    alone, _ = fakes.grow(engine, [one])
    assert_same_tree(trees[one.sample], alone[job.problem.id])
  assert trees[10].num_given == 0 and trees[0].num_given == len(job.given.tokens)


def test_what_is_verified_is_the_prefix_with_its_continuation():
  """A scripted model that goes on from where the prefix ends; the verifier sees all tokens."""
  seen = []

  def verify(items):
    seen.extend(text for _, text in items)
    return scripted_model.verify([(answer, text.split()[-1]) for answer, text in items])

  config = dataclasses.replace(
    PREFIX,
    max_depth=4,
    segment_length=scripted_model.TOKENS,
    cut_ends='graded',  # scripted paths have no end token
  )
  engine = Engine(
    config=config,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    expand_fn=scripted_model.expand_fn(scripted_model.late(4), 0.5),
    make_slots=lambda: None,
    verify_fn=verify,
    decode_text=lambda tokens: ' '.join(map(str, tokens.tolist())),
  )
  given = np.array([77, 3], np.int32)  # ends at depth 1, open
  job = Job(Problem('a', '', ''), np.zeros(1, np.int32), given=Given(given, is_right=False))
  trees = []
  key = base_key_data(0, Purpose.SEARCH, 0, 0)
  run(engine, None, [job], key, on_finish=trees.append)
  (tree,) = trees
  assert len(seen) == 3 and all(text.startswith('77 3 ') for text in seen)
  ends = trajectories(tree, 0)
  texts = {' '.join(map(str, t.response_tokens.tolist())) for t in ends}
  assert texts == set(seen)
  # One segment is given, three are sampled, and the last says how the path was decided.
  assert all(len(text.split()) == 8 and int(text.split()[-1]) // 3 == 4 for text in seen)
  for t in ends:
    assert (t.num_given, t.is_given_right) == (2, False)
    assert t.is_correct == (t.tokens[-1] % 3 == scripted_model.GOOD)


def test_a_path_ends_at_the_response_limit_within_a_segment():
  """6 tokens are given of 2 segments of 4: of the next one 2 are left, and no end token there."""
  config = dataclasses.replace(PREFIX, width=3, segment_length=4, max_depth=2)
  zeros = {name: np.zeros((1, 3, 4), np.float32) for name in Segments._fields}
  segments = Segments(**zeros)._replace(
    tokens=np.arange(12, dtype=np.int32).reshape(1, 3, 4),
    length=np.array([[4, 2, 3]], np.int32),
    is_ended=np.array([[False, True, True]]),
  )
  tree = HostTree(given_jobs(1, 6)[0], np.zeros(2, np.uint32))
  request = Request(0, 0, 0, 3, np.zeros(2, np.uint32))
  expansion = cut_segments(segments, 0, request, slot=Slot(), tree=tree, config=config)
  assert [segment.tokens.tolist() for segment in expansion.segments] == [[0, 1], [4, 5], [8, 9]]
  assert expansion.ends() == [0, 1, 2] and expansion.num_tokens == 6
  assert expansion.is_ended.tolist() == [False, True, False]


def test_a_journal_keeps_what_was_given_and_says_nothing_of_it_otherwise():
  engine = fakes.make_engine(PREFIX)
  (job,) = given_jobs(1, 3)
  trees, _ = fakes.grow(engine, [job])
  again = tree_from_line(tree_to_line(trees['p0']))
  assert (again.num_given, again.is_given_right) == (3, True)
  assert_same_tree(again, trees['p0'])
  trees, _ = fakes.grow(engine, [dataclasses.replace(job, given=None)])
  line = tree_to_line(trees['p0'])
  assert not {'num_given', 'is_given_right'} & set(json.loads(line))  # as older versions wrote it
  assert_same_tree(tree_from_line(line), trees['p0'])


def test_without_a_prefix_the_policy_is_direct():
  jobs = fakes.make_jobs(3)
  prefix, _ = fakes.grow(fakes.make_engine(PREFIX), jobs)
  direct, _ = fakes.grow(fakes.make_engine(dataclasses.replace(PREFIX, policy='direct')), jobs)
  for name in direct:
    assert_same_tree(prefix[name], direct[name])
