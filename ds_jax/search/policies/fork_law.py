"""Where forks pay: ends that disagree, by the depth at which their paths split.

For any problem a fresh continuation from depth d of a failed rollout succeeds with probability
p U_d, where U_d is the disagreement rate of end pairs that split at depth d over that of pairs that
split at the root. It costs the share x of a rollout. So forking at d brings more right ends for its
cost than restarting iff U_d / x > 1; p cancels. Pairs must not have been chosen by their outcome.
That a fork teaches more does not follow: forks of one failure tend to come out alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.search.decode_cost import DecodeCost
from ds_jax.search.policies.base import ForkPlan, no_forks
from ds_jax.types import FinishedTree

MAX_BINS = 16  # deeper trees pool neighbouring depths
NUM_BLOCKS = 8  # that the trees of a step are summed in; the bootstrap draws blocks
MAX_BLOCKS = 160  # in a history: the last 20 steps
NUM_RESAMPLES = 500
QUANTILE = 0.1  # of the resampled U/x, the bound that must exceed MIN_RATIO
MIN_RATIO = 1.15
MIN_SHARE = 0.12  # of a rollout's tokens that must be left
STEEP_RATIO = 4.0  # U/x beyond which all forks go to the best depth
INTERVAL = (0.025, 0.975)  # quantiles of the resampled U/x that are shown


def split_counts(tree: FinishedTree, max_depth: int) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of verified ends by the depth of the node where their paths split.

  Args:
    tree: the finished tree; ends below forks that an outcome placed are left out.
    max_depth: bins 0..max_depth - 1.

  Returns:
    Pairs and disagreeing pairs (one correct, one not), `[max_depth]` int64.
  """
  pairs, disagreements, _ = split_table(tree, max_depth)
  return pairs.astype(np.int64), disagreements.astype(np.int64)


def split_table(tree: FinishedTree, max_depth: int) -> np.ndarray:
  """Pairs of ends, disagreeing pairs, and tokens beyond the split, by the depth of the split.

  A node with n ends, s of them correct, of S tokens in all, has n (n - 1) / 2 pairs at or below it,
  s (n - s) disagreements, and (n - 1) S / 2 tokens; what its children hold is not split at it.

  Returns:
    `[3, max_depth]` float64; the last row is the sum over pairs of the tokens that their ends have,
    on average, beyond the split.
  """
  is_end = tree.is_terminal & (tree.num_ends > 0) & ~tree.is_outcome_chosen
  is_correct = is_end & (tree.num_correct > 0)
  deepest = int(tree.depth.max(initial=0))
  levels = [np.flatnonzero(tree.depth == depth) for depth in range(1, deepest + 1)]

  # Downwards: tokens from the root to each node.
  path_tokens = np.diff(tree.token_start).astype(np.float64)
  for nodes in levels:
    path_tokens[nodes] += path_tokens[tree.parent[nodes]]

  # Upwards: n, s and S of the ends at or below each node.
  below = np.stack([is_end, is_correct, is_end * path_tokens]).astype(np.float64)
  for nodes in reversed(levels):
    np.add.at(below.T, tree.parent[nodes], below[:, nodes].T)
  n, s, tokens = below

  # Pairs at or below each node, less those at or below its children.
  within = np.stack([n * (n - 1) / 2, s * (n - s), (n - 1).clip(0) * tokens / 2])
  children = np.flatnonzero(tree.parent >= 0)
  split_here = within.copy()
  np.subtract.at(split_here.T, tree.parent[children], within[:, children].T)
  # Tokens from the root on, less those that a pair shares.
  split_here[2] -= split_here[0] * path_tokens

  is_binned = tree.depth < max_depth
  depths = tree.depth[is_binned]
  return np.stack([np.bincount(depths, row[is_binned], max_depth) for row in split_here])


