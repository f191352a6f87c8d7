"""One step of every tree on the device: take in what came back, back up, allocate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.search.allocation import POLICIES, begin
from ds_jax.search.options import Options, Rules
from ds_jax.search.rollouts import Allocation, ForkPlan
from ds_jax.search.tree import Children, Tree, add_children, choose, new_tree, restart


def advance_tree(tree: Tree, is_new: jax.Array, key: jax.Array, nodes: jax.Array,
                 children: Children, is_ready: jax.Array, options: Options, plan: ForkPlan,
                 rules: Rules) -> tuple[Tree, Allocation, jax.Array, jax.Array]:
  """Takes in up to E expansions of one tree, backs up and allocates.

  Args:
    tree: _unbatched_ tree.
    is_new: `[]` bool, start anew first.
    key: `[2]` uint32, key data of a new tree's root.
    nodes: `[E]` int32, the expanded nodes.
    children: fields `[E]` and `[E, W]`; entries with a count of 0 are padding.
    is_ready: `[]` bool, False: only `is_new` has an effect; all counts must be 0 then.
    options, plan, rules: see the policies.

  Returns:
    (tree, Allocation of A nodes, how `[]` int32, key data of the allocated nodes `[A, 2]`).
  """
  blank = begin(new_tree(1, tree.collected.shape[0], key), rules, options)
  started = restart(tree, is_new, blank)
  if nodes.shape[0] == 1:
    grown = add_children(started, nodes[0], jax.tree.map(lambda x: x[0], children))
  else:
    grown, _ = jax.lax.scan(lambda t, x: (add_children(t, *x), None), started, (nodes, children))
  tree, allocation = POLICIES[rules.policy].allocate(grown, rules, options, plan)
  tree = choose(is_ready, tree, grown)  # without children `grown` is as it was
  return tree, allocation, tree.how, tree.key[allocation.node]


def make_advance(mesh: Mesh, rules: Rules) -> Callable[..., Any]:
  """Returns the jitted `advance_tree` over a batch of trees; each device steps its own.

  The first six arguments and the results have a leading `[B]`; trees are donated.
  """
  one = lambda *args: advance_tree(*args, rules)
  batch = P(sharding.BATCH_AXES)
  mapped = jax.shard_map(
      lambda *args: jax.vmap(one, in_axes=(0,) * 6 + (None,) * 2)(*args), mesh=mesh,
      in_specs=(batch,) * 6 + (P(),) * 2, out_specs=batch, check_vma=False)
  return jax.jit(mapped, donate_argnums=0, out_shardings=NamedSharding(mesh, batch))
