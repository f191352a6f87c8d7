"""Trees by inspect.tree_to_dict that nobody searched: as large as one wants, with any text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
VERDICTS = ('wrong', 'wrong', 'wrong', 'correct', 'no_answer', 'incomplete', 'timeout', 'error')


def made_row(
  num_nodes: int,
  *,
  width: int = 8,
  max_depth: int = 24,
  num_collected: int = 24,
  text: Callable[[random.Random], str] = lambda rng: f'step {rng.random()}\n' * 4,
) -> Row:
  """A line as `ds-jax search` writes it, of a tree that grew like one of the policy 'deepsearch'.

  Args:
    num_nodes: at most.
    width: children per expansion.
    max_depth: where paths end at the latest.
    num_collected: ends, at most.
    text: of a node.
  """
  rng = random.Random(num_nodes)
  nodes = [_node(0, None, 0, '')]
  frontier, current, how = [0], 0, 'root'
  expansions, collected = 0, []
  while len(nodes) + width <= num_nodes and frontier:
    expansions += 1
    frontier.remove(current)
    nodes[current]['chosen'].append({'iteration': expansions, 'how': how})
    children = []
    for _ in range(width):
      child = _node(len(nodes), current, nodes[current]['depth'] + 1, text(rng))
      nodes.append(child)
      children.append(child)
      if child['depth'] >= max_depth or rng.random() < 0.05 * child['depth']:
        _end(nodes, child, rng.choice(VERDICTS))
        if len(collected) < num_collected and rng.random() < 0.25:
          collected.append(child['id'])
          child['collected_rank'] = len(collected)
      else:
        frontier.append(child['id'])
    open_children = [child['id'] for child in children if not child['is_terminal']]
    is_over = len(open_children) < len(children)
    current = rng.choice(frontier[-60:] if is_over else open_children) if frontier else 0
    how = 'global' if is_over else 'local'
  return _row(nodes, collected, expansions)


def row_of_parents(parents: Sequence[int | None]) -> Row:
  """A line of a tree of this shape, in which nothing was chosen and nothing has ended."""
  nodes: list[dict[str, Any]] = []
  for node, parent in enumerate(parents):
    depth = 0 if parent is None else nodes[parent]['depth'] + 1
    nodes.append(_node(node, parent, depth, f'text {node}' if node else ''))
  return _row(nodes, [], 0)


def _row(nodes: list[dict[str, Any]], collected: list[int], expansions: int) -> Row:
  for node in nodes:
    node['q'] = node['value_sum'] / node['visits'] if node['visits'] else None
  is_solved = nodes[0]['num_correct'] > 0
  return {
    'question': 'What is it?',
    'gold': '7',
    'selected': {'answer': '7', 'is_correct': is_solved},
    'table': {'time_per_tree': 3.25},
    'tree': {
      'problem_id': 'made/1',
      'sample': 0,
      'is_solved': is_solved,
      'statistics': {'expansions': expansions, 'nodes': len(nodes)},
      'collected': collected,
      'nodes': nodes,
    },
  }


def _node(node: int, parent: int | None, depth: int, text: str) -> dict[str, Any]:
  return {
    'id': node,
    'parent': parent,
    'depth': depth,
    'text': text,
    'num_tokens': len(text.split()),
    'visits': 0,
    'value_sum': 0.0,
    'q': None,
    'entropy': 0.25 if text else None,
    'num_ends': 0,
    'num_correct': 0,
    'is_terminal': False,
    'reward': None,
    'verdict': None,
    'collected_rank': None,
    'chosen': [],
  }


def _end(nodes: list[dict[str, Any]], end: dict[str, Any], verdict: str) -> None:
  """Ends a path, and credits its nodes."""
  reward = 1.0 if verdict == 'correct' else -1.0
  end.update(is_terminal=True, verdict=verdict, reward=reward)
  node: dict[str, Any] | None = end
  while node is not None:
    node['visits'] += 1
    node['value_sum'] += reward * (node['depth'] + 1) / (end['depth'] + 1)
    node['num_ends'] += 1
    node['num_correct'] += verdict == 'correct'
    node = None if node['parent'] is None else nodes[node['parent']]
