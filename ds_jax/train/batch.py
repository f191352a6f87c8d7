"""Rows that one forward pass of the learner reads, and how pieces of text are laid out in them.

A *piece* is a run of consecutive positions that sees nothing outside itself: one sequence here, a
tree in trees.py. Several pieces share a row. Each response token is scored by the position of its
predecessor, which need not be the position before it: where a tree branches, a token has several
successors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig
from ds_jax.train.advantages import GroupAdvantages
from ds_jax.train.losses import token_weights
from ds_jax.types import Trajectory

# Rows of packed trees are at least this long; measured by tests/benchmarks/packed_update.py.
TREE_ROW_LENGTH = 128

# A minibatch of whole problems: the trajectories of each, and what they are trained with.
Minibatch = Sequence[tuple[Sequence[Trajectory], GroupAdvantages]]


class Example(NamedTuple):
  """One sequence to train on or to score."""

  prompt_tokens: np.ndarray  # [P] int32
  response_tokens: np.ndarray  # [S] int32
  weight: float  # of each response token in the loss
  advantage: np.ndarray | float  # [S] float32
  behavior_logprobs: np.ndarray | float  # [S] float32


class Batch(NamedTuple):
  """Rows of packed pieces; a piece is the same without the axis R, its indices from its start.

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

  @property
  def token_mask(self) -> np.ndarray:
    """`[R, S]` bool, response tokens that are scored."""
    return self.num_copies > 0


class Origin(NamedTuple):
  """Where the response of each packed example stands. Stays on the host."""

  row: np.ndarray  # [examples] int32
  start: np.ndarray  # [examples] int32


class RowShape(NamedTuple):
  """The one shape of a forward and backward pass."""

  micro_rows: int  # rows per pass, over all devices
  row_length: int  # S


