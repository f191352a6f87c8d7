"""Rows that one forward pass of the learner reads, and how pieces of text are laid out in them.

A *piece* is a run of consecutive positions that see nothing outside it: one sequence here, a tree
in trees.py. Several pieces share a row. Each response token is scored by the position of its
predecessor, which need not be the position before it: where a tree branches, a token has several
successors.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ds_jax.checks import InputError, check_shape
from ds_jax.config import TrainConfig
from ds_jax.train.advantages import GroupAdvantages
from ds_jax.train.losses import Copies, token_weights
from ds_jax.types import Trajectory

# Rows of packed trees are at least this long; measured by tests/benchmarks/packed_update.py.
TREE_ROW_LENGTH = 128

# A minibatch of whole problems: the trajectories of each, and their advantages.
Minibatch = Sequence[tuple[Sequence[Trajectory], GroupAdvantages]]


class Branch(NamedTuple):
  """A trained trajectory of a tree, with how it is trained."""

  trajectory: Trajectory
  weight: float  # of each of its tokens in the loss
  advantage: np.ndarray  # [S] float32
  temperature: float | None = None  # that it is scored at; None: as the learner scores all


class Example(NamedTuple):
  """One sequence to train on or to score."""

  prompt_tokens: np.ndarray  # [P] int32
  response_tokens: np.ndarray  # [S] int32
  weight: float  # of each response token in the loss
  advantage: np.ndarray  # [S] float32
  behavior_logprobs: np.ndarray  # [S] float32
  temperature: float | None = None  # as in Branch


class Batch(NamedTuple):
  """Rows of packed pieces. A piece has the same fields without the axis R.

  Indices count from the start of the row, and in a piece from the start of the piece.

  A token may stand for several copies, one in each trajectory that it belongs to. The clipped loss
  is positively homogeneous in the advantage, so the copies collapse exactly to the sums of their
  weighted positive and negative advantages. Counts are unweighted, and 0 where nothing is scored.
  """

  tokens: np.ndarray  # [R, S] int32
  positions: np.ndarray  # [R, S] int32, distance from the start of the prompt along the path
  key_end: np.ndarray  # [R, S] int32, one past the last position that sees this one; padding: own
  predecessor: np.ndarray  # [R, S] int32, position that predicts this token; own if none does
  behavior_logprobs: np.ndarray  # [R, S] float32
  reference_logprobs: np.ndarray  # [R, S] float32, of the reference policy, where a loss needs it
  weight: np.ndarray  # [R, S] float32, sum of the copies' weights in the loss
  positive: np.ndarray  # [R, S] float32, sum of weight * max(advantage, 0)
  negative: np.ndarray  # [R, S] float32, sum of weight * max(-advantage, 0)
  num_copies: np.ndarray  # [R, S] float32
  num_positive: np.ndarray  # [R, S] float32, copies with advantage > 0
  num_negative: np.ndarray  # [R, S] float32, copies with advantage < 0
  # [R, S] float32 > 0, that each token is scored at; None: one for all, the learner's
  temperature: np.ndarray | None = None
  # [R, S] each, sums over the trajectories that end at each token: of all their tokens, where above
  # it is of their copies of the one token. None: the loss goes by tokens
  ends: Copies | None = None

  @property
  def token_mask(self) -> np.ndarray:
    """`[R, S]` bool, response tokens that are scored."""
    return self.num_copies > 0


class Origin(NamedTuple):
  """Where each packed piece, or its response, begins. Stays on the host."""

  row: np.ndarray  # [pieces] int
  start: np.ndarray  # [pieces] int


class RowShape(NamedTuple):
  """The shape of a forward and backward pass."""

  micro_rows: int  # rows per pass, over all devices
  row_length: int  # S


def row_shape(config: TrainConfig, row_shards: int) -> RowShape:
  """Returns the shape of the longest rows of updates, and of all others that a run has.

  Rows of packed trees are longer, and fewer in proportion: the tokens per pass are at most
  `micro_rows * row_length`, unless every shard would be left without a row.

  Args:
    config: `packing`, `row_length`, `tree_row_length` (0: chosen here) and `micro_rows`.
    row_shards: devices that rows are split over; the rows are a multiple of it.
  """
  if config.packing == 'flat':
    return RowShape(config.micro_rows, config.row_length)
  length = config.tree_row_length or max(config.row_length, TREE_ROW_LENGTH)
  rows = config.micro_rows * config.row_length // length
  rows_per_shard = max(rows // row_shards, 1)
  return RowShape(rows_per_shard * row_shards, length)


def row_shapes(config: TrainConfig, row_shards: int) -> list[RowShape]:
  """Returns the shapes that updates may have, the longest rows last: few, each compiles once.

  A pass has as many tokens in short rows as it has in long ones, or a little less. Lengths are
  multiples of 8, but for the longest.

  Args:
    config: `row_lengths`, and the fields that `row_shape` reads.
    row_shards: devices that rows are split over.
  """
  longest = row_shape(config, row_shards)
  shapes = []
  for i in range(1, config.row_lengths):
    length = -(-longest.row_length * i // (8 * config.row_lengths)) * 8
    rows_per_shard = longest.micro_rows // row_shards * longest.row_length // length
    shape = RowShape(rows_per_shard * row_shards, length)
    if length < longest.row_length and shape not in shapes:
      shapes.append(shape)
  return [*shapes, longest]


def trained_branches(
  groups: Minibatch, aggregation: str, temperature: float | None = None
) -> list[list[Branch]]:
  """Returns the trained trajectories of each group, weighted over the whole minibatch.

  Args:
    groups: the minibatch.
    aggregation: of the loss, see `token_weights`.
    temperature: that of trajectories which have none of their own, as config's
      `scored_temperature` says; None: those of trajectories are not read.

  Returns:
    One list per group, empty where none of its trajectories trains.
  """
  trained = [_trained(trajectories, advantages) for trajectories, advantages in groups]
  lengths = [len(t.tokens) for tree in trained for t, _ in tree]
  weights = iter(token_weights(lengths, aggregation))
  trees = []
  for tree in trained:
    branches = []
    for t, advantage in tree:
      branches.append(Branch(t, next(weights), advantage, _scored_at(t, temperature)))
    trees.append(branches)
  return trees


def examples_of(trees: Sequence[Sequence[Branch]]) -> list[Example]:
  """Returns the branches of all trees as sequences of their own, in order."""
  examples = []
  for tree in trees:
    for t, weight, advantage, temperature in tree:
      example = Example(
        t.prompt_tokens,
        t.tokens,
        weight,
        advantage=advantage,
        behavior_logprobs=t.behavior_logprobs,
        temperature=temperature,
      )
      examples.append(example)
  return examples


def plain_examples(
  pairs: Sequence[tuple[np.ndarray, np.ndarray]], temperature: float | None = None
) -> list[Example]:
  """Returns pairs as sequences to score, or to imitate with the mean over all tokens.

  Args:
    pairs: (prompt `[P]` int32, response `[S]` int32).
    temperature: that they are scored at; None: the learner's.
  """
  weights = token_weights([len(response) for _, response in pairs], 'token_mean')
  examples = []
  for (prompt, response), weight in zip(pairs, weights, strict=True):
    zeros = np.zeros(len(response), np.float32)
    example = Example(
      prompt,
      response,
      weight,
      advantage=zeros,
      behavior_logprobs=zeros,
      temperature=temperature,
    )
    examples.append(example)
  return examples


def pack(
  examples: Sequence[Example], row_length: int, *, has_ends: bool = False
) -> tuple[Batch, Origin]:
  """Packs sequences in the flattened form: each is a piece of its own.

  Args:
    examples: the sequences, prompt and response together at most `row_length` tokens.
    row_length: S, positions per row.
    has_ends: the loss needs `Batch.ends`.

  Returns:
    The batch, with as many rows as needed (none for no examples), and where each response begins.

  Raises:
    InputError: if a sequence does not fit a row.
    ValueError: if an advantage or log-prob is not one per response token.
  """
  pieces = [_sequence(example, has_ends=has_ends) for example in examples]
  batch, origin = pack_pieces(pieces, row_length)
  prompt_lengths = np.array([len(example.prompt_tokens) for example in examples], int)
  return batch, origin._replace(start=origin.start + prompt_lengths)


def pack_pieces(pieces: Sequence[Batch], row_length: int) -> tuple[Batch, Origin]:
  """Packs pieces into as few rows as first-fit decreasing finds; deterministic.

  Returns:
    The batch, and where each piece begins.

  Raises:
    InputError: if a piece does not fit a row.
  """
  sizes = [len(piece.tokens) for piece in pieces]
  origin = first_fit_decreasing(sizes, row_length)
  num_rows = int(origin.row.max(initial=-1)) + 1
  batch = empty_batch(
    num_rows,
    row_length,
    has_temperatures=any(piece.temperature is not None for piece in pieces),
    has_ends=any(piece.ends is not None for piece in pieces),
  )
  for piece, row, start in zip(pieces, *origin, strict=True):
    size = len(piece.tokens)
    # Indices counted from the start of the piece count from the start of the row now.
    moved = piece._replace(key_end=piece.key_end + start, predecessor=piece.predecessor + start)
    leaves = zip(jax.tree.leaves(batch), jax.tree.leaves(moved), strict=True)
    for of_batch, of_piece in leaves:
      of_batch[row, start : start + size] = of_piece
  return batch, origin


def first_fit_decreasing(lengths: Sequence[int], row_length: int) -> Origin:
  """Places pieces longest first, each into the first row with room.

  Raises:
    InputError: if a piece does not fit a row.
  """
  lengths = np.asarray(lengths, int)
  check_shape('lengths', lengths, [None])
  _check_fits(lengths, row_length)
  rows = np.zeros(len(lengths), int)
  starts = np.zeros(len(lengths), int)
  free = np.full(len(lengths), row_length)  # of each row; there are never more rows than pieces
  for index in np.argsort(-lengths, kind='stable'):
    row = int(np.argmax(free >= lengths[index]))
    rows[index] = row
    starts[index] = row_length - free[row]
    free[row] -= lengths[index]
  return Origin(rows, starts)


def empty_batch(
  num_rows: int, row_length: int, *, has_temperatures: bool = False, has_ends: bool = False
) -> Batch:
  """Returns rows of padding, `[R, S]`: nothing is seen, nothing is scored."""
  piece = empty_piece(row_length, 1.0 if has_temperatures else None, has_ends=has_ends)
  return jax.tree.map(lambda field: np.repeat(field[None], num_rows, axis=0), piece)


def empty_piece(size: int, temperature: float | None = None, *, has_ends: bool = False) -> Batch:
  """Returns `[size]` positions of padding, with that temperature if there is one."""
  zeros = np.zeros(size, np.float32)
  index = np.arange(size, dtype=np.int32)
  piece = Batch(
    tokens=np.zeros(size, np.int32),
    positions=np.zeros(size, np.int32),
    key_end=index,  # nothing sees it, itself included
    predecessor=index,
    behavior_logprobs=zeros,
    reference_logprobs=zeros,
    weight=zeros,
    positive=zeros,
    negative=zeros,
    num_copies=zeros,
    num_positive=zeros,
    num_negative=zeros,
    temperature=None if temperature is None else np.full(size, temperature, np.float32),
    ends=Copies(zeros, zeros, zeros, zeros) if has_ends else None,
  )
  return jax.tree.map(np.copy, piece)  # fields are written to, each on its own


def add_copy(
  piece: Batch, where: np.ndarray | slice, *, weight: float, advantage: np.ndarray | float
) -> None:
  """Counts one trajectory's copy of the tokens at `where`, in place.

  With weight w and advantage A it adds w, w max(A, 0) and w max(-A, 0) to the sums that the
  collapsed loss reads (see `losses.Copies`), and what they are for all its tokens together to
  `ends`, if the piece has these.

  Args:
    piece: fields `[S]`.
    where: positions of the trajectory's response tokens, each once, in order.
    weight: of each of its tokens in the loss.
    advantage: of its tokens; with `ends` all have the same.
  """
  piece.weight[where] += weight
  piece.positive[where] += weight * np.maximum(advantage, 0)
  piece.negative[where] += weight * np.maximum(-advantage, 0)
  piece.num_copies[where] += 1
  piece.num_positive[where] += np.greater(advantage, 0)
  piece.num_negative[where] += np.less(advantage, 0)
  if piece.ends is not None:
    positions = np.arange(len(piece.tokens))[where]
    if len(positions):
      _add_end(
        piece.ends, positions, weight=weight, advantage=float(np.mean(advantage, dtype=float))
      )


def _add_end(ends: Copies, positions: np.ndarray, *, weight: float, advantage: float) -> None:
  """Counts all tokens of one trajectory's copy at the last of them, in place."""
  last, num_tokens = positions[-1], len(positions)
  ends.positive[last] += weight * num_tokens * max(advantage, 0.0)
  ends.negative[last] += weight * num_tokens * max(-advantage, 0.0)
  ends.num_positive[last] += num_tokens * (advantage > 0)
  ends.num_negative[last] += num_tokens * (advantage < 0)


