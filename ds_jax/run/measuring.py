"""What an evaluation or a filter within a run found: its figures, and its responses for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from ds_jax.config import samples_by_set, temperature_name
from ds_jax.evaluate.answers import answer_reader
from ds_jax.evaluate.metrics import (
  count_correct,
  evaluation_metrics,
  filter_figures_by_source,
  is_cut_correct,
  outcome,
  pass_rates,
)
from ds_jax.evaluate.samples import sample_row
from ds_jax.interfaces import Progress
from ds_jax.report.summary import evaluation_of, pass_rates_in_words
from ds_jax.run.durable import write_atomically
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Work, rollout_jobs
from ds_jax.run.prompts import Prompts, sources_of
from ds_jax.run.state import RunState
from ds_jax.search.engine.keys import Purpose
from ds_jax.train.curriculum import hard_problems
from ds_jax.types import FinishedTree

Rollouts = Sequence[FinishedTree]


def evaluation_work(
  engines: Engines,
  prompts: Prompts,
  host: RunState,
  *,
  when: str,
  temperature: float | None = None,
) -> Work:
  """The rollouts of an evaluation within a run.

  Args:
    engines: of the run.
    prompts: the held-out problems.
    host: the state that is evaluated.
    when: 'before' or 'after' training, or its name on the way.
    temperature: one of `evaluate.further_temperatures`; None: `evaluate.temperature`.
  """
  engine, how = engines.evaluation_engine, ''
  if temperature is not None:
    engine, how = engines.further_evaluation_engines[temperature], f', temperature {temperature:g}'
  config = engines.session.config
  return Work(
    engine=engine,
    jobs=rollout_jobs(prompts, config.evaluate.num_samples, by_source=samples_by_set(config)),
    purpose=Purpose.EVALUATE,
    phase=f'evaluate ({when} training{how})' if when in ('before', 'after') else '',
    round_index=host.round_index,
    step=host.step,
  )


def filter_work(engines: Engines, prompts: Prompts, host: RunState) -> Work:
  """The rollouts by which a round chooses among these problems those that are hard."""
  return Work(
    engine=engines.direct_engine,
    jobs=rollout_jobs(prompts, engines.session.config.curriculum.filter_samples),
    purpose=Purpose.FILTER,
    phase=f'filter, round {host.round_index}',
    round_index=host.round_index,
    step=host.step,
  )


def of_temperature(figures: Mapping[str, float], temperature: float) -> dict[str, float]:
  """Metrics of an evaluation at a further temperature: evaluate/t_1.2/pass_at_1, and so on."""
  prefix = f'evaluate/{temperature_name(temperature)}/'
  return {prefix + name.removeprefix('evaluate/'): value for name, value in figures.items()}


def evaluation_figures(engines: Engines, rollouts: Rollouts, prompts: Prompts) -> dict[str, float]:
  """Metrics of an evaluation of these problems; see `evaluation_metrics`."""
  rows = [outcome(tree, engines.tokenizer.stop_ids) for tree in rollouts]
  return evaluation_metrics(rows, sources_of(prompts))


def tell_figures(progress: Progress, step: int, figures: Mapping[str, float]) -> None:
  """Says what an evaluation after `step` training steps found, of each evaluation set too."""
  evaluation = evaluation_of(figures)
  if evaluation.get('pass_at_1') is not None:
    progress.note(f'Evaluation at step {step}: {"; ".join(pass_rates_in_words(evaluation))}.')


def filter_figures(
  engines: Engines, rollouts: Rollouts, prompts: Prompts
) -> tuple[Sequence[str], dict[str, float]]:
  """Ids of the hard ones of these problems, and the metrics of a filter that are not of nothing."""
  rows = [outcome(tree, engines.tokenizer.stop_ids) for tree in rollouts]
  rates, figures = pass_rates(count_correct(rows)), {}
  if rates:
    figures['filter/pass_at_1'] = float(np.mean(list(rates.values())))
  if rows:
    figures['filter/cut_share'] = float(np.mean([row['is_cut'] for row in rows]))
    figures['filter/cut_correct_share'] = float(np.mean([is_cut_correct(row) for row in rows]))
  threshold = engines.session.config.curriculum.hard_threshold
  hard_ids = hard_problems(rates, threshold)
  return hard_ids, figures | filter_figures_by_source(rates, hard_ids, sources_of(prompts))


def keep_samples(
  engines: Engines,
  rollouts: Rollouts,
  prompts: Prompts,
  *,
  step: int,
  when: str,
  part: str = '',
) -> None:
  """Writes the responses of an evaluation, one JSON line each, if `log.samples` asks for it.

  Args:
    engines: of the run; the first process writes.
    rollouts: of the evaluation.
    prompts: the problems that they are of.
    step: training steps before it.
    when: 'before' or 'after' training, or its name on the way.
    part: names the temperature, where it is a further one.
  """
  session = engines.session
  if not session.config.log.samples or not session.team.is_first:
    return
  problems = {problem.id: problem for problem, _ in prompts}
  read_answer = answer_reader(session.config.verify.verifier)
  lines = []
  for tree in rollouts:
    row = sample_row(tree, problems[tree.problem_id], engines.tokenizer, read_answer)
    lines.append(json.dumps(row) + '\n')
  path = session.workdir.samples(step, when, part)
  path.parent.mkdir(exist_ok=True)
  write_atomically(path, ''.join(lines))
