"""The problems of a run with the tokens of their prompts: its splits, and questions of a user."""

from __future__ import annotations

import collections
import datetime
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax.checks import InputError
from ds_jax.config import Config, DataConfig, response_limit
from ds_jax.data.describe import answer_type, doubtful_golds
from ds_jax.data.embedded import TASKS
from ds_jax.data.flaws import GOLD_FLAWS
from ds_jax.data.gradable import try_golds
from ds_jax.data.overlap import shared_questions
from ds_jax.data.prompts import (
  ChatTokenizer,
  PreparedPrompts,
  encode_problems,
  load_tokenizer,
  prepare_prompts,
)
from ds_jax.data.sources import LoadedProblems, load_problems
from ds_jax.interfaces import Progress, Tokenizer, VerifyFn
from ds_jax.run.session import Session
from ds_jax.run.team import first_process_first
from ds_jax.run.workdir import Workdir, keep_date, kept_date
from ds_jax.types import Gold, Problem
from ds_jax.verify.verifiers import READERS_OF_BOXES

Prompts = tuple[tuple[Problem, np.ndarray], ...]  # tokens [P] int32


def today() -> datetime.date:
  return datetime.date.today()


def open_tokenizer(session: Session, folder: str | os.PathLike[str]) -> ChatTokenizer:
  """The tokenizer of a model with the prompt settings of a run, its template found good.

  A template that asks for the date gets `data.date`, else that of the run's first start, else
  today's; all processes have that of the first.

  Raises:
    InputError: if tokenizer or template are broken, or settings do not fit them.
  """
  date = kept_date(session.workdir) or today()
  (first, *_) = session.team.gather(date.isoformat().encode())
  date = datetime.date.fromisoformat(first.decode())
  tokenizer = load_tokenizer(folder, session.config.data, date)
  template = tokenizer.template
  if template is not None and template.asks_for_date and not session.config.data.date:
    session.progress.note(
      f"The chat template asks for the date and gets {template.date}, that of the run's first "
      "start, or today's without a run; data.date sets another."
    )
  if tokenizer.num_without_row:
    session.progress.note(
      f"The tokenizer has {tokenizer.num_without_row} ids more than the model's embedding has "
      'rows; they are never sampled, and a prompt that holds one is refused.'
    )
  return tokenizer


def keep_template_date(workdir: Workdir, tokenizer: Tokenizer) -> None:
  """Keeps the day that prompts have with the run, where its chat template asks for one."""
  for day in date_setting(tokenizer).values():
    keep_date(workdir, datetime.date.fromisoformat(day))


