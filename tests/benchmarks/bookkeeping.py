"""Bookkeeping of a search: backup, selection and frontier of many large trees at once.

  python tests/benchmarks/bookkeeping.py [--trees=64] [--nodes=16384] [--repeats=20]

In one run: `advance` (one expansion taken in, its chosen end backed up, the whole frontier scored)
over B trees of N nodes on the device, against a tree of Python objects on one tree: the same rules,
and the same nodes scored, those of the frontier, found as in the released code by a walk over all.
Prints the time per tree and step of both, their ratio, and the share of `advance` in an expansion
at paper scale. Times are processor time: pin it to one core (taskset -c 0), so that both use one,
and the neighbours on the machine do not count. On another device than a CPU `advance` is timed by
the clock. The time of that is its least possible one: the weights of a 1.5B decoder
and the caches of all slots are read once per token at the given bandwidth. The share means
something only where `advance` was measured on a device of that bandwidth.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.search.engine.expansion import blank_children
from ds_jax.search.engine.round import make_advance
from ds_jax.search.policies import policy_of
from ds_jax.search.policies.base import no_forks
from ds_jax.search.policies.serial import rescore
from ds_jax.search.settings import settings_from
from ds_jax.search.tree import new_tree

WIDTH, DEPTH = 8, 64
CONFIG = SearchConfig(
  width=WIDTH,
  width_decay=0,
  max_depth=DEPTH,
  segment_length=256,
  num_trajectories=10**6,
  max_expansions=10**6,
  lambda_uct=1.0,
  lambda3=0.01,
  incomplete_score=-0.5,
)
POLICY, SETTINGS = policy_of(CONFIG), settings_from(CONFIG)


class Node:
  """A node with pointers to its parent and children."""

  __slots__ = (
    'index',
    'parent',
    'children',
    'depth',
    'visits',
    'value',
    'is_terminal',
    'reward',
    'uncertainty',
    'is_collected',
  )

  def __init__(self, index, parent, depth, is_terminal=False, reward=0.0, uncertainty=0.0):
    self.index, self.parent, self.children, self.depth = index, parent, [], depth
    self.visits, self.value, self.is_collected = 0, 0.0, False
    self.is_terminal, self.reward, self.uncertainty = is_terminal, reward, uncertainty

  def mean(self):
    return self.value / self.visits if self.visits else 0.0


def step_pointers(root, current, num_nodes, children, config):
  """One step of the search on Python objects; returns the node to expand next."""
  for i, known in enumerate(children):
    current.children.append(Node(num_nodes + i, current, current.depth + 1, *known))
  ends = [c for c in current.children if c.is_terminal]
  for child in current.children:
    child.visits += not child.is_terminal
  if not ends:
    score = lambda c: (
      c.mean()
      + config.lambda_uct
      * (math.sqrt(math.log(current.visits) / c.visits) if current.visits and c.visits else 0.0)
    )
    return max(current.children, key=score)
  pool = [e for e in ends if e.reward == 1] or [e for e in ends if e.reward == -1] or ends
  end = min(pool, key=lambda e: e.uncertainty)
  end.is_collected, node = True, end
  while node is not None:
    credit = max((node.depth + 1) / (end.depth + 1), config.backup_threshold) * end.reward
    node.visits += 1
    if node.value * end.reward >= 0:
      node.value += credit
    elif end.reward > 0:
      node.value = credit
    node = node.parent
  best, best_score, stack = None, -math.inf, [root]
  while stack:
    node = stack.pop()
    stack.extend(reversed(node.children))
    if node.parent is None or node.is_terminal or len(node.children) >= config.width:
      continue
    score = config.lambda1 * math.tanh(node.parent.mean()) + config.lambda3 * math.sqrt(
      node.depth / config.max_depth
    )
    if score > best_score:
      best, best_score = node, score
  return best


def grow_shape(num_nodes, rng):
  """Parents and ends `[N]` of a tree of the paper's shape: full expansions, one at a time."""
  parent, depth, is_end, open_nodes = [-1], [0], [False], [0]
  while len(parent) + WIDTH <= num_nodes:
    node = open_nodes.pop(int(rng.integers(max(0, len(open_nodes) - 6), len(open_nodes))))
    ends = (rng.random(WIDTH) < 0.2) | (depth[node] + 1 == DEPTH)
    if not open_nodes:
      ends[0] = False
    for end in ends.tolist():
      if not end:
        open_nodes.append(len(parent))
      parent.append(node)
      depth.append(depth[node] + 1)
      is_end.append(end)
  return np.array(parent), np.array(depth), np.array(is_end), open_nodes[-1]


def pointer_tree(parent, depth, is_end, values, visits, current):
  nodes = [Node(0, None, 0)]
  nodes[0].value, nodes[0].visits = float(values[0]), int(visits[0])
  for i in range(1, len(parent)):
    nodes.append(Node(i, nodes[parent[i]], int(depth[i]), bool(is_end[i]), -1.0, 1.0))
    nodes[parent[i]].children.append(nodes[-1])
    nodes[-1].value, nodes[-1].visits = float(values[i]), int(visits[i])
  return nodes[0], nodes[current]