def micro_batches(batch: Batch, micro_rows: int) -> Iterator[Batch]:
  """Yields the batch `micro_rows` rows at a time; rows of padding fill the last part."""
  num_rows, row_length = batch.tokens.shape
  padding = empty_batch(
    -num_rows % micro_rows,
    row_length,
    has_temperatures=batch.temperature is not None,
    has_ends=batch.ends is not None,
  )
  padded = jax.tree.map(lambda field, empty: np.concatenate([field, empty]), batch, padding)
  for start in range(0, len(padded.tokens), micro_rows):
    rows = slice(start, start + micro_rows)
    yield jax.tree.map(operator.itemgetter(rows), padded)


def scatter(values: np.ndarray, origin: Origin, lengths: Sequence[int]) -> list[np.ndarray]:
  """Takes per-position values back to the sequences they belong to.

  Args:
    values: `[R, S]`, at least as many rows as were packed.
    origin: of the pack.
    lengths: response tokens of each packed example.

  Returns:
    One `[length]` array per example, in the order of the examples.
  """
  check_shape('values', values, [None, None])
  sequences = []
  for row, start, length in zip(*origin, lengths, strict=True):
    sequences.append(values[row, start : start + length])
  return sequences


def _trained(
  trajectories: Sequence[Trajectory], advantages: GroupAdvantages
) -> list[tuple[Trajectory, np.ndarray]]:
  """Returns the trajectories of one group that train, each with its advantages [S]."""
  trained = []
  for t, advantage, is_trained in zip(trajectories, *advantages, strict=True):
    if is_trained:
      trained.append((t, advantage))
  return trained


