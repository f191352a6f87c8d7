"""The search tree as a struct of arrays: allocated once, a node's number is its order of creation.

Every function is written for one tree; use jax.vmap for a batch. Nodes also carry their rank in
depth-first pre-order, which decides ties, and the size of their subtree, so that "is an ancestor
of" is an interval test. What changes in a step are a few rows: the newest nodes, and the path above
them, which is found by climbing and written by index, so that trees stay where they are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ds_jax.checks import check_rank

# What a node's key is folded with where a number is wanted, not a child's key (indices from 0).
NOT_A_CHILD = 0x7FFF_FFFF


@struct.dataclass
class Nodes:
  """What is known of each of N nodes; a node is named by its row.

  Functions that compute node by node take some rows as well, see `rows`.
  """

  # Where it stands.
  parent: jax.Array  # [N] int32, NO_PARENT for the root
  depth: jax.Array  # [N] int32, root 0
  child_index: jax.Array  # [N] int32, place among the siblings
  num_children: jax.Array  # [N] int32
  oldest_child: jax.Array  # [N] int32, the child that came first; those that came with it follow
  preorder: jax.Array  # [N] int32, rank in depth-first pre-order, siblings by their place
  subtree_size: jax.Array  # [N] int32, the node itself included
  key: jax.Array  # [N, 2] uint32, key data; key(child j) = fold_in(key(node), j)

  # Its text: the segment that it adds, and the path from the first response token to its end.
  num_tokens: jax.Array  # [N] int32, of the segment, end token included
  logprob_sum: jax.Array  # [N] float32, over the segment
  entropy_sum: jax.Array  # [N] float32, nats, over the segment
  path_tokens: jax.Array  # [N] int32
  path_logprob: jax.Array  # [N] float32, over the path
  trailing_tokens: jax.Array  # [N] int32, end tokens in a row at the end of the path
  trailing_logprob: jax.Array  # [N] float32, over those

  # Whether the path ends here, and what that is worth.
  is_terminal: jax.Array  # [N] bool
  is_valid: jax.Array  # [N] bool, False for ends whose verification failed through our fault
  reward: jax.Array  # [N] float32, of terminals
  num_ends: jax.Array  # [N] int32, verified ends at or below
  num_correct: jax.Array  # [N] int32, correct ones of them

  # What the backups have left.
  visit_count: jax.Array  # [N] int32
  value_sum: jax.Array  # [N] float32, the released q: a running sum under the backup rule
  is_collected: jax.Array  # [N] bool


@struct.dataclass
class Tree:
  """One tree with room for N nodes; a batch of trees has a leading axis on every field."""

  ROOT: ClassVar[int] = 0
  NO_PARENT: ClassVar[int] = -1

  nodes: Nodes  # [N, …]
  collected: jax.Array  # [K] int32, ends in order of collection, -1 beyond
  policy: Any  # the allocation policy's own state, see policies/

  num_collected: jax.Array  # [] int32
  num_nodes: jax.Array  # [] int32
  num_fresh: jax.Array  # [] int32, newest nodes, not yet seen by the policy
  num_in_flight: jax.Array  # [] int32, children asked for that are not here yet
  num_expansions: jax.Array  # [] int32
  num_generated: jax.Array  # [] int32, tokens sampled so far
  is_done: jax.Array  # [] bool

  max_depth: int = struct.field(pytree_node=False)  # D, room for paths
  max_width: int = struct.field(pytree_node=False)  # W, room for children that come at once

  @property
  def capacity(self) -> int:
    """N."""
    return self.nodes.parent.shape[-1]

  @property
  def no_node(self) -> int:
    """A row beyond all nodes: what is written there is dropped."""
    return self.capacity

  def with_nodes(self, **arrays: jax.Array) -> Tree:
    """The tree in which these arrays of its nodes are others."""
    return self.replace(nodes=self.nodes.replace(**arrays))

  def with_policy(self, **fields: jax.Array) -> Tree:
    """The tree in which these fields of the policy's state are others."""
    return self.replace(policy=self.policy.replace(**fields))


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
  *,
  max_depth: int | None = None,
  max_width: int | None = None,
) -> Tree:
  """Returns a tree of a root, without a policy's state.

  Args:
    capacity: N, room for nodes.
    max_collected: K.
    key: `[2]` uint32, key data of the root.
    max_depth: D, of the deepest node; None: as deep as there is room.
    max_width: W, most children that come at once; None: as many as there is room for.
  """
  ints = jnp.zeros(capacity, jnp.int32)
  floats = jnp.zeros(capacity, jnp.float32)
  nowhere = jnp.zeros(capacity, bool)
  zero = jnp.int32(0)
  nodes = Nodes(
    parent=jnp.full(capacity, Tree.NO_PARENT),
    depth=ints,
    child_index=ints,
    num_children=ints,
    oldest_child=ints,
    preorder=ints,
    subtree_size=ints.at[Tree.ROOT].set(1),
    key=jnp.zeros((capacity, 2), jnp.uint32).at[Tree.ROOT].set(key),
    num_tokens=ints,
    logprob_sum=floats,
    entropy_sum=floats,
    path_tokens=ints,
    path_logprob=floats,
    trailing_tokens=ints,
    trailing_logprob=floats,
    is_terminal=nowhere,
    is_valid=nowhere,
    reward=floats,
    num_ends=ints,
    num_correct=ints,
    visit_count=ints,
    value_sum=floats,
    is_collected=nowhere,
  )
  return Tree(
    nodes=nodes,
    collected=jnp.full(max_collected, -1),
    policy=None,
    num_collected=zero,
    num_nodes=jnp.int32(1),
    num_fresh=zero,
    num_in_flight=zero,
    num_expansions=zero,
    num_generated=zero,
    is_done=jnp.bool_(False),
    max_depth=capacity - 1 if max_depth is None else max_depth,
    max_width=capacity if max_width is None else max_width,
  )