def device_trees(shapes, num_nodes, mesh):
  """The same trees as arrays, one expansion short of their capacity."""
  score_all = jax.jit(lambda tree: rescore(tree, jnp.arange(num_nodes), SETTINGS))
  rows = []
  for parent, depth, is_end, values, visits, current in shapes:
    count = len(parent)
    size = np.ones(count, np.int32)
    for i in range(count - 1, 0, -1):
      size[parent[i]] += size[i]
    preorder, seen = np.zeros(count, np.int32), np.zeros(count, np.int32)
    for i in range(1, count):
      preorder[i] = preorder[parent[i]] + 1 + seen[parent[i]]
      seen[parent[i]] += size[i]
    children = np.bincount(parent[1:], minlength=count)
    oldest_child = np.zeros(count, np.int32)
    oldest_child[parent[:0:-1]] = np.arange(count - 1, 0, -1)
    pad = functools.partial(_pad, size=num_nodes)
    root = jnp.zeros(2, jnp.uint32)
    tree = new_tree(num_nodes, 64, root, max_depth=DEPTH, max_width=WIDTH)
    nodes = tree.nodes.replace(
      parent=pad(parent, np.int32),
      depth=pad(depth, np.int32),
      preorder=pad(preorder, np.int32),
      subtree_size=pad(size, np.int32),
      num_children=pad(children, np.int32),
      oldest_child=pad(oldest_child, np.int32),
      is_terminal=pad(is_end, bool),
      is_valid=pad(is_end, bool),
      reward=pad(-1.0 * is_end, float),
      is_collected=pad(is_end, bool),
      value_sum=pad(values, np.float32),
      visit_count=pad(visits, np.int32),
    )
    tree = POLICY.start(tree, SETTINGS)
    tree = tree.replace(
      nodes=nodes,
      policy=tree.policy.replace(current=np.int32(current)),
      num_nodes=np.int32(count),
      num_in_flight=np.int32(WIDTH),
    )
    rows.append(score_all(jax.tree.map(jnp.asarray, tree)))
  batch = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(rows))
  return lambda: jax.device_put(batch, sharding.batch_sharding(mesh))


def _pad(values, dtype, size):
  return np.pad(np.asarray(values, dtype), (0, size - len(values)))


def paper_expansion_seconds(num_slots, bandwidth, length=8192):
  """Least time of one expansion: T tokens, each of which reads the weights and all path caches."""
  weights = 1.54e9 * 2  # bytes, bfloat16
  cache = 28_672 * length * num_slots  # bytes: K and V of 28 layers with 2 heads of width 128
  return 256 * (weights + cache) / bandwidth


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--trees', type=int, default=64)
  parser.add_argument('--nodes', type=int, default=16_384)
  parser.add_argument('--repeats', type=int, default=20)
  parser.add_argument('--bandwidth', type=float, default=4.8e12, help='bytes/s; H200: 4.8e12')
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  shapes = []
  for _ in range(args.trees):
    parent, depth, is_end, current = grow_shape(args.nodes - WIDTH, rng)
    visits = rng.integers(0, 30, len(parent))
    shapes.append((parent, depth, is_end, rng.normal(size=len(parent)), visits, current))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  advance, make = make_advance(mesh, POLICY), device_trees(shapes, args.nodes, mesh)
  shape = (args.trees, 1)
  ended = np.zeros((*shape, WIDTH), bool)
  ended[..., 2:4] = True
  children = blank_children(shape, WIDTH)._replace(
    count=np.full(shape, WIDTH, np.int32),
    is_ended=ended,
    is_terminal=ended,
    is_valid=ended,
    num_tokens=np.full((*shape, WIDTH), 256, np.int32),
    logprob_sum=np.full((*shape, WIDTH), -128, np.float32),
    reward=np.where(ended, -1, 0).astype(np.float32),
  )
  arguments = (
    np.zeros(args.trees, bool),
    np.zeros((args.trees, 2), np.uint32),
    np.array([[s[-1]] for s in shapes], np.int32),
    children,
    SETTINGS,
    no_forks(DEPTH),
  )
  ours, theirs = [], []
  now = time.process_time if jax.default_backend() == 'cpu' else time.perf_counter
  for i in range(args.repeats + 1):
    trees = jax.block_until_ready(make())
    start = now()
    trees, allocation, _, _ = jax.block_until_ready(advance(trees, *arguments))
    ours.append(now() - start)
    chosen = np.asarray(allocation.node[:, 0])
    b = i % args.trees
    root, current = pointer_tree(*shapes[b])
    start = time.process_time()
    node = step_pointers(
      root, current, len(shapes[b][0]), [(bool(e), -1.0 * e, 0.5) for e in ended[0, 0]], CONFIG
    )
    theirs.append(time.process_time() - start)
    assert node.index == chosen[b], (node.index, chosen[b])
  step, pointer = statistics.median(ours[1:]), statistics.median(theirs[1:])
  expansion = paper_expansion_seconds(args.trees, args.bandwidth)
  print(
    json.dumps(
      {
        'device': str(jax.devices()[0]),
        'trees': args.trees,
        'nodes': args.nodes,
        'milliseconds_per_step': round(1e3 * step, 3),
        'milliseconds_per_tree': round(1e3 * step / args.trees, 4),
        'pointer_milliseconds_per_tree': round(1e3 * pointer, 3),
        'times_faster_per_tree': round(pointer * args.trees / step, 1),
        'least_paper_expansion_seconds': round(expansion, 3),
        'share_of_paper_expansion': round(step / expansion, 4),
      }
    )
  )


if __name__ == '__main__':
  main()
