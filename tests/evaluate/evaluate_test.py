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
  outcome,
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


def test_interval_of_problems_that_all_agree():
  """0 of n is what Wilson says of n trials, for samples of one problem are one trial."""
  mean, low, high = mean_with_interval([0.0] * 60)
  assert (mean, low) == (0, 0) and high == pytest.approx(4.004 / 64.004, abs=1e-4)  # t, 59 degrees
  mean, low, high = mean_with_interval([1.0] * 60)
  assert (mean, high) == (1, 1) and low == pytest.approx(1 - 4.004 / 64.004, abs=1e-4)
  assert mean_with_interval([0.5] * 60)[1] < 0.5 < mean_with_interval([0.5] * 60)[2]
  assert mean_with_interval([1.0]) == (1, 0, 1) and mean_with_interval([]) == (0, 0, 1)


# How alike the samples of a problem are (their correlation): not at all, somewhat, quite.
@pytest.mark.parametrize('correlation', [0, 0.2, 0.6, 1])
@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.98])
def test_interval_covers_the_truth(share, correlation):
  rng = np.random.default_rng(7)
  for problems, samples in itertools.product((20, 60), (1, 4, 32)):
    truths = _solve_rates(rng, share, correlation, (1000, problems))
    rates = rng.binomial(samples, truths) / samples
    num_covered = 0
    for values in rates:
      _, low, high = mean_with_interval(values)
      num_covered += low <= share <= high
    # 95 %, less what 1,000 draws may err (2.5 deviations); the normal interval covers 0.31 to 0.96.
    assert num_covered / 1000 >= 0.93, (problems, samples)


def _solve_rates(rng, share, correlation, shape):
  """Chances of problems to be solved: mean `share`, variance correlation * share * (1 - share)."""
  if correlation == 0 or share in (0, 1):
    return np.full(shape, float(share))
  if correlation == 1:
    return (rng.random(shape) < share).astype(float)
  scale = (1 - correlation) / correlation
  return rng.beta(scale * share, scale * (1 - share), shape)


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


def outcomes(trees):
  return [outcome(tree, [fakes.STOP_ID]) for tree in trees]


def test_counts_and_metrics_follow_the_verdicts(rollouts):
  _, trees = rollouts
  counts = count_correct(outcomes(trees))
  for name, (samples, correct) in counts.items():
    mine = [t for t in trees if t.problem_id == name]
    assert samples == len(mine) == 3
    assert correct == sum('correct' in t.verdict for t in mine)
  metrics = evaluation_metrics(outcomes(trees))
  assert metrics['evaluate/pass_at_1'] == pytest.approx(np.mean(list(pass_rates(counts).values())))
  assert metrics['evaluate/num_samples'] == 3 and metrics['evaluate/num_problems'] == 4
  cut = [int(t.tokens[-1]) != fakes.STOP_ID for t in trees]
  assert metrics['evaluate/cut_share'] == np.mean(cut)
  answered = [
    t for t, flag in zip(trees, cut, strict=True) if flag and 'incomplete' not in t.verdict
  ]
  assert answered  # what the verifier made of it does not matter


def test_samples_lost_through_our_fault_are_not_counted(rollouts):
  _, trees = rollouts
  lost = [
    dataclasses.replace(
      t, verdict=tuple(v and Verdict.ERROR.value for v in t.verdict), num_correct=0 * t.num_correct
    )
    for t in trees
  ]
  assert pass_rates(count_correct(outcomes(lost))) == {}
  metrics = evaluation_metrics(outcomes(lost))
  assert metrics['evaluate/num_problems'] == 0
  assert not {'evaluate/pass_at_1', 'evaluate/pass_at_1_low', 'evaluate/pass_at_k'} & set(metrics)
  assert evaluation_metrics([]) == {'evaluate/num_problems': 0, 'evaluate/num_samples': 0}
