"""The engine with a real decoder: what it decodes, and what its results do not depend on."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.interfaces import Segments
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.run.growing import Journal
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.engine import Interrupted
from ds_jax.search.engine.expansion import cut_segments
from ds_jax.search.engine.host_tree import HostTree
from ds_jax.search.engine.keys import problem_hash, root_key_data
from ds_jax.search.engine.slots import Request, Slot
from ds_jax.search.journal import tree_from_line, tree_to_line
from ds_jax.search.statistics import split_counts, summarize
from ds_jax.search.trajectories import trajectories
from ds_jax.testing import tiny as fakes
from ds_jax.testing.tiny import assert_same_tree
from ds_jax.testing.tolerance import assert_close, decoder_terms
from ds_jax.types import Verdict


@pytest.fixture(scope='module')
def grown():
  engine, jobs = fakes.make_engine(), fakes.make_jobs(7)
  trees, counters = fakes.grow(engine, jobs)
  return engine, jobs, trees, counters


def test_every_tree_is_grown_and_all_its_tokens_are_what_a_full_forward_scores(grown):
  _, jobs, trees, counters = grown
  assert set(trees) == {job.problem.id for job in jobs} and counters.trees == len(jobs)
  found = [t for tree in trees.values() for t in trajectories(tree, 0)]
  rows = np.zeros((len(found), 40), np.int32)
  for row, trajectory in zip(rows, found, strict=True):
    tokens = np.concatenate([trajectory.prompt_tokens, trajectory.tokens])
    row[: len(tokens)] = tokens
  assert (rows < fakes.DECODER.num_ids).all()
  logprobs, entropies = jax.jit(sequence_logprobs)(
    fakes.decoder(),
    Rows(
      rows,
      jnp.broadcast_to(jnp.arange(40), rows.shape),
      jnp.full(rows.shape, 40),
      jnp.roll(rows, -1, 1),
    ),
  )
  for i, trajectory in enumerate(found):
    start = len(trajectory.prompt_tokens) - 1
    cut = slice(start, start + len(trajectory.tokens))
    expected = entropies_of(trees[trajectory.problem_id], trajectory.node_ids)
    decoded = trajectory.behavior_logprobs, expected
    num_terms = decoder_terms(fakes.DECODER, 40)
    assert_close((logprobs[i, cut], entropies[i, cut]), decoded, num_terms=num_terms)


def entropies_of(tree, path):
  """What the tree keeps of the tokens of a path, `[S]`."""
  return np.concatenate([tree.entropies[tree.node_slice(node)] for node in path])


def test_trees_collect_what_is_owed_and_jump(grown):
  _, _, trees, _ = grown
  for tree in trees.values():
    ends = int(tree.is_terminal.sum())
    assert len(tree.collected) == min(ends, fakes.SEARCH.num_trajectories)
    assert len(set(tree.collected.tolist())) == len(tree.collected)
    assert int(tree.num_ends[0]) == ends
  hows = {how for tree in trees.values() for _, how in tree.selections}
  assert {'root', 'local', 'global'} <= hows
  assert sum(t.statistics['recomputed_tokens'] for t in trees.values()) > 0


@pytest.mark.parametrize(
  'change', [dict(replay_chunk=64), dict(replay_lanes=1), dict(replay_lanes=4, replay_chunk=3)]
)
def test_lanes_and_chunks_do_not_change_a_tree(grown, change):
  _, jobs, trees, _ = grown
  other, _ = fakes.grow(fakes.make_engine(dataclasses.replace(fakes.SEARCH, **change)), jobs)
  for name in trees:
    assert_same_tree(trees[name], other[name], bits=False)


def test_order_and_neighbours_do_not_change_a_bit(grown):
  engine, jobs, trees, _ = grown
  for subset in (jobs[::-1], jobs[2:3], jobs[1:6]):
    other, _ = fakes.grow(engine, subset)
    for name in other:
      assert_same_tree(trees[name], other[name])


def test_number_of_devices_does_not_change_a_bit(grown):
  _, jobs, trees, _ = grown
  other, _ = fakes.grow(fakes.make_engine(num_devices=2), jobs)
  for name in trees:
    assert_same_tree(trees[name], other[name])


def test_a_decoder_split_over_tensor_grows_the_same_trees(grown):
  """Two groups of two devices; each group's loops end with its own children."""
  _, jobs, trees, _ = grown
  engine = fakes.make_engine(num_devices=4, tensor=2)
  other, _ = fakes.grow(engine, jobs)
  for name in trees:
    assert_same_tree(trees[name], other[name], bits=False)
  count = fakes.CompileCounter()
  fakes.grow(engine, jobs[:2])
  assert count.compilations() == 0


