"""What an allocation policy is: from a tree to the nodes that get children next, and how many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ds_jax.checks import InputError
from ds_jax.config import SearchConfig
from ds_jax.search.selection import How
from ds_jax.search.settings import Defects, Settings, width_at
from ds_jax.search.tree import Tree, choose

MAX_ASKED = 16  # nodes that one call asks children for; the others follow in later calls


class Allocation(NamedTuple):
  """A nodes of one tree that get children next (A is 1 for the serial policies)."""

  node: jax.Array  # [A] int32
  first_child: jax.Array  # [A] int32, place of the first new child among its siblings
  num_children: jax.Array  # [A] int32, 0: none
  how: jax.Array  # [A] int32, how the node was chosen, see selection.How


class ForkPlan(NamedTuple):
  """Where forks pay: what the split-depth counts of recent steps say (fork_law.fork_plan)."""

  is_allowed: jax.Array  # [D] bool, by depth of the forked node; the root is never
  best_depth: jax.Array  # [] int32
  is_steep: jax.Array  # [] bool, all forks go to the best depth, twice as many

  @property
  def max_depth(self) -> int:
    """D."""
    return self.is_allowed.shape[-1]


class ForkOdds(NamedTuple):
  """How likely a fork starts at each depth (fork_sampling.fork_odds); depth 0 is a new rollout."""

  up_to: jax.Array  # [D + 1, D] float32, by the rollout's length: odds of this depth or a lower one

  @property
  def max_depth(self) -> int:
    """D."""
    return self.up_to.shape[-1]


Plan = ForkPlan | ForkOdds

# (tree, settings, plan) -> (tree, Allocation)
AllocateFn = Callable[[Tree, Settings, Any], tuple[Tree, Allocation]]


def no_forks(max_depth: int) -> ForkPlan:
  """Nothing is known: no depth is allowed."""
  return ForkPlan(np.zeros(max_depth, bool), np.int32(0), np.bool_(False))


def no_odds(max_depth: int) -> ForkOdds:
  """Nothing is drawn."""
  return ForkOdds(np.zeros((max_depth + 1, max_depth), np.float32))


@dataclasses.dataclass(frozen=True)
class Policy:
  """How a tree starts, and how it goes on; hashable.

  `allocate` is a pure function of one tree (new children included, not yet backed up), the settings
  and what is known of where forks pay. It returns the tree after its bookkeeping and an Allocation.
  A tree without new children is left as it is. Trees that are done allocate nothing.
  """

  first_children: Callable[[Settings], jax.Array]  # `[]` int32, of the root; host numbers will do
  # (N, children of the root that are asked for) -> the policy's own state of a tree, Tree.policy
  init: Callable[[int, ArrayLike], Any]
  allocate: AllocateFn
  is_serial: bool  # one expansion of a tree at a time; its node order is that of creation
  asks_one_child: bool = False  # at a time: wider slots would idle
  collects_all: bool = False  # every verified end, not K of them
  defects: Defects = Defects()  # of the released code, which it repeats
  no_plan: Callable[[int], Plan] = no_forks  # D -> the plan while nothing is known
  plans_apart: bool = False  # every tree has a plan of its own, Job.plan

  def start(self, tree: Tree, settings: Settings) -> Tree:
    """A blank tree whose first children have been asked for."""
    count = self.first_children(settings)
    return tree.replace(policy=self.init(tree.capacity, count), num_in_flight=jnp.int32(count))

  def as_searched(self, search: SearchConfig) -> SearchConfig:
    """The settings with which the engine runs: as many expansions of one child each instead of
    wide ones, where children are asked for one at a time."""
    if not self.asks_one_child:
      return search
    if search.siblings == 'distinct':
      raise InputError(
        f'search.siblings = distinct is about children that are drawn together, and search.policy '
        f'= {search.policy} draws one at a time; set search.siblings=independent.'
      )
    return dataclasses.replace(
      search, width=1, width_decay=0, max_expansions=search.max_expansions * search.width
    )

  def max_collected(self, search: SearchConfig) -> int:
    """Ends that a tree may collect."""
    return search.max_expansions if self.collects_all else search.num_trajectories

  def num_results(self, max_collected: int) -> int:
    """E, expansions of one tree that one advance takes in."""
    return 1 if self.is_serial else num_asked_at_once(max_collected)


def num_asked_at_once(max_collected: int) -> int:
  """A, nodes in one Allocation of a policy in waves."""
  return min(max_collected, MAX_ASKED)


def is_spent(tree: Tree, settings: Settings) -> jax.Array:
  """`[]` bool: a budget of the tree is used up."""
  has_no_expansions = tree.num_expansions >= settings.max_expansions
  return has_no_expansions | (tree.num_generated >= settings.max_tokens)


def expand_node(
  before: Tree, after: Tree, node: jax.Array, *, is_done: jax.Array, settings: Settings
) -> tuple[Tree, Allocation]:
  """What a serial policy returns that goes on at `node`: all of its children are asked for.

  Args:
    before: the tree that `allocate` was given. Without new children it is returned as it is, and
      nothing is asked for.
    after: the tree after backup, with the policy's new state.
    node: `[]` int32, which has no children yet.
    is_done: `[]` bool, the tree has ended: nothing is asked for.
    settings: of the width.
  """
  has_news = before.num_fresh > 0
  is_wanted = has_news & ~is_done
  count = jnp.where(is_wanted, width_at(after.nodes.depth[node], settings), 0)
  after = after.replace(
    num_fresh=jnp.int32(0), num_in_flight=after.num_in_flight + count, is_done=is_done
  )
  how = jnp.where(is_wanted, How.GLOBAL, How.DONE).astype(jnp.int32)
  allocation = Allocation(node[None], jnp.zeros(1, jnp.int32), count[None], how[None])
  return choose(has_news, after, before), allocation
