"""Test-time search: a tree for one problem, for each of a file, or for those of a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.evaluate.answers import SELECTIONS
from ds_jax.evaluate.searches import (
  SplitFigures,
  answers_of,
  split_figures,
  summarize_trees,
  tree_row,
)
from ds_jax.report.inspect import format_split_depths, format_table, format_tree, tree_to_dict
from ds_jax.report.text import percent
from ds_jax.run.compiling import Clock
from ds_jax.run.durable import LineFile, close_parts, open_results
from ds_jax.run.engines import Engines, open_engines
from ds_jax.run.forking import decode_cost
from ds_jax.run.growing import JobKey, grow_in_memory, grow_missing, key_of
from ds_jax.run.loaded import LoadedRun
from ds_jax.run.parameters import chosen_params
from ds_jax.run.questions import (
  question_work,
  read_question,
  read_questions,
  read_texts,
  run_name,
  with_slots,
)
from ds_jax.run.session import Session
from ds_jax.search.decode_cost import DecodeCost
from ds_jax.search.engine.host_tree import Job
from ds_jax.types import FinishedTree, Problem

Summary = dict[str, Any]
Row = dict[str, Any]


def search_problems(
  engines: Engines, params: Any, problems: Sequence[Problem]
) -> list[FinishedTree]:
  """Grows one tree per problem, many at once; trees in the order of `problems`.

  Args:
    engines: from `open_engines`.
    params: parameters in the form for search, from `parameters.trained_params`.
    problems: any number; ids must differ. Of several processes all must give the same.

  Raises:
    InputError: if a prompt exceeds data.prompt_limit.
  """
  work = question_work(engines, problems, phase='search')
  return grow_in_memory(engines.session, params, work).trees


@dataclasses.dataclass(frozen=True)
class Searched:
  """A problem, the tree that was grown for it, and what a line of results says of that."""

  problem: Problem
  tree: FinishedTree
  row: Row  # from evaluate.searches.tree_row, with the tree as plain values
  text: str  # for a terminal: a line per node, then U/x by depth


def search_questions(
  engines: Engines, params: Any, problems: Sequence[Problem], *, select: str
) -> list[Searched]:
  """Grows one tree per problem, many at once; the results are in the order of `problems`.

  Args:
    engines: of one process.
    params: parameters in the form for search.
    problems: accepted ones, see questions.py; ids must differ.
    select: which of answers.SELECTIONS gives the answer.

  Raises:
    InputError: if a prompt exceeds data.prompt_limit.
    Stopped: if asked to; nothing is kept.
  """
  work = question_work(engines, problems, phase='search')
  with Clock() as clock:
    grown = grow_in_memory(
      engines.session, params, work, on_start=clock.start, on_finish=clock.stop
    )
  searched = []
  for problem, tree in zip(problems, grown.trees, strict=True):
    row = _row(engines, tree, problem, select=select, seconds=clock.taken[problem.id])
    searched.append(Searched(problem, tree, row, _tree_text(engines, tree, row)))
  return searched


def _tree_text(engines: Engines, tree: FinishedTree, row: Row) -> str:
  cost = decode_cost(engines, [tree.prompt_tokens])
  shown = format_tree(tree, engines.tokenizer.decode_response)
  return '\n'.join([shown, *_split_lines(split_figures([row], cost))])


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
    InputError: if the model cannot read a problem, or the verifier not its answer.
    Stopped: if asked to; nothing is kept.
  """
  is_first = not loaded.is_open
  opened = loaded.engines(session)
  problems = read_texts(opened, questions)
  different = {problem.id: problem for problem in problems}
  for problem in problems:
    if problem != different[problem.id]:
      raise InputError(f'Two different problems have the id {problem.id!r}; give them two.')
  fewer = _with_fewer_slots(opened, len(different))
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
    _trees_text(figures, rows, cost),
  )


