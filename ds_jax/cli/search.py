"""`ds-jax search`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal

from ds_jax.checks import InputError
from ds_jax.cli.registry import NAMES_RUN, Needs
from ds_jax.cli.result import Result
from ds_jax.cli.run_flags import RunFlags
from ds_jax.config.places import FILE, FOLDER
from ds_jax.run.stopping import ExitCode

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Grow a tree for one problem and print it, or one for each problem of a file.'
EXAMPLE = 'ds-jax search --checkpoint=runs/quickstart --problem="24 from 3 5 7 2"'
NEEDS = Needs(config=True, workdir=True, team=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(RunFlags):
  # instead of --config and --workdir: the folder of a run, whose config holds
  checkpoint: Annotated[str, NAMES_RUN, FOLDER] = ''
  problem: str = ''  # text of the problem
  answer: str | None = None  # its gold answer, if known; not needed for the embedded task
  # instead of --problem: .jsonl, .json, .parquet, .csv; answers may be missing
  problems: Annotated[str, FILE] = ''
  # with --problems: .jsonl, a line per finished tree; the same command continues
  output: Annotated[str, FILE] = ''
  # .html, to look at: the tree; with --problems an overview, and a folder of pages beside it
  html: Annotated[str, FILE] = ''
  # the answer: first_correct (the vote where none is), best_q or vote
  select: Literal['first_correct', 'best_q', 'vote'] = 'first_correct'

  @classmethod
  def required(cls, given: Collection[str]) -> set[str]:
    is_for_file = 'problems' in given and 'problem' not in given
    return {'problems', 'output'} if is_for_file else {'problem'}

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.problem and (self.problems or self.output):
      raise InputError(
        '--problem searches one problem and prints its tree; --problems=FILE and '
        '--output=FILE.jsonl are for many. Give the one or the others.'
      )
    if self.problem and not self.problem.strip():
      raise InputError('--problem is empty; give the text of the problem.')
    if self.problems and self.answer:
      raise InputError(
        '--answer belongs to --problem; the answers of --problems stand in the file.'
      )
    if self.html and pathlib.PurePath(self.html).suffix != '.html':
      raise InputError(f'Expected --html to name a file that ends in .html, got {self.html!r}.')
    if self.html and self.html in (self.output, self.problems):
      raise InputError(f'--html is a file of its own, got {self.html} twice.')


def run(session: Session, args: Args) -> Result:
  from ds_jax.run.searching import no_pages, search_file, search_problem
  from ds_jax.run.tree_pages import page_writer

  session = args.chosen_in(session)
  show = no_pages
  if args.html:
    show = page_writer(session, args.html, is_overview=bool(args.problems))
  if args.problems:
    summary, text = search_file(
      session, problems=args.problems, output=args.output, select=args.select, show=show
    )
  elif session.team.count > 1:
    raise InputError(
      '--problem grows one tree, which one process does; start one, or give '
      '--problems=FILE --output=FILE.jsonl.'
    )
  else:
    summary, text = search_problem(
      session, text=args.problem, answer=args.answer, select=args.select, show=show
    )
  has_written = summary['status'] == 'done'
  return Result(summary, text, ExitCode.DONE if has_written else ExitCode.CANNOT_WRITE)
