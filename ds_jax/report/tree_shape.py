"""The shape of a tree that is shown: what stands below what, when it was chosen, what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Node = Mapping[str, Any]  # an entry of 'nodes', see inspect.tree_to_dict

TEXT_BUDGET = 1_000_000  # characters of all nodes of a tree
MAX_TEXT, MIN_TEXT = 4_000, 200  # characters of one node, as far as the budget goes
MAX_OPEN_ROWS = 120  # that stand open at first


class Choice(NamedTuple):
  """That the search gave a node children."""

  when: int  # from 1
  node: int
  how: str


class TreeView(NamedTuple):
  """A tree with what its rows need to know of each other."""

  nodes: Sequence[Node]
  children: Sequence[Sequence[int]]  # of each node
  choices: Sequence[Choice]  # in order
  on_collected: frozenset[int]  # nodes on paths to collected ends
  is_open: frozenset[int]  # nodes that are not folded at first
  max_text: int  # characters of a node that are shown
  name: str  # anchors begin with it


def tree_view(nodes: Sequence[Node], *, name: str) -> TreeView:
  """Returns what is to be shown of the nodes of a tree, the root first."""
  children: list[list[int]] = [[] for _ in nodes]
  for node in nodes[1:]:
    children[node['parent']].append(node['id'])
  choices = []
  for node in nodes:
    choices += [Choice(c['iteration'], node['id'], c['how']) for c in node['chosen']]
  collected = [node for node in nodes if node['collected_rank'] is not None]
  collected.sort(key=lambda node: (not node['num_correct'], node['collected_rank']))
  paths = [_path(nodes, node['id']) for node in collected]  # of right ends first
  return TreeView(
    nodes=nodes,
    children=children,
    choices=sorted(choices),
    on_collected=frozenset(node for path in paths for node in path),
    is_open=_open_nodes(children, paths or [_path(nodes, _best_end(nodes))]),
    max_text=min(MAX_TEXT, max(MIN_TEXT, TEXT_BUDGET // len(nodes))),
    name=name,
  )


def _path(nodes: Sequence[Node], node: int) -> list[int]:
  path = [node]
  while nodes[path[-1]]['parent'] is not None:
    path.append(nodes[path[-1]]['parent'])
  return path


def _best_end(nodes: Sequence[Node]) -> int:
  """The end of the highest q, where none is collected; the root, where there is none."""
  ends = [node['id'] for node in nodes if node['is_terminal']]
  return max(ends, key=lambda node: nodes[node]['q'] or 0.0, default=0)


def _open_nodes(
  children: Sequence[Sequence[int]], paths: Sequence[Sequence[int]]
) -> frozenset[int]:
  """The nodes of the first paths, as long as not too many rows show; of one path in any case."""
  opened: set[int] = set()
  num_rows = 1
  for path in paths:
    new = [node for node in path if node not in opened]
    num_rows += sum(len(children[node]) for node in new)
    if opened and num_rows > MAX_OPEN_ROWS:
      break
    opened.update(new)
  return frozenset(opened)
