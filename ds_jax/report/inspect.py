"""A finished tree as indented text, and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.report.text import number, or_dash, shorten, visible
from ds_jax.types import FinishedTree

Decode = Callable[[np.ndarray], str]  # [n] int32 tokens of a segment -> their text


def format_tree(tree: FinishedTree, decode: Decode, *, max_text: int = 60) -> str:
  """Returns the tree with one line per node, depth first, children in order of creation.

  Columns: the node's index and text; visits; q = value_sum / visits; H, the mean entropy of its
  tokens in nats; for an end its verdict, reward and place among the collected; and when the
  search chose the node (1 is the first choice), and how.

  Args:
    tree: the finished tree.
    decode: text of a segment's tokens. The text may be hostile: unprintable characters are shown
      as escapes, so a node never takes more than its line.
    max_text: characters of a segment that are shown.

  Returns:
    Lines joined by newlines, without one at the end.
  """
  nodes = tree_to_dict(tree, decode)['nodes']
  heads = {}
  for i, branch in _walk(tree):
    heads[i] = branch + _head(nodes[i], max_text)
  width = max(map(len, heads.values()))
  lines = [_title(tree), f'{"node":{width}}  {"visits":>6}  {"q":>6}  {"H":>5}']
  for i, head in heads.items():
    line = f'{head:{width}}  {_numbers(nodes[i])}  {_fate(nodes[i])}'
    lines.append(line.rstrip())
  return '\n'.join(lines)


def format_table(table: Mapping[str, Mapping[str, float] | None]) -> str:
  """Returns lines with name, mean and deviation over trees; '–' where no tree has a number."""
  width = max(map(len, table))
  lines = [f'{"over trees":{width}}  {"mean":>10}  {"deviation":>10}']
  for name, entry in table.items():
    figures = entry or {}
    mean = or_dash(figures.get('mean'), number)
    deviation = or_dash(figures.get('deviation'), number)
    lines.append(f'{name.replace("_", " "):{width}}  {mean:>10}  {deviation:>10}')
  return '\n'.join(lines)


def format_split_depths(
  name: str, pairs: Sequence[int], intervals: Mapping[str, Sequence[Sequence[float]]]
) -> str:
  """Returns a line per depth where pairs of ends split: U/x with its interval, and the pairs.

  Above 1 a fork at that depth beats a new rollout; '–' where it cannot be told.

  Args:
    name: of the problems.
    pairs: by depth.
    intervals: by what x is measured in: ratios, lower and upper bounds, each by depth.
  """
  lines = [f'U/x by depth, {name}: {sum(pairs):,} pairs of ends']
  for depth, count in enumerate(pairs):
    cells = []
    for measure, interval in intervals.items():
      ratio, low, high = (f'{v[depth]:.2f}' if math.isfinite(v[depth]) else '–' for v in interval)
      cells.append(f'in {measure} {ratio} [{low}, {high}]')
    if count and depth:
      lines.append(f'  depth {depth}: {", ".join(cells)} ({count:,} pairs)')
  return '\n'.join(lines)


def tree_to_dict(tree: FinishedTree, decode: Decode) -> dict[str, Any]:
  """Returns the tree as plain values that JSON can write; numbers that are not finite are None.

  Each entry of 'nodes' has: id, parent (None for the root), depth, text (as decoded), num_tokens,
  visits, value_sum, q, entropy (mean, nats), num_ends, num_correct, is_terminal, reward and verdict
  (None unless terminal), collected_rank (from 1, or None), chosen ([{iteration, how}], from 1).
  """
  nodes = [_node(tree, i, decode) for i in range(len(tree.parent))]
  for rank, node in enumerate(tree.collected.tolist(), start=1):
    nodes[node]['collected_rank'] = rank
  for iteration, (node, how) in enumerate(tree.selections, start=1):
    nodes[node]['chosen'].append({'iteration': iteration, 'how': how})
  return {
    'problem_id': tree.problem_id,
    'sample': int(tree.sample),
    'is_solved': tree.is_solved,
    'statistics': {name: _finite(value) for name, value in tree.statistics.items()},
    'collected': tree.collected.tolist(),
    'nodes': nodes,
  }


def _node(tree: FinishedTree, i: int, decode: Decode) -> dict[str, Any]:
  """Returns the entry of a node that was neither collected nor chosen."""
  parent = int(tree.parent[i])
  tokens = tree.tokens[tree.node_slice(i)]
  entropies = tree.entropies[tree.node_slice(i)]
  visits = int(tree.visit_count[i])
  is_terminal = bool(tree.is_terminal[i])
  return {
    'id': i,
    'parent': parent if parent >= 0 else None,
    'depth': int(tree.depth[i]),
    'text': decode(tokens) if len(tokens) else '',
    'num_tokens': len(tokens),
    'visits': visits,
    'value_sum': _finite(tree.value_sum[i]),
    'q': _finite(tree.value_sum[i] / visits) if visits else None,
    'entropy': _finite(entropies.mean()) if len(entropies) else None,
    'num_ends': int(tree.num_ends[i]),
    'num_correct': int(tree.num_correct[i]),
    'is_terminal': is_terminal,
    'reward': _finite(tree.reward[i]) if is_terminal else None,
    'verdict': tree.verdict[i],
    'collected_rank': None,
    'chosen': [],
  }


def _finite(value: Any) -> float | int | None:
  """Returns a number of numpy's as a plain one; None if it is not finite."""
  value = np.asarray(value).item()
  return value if math.isfinite(value) else None


