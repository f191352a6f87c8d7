"""The paper's evaluation: samples of benchmarks in files, and the table that they make.

A benchmark's samples stand in OUTPUT/NAME.jsonl, one line each, as they finish; a sample that is
there is never drawn again. table.md and table.json are functions of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.config import Config, digest, response_limit
from ds_jax.data.benchmarks import BENCHMARKS
from ds_jax.data.prepared import load_benchmark
from ds_jax.evaluate import table
from ds_jax.evaluate.answers import answer_reader
from ds_jax.evaluate.samples import TEXT_FIELDS, average, sample_row, summarize_samples
from ds_jax.run.durable import (
  LineFile,
  close_parts,
  open_results,
  write_atomically,
  write_json,
)
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Work, grow_missing, key_of, rollout_jobs
from ds_jax.run.parameters import ChosenParams, chosen_params
from ds_jax.run.prompts import Prompts, note_missing_box, prepare
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose
from ds_jax.types import FinishedTree

Summary = dict[str, Any]


def check_benchmarks(names: Sequence[str], config: Config) -> None:
  """Raises InputError for a benchmark that does not exist, or whose answers cannot be verified."""
  for name in names:
    check_choice('--benchmarks', name, BENCHMARKS)
  if names and config.verify.verifier == 'countdown':
    raise InputError(
      'The answers of benchmarks are mathematics; set --config.verify.verifier=math.'
    )


def evaluate_benchmarks(
  engines: Engines, names: Sequence[str], output: str | None
) -> tuple[Summary, str]:
  """Draws the samples that the files lack; returns the figures, and the table as text.

  Args:
    engines: whose workdir's newest parameters are evaluated.
    names: of the benchmarks, each once.
    output: folder of the results; None: one in the workdir that belongs to these settings.

  Raises:
    InputError: for an unprepared benchmark, a prompt that is too long, or an output that belongs
      to other settings.
    Stopped: if asked to; the same command goes on.
  """
  session, config = engines.session, engines.session.config
  prompts = {name: _benchmark_prompts(engines, name) for name in names}
  chosen = chosen_params(engines)
  settings = sample_settings(config)
  run = f'{chosen.source}, settings {digest(settings)}'
  folder = session.workdir.root / 'evaluations' / digest([chosen.source, settings])
  if output:
    folder = pathlib.Path(output)
  with contextlib.ExitStack() as stack:
    files = {}
    for name in names:
      opened = open_results(folder / f'{name}.jsonl', run, session.team, TEXT_FIELDS)
      files[name] = stack.enter_context(opened)
    engines.announce()
    everything = tuple(pair for name in names for pair in prompts[name])
    note_missing_box(session, engines.tokenizer, everything)
    jobs = rollout_jobs(everything, config.evaluate.num_samples)
    work = Work(engines.evaluation_engine, jobs, Purpose.EVALUATE, phase='evaluate')
    grow_missing(session, chosen.params, work, store=SampleFiles(engines, files, prompts))
    if not session.team.is_first:
      return {'status': 'done', 'process': session.team.index}, ''
    results = {}
    for name in names:
      rows = _wanted_rows(files[name], prompts[name], config)
      results[name] = summarize_samples(rows, config.verify.verifier)
  if set(results) == set(BENCHMARKS):
    results['average'] = average([results[name] for name in BENCHMARKS])
  return _write_tables(folder, chosen, settings, results=results, config=config)


def sample_settings(config: Config) -> dict[str, Any]:
  """What a sample depends on besides parameters, problem and sample number."""
  fields = dataclasses.asdict(config)
  pick = lambda section, *names: {f'{section}.{name}': fields[section][name] for name in names}
  return {
    'seed': config.seed,
    'response_limit': response_limit(config),
    **pick('data', 'instruction', 'prompt_limit', 'overlong_prompts'),
    **pick('model', 'compute_dtype'),
    **pick('mesh', 'tensor'),
    **pick('search', 'segment_length', 'replay_chunk', 'path_block', 'cache_kernel'),
    **pick('evaluate', 'temperature', 'top_p', 'num_slots'),
    **pick('verify', 'verifier', 'degenerate', 'cpu_seconds'),
  }


def _benchmark_prompts(engines: Engines, name: str) -> Prompts:
  """All problems of a benchmark with their prompt tokens; none may be left out."""
  session, data = engines.session, engines.session.config.data
  problems = load_benchmark(name, session.data_dir, data, session.progress)
  prepared = prepare(session, engines.tokenizer, problems, what=name)
  if prepared.skipped:
    longest = max(len(engines.tokenizer.encode_prompt(problem.prompt)) for problem in problems)
    raise InputError(
      f'{name}: {len(prepared.skipped)} of {len(problems)} prompts exceed data.prompt_limit = '
      f'{data.prompt_limit} tokens; set it to {longest} (or data.overlong_prompts=truncate_left, '
      'which cuts their beginnings).'
    )
  return prepared.prompts


class SampleFiles:
  """Samples as lines of a file per benchmark."""

  def __init__(
    self, engines: Engines, files: Mapping[str, LineFile], prompts: Mapping[str, Prompts]
  ):
    self._engines, self._files = engines, files
    self._home = {}  # problem id -> its benchmark and itself
    for name, pairs in prompts.items():
      for problem, _ in pairs:
        self._home[problem.id] = (name, problem)

  def known(self, jobs: Sequence[Job]) -> set[tuple[str, int]]:
    kept = {(row['id'], row['sample']) for file in self._files.values() for row in file.rows}
    known = {key_of(job) for job in jobs} & kept
    if known:
      self._engines.session.progress.note(f'{len(known)} of {len(jobs)} samples are there already.')
    return known

  def append(self, tree: FinishedTree) -> None:
    name, problem = self._home[tree.problem_id]
    read_answer = answer_reader(self._engines.session.config.verify.verifier)
    self._files[name].append(sample_row(tree, problem, self._engines.tokenizer, read_answer))

  def share(self) -> None:
    close_parts(self._engines.session.team, self._files.values())


def _wanted_rows(file: LineFile, prompts: Prompts, config: Config) -> list[dict[str, Any]]:
  """The rows of the samples asked for: a file may hold more of an earlier evaluation."""
  gold = {problem.id: problem.answer for problem, _ in prompts}
  rows = [row for row in file.rows if row['sample'] < config.evaluate.num_samples]
  changed = [row['id'] for row in rows if gold.get(row['id']) != row['gold']]
  if changed:
    raise InputError(
      f'{file.path} holds samples of another version of the benchmark, e.g. '
      f'{changed[0]}; choose another --output.'
    )
  return rows


def _write_tables(
  folder: pathlib.Path,
  chosen: ChosenParams,
  settings: Mapping[str, Any],
  *,
  results: Mapping[str, Any],
  config: Config,
) -> tuple[Summary, str]:
  """Writes table.json and table.md; returns what they say."""
  sampling = {name: getattr(config.evaluate, name) for name in table.PAPER_SETTINGS}
  text = table.markdown(results, chosen.source, sampling)
  columns = (*BENCHMARKS, 'average')
  tables = {
    **chosen.summary,
    'settings': {**settings, 'evaluate.num_samples': config.evaluate.num_samples},
    'results': results,
    'paper': {row: dict(zip(columns, values, strict=True)) for row, values in table.PAPER.items()},
  }
  write_json(folder / 'table.json', tables)
  write_atomically(folder / 'table.md', text)
  return {'status': 'done', 'output': str(folder), **tables}, text
