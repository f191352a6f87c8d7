"""Samples of problems in files: drawn once, a line each as they finish, for people to read too."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import (
  Config,
  digest,
  fields_in_use,
  flatten,
  response_limit,
  samples_by_set,
)
from ds_jax.evaluate.answers import answer_reader
from ds_jax.evaluate.samples import TEXT_FIELDS, sample_row
from ds_jax.run.durable import LineFile, close_parts, open_results
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Work, grow_missing, key_of, rollout_jobs
from ds_jax.run.parameters import ChosenParams
from ds_jax.run.prompts import Prompts, note_missing_box, sources_of
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.types import FinishedTree

Row = dict[str, Any]


def draw_samples(
  engines: Engines,
  chosen: ChosenParams,
  prompts: Mapping[str, Prompts],
  *,
  settings: Mapping[str, Any],
  output: str | None,
  temperature: float | None = None,
) -> tuple[pathlib.Path, dict[str, list[Row]]]:
  """Draws the samples that the files lack: of each problem as many as config.evaluate says.

  Args:
    engines: of the session; its processes deal the samples among themselves.
    chosen: the parameters.
    prompts: the problems of each file, FOLDER/NAME.jsonl, by its name.
    settings: what the samples depend on besides parameters, problem and number.
    output: folder of the files; None: one in the workdir that belongs to parameters and settings.
    temperature: one of `evaluate.further_temperatures`; None: `evaluate.temperature`.

  Returns:
    The folder, and the rows of the samples asked for, in order, by name; the rows on the first
    process alone.

  Raises:
    InputError: if a file holds something else.
    Stopped: if asked to; the same call goes on.
  """
  session = engines.session
  run = f'{chosen.source}, settings {digest(settings)}'
  folder = session.workdir.root / 'evaluations' / digest([chosen.source, settings])
  if output:
    folder = pathlib.Path(output)
  with contextlib.ExitStack() as stack:
    files = {}
    for name in prompts:
      opened = open_results(folder / f'{name}.jsonl', run, session.team, TEXT_FIELDS)
      files[name] = stack.enter_context(opened)
    engine = engines.evaluation_engine
    if temperature is None:
      engines.announce()
    else:
      engine = engines.further_evaluation_engines[temperature]
    everything = tuple(pair for pairs in prompts.values() for pair in pairs)
    note_missing_box(session, engines.tokenizer, everything)
    num_samples, by_set = session.config.evaluate.num_samples, samples_by_set(session.config)
    jobs = rollout_jobs(everything, num_samples, by_source=by_set)
    work = Work(engine, jobs, Purpose.EVALUATE, phase='evaluate')
    grow_missing(session, chosen.params, work, store=SampleFiles(engines, files, prompts))
    rows = {}
    if session.team.is_first:
      for name, pairs in prompts.items():
        rows[name] = _wanted_rows(files[name], pairs, session.config)
    return folder, rows


def sample_settings(config: Config, temperature: float | None = None) -> dict[str, Any]:
  """What a sample depends on besides parameters, problem and sample number.

  Args:
    config: of the command.
    temperature: as in `draw_samples`.
  """
  fields = flatten(fields_in_use(config))

  def pick(section: str, *names: str) -> dict[str, Any]:
    full_names = [f'{section}.{name}' for name in names]
    return {name: fields[name] for name in full_names if name in fields}

  settings = {
    'seed': config.seed,
    'response_limit': response_limit(config),
    **pick('data', 'instruction', 'prompt_limit', 'overlong_prompts'),
    **pick('model', 'compute_dtype'),
    **pick('mesh', 'tensor'),
    **pick('search', 'segment_length', 'cut_ends', 'replay_chunk', 'path_block'),
    **pick('search', 'cache_kernel'),
    **pick('evaluate', 'temperature', 'top_p', 'num_slots'),
    **pick('verify', 'verifier', 'degenerate', 'cpu_seconds'),
  }
  if temperature is not None:
    settings |= {'evaluate.temperature': temperature, 'evaluate.top_p': 1.0}
  return settings


class SampleFiles:
  """Samples as lines of a file for each set of problems; see growing.Store."""

  def __init__(
    self, engines: Engines, files: Mapping[str, LineFile], prompts: Mapping[str, Prompts]
  ):
    self._engines, self._files = engines, files
    self._home = {}  # problem id -> the name of its file, and itself
    for name, pairs in prompts.items():
      for problem, _ in pairs:
        self._home[problem.id] = (name, problem)

  def known(self, jobs: Sequence[Job]) -> set[tuple[str, int]]:
    drawn = {(row['id'], row['sample']) for file in self._files.values() for row in file.rows}
    known = {key_of(job) for job in jobs} & drawn
    if known:
      self._engines.session.progress.note(f'{len(known)} of {len(jobs)} samples are there already.')
    return known

  def append(self, tree: FinishedTree) -> None:
    name, problem = self._home[tree.problem_id]
    read_answer = answer_reader(self._engines.session.config.verify.verifier)
    self._files[name].append(sample_row(tree, problem, self._engines.tokenizer, read_answer))

  def share(self) -> None:
    close_parts(self._engines.session.team, self._files.values())


def _wanted_rows(file: LineFile, prompts: Prompts, config: Config) -> list[Row]:
  """The rows of the samples asked for: a file may hold more of an earlier evaluation."""
  gold = {problem.id: problem.answer for problem, _ in prompts}
  set_of, by_set, rows = sources_of(prompts), samples_by_set(config), []
  for row in file.rows:
    if row['sample'] < by_set.get(set_of.get(row['id']), config.evaluate.num_samples):
      rows.append(row)
  changed = [row['id'] for row in rows if gold.get(row['id']) != row['gold']]
  if changed:
    raise InputError(
      f'{file.path} holds samples of another version of its problems, e.g. '
      f'{changed[0]}; choose another --output.'
    )
  place = {problem.id: i for i, (problem, _) in enumerate(prompts)}
  return sorted(rows, key=lambda row: (place[row['id']], row['sample']))
