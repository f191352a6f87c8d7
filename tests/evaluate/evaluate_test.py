"""pass@1, pass@k and intervals against counting."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from ds_jax.config import Config, EvaluateConfig
from ds_jax.evaluate.metrics import (
  count_correct,
  evaluation_metrics,
  mean_with_interval,
  pass_at_k,
  pass_rates,
)
from ds_jax.interfaces import SilentProgress
from ds_jax.run.engines import direct_search
from ds_jax.run.growing import Journal, Work, grow_journaled, rollout_jobs
from ds_jax.run.session import Session
from ds_jax.search.engine.keys import Purpose
from ds_jax.testing import tiny as fakes
from ds_jax.types import Verdict


@pytest.mark.parametrize('samples, correct, k', [(5, 2, 1), (6, 3, 2), (4, 0, 3), (4, 4, 2)])
def test_pass_at_k_equals_enumeration(samples, correct, k):
  outcomes = [True] * correct + [False] * (samples - correct)
  drawn = list(itertools.combinations(outcomes, k))
  assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, drawn)) / len(drawn))
  with pytest.raises(ValueError, match='k <= samples'):
    pass_at_k(samples, correct, samples + 1)


def test_interval_covers_the_mean_and_shrinks():
  rng = np.random.default_rng(0)
  few, many = rng.random(20), rng.random(2000)
  for values in (few, many):
    mean, low, high = mean_with_interval(values)
    assert 0 <= low < mean < high <= 1 and mean == pytest.approx(values.mean())
  widths = [high - low for _, low, high in map(mean_with_interval, (few, many))]
  assert widths[1] == pytest.approx(widths[0] / 10, rel=0.3)


@pytest.fixture(scope='module')
def rollouts(tmp_path_factory):
  """Three samples of each of four problems, grown in two goes."""
  engine = fakes.make_engine(
    direct_search(Config(search=fakes.SEARCH, evaluate=EvaluateConfig(num_slots=4)))
  )
  prompts = [(job.problem, job.prompt_tokens) for job in fakes.make_jobs(4)]
  jobs = rollout_jobs(prompts, 3)
  journal = Journal(tmp_path_factory.mktemp('journal') / 'x.jsonl')
  session = Session(Config(), None, SilentProgress())
  work = lambda jobs: Work(engine, jobs, Purpose.EVALUATE, phase='x')
  grow = lambda jobs: grow_journaled(session, fakes.decoder(), work(jobs), journal=journal)
  _, first = grow(jobs[:5])
  trees, second = grow(jobs)
  assert (first.trees, second.trees) == (5, 7)  # what the journal holds is not grown again
  return jobs, trees


def test_rollouts_come_in_order_and_differ_between_samples(rollouts):
  jobs, trees = rollouts
  assert [(t.problem_id, t.sample) for t in trees] == [(j.problem.id, j.sample) for j in jobs]
  assert len({tuple(t.tokens.tolist()) for t in trees if t.problem_id == 'p0'}) > 1


def test_counts_and_metrics_follow_the_verdicts(rollouts):
  _, trees = rollouts
  counts = count_correct(trees)
  for name, (samples, correct) in counts.items():
    mine = [t for t in trees if t.problem_id == name]
    assert samples == len(mine) == 3
    assert correct == sum('correct' in t.verdict for t in mine)
  metrics = evaluation_metrics(trees)
  assert metrics['evaluate/pass_at_1'] == pytest.approx(np.mean(list(pass_rates(counts).values())))
  assert metrics['evaluate/num_samples'] == 3 and metrics['evaluate/num_problems'] == 4


def test_samples_lost_through_our_fault_are_not_counted(rollouts):
  _, trees = rollouts
  lost = [
    dataclasses.replace(
      t, verdict=tuple(v and Verdict.ERROR.value for v in t.verdict), num_correct=0 * t.num_correct
    )
    for t in trees
  ]
  assert pass_rates(count_correct(lost)) == {}
  assert evaluation_metrics(lost)['evaluate/num_problems'] == 0
