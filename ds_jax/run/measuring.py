"""What an evaluation or a filter within a run found: its figures, and its responses for people."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

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
from ds_jax.run.durable import write_atomically
from ds_jax.run.engines import Engines
from ds_jax.run.prompts import Prompts, sources_of
from ds_jax.train.curriculum import hard_problems
from ds_jax.types import FinishedTree

Rollouts = Sequence[FinishedTree]


def evaluation_figures(engines: Engines, rollouts: Rollouts, prompts: Prompts) -> dict[str, float]:
  """Metrics of an evaluation of these problems; see `evaluation_metrics`."""
  rows = [outcome(tree, engines.tokenizer.stop_ids) for tree in rollouts]
  return evaluation_metrics(rows, sources_of(prompts))


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
  engines: Engines, rollouts: Rollouts, prompts: Prompts, *, step: int, when: str
) -> None:
  """Writes the responses of an evaluation, one JSON line each, if `log.samples` asks for it.

  Args:
    engines: of the run; the first process writes.
    rollouts: of the evaluation.
    prompts: the problems that they are of.
    step: training steps before it.
    when: 'before' or 'after' training, or its name on the way.
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
  path = session.workdir.samples(step, when)
  path.parent.mkdir(exist_ok=True)
  write_atomically(path, ''.join(lines))
