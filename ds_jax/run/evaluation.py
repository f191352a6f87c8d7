"""pass@1 of a run's newest parameters: on its evaluation split, or on the paper's benchmarks.

The random numbers of a sample follow from seed, problem and sample number. So killed or not, on one
device or several (at equal slots per device), the samples are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ds_jax.config import digest
from ds_jax.evaluate.metrics import evaluation_metrics
from ds_jax.run.benchmarks import check_benchmarks, evaluate_benchmarks
from ds_jax.run.engines import Engines, open_engines
from ds_jax.run.growing import Journal, Work, grow_journaled, rollout_jobs
from ds_jax.run.parameters import trained_params
from ds_jax.run.prompts import date_setting, evaluation_prompts, note_missing_box
from ds_jax.run.session import Session
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
      settings.

  Raises:
    InputError: for an unknown or unprepared benchmark, a prompt that is too long, a verifier that
      cannot read such answers, or an output that belongs to other settings.
    Stopped: if asked to; the same command goes on.
  """
  check_benchmarks(benchmarks, session.config)
  with open_engines(session) as engines:
    if benchmarks:
      return evaluate_benchmarks(engines, list(dict.fromkeys(benchmarks)), output)
    return _evaluate_split(engines)


def _evaluate_split(engines: Engines) -> tuple[Summary, str]:
  """pass@1 on the evaluation split; within the same settings a stopped evaluation goes on."""
  session = engines.session
  prompts = evaluation_prompts(session, engines.tokenizer)
  note_missing_box(session, engines.tokenizer, prompts)
  params, parameters = trained_params(engines)
  engines.announce()
  settings = dataclasses.asdict(session.config) | date_setting(engines.tokenizer)
  name = digest([settings, parameters])
  journal = Journal(session.workdir.journal(f'evaluate.{name}', session.team.index))
  jobs = rollout_jobs(prompts, session.config.evaluate.num_samples)
  work = Work(engines.evaluation_engine, jobs, Purpose.EVALUATE, phase='evaluate')
  samples = grow_journaled(session, params, work, journal=journal).trees
  journal.remove()  # of all; nobody needs it once all have all samples
  figures = evaluation_metrics(samples)
  text = (
    'pass@1 {evaluate/pass_at_1:.3f} [{evaluate/pass_at_1_low:.3f}, '
    '{evaluate/pass_at_1_high:.3f}] over {evaluate/num_problems} problems'
  )
  return {'status': 'done', 'parameters': parameters, **figures}, text.format(**figures)
