"""Allocation in waves: direct rollouts, and forks of rollouts where they pay.

Many expansions of one tree are under way at once, and they come back in any order. What is decided
while a wave runs is local (an unfinished node gets its next segment); ends are backed up and new
waves planned only when everything asked for is there, in depth-first order. So a tree's content
depends on nothing but its key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from ds_jax.search.backup import collect
from ds_jax.search.policies.base import (
  Allocation,
  ForkOdds,
  ForkPlan,
  Plan,
  Policy,
  no_odds,
  num_asked_at_once,
)
from ds_jax.search.selection import How
from ds_jax.search.settings import Settings
from ds_jax.search.tree import (
  NOT_A_CHILD,
  Tree,
  children_of,
  choose,
  first_lowest,
  fresh_nodes,
  is_used,
  on_path,
  while_changing,
)

MAX_FORKS = 4  # of one rollout by the law, the probe not counted
RARE_SUCCESS = 0.15  # below this share of correct rollouts a success is worth more forks
LAST = jnp.iinfo(jnp.int32).max  # in an order: what is left out

# (rollout, draws [F], plan) -> depths [F] int32, is_wanted [F] bool
ChooseDepthsFn = Callable[['_Rollout', jax.Array, Any], tuple[jax.Array, jax.Array]]


@struct.dataclass
class WaveState:
  """What has been asked for in a tree, and what is to be asked for next."""

  num_asked: jax.Array  # [N] int32, children asked for, those under way too
  children_due: jax.Array  # [N] int32, to be asked for, whatever the outcomes were
  forks_due: jax.Array  # [N] int32, to be asked for because of an outcome
  is_rollout: jax.Array  # [N] bool, first line below a child of the root, not a fork
  num_planned: jax.Array  # [] int32, children of the root whose forks have been decided on


def init(capacity: int, first_children: ArrayLike) -> WaveState:
  """The state of a tree with room for N nodes whose first rollouts have been asked for."""
  nothing = jnp.zeros(capacity, jnp.int32)
  return WaveState(
    num_asked=nothing.at[Tree.ROOT].set(first_children),
    children_due=nothing,
    forks_due=nothing,
    is_rollout=jnp.zeros(capacity, bool),
    num_planned=jnp.int32(0),
  )


def first_rollouts(settings: Settings) -> jax.Array:
  """Rollouts of the first wave, `[]` int32: K, or fewer where the longest ones would not fit the
  budgets, but one in any case."""
  by_tokens = settings.max_tokens // (settings.max_depth * settings.segment_length)
  fitting = jnp.minimum(settings.max_expansions // settings.max_depth, by_tokens)
  return jnp.clip(settings.num_trajectories, 1, jnp.maximum(fitting, 1)).astype(jnp.int32)


def direct(tree: Tree, settings: Settings, plan: Plan) -> tuple[Tree, Allocation]:
  """K rollouts from the root, each a line of single children.

  An end that could not be verified is not made up for. Where budgets did not allow all K at once,
  more follow while what is left allows for them.
  """
  del plan
  received, is_over = _receive(tree, settings)
  missing = settings.num_trajectories - received.policy.num_asked[Tree.ROOT]
  return _ask(tree, _add_rollouts(received, missing, is_over, settings=settings))


def fork(tree: Tree, settings: Settings, plan: ForkPlan) -> tuple[Tree, Allocation]:
  """Rollouts from the root, then a few forks of them at depths where forking beats restarting.

  For any problem a fresh continuation from depth d of a failed rollout succeeds with probability
  p U_d at the share x of a rollout's price, so forking there beats restarting iff U_d / x > 1.
  First K rollouts. Then, from each failed rollout, and each successful one where success is
  common, 2 forks spread over the allowed depths (4 at the best depth where U/x is steep). Where
  success is rare, each successful rollout gets 4 forks over all depths instead. A share of
  rollouts gets one more fork at a random depth, whatever its outcome: only those, and the
  rollouts, count for U. With a token budget, waves alternate until it is used up; without one the
  tree ends after the forks. No allowed depth: direct rollouts.

  With `min_continuations` above 1 a forked node gets as many children as make up that number, the
  rollout's own among them, or none where the budgets do not reach.

  An addition of ours; neither paper nor released code has it.
  """
  return _fork(tree, settings, plan, max_forks=MAX_FORKS, choose_depths=law_depths)


def fork_by_sampling(tree: Tree, settings: Settings, plan: ForkOdds) -> tuple[Tree, Allocation]:
  """Rollouts from the root; where all of them fail, forks where forks paid, or further rollouts.

  As `fork`, but it is the failed rollouts of a tree without a correct end that are forked, and no
  others. Each draws `forks_per_failure` times among the depths of its inner nodes and the root, by
  the odds that forks there bring most verified successes per token (fork_sampling.py). Rollouts
  that are drawn so are not forked in their turn.

  An addition of ours.
  """
  max_forks = settings.forks_per_failure
  return _fork(tree, settings, plan, max_forks=max_forks, choose_depths=sampled_depths)


def _fork(
  tree: Tree, settings: Settings, plan: Plan, *, max_forks: int, choose_depths: ChooseDepthsFn
) -> tuple[Tree, Allocation]:
  """Rollouts, then at most `max_forks` forks of each at depths that a rule chooses."""
  received, is_over = _receive(tree, settings)
  forked = _add_forks(
    received,
    is_over,
    settings=settings,
    plan=plan,
    max_forks=max_forks,
    choose_depths=choose_depths,
  )
  is_bounded = settings.max_tokens < jnp.iinfo(jnp.int32).max
  is_next = is_over & ~_is_anything_due(forked) & is_bounded
  wanted = settings.num_trajectories
  return _ask(tree, _add_rollouts(forked, wanted, is_next, settings=settings))


DIRECT = Policy(
  first_children=first_rollouts,
  init=init,
  allocate=direct,
  is_serial=False,
  asks_one_child=True,
)
FORK = Policy(
  first_children=first_rollouts,
  init=init,
  allocate=fork,
  is_serial=False,
  asks_one_child=True,
  collects_all=True,
)
FORK_BY_STRATUM = dataclasses.replace(FORK, plans_apart=True)
FORK_BY_SAMPLING = dataclasses.replace(FORK, allocate=fork_by_sampling, no_plan=no_odds)


def _is_anything_due(tree: Tree) -> jax.Array:
  """`[]` bool."""
  return tree.policy.children_due.sum() + tree.policy.forks_due.sum() != 0


def _receive(tree: Tree, settings: Settings) -> tuple[Tree, jax.Array]:
  """Lets new unfinished nodes go on; at the end of a wave backs up its ends.

  Returns:
    The tree and `[]` bool, whether the wave is over.
  """
  nodes, state = tree.nodes, tree.policy
  is_fresh = fresh_nodes(tree)
  going_on = is_fresh & ~nodes.is_terminal
  # A rollout goes on in the first child of each of its nodes; the root's children all start one.
  continues_rollout = state.is_rollout[nodes.parent] & (nodes.child_index == 0)
  starts_rollout = nodes.parent == Tree.ROOT
  is_rollout = starts_rollout | continues_rollout
  tree = tree.replace(num_fresh=jnp.int32(0))
  tree = tree.with_nodes(visit_count=nodes.visit_count + going_on)
  tree = tree.with_policy(
    num_asked=jnp.where(is_fresh, 0, state.num_asked),
    children_due=jnp.where(is_fresh, going_on, state.children_due),
    is_rollout=jnp.where(is_fresh, is_rollout, state.is_rollout),
  )
  is_over = (tree.num_in_flight == 0) & ~_is_anything_due(tree)

  def open_ends(tree: Tree) -> jax.Array:
    is_open = tree.nodes.is_terminal & tree.nodes.is_valid & ~tree.nodes.is_collected
    return is_over & is_used(tree) & is_open

  def collect_first(tree: Tree) -> Tree:
    end = first_lowest(jnp.where(open_ends(tree), tree.nodes.preorder, LAST))
    return collect(tree, end, settings)[0]

  return while_changing(lambda tree: open_ends(tree).any(), collect_first, tree), is_over


def _add_rollouts(tree: Tree, wanted: jax.Array, is_next: jax.Array, *, settings: Settings) -> Tree:
  """Up to `wanted` more rollouts, as the budgets allow; none where `is_next` is False.

  Expansions are reserved for the longest path, tokens for the mean one so far.
  """
  is_end = rollout_ends(tree)
  longest = settings.max_depth * settings.segment_length
  total = jnp.where(is_end, tree.nodes.path_tokens, 0).sum()
  mean = jnp.where(is_end.any(), total / jnp.maximum(is_end.sum(), 1), longest)
  by_tokens = (settings.max_tokens - tree.num_generated) / jnp.maximum(mean, 1)
  by_expansions = (settings.max_expansions - tree.num_expansions) // settings.max_depth
  fitting = jnp.minimum(by_expansions, by_tokens.astype(jnp.int32))
  count = jnp.where(is_next, jnp.clip(wanted, 0, jnp.maximum(fitting, 0)), 0)
  return tree.with_policy(children_due=tree.policy.children_due.at[Tree.ROOT].add(count))


def rollout_ends(tree: Tree) -> jax.Array:
  """`[N]` bool: verified ends of rollouts that no fork belongs to."""
  nodes = tree.nodes
  return is_used(tree) & tree.policy.is_rollout & nodes.is_terminal & nodes.is_valid


class _Planned(NamedTuple):
  """What deciding on forks has come to."""

  children_due: jax.Array  # [N] int32, with probes
  forks_due: jax.Array  # [N] int32
  num_planned: jax.Array  # [] int32, rollouts that have been decided for
  expansions_left: jax.Array  # [] int32
  tokens_left: jax.Array  # [] int32


def _add_forks(
  tree: Tree,
  is_over: jax.Array,
  *,
  settings: Settings,
  plan: Plan,
  max_forks: int,
  choose_depths: ChooseDepthsFn,
) -> Tree:
  """Decides on the forks of all rollouts that none have been decided for."""
  nodes = tree.nodes
  is_end = rollout_ends(tree)
  solve_rate = (is_end & (nodes.reward == 1)).sum() / jnp.maximum(is_end.sum(), 1)

  def is_left(planned: _Planned) -> jax.Array:
    return is_over & (planned.num_planned < nodes.num_children[Tree.ROOT])

  def add(planned: _Planned) -> _Planned:
    rollout, end, has_end = _rollout_and_end(tree, planned.num_planned, is_end)
    # The nodes to fork, drawn from the rollout's own key.
    key = jax.random.fold_in(jax.random.wrap_key_data(nodes.key[rollout]), NOT_A_CHILD)
    draws = jax.random.uniform(key, (max_forks + 2,))
    to_fork = _Rollout(
      length=nodes.depth[end],
      is_correct=nodes.reward[end] == 1,
      solve_rate=solve_rate,
      is_tree_solved=nodes.num_correct[Tree.ROOT] > 0,
    )
    depths, is_wanted = choose_depths(to_fork, draws[:max_forks], plan)
    depths, is_fork, is_probe = _with_probe(
      depths, is_wanted, draws[max_forks:], rollout=to_fork, plan=plan, settings=settings
    )
    node = _nodes_by_depth(tree, end, plan.max_depth)[depths]
    count = _children_wanted(
      node,
      is_fork & has_end,
      is_probe & has_end,
      num_there=tree.policy.num_asked + planned.children_due + planned.forks_due,
      least=settings.min_continuations,
    )
    # Forks in their order, as far as the budgets reach: in expansions a fork is as long as it can
    # be, in tokens as long as the rest of the rollout that it forks.
    segments = settings.max_depth - depths
    price = nodes.path_tokens[end] - nodes.path_tokens[node]
    has_expansions = jnp.cumsum(count * segments) <= planned.expansions_left
    has_tokens = jnp.cumsum(count * price) <= planned.tokens_left
    count = jnp.where(has_expansions & has_tokens, count, 0)
    return _Planned(
      children_due=planned.children_due.at[node].add(jnp.where(is_probe, count, 0)),
      forks_due=planned.forks_due.at[node].add(jnp.where(is_fork, count, 0)),
      num_planned=planned.num_planned + 1,
      expansions_left=planned.expansions_left - (count * segments).sum(),
      tokens_left=planned.tokens_left - (count * price).sum(),
    )

  nothing_yet = _Planned(
    children_due=tree.policy.children_due,
    forks_due=tree.policy.forks_due,
    num_planned=tree.policy.num_planned,
    expansions_left=settings.max_expansions - tree.num_expansions,
    tokens_left=settings.max_tokens - tree.num_generated,
  )
  planned = jax.lax.while_loop(is_left, add, nothing_yet)
  return tree.with_policy(
    children_due=planned.children_due,
    forks_due=planned.forks_due,
    # Rollouts that an outcome asks for are the next children of the root, and decided for already.
    num_planned=planned.num_planned + planned.forks_due[Tree.ROOT],
  )


def _rollout_and_end(
  tree: Tree, index: jax.Array, is_end: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Finds a rollout and its own end, which may not have been verified.

  Args:
    tree: which.
    index: `[]` int32, of the rollout among the root's children.
    is_end: `[N]` bool, from `rollout_ends`.

  Returns:
    `[]` int32 its first node, `[]` int32 its end, `[]` bool whether it has one.
  """
  nodes = tree.nodes
  is_child = children_of(tree, jnp.int32(Tree.ROOT))
  rollout = jnp.argmax(is_child & (nodes.child_index == index))
  rank, size = nodes.preorder[rollout], nodes.subtree_size[rollout]
  is_its_end = is_end & (nodes.preorder >= rank) & (nodes.preorder < rank + size)
  return rollout, jnp.argmax(is_its_end), is_its_end.any()