def restart(tree: Tree, is_new: jax.Array, blank: Tree) -> Tree:
  """Starts anew where `is_new`: rows beyond the root are left as they are, unused.

  Args:
    tree: _unbatched_ tree; nothing is due in it.
    is_new: `[]` bool.
    blank: a tree with room for its root alone.
  """

  def write_over(old: jax.Array, new: jax.Array) -> jax.Array:
    if old.shape == new.shape:
      return jnp.where(is_new, new, old)
    # Of arrays with an entry per node, `blank` has the root's row alone. It is written by index: a
    # slice makes XLA of jaxlib 0.11.2 crash on CPUs where trees lie on several devices.
    root = jnp.where(is_new, new[Tree.ROOT], old[Tree.ROOT])
    return old.at[Tree.ROOT].set(root)

  fitting = blank.replace(max_depth=tree.max_depth, max_width=tree.max_width)
  return jax.tree.map(write_over, tree, fitting)


def choose(condition: jax.Array, a: Tree, b: Tree) -> Tree:
  """`a` where the condition holds, else `b`; fields that are the same array cost nothing."""
  return jax.tree.map(lambda x, y: x if x is y else jnp.where(condition, x, y), a, b)


def while_changing(
  condition: Callable[[Tree], jax.Array], body: Callable[[Tree], Tree], tree: Tree
) -> Tree:
  """jax.lax.while_loop over a tree, of which only the arrays that the body changes are carried.

  An array that is carried through a loop is copied where trees of a batch take different numbers of
  turns. The barrier keeps what the body computes of other arrays inside it: most often the loop
  does not turn at all.
  """
  leaves, structure = jax.tree.flatten(tree)
  # One trace of the body tells which arrays come out as they went in.
  traced = jax.make_jaxpr(lambda *x: jax.tree.leaves(body(structure.unflatten(x))))(*leaves).jaxpr
  is_changed = [new is not old for new, old in zip(traced.outvars, traced.invars, strict=True)]

  def changing(tree: Tree) -> list[jax.Array]:
    return [x for x, changed in zip(jax.tree.leaves(tree), is_changed, strict=True) if changed]

  def joined(carried: list[jax.Array]) -> Tree:
    news = iter(carried)
    return structure.unflatten(
      [next(news) if changed else x for x, changed in zip(leaves, is_changed, strict=True)]
    )

  carried = jax.lax.while_loop(
    lambda carried: condition(joined(carried)),
    lambda carried: changing(body(jax.lax.optimization_barrier(joined(carried)))),
    changing(tree),
  )
  return joined(carried)


