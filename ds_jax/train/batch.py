"""Sequences packed into rows: what one forward pass of the learner reads.

Several sequences share a row; `positions` restart at each and `key_end` keeps them apart. Index i
of a row holds the prediction of the token at i + 1 of the same sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.checks import InputError
from ds_jax.train.advantages import GroupAdvantages
from ds_jax.train.losses import token_weights
from ds_jax.types import Trajectory


class Example(NamedTuple):
  """One sequence to train on or to score."""
  prompt_tokens: np.ndarray  # [P] int32
  response_tokens: np.ndarray  # [S] int32
  weight: float  # of each response token in the loss
  advantage: np.ndarray | float  # [S] float32
  behavior_logprobs: np.ndarray | float  # [S] float32


class Batch(NamedTuple):
  """Rows of packed sequences; `weight` is 0 and `token_mask` False where nothing is predicted."""
  tokens: np.ndarray  # [R, S] int32
  positions: np.ndarray  # [R, S] int32, restart at 0 for each sequence
  key_end: np.ndarray  # [R, S] int32, end of the sequence a token belongs to; padding: own index
  targets: np.ndarray  # [R, S] int32, the next token of the sequence
  weight: np.ndarray  # [R, S] float32
  advantage: np.ndarray  # [R, S] float32
  behavior_logprobs: np.ndarray  # [R, S] float32
  token_mask: np.ndarray  # [R, S] bool, the target is a response token


class Origin(NamedTuple):
  """Which response token each position predicts; -1 where it predicts none. Stays on the host."""
  example: np.ndarray  # [R, S] int32, index into the packed examples
  token: np.ndarray  # [R, S] int32, index into that example's response


def examples_of(groups: Sequence[tuple[Sequence[Trajectory], GroupAdvantages]],
                aggregation: str) -> list[Example]:
  """The trained trajectories of a minibatch, weighted over the whole minibatch."""
  trained = [(t, a) for trajectories, group in groups
             for t, a, is_trained in zip(trajectories, *group, strict=True) if is_trained]
  weights = token_weights([len(t.tokens) for t, _ in trained], aggregation)
  return [Example(t.prompt_tokens, t.tokens, weight, advantage, t.behavior_logprobs)
          for (t, advantage), weight in zip(trained, weights, strict=True)]


def plain_examples(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Example]:
  """(prompt [P], response [S]) pairs to score, or to imitate with the mean over all tokens."""
  weights = token_weights([len(response) for _, response in pairs], 'token_mean')
  return [Example(prompt, response, weight, 0.0, 0.0)
          for (prompt, response), weight in zip(pairs, weights, strict=True)]


def pack(examples: Sequence[Example], row_length: int) -> tuple[Batch, Origin]:
  """Packs sequences into as few rows as first-fit decreasing finds; deterministic.

  Args:
    examples: the sequences, prompt and response together at most `row_length` tokens.
    row_length: S, positions per row.

  Returns:
    The batch, with as many rows as needed (none for no examples), and where its tokens come from.

  Raises:
    InputError: if a sequence does not fit a row.
  """
  lengths = np.array([len(e.prompt_tokens) + len(e.response_tokens) for e in examples], int)
  rows, starts = _first_fit_decreasing(lengths, row_length)
  shape = (int(rows.max(initial=-1)) + 1, row_length)
  batch, origin = _empty(shape)
  for index, (example, row, start) in enumerate(zip(examples, rows, starts, strict=True)):
    _place(batch, origin, index, example, row, start)
  return batch, origin


def micro_batches(batch: Batch, micro_rows: int) -> Iterator[Batch]:
  """Splits a batch into pieces of exactly `micro_rows` rows; empty rows fill the last one."""
  num_rows, row_length = batch.tokens.shape
  padding, _ = _empty((-num_rows % micro_rows, row_length))
  padded = Batch(*(np.concatenate(pair) for pair in zip(batch, padding, strict=True)))
  for start in range(0, len(padded.tokens), micro_rows):
    yield Batch(*(field[start:start + micro_rows] for field in padded))


def scatter(values: np.ndarray, origin: Origin, lengths: Sequence[int]) -> list[np.ndarray]:
  """Takes per-position values back to the sequences they belong to.

  Args:
    values: `[R, S]`, at least as many rows as `origin` (padding rows are ignored).
    origin: of the pack.
    lengths: response tokens of each packed example.

  Returns:
    One `[length]` array per example, in the order of the examples.
  """
  out = [np.zeros(length, values.dtype) for length in lengths]
  for row, example, token in zip(values, *origin, strict=False):
    for index in np.unique(example[example >= 0]):
      where = example == index
      out[index][token[where]] = row[where]
  return out


def _first_fit_decreasing(lengths: np.ndarray, row_length: int) -> tuple[np.ndarray, np.ndarray]:
  """Row and start of each sequence: longest first, each into the first row with room."""
  if len(lengths) and lengths.max() > row_length:
    long = np.flatnonzero(lengths > row_length)
    raise InputError(
        f'{len(long)} of {len(lengths)} sequences exceed the row: sequence {long[0]} has '
        f'{lengths[long[0]]} tokens, the longest {lengths.max()}, train.row_length = {row_length}; '
        f'raise train.row_length to {lengths.max()}.')
  rows, starts = np.zeros(len(lengths), int), np.zeros(len(lengths), int)
  free = np.full(len(lengths), row_length)  # as many rows as sequences is enough
  for index in np.argsort(-lengths, kind='stable'):
    row = int(np.argmax(free >= lengths[index]))
    rows[index], starts[index] = row, row_length - free[row]
    free[row] -= lengths[index]
  return rows, starts


def _empty(shape: tuple[int, int]) -> tuple[Batch, Origin]:
  integers, floats = (lambda: np.zeros(shape, np.int32)), (lambda: np.zeros(shape, np.float32))
  own_index = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy()
  batch = Batch(tokens=integers(), positions=integers(), key_end=own_index, targets=integers(),
                weight=floats(), advantage=floats(), behavior_logprobs=floats(),
                token_mask=np.zeros(shape, bool))
  return batch, Origin(np.full(shape, -1, np.int32), np.full(shape, -1, np.int32))


def _place(batch: Batch, origin: Origin, index: int, example: Example, row: int,
           start: int) -> None:
  sequence = np.concatenate([example.prompt_tokens, example.response_tokens])
  end = start + len(sequence)
  batch.tokens[row, start:end] = sequence
  batch.positions[row, start:end] = np.arange(len(sequence))
  batch.key_end[row, start:end] = end
  batch.targets[row, start:end - 1] = sequence[1:]
  # The first response token is predicted by the last prompt token.
  predicts = slice(start + len(example.prompt_tokens) - 1, end - 1)
  batch.weight[row, predicts] = example.weight
  batch.advantage[row, predicts] = example.advantage
  batch.behavior_logprobs[row, predicts] = example.behavior_logprobs
  batch.token_mask[row, predicts] = True
  origin.example[row, predicts] = index
  origin.token[row, predicts] = np.arange(len(example.response_tokens))