def _children_wanted(
  node: jax.Array,
  is_fork: jax.Array,
  is_probe: jax.Array,
  *,
  num_there: jax.Array,
  least: jax.Array,
) -> jax.Array:
  """Children that each entry asks for: one, or a whole group where its node has too few.

  The first fork of a node asks for the group, so that all of it is paid for or nothing.

  Args:
    node: `[C]` int32, the nodes to fork.
    is_fork, is_probe: `[C]` bool, what entries are; neither: nothing is wanted.
    num_there: `[N]` int32, children of each node that are there or asked for.
    least: `[]` int32, children that a forked node has.

  Returns:
    `[C]` int32.
  """
  is_same_fork = (node[:, None] == node) & is_fork
  is_first = jnp.argmax(is_same_fork, axis=1) == jnp.arange(len(node))
  num_forks = is_same_fork.sum(1)  # of each entry's node
  missing = jnp.maximum(least - num_there[node] - jnp.maximum(num_forks, 1), 0)
  of_fork = jnp.where(missing == 0, 1, jnp.where(is_first, num_forks + missing, 0))
  of_probe = jnp.where(num_forks == 0, 1 + missing, 1)
  return jnp.where(is_fork, of_fork, 0) + jnp.where(is_probe, of_probe, 0)


def _nodes_by_depth(tree: Tree, end: jax.Array, max_depth: int) -> jax.Array:
  """The path to `end` by depth, `[D + 1]` int32; 0 beyond."""
  depth = jnp.where(on_path(tree, end), tree.nodes.depth, tree.no_node)
  path = jnp.zeros(max_depth + 1, jnp.int32)
  return path.at[depth].set(jnp.arange(tree.capacity), mode='drop')


