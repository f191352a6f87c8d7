"""One step of every tree on the device: take in what came back, back up, allocate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.search.policies.serial import POLICIES, begin
from ds_jax.search.policies.waves import Allocation, ForkPlan
from ds_jax.search.settings import Options, Rules
from ds_jax.search.tree import Children, Tree, add_children, elder_nodes, new_tree, restart


def start_tree(
  tree: Tree, is_new: jax.Array, key: jax.Array, options: Options, rules: Rules
) -> Tree:
  """The tree, or one of a root with key data `key` `[2]` uint32 where `is_new`."""
  return restart(tree, is_new, begin(new_tree(1, tree.collected.shape[0], key), rules, options))


def advance_tree(
  tree: Tree, nodes: jax.Array, children: Children, options: Options, plan: ForkPlan, rules: Rules
) -> tuple[Tree, Allocation, jax.Array, jax.Array]:
  """Takes in up to E expansions of one tree, backs up and allocates.

  Args:
    tree: _unbatched_ tree.
    nodes: `[E]` int32, the expanded nodes.
    children: fields `[E]` and `[E, W]`; entries with a count of 0 are padding. Nothing but padding:
      the tree is left as it is.
    options, plan, rules: see the policies.

  Returns:
    (tree, Allocation of A nodes, how `[]` int32, key data of the allocated nodes `[A, 2]`).
  """

  def add(tree: Tree, expansion: tuple[jax.Array, Children]) -> tuple[Tree, None]:
    node, new = expansion
    return add_children(tree, node, new, elder_nodes(tree, node, new.first_child)), None

  policy = POLICIES[rules.policy]
  if policy.is_serial:  # one expansion, and all children of a node come at once
    grown = add_children(tree, nodes[0], jax.tree.map(lambda x: x[0], children), 0)
  else:
    grown, _ = jax.lax.scan(add, tree, (nodes, children))
  tree, allocation = policy.allocate(grown, rules, options, plan)
  return tree, allocation, tree.how, tree.key[allocation.node]


@functools.cache
def make_advance(mesh: Mesh, rules: Rules) -> Callable[..., Any]:
  """Returns the jitted step of a batch of trees; each device steps its own.

  The same arguments return the same function, so engines that differ in less share its programs.

  Its arguments: trees, is_new, key (see `start_tree`), and those of `advance_tree`. All but options
  and plan have a leading `[B]`, as the results have; trees are donated.
  """
  batch = P(sharding.BATCH_AXES)

  def local(trees, is_new, keys, nodes, children, options, plan):
    start = lambda trees: jax.vmap(lambda *args: start_tree(*args, options, rules))(
      trees, is_new, keys
    )
    trees = jax.lax.cond(is_new.any(), start, lambda trees: trees, trees)  # spares a pass over all
    one = lambda *args: advance_tree(*args, options, plan, rules)
    return jax.vmap(one)(trees, nodes, children)

  mapped = jax.shard_map(
    local, mesh=mesh, in_specs=(batch,) * 5 + (P(),) * 2, out_specs=batch, check_vma=False
  )
  return jax.jit(mapped, donate_argnums=0, out_shardings=NamedSharding(mesh, batch))
