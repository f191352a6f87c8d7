"""The search functions replay the recorded decisions of the released code (../shared/oracle)."""

from __future__ import annotations

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle_replay
import pytest

from ds_jax.search import tree as tree_lib
from ds_jax.search.engine.expansion import blank_children


@jax.jit
def jitted_add(tree, node, children):
  elder = tree_lib.elder_nodes(tree, node, children.first_child)
  return tree_lib.add_children(tree, node, children, num_elder=elder)


def test_every_record_is_reproduced(shared):
  families = collections.Counter()
  for family, name, difference in oracle_replay.replay(shared / 'oracle'):
    assert difference is None, f'{family} {name}: {difference}'
    families[family] += 1
  assert families['advantage'] == 16 and families['policy_loss'] == 24
  assert families['node_update'] == 24 and families['grading'] == 70
  assert families.total() == 54 + 24 + 16 + 24 + 70
  assert families['nan_entropy'] and families['crash_config']


def test_replay_names_the_first_difference(shared, tmp_path, capsys):
  line = (shared / 'oracle/traces.jsonl').open().readline()
  (tmp_path / 'traces.jsonl').write_text(line.replace('"how":"local"', '"how":"uct"'))
  (tmp_path / 'node_update.json').write_text('{"cases": []}')
  losses, advantages = (
    json.loads((shared / f'oracle/{name}.json').read_text())
    for name in ('policy_loss', 'advantage')
  )
  losses['cases'] = losses['cases'][:1]
  losses['cases'][0]['results']['seq-mean-token-sum']['grad'][0][1] += 1e-3
  advantages['cases'] = advantages['cases'][:1]
  advantages['cases'][0]['results']['sibling_mean'][0][0] += 1e-3
  (tmp_path / 'policy_loss.json').write_text(json.dumps(losses))
  (tmp_path / 'advantage.json').write_text(json.dumps(advantages))
  assert oracle_replay.main([str(tmp_path)]) == 1
  said = capsys.readouterr().out
  assert "how: expected 'uct', got 'local'" in said
  assert 'advantage 0: ' in said and 'sibling_mean of row 0' in said
  assert 'policy_loss 0 plain: ' in said and 'seq-mean-token-sum gradient of row 0' in said


@pytest.mark.parametrize('widths', [(3, 2, 2), (1, 1, 1), (4, 4, 4)])
def test_preorder_is_a_depth_first_walk(widths):
  """Children appended anywhere, full nodes and the root included, keep rank and size right."""
  rng = np.random.default_rng(0)
  tree = tree_lib.new_tree(64, 1, jnp.zeros(2, jnp.uint32))
  for _ in range(8):
    count, node = rng.integers(1, widths[0] + 1), rng.integers(tree.num_nodes)
    blank = blank_children((), 4)
    tree = jitted_add(
      tree,
      np.int32(node),
      blank._replace(count=np.int32(count), first_child=np.asarray(tree.nodes.num_children[node])),
    )
  order = []
  parents = np.asarray(tree.nodes.parent)[: int(tree.num_nodes)]

  def walk(node):
    order.append(node)
    for child in np.flatnonzero(parents == node):
      walk(child)

  walk(0)
  assert np.argsort(np.asarray(tree.nodes.preorder)[: len(parents)]).tolist() == order
  for node in range(len(parents)):
    path = {node}
    while parents[min(path)] >= 0:
      path.add(int(parents[min(path)]))
    assert set(np.flatnonzero(tree_lib.on_path(tree, jnp.int32(node)))) == path
