"""The search tree as a struct of arrays: allocated once, node order is creation order.

Every function is written for one tree; use jax.vmap for a batch. Nodes also carry their rank in
depth-first pre-order, which decides ties, and the size of their subtree, so that "is an ancestor
of" is an interval test. What changes in a step are a few rows: the newest nodes, and the path above
them, which is found by climbing and written by index, so that trees stay where they are in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ds_jax.checks import check_rank


@struct.dataclass
class Tree:
  """One tree of capacity N; a batch of trees has a leading axis on every field."""

  ROOT: ClassVar[int] = 0
  NO_PARENT: ClassVar[int] = -1

  parent: jax.Array  # [N] int32
  depth: jax.Array  # [N] int32, root 0
  child_index: jax.Array  # [N] int32, place among the siblings
  num_children: jax.Array  # [N] int32
  first_slot: jax.Array  # [N] int32, of the child that came first; those that came with it follow
  preorder: jax.Array  # [N] int32, rank in depth-first pre-order, siblings by age
  subtree_size: jax.Array  # [N] int32, the node itself included
  visit_count: jax.Array  # [N] int32
  value_sum: jax.Array  # [N] float32, the released q: a running sum under the backup rule
  score: jax.Array  # [N] float32, -inf where none; kept by the serial policies (frontier.py)
  num_ends: jax.Array  # [N] int32, verified ends at or below
  num_correct: jax.Array  # [N] int32, correct ones of them
  num_tokens: jax.Array  # [N] int32, of the node's segment, end token included
  logprob_sum: jax.Array  # [N] float32, over the segment
  entropy_sum: jax.Array  # [N] float32, nats, over the segment
  path_tokens: jax.Array  # [N] int32, from the first response token to the node
  path_logprob: jax.Array  # [N] float32, over the same tokens
  trailing_tokens: jax.Array  # [N] int32, end tokens in a row at the end of the path
  trailing_logprob: jax.Array  # [N] float32, over those
  is_terminal: jax.Array  # [N] bool
  is_valid: jax.Array  # [N] bool, False for ends whose verification failed through our fault
  is_collected: jax.Array  # [N] bool
  reward: jax.Array  # [N] float32, of terminals
  key: jax.Array  # [N, 2] uint32, key data; key(child j) = fold_in(key(node), j)
  num_asked: jax.Array  # [N] int32, children asked for, those under way too; by policies in waves
  children_due: jax.Array  # [N] int32, to be asked for, whatever the outcomes were
  forks_due: jax.Array  # [N] int32, to be asked for because of an outcome
  is_rollout: jax.Array  # [N] bool, first line below a child of the root, not a fork
  num_nodes: jax.Array  # [] int32
  num_fresh: jax.Array  # [] int32, newest nodes, not yet seen by the policy
  num_in_flight: jax.Array  # [] int32, children asked for that are not here yet
  num_planned: jax.Array  # [] int32, children of the root whose forks have been decided on
  num_expansions: jax.Array  # [] int32
  num_generated: jax.Array  # [] int32, tokens sampled so far
  current: jax.Array  # [] int32, the node that gets children next
  how: jax.Array  # [] int32, how it was chosen (a How)
  collected: jax.Array  # [K] int32, ends in order of collection, -1 beyond
  num_collected: jax.Array  # [] int32
  is_exhausted: jax.Array  # [] bool, no node can get children any more, or the budget is spent
  is_done: jax.Array  # [] bool
  max_depth: int = struct.field(pytree_node=False)  # D, room for paths
  max_width: int = struct.field(pytree_node=False)  # W, room for children that come at once

  @property
  def capacity(self) -> int:
    return self.parent.shape[-1]


ARRAYS = tuple(f.name for f in dataclasses.fields(Tree) if f.metadata.get('pytree_node', True))
NODE_ARRAYS = ARRAYS[: ARRAYS.index('num_nodes')]  # those with an entry per node come first


class Children(NamedTuple):
  """What the host knows of W new siblings after decoding and verification."""

  count: jax.Array  # [] int32, how many of the W are real
  first_child: jax.Array  # [] int32, place of the first among its siblings
  num_tokens: jax.Array  # [W] int32, end token included
  logprob_sum: jax.Array  # [W] float32
  entropy_sum: jax.Array  # [W] float32, nats
  end_logprob: jax.Array  # [W] float32, of the end token; 0 without one
  is_ended: jax.Array  # [W] bool, the last token is an end token
  is_terminal: jax.Array  # [W] bool
  is_valid: jax.Array  # [W] bool
  is_correct: jax.Array  # [W] bool
  reward: jax.Array  # [W] float32


def new_tree(
  capacity: int,
  max_collected: int,
  key: jax.Array,
  max_depth: int | None = None,
  max_width: int | None = None,
) -> Tree:
  """A tree of a root.

  Args:
    capacity: N, node slots.
    max_collected: K.
    key: `[2]` uint32, key data of the root.
    max_depth: D, of the deepest node; None: as deep as there are slots.
    max_width: W, most children that come at once; None: as many as there are slots.
  """
  ints, floats = jnp.zeros(capacity, jnp.int32), jnp.zeros(capacity, jnp.float32)
  no, zero = jnp.zeros(capacity, bool), jnp.int32(0)
  return Tree(
    parent=jnp.full(capacity, Tree.NO_PARENT),
    depth=ints,
    child_index=ints,
    num_children=ints,
    first_slot=ints,
    preorder=ints,
    subtree_size=ints.at[Tree.ROOT].set(1),
    visit_count=ints,
    value_sum=floats,
    score=jnp.full(capacity, -jnp.inf),
    num_ends=ints,
    num_correct=ints,
    num_tokens=ints,
    logprob_sum=floats,
    entropy_sum=floats,
    path_tokens=ints,
    path_logprob=floats,
    trailing_tokens=ints,
    trailing_logprob=floats,
    is_terminal=no,
    is_valid=no,
    is_collected=no,
    reward=floats,
    key=jnp.zeros((capacity, 2), jnp.uint32).at[Tree.ROOT].set(key),
    num_asked=ints,
    children_due=ints,
    forks_due=ints,
    is_rollout=no,
    num_nodes=jnp.int32(1),
    num_fresh=zero,
    num_in_flight=zero,
    num_planned=zero,
    num_expansions=zero,
    num_generated=zero,
    current=zero,
    how=zero,
    collected=jnp.full(max_collected, -1),
    num_collected=zero,
    is_exhausted=jnp.bool_(False),
    is_done=jnp.bool_(False),
    max_depth=capacity - 1 if max_depth is None else max_depth,
    max_width=capacity if max_width is None else max_width,
  )


def restart(tree: Tree, is_new: jax.Array, blank: Tree) -> Tree:
  """Starts anew where `is_new`: slots beyond the root are left as they are, unused.

  Args:
    tree: _unbatched_ tree; nothing is due in it.
    is_new: `[]` bool.
    blank: a tree of capacity 1.
  """

  def field(name: str) -> jax.Array:
    old, new = getattr(tree, name), getattr(blank, name)
    if old.ndim == 0 or name == 'collected':
      return jnp.where(is_new, new, old)
    return old.at[Tree.ROOT].set(jnp.where(is_new, new[Tree.ROOT], old[Tree.ROOT]))

  return tree.replace(**{name: field(name) for name in ARRAYS})


def choose(condition: jax.Array, a: Tree, b: Tree) -> Tree:
  """`a` where the condition holds, else `b`; fields that are the same array cost nothing."""
  return jax.tree.map(lambda x, y: x if x is y else jnp.where(condition, x, y), a, b)


def while_changing(
  names: Sequence[str],
  condition: Callable[[Tree], jax.Array],
  body: Callable[[Tree], Tree],
  tree: Tree,
) -> Tree:
  """jax.lax.while_loop over a tree of which only the named fields change: only they are carried.

  The barrier keeps what the body computes of other fields inside it: most often the loop does not
  turn at all.
  """
  pick = lambda tree: {name: getattr(tree, name) for name in names}
  carried = jax.lax.while_loop(
    lambda fields: condition(tree.replace(**fields)),
    lambda fields: pick(body(jax.lax.optimization_barrier(tree.replace(**fields)))),
    pick(tree),
  )
  return tree.replace(**carried)


def first_lowest(values: jax.Array) -> jax.Array:
  """Index of the lowest of `[N]` numbers, the first of equals; none may be NaN. `[]` int32.

  What jnp.argmin gives, by two plain reductions: XLA's argmin is several times slower on CPUs.
  """
  index = jnp.arange(values.shape[0], dtype=jnp.int32)
  return jnp.where(values == values.min(), index, values.shape[0] - 1).min()


def rows(tree: Tree, nodes: jax.Array) -> Tree:
  """The tree with the rows of `nodes` `[C]` int32 alone in its per-node arrays: for what is
  computed node by node. Compiled, only the rows that are used are read."""
  return tree.replace(**{name: getattr(tree, name)[nodes] for name in NODE_ARRAYS})


def is_used(tree: Tree) -> jax.Array:
  """`[N]` bool: which slots hold nodes."""
  return jnp.arange(tree.capacity) < tree.num_nodes


def on_path(tree: Tree, node: jax.Array) -> jax.Array:
  """`[N]` bool: the nodes from the root to `node`, both included."""
  check_rank('node', node, 0)
  rank = tree.preorder[node]
  return is_used(tree) & (tree.preorder <= rank) & (rank < tree.preorder + tree.subtree_size)


def path_to(tree: Tree, node: jax.Array) -> jax.Array:
  """`node`, its parent and so on up to the root, then indices beyond the capacity, of which writes
  are dropped; `[D + 1]` int32."""

  def climb(node: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
    is_below = (node != Tree.ROOT) & (node < tree.capacity)
    return jnp.where(is_below, tree.parent[node], tree.capacity), node

  return jax.lax.scan(climb, node.astype(jnp.int32), length=tree.max_depth + 1)[1]


def elder_nodes(tree: Tree, node: jax.Array, child_index: jax.Array) -> jax.Array:
  """Nodes at and below those children of `node` whose place is before `child_index`, `[]` int32."""
  elder = children_of(tree, node) & (tree.child_index < child_index)
  return jnp.where(elder, tree.subtree_size, 0).sum()


def add_children(
  tree: Tree, node: jax.Array, children: Children, num_elder: jax.Array | int
) -> Tree:
  """Appends up to W children to `node`, which may be any node and may have children already.

  Siblings may come in any order: their rank in pre-order follows from `first_child`, not from
  when they came.

  Args:
    tree: _unbatched_ tree with room for W more nodes.
    node: `[]` int32.
    children: what is known of them, terminal values included. A count of 0 changes nothing.
    num_elder: `[]` int32, see `elder_nodes`; 0 where all siblings come at once.

  Returns:
    The tree; ends that are verified are counted along the path to the root.
  """
  width = children.num_tokens.shape[0]
  count = children.count
  index = jnp.arange(width)
  is_new = index < count
  slot = jnp.where(is_new, tree.num_nodes + index, tree.capacity)  # beyond: dropped
  put = lambda array, value: array.at[slot].set(value, mode='drop')

  # Climbed after the writing: reading an array before it is written costs a copy of it.
  parent = put(tree.parent, node)
  num_children = put(tree.num_children.at[node].add(count), 0)
  path = path_to(tree.replace(parent=parent), node)
  add_above = lambda array, value: array.at[path].add(value, mode='drop')
  rank = tree.preorder[node] + 1 + num_elder
  preorder = tree.preorder + jnp.where(is_used(tree) & (tree.preorder >= rank), count, 0)
  child_index = children.first_child + index
  parent_key = jax.random.wrap_key_data(tree.key[node])
  keys = jax.vmap(lambda j: jax.random.key_data(jax.random.fold_in(parent_key, j)))(child_index)

  is_lone_end = children.is_ended & (children.num_tokens == 1)
  carried = lambda value: jnp.where(is_lone_end, value[node], 0)
  is_end = is_new & children.is_terminal & children.is_valid
  is_correct = is_end & children.is_correct
  return tree.replace(
    parent=parent,
    depth=put(tree.depth, tree.depth[node] + 1),
    child_index=put(tree.child_index, child_index),
    num_children=num_children,
    first_slot=put(
      tree.first_slot.at[jnp.where(num_children[node] == count, node, tree.capacity)].set(
        tree.num_nodes, mode='drop'
      ),
      0,
    ),
    preorder=put(preorder, rank + index),
    subtree_size=put(add_above(tree.subtree_size, count), 1),
    visit_count=put(tree.visit_count, 0),
    value_sum=put(tree.value_sum, 0.0),
    score=put(tree.score, -jnp.inf),
    num_ends=put(add_above(tree.num_ends, is_end.sum()), is_end.astype(jnp.int32)),
    num_correct=put(add_above(tree.num_correct, is_correct.sum()), is_correct.astype(jnp.int32)),
    num_tokens=put(tree.num_tokens, children.num_tokens),
    logprob_sum=put(tree.logprob_sum, children.logprob_sum),
    entropy_sum=put(tree.entropy_sum, children.entropy_sum),
    path_tokens=put(tree.path_tokens, tree.path_tokens[node] + children.num_tokens),
    path_logprob=put(tree.path_logprob, tree.path_logprob[node] + children.logprob_sum),
    trailing_tokens=put(tree.trailing_tokens, children.is_ended + carried(tree.trailing_tokens)),
    trailing_logprob=put(
      tree.trailing_logprob, children.end_logprob + carried(tree.trailing_logprob)
    ),
    is_terminal=put(tree.is_terminal, children.is_terminal),
    is_valid=put(tree.is_valid, children.is_valid),
    is_collected=put(tree.is_collected, False),
    reward=put(tree.reward, children.reward),
    key=put(tree.key, keys),
    num_asked=put(tree.num_asked, 0),
    children_due=put(tree.children_due, 0),
    forks_due=put(tree.forks_due, 0),
    is_rollout=put(
      tree.is_rollout, (node == Tree.ROOT) | (tree.is_rollout[node] & (child_index == 0))
    ),
    num_nodes=tree.num_nodes + count,
    num_fresh=tree.num_fresh + count,
    num_in_flight=tree.num_in_flight - count,
    num_expansions=tree.num_expansions + (count > 0),
    num_generated=tree.num_generated + jnp.where(is_new, children.num_tokens, 0).sum(),
  )


def children_of(tree: Tree, node: jax.Array) -> jax.Array:
  """`[N]` bool."""
  return is_used(tree) & (tree.parent == node)


def child_rows(tree: Tree, node: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Slots of the children of a node whose children came all at once, as the serial policies ask.

  Returns:
    `[W]` int32 and `[W]` bool, which of them are children.
  """
  index = jnp.arange(tree.max_width, dtype=jnp.int32)
  slots = jnp.minimum(tree.first_slot[node] + index, tree.capacity - 1)
  return slots, index < tree.num_children[node]


def fresh_nodes(tree: Tree) -> jax.Array:
  """`[N]` bool: the children of the latest expansion."""
  index = jnp.arange(tree.capacity)
  return (index >= tree.num_nodes - tree.num_fresh) & (index < tree.num_nodes)


def mean_value(tree: Tree) -> jax.Array:
  """Q = value_sum / visit_count, 0 where nothing was visited; `[N]` float32."""
  return jnp.where(tree.visit_count > 0, tree.value_sum / jnp.maximum(tree.visit_count, 1), 0.0)


def uncertainty(tree: Tree, is_end_token_counted: jax.Array) -> jax.Array:
  """Minus the mean log-prob of each path's response tokens, `[N]` float32; NaN without tokens.

  The released code leaves end tokens in a row at the end of the path out when padding and end
  token are the same id, and counts them otherwise.
  """
  count = tree.path_tokens - jnp.where(is_end_token_counted, 0, tree.trailing_tokens)
  total = tree.path_logprob - jnp.where(is_end_token_counted, 0.0, tree.trailing_logprob)
  return jnp.where(count > 0, -total / jnp.maximum(count, 1), jnp.nan)