def search_problem(
  session: Session, *, text: str, answer: str | None, select: str
) -> tuple[Summary, str]:
  """Grows one tree for one problem; returns the summary, and the tree as text.

  Args:
    session: of one process.
    text: the problem.
    answer: what is right; None: not known, or, for the embedded task, the problem itself.
    select: which of answers.SELECTIONS gives the answer.

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
  return summary, searched.text


def search_file(
  session: Session, *, problems: str, output: str, select: str
) -> tuple[Summary, str]:
  """Grows a tree for every problem of a file, and writes each as a line when it is finished.

  Problems whose line is in the output already are not searched again.

  Args:
    session: its processes deal the problems among themselves; the first writes the output.
    problems: the file.
    output: the file of lines.
    select: which of answers.SELECTIONS gives the answer.

  Returns:
    The summary over all problems, and a table as text.

  Raises:
    InputError: if no row can be used, or `output` belongs to something else.
    Stopped: if asked to; the same command goes on.
  """
  with open_engines(session) as opened:
    loaded = read_questions(opened, problems)
    fewer = _with_fewer_slots(opened, len(loaded.problems))
    engines = dataclasses.replace(opened, session=fewer)
    chosen = chosen_params(engines)
    with (
      open_results(output, run_name(opened, chosen.source), session.team) as file,
      Clock() as clock,
    ):
      engines.announce()
      trees = TreeFile(engines, file, clock, select)
      work = question_work(engines, loaded.problems, phase='search')
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
    'num_skipped': len(loaded.skipped),
    **figures,
  }
  return summary, _trees_text(figures, rows, cost)


def _with_fewer_slots(engines: Engines, num_problems: int) -> Session:
  """The session of some engines, with no more slots than so many problems can use."""
  per_device = -(-num_problems // sharding.num_slot_shards(engines.mesh))
  session = engines.session
  return dataclasses.replace(session, config=with_slots(session.config, per_device))


def _trees_text(figures: Summary, rows: Sequence[Row], cost: DecodeCost) -> str:
  """Many trees for a terminal: the table over them, U/x by depth, how many answers are right.

  Args:
    figures: from `summarize_trees`.
    rows: those that it is about.
    cost: of a token.
  """
  tables = [format_table(figures['table']), *_split_lines(split_figures(rows, cost))]
  return '\n'.join([*tables, _accuracy_line(figures)])


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
    row = _row(self.engines, tree, problem, select=self.select, seconds=seconds)
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


def _row(
  engines: Engines, tree: FinishedTree, problem: Problem, *, select: str, seconds: float
) -> Row:
  """What a line of the output holds, as plain values; numbers that are not finite are None."""
  config, decode = engines.session.config, engines.tokenizer.decode_response
  chosen = answers_of(tree, decode, verifier=config.verify.verifier, is_graded=bool(problem.answer))
  row = tree_row(
    tree,
    problem,
    chosen,
    select=select,
    seconds=seconds,
    max_depth=config.search.max_depth,
    stop_ids=engines.tokenizer.stop_ids,
  )
  return row | {'tree': tree_to_dict(tree, decode)}


def _split_lines(figures: Mapping[str, SplitFigures]) -> list[str]:
  """U/x by depth as text, of all problems and of those whose past is known."""
  names = {'all': 'all problems', 'unsolved': 'unsolved before', 'solved': 'solved before'}
  lines = []
  for which, figure in figures.items():
    intervals = {'tokens': figure.in_tokens}
    if figure.in_time is not None:
      intervals['predicted time'] = figure.in_time
    lines.append(format_split_depths(names[which], figure.pairs, intervals))
  return lines


def _accuracy_line(figures: Summary) -> str:
  if not figures['num_graded']:
    return 'No answer is known: nothing was graded.'
  shares = []
  for rule in SELECTIONS:
    shares.append(f'{rule.replace("_", " ")} {percent(figures[f"accuracy/{rule}"])}')
  return f'correct of {figures["num_graded"]} with a known answer: ' + ', '.join(shares)
