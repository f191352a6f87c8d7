"""Distinct siblings are a sample without replacement, and their caches follow them."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.decode.distinct import draw_distinct, start_race
from ds_jax.decode.expand import DecodeState, ExpandShape, compile_expand, compile_slots, follow
from ds_jax.decode.sampling import invert_in_turn, sampling_options, token_keys
from ds_jax.interfaces import SlotPlan
from ds_jax.model.decoder import Rows, init_decoder, sequence_logprobs
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny as fakes
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance

END = 2
# Of the next token, by the last one; the first token follows END. Segments have two tokens.
NEXT = np.array([[0.2, 0.7, 0.1], [0.25, 0.25, 0.5], [0.3, 0.1, 0.6]])


def sequences(probabilities=NEXT):
  """Every segment as a number, 3 * first token + second, and its probability `[9]`."""
  all_of = np.zeros(9)
  all_of[3 * END] = probabilities[END, END]  # it ends at once
  for first, second in itertools.product((0, 1), range(3)):
    all_of[3 * first + second] = probabilities[END, first] * probabilities[first, second]
  return all_of


@jax.jit
def two_tokens(keys, is_asked, options):
  """Segments `[count, W]` as numbers, their log-probs, and the race at their end."""
  logits = jnp.log(jnp.asarray(NEXT, jnp.float32))
  start = jnp.broadcast_to(logits[END], (*keys.shape, 3))
  fields = dict(race=start_race(is_asked), is_ended=~is_asked, is_asked=is_asked)
  one = draw_distinct(token_keys(keys, jnp.int32(0)), start, options, **fields)

  fields |= dict(race=one.race, is_ended=~is_asked | (one.draw.token == END))
  after = logits[one.draw.token]
  two = draw_distinct(token_keys(keys, jnp.int32(1)), after, options, **fields)

  take = lambda x: jnp.take_along_axis(x, two.parent, 1)
  second = lambda x: jnp.where(take(fields['is_ended']), 0, x)
  numbers = 3 * take(one.draw.token) + second(two.draw.token)
  return numbers, take(one.draw.logprob) + second(two.draw.logprob), two.race


def sample(num_children, **options):
  """8,000 times up to three segments, as `two_tokens` returns them."""
  keys = jax.random.split(jax.random.key(0), (8_000, 3))
  is_asked = jnp.broadcast_to(jnp.arange(3) < num_children, keys.shape)
  return jax.device_get(two_tokens(keys, is_asked, sampling_options(**options)))


def chi_square(numbers, expected):
  """Of how often each outcome of `expected` is found, and that nothing else is found."""
  counts = collections.Counter(map(tuple, numbers.tolist()))
  assert set(counts) <= set(expected)
  total = 0.0
  for outcome, probability in expected.items():
    mean = len(numbers) * probability
    total += (counts[outcome] - mean) ** 2 / mean
  return total


def in_turn(probabilities, count):
  """P(i) P(j) / (1 - P(i)) …: of every ordered choice of `count` sequences that differ."""
  expected = {}
  for choice in itertools.permutations(np.flatnonzero(probabilities).tolist(), count):
    left, product = 1.0, 1.0
    for number in choice:
      product *= probabilities[number] / left
      left -= probabilities[number]
    expected[choice] = product
  return expected


@pytest.mark.parametrize('num_children, bound', [(1, 22.5), (2, 76), (3, 282)])
def test_children_are_a_sample_without_replacement(num_children, bound):
  """Whatever number a node asks for; the bounds leave out a thousandth of chance."""
  numbers, logprobs, race = sample(num_children)
  probabilities = sequences()
  expected = in_turn(probabilities, num_children)
  assert chi_square(numbers[:, :num_children], expected) < bound
  scores = np.log(probabilities[numbers[:, :num_children]])
  limit = tolerance('float32', 4 * 3, 6)
  np.testing.assert_allclose(logprobs[:, :num_children], scores, atol=limit)
  np.testing.assert_allclose(race.log_rate[:, :num_children], scores, atol=limit)
  assert np.isposinf(race.log_time[:, num_children:]).all()


def test_filtered_and_tempered_policies_are_sampled_likewise():
  """At temperature 1/2 probabilities are squared; the least likely token is left out."""
  filtered = np.square(NEXT)
  filtered[np.arange(3), NEXT.argmin(1)] = 0
  filtered /= filtered.sum(1, keepdims=True)
  numbers, logprobs, _ = sample(2, temperature=0.5, top_k=2)
  probabilities = sequences(filtered)
  assert chi_square(numbers[:, :2], in_turn(probabilities, 2)) < 20.5
  policy = np.square(NEXT) / np.square(NEXT).sum(1, keepdims=True)
  limit = tolerance('float32', 4 * 3, 12)
  np.testing.assert_allclose(logprobs[:, :2], np.log(sequences(policy)[numbers[:, :2]]), atol=limit)


def test_what_a_filter_leaves_too_few_of_is_copied():
  """With top_k=1 there is but one continuation: it ends at once."""
  numbers, _, race = sample(3, top_k=1)
  assert (numbers == 3 * END).all()
  assert np.isneginf(race.log_time[:, 0]).all() and np.isposinf(race.log_time[:, 1:]).all()


def test_indices_drawn_in_turn_come_from_what_is_left():
  rng = np.random.default_rng(0)
  weights = rng.exponential(size=(50, 300)).astype(np.float32)
  weights[:, 100:] *= rng.random((50, 200)) < 0.02
  weights[0, 5:] = 0
  weights[1] *= 1e-30
  weights[1, 7] = 1.0  # what is left after it is no rounding error of it
  uniforms = rng.random((50, 6)).astype(np.float32)
  indices, left = jax.device_get(invert_in_turn(jnp.asarray(weights), jnp.asarray(uniforms)))
  for row, (row_weights, row_uniforms) in enumerate(zip(weights, uniforms, strict=True)):
    remaining = row_weights.astype(np.float64)
    for draw, uniform in enumerate(row_uniforms):
      total = remaining.sum()
      np.testing.assert_allclose(left[row, draw], total, rtol=1e-5)
      if total == 0:
        continue
      running, index = np.cumsum(remaining), indices[row, draw]
      assert remaining[index] > 0
      # The level lies within what the index adds, up to rounding.
      assert running[index] >= uniform * total * (1 - 1e-4)
      assert running[index] - remaining[index] <= uniform * total * (1 + 1e-4)
      remaining[index] = 0


def test_a_large_vocabulary_is_neither_sorted_nor_hashed():
  """Noise and a sort of W * V candidates are what it must not cost at 151,936 ids."""
  slots, width, size = 2, 8, 151_936
  is_asked = jnp.ones((slots, width), bool)

  def draw(keys, logits, options):
    return draw_distinct(
      keys, logits, options, race=start_race(is_asked), is_ended=~is_asked, is_asked=is_asked
    )

  keys = jax.random.split(jax.random.key(0), (slots, width))
  logits = jax.ShapeDtypeStruct((slots, width, size), jnp.float32)
  compiled = jax.jit(draw).lower(keys, logits, sampling_options()).compile()
  sorted_shapes = re.findall(r'\[([\d,]*)\][^=]* sort\(', compiled.as_text())
  assert set(sorted_shapes) <= {f'{slots},{width * width}'}
  assert compiled.memory_analysis().temp_size_in_bytes < 5 * (4 * slots * width * size)


SHAPE = ExpandShape(
  num_slots=4,
  width=4,
  segment_length=6,
  context_length=64,
  replay_chunk=8,
  replay_lanes=4,
  path_block=32,
  num_kv_heads=fakes.DECODER.num_kv_heads,
  head_width=fakes.DECODER.head_width,
  has_distinct_siblings=True,
)
PROMPTS = np.random.default_rng(0).integers(4, 22, (4, SHAPE.replay_chunk)).astype(np.int32)
STOPS = np.array([fakes.STOP_ID, 7, 9], np.int32)


def first_plan(num_children):
  zeros = np.zeros(4, np.int32)
  return SlotPlan(
    append_child=zeros - 1,
    keep_length=zeros,
    replay_tokens=PROMPTS,
    replay_length=zeros + PROMPTS.shape[1],
    copy_from=zeros - 1,
    pending_token=zeros + 5,
    num_children=np.array(num_children, np.int32),
    first_child=zeros,
    key=np.arange(8, dtype=np.uint32).reshape(4, 2),
  )


def next_plan(plan, segments, child):
  """The expansion of each slot's child in place `child`, at the end of its segment."""
  length = np.asarray(segments.length)[:, child]
  return plan._replace(
    append_child=np.full(4, child, np.int32),
    keep_length=PROMPTS.shape[1] + length,
    replay_length=np.zeros(4, np.int32),
    pending_token=np.asarray(segments.tokens)[np.arange(4), child, length - 1],
    key=plan.key + np.uint32(100),
  )


