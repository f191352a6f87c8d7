"""pass@1 of a run's newest parameters: on its evaluation split, or on the paper's benchmarks.

The random numbers of a sample follow from seed, problem and sample number. So killed or not, on one
device or several (at equal slots per device), the samples are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import digest
from ds_jax.evaluate.metrics import evaluation_metrics
from ds_jax.run.benchmarks import check_benchmarks, evaluate_benchmarks
from ds_jax.run.engines import Engines, open_engines
from ds_jax.run.growing import Journal, Work, grow_journaled, rollout_jobs
from ds_jax.run.parameters import chosen_params
from ds_jax.run.prompts import evaluation_prompts, note_missing_box
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir, is_writable
from ds_jax.search.engine.keys import Purpose

Summary = dict[str, Any]


def evaluate(
  session: Session, *, benchmarks: Sequence[str] = (), output: str | None = None
) -> tuple[Summary, str]:
  """Draws the samples that are missing; returns the figures, and as text for a terminal.

  Args:
    session: `config.evaluate` says how many samples and how they are drawn, `config.search` how
      long they may be; of the workdir the newest parameters are evaluated. Its processes deal the
      samples among themselves; the first writes the tables.
    benchmarks: names of data/benchmarks.py, prepared in the data folder; none: the evaluation
      split of the config.
    output: folder of the benchmarks' results; None: one in the workdir that belongs to these
      settings, or nowhere, if the workdir cannot be written.

  Raises:
    InputError: for an unknown or unprepared benchmark, a prompt that is too long, a verifier that
      cannot read such answers, or an output that belongs to other settings.
    Stopped: if asked to; the same command goes on.
  """
  check_benchmarks(benchmarks, session.config)
  with _results_folder(session, output) as folder, open_engines(session) as engines:
    if not benchmarks:
      return _evaluate_split(engines, folder)
    summary, text = evaluate_benchmarks(engines, list(dict.fromkeys(benchmarks)), folder)
    if folder != output:  # it goes
      del summary['output']
    return summary, text


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


def _evaluate_split(engines: Engines, folder: str | None) -> tuple[Summary, str]:
  """pass@1 on the evaluation split; within the same settings a stopped evaluation goes on."""
  session = engines.session
  prompts = evaluation_prompts(session, engines.tokenizer)
  note_missing_box(session, engines.tokenizer, prompts)
  chosen = chosen_params(engines)
  engines.announce()
  name = digest([dataclasses.asdict(session.config), chosen.source])
  home = Workdir(pathlib.Path(folder)) if folder else session.workdir
  journal = Journal(home.journal(f'evaluate.{name}', session.team.index))
  jobs = rollout_jobs(prompts, session.config.evaluate.num_samples)
  work = Work(engines.evaluation_engine, jobs, Purpose.EVALUATE, phase='evaluate')
  samples = grow_journaled(session, chosen.params, work, journal=journal).trees
  journal.remove()  # of all; nobody needs it once all have all samples
  figures = evaluation_metrics(samples)
  text = (
    'pass@1 {evaluate/pass_at_1:.3f} [{evaluate/pass_at_1_low:.3f}, '
    '{evaluate/pass_at_1_high:.3f}] over {evaluate/num_problems} problems, '
  )
  return {'status': 'done', **chosen.summary, **figures}, text.format(**figures) + chosen.name
