"""Supervised fine-tuning on worked solutions: the learner's forward pass with another loss."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.train.batch import Batch, pack, plain_examples
from ds_jax.train.state import TrainState
from ds_jax.train.step import Learner, Statistics


def imitation_loss(logprobs: jax.Array, entropies: jax.Array,
                   batch: Batch) -> tuple[jax.Array, Statistics]:
  """Cross entropy: minus the weighted sum of the response tokens' log-probs, `[R, S]` each."""
  loss = -jnp.sum(batch.weight * logprobs)
  total = lambda x: jnp.sum(batch.num_copies * x)
  return loss, Statistics(
      loss=loss, num_tokens=total(1.0), entropy=total(entropies),
      num_distinct=jnp.sum(batch.num_copies > 0, dtype=jnp.float32))


def sft_update(learner: Learner, state: TrainState,
               pairs: Sequence[tuple[np.ndarray, np.ndarray]],
               row_length: int) -> tuple[TrainState, dict[str, float]]:
  """One update towards worked solutions, mean over all response tokens.

  Args:
    learner: `make_learner(..., loss_fn=imitation_loss)`.
    state: donated.
    pairs: (prompt [P] int32, response [S] int32), the end token included.
    row_length: of the packed rows; the same in every call.

  Returns:
    The new state, and sft/loss, sft/entropy, sft/grad_norm, sft/num_tokens, sft/skipped.
  """
  batch, _ = pack(plain_examples(pairs), row_length)
  state, figures = learner.update(state, batch)
  names = ('loss', 'entropy', 'grad_norm', 'num_tokens', 'skipped')
  return state, {f'sft/{name}': figures[f'train/{name}'] for name in names}