def test_caches_are_split_over_tensor_where_that_divides_the_heads():
  for tensor, heads in ((2, 1), (4, 2)):  # of 2 heads
    slots = fakes.make_engine(num_devices=4, tensor=tensor).make_slots()
    shards = jax.tree.map(lambda cache: cache.addressable_shards[0].data.shape, slots)
    assert shards.path_keys[2] == shards.path_values[2] == heads
    assert shards.segment_keys[3] == shards.segment_values[3] == heads


@pytest.mark.long
def test_one_slot_grows_the_same_trees(grown):
  _, jobs, trees, _ = grown
  alone, _ = fakes.grow(fakes.make_engine(dataclasses.replace(fakes.SEARCH, num_slots=1)), jobs[:3])
  for name in alone:
    assert_same_tree(trees[name], alone[name], bits=False)


def test_a_second_run_compiles_nothing(grown):
  engine, jobs, _, _ = grown
  count = fakes.CompileCounter()
  fakes.grow(engine, jobs[:2])
  assert count.compilations() == 0


def test_direct_rollouts_are_single_paths():
  config = dataclasses.replace(fakes.SEARCH, policy='direct', width=1, num_trajectories=1)
  trees, _ = fakes.grow(fakes.make_engine(config), fakes.make_jobs(6))
  assert len(trees) == 6
  for tree in trees.values():
    assert tree.parent.tolist() == list(range(-1, len(tree.parent) - 1))
    assert tree.collected.tolist() == [len(tree.parent) - 1]


@pytest.mark.parametrize('num_devices', [1, 2])
def test_direct_rollouts_of_a_problem_encode_its_prompt_once(num_devices):
  """More of them than slots, and prompts longer than a chunk; each as if it were alone."""
  config = dataclasses.replace(fakes.SEARCH, policy='direct', width=1, num_trajectories=1)
  engine = fakes.make_engine(config, num_devices)
  problems = [job for job in fakes.make_jobs(6) if len(job.prompt_tokens) > 5][:3]
  jobs = [dataclasses.replace(job, sample=i) for job in problems for i in range(7)]
  base = fakes.base_key_data(0, fakes.Purpose.SEARCH, 0, 0)
  trees = {}

  def keep(tree):
    trees[tree.problem_id, tree.sample] = tree

  counters = fakes.run(engine, fakes.decoder(), jobs, base, on_finish=keep)
  lengths = [len(job.prompt_tokens) - 1 for job in problems]
  assert sum(lengths) <= counters.encoded_tokens <= sum(lengths) * num_devices
  assert counters.copied_tokens >= 2 * max(lengths) and counters.recomputed_tokens == 0
  assert len({tree.tokens.tobytes() for tree in trees.values()}) > 3
  for job in jobs[::5]:
    alone, _ = fakes.grow(engine, [job])
    assert_same_tree(trees[job.problem.id, job.sample], alone[job.problem.id])


def test_direct_rollouts_of_one_tree_start_at_the_root():
  config = dataclasses.replace(fakes.SEARCH, policy='direct', width=1, num_trajectories=3)
  trees, _ = fakes.grow(fakes.make_engine(config), fakes.make_jobs(6))
  for tree in trees.values():
    assert tree.depth[tree.parent == 0].tolist() == [1] * 3
    inner = tree.parent[tree.parent > 0]
    assert len(set(inner.tolist())) == len(inner)
    assert tree.collected.tolist() == np.flatnonzero(tree.is_terminal).tolist()
    firsts = {tuple(tree.tokens[tree.node_slice(i)]) for i in np.flatnonzero(tree.parent == 0)}
    assert len(firsts) > 1


def test_a_slow_verdict_delays_its_own_tree_only(grown):
  _, jobs, trees, _ = grown
  release, order = threading.Event(), []

  def verify(items):
    futures = fakes.scripted_verify(items)
    for i, (answer, _) in enumerate(items):
      if answer == '0':
        verdict, futures[i] = futures[i].result(), concurrent.futures.Future()
        threading.Thread(
          target=lambda f=futures[i], v=verdict: (release.wait(60), f.set_result(v)), daemon=True
        ).start()
    return futures

  def on_finish(tree):
    order.append(tree.problem_id)
    if len(order) == len(jobs) - 1:
      release.set()

  found = {}
  engine = fakes.make_engine(verify_fn=verify)
  fakes.run(
    engine,
    fakes.decoder(),
    jobs,
    fakes.base_key_data(0, fakes.Purpose.SEARCH, 0, 0),
    on_finish=lambda tree: (found.__setitem__(tree.problem_id, tree), on_finish(tree)),
  )
  assert order[-1] == 'p0'
  for name in trees:
    assert_same_tree(trees[name], found[name])