def make_program(shape=SHAPE):
  """The compiled expansion, a decoder and empty slots."""
  mesh = make_mesh(devices=jax.devices()[:1])
  decoder = init_decoder(fakes.DECODER, jax.random.key(0))
  slots = compile_slots(fakes.DECODER, mesh, shape)()
  return compile_expand(mesh, shape), decoder, slots


def scores_of(decoder, paths, temperature):
  """Log-probs and entropies after prompt and pending token, in a full forward, of each path."""
  rows = np.zeros((len(paths), 40), np.int32)
  for row, path in zip(rows, paths, strict=True):
    row[: len(path)] = path
  positions = jnp.broadcast_to(jnp.arange(40), rows.shape)
  segments = jnp.full(rows.shape, 40)
  inputs = Rows(rows, positions, segments, jnp.roll(rows, -1, 1))
  logprobs, entropies = jax.jit(sequence_logprobs)(decoder, inputs, temperature=temperature)
  start = PROMPTS.shape[1]
  found = []
  for row, path in enumerate(paths):
    cut = slice(start, len(path) - 1)
    found.append((np.asarray(logprobs)[row, cut], np.asarray(entropies)[row, cut]))
  return found


@pytest.mark.parametrize('temperature', [1.0, 0.1])
def test_siblings_differ_and_their_caches_follow_them(temperature):
  """Scores of children, and of children of each child, are those of a full forward.

  A confident policy makes beginnings fork late, when much is written that has to move.
  """
  program, decoder, slots = make_program()
  options = sampling_options(temperature)
  plan = first_plan([4, 4, 2, 0])
  slots, segments = program(decoder, slots, plan, options, STOPS)
  assert (np.asarray(segments.length) > 0).sum(1).tolist() == [4, 4, 2, 0]
  caches = jax.tree.map(np.array, slots)
  num_terms = decoder_terms(fakes.DECODER, 40)
  for child in range(2):
    again = jax.tree.map(jnp.asarray, caches)  # slots are donated
    _, below = program(decoder, again, next_plan(plan, segments, child), options, STOPS)
    paths, decoded = [], []
    for b, j in itertools.product(range(3), range(4)):
      if j >= plan.num_children[b]:
        continue
      path, scores = [*PROMPTS[b], 5], []
      for found, place in ((segments, child), (below, j)):
        cut = slice(int(found.length[b, place]))
        path.extend(np.asarray(found.tokens)[b, place, cut].tolist())
        scores.append([np.asarray(x)[b, place, cut] for x in (found.logprobs, found.entropies)])
      paths.append(path)
      decoded.append([np.concatenate(x) for x in zip(*scores, strict=True)])
    expected = scores_of(decoder, paths, temperature)
    assert_close(tuple(map(tuple, decoded)), tuple(expected), num_terms=num_terms)
  for found in (segments, below):
    for b in range(3):
      texts = {
        tuple(np.asarray(found.tokens)[b, j, : int(found.length[b, j])].tolist())
        for j in range(plan.num_children[b])
      }
      assert len(texts) == plan.num_children[b]


