"""A run that is open in a program: the commands of `ds-jax` as methods.

What is opened once (model, verifier, compiled programs, parameters) serves all that follows.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, overload

from ds_jax.api.opened import Opened, with_short_errors
from ds_jax.api.results import Outcome, SearchedTree, SearchedTrees
from ds_jax.checks import InputError
from ds_jax.config import Config
from ds_jax.config.places import FOLDER
from ds_jax.report.render import PICTURE_NAME
from ds_jax.report.summary import summary_table
from ds_jax.run.benchmarks import benchmarks_named
from ds_jax.types import Problem

Select = Literal['first_correct', 'best_q', 'vote']


class OpenSession:
  """A run that is open; `ds_jax.open_session` makes one.

  Every method does what the command of its name does, in the same workdir: it goes on where the
  run is, holds the workdir's lock where the command does, and raises

    InputError: for bad input, with the words of the command line.
    CannotWrite: what the disk refused, with the remedy; what was written before is good.
    KeyboardInterrupt: after Ctrl-C (the stop button of a notebook), once all is saved. The session
      stays open, and the same call goes on. A second Ctrl-C does not wait for the saving.
    SystemExit: likewise after SIGTERM, with the exit code of the command line.

  Methods are called from one thread, one at a time.
  """

  def __init__(self, opened: Opened):
    """Loads nothing yet."""
    self._opened = opened

  @property
  def config(self) -> Config:
    """All settings."""
    return self._opened.session.config

  @property
  def workdir(self) -> pathlib.Path:
    """The folder of the run."""
    return self._opened.session.workdir.root

  @with_short_errors
  def warmstart(self) -> Outcome:
    """Trains a small new model on worked solutions of the embedded task, as `ds-jax warmstart`.

    Returns:
      'status', 'output' (its folder) and, if it was trained now, 'warmstart/loss'. A model that is
      there is left alone.
    """
    from ds_jax.run.warmstart import warmstart

    with self._opened.at_work(holds_lock=True, changes_parameters=True) as (session, _):
      return Outcome(warmstart(session))

  @with_short_errors
  def train(self) -> Outcome:
    """Goes on with the run to its end, as `ds-jax train`: evaluate, filter, search, learn, report.

    Searches and evaluations that follow use the new parameters.

    Returns:
      The run's summary ('before', 'after', 'steps', 'tokens', … of report/summary.py). It prints as
      the table of the shell, and shows the learning curve in a notebook.
    """
    from ds_jax.run.training import train

    with self._opened.at_work(holds_lock=True, changes_parameters=True) as (session, _):
      summary, text = train(session)
    return Outcome(summary, text or summary_table(summary), self.workdir / PICTURE_NAME)

  @overload
  def search(
    self,
    problems: str | Problem,
    *,
    select: Select = ...,
    step: int | str | None = ...,
    **settings: Any,
  ) -> SearchedTree: ...

  @overload
  def search(
    self,
    problems: Sequence[str | Problem],
    *,
    select: Select = ...,
    step: int | str | None = ...,
    **settings: Any,
  ) -> SearchedTrees: ...

  @with_short_errors
  def search(
    self,
    problems: str | Problem | Sequence[str | Problem],
    *,
    select: Select = 'first_correct',
    step: int | str | None = None,
    **settings: Any,
  ) -> SearchedTree | SearchedTrees:
    """Grows a tree for a problem, or one for each of several, as `ds-jax search`.

    The trees are those that `ds-jax search --problems` grows for the same problems. A search of as
    many problems as one before compiles nothing.

    Args:
      problems: texts, which are asked as the run asks its own problems, or Problems, which are
        taken as they are. Where the right answer is not known ('' of a Problem), ends are not
        graded; an embedded task knows all answers.
      select: the rule that chooses a tree's answer: the first correct end (the vote where none is),
        the best by Q, or the vote.
      step: training step of the checkpoint, or 'best'; None: the session's.
      **settings: fields of the section `search` for this search, e.g. `width=8`.

    Returns:
      A tree for a problem, several for a sequence, in its order.
    """
    from ds_jax.run.searching import search_texts

    is_one = isinstance(problems, str | Problem)
    questions = [problems] if is_one else list(problems)
    _check_questions(questions)
    overrides = {'search': settings}
    with self._opened.at_work(overrides, step=step, keeps_work=False) as (session, loaded):
      searched, figures, text = search_texts(session, loaded, questions, select=select)
      decode = loaded.engines(session).tokenizer.decode_response
    trees = [SearchedTree(each, decode) for each in searched]
    return trees[0] if is_one else SearchedTrees(trees, figures, text)

  @with_short_errors
  def evaluate(
    self,
    benchmarks: str | Sequence[str] = (),
    *,
    output: str | os.PathLike[str] | None = None,
    step: int | str | None = None,
    **settings: Any,
  ) -> Outcome:
    """pass@1 on the evaluation split of the run, or on benchmarks, as `ds-jax evaluate`.

    Samples that are there already are not drawn again.

    Args:
      benchmarks: names, 'aime2024,math500', or 'all'; none: the evaluation split.
      output: folder of samples and tables; None: one in the workdir.
      step: as in `search`.
      **settings: fields of the section `evaluate` for this evaluation, e.g. `num_samples=32`.

    Returns:
      The figures, 'evaluate/pass_at_1' and so on. It prints as at the shell.
    """
    from ds_jax.run.evaluation import evaluate

    names = benchmarks_named(benchmarks) if isinstance(benchmarks, str) else tuple(benchmarks)
    folder = None if output is None else FOLDER.read('output', os.fspath(output))
    with self._opened.at_work({'evaluate': settings}, step=step) as (session, loaded):
      return Outcome(*evaluate(session, benchmarks=names, output=folder, loaded=loaded))

  @with_short_errors
  def export(
    self,
    output: str | os.PathLike[str],
    *,
    step: int | str | None = None,
    dtype: Literal['float32', 'bfloat16'] = 'float32',
    adapter: bool = False,
    push: str = '',
    public: bool = False,
  ) -> Outcome:
    """Writes what the run has learnt as a Hugging Face folder, as `ds-jax export`.

    Args:
      output: the folder; it must not exist, or be empty.
      step: as in `search`.
      dtype: of the tensors; 'float32' keeps every bit.
      adapter: of a run with train.lora_rank its adapters alone, as a folder for peft.
      push: name on the Hugging Face hub, MODEL or OWNER/MODEL, under which the folder is uploaded
        as well. A folder that holds these parameters already is uploaded as it is.
      public: whether a repository that is made on the hub is.

    Returns:
      'output', 'step', 'num_parameters', 'files', …; 'address' of what was uploaded.
    """
    from ds_jax.run.publishing import publish

    if public and not push:
      raise InputError("public=True is for models that are uploaded; name one: push='OWNER/MODEL'.")

    folder = FOLDER.read('output', os.fspath(output))
    with self._opened.at_work(step=step) as (session, _):
      checkpoint = os.fspath(session.workdir.root)
      what = dict(checkpoint=checkpoint, output=folder, dtype=dtype, adapter=adapter)
      return Outcome(publish(session, name=push, is_public=public, **what))

  def close(self) -> None:
    """Ends the verifier's processes and frees the parameters. May be called twice."""
    self._opened.close()

  def __enter__(self) -> OpenSession:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self.close()

  def __repr__(self) -> str:
    state = 'closed' if self._opened.is_closed else 'open'
    return f'<ds_jax session of {self.workdir}, {state}>'


def _check_questions(questions: Sequence[Any]) -> None:
  """Raises InputError unless there is something to search for."""
  if not questions:
    raise InputError('There is no problem to search; give the text of one, or several.')
  for question in questions:
    if not isinstance(question, str | Problem):
      raise InputError(f'Expected the text of a problem, or a Problem, got {question!r:.80}.')
    if not (question.prompt if isinstance(question, Problem) else question).strip():
      raise InputError('A problem is empty; give its text.')
