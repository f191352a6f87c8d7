"""Supervised fine-tuning on worked solutions: the learner's forward pass with another loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import InputError
from ds_jax.train.batch import Batch, pack, plain_examples
from ds_jax.train.state import TrainState
from ds_jax.train.step import Learner, Statistics
from ds_jax.types import Problem

# (prompt [P] int32, solution [S] int32) by problem.
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def imitation_loss(
  logprobs: jax.Array, entropies: jax.Array, batch: Batch
) -> tuple[jax.Array, Statistics]:
  """Cross entropy: minus the weighted sum of the response tokens' log-probs, `[R, S]` each."""
  loss = -jnp.sum(batch.weight * logprobs)
  total = lambda x: jnp.sum(batch.num_copies * x)
  return loss, Statistics(
    loss=loss,
    num_tokens=total(1.0),
    entropy=total(entropies),
    num_distinct=jnp.sum(batch.num_copies > 0, dtype=jnp.float32),
  )


def sft_update(
  learner: Learner,
  state: TrainState,
  pairs: Sequence[tuple[np.ndarray, np.ndarray]],
  row_length: int,
) -> tuple[TrainState, dict[str, float]]:
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


def worked_solutions(
  prompts: Mapping[str, tuple[Problem, np.ndarray]],
  encode: Callable[[str], np.ndarray],
  row_length: int,
  note: Callable[[str], None],
) -> Pairs:
  """Prompt and worked solution of each problem that has one that fits a row.

  Args:
    prompts: problems by id, with the tokens of their prompts.
    encode: text to token ids, the end token included.
    row_length: tokens of prompt and solution together.
    note: told how many problems are left out.

  Raises:
    InputError: if there is none.
  """
  pairs = {
    name: (tokens, encode(problem.solution))
    for name, (problem, tokens) in prompts.items()
    if problem.solution
  }
  fitting = {name: pair for name, pair in pairs.items() if sum(map(len, pair)) <= row_length}
  if not fitting:
    raise InputError(
      f'train.objective=imitation needs worked solutions: {len(pairs)} of {len(prompts)} '
      f'training problems have one, none of at most {row_length} tokens with its prompt; raise '
      'train.row_length, or name a source with a field `solution`.'
    )
  note(
    f'{len(fitting)} of {len(prompts)} training problems have a worked solution of at most '
    f'{row_length} tokens with its prompt; the others are left out.'
  )
  return fitting
