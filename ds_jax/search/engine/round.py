"""One step of every tree on the device: take in what came back, back up, allocate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.search.policies.base import Allocation, Plan, Policy
from ds_jax.search.settings import Settings
from ds_jax.search.tree import Children, Tree, add_children, elder_nodes, new_tree, restart


def start_tree(
  tree: Tree, is_new: jax.Array, key: jax.Array, *, policy: Policy, settings: Settings
) -> Tree:
  """The tree, or one of a root with key data `key` `[2]` uint32 where `is_new`."""
  root = new_tree(1, tree.collected.shape[0], key)
  return restart(tree, is_new, policy.start(root, settings))


def advance_tree(
  tree: Tree,
  nodes: jax.Array,
  children: Children,
  *,
  policy: Policy,
  settings: Settings,
  plan: Plan,
) -> tuple[Tree, Allocation, jax.Array]:
  """Takes in up to E expansions of one tree, backs up and allocates.

  Args:
    tree: _unbatched_ tree.
    nodes: `[E]` int32, the expanded nodes.
    children: fields `[E]` and `[E, W]`; entries with a count of 0 are padding. Nothing but padding:
      the tree is left as it is.
    policy: which nodes get children next.
    settings, plan: see the policies.

  Returns:
    (tree, Allocation of A nodes, key data of the allocated nodes `[A, 2]`).
  """
  if policy.is_serial:  # one expansion, and all children of a node come at once
    tree = add_children(tree, nodes[0], jax.tree.map(lambda x: x[0], children))
  else:
    tree, _ = jax.lax.scan(_add_anywhere, tree, (nodes, children))
  tree, allocation = policy.allocate(tree, settings, plan)
  return tree, allocation, tree.nodes.key[allocation.node]


def _add_anywhere(tree: Tree, expansion: tuple[jax.Array, Children]) -> tuple[Tree, None]:
  node, children = expansion
  num_elder = elder_nodes(tree, node, children.first_child)
  return add_children(tree, node, children, num_elder=num_elder), None


@functools.cache
def make_advance(mesh: Mesh, policy: Policy) -> Callable[..., Any]:
  """Returns the jitted step of a batch of trees; each device steps its own.

  The same arguments return the same function, so engines that differ in less share its programs.

  Its arguments: trees, is_new, keys (see `start_tree`), nodes, children, settings, plan (see
  `advance_tree`). All but settings and plan have a leading `[B]`, as the results have: those of
  `advance_tree`, and `is_done` `[B]` before the keys; so has the plan, where the policy plans trees
  apart. Trees are donated.
  """
  batch = P(sharding.BATCH_AXES)
  plan_spec, plan_axis = (batch, 0) if policy.plans_apart else (P(), None)

  def advance_one(tree, nodes, children, settings, plan):
    return advance_tree(tree, nodes, children, policy=policy, settings=settings, plan=plan)

  def step(trees, is_new, keys, nodes, children, settings, plan):
    start = jax.vmap(functools.partial(start_tree, policy=policy, settings=settings))
    advance = jax.vmap(advance_one, in_axes=(0, 0, 0, None, plan_axis))
    # Where no tree is new, which is most often so, this spares a pass over all of them.
    trees = jax.lax.cond(is_new.any(), start, lambda trees, *_: trees, trees, is_new, keys)
    trees, allocation, next_keys = advance(trees, nodes, children, settings, plan)
    return trees, allocation, trees.is_done, next_keys

  mapped = jax.shard_map(
    step, mesh=mesh, in_specs=(batch,) * 5 + (P(), plan_spec), out_specs=batch, check_vma=False
  )
  return jax.jit(mapped, donate_argnums=0, out_shardings=NamedSharding(mesh, batch))