def test_numbers_that_fail_in_one_tree_leave_the_others_alone(grown):
  """Log-probs and entropies of one tree's segments are no numbers, whatever slot it is in."""
  engine, jobs, trees, _ = grown
  base = fakes.base_key_data(0, fakes.Purpose.SEARCH, 0, 0)
  roots = root_key_data(base, [problem_hash(job.problem.id) for job in jobs], [0] * len(jobs))
  is_broken = np.zeros(engine.num_trees, bool)

  def expand(params, slots, plan):
    for b, key in enumerate(np.asarray(plan.key)):
      starts = (roots == key).all(1)
      is_broken[b] = starts[0] if starts.any() else is_broken[b]  # a slot stays with its tree
    slots, segments = engine.expand_fn(params, slots, plan)
    spoil = lambda values: np.where(is_broken[:, None, None], np.nan, values)
    return slots, segments._replace(
      logprobs=spoil(segments.logprobs), entropies=spoil(segments.entropies)
    )

  found, _ = fakes.grow(dataclasses.replace(engine, expand_fn=expand), jobs)
  broken = found.pop(jobs[0].problem.id)
  assert np.isnan(broken.logprobs).all() and len(broken.collected)
  assert np.isfinite(broken.value_sum).all()
  for name, tree in found.items():
    assert_same_tree(trees[name], tree)


@pytest.mark.parametrize('policy, is_seen', [('deepsearch', True), ('faithful', False)])
def test_an_end_token_in_the_last_place_is_seen(policy, is_seen):
  """Children: an end in the last place, a lone end token, and none at all."""
  config = dataclasses.replace(fakes.SEARCH, policy=policy, width=3, segment_length=4, max_depth=9)
  numbers = {name: np.zeros((1, 3, 4), np.float32) for name in Segments._fields}
  segments = Segments(**numbers)._replace(
    tokens=np.ones((1, 3, 4), np.int32),
    length=np.array([[4, 1, 4]], np.int32),
    is_ended=np.array([[True, True, False]]),
  )
  tree = HostTree(fakes.make_jobs(1)[0], np.zeros(2, np.uint32))
  request = Request(0, 0, 0, 3, np.zeros(2, np.uint32))
  expansion = cut_segments(segments, 0, request, slot=Slot(), tree=tree, config=config)
  assert expansion.ends() == ([0, 1] if is_seen else [1])
  assert [len(segment.tokens) for segment in expansion.segments] == [4, 1, 4]


def test_failed_verification_masks_the_end():
  def verify(items):
    futures = [concurrent.futures.Future() for _ in items]
    for future in futures:
      future.set_result(Verdict.ERROR)
    return futures

  trees, counters = fakes.grow(fakes.make_engine(verify_fn=verify), fakes.make_jobs(3))
  assert len(trees) == 3 and counters.verdicts['error'] > 0
  for tree in trees.values():
    assert len(tree.collected) == 0 and not trajectories(tree, 0)


def test_stop_is_prompt_and_keeps_finished_trees(grown):
  engine, jobs, trees, _ = grown
  kept = []
  with pytest.raises(Interrupted):
    fakes.run(
      engine,
      fakes.decoder(),
      jobs * 3,
      fakes.base_key_data(0, fakes.Purpose.SEARCH, 0, 0),
      on_finish=kept.append,
      should_stop=lambda: len(kept) >= 2,
    )
  assert len(kept) >= 2
  for tree in kept:
    assert_same_tree(tree, trees[tree.problem_id])


def test_journal_round_trip_and_broken_tail(grown, tmp_path):
  trees = list(grown[2].values())
  journal = Journal(tmp_path / 'journal' / 'step.jsonl')
  for tree in trees[:2]:
    journal.append(tree)
  with journal.path.open('a') as file:
    file.write(tree_to_line(trees[2])[:100])
  read = journal.read()
  assert len(read) == 2
  for a, b in zip(read, trees, strict=False):
    assert_same_tree(a, b)
  journal.append(trees[2])
  assert len(journal.read()) == 3
  with pytest.raises(ValueError):
    tree_from_line('[1]')


