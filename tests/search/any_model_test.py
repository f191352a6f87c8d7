"""Search with a function that samples: it reads the paths that the tree has, under any policy."""

from __future__ import annotations

import concurrent.futures
import runpy
import sys
import types

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import SearchConfig, config_from
from ds_jax.search.any_model import Sample, search_with
from ds_jax.search.policies import policy_of
from ds_jax.testing import tiny_run
from ds_jax.types import Problem, Verdict

LENGTH, STOP = 3, 1
SIZES = dict(max_depth=4, segment_length=LENGTH, num_trajectories=3, max_expansions=12)
SEARCH = SearchConfig(num_slots=3, width=2, replay_chunk=2, replay_lanes=1, **SIZES)
PROBLEMS = [Problem(str(i), 'x' * (i + 1), '') for i in range(4)]
OWN = 'python:ds_jax.examples.own_policy.LIKELIEST'

TOKENIZER = types.SimpleNamespace(
  stop_ids=(STOP,),
  encode_prompt=lambda text: np.full(len(text), 7, np.int32),
  decode_response=lambda tokens: ' '.join(map(str, tokens.tolist())),
)


def sample(path, count, seed):
  """Continuations that follow from the path alone; one in nine tokens is an end."""
  del seed
  draw = np.random.default_rng(path.tolist())
  shape = count, LENGTH
  return Sample(draw.integers(STOP, 10, shape), -draw.random(shape), draw.random(shape))


def verify(items):
  futures = []
  for _, text in items:
    future = concurrent.futures.Future()
    future.set_result(Verdict.CORRECT if len(text) % 3 == 0 else Verdict.WRONG)
    futures.append(future)
  return futures


def grow(sample_fn=sample, **changes):
  config = SearchConfig(**(vars(SEARCH) | changes))
  return search_with(sample_fn, TOKENIZER, verify, problems=PROBLEMS, config=config)


def path_of(tree, node):
  return np.concatenate([tree.prompt_tokens, tree.along_path(tree.tokens, node)])


@pytest.mark.parametrize('policy', ['deepsearch', 'direct', OWN])
def test_every_node_continues_the_path_of_its_parent(policy):
  trees = grow(policy=policy)
  assert [tree.problem_id for tree in trees] == ['0', '1', '2', '3']
  for tree in trees:
    for parent in sorted(set(tree.parent.tolist()) - {-1}):
      children = np.flatnonzero(tree.parent == parent).tolist()
      count = 1 if policy == 'direct' else len(children)
      drawn = sample(path_of(tree, parent), count, 0)
      for child, j in zip(children, range(count), strict=False):
        here = tree.node_slice(child)
        length = here.stop - here.start
        is_stop = drawn.tokens[j] == STOP
        assert length == (is_stop.argmax() + 1 if is_stop.any() else LENGTH)
        assert tree.tokens[here].tolist() == drawn.tokens[j, :length].tolist()
        np.testing.assert_array_equal(tree.logprobs[here], drawn.logprobs[j, :length].astype('f4'))
        assert tree.is_terminal[child] == (is_stop.any() or tree.depth[child] == 4)


def test_seeds_belong_to_nodes_not_to_slots():
  calls = {1: [], 3: []}
  trees = {}
  for num_slots, of_run in calls.items():

    def recorded(path, count, seed, of_run=of_run):
      of_run.append((path.tolist(), seed))
      return sample(path, count, seed)

    trees[num_slots] = grow(recorded, num_slots=num_slots)
  assert sorted(calls[1]) == sorted(calls[3])
  assert len({seed for _, seed in calls[1]}) == len(calls[1])
  for tree, other in zip(trees[1], trees[3], strict=True):
    assert tree.tokens.tolist() == other.tokens.tolist() and tree.verdict == other.verdict


def test_a_policy_of_ones_own_goes_where_it_says():
  """The example: always to the likeliest path that is not finished."""
  num_jumps = 0
  for tree in grow(policy=OWN):
    likelihood = [tree.along_path(tree.logprobs, i).mean() for i in range(1, len(tree.parent))]
    expanded = [node for node, _ in tree.selections]
    for step, node in enumerate(expanded[1:], start=1):
      done = expanded[:step]
      there = [i for i in range(1, len(tree.parent)) if tree.parent[i] in done]
      is_open = [i for i in there if not tree.is_terminal[i] and i not in done]
      assert likelihood[node - 1] == max(likelihood[i - 1] for i in is_open)
      num_jumps += tree.parent[node] != expanded[step - 1]
    assert len(tree.collected) == 3 or len(expanded) == 12 or tree.is_terminal.any()
  assert num_jumps > 0


@pytest.mark.parametrize(
  'name, words',
  [
    ('python:ds_jax.types.Problem', 'to be a Policy'),
    ('python:ds_jax.types.Nowhere', 'to be a Policy'),
    ('python:no_such_module.MINE', 'importing no_such_module failed with ModuleNotFoundError'),
  ],
)
def test_what_is_no_policy_is_named(name, words):
  with pytest.raises(InputError, match=words):
    policy_of(SearchConfig(policy=name))


def test_a_config_takes_a_policy_of_ones_own():
  assert config_from({'data': {'source': 'chain'}, 'search': {'policy': OWN}}).search.policy == OWN
  for name in ('mine', 'python:mine', 'python:'):
    with pytest.raises(InputError, match='python:MODULE.NAME'):
      config_from({'data': {'source': 'chain'}, 'search': {'policy': name}})


def test_the_example_searches_with_a_model_of_transformers(warm, capsys):
  pytest.importorskip('torch', reason='the example runs on it')
  from ds_jax.examples import own_model

  own_model.main(str(warm.warmstart))
  shown = capsys.readouterr().out
  assert shown.startswith('problem sum, tree 0: ') and 'collected #1' in shown


@pytest.mark.long
def test_the_example_of_a_policy_runs(warm, tmp_path, capsys, monkeypatch):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  tiny_run.train(workdir, tiny_run.config(curriculum=dict(round_steps=(1,), filter_samples=1)))
  monkeypatch.setattr(sys, 'argv', ['own_policy', str(workdir.root), '11 from 2 3 5'])
  runpy.run_module('ds_jax.examples.own_policy', run_name='__main__')
  assert capsys.readouterr().out.count('chosen 1 (root)') == 2