def test_the_first_sibling_is_the_one_of_independent_sampling():
  program, decoder, slots = make_program()
  plain, _, plain_slots = make_program(dataclasses.replace(SHAPE, has_distinct_siblings=False))
  plan = first_plan([4, 4, 2, 1])
  _, distinct = program(decoder, slots, plan, sampling_options(), STOPS)
  _, independent = plain(decoder, plain_slots, plan, sampling_options(), STOPS)
  np.testing.assert_array_equal(distinct.tokens[:, 0], independent.tokens[:, 0])
  assert (np.asarray(distinct.tokens) != np.asarray(independent.tokens)).any()


def test_caches_are_reordered_where_they_lie():
  shape = dataclasses.replace(SHAPE, segment_length=512)
  mesh = make_mesh(devices=jax.devices()[:1])
  slots = jax.eval_shape(compile_slots(fakes.DECODER, mesh, shape))
  of_siblings = jnp.zeros((shape.num_slots, shape.width), jnp.int32)
  state = DecodeState(
    step=jnp.int32(300),
    token=of_siblings,
    is_ended=of_siblings == 1,
    segment_keys=slots.segment_keys,
    segment_values=slots.segment_values,
    segments=(),
  )
  move = jax.jit(functools.partial(follow, reader=shape.reader(mesh)), donate_argnums=0)
  compiled = move.lower(state, of_siblings).compile()
  of_a_slot = slots.segment_keys.size * slots.segment_keys.dtype.itemsize / shape.num_slots
  assert compiled.memory_analysis().temp_size_in_bytes < of_a_slot


def test_a_slot_that_rests_keeps_its_children():
  program, decoder, slots = make_program()
  plan = first_plan([4, 4, 4, 4])
  slots, _ = program(decoder, slots, plan, sampling_options(), STOPS)
  before = np.array(slots.segment_keys)
  zeros = np.zeros(4, np.int32)
  plan = plan._replace(
    num_children=np.array([4, 0, 4, 0], np.int32), keep_length=zeros + 9, replay_length=zeros
  )
  slots, _ = program(decoder, slots, plan, sampling_options(), STOPS)
  after = np.asarray(slots.segment_keys)
  np.testing.assert_array_equal(after[:, 1::2], before[:, 1::2])
  assert (after[:, ::2] != before[:, ::2]).any()
