"""Test-time search: a tree for one problem, for each of a file, or for those of a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ds_jax.checks import InputError, check_choice
from ds_jax.evaluate.answers import SELECTIONS
from ds_jax.evaluate.searches import summarize_trees
from ds_jax.run.compiling import Clock
from ds_jax.run.durable import LineFile, close_parts, open_results
from ds_jax.run.engines import Engines
from ds_jax.run.forking import decode_cost
from ds_jax.run.growing import JobKey, grow_missing, key_of
from ds_jax.run.loaded import LoadedRun
from ds_jax.run.question_trees import question_work, search_questions, with_fewer_slots, with_slots
from ds_jax.run.questions import read_question, read_questions, read_texts, run_name
from ds_jax.run.searched import Row, Searched, Summary, row_of, trees_text
from ds_jax.run.session import Session
from ds_jax.search.engine.host_tree import Job
from ds_jax.types import FinishedTree, Problem

Show = Callable[[Sequence[Row]], Summary]  # rows of trees -> what the summary says of their pages


def no_pages(rows: Sequence[Row]) -> Summary:
  """A Show that shows nothing."""
  del rows
  return {}


def search_problem(
  session: Session, *, text: str, answer: str | None, select: str, show: Show = no_pages
) -> tuple[Summary, str]:
  """Grows one tree for one problem; returns the summary, and the tree as text.

  Args:
    session: of one process.
    text: the problem.
    answer: what is right; None: not known, or, for the embedded task, the problem itself.
    select: which of answers.SELECTIONS gives the answer.
    show: called with the row of the tree, e.g. tree_pages.page_writer.

  Raises:
    InputError: if the model cannot read the problem, or the verifier not its answer.
    Stopped: if asked to.
  """
  alone = dataclasses.replace(session, config=with_slots(session.config, 1))
  with LoadedRun() as loaded:
    engines = loaded.engines(alone)
    problem = read_question(engines, text, answer)
    if not problem.answer:
      session.progress.note('No --answer: ends cannot be graded, so none is better than another.')
    chosen = loaded.params(alone)
    engines.announce()
    (searched,) = search_questions(engines, chosen.params, [problem], select=select)
    row, cost = searched.row, decode_cost(engines, [searched.tree.prompt_tokens])
  summary = {
    'status': 'done',
    **chosen.summary,
    'time/search': row['table']['time_per_tree'],
    **{name: row[name] for name in ('is_solved', 'selected', 'answers', 'tree')},
    **summarize_trees([row], cost),
  }
  return summary | show([row]), searched.text


def search_file(
  session: Session, *, problems: str, output: str, select: str, show: Show = no_pages
) -> tuple[Summary, str]:
  """Grows a tree for every problem of a file, and writes each as a line when it is finished.

  Problems whose line is in the output already are not searched again.

  Args:
    session: its processes deal the problems among themselves; the first writes the output.
    problems: the file.
    output: the file of lines.
    select: which of answers.SELECTIONS gives the answer.
    show: called with the rows of all problems by the first process, e.g. tree_pages.page_writer.

  Returns:
    The summary over all problems, and a table as text.

  Raises:
    InputError: if no row can be used, or `output` belongs to something else.
    Stopped: if asked to; the same command goes on.
  """
  with LoadedRun() as loaded:
    opened = loaded.engines(session)
    questions = read_questions(opened, problems)
    fewer = with_fewer_slots(opened, len(questions.problems))
    engines, chosen = loaded.engines(fewer), loaded.params(session)
    with (
      open_results(output, run_name(opened, chosen.source), session.team) as file,
      Clock() as clock,
    ):
      engines.announce()
      trees = TreeFile(engines, file, clock, select)
      work = question_work(engines, questions.problems, phase='search')
      counters = grow_missing(fewer, chosen.params, work, store=trees, on_start=clock.start)
      if not session.team.is_first:
        return {'status': 'done', 'process': session.team.index}, ''
      rows = trees.rows(work.jobs)
      cost = decode_cost(engines, [job.prompt_tokens for job in work.jobs])
  figures = summarize_trees(rows, cost)
  if counters.trees:  # how well the slots were used now
    figures |= counters.metrics() | {'search/out_of_budget': counters.out_of_budget}
  summary = {
    'status': 'done',
    **chosen.summary,
    'output': str(output),
    'num_skipped': len(questions.skipped),
    **figures,
  }
  return summary | show(rows), trees_text(figures, rows, cost)


def search_texts(
  session: Session, loaded: LoadedRun, questions: Sequence[str | Problem], *, select: str
) -> tuple[list[Searched], Summary, str]:
  """Grows a tree for every question of a program.

  Args:
    session: of one process.
    loaded: of the session.
    questions: texts, or problems; one that comes twice is searched once.
    select: which of answers.SELECTIONS gives the answer.

  Returns:
    A result for each question, in their order; the summary over the different ones, and a table as
    text.

  Raises:
    InputError: if the model cannot read a problem, the verifier not its answer, or there is no such
      selection.
    Stopped: if asked to; nothing is kept.
  """
  check_choice('select', select, SELECTIONS)
  is_first = not loaded.is_open
  opened = loaded.engines(session)
  problems = read_texts(opened, questions)
  different = {problem.id: problem for problem in problems}
  for problem in problems:
    if problem != different[problem.id]:
      raise InputError(f'Two different problems have the id {problem.id!r}; give them two.')
  fewer = with_fewer_slots(opened, len(different))
  engines, chosen = loaded.engines(fewer), loaded.params(session)
  if is_first:
    engines.announce()
  searched = search_questions(engines, chosen.params, list(different.values()), select=select)
  rows = [each.row for each in searched]
  cost = decode_cost(engines, [each.tree.prompt_tokens for each in searched])
  figures = summarize_trees(rows, cost)
  of_problem = {each.problem.id: each for each in searched}
  return (
    [of_problem[problem.id] for problem in problems],
    {'status': 'done', **chosen.summary, **figures},
    trees_text(figures, rows, cost),
  )


@dataclasses.dataclass(frozen=True)
class TreeFile:
  """Trees as lines of a file of results; see growing.Store."""

  engines: Engines
  file: LineFile
  clock: Clock
  select: str
  problems: dict[str, Problem] = dataclasses.field(default_factory=dict)  # by id

  def known(self, jobs: Sequence[Job]) -> list[JobKey]:
    self.problems.update((job.problem.id, job.problem) for job in jobs)
    kept = {_identity(row) for row in self.file.rows}
    known = [key_of(job) for job in jobs if _question(job.problem) in kept]
    if known:
      self.engines.session.progress.note(
        f'{self.file.path}: {len(known)} of {len(jobs)} trees are there already.'
      )
    return known

  def append(self, tree: FinishedTree) -> None:
    problem, seconds = self.problems[tree.problem_id], self.clock.seconds(tree.problem_id)
    row = row_of(self.engines, tree, problem, select=self.select, seconds=seconds)
    self.file.append(row)

  def share(self) -> None:
    close_parts(self.engines.session.team, [self.file])

  def rows(self, jobs: Sequence[Job]) -> list[Row]:
    """The rows of some problems, in their order; of the first process, after `share`."""
    kept = {_identity(row): row for row in self.file.rows}
    return [kept[_question(job.problem)] for job in jobs]


def _question(problem: Problem) -> tuple[str, str, str | None]:
  """What a row must say to be about this problem."""
  return problem.id, problem.prompt, problem.answer or None


def _identity(row: Row) -> tuple[str, str, str | None]:
  return row['id'], row['question'], row['gold']