def _walk(tree: FinishedTree) -> Iterator[tuple[int, str]]:
  """Yields every node depth first with its branch drawing. No recursion: trees may be deep."""
  children = [[] for _ in tree.parent]
  for node, parent in enumerate(tree.parent.tolist()):
    if parent >= 0:
      children[parent].append(node)
  stack = [(0, '', '')]  # node, the drawing before it, the drawing that its children start with
  while stack:
    node, branch, indent = stack.pop()
    yield node, branch
    # The last child is pushed first and popped last.
    for child in reversed(children[node]):
      if child == children[node][-1]:
        stack.append((child, indent + '└─ ', indent + '   '))
      else:
        stack.append((child, indent + '├─ ', indent + '│  '))


def _title(tree: FinishedTree) -> str:
  """Returns two lines: which tree and whether it is solved, then its counters."""
  counts = [f'collected {len(tree.collected)}']
  for name, value in tree.statistics.items():
    counts.append(f'{visible(name).replace("_", " ")} {number(np.asarray(value).item())}')
  state = f'solved, {int(tree.num_correct[0])} correct' if tree.is_solved else 'not solved'
  title = f'problem {visible(tree.problem_id)}, tree {tree.sample}: {state}'
  return f'{title}\n{" · ".join(counts)}'


def _head(node: dict[str, Any], max_text: int) -> str:
  if node['parent'] is None:
    return f'{node["id"]} root'
  return f'{node["id"]} {shorten(visible(node["text"]), max_text)}'


def _numbers(node: dict[str, Any]) -> str:
  q = or_dash(node['q'], '{:+.2f}'.format)
  entropy = or_dash(node['entropy'], '{:.2f}'.format)
  return f'{node["visits"]:6d}  {q:>6}  {entropy:>5}'


def _fate(node: dict[str, Any]) -> str:
  """Returns verdict, reward, place among the collected, and when and how a node was chosen."""
  parts = []
  if node['verdict'] is not None:
    reward = '' if node['reward'] is None else f' {node["reward"]:+.2f}'
    parts.append(node['verdict'] + reward)
  if node['collected_rank'] is not None:
    parts.append(f'collected #{node["collected_rank"]}')
  if node['chosen']:
    choices = [f'{choice["iteration"]} ({choice["how"]})' for choice in node['chosen']]
    parts.append('chosen ' + ', '.join(choices))
  return ', '.join(parts)