def first_lowest(values: jax.Array) -> jax.Array:
  """Index of the lowest of `[N]` numbers, the first of equals; none may be NaN. `[]` int32.

  What jnp.argmin gives, by two plain reductions: XLA's argmin is several times slower on CPUs.
  """
  index = jnp.arange(values.shape[0], dtype=jnp.int32)
  return jnp.where(values == values.min(), index, values.shape[0] - 1).min()


def rows(nodes: Nodes, index: jax.Array) -> Nodes:
  """The rows `index` `[C]` int32 alone; compiled, only the arrays that are used are read."""
  return jax.tree.map(lambda array: array[index], nodes)


def is_used(tree: Tree) -> jax.Array:
  """`[N]` bool: which rows hold nodes."""
  return jnp.arange(tree.capacity) < tree.num_nodes


def on_path(tree: Tree, node: jax.Array) -> jax.Array:
  """`[N]` bool: the nodes from the root to `node`, both included."""
  check_rank('node', node, 0)
  nodes = tree.nodes
  rank = nodes.preorder[node]
  return is_used(tree) & (nodes.preorder <= rank) & (rank < nodes.preorder + nodes.subtree_size)


def path_to(tree: Tree, node: jax.Array) -> jax.Array:
  """Climbs from `node` to the root, both included.

  Args:
    tree: _unbatched_ tree.
    node: `[]` int32, or `tree.no_node`: an empty path.

  Returns:
    `[D + 1]` int32, `node` first; `tree.no_node` beyond the root.
  """
  check_rank('node', node, 0)

  def climb(node: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
    is_below_root = (node != Tree.ROOT) & (node < tree.no_node)
    return jnp.where(is_below_root, tree.nodes.parent[node], tree.no_node), node

  return jax.lax.scan(climb, node.astype(jnp.int32), length=tree.max_depth + 1)[1]


def children_of(tree: Tree, node: jax.Array) -> jax.Array:
  """`[N]` bool."""
  return is_used(tree) & (tree.nodes.parent == node)


def child_nodes(tree: Tree, node: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The children of a node whose children came all at once, as the serial policies ask.

  Returns:
    `[W]` int32 nodes and `[W]` bool, which of them are children.
  """
  index = jnp.arange(tree.max_width, dtype=jnp.int32)
  children = jnp.minimum(tree.nodes.oldest_child[node] + index, tree.capacity - 1)
  return children, index < tree.nodes.num_children[node]


def fresh_nodes(tree: Tree) -> jax.Array:
  """`[N]` bool: the newest nodes, which the policy has not seen yet."""
  index = jnp.arange(tree.capacity)
  return (index >= tree.num_nodes - tree.num_fresh) & (index < tree.num_nodes)


def elder_nodes(tree: Tree, node: jax.Array, child_index: jax.Array) -> jax.Array:
  """Nodes at and below those children of `node` whose place is before `child_index`, `[]` int32."""
  is_elder = children_of(tree, node) & (tree.nodes.child_index < child_index)
  return jnp.where(is_elder, tree.nodes.subtree_size, 0).sum()


def add_children(
  tree: Tree, node: jax.Array, children: Children, *, num_elder: jax.Array | int = 0
) -> Tree:
  """Appends up to W children to `node`, which may be any node and may have children already.

  Siblings may come in any order: their rank in pre-order follows from `first_child`, not from
  when they came.

  Args:
    tree: _unbatched_ tree with room for `children.count` more nodes.
    node: `[]` int32.
    children: what is known of them, terminal values included. A count of 0 changes nothing.
    num_elder: `[]` int32, see `elder_nodes`; 0 where all siblings come at once.

  Returns:
    The tree; ends that are verified are counted along the path to the root.

  Raises:
    ValueError: if there is no room; of traced numbers that cannot be told, and what does not fit
      is lost.
  """
  check_rank('node', node, 0)
  check_room(tree, children.count)
  nodes, count = tree.nodes, children.count
  index = jnp.arange(children.num_tokens.shape[0])
  is_new = index < count
  new_rows = jnp.where(is_new, tree.num_nodes + index, tree.no_node)
  child_index = children.first_child + index
  is_end = is_new & children.is_terminal & children.is_valid
  is_correct = is_end & children.is_correct

  # The first child follows its parent and all that its elder siblings hold; who stands there or
  # later makes way.
  rank = nodes.preorder[node] + 1 + num_elder
  makes_way = is_used(tree) & (nodes.preorder >= rank)
  preorder = nodes.preorder + jnp.where(makes_way, count, 0)

  # End tokens in a row: a segment that is nothing but one goes on with those of its parent.
  is_lone_end = children.is_ended & (children.num_tokens == 1)
  trailing_tokens = jnp.where(is_lone_end, nodes.trailing_tokens[node], 0)
  trailing_logprob = jnp.where(is_lone_end, nodes.trailing_logprob[node], 0)

  newborn = Nodes(
    parent=node,
    depth=nodes.depth[node] + 1,
    child_index=child_index,
    num_children=0,
    oldest_child=0,
    preorder=rank + index,
    subtree_size=1,
    key=_child_keys(nodes.key[node], child_index),
    num_tokens=children.num_tokens,
    logprob_sum=children.logprob_sum,
    entropy_sum=children.entropy_sum,
    path_tokens=nodes.path_tokens[node] + children.num_tokens,
    path_logprob=nodes.path_logprob[node] + children.logprob_sum,
    trailing_tokens=children.is_ended + trailing_tokens,
    trailing_logprob=children.end_logprob + trailing_logprob,
    is_terminal=children.is_terminal,
    is_valid=children.is_valid,
    reward=children.reward,
    num_ends=is_end.astype(jnp.int32),
    num_correct=is_correct.astype(jnp.int32),
    visit_count=0,
    value_sum=0.0,
    is_collected=False,
  )
  nodes = jax.tree.map(
    lambda array, row: array.at[new_rows].set(row, mode='drop'),
    nodes.replace(preorder=preorder),
    newborn,
  )

  # What the parent and the nodes above it count. The path is climbed after the writing: reading an
  # array before it is written costs a copy of it.
  path = path_to(tree.replace(nodes=nodes), node)
  num_children = nodes.num_children.at[node].add(count)
  childless = jnp.where(num_children[node] == count, node, tree.no_node)  # … until now
  nodes = nodes.replace(
    num_children=num_children,
    oldest_child=nodes.oldest_child.at[childless].set(tree.num_nodes, mode='drop'),
    subtree_size=nodes.subtree_size.at[path].add(count, mode='drop'),
    num_ends=nodes.num_ends.at[path].add(is_end.sum(), mode='drop'),
    num_correct=nodes.num_correct.at[path].add(is_correct.sum(), mode='drop'),
  )
  return tree.replace(
    nodes=nodes,
    num_nodes=tree.num_nodes + count,
    num_fresh=tree.num_fresh + count,
    num_in_flight=tree.num_in_flight - count,
    num_expansions=tree.num_expansions + (count > 0),
    num_generated=tree.num_generated + jnp.where(is_new, children.num_tokens, 0).sum(),
  )


def check_room(tree: Tree, count: jax.Array) -> None:
  """Raises ValueError unless `count` `[]` more nodes fit; traced numbers pass unseen."""
  if isinstance(tree.num_nodes, jax.core.Tracer) or isinstance(count, jax.core.Tracer):
    return
  needed = int(tree.num_nodes) + int(count)
  if needed > tree.capacity:
    raise ValueError(
      f'Expected at most {tree.capacity} nodes, got {needed}; make the tree with more room.'
    )


def mean_value(nodes: Nodes) -> jax.Array:
  """Q = value_sum / visit_count, 0 where nothing was visited; `[N]` float32."""
  visits = nodes.visit_count
  return jnp.where(visits > 0, nodes.value_sum / jnp.maximum(visits, 1), 0.0)


def node_draws(nodes: Nodes, moment: jax.Array | int = 0) -> jax.Array:
  """A number in [0, 1) per node from its own key, so that it repeats with the seed; `[N]` float32.

  Args:
    nodes: N nodes.
    moment: `[]` int32; another one gives other numbers.
  """

  def draw(key_data: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data), NOT_A_CHILD)
    return jax.random.uniform(jax.random.fold_in(key, moment))

  return jax.vmap(draw)(nodes.key)


def _child_keys(key_data: jax.Array, child_index: jax.Array) -> jax.Array:
  """Key data `[W, 2]` of the children `child_index` `[W]` of the node with that key data `[2]`."""
  key = jax.random.wrap_key_data(key_data)
  return jax.vmap(lambda j: jax.random.key_data(jax.random.fold_in(key, j)))(child_index)