def test_split_counts_equal_counting_pairs(grown):
  for tree in grown[2].values():
    ends = [i for i, v in enumerate(tree.verdict) if v]
    pairs, disagreements = np.zeros(4, int), np.zeros(4, int)
    for i, a in enumerate(ends):
      for b in ends[:i]:
        shared = len([1 for x, y in zip(tree.path(a), tree.path(b), strict=False) if x == y]) - 1
        pairs[shared] += 1
        disagreements[shared] += (tree.verdict[a] == 'correct') != (tree.verdict[b] == 'correct')
    got = split_counts(tree, 4)
    np.testing.assert_array_equal(got[0], pairs)
    np.testing.assert_array_equal(got[1], disagreements)


def test_summary_is_finite_and_consistent(grown):
  metrics = summarize(list(grown[2].values()), 4, stop_ids=[fakes.STOP_ID])
  assert all(np.isfinite(v) for v in metrics.values())
  assert 0 < metrics['search/yield'] <= 1 <= metrics['search/path_over_distinct']
  again = [tree_from_line(tree_to_line(tree)) for tree in grown[2].values()]
  assert metrics == summarize(again, 4, stop_ids=[fakes.STOP_ID])
  ends = [(tree, i) for tree in again for i, verdict in enumerate(tree.verdict) if verdict]
  cut = [tree.along_path(tree.tokens, i)[-1] != fakes.STOP_ID for tree, i in ends]
  assert 0 < metrics['search/cut_share'] < 1
  assert metrics['search/cut_share'] == np.mean(cut)
  assert {v for (t, i), flag in zip(ends, cut, strict=True) if flag for v in [t.verdict[i]]} > {
    'incomplete'
  }  # some were cut off and have an answer


def test_a_summary_of_nothing_says_nothing():
  assert summarize([], 4, stop_ids=[fakes.STOP_ID]) == {'search/trees': 0, 'search/tokens': 0}
  assert Counters().metrics() == {}


@pytest.mark.parametrize('policy', ['deepsearch', 'direct'])
def test_trees_have_temperatures_of_their_own(policy):
  """They share rounds and slots, and are those of engines that have one temperature for all."""
  config = dataclasses.replace(fakes.SEARCH, policy=policy)
  engine, jobs = fakes.make_engine(config, num_devices=2), fakes.make_jobs(6)
  temperatures = dict(zip((job.problem.id for job in jobs), (0.5, 1.5, None) * 2, strict=True))
  with_own = [dataclasses.replace(job, temperature=temperatures[job.problem.id]) for job in jobs]
  mixed = dataclasses.replace(engine, temperature=0.9)
  trees, _ = fakes.grow(mixed, with_own)
  for temperature in (0.5, 1.5, 0.9):
    expected, _ = fakes.grow(dataclasses.replace(engine, temperature=temperature), jobs)
    for name, own in temperatures.items():
      if (own or 0.9) != temperature:
        continue
      tree = trees[name]
      assert tree.temperature == own
      statistics = {k: v for k, v in tree.statistics.items() if k != 'temperature'}
      # In waves, what is encoded again depends on the neighbours.
      assert_same_tree(
        dataclasses.replace(tree, statistics=statistics),
        expected[name],
        bits=engine.policy.is_serial,
      )
      assert all(t.temperature == own for t in trajectories(tree, 0))
      assert tree_from_line(tree_to_line(tree)).temperature == own
  entropies = {
    t: np.concatenate([trees[n].entropies for n in trees if temperatures[n] == t])
    for t in (0.5, 1.5)
  }
  assert entropies[0.5].mean() < entropies[1.5].mean()
  count = fakes.CompileCounter()
  fakes.grow(mixed, with_own[3:5])
  assert count.compilations() == 0
  with pytest.raises(ValueError, match='give the engine a temperature'):
    fakes.grow(engine, with_own)


def test_one_temperature_for_all_is_that_of_the_options_to_the_last_digits(grown):
  """The plan's temperatures replace the options'; without them nothing about a tree has changed."""
  engine, jobs, trees, _ = grown
  other, _ = fakes.grow(dataclasses.replace(engine, temperature=1.0), jobs)
  for name in trees:
    assert 'temperature' not in other[name].statistics
    assert_same_tree(trees[name], other[name], bits=False)