def load_prompts(session: Session, tokenizer: Tokenizer, split: str) -> Prompts:
  """Problems of 'train', 'eval' or 'warmstart' with their prompt tokens.

  Prompts that are too long are dealt with as config.data says, and counted.

  Raises:
    InputError: if none is left.
  """
  config = session.config.data
  with first_process_first(session.team):  # it may have to build the files
    loaded = load_problems(config, split, session.data_dir, progress=session.progress)
  _check_types(loaded, config, what=split, progress=session.progress)
  prepared = prepare(session, tokenizer, loaded.problems, what=split)
  if prepared.skipped:
    skipped = set(prepared.skipped)
    sources = _counts_by_source([p for p in loaded.problems if p.id in skipped], loaded.problems)
    session.progress.note(
      f'{split}: skipped {len(prepared.skipped)} of {len(loaded.problems)} problems{sources} whose '
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


def check_golds(session: Session, verify_fn: VerifyFn, prompts: Prompts, *, what: str) -> None:
  """Tries a sample of golds: says how many the verifier does not take for right.

  Call it once for each split, before any work; the first process of the team judges for all.

  Args:
    session: whose verifier it is.
    verify_fn: the verifier's.
    prompts: of the split.
    what: names the split.

  Raises:
    InputError: if most fail, unless config.data.flaws says to keep such problems, or the verifier
      is the user's function, which may ask for another form.
  """
  verifier, is_fatal, sentence = session.config.verify.verifier, False, ''
  if session.team.is_first:
    trial = try_golds([problem for problem, _ in prompts], verify_fn)
    is_fatal = trial.most_fail and session.config.data.flaws == 'drop'
    is_fatal &= not verifier.startswith('python:')
    sentence = trial.describe(what, verifier) or ''
  said = session.team.gather(json.dumps([is_fatal, sentence]).encode())
  is_fatal, sentence = json.loads(said[0])
  if is_fatal:
    raise InputError(
      f'{sentence} Name the field of the answers with data.answer_field, or another '
      'verify.verifier; data.flaws=keep goes on all the same.'
    )
  if sentence and session.team.is_first:
    session.progress.note(sentence)


def check_room(config: Config, tokenizer: Tokenizer, prompts: Prompts) -> None:
  """Checks that a response has room for the worked solutions of an embedded task.

  Raises:
    InputError: if it has not, unless the verifier is the user's function, which may ask for less.
  """
  search, limit = config.search, response_limit(config)
  if config.verify.verifier.startswith('python:'):
    return
  for problem, _ in prompts:
    task = getattr(problem.answer, 'verifier', '')
    if task not in TASKS or problem.solution is None:
      continue
    length = len(tokenizer.encode_response(problem.solution))
    if length > limit:
      raise InputError(
        f'Solutions of {task} take up to {length} tokens, e.g. that of {problem.id}, and search.'
        f'max_depth * search.segment_length = {search.max_depth} * {search.segment_length} = '
        f'{limit} are allowed: set search.max_depth to {-(-length // search.segment_length)} or '
        f'more, or see data.{task} for smaller problems.'
      )


def note_shared(session: Session, prompts: Prompts, eval_prompts: Prompts) -> None:
  """Says so where questions of the evaluation are trained on: pass@1 then tells of memory."""
  held_out = [problem for problem, _ in eval_prompts]
  shared = shared_questions([problem for problem, _ in prompts], held_out)
  if shared:
    session.progress.note(
      f'{len(shared)} of {len(held_out)} evaluation questions are training questions, too'
      f'{_counts_by_source(shared, held_out)}: pass@1 will tell how well they are remembered. Set '
      'data.eval_source to other problems.'
    )


def _counts_by_source(problems: Sequence[Problem], among: Sequence[Problem]) -> str:
  """Returns ' (aime2024 1 of 30, math500 3 of 500)'; '' where there is but one source."""
  totals = collections.Counter(problem.source for problem in among if problem.source)
  counts = collections.Counter(problem.source for problem in problems)
  parts = [f'{name} {counts[name]} of {totals[name]}' for name in sorted(totals) if counts[name]]
  return f' ({", ".join(parts)})' if parts else ''


def _check_types(
  loaded: LoadedProblems, config: DataConfig, *, what: str, progress: Progress
) -> None:
  """Says so if most golds look like no answers; of training problems none is learnt from then.

  Raises:
    InputError: if most rows of a training set were left out because their golds are no answers.
  """
  num_flawed = sum(loaded.counts.get(kind, 0) for kind in GOLD_FLAWS)
  types = collections.Counter(answer_type(problem.answer) for problem in loaded.problems)
  sentence = doubtful_golds(types, loaded.counts, 'data.')
  if sentence is None:
    return
  if 2 * num_flawed > loaded.num_rows and config.flaws == 'drop':
    raise InputError(f'{what}: {sentence} data.flaws=keep trains on such problems all the same.')
  progress.note(f'{what}: {sentence}')


def sources_of(prompts: Prompts | Sequence[tuple[Problem, np.ndarray]]) -> dict[str, str]:
  """{problem id: name of its source}, '' where there is but one source."""
  return {problem.id: problem.source for problem, _ in prompts}


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


def template_settings(tokenizer: Tokenizer) -> dict[str, Any]:
  """What prompts depend on besides, as far as it is set or asked for."""
  if not isinstance(tokenizer, ChatTokenizer):
    return {}
  settings = tokenizer.settings
  fields = {
    'data.system_message': settings.system_message,
    'data.template_name': settings.template_name,
    'data.template_arguments': dict(settings.template_arguments),
  }
  return {name: value for name, value in fields.items() if value} | date_setting(tokenizer)


def date_setting(tokenizer: Tokenizer) -> dict[str, str]:
  """The date in prompts, as a setting; nothing where the chat template asks for none."""
  template = getattr(tokenizer, 'template', None)
  if template is None or not template.asks_for_date:
    return {}
  return {'data.date': template.date.isoformat()}


def longest_prompt(tokenizer: Tokenizer, problems: Sequence[Problem]) -> int:
  """Tokens of the longest prompt of some problems, whatever data.prompt_limit is."""
  return max(map(len, encode_problems(problems, tokenizer)))


def note_missing_box(session: Session, tokenizer: Tokenizer, prompts: Prompts) -> None:
  r"""Says so where the verifier reads only a box and nothing that the model reads asks for one.

  What asks is the text of a problem, which holds `data.instruction`, or the chat template. Call it
  once, before sampling.
  """
  verifier = session.config.verify.verifier
  prompts = tuple(pair for pair in prompts if not isinstance(pair[0].answer, Gold))
  if verifier not in READERS_OF_BOXES or not prompts:
    return
  if any('\\boxed' in problem.prompt for problem, _ in prompts):
    return
  _, tokens = prompts[0]
  if 'boxed' in tokenizer.decode_response(tokens):  # of a template's system message
    return
  session.progress.note(
    f'verify.verifier={verifier} reads only answers in \\boxed{{…}}, and none of the '
    f'{len(prompts)} prompts asks for one: set data.instruction, e.g. to "Put your final answer '
    'within \\boxed{}." Other answers count as no_answer.'
  )