def unresolved_over_cost(
  pairs: np.ndarray,
  disagreements: np.ndarray,
  tokens_left: np.ndarray | None = None,
  *,
  cost: DecodeCost | None = None,
) -> np.ndarray:
  """U_d / x by depth d, `[..., D]` float64; NaN where no pair was seen.

  Args:
    pairs, disagreements: `[..., D]`, see `split_counts`.
    tokens_left: `[..., D]`, see `split_table`; None: all ends lie at depth D, x = 1 - d / D.
    cost: x is in predicted time; None: in tokens.
  """
  with np.errstate(invalid='ignore', divide='ignore'):
    rate = disagreements / pairs
    if tokens_left is None:
      share_left = 1 - np.arange(pairs.shape[-1]) / pairs.shape[-1]
    elif cost is not None:
      share_left = cost.share_of_time(tokens_left / pairs)
    else:
      share_left = share_of_tokens(pairs, tokens_left)
    return rate / rate[..., :1] / share_left


def share_of_tokens(pairs: np.ndarray, tokens_left: np.ndarray) -> np.ndarray:
  """x by depth, `[..., D]`: tokens beyond the split over those of ends that split at the root."""
  with np.errstate(invalid='ignore', divide='ignore'):
    left = tokens_left / pairs
    return left / left[..., :1]


class RatioInterval(NamedTuple):
  """U/x by depth, each `[D]` float64; NaN or infinite where it cannot be told."""

  ratio: np.ndarray  # of all counts together
  low: np.ndarray  # bounds of 95 % of the resampled ones
  high: np.ndarray


def ratio_interval(tables: np.ndarray, cost: DecodeCost | None = None) -> RatioInterval:
  """U/x with the interval of a bootstrap over the tables. Deterministic.

  Args:
    tables: `[n, 3, D]`, see `split_table`, of n problems or blocks of trees.
    cost: x is in predicted time; None: in tokens.
  """
  ratio = unresolved_over_cost(*tables.sum(0), cost=cost)
  if len(tables) < 2:
    unknown = np.full(ratio.shape, np.nan)
    return RatioInterval(ratio, unknown, unknown)
  ratios = unresolved_over_cost(*_resampled(tables), cost=cost)
  low, high = INTERVAL
  # A resample without pairs bounds nothing.
  return RatioInterval(
    ratio,
    low=np.quantile(np.nan_to_num(ratios, nan=-np.inf), low, axis=0, method='lower'),
    high=np.quantile(np.nan_to_num(ratios, nan=np.inf), high, axis=0, method='higher'),
  )


def _resampled(tables: np.ndarray) -> np.ndarray:
  """Sums of `[n, 3, D]` tables as often as each resample has them, `[3, R, D]`."""
  count = len(tables)
  rng = np.random.default_rng(count)
  draws = rng.multinomial(count, np.full(count, 1 / count), NUM_RESAMPLES)
  return np.einsum('rn,ncd->crd', draws, tables)


