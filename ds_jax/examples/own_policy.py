"""A policy of one's own: it always goes on with the likeliest unfinished path of the whole tree.

python -m ds_jax.examples.own_policy RUN_FOLDER 'text of a problem'
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
from flax import struct

import ds_jax
from ds_jax.search.backup import collect_children
from ds_jax.search.policies.base import Allocation, Plan, Policy, expand_node, is_spent
from ds_jax.search.selection import best
from ds_jax.search.settings import Settings, width_at
from ds_jax.search.tree import Tree, is_used


@struct.dataclass
class State:
  current: jax.Array  # [] int32, the node whose children were asked for last


def allocate(tree: Tree, settings: Settings, plan: Plan) -> tuple[Tree, Allocation]:
  after, _, _ = collect_children(tree, tree.policy.current, tree.num_fresh > 0, settings=settings)
  nodes = after.nodes
  score = nodes.path_logprob / jnp.maximum(nodes.path_tokens, 1)
  is_open = is_used(after) & ~nodes.is_terminal & (nodes.num_children == 0)
  node, is_any = best(nodes, score, is_open, settings=settings)
  is_full = after.num_collected >= settings.num_trajectories
  is_done = is_full | ~is_any | is_spent(after, settings)
  after = after.with_policy(current=node)
  return expand_node(tree, after, node, is_done=is_done, settings=settings)


# In any command: --config.search.policy=python:ds_jax.examples.own_policy.LIKELIEST
LIKELIEST = Policy(
  first_children=lambda settings: width_at(0, settings),
  init=lambda capacity, first_children: State(current=jnp.int32(Tree.ROOT)),
  allocate=allocate,
  is_serial=True,
)

if __name__ == '__main__':
  with ds_jax.open_session(workdir=sys.argv[1]) as session:
    for policy in ('deepsearch', 'python:ds_jax.examples.own_policy.LIKELIEST'):
      print(session.search(sys.argv[2], policy=policy))
