"""The report of a run, from what its workdir holds, and what a finished run leaves for it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError
from ds_jax.model.decoder import Decoder
from ds_jax.report.inspect import format_tree, tree_to_dict
from ds_jax.report.metrics import read_metrics
from ds_jax.report.render import PAGE_NAME, PICTURE_NAME, render_report
from ds_jax.report.summary import make_summary, read_beside, summary_table
from ds_jax.run.disk import is_writable
from ds_jax.run.durable import write_atomically, write_json
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Work, grow_in_memory
from ds_jax.run.prompts import Prompts
from ds_jax.run.session import Session
from ds_jax.run.workdir import stored_fields
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose

NUM_EXAMPLES = 3


def check_beside(session: Session) -> None:
  """Raises InputError if the curve that a new run's report will draw beside its own is none.

  A run that goes on does so without it.
  """
  if not session.workdir.metrics.exists():
    read_beside(session.config.log.beside)


def report(session: Session, output: str = '') -> tuple[dict[str, Any], str]:
  """Writes report.html and report.png; returns their names, and the table of a finished run.

  Args:
    session: of the run.
    output: folder to write them to, which is made where it is missing; '': the workdir.

  Raises:
    InputError: if there is nothing to report on, or the workdir cannot be written.
  """
  workdir = session.workdir
  metrics = read_metrics(workdir.metrics)
  if not metrics:
    raise InputError(f'{workdir.root} has no metrics.jsonl to report on; run `ds-jax train` first.')
  summary = json.loads(workdir.summary.read_text()) if workdir.summary.exists() else {}
  config = stored_fields(workdir)
  trees = json.loads(workdir.examples.read_text()) if workdir.examples.exists() else []
  shown = summary | {'config': config, 'trees': trees, 'beside': _beside(session, config)}
  if not output and not is_writable(workdir.root):
    raise InputError(f'{workdir.root} cannot be written; name another folder with --output=DIR.')
  folder = pathlib.Path(output) if output else workdir.root
  folder.mkdir(parents=True, exist_ok=True)
  page, picture = write_report(folder, metrics, shown)
  session.progress.note(f'Report: {page}')
  session.progress.note(f'Picture: {picture}')
  text = summary_table(summary) if summary else ''
  return {'report': str(page), 'picture': str(picture)}, text


def _beside(session: Session, config: Mapping[str, Any]) -> dict[str, Any]:
  """The curve that the run's config names; {} without, or where its file has gone since."""
  try:
    return read_beside(config.get('log', {}).get('beside', ''))
  except InputError as e:
    session.progress.note(str(e))
    return {}


def write_report(
  folder: str | pathlib.Path, metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes page and picture into an existing folder; each file is complete or absent."""
  page, picture = render_report(metrics, summary)
  page_path, picture_path = (pathlib.Path(folder) / name for name in (PAGE_NAME, PICTURE_NAME))
  write_atomically(picture_path, picture)
  write_atomically(page_path, page)
  return page_path, picture_path


def finish(
  session: Session, fields: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], str]:
  """Writes the summary of a run that has ended, and reports on it; returns both.

  Args:
    session: of the first process.
    fields: what the summary says besides what metrics.jsonl says.
    examples: from `example_trees`.
  """
  workdir = session.workdir
  summary = make_summary(read_metrics(workdir.metrics)) | {
    'status': 'done',
    **fields,
  }
  write_json(workdir.examples, examples)
  write_json(workdir.summary, summary)
  files, text = report(session)
  return summary | files, text


def example_trees(engines: Engines, params: Decoder, prompts: Prompts) -> list[dict[str, Any]]:
  """A few trees of the trained policy, as text and as plain values; see summary.py.

  Args:
    engines: of the run.
    params: in the form for search.
    prompts: the first of these problems are searched.
  """
  jobs = [Job(problem, tokens) for problem, tokens in prompts[:NUM_EXAMPLES]]
  work = Work(engines.search_engine, jobs, Purpose.SEARCH)
  trees = grow_in_memory(engines.session, params, work).trees
  trees.sort(key=lambda tree: tree.problem_id)
  decode = engines.tokenizer.decode_response
  of_id = {problem.id: problem for problem, _ in prompts[:NUM_EXAMPLES]}
  examples = []
  for tree in trees:
    problem = of_id[tree.problem_id]
    example = {
      'title': tree.problem_id,
      'text': format_tree(tree, decode),
      'question': problem.prompt,
      'gold': problem.answer,
      'tree': tree_to_dict(tree, decode),
    }
    examples.append(example)
  return examples
