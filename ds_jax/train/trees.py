"""The tree-packed form: every distinct token of a tree is forwarded once.

The nodes that the trained trajectories of a group pass through stand depth first, after the prompt.
Position j is then visible to i iff j <= i < key_end[j], the end of j's subtree, so that each token
sees its own path; rotations count along the path. A group of independent rollouts is a tree that
branches at the root: its prompt is forwarded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.config import TrainConfig
from ds_jax.train.advantages import group_advantages
from ds_jax.train.batch import (
  Batch,
  Minibatch,
  add_copy,
  empty_piece,
  examples_of,
  first_fit_decreasing,
  pack,
  pack_pieces,
)
from ds_jax.train.losses import token_weights
from ds_jax.types import Trajectory

# Trees are cut into pieces of at most this share of a row; the share with the fewest rows wins.
SHARES = (1, 2, 3, 4, 6, 8)


class Branch(NamedTuple):
  """A trained trajectory of a tree, with how it is trained."""

  trajectory: Trajectory
  weight: float  # of each of its tokens in the loss
  advantage: np.ndarray  # [S] float32


class Run(NamedTuple):
  """Consecutive branches of a tree that become one piece."""

  start: int
  stop: int
  size: int  # positions, prompt included


def pack_tree_rows(groups: Minibatch, aggregation: str, row_length: int) -> Batch:
  """Packs the trained part of every group's tree into rows.

  A piece of a tree repeats the prompt and the path to where the tree was cut, while large pieces
  leave rows half empty: several sizes are tried, and the fewest rows win.

  Args:
    groups: the minibatch.
    aggregation: of the loss; weights are those of the flattened form.
    row_length: S, positions per row.

  Raises:
    InputError: if a trajectory does not fit a row.
    ValueError: if trajectories of a group share a node but not its tokens.
  """
  trees = _branches(groups, aggregation)
  costs = [_costs(tree) for tree in trees]
  layouts = [
    [(tree, run) for tree, cost in enumerate(costs) for run in _cut(*cost, row_length // share)]
    for share in SHARES
  ]

  def num_rows(layout):
    sizes = [run.size for _, run in layout]
    return first_fit_decreasing(sizes, row_length)[0].max(initial=-1)

  pieces = [
    lay_out(trees[tree][run.start : run.stop], run.size) for tree, run in min(layouts, key=num_rows)
  ]
  return pack_pieces(pieces, row_length)[0]


def pack_flat_rows(groups: Minibatch, aggregation: str, row_length: int) -> Batch:
  """The same minibatch with every trajectory on its own."""
  return pack(examples_of(groups, aggregation), row_length)[0]


PACKINGS = {'tree': pack_tree_rows, 'flat': pack_flat_rows}


def pack_minibatches(
  groups: Sequence[Sequence[Trajectory]], config: TrainConfig, response_limit: int, row_length: int
) -> tuple[list[Batch], int]:
  """The minibatches of a step, each of `minibatch_problems` whole problems.

  Args:
    groups: trajectories of each problem; a group without any counts as a problem.
    config: says how advantages are formed, aggregated and packed.
    response_limit: max_depth * T, tokens.
    row_length: S, positions per row.

  Returns:
    The batches, and the number of trajectories that they train on.
  """
  size = config.minibatch_problems
  minibatches = [
    [
      (group, group_advantages(group, config, response_limit))
      for group in groups[first : first + size]
      if group
    ]
    for first in range(0, len(groups), size)
  ]
  num_trained = sum(
    int(advantages.is_trained.sum()) for minibatch in minibatches for _, advantages in minibatch
  )
  return [
    PACKINGS[config.packing](minibatch, config.loss_aggregation, row_length)
    for minibatch in minibatches
  ], num_trained


def lay_out(branches: Sequence[Branch], size: int) -> Batch:
  """A tree of branches in depth-first order as one piece, fields `[S]`.

  Args:
    branches: of one group, sorted by `node_ids`.
    size: S, distinct tokens, prompt included.

  Raises:
    ValueError: if two of them share a node but not its tokens.
  """
  prompt = branches[0].trajectory.prompt_tokens
  piece = empty_piece(size)
  piece.tokens[: len(prompt)] = prompt
  piece.positions[: len(prompt)] = np.arange(len(prompt))
  piece.key_end[:] = len(piece.tokens)
  cursor, path, spans = len(prompt), np.zeros(0, int), []
  for trajectory, weight, advantage in branches:
    shared = _num_shared(path, trajectory.node_ids)
    for span in spans[shared:]:
      piece.key_end[span] = cursor  # nothing after here is below these nodes
    path, spans = trajectory.node_ids, spans[:shared]
    cursor = _append(piece, trajectory, shared, spans, cursor)
    where = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    _check_same(piece, where, trajectory, prompt)
    add_copy(piece, where, weight, advantage)
  return piece


def _append(
  piece: Batch, trajectory: Trajectory, shared: int, spans: list[slice], cursor: int
) -> int:
  """Writes the nodes beyond the first `shared`, extends `spans`, returns the new cursor."""
  num_prompt, first = len(trajectory.prompt_tokens), sum(s.stop - s.start for s in spans)
  size = len(trajectory.tokens) - first
  new = slice(cursor, cursor + size)
  piece.tokens[new] = trajectory.tokens[first:]
  piece.positions[new] = num_prompt + first + np.arange(size)
  piece.behavior_logprobs[new] = trajectory.behavior_logprobs[first:]
  piece.predecessor[new] -= 1
  if size:
    piece.predecessor[cursor] = (
      max([s.stop for s in spans if s.stop > s.start], default=num_prompt) - 1
    )
  for length in trajectory.node_lengths[shared:].tolist():
    spans.append(slice(cursor, cursor + length))
    cursor += length
  return cursor


def _branches(groups: Minibatch, aggregation: str) -> list[list[Branch]]:
  """The trained trajectories of each group sorted by path, weighted over the whole minibatch."""
  trained = [
    [(t, a) for t, a, is_trained in zip(trajectories, *group, strict=True) if is_trained]
    for trajectories, group in groups
  ]
  weights = iter(token_weights([len(t.tokens) for tree in trained for t, _ in tree], aggregation))
  trees = [[Branch(t, next(weights), a) for t, a in tree] for tree in trained]
  return [sorted(tree, key=lambda b: b.trajectory.node_ids.tolist()) for tree in trees if tree]


def _costs(tree: Sequence[Branch]) -> tuple[list[int], list[int]]:
  """Positions of each branch alone, and those that it adds after the branch before it."""
  ts = [branch.trajectory for branch in tree]
  added = [
    int(t.node_lengths[_num_shared(before.node_ids, t.node_ids) :].sum())
    for before, t in zip(ts, ts[1:], strict=False)
  ]
  return [len(t.prompt_tokens) + len(t.tokens) for t in ts], [0, *added]


def _cut(alone: Sequence[int], added: Sequence[int], limit: int) -> Iterator[Run]:
  """Runs of at most `limit` positions; a single branch may be longer."""
  start, size = 0, alone[0]
  for i in range(1, len(alone)):
    if size + added[i] > limit:
      yield Run(start, i, size)
      start, size = i, alone[i]
    else:
      size += added[i]
  yield Run(start, len(alone), size)


def _num_shared(a: np.ndarray, b: np.ndarray) -> int:
  """Leading nodes that two paths have in common."""
  size = min(len(a), len(b))
  return int(np.cumprod(a[:size] == b[:size]).sum())


def _check_same(piece: Batch, where: np.ndarray, t: Trajectory, prompt: np.ndarray) -> None:
  if not (
    np.array_equal(prompt, t.prompt_tokens)
    and np.array_equal(piece.tokens[where], t.tokens)
    and np.array_equal(piece.behavior_logprobs[where], t.behavior_logprobs)
  ):
    raise ValueError(
      f'Trajectories of problem {t.problem_id!r}, group {t.group}, share nodes of the path '
      f'{t.node_ids.tolist()} but not their tokens; number nodes uniquely within a group.'
    )
