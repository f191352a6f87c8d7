"""Test-time search: a tree for one problem, for each of a file, or for those of a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ds_jax import sharding
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
from ds_jax.run.parameters import chosen_params
from ds_jax.run.questions import (
  question_work,
  read_question,
  read_questions,
  run_name,
  with_slots,
)
from ds_jax.run.session import Session
from ds_jax.search.engine.host_tree import Job
from ds_jax.types import FinishedTree, Problem

Summary = dict[str, Any]
Row = dict[str, Any]
Show = Callable[[Sequence[Row]], Summary]  # rows of trees -> what the summary says of their pages


def no_pages(rows: Sequence[Row]) -> Summary:
  """A Show that shows nothing."""
  del rows
  return {}


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
  with open_engines(alone) as engines, Clock() as clock:
    problem = read_question(engines, text, answer)
    if not problem.answer:
      session.progress.note('No --answer: ends cannot be graded, so none is better than another.')
    chosen = chosen_params(engines)
    engines.announce()
    work = question_work(engines, [problem], phase='search')
    (tree,) = grow_in_memory(alone, chosen.params, work, on_start=clock.start).trees
    seconds = clock.seconds(problem.id)
    row = _row(engines, tree, problem, select=select, seconds=seconds)
    cost = decode_cost(engines, [tree.prompt_tokens])
    shown = format_tree(tree, engines.tokenizer.decode_response)
  summary = {
    'status': 'done',
    **chosen.summary,
    'time/search': seconds,
    **{name: row[name] for name in ('is_solved', 'selected', 'answers', 'tree')},
    **summarize_trees([row], cost),
  }
  summary |= show([row])
  return summary, '\n'.join([shown, *_split_lines(split_figures([row], cost))])


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
  with open_engines(session) as opened:
    loaded = read_questions(opened, problems)
    per_device = -(-len(loaded.problems) // sharding.num_slot_shards(opened.mesh))
    fewer = dataclasses.replace(session, config=with_slots(session.config, per_device))
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
  summary |= show(rows)
  tables = [format_table(figures['table']), *_split_lines(split_figures(rows, cost))]
  return summary, '\n'.join([*tables, _accuracy_line(figures)])


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
