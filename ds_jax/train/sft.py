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

Pair = tuple[np.ndarray, np.ndarray]  # prompt [P] int32, worked solution [S] int32


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


def imitation_metrics(statistics: Statistics) -> dict[str, float]:
  """Returns no figures: nothing is compared with what was sampled."""
  del statistics
  return {}


def imitation_batch(pairs: Sequence[Pair], row_length: int) -> Batch:
  """Worked solutions packed into rows of `row_length` tokens, every token with the same weight.

  Args:
    pairs: the end token of each solution included.
    row_length: at least the longest prompt with its solution.
  """
  return pack(plain_examples(pairs), row_length)[0]


def sft_update(
  learner: Learner, state: TrainState, pairs: Sequence[Pair], row_length: int
) -> tuple[TrainState, dict[str, float]]:
  """One update towards worked solutions, mean over all response tokens.

  Args:
    learner: `make_learner(..., loss_fn=imitation_loss)`.
    state: donated.
    pairs: see `imitation_batch`.
    row_length: of the packed rows; the same in every call.

  Returns:
    The new state, and sft/loss, sft/entropy, sft/grad_norm, sft/num_tokens, sft/skipped.
  """
  state, figures = learner.update(state, imitation_batch(pairs, row_length))
  names = ('loss', 'entropy', 'grad_norm', 'num_tokens', 'skipped')
  return state, {f'sft/{name}': figures[f'train/{name}'] for name in names}


def worked_solutions(
  prompts: Sequence[tuple[Problem, np.ndarray]], encode: Callable[[str], np.ndarray]
) -> dict[str, Pair]:
  """Prompt and worked solution by problem, of those that have one, in their order.

  Args:
    prompts: problems with the tokens of their prompts; ids differ.
    encode: text to token ids, the end token included.

  Raises:
    InputError: names the problem whose solution has a token that the model lacks.
  """
  pairs = {}
  for problem, tokens in prompts:
    if not problem.solution:
      continue
    try:
      pairs[problem.id] = (tokens, encode(problem.solution))
    except InputError as e:
      raise InputError(f'Solution of problem {problem.id}: {e}') from e
  return pairs


def fitting_solutions(
  pairs: Mapping[str, Pair], num_problems: int, row_length: int, note: Callable[[str], None]
) -> dict[str, Pair]:
  """The worked solutions that fit a row with their prompts.

  Args:
    pairs: of the training problems.
    num_problems: all training problems, for the messages.
    row_length: tokens of prompt and solution together.
    note: told how many problems are left out.

  Raises:
    InputError: if none fits.
  """
  fitting = {}
  for name, (prompt, solution) in pairs.items():
    if len(prompt) + len(solution) <= row_length:
      fitting[name] = (prompt, solution)
  if not fitting:
    raise InputError(
      f'train.objective=imitation needs worked solutions: {len(pairs)} of {num_problems} '
      f'training problems have one, none of at most {row_length} tokens with its prompt; raise '
      'train.row_length, or name a source with a field `solution`.'
    )
  note(
    f'{len(fitting)} of {num_problems} training problems have a worked solution of at most '
    f'{row_length} tokens with its prompt; the others are left out.'
  )
  return fitting
