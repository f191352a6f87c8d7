"""Packing: every sequence whole, in one place, traceable back, and scored as if it were alone."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from train_cases import arrays_of, random_examples, small_decoder, trajectory

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Rows, sequence_logprobs
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance
from ds_jax.train.advantages import group_advantages
from ds_jax.train.batch import (
  examples_of,
  micro_batches,
  pack,
  plain_examples,
  scatter,
  trained_branches,
)

OURS = TrainConfig(advantage='tree_mean', ends='all', uniform_trees='drop')


def test_every_token_is_predicted_once_by_its_predecessor():
  examples = random_examples(50)
  batch, origin = pack(examples, 16)
  assert batch.token_mask.sum() == sum(len(e.response_tokens) for e in examples)
  for example, row, start in zip(examples, *origin, strict=True):
    where = np.arange(start, start + len(example.response_tokens))
    assert batch.token_mask[row, where].all()
    np.testing.assert_array_equal(batch.tokens[row, where], example.response_tokens)
    np.testing.assert_array_equal(batch.predecessor[row, where], where - 1)
    np.testing.assert_array_equal(
      batch.positions[row, where], len(example.prompt_tokens) + where - start
    )
    assert (batch.key_end[row, where - 1] == where[-1] + 1).all()
    np.testing.assert_allclose(
      batch.positive[row, where] - batch.negative[row, where],
      example.weight * example.advantage,
      rtol=tolerance('float32', 3),
    )
    np.testing.assert_array_equal(batch.behavior_logprobs[row, where], example.behavior_logprobs)
  for name in ('weight', 'positive', 'negative', 'num_positive', 'num_negative'):
    assert not getattr(batch, name)[~batch.token_mask].any()


def test_types_and_determinism():
  batch, _ = pack(random_examples(20), 16)
  again, _ = pack(random_examples(20), 16)
  for name, a in arrays_of(batch).items():
    b = getattr(again, name)
    kind = np.int32 if name in ('tokens', 'positions', 'key_end', 'predecessor') else np.float32
    assert a.dtype == kind and a.shape[1] == 16
    np.testing.assert_array_equal(a, b)


def test_packing_is_tight():
  pairs = [(np.ones(2, np.int32), np.ones(n, np.int32)) for n in (6, 2, 2, 6, 2, 2)]
  examples = plain_examples(pairs)
  assert pack(examples, 8)[0].tokens.shape == (4, 8)
  assert pack([], 8)[0].tokens.shape == (0, 8)


def logprobs_of(decoder, rows):
  """Log-probs of all tokens of packed rows, `[R, S]`."""
  logprobs, _ = sequence_logprobs(
    decoder, Rows(rows.tokens, rows.positions, rows.key_end, rows.tokens, rows.predecessor)
  )
  return logprobs


def test_packed_log_probs_scatter_back_to_those_of_each_sequence_alone():
  decoder, examples = small_decoder(), random_examples(12)
  forward = jax.jit(functools.partial(logprobs_of, decoder))
  score = lambda batch: np.concatenate([forward(rows) for rows in micro_batches(batch, 1)])
  lengths = [len(e.response_tokens) for e in examples]
  batch, origin = pack(examples, 24)
  assert len(batch.tokens) < len(examples)
  packed = scatter(score(batch), origin, lengths)
  for example, length, ours in zip(examples, lengths, packed, strict=True):
    batch_alone, origin_alone = pack([example], 24)
    (alone,) = scatter(score(batch_alone), origin_alone, [length])
    assert_close(ours, alone, num_terms=decoder_terms(decoder.config, 24))


@pytest.mark.parametrize('temperature', [None, 1.3])
def test_micro_batches_have_one_shape_and_lose_nothing(temperature):
  examples = [e._replace(temperature=temperature) for e in random_examples(30)]
  batch, _ = pack(examples, 16)
  pieces = list(micro_batches(batch, 4))
  assert {piece.tokens.shape for piece in pieces} == {(4, 16)}
  for name, field in arrays_of(batch).items():
    joined = np.concatenate([getattr(piece, name) for piece in pieces])
    np.testing.assert_array_equal(joined[: len(field)], field)
    if name in ('num_copies', 'weight'):
      assert not joined[len(field) :].any()
    if name == 'temperature':
      assert (joined > 0).all()  # padding too: it divides


def test_empty_rows_have_finite_gradients():
  decoder = small_decoder()
  batch, _ = pack(random_examples(1), 16)
  rows = next(micro_batches(batch, 2))
  assert not rows.token_mask[1].any()
  loss = lambda decoder: logprobs_of(decoder, rows).sum()
  grads = jax.jit(jax.grad(loss))(decoder)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_too_long_a_sequence_is_named():
  examples = plain_examples([(np.ones(3, np.int32), np.ones(n, np.int32)) for n in (2, 8)])
  with pytest.raises(InputError, match=r'sequence 1 has 11 tokens.*train.row_length = 8'):
    pack(examples, 8)


def test_examples_hold_only_what_trains_and_weigh_the_whole_minibatch():
  good = [trajectory([0.0, 1.0], correct=True), trajectory([0.0, -1.0])]
  dropped = [trajectory([-1.0, -1.0]), trajectory([-1.0, -1.0])]
  groups = [(group, group_advantages(group, OURS, 10)) for group in (good, dropped)]
  examples = examples_of(trained_branches(groups, 'token_mean'))
  assert len(examples) == 2
  assert [e.weight for e in examples] == [0.25, 0.25]
  assert [e.advantage[0] for e in examples] == [1.0, -1.0]
