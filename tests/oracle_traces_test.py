"""The search functions replay the recorded decisions of the released code (../shared/oracle)."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.config import SearchConfig
from ds_jax.search import tree as tree_lib
from ds_jax.search.allocation import step
from ds_jax.search.backup import backup
from ds_jax.search.options import How, Rules, options_from

CAPACITY, MAX_WIDTH, MAX_COLLECTED = 512, 8, 16
HOW = {'local': How.LOCAL, 'fallback': How.FALLBACK, 'uct': How.UCT, 'global': How.GLOBAL,
       'done': How.DONE}


@functools.partial(jax.jit, static_argnums=2)
def jitted_step(tree, candidates, rules, options):
  return step(tree, candidates, rules, options)


jitted_add = jax.jit(tree_lib.add_children)


def settings(config):
  dynamic = config['dynamic_width'] or {}
  search = SearchConfig(
      width=config['expansion_width'], width_decay=dynamic.get('decay_factor', 0),
      min_width=dynamic.get('min_width', 1), max_depth=config['max_depth'],
      num_trajectories=config['terminate_num'], frontier_only=config['frontier_only'],
      count_end_token=not config['pad_is_eos'], lambda_uct=config['lambda_uct'],
      backup_threshold=config['backup_threshold'],
      **{f'lambda{i}': config[f'lambda{i}'] for i in range(1, 5)})
  rules = Rules(backtrack=config['backtrace_method'],
                depth_bonus={'constant': 'linear'}.get(config['depth_bonus_type'],
                                                       config['depth_bonus_type']),
                uncertainty='sampled' if config['uncertainty'] else 'off')
  return rules, options_from(search)


def children_of_event(event, depth, config):
  """What the engine would report of these children, by the README's rules."""
  fields = {name: np.zeros(MAX_WIDTH, dtype) for name, dtype in (
      ('num_tokens', np.int32), ('logprob_sum', np.float32), ('entropy_sum', np.float32),
      ('end_logprob', np.float32), ('is_ended', bool), ('is_terminal', bool),
      ('is_valid', bool), ('is_correct', bool), ('reward', np.float32))}
  at_limit = depth + 1 == config['max_depth']
  for i, child in enumerate(event['children']):
    logprobs = np.array([np.nan if x is None else x for x in child['lp']], np.float32)
    is_full = len(logprobs) == config['step_len']
    fields['num_tokens'][i] = len(logprobs)
    fields['logprob_sum'][i] = logprobs.sum(dtype=np.float64)
    fields['is_ended'][i] = child['eos']
    fields['end_logprob'][i] = logprobs[-1] if child['eos'] else 0
    fields['is_terminal'][i] = at_limit or (child['eos'] and not is_full)
    fields['is_valid'][i] = True
    fields['is_correct'][i] = child['ans'] == 'correct'
    fields['reward'][i] = (
        1 if child['ans'] == 'correct'
        else config['incomplete_score'] if child['ans'] == 'none' and at_limit and is_full else -1)
  return tree_lib.Children(count=np.int32(len(event['children'])), first_child=np.int32(0),
                           **fields)


def replay(trace):
  config = trace['config']
  rules, options = settings(config)
  tree = tree_lib.new_tree(CAPACITY, MAX_COLLECTED, jnp.zeros(2, jnp.uint32))
  is_fresh = False
  for event in trace['events']:
    if event['t'] == 'expand':
      depth = trace['tags'][event['node']].count('.')
      tree = jitted_add(tree, np.int32(event['node']), children_of_event(event, depth, config))
      is_fresh = True
      continue
    assert int(tree.current) == event['cur']
    candidates = (tree_lib.fresh_nodes(tree) if is_fresh else
                  tree_lib.children_of(tree, tree.current) & ~tree.is_collected)
    assert np.flatnonzero(candidates).tolist() == event['cand']
    tree, is_fresh = jitted_step(tree, candidates, rules, options), False
    tree = tree.replace(num_fresh=jnp.int32(0))
    count = len(event['n'])
    np.testing.assert_array_equal(tree.visit_count[:count], event['n'])
    np.testing.assert_allclose(tree.value_sum[:count], event['q'], atol=1e-5)
    assert int(tree.num_collected) == event['collected']
    if 'error' in event:  # the released code stops here; ours goes on to drain
      assert bool(tree.is_exhausted)
      return
    assert int(tree.how) == HOW[event['how']]
    if event['next'] is not None:
      assert int(tree.current) == event['next']
  assert np.asarray(tree.collected)[:int(tree.num_collected)].tolist() == [
      t['terminal'] for t in trace['trajectories']]


def load_traces(shared):
  return [json.loads(line) for line in (shared / 'oracle/traces.jsonl').open()]


def test_every_recorded_decision_is_reproduced(shared):
  num_replayed = 0
  for trace in load_traces(shared):
    if trace['family'] in ('crash_config', 'nan_entropy'):
      continue  # defects without a faithful setting yet: a division by zero, the order of NaNs
    try:
      replay(trace)
    except AssertionError as e:
      raise AssertionError(f'{trace["id"]} ({trace["family"]}): {e}') from e
    num_replayed += 1
  assert num_replayed >= 50


def test_node_updates_are_reproduced(shared):
  cases = json.loads((shared / 'oracle/node_update.json').read_text())['cases']
  jitted = jax.jit(functools.partial(backup, rules=Rules()))
  for case in cases:
    depth, options = case['node_depth'], options_from(
        SearchConfig(backup_threshold=case['backup_threshold']))
    # A chain in which node i has depth i; the leaf of each step is the node of that depth.
    tree = chain(64)
    for leaf_depth, value, visits, value_sum in case['steps']:
      if leaf_depth is None:
        tree = tree.replace(visit_count=tree.visit_count.at[depth].add(1))
      else:
        tree = jitted(tree, np.int32(leaf_depth), np.float32(value), options=options)
      assert int(tree.visit_count[depth]) == visits
      np.testing.assert_allclose(tree.value_sum[depth], value_sum, atol=1e-5)


def chain(length):
  index = jnp.arange(length)
  tree = tree_lib.new_tree(length, 1, jnp.zeros(2, jnp.uint32))
  return tree.replace(parent=index - 1, depth=index, preorder=index, subtree_size=length - index,
                      num_nodes=jnp.int32(length))


@pytest.mark.parametrize('widths', [(3, 2, 2), (1, 1, 1), (4, 4, 4)])
def test_preorder_is_a_depth_first_walk(widths):
  """Children appended anywhere, full nodes and the root included, keep rank and size right."""
  rng = np.random.default_rng(0)
  tree = tree_lib.new_tree(64, 1, jnp.zeros(2, jnp.uint32))
  for _ in range(8):
    count, node = rng.integers(1, widths[0] + 1), rng.integers(tree.num_nodes)
    blank = children_of_event({'children': []}, 0, {'max_depth': 99, 'step_len': 1})
    tree = jitted_add(tree, np.int32(node), blank._replace(
        count=np.int32(count), first_child=np.asarray(tree.num_children[node])))
  order = []
  parents = np.asarray(tree.parent)[:int(tree.num_nodes)]

  def walk(node):
    order.append(node)
    for child in np.flatnonzero(parents == node):
      walk(child)

  walk(0)
  assert np.argsort(np.asarray(tree.preorder)[:len(parents)]).tolist() == order
  for node in range(len(parents)):
    path = {node}
    while parents[min(path)] >= 0:
      path.add(int(parents[min(path)]))
    assert set(np.flatnonzero(tree_lib.on_path(tree, jnp.int32(node)))) == path