def _scored_at(trajectory: Trajectory, default: float | None) -> float | None:
  """Returns the temperature that a trajectory is scored at; None: the learner's."""
  if default is None or trajectory.temperature is None:
    return default
  return trajectory.temperature


def _sequence(example: Example, *, has_ends: bool) -> Batch:
  """Returns one sequence as a piece."""
  check_shape('advantage', example.advantage, example.response_tokens.shape)
  check_shape('behavior_logprobs', example.behavior_logprobs, example.response_tokens.shape)
  tokens = np.concatenate([example.prompt_tokens, example.response_tokens])
  response = slice(len(example.prompt_tokens), len(tokens))
  piece = empty_piece(len(tokens), example.temperature, has_ends=has_ends)
  piece.tokens[:] = tokens
  piece.positions[:] = np.arange(len(tokens))
  piece.key_end[:] = len(tokens)  # all that follows sees it
  piece.predecessor[response] -= 1
  piece.behavior_logprobs[response] = example.behavior_logprobs
  add_copy(piece, response, weight=example.weight, advantage=example.advantage)
  return piece


def _check_fits(lengths: np.ndarray, row_length: int) -> None:
  too_long = np.flatnonzero(lengths > row_length)
  if not len(too_long):
    return
  first, longest = too_long[0], lengths.max()
  raise InputError(
    f'{len(too_long)} of {len(lengths)} sequences exceed the row: sequence {first} has '
    f'{lengths[first]} tokens, the longest {longest}, train.row_length = {row_length}; '
    f'raise train.row_length to {longest}.'
  )