def row_shape(config: TrainConfig, row_shards: int) -> RowShape:
  """The shape of the update's rows: one shape for a whole run, so that it compiles once.

  Rows of packed trees are longer, and as many fewer: the tokens per pass stay what
  `micro_rows * row_length` allows.

  Args:
    config: `packing`, `row_length`, `tree_row_length` (0: chosen here) and `micro_rows`.
    row_shards: devices that rows are split over; the rows are a multiple of it.
  """
  if config.packing == 'flat':
    return RowShape(config.micro_rows, config.row_length)
  length = config.tree_row_length or max(config.row_length, TREE_ROW_LENGTH)
  rows = config.micro_rows * config.row_length // length
  return RowShape(max(rows // row_shards, 1) * row_shards, length)


def examples_of(groups: Minibatch, aggregation: str) -> list[Example]:
  """The trained trajectories of a minibatch, weighted over the whole minibatch."""
  trained = [
    (t, a)
    for trajectories, group in groups
    for t, a, is_trained in zip(trajectories, *group, strict=True)
    if is_trained
  ]
  weights = token_weights([len(t.tokens) for t, _ in trained], aggregation)
  return [
    Example(t.prompt_tokens, t.tokens, weight, advantage, t.behavior_logprobs)
    for (t, advantage), weight in zip(trained, weights, strict=True)
  ]


def plain_examples(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Example]:
  """(prompt [P], response [S]) pairs to score, or to imitate with the mean over all tokens."""
  weights = token_weights([len(response) for _, response in pairs], 'token_mean')
  return [
    Example(prompt, response, weight, 0.0, 0.0)
    for (prompt, response), weight in zip(pairs, weights, strict=True)
  ]


def pack(examples: Sequence[Example], row_length: int) -> tuple[Batch, Origin]:
  """The flattened form: every sequence is a piece of its own.

  Args:
    examples: the sequences, prompt and response together at most `row_length` tokens.
    row_length: S, positions per row.

  Returns:
    The batch, with as many rows as needed (none for no examples), and where its tokens come from.

  Raises:
    InputError: if a sequence does not fit a row.
  """
  batch, rows, starts = pack_pieces([_sequence(e) for e in examples], row_length)
  return batch, Origin(rows, starts + np.array([len(e.prompt_tokens) for e in examples], int))


def pack_pieces(pieces: Sequence[Batch], row_length: int) -> tuple[Batch, np.ndarray, np.ndarray]:
  """Packs pieces into as few rows as first-fit decreasing finds; deterministic.

  Returns:
    The batch, and the row and start of each piece.

  Raises:
    InputError: if a piece does not fit a row.
  """
  rows, starts = first_fit_decreasing([len(p.tokens) for p in pieces], row_length)
  batch = empty_batch(int(rows.max(initial=-1)) + 1, row_length)
  for piece, row, start in zip(pieces, rows, starts, strict=True):
    span = slice(start, start + len(piece.tokens))
    moved = piece._replace(key_end=piece.key_end + start, predecessor=piece.predecessor + start)
    for whole, part in zip(batch, moved, strict=True):
      whole[row, span] = part
  return batch, rows, starts


def first_fit_decreasing(lengths: Sequence[int], row_length: int) -> tuple[np.ndarray, np.ndarray]:
  """Row and start of each piece: longest first, each into the first row with room.

  Raises:
    InputError: if a piece does not fit a row.
  """
  lengths = np.asarray(lengths, int)
  if len(lengths) and lengths.max() > row_length:
    long = np.flatnonzero(lengths > row_length)
    raise InputError(
      f'{len(long)} of {len(lengths)} sequences exceed the row: sequence {long[0]} has '
      f'{lengths[long[0]]} tokens, the longest {lengths.max()}, train.row_length = {row_length}; '
      f'raise train.row_length to {lengths.max()}.'
    )
  rows, starts = np.zeros(len(lengths), int), np.zeros(len(lengths), int)
  free = np.full(len(lengths), row_length)  # as many rows as pieces is enough
  for index in np.argsort(-lengths, kind='stable'):
    row = int(np.argmax(free >= lengths[index]))
    rows[index], starts[index] = row, row_length - free[row]
    free[row] -= lengths[index]
  return rows, starts


def empty_batch(num_rows: int, row_length: int) -> Batch:
  """Rows of padding: nothing is seen, nothing is scored."""
  return Batch(*(np.repeat(field[None], num_rows, axis=0) for field in empty_piece(row_length)))


def empty_piece(size: int) -> Batch:
  """Positions `[size]` of padding."""
  zeros = {name: np.zeros(size, np.float32) for name in Batch._fields}
  index = np.arange(size, dtype=np.int32)
  return Batch(
    **zeros
    | {
      'tokens': np.zeros(size, np.int32),
      'positions': np.zeros(size, np.int32),
      'key_end': index,
      'predecessor': index.copy(),
    }
  )


def add_copy(
  piece: Batch, where: np.ndarray | slice, weight: float, advantage: np.ndarray | float
) -> None:
  """Counts one trajectory's copy of the tokens at `where`, in place.

  Args:
    piece: fields `[S]`.
    where: positions of the trajectory's response tokens, each once.
    weight: of each of its tokens in the loss.
    advantage: of its tokens.
  """
  piece.weight[where] += weight
  piece.positive[where] += weight * np.maximum(advantage, 0)
  piece.negative[where] += weight * np.maximum(-advantage, 0)
  piece.num_copies[where] += 1
  piece.num_positive[where] += np.greater(advantage, 0)
  piece.num_negative[where] += np.less(advantage, 0)


def micro_batches(batch: Batch, micro_rows: int) -> Iterator[Batch]:
  """Splits a batch into pieces of exactly `micro_rows` rows; empty rows fill the last one."""
  num_rows, row_length = batch.tokens.shape
  padding = empty_batch(-num_rows % micro_rows, row_length)
  padded = Batch(*(np.concatenate(pair) for pair in zip(batch, padding, strict=True)))
  for start in range(0, len(padded.tokens), micro_rows):
    yield Batch(*(field[start : start + micro_rows] for field in padded))


def scatter(values: np.ndarray, origin: Origin, lengths: Sequence[int]) -> list[np.ndarray]:
  """Takes per-position values back to the sequences they belong to.

  Args:
    values: `[R, S]`, at least as many rows as were packed.
    origin: of the pack.
    lengths: response tokens of each packed example.

  Returns:
    One `[length]` array per example, in the order of the examples.
  """
  return [
    values[row, start : start + length] for row, start, length in zip(*origin, lengths, strict=True)
  ]


def _sequence(example: Example) -> Batch:
  """One sequence as a piece."""
  prompt = len(example.prompt_tokens)
  tokens = np.concatenate([example.prompt_tokens, example.response_tokens])
  piece = empty_piece(len(tokens))
  piece.tokens[:] = tokens
  piece.positions[:] = np.arange(len(tokens))
  piece.key_end[:] = len(tokens)
  piece.predecessor[prompt:] -= 1
  piece.behavior_logprobs[prompt:] = example.behavior_logprobs
  add_copy(piece, slice(prompt, None), example.weight, example.advantage)
  return piece
