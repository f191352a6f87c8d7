"""The paper's evaluation: samples of benchmarks in files, and the table that they make.

A benchmark's samples stand in OUTPUT/NAME.jsonl, one line each, as they finish; a sample that is
there is never drawn again. table.md and table.json are functions of them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError, check_choice
from ds_jax.config import Config
from ds_jax.config.mixtures import EMBEDDED
from ds_jax.data.benchmarks import BENCHMARKS
from ds_jax.data.prepared import load_benchmark
from ds_jax.evaluate import table
from ds_jax.evaluate.samples import average, summarize_samples
from ds_jax.run.durable import write_atomically, write_json
from ds_jax.run.engines import Engines
from ds_jax.run.loaded import LoadedRun
from ds_jax.run.parameters import ChosenParams
from ds_jax.run.prompts import Prompts, longest_prompt, prepare, template_settings
from ds_jax.run.samples import draw_samples, sample_settings
from ds_jax.run.session import Session

Summary = dict[str, Any]


def benchmarks_named(text: str) -> tuple[str, ...]:
  """The names in 'aime2024,math500', each once; 'all': all that there are."""
  if text == 'all':
    return tuple(BENCHMARKS)
  return tuple(dict.fromkeys(text.split(','))) if text else ()


def check_benchmarks(names: Sequence[str], config: Config) -> None:
  """Raises InputError for a benchmark that does not exist, or whose answers cannot be verified."""
  for name in names:
    check_choice('--benchmarks', name, BENCHMARKS)
  if names and config.verify.verifier in EMBEDDED:
    raise InputError(
      'The answers of benchmarks are mathematics; set --config.verify.verifier=math.'
    )


def evaluate_benchmarks(
  session: Session, loaded: LoadedRun, names: Sequence[str], *, output: str | None
) -> tuple[Summary, str]:
  """Draws the samples that the files lack; returns the figures, and the table as text.

  Args:
    session: its step says which parameters are evaluated.
    loaded: the run.
    names: of the benchmarks, each once.
    output: folder of the results; None: one in the workdir that belongs to these settings.

  Raises:
    InputError: for an unprepared benchmark, a prompt that is too long, or an output that belongs
      to other settings.
    Stopped: if asked to; the same command goes on.
  """
  engines, config = loaded.engines(session), session.config
  prompts = {name: _benchmark_prompts(engines, name) for name in names}
  chosen = loaded.params(session)
  settings = sample_settings(config) | template_settings(engines.tokenizer)
  folder, rows = draw_samples(engines, chosen, prompts, settings=settings, output=output)
  if not session.team.is_first:
    return {'status': 'done', 'process': session.team.index}, ''
  results = {name: summarize_samples(rows[name], config.verify.verifier) for name in names}
  if set(results) == set(BENCHMARKS):
    results['average'] = average([results[name] for name in BENCHMARKS])
  return _write_tables(folder, chosen, settings, results=results, config=config)


def _benchmark_prompts(engines: Engines, name: str) -> Prompts:
  """All problems of a benchmark with their prompt tokens; none may be left out."""
  session, data = engines.session, engines.session.config.data
  problems = load_benchmark(name, session.data_dir, data, session.progress)
  prepared = prepare(session, engines.tokenizer, problems, what=name)
  if prepared.skipped:
    longest = longest_prompt(engines.tokenizer, problems)
    raise InputError(
      f'{name}: {len(prepared.skipped)} of {len(problems)} prompts exceed data.prompt_limit = '
      f'{data.prompt_limit} tokens; set it to {longest} (or data.overlong_prompts=truncate_left, '
      'which cuts their beginnings).'
    )
  return prepared.prompts


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
  summary = {'status': 'done', 'output': str(folder), **tables}
  return summary, '\n'.join([text, *map(table.result_line, results, results.values())])