class _Rollout(NamedTuple):
  """What its forks depend on, besides the plan."""

  length: jax.Array  # [] int32, depth of its end
  is_correct: jax.Array  # [] bool
  solve_rate: jax.Array  # [] float32, share of correct ends among the tree's rollouts
  is_tree_solved: jax.Array  # [] bool, any end of it is correct


def law_depths(rollout: _Rollout, draws: jax.Array, plan: ForkPlan) -> tuple[jax.Array, jax.Array]:
  """Depths of the nodes where `fork` forks a rollout.

  Args:
    rollout: which.
    draws: `[F]` float32 in [0, 1).
    plan: where forks pay.

  Returns:
    `[F]` int32 depths, `[F]` bool is_wanted.
  """
  depth = jnp.arange(plan.max_depth)
  is_inner = (depth > 0) & (depth < rollout.length)
  is_rare = rollout.is_correct & (rollout.solve_rate < RARE_SUCCESS)

  # How many, and among which depths: a rare success is worth forks wherever they are.
  count = jnp.where(is_rare, MAX_FORKS, jnp.where(plan.is_steep, 4, 2))
  is_allowed = is_inner & jnp.where(is_rare, True, plan.is_allowed)
  # Stratified: the j-th of n forks falls in the j-th n-th of the allowed depths …
  place = jnp.arange(len(draws))
  depths = _nth(is_allowed, (place + draws) / count)
  # … unless one depth is far better than the others.
  is_at_best = plan.is_steep & ~is_rare
  depths = jnp.where(is_at_best, jnp.minimum(plan.best_depth, rollout.length - 1), depths)
  return depths, (place < count) & is_allowed.any() & (depths > 0)