def depth_bins(max_depth: int) -> np.ndarray:
  """Bin of each depth, `[max_depth]`; the root has one of its own."""
  depth = np.arange(max_depth)
  if max_depth <= MAX_BINS:
    return depth
  return np.where(depth == 0, 0, 1 + (depth - 1) * (MAX_BINS - 1) // (max_depth - 1))


@dataclasses.dataclass(frozen=True)
class SplitHistory:
  """Split tables of recent steps, summed over blocks of trees; part of a checkpoint."""

  blocks: tuple[tuple[tuple[float, ...], ...], ...] = ()  # n x 3 x bins, the newest last

  def add(self, trees: Sequence[FinishedTree], max_depth: int) -> SplitHistory:
    """The history with the trees of one more step."""
    if not trees:
      return self
    tables = np.stack([_binned(split_table(tree, max_depth)) for tree in trees])
    new = []
    for first in range(min(NUM_BLOCKS, len(trees))):
      block = tables[first::NUM_BLOCKS].sum(0)
      new.append(tuple(tuple(row) for row in block.tolist()))
    return SplitHistory((*self.blocks, *new)[-MAX_BLOCKS:])

  def to_json(self) -> list[Any]:
    return [[list(row) for row in block] for block in self.blocks]

  @classmethod
  def from_json(cls, blocks: list[Any]) -> SplitHistory:
    return cls(tuple(tuple(tuple(row) for row in block) for block in blocks))


@dataclasses.dataclass(frozen=True)
class Strata:
  """Split tables of problems that were not solved before they were searched, and of the others.

  What a problem belongs to is known before its tree is grown, so that no pair is chosen by its
  outcome.
  """

  unsolved: SplitHistory = SplitHistory()
  solved: SplitHistory = SplitHistory()

  def add(self, trees: Sequence[FinishedTree], solved: Collection[str], max_depth: int) -> Strata:
    """The histories with the trees of one more step.

    Args:
      trees: of the step.
      solved: ids of problems that were solved before it.
      max_depth: of the search.
    """
    known = [tree for tree in trees if tree.problem_id in solved]
    new = [tree for tree in trees if tree.problem_id not in solved]
    return Strata(self.unsolved.add(new, max_depth), self.solved.add(known, max_depth))

  def to_json(self) -> dict[str, Any]:
    return {'unsolved': self.unsolved.to_json(), 'solved': self.solved.to_json()}

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> Strata:
    if not fields:
      return cls()
    return cls(*(SplitHistory.from_json(fields[name]) for name in ('unsolved', 'solved')))


def fork_plan(history: SplitHistory, max_depth: int) -> ForkPlan:
  """Depths at which forks pay: the lower bound of U/x exceeds 1.15 and 12 % of the tokens are left.

  The bound is the 10 % quantile over a bootstrap of blocks of trees, so few pairs, or pairs in one
  block, allow nothing. Whether U/x is steep is read off the pooled counts, at the depth with the
  highest bound: the bound itself takes thousands of pairs to get near. Deterministic.
  """
  if len(history.blocks) < 2:
    return no_forks(max_depth)
  blocks = np.array(history.blocks)
  ratios = unresolved_over_cost(*_resampled(blocks))
  # A depth without pairs bounds nothing; where all root pairs agree U/x is infinite.
  finite = np.nan_to_num(ratios, nan=-np.inf, posinf=np.finfo(float).max)
  bound = np.quantile(finite, QUANTILE, axis=0, method='lower')

  pairs, disagreements, tokens_left = blocks.sum(0)
  share = np.nan_to_num(share_of_tokens(pairs, tokens_left))
  is_allowed = (bound > MIN_RATIO) & (share >= MIN_SHARE)
  is_allowed[0] = False
  best = int(np.argmax(np.where(is_allowed, bound, -np.inf)))
  pooled = unresolved_over_cost(pairs, disagreements, tokens_left)

  bins = depth_bins(max_depth)
  depths_of_best = np.flatnonzero(bins == best)
  return ForkPlan(
    is_allowed=is_allowed[bins],
    best_depth=np.int32(depths_of_best[len(depths_of_best) // 2]),
    is_steep=np.bool_(is_allowed.any() and pooled[best] > STEEP_RATIO),
  )


def split_metrics(
  history: SplitHistory, max_depth: int, *, which: str, cost: DecodeCost
) -> dict[str, float]:
  """U/x in tokens and in time by depth, with intervals, for the log.

  A bin is named by its first depth. What is not finite is absent.

  Args:
    history: of some problems.
    max_depth: of the search.
    which: problems, in the names of the metrics.
    cost: of tokens.
  """
  if not history.blocks:
    return {}
  tables, bins = np.array(history.blocks), depth_bins(max_depth)
  metrics = {}
  for name, over in (('u_over_x', None), ('u_over_x_time', cost)):
    interval = ratio_interval(tables, over)
    for i in range(1, bins[-1] + 1):
      depth = int(np.argmax(bins == i))
      for bound, values in interval._asdict().items():
        if np.isfinite(values[i]):
          suffix = '' if bound == 'ratio' else f'_{bound}'
          metrics[f'search/{which}_{name}_depth_{depth}{suffix}'] = float(values[i])
  return metrics


def _binned(table: np.ndarray) -> np.ndarray:
  """A split table `[3, max_depth]` by bins, `[3, bins]`."""
  bins = depth_bins(table.shape[1])
  return np.stack([np.bincount(bins, row, bins[-1] + 1) for row in table])
