"""The tree-packed form: every distinct token of a tree is forwarded once.

The nodes that the trained trajectories of a group pass through stand depth first, after the prompt.
Position j is then visible to i iff j <= i < key_end[j], the end of j's subtree, so that each token
sees its own path; rotations count along the path. A group of independent rollouts is a tree that
branches at the root: its prompt is forwarded once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ds_jax.checks import check_shape
from ds_jax.config import TrainConfig, goes_by_trajectory
from ds_jax.train.advantages import group_advantages
from ds_jax.train.batch import (
  Batch,
  Branch,
  Minibatch,
  RowShape,
  add_copy,
  empty_piece,
  examples_of,
  first_fit_decreasing,
  pack,
  pack_pieces,
  trained_branches,
)
from ds_jax.types import Trajectory

# Trees are cut into pieces of at most a row's length divided by one of these; the divisor that
# needs the fewest rows wins.
DIVISORS = (1, 2, 3, 4, 6, 8)


class Run(NamedTuple):
  """Consecutive branches of a tree that become one piece."""

  start: int
  stop: int
  size: int  # positions, prompt included


class Packed(NamedTuple):
  """The minibatches of a step."""

  batches: list[Batch]
  num_trained: int  # trajectories that they train on, lessons included
  lesson_tokens: int  # response tokens of lessons
  lesson_mass: float  # sum of |weight * advantage| over these
  prefix_tokens: int = 0  # of prefixes that are trained on
  prefix_mass: float = 0.0  # likewise


class Sizes(NamedTuple):
  """Positions that each branch of a sorted tree needs."""

  alone: list[int]  # if it begins a piece: prompt and response
  added: list[int]  # after the branch before it in the same piece


def pack_tree_rows(
  trees: Sequence[Sequence[Branch]], row_length: int, *, has_ends: bool = False
) -> Batch:
  """Packs the trained part of every group's tree into rows.

  A piece of a tree repeats the prompt and the path to where the tree was cut, while large pieces
  leave rows half empty: several sizes are tried, and the fewest rows win.

  Args:
    trees: of a minibatch, from `trained_branches`.
    row_length: S, positions per row.
    has_ends: the loss needs `Batch.ends`.

  Raises:
    InputError: if a trajectory does not fit a row.
    ValueError: if trajectories of a group share a node but not its tokens.
  """
  trees = _depth_first(trees)
  tightest = _tightest([_sizes(tree) for tree in trees], row_length)
  pieces = []
  for tree, runs in zip(trees, tightest, strict=True):
    for start, stop, size in runs:
      pieces.append(lay_out(tree[start:stop], size, has_ends=has_ends))
  return pack_pieces(pieces, row_length)[0]


def pack_flat_rows(
  trees: Sequence[Sequence[Branch]], row_length: int, *, has_ends: bool = False
) -> Batch:
  """Packs the same minibatch with every trajectory on its own."""
  return pack(examples_of(trees), row_length, has_ends=has_ends)[0]


PACKINGS = {'tree': pack_tree_rows, 'flat': pack_flat_rows}


def choose_shape(
  trees: Sequence[Sequence[Branch]], shapes: Sequence[RowShape], packing: Literal['tree', 'flat']
) -> RowShape:
  """Returns the shape in which an update forwards the fewest positions, padding included.

  Of equals the one with the longest rows.

  Args:
    trees: of a minibatch, from `trained_branches`.
    shapes: from `row_shapes`.
    packing: a key of PACKINGS.
  """
  lengths = [len(t.prompt_tokens) + len(t.tokens) for tree in trees for t, *_ in tree]
  sizes = [_sizes(tree) for tree in _depth_first(trees)]

  def num_positions(shape: RowShape) -> int:
    if packing == 'tree':
      num_rows = _num_rows(_tightest(sizes, shape.row_length), shape.row_length)
    else:
      num_rows = first_fit_decreasing(lengths, shape.row_length).row.max(initial=-1) + 1
    num_passes = -(-num_rows // shape.micro_rows)
    return num_passes * shape.micro_rows * shape.row_length

  *shorter, longest = shapes
  candidates = [longest]
  for shape in reversed(shorter):
    if max(lengths, default=0) <= shape.row_length:
      candidates.append(shape)
  if len(candidates) == 1:
    return longest
  return min(candidates, key=num_positions)


def pack_minibatches(
  groups: Sequence[Sequence[Trajectory]],
  config: TrainConfig,
  response_limit: int,
  *,
  shapes: Sequence[RowShape],
  lessons: Sequence[Minibatch] = (),
  prefixes: Sequence[Minibatch] = (),
  temperature: float | None = None,
) -> Packed:
  """Packs the minibatches of a step, each of `minibatch_problems` whole problems.

  There is one at least, also where there is no group: lessons are learnt, or the update is skipped.

  Args:
    groups: trajectories of each problem; a group without any counts as a problem.
    config: says how advantages are formed, aggregated and packed.
    response_limit: max_depth * T, tokens.
    shapes: of rows, from `row_shapes`; each minibatch has one of them.
    lessons: what each minibatch trains on besides, with its advantages (train/memory.py).
    prefixes: likewise, the beginnings of responses that its groups were given (train/prefixes.py).
    temperature: see `trained_branches`.

  Returns:
    The batches, and what they came to.
  """
  size = config.minibatch_problems
  batches, num_trained = [], 0
  of_lessons, of_prefixes = [], []  # branches
  for index, first in enumerate(range(0, max(len(groups), 1), size)):
    learnt = lessons[index] if lessons else ()
    given = prefixes[index] if prefixes else ()
    minibatch = [*learnt, *given]
    for group in groups[first : first + size]:
      if group:
        minibatch.append((group, group_advantages(group, config, response_limit)))
    trees = trained_branches(minibatch, config.loss_aggregation, temperature)
    batches.append(pack_trees(trees, config, shapes))
    num_trained += sum(map(len, trees))
    of_lessons += itertools.chain.from_iterable(trees[: len(learnt)])
    of_prefixes += itertools.chain.from_iterable(trees[len(learnt) :][: len(given)])
  lessons_came_to, prefixes_came_to = _tokens_and_mass(of_lessons), _tokens_and_mass(of_prefixes)
  return Packed(batches, num_trained, *lessons_came_to, *prefixes_came_to)


def _tokens_and_mass(branches: Sequence[Branch]) -> tuple[int, float]:
  """Response tokens of some branches, and the sum of |weight * advantage| over them."""
  tokens, mass = 0, 0.0
  for branch in branches:
    tokens += len(branch.advantage)
    mass += branch.weight * float(np.abs(branch.advantage).sum())
  return tokens, mass


def pack_trees(
  trees: Sequence[Sequence[Branch]], config: TrainConfig, shapes: Sequence[RowShape]
) -> Batch:
  """Packs one minibatch in rows of the shape that fits it."""
  shape = choose_shape(trees, shapes, config.packing)
  has_ends = goes_by_trajectory(config)
  return PACKINGS[config.packing](trees, shape.row_length, has_ends=has_ends)


def lay_out(branches: Sequence[Branch], size: int, *, has_ends: bool = False) -> Batch:
  """Returns a tree of branches in depth-first order as one piece, fields `[S]`.

  Args:
    branches: of one group, sorted by `node_ids`.
    size: S, distinct tokens, prompt included.
    has_ends: the loss needs `Batch.ends`.

  Raises:
    ValueError: if two of them share a node but not its tokens.
  """
  prompt = branches[0].trajectory.prompt_tokens
  piece = empty_piece(size, branches[0].temperature, has_ends=has_ends)
  piece.tokens[: len(prompt)] = prompt
  piece.positions[: len(prompt)] = np.arange(len(prompt))
  piece.key_end[:] = size  # until a later branch leaves the node
  cursor = len(prompt)  # the next free position
  path, spans = np.zeros(0, int), []  # nodes of the branch before, and where each of them stands
  for t, weight, advantage, temperature in branches:
    num_shared = _num_shared(path, t.node_ids)
    for span in spans[num_shared:]:
      piece.key_end[span] = cursor  # nothing from here on is below these nodes
    path, spans = t.node_ids, spans[:num_shared]
    _append(piece, t, spans, cursor=cursor)
    for length in t.node_lengths[num_shared:].tolist():
      spans.append(slice(cursor, cursor + length))
      cursor += length
    where = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    _check_same(piece, where, t, prompt=prompt)
    if temperature is not None:
      piece.temperature[where] = temperature
    check_shape('advantage', advantage, t.tokens.shape)
    add_copy(piece, where, weight=weight, advantage=advantage)
  return piece


def _append(piece: Batch, trajectory: Trajectory, shared: Sequence[slice], *, cursor: int) -> None:
  """Writes what a trajectory adds to a piece, from `cursor` on.

  Args:
    piece: fields `[S]`, changed in place.
    trajectory: the next one in depth-first order.
    shared: where the nodes stand that it shares with the one before it.
    cursor: the next free position.
  """
  num_prompt = len(trajectory.prompt_tokens)
  num_shared = sum(span.stop - span.start for span in shared)  # tokens
  num_new = len(trajectory.tokens) - num_shared
  new = slice(cursor, cursor + num_new)
  piece.tokens[new] = trajectory.tokens[num_shared:]
  piece.behavior_logprobs[new] = trajectory.behavior_logprobs[num_shared:]
  piece.positions[new] = num_prompt + num_shared + np.arange(num_new)
  # Each token is predicted by the position before it, but the first by the end of what is shared.
  piece.predecessor[new] -= 1
  if num_new:
    stops = [span.stop for span in shared if span.stop > span.start]
    piece.predecessor[cursor] = (stops[-1] if stops else num_prompt) - 1


def _depth_first(trees: Sequence[Sequence[Branch]]) -> list[list[Branch]]:
  """Returns the trees that have branches, these sorted."""
  return [sorted(tree, key=_path_of) for tree in trees if tree]


def _path_of(branch: Branch) -> list[int]:
  return branch.trajectory.node_ids.tolist()


def _sizes(tree: Sequence[Branch]) -> Sizes:
  trajectories = [branch.trajectory for branch in tree]
  alone = [len(t.prompt_tokens) + len(t.tokens) for t in trajectories]
  added = [0]
  for before, t in itertools.pairwise(trajectories):
    num_shared = _num_shared(before.node_ids, t.node_ids)
    added.append(int(t.node_lengths[num_shared:].sum()))
  return Sizes(alone, added)


def _cut(sizes: Sizes, limit: int) -> list[Run]:
  """Cuts a sorted tree into runs of at most `limit` positions; a single branch may be longer."""
  runs, start, size = [], 0, sizes.alone[0]
  for i in range(1, len(sizes.alone)):
    if size + sizes.added[i] <= limit:
      size += sizes.added[i]
    else:
      runs.append(Run(start, i, size))
      start, size = i, sizes.alone[i]
  runs.append(Run(start, len(sizes.alone), size))
  return runs


def _tightest(sizes: Sequence[Sizes], row_length: int) -> list[list[Run]]:
  """Returns how trees are cut into pieces so that they need the fewest rows."""
  layouts = [[_cut(s, row_length // divisor) for s in sizes] for divisor in DIVISORS]
  return min(layouts, key=lambda layout: _num_rows(layout, row_length))


def _num_rows(layout: Sequence[Sequence[Run]], row_length: int) -> int:
  """Returns how many rows the pieces of a layout need."""
  sizes = [run.size for runs in layout for run in runs]
  origin = first_fit_decreasing(sizes, row_length)
  return origin.row.max(initial=-1) + 1


def _num_shared(a: np.ndarray, b: np.ndarray) -> int:
  """Returns how many leading nodes two paths have in common."""
  size = min(len(a), len(b))
  is_same = a[:size] == b[:size]
  return int(np.cumprod(is_same).sum())  # the product is 0 from the first difference on


def _check_same(piece: Batch, where: np.ndarray, t: Trajectory, *, prompt: np.ndarray) -> None:
  """Raises ValueError unless a piece holds a trajectory's prompt, tokens and log-probs."""
  is_same = (
    np.array_equal(prompt, t.prompt_tokens)
    and np.array_equal(piece.tokens[where], t.tokens)
    and np.array_equal(piece.behavior_logprobs[where], t.behavior_logprobs, equal_nan=True)
  )
  if not is_same:
    raise ValueError(
      f'Trajectories of problem {t.problem_id!r}, group {t.group}, share nodes of the path '
      f'{t.node_ids.tolist()} but not their tokens; number nodes uniquely within a group.'
    )
