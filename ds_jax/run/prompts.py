"""The problems of a run with the tokens of their prompts: its splits, and questions of a user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds_jax.checks import InputError
from ds_jax.data.prompts import PreparedPrompts, prepare_prompts
from ds_jax.data.sources import load_problems
from ds_jax.interfaces import Tokenizer
from ds_jax.run.session import Session
from ds_jax.run.team import first_process_first
from ds_jax.types import Problem

Prompts = tuple[tuple[Problem, np.ndarray], ...]  # tokens [P] int32


def load_prompts(session: Session, tokenizer: Tokenizer, split: str) -> Prompts:
  """Problems of 'train', 'eval' or 'warmstart' with their prompt tokens.

  Prompts that are too long are dealt with as config.data says, and counted.

  Raises:
    InputError: if none is left.
  """
  config = session.config.data
  with first_process_first(session.team):  # it may have to build the files
    loaded = load_problems(config, split, session.data_dir, progress=session.progress)
  prepared = prepare(session, tokenizer, loaded.problems, what=split)
  if prepared.skipped:
    session.progress.note(
      f'{split}: skipped {len(prepared.skipped)} of {len(loaded.problems)} problems whose '
      f'prompt exceeds data.prompt_limit = {config.prompt_limit} tokens '
      '(data.overlong_prompts=truncate_left keeps them).'
    )
  if not prepared.prompts:
    raise InputError(
      f'All {len(loaded.problems)} {split} problems have prompts longer than '
      f'data.prompt_limit = {config.prompt_limit}; raise it.'
    )
  return prepared.prompts


def evaluation_prompts(session: Session, tokenizer: Tokenizer) -> Prompts:
  """Those problems of the evaluation split that config.evaluate asks for."""
  return load_prompts(session, tokenizer, 'eval')[: session.config.evaluate.num_problems or None]


def prepare(
  session: Session, tokenizer: Tokenizer, problems: Sequence[Problem], *, what: str
) -> PreparedPrompts:
  """Encodes the prompts of some problems; says how many had to be cut.

  Args:
    session: whose config.data says what becomes of long ones.
    tokenizer: encodes them.
    problems: any number.
    what: names them in the note.
  """
  prepared = prepare_prompts(problems, tokenizer, session.config.data)
  if prepared.truncated:
    session.progress.note(
      f'{what}: cut the beginnings of {len(prepared.truncated)} of {len(problems)} prompts to '
      f'data.prompt_limit = {session.config.data.prompt_limit} tokens.'
    )
  return prepared
