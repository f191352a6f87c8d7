"""pass@1 of a run's newest parameters: on its evaluation split, or on the paper's benchmarks.

The random numbers of a sample follow from seed, problem and sample number. So killed or not, on one
device or several (at equal slots per device), the samples are the same.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import digest, temperature_name
from ds_jax.evaluate.metrics import evaluation_metrics
from ds_jax.report.summary import (
  evaluation_of,
  figures_of,
  mean_figures,
  samples_in_words,
  with_interval,
)
from ds_jax.run.benchmarks import check_benchmarks, evaluate_benchmarks
from ds_jax.run.disk import is_writable
from ds_jax.run.loaded import LoadedRun
from ds_jax.run.measuring import of_temperature
from ds_jax.run.prompts import Prompts, check_golds, evaluation_prompts, sources_of
from ds_jax.run.samples import draw_samples, sample_settings
from ds_jax.run.session import Session
from ds_jax.run.signs import ends_of_rows, sign_of_ends
from ds_jax.run.workdir import lock

Summary = dict[str, Any]

# The file of the samples of the evaluation split, without its ending.
SPLIT_FILE = 'samples'


def evaluate(
  session: Session,
  *,
  benchmarks: Sequence[str] = (),
  output: str | None = None,
  loaded: LoadedRun | None = None,
) -> tuple[Summary, str]:
  """Draws the samples that are missing; returns the figures, and as text for a terminal.

  Args:
    session: `config.evaluate` says how many samples and how they are drawn, `config.search` how
      long they may be; of the workdir the newest parameters are evaluated. Its processes deal the
      samples among themselves; the first writes the tables.
    benchmarks: names of data/benchmarks.py, prepared in the data folder; none: the evaluation
      split of the config.
    output: folder of samples and tables; None: one in the workdir that belongs to these
      settings, or nowhere, if the workdir cannot be written.
    loaded: of the session, if it is to be used again; None: what is opened is closed.

  Raises:
    InputError: for an unknown or unprepared benchmark, a prompt that is too long, a verifier that
      cannot read such answers, or an output that belongs to other settings.
    Stopped: if asked to; the same command goes on.
  """
  check_benchmarks(benchmarks, session.config)
  with contextlib.ExitStack() as stack:
    stack.enter_context(_held(session, benchmarks))
    folder = stack.enter_context(_results_folder(session, output))
    loaded = loaded or stack.enter_context(LoadedRun())
    if benchmarks:
      summary, text = evaluate_benchmarks(session, loaded, benchmarks, output=folder)
    else:
      summary, text = _evaluate_split(session, loaded, folder)
  if folder != output:  # it is gone
    del summary['output']
  if 'output' in summary:
    session.progress.note(f'Samples: {summary["output"]}')
  return summary, text


def _held(session: Session, benchmarks: Sequence[str]) -> AbstractContextManager[Any]:
  """The lock of the workdir; the files of benchmarks have locks of their own."""
  if session.team.is_first and not benchmarks and is_writable(session.workdir.root):
    return lock(session.workdir, session.progress.note)
  return contextlib.nullcontext()


@contextlib.contextmanager
def _results_folder(session: Session, output: str | None) -> Iterator[str | None]:
  """The folder of results; None: it is in the workdir. A run that is only to be read has none."""
  root = session.workdir.root
  if output or is_writable(root):
    yield output
    return
  if session.team.count > 1:
    raise InputError(f'{root} cannot be written; name a folder that all share with --output=DIR.')
  session.progress.note(
    f'{root} cannot be written, so samples are kept nowhere; --output=DIR keeps them.'
  )
  with tempfile.TemporaryDirectory(prefix='ds_jax_evaluate_') as folder:
    yield folder


def _evaluate_split(session: Session, loaded: LoadedRun, output: str | None) -> tuple[Summary, str]:
  """pass@1 on the evaluation split; within the same settings a stopped evaluation goes on."""
  engines, config = loaded.engines(session), session.config
  prompts = evaluation_prompts(session, engines.tokenizer)
  check_golds(session, engines.pool.verify, prompts, what='eval')
  chosen = loaded.params(session)
  problems = {'problems': _problems_digest(prompts)}
  files = {SPLIT_FILE: prompts}
  settings = sample_settings(config) | problems
  folder, drawn = draw_samples(engines, chosen, files, settings=settings, output=output)
  at_further = {}  # likewise, by temperature
  for temperature in config.evaluate.further_temperatures:
    _, at_further[temperature] = draw_samples(
      engines,
      chosen,
      files,
      settings=sample_settings(config, temperature) | problems,
      output=str(folder / temperature_name(temperature)),
      temperature=temperature,
    )
  if not session.team.is_first:
    return {'status': 'done', 'process': session.team.index}, ''
  rows, sources = drawn[SPLIT_FILE], sources_of(prompts)
  figures = evaluation_metrics(rows, sources)
  sign = sign_of_ends(ends_of_rows(rows), config)
  if sign:
    session.progress.note(sign)
  summary = {'status': 'done', **chosen.summary, **figures, 'output': str(folder)}
  lines = [f'{_result_line(figures)}, {chosen.name}']
  for source in sorted(set(sources.values()) - {''}):
    lines.append(f'  {source}: {_result_line(figures_of(figures, source))}')
  mean = mean_figures(evaluation_of(figures))
  if mean:
    lines.append(f'  mean over sets: pass@1 {with_interval(mean)}')
  for temperature, drawn_at_it in at_further.items():
    of_it = evaluation_metrics(drawn_at_it[SPLIT_FILE], sources)
    summary |= of_temperature(of_it, temperature)
    lines.append(f'  temperature {temperature:g}, top_p 1: {_result_line(of_it)}')
  return summary, '\n'.join(lines)


def _problems_digest(prompts: Prompts) -> str:
  """Tells sets of problems apart, by what the model reads and what is right."""
  return digest([(problem.id, problem.answer, tokens.tolist()) for problem, tokens in prompts])


def _result_line(figures: Mapping[str, float]) -> str:
  """Returns 'pass@1 34.3 % [29.9, 39.0] over 256 problems, 8 samples each'."""
  if not figures['evaluate/num_problems']:
    return 'pass@1 – : no sample could be verified'
  evaluation = evaluation_of(figures)
  return (
    f'pass@1 {with_interval(evaluation)} over {evaluation["num_problems"]:,} problems, '
    f'{samples_in_words(evaluation)} samples each'
  )