def sampled_depths(
  rollout: _Rollout, draws: jax.Array, plan: ForkOdds
) -> tuple[jax.Array, jax.Array]:
  """Depths of the nodes where `fork_by_sampling` forks a rollout; 0 is the root.

  Args and results are those of `law_depths`.
  """
  depths = jnp.searchsorted(plan.up_to[rollout.length], draws, side='right')
  # Where nothing is known, all odds are 0 and no depth is found.
  is_wanted = ~rollout.is_tree_solved & (depths < rollout.length)
  return jnp.minimum(depths, plan.max_depth - 1).astype(jnp.int32), is_wanted


def _with_probe(
  depths: jax.Array,
  is_wanted: jax.Array,
  draws: jax.Array,
  *,
  rollout: _Rollout,
  plan: Plan,
  settings: Settings,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Adds the probe, which measures U: at any depth, whatever the outcome.

  Args:
    depths, is_wanted: `[F]` each.
    draws: `[2]` float32, whether, and where.
    rollout, plan: of those depths.
    settings: `probe_share`.

  Returns:
    `[F + 1]` int32 depths, `[F + 1]` bool is_fork, `[F + 1]` bool is_probe.
  """
  depth = jnp.arange(plan.max_depth)
  is_inner = (depth > 0) & (depth < rollout.length)
  probe = _nth(is_inner, draws[1])
  is_probed = (draws[0] < settings.probe_share) & is_inner.any()
  is_fork = jnp.append(is_wanted, False)
  is_probe = jnp.append(jnp.zeros(is_wanted.shape, bool), is_probed)
  return jnp.append(depths, probe), is_fork, is_probe


def _nth(mask: jax.Array, share: jax.Array) -> jax.Array:
  """Index of the element of `mask` below which lies `share` of its True ones; int32."""
  seen = jnp.cumsum(mask)
  wanted = jnp.minimum(jnp.floor(share * seen[-1]), seen[-1] - 1) + 1
  index = jnp.searchsorted(seen, jnp.maximum(wanted, 1))
  return index.clip(0, mask.shape[0] - 1).astype(jnp.int32)


def _ask(before: Tree, tree: Tree) -> tuple[Tree, Allocation]:
  """Turns what is due into an Allocation of A nodes; what does not fit is asked for later.

  What is due whatever the outcomes were goes first, so that child indices do not depend on when.
  Where `before` has no new children, it is returned as it is, and nothing is asked for.
  """
  state, preorder = tree.policy, tree.nodes.preorder
  # Entries: all nodes with what is due anyway, then all nodes with their forks. The first A of
  # those with anything due are asked for, in depth-first order.
  due = jnp.concatenate([state.children_due, state.forks_due])
  order = jnp.where(due > 0, jnp.concatenate([preorder, preorder + tree.capacity]), LAST)
  negative_order, entry = jax.lax.top_k(-order, num_asked_at_once(tree.collected.shape[0]))
  is_asked = negative_order > -LAST
  node, is_fork = entry % tree.capacity, entry >= tree.capacity
  count = jnp.where(is_asked, due[entry], 0)
  # A node's forks come after what else is due at it.
  first = state.num_asked[node] + jnp.where(is_fork, state.children_due[node], 0)

  def settled(array: jax.Array, is_its_entry: jax.Array) -> jax.Array:
    rows = jnp.where(is_asked & is_its_entry, node, tree.no_node)
    return array.at[rows].set(0, mode='drop')

  tree = tree.with_policy(
    children_due=settled(state.children_due, ~is_fork),
    forks_due=settled(state.forks_due, is_fork),
    num_asked=state.num_asked.at[node].add(count),
  ).replace(
    num_in_flight=tree.num_in_flight + count.sum(),
    is_done=(tree.num_in_flight == 0) & ~is_asked.any(),
  )
  has_news = before.num_fresh > 0
  how = jnp.where(is_fork, How.FORK, How.ROLLOUT).astype(jnp.int32)
  return (
    choose(has_news, tree, before),
    Allocation(node, first, jnp.where(has_news, count, 0), how),
  )
