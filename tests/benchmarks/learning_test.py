"""The harness of tests/benchmarks/learning.py: names of arms, points of runs, tables of points."""

from __future__ import annotations

import dataclasses
import json

import learning_arms
import learning_points
import learning_rare
import learning_tables
import numpy as np
import pytest

from ds_jax.config import config_from, load_config
from ds_jax.report.summary import read_beside
from ds_jax.run.workdir import Workdir


@pytest.fixture
def file(tmp_path, monkeypatch):
  path = tmp_path / 'points.jsonl'
  monkeypatch.setattr(learning_points, 'FILE', path)
  return path


def point(arm, seed, pass_at_1, **fields):
  """The end of a run of three tokens."""
  rates = dict.fromkeys(learning_points.PASS_RATES, pass_at_1)
  spent = {'tokens': 3, 'update_tokens': 2e6, 'seconds': 9.0, 'processor_seconds': 7.0}
  key = {'task': 'chain', 'arm': arm, 'seed': seed, 'step': 1}
  return {**key, **spent, **rates, 'overrides': {}} | fields


def test_a_variant_changes_what_its_name_says():
  arm = learning_arms.arm_of('tuned+problems=8+temperature=1.2+rate=0.5')
  assert arm.overrides == {
    'train.epochs': 4,
    'train.success_weight': 1.0,
    'train.batch_problems': 8,
    'train.minibatch_problems': 8,
    'sampling.temperature': 1.2,
  }
  assert arm.rate == 0.15
  run = learning_arms.Run('chain', 'tuned+rate=0.5', seed=4)
  assert run.overrides['train.learning_rate'] == 1.5e-4
  assert run.overrides['seed'] == 4


def test_choices_stack_and_leave_the_rest():
  arm = learning_arms.arm_of('tuned+remember=light+temperature=1.2+search=deepsearch')
  assert arm.overrides['search.policy'] == 'deepsearch'
  assert arm.overrides['memory.per_update'] == 32
  assert arm.overrides['train.epochs'] == 4 and arm.rate == 0.3


def test_choices_are_fields_that_exist_and_fit(root):
  path = str(root / 'configs/chain.py')
  for name, values in learning_arms.CHOICES.items():
    for value in values:
      fields = dataclasses.asdict(load_config(path))
      trees = '+search=deepsearch' if name == 'siblings' else ''  # rollouts have none
      run = learning_arms.Run('chain', f'dapo{trees}+{name}={value}', 1)
      for field, setting in run.overrides.items():
        section, _, key = field.rpartition('.')
        (fields[section] if section else fields)[key] = setting
      config_from(fields)


@pytest.mark.parametrize(
  'name', ['tuner', 'tuned+epoch=2', 'tuned+epochs=3', 'dapo+distinct=1', 'dapo+search=mcts']
)
def test_an_unknown_arm_is_told(name):
  with pytest.raises(ValueError, match='Expected'):
    learning_arms.arm_of(name)


def test_every_variant_is_an_arm_of_its_own():
  names = learning_arms.variants()
  arms = [learning_arms.arm_of(name) for name in [*learning_arms.ARMS, *names]]
  assert not any(arm in arms[:i] for i, arm in enumerate(arms))
  assert {learning_arms.family(name) for name in names} == set(learning_arms.ARMS)


def test_tasks_name_configs_and_fields_that_exist(root):
  for task in learning_arms.TASKS.values():
    config = load_config(str(root / f'configs/{task.config}.py'))
    for name in task.overrides:
      section, field = name.split('.')
      assert hasattr(getattr(config, section), field)


def test_points_of_a_run_made_again_take_the_place_of_the_old(file):
  unfinished = point('dapo', 1, 0.1)
  del unfinished['overrides']
  learning_points.keep([unfinished])
  learning_points.keep([unfinished])
  assert not learning_points.finished(learning_points.read_points())
  learning_points.keep([point('dapo', 1, 0.2)])
  assert len(file.read_text().splitlines()) == 2
  (last,) = learning_points.finished(learning_points.read_points()).values()
  assert last['pass_at_1'] == 0.2


def test_points_count_what_steps_have_cost(tmp_path):
  samples = Workdir(tmp_path).samples(2, 'after')
  samples.parent.mkdir(parents=True)
  verdicts = (('easy', 'correct'), ('easy', 'wrong'), ('hard', 'wrong'))
  lines = [json.dumps({'id': name, 'verdict': verdict}) for name, verdict in verdicts]
  samples.write_text('\n'.join(lines))
  step = {'kind': 'train', 'time/step': 2.0, 'time/processor': 1.5}
  rows = [
    # Without contrast there is no update, and without update no metric of one.
    step | {'step': 1, 'search/tokens_so_far': 30, 'train/updates': 0},
    step
    | {'step': 2, 'search/tokens_so_far': 50, 'train/updates': 4, 'train/skipped': 0.25}
    | {'train/num_tokens': 10.0, 'search/entropy': 0.5},
    {'kind': 'evaluate', 'when': 'after', 'step': 2}
    | {'evaluate/pass_at_1': 0.5, 'evaluate/pass_at_k': 1.0, 'evaluate/num_samples': 3},
  ]
  (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (end,) = learning_points.points_of(learning_arms.Run('chain', 'dapo', 1), tmp_path)
  assert (end['tokens'], end['update_tokens']) == (50, 30)
  assert (end['seconds'], end['processor_seconds']) == (4.0, 3.0)
  assert (end['pass_at_1'], end['hard_pass_at_1']) == (0.5, 0.0)
  assert end['figures'] == {'search/entropy': 0.5}
  assert end['overrides']['train.learning_rate'] == '0.001'


def test_table_pairs_seeds_and_leaves_out_those_that_tune(file):
  ends = [point('dapo', seed, rate) for seed, rate in ((1, 0.2), (2, 0.3), (3, 0.4), (100, 0.9))]
  ends += [point('memory', seed, rate) for seed, rate in ((3, 0.7), (2, 0.5), (1, 0.3))]
  ends += [point('memory_light', 2, 0.5)]
  file.write_text(''.join(json.dumps(end) + '\n' for end in ends))
  rows = learning_tables.table('chain', ['dapo', 'tuned']).splitlines()
  # s.d. .1 over three seeds: .1 / sqrt(3) * 4.303 = .248. Differences .1, .2 and .3: mean .2, the
  # same s.d. No run of `tuned`.
  assert (
    rows[2] == f'| `dapo` | 3 | 30.0 ± 24.8 | 30.0 ± 24.8 | 30.0 ± 24.8 | 7 | 2.00 |{4 * "  |"}'
  )
  assert rows[3].startswith('| `memory` | 3 | 50.0 ± 49.7 | ')
  reached = '| x 1.00 (3 of 3), x 1.00 (3 of 3) |'  # by the first point, which is the end
  assert rows[3].endswith(f'| 7 | 2.00 | 20.0 ± 24.8 {reached}  |  |')
  assert rows[4].startswith(
    '| `memory_light` | 1 (sketch) | 50.0 | 50.0 | 50.0 | 7 | 2.00 | 20.0 |'
  )
  assert rows[-2].endswith("--task=chain --arms='memory' --seeds=1,2,3")


def test_cost_to_a_goal_is_read_between_points():
  curve = [
    {'pass_at_1': 0.1, 'tokens': 0},
    {'pass_at_1': 0.3, 'tokens': 10, 'processor_seconds': 4.0},
  ]
  assert learning_tables.cost_to_reach(curve, 0.2, 'tokens') == pytest.approx(5.0)
  assert learning_tables.cost_to_reach(curve, 0.25, 'processor_seconds') == pytest.approx(3.0)
  assert learning_tables.cost_to_reach(curve, 0.1, 'tokens') == 0
  assert learning_tables.cost_to_reach(curve, 0.4, 'tokens') == np.inf
  assert np.isnan(learning_tables.cost_to_reach(curve, 0.2, 'seconds'))


def test_table_says_after_what_share_the_end_of_a_baseline_is_reached(file):
  points = [point('dapo', seed, 0.4) for seed in (1, 2, 3)]
  for seed, rate in ((1, 0.8), (2, 0.5), (3, 0.2)):
    start = point('memory', seed, 0.0, step=0, tokens=0, processor_seconds=0.0)
    del start['overrides']
    points += [start, point('memory', seed, rate)]
  file.write_text(''.join(json.dumps(one) + '\n' for one in points))
  row = learning_tables.table('chain', ['dapo']).splitlines()[3]
  # At half of what was spent, at .8 of it, and never.
  assert row.endswith('| x 0.80 (2 of 3), x 0.80 (2 of 3) |')


def test_a_curve_is_the_mean_of_the_test_seeds(file, tmp_path):
  points = []
  for seed, rate in ((1, 0.2), (2, 0.4), (100, 0.9)):
    start = point('dapo', seed, 0.1, step=0, tokens=0, num_samples=8)
    del start['overrides']
    points += [start, point('dapo', seed, rate, num_samples=8)]
  file.write_text(''.join(json.dumps(one) + '\n' for one in points))
  curve = learning_tables.curve('chain', 'dapo')
  assert (curve['label'], curve['k']) == ('DAPO, 2 seeds', 8)
  assert curve['points'][1] == {'tokens': 3, 'pass_at_1': 0.3, 'pass_at_k': 0.3}
  path = tmp_path / 'curve.json'
  path.write_text(json.dumps(curve))
  assert read_beside(str(path)) == curve


def test_tuning_lists_losers_and_says_where_numbers_differ(file):
  ends = [point('dapo', 100, 0.2), point('dapo+rate=2', 100, 0.1), point('memory', 101, 0.3)]
  file.write_text(''.join(json.dumps(end) + '\n' for end in [*ends, point('tuned', 1, 0.5)]))
  assert learning_tables.tuning('chain').splitlines() == [
    'dapo: 2 tuning runs',
    '  dapo: pass@1 20.0 % (seeds 100)',
    '  dapo+rate=2: pass@1 10.0 % (seeds 100)',
    'memory: 1 tuning runs',
    '  memory: pass@1 30.0 % (seeds 101)',
    'Unequal numbers of tuning runs: dapo 2, memory 1.',
  ]


def test_rare_problems_are_described_by_their_chances():
  figures = learning_rare.describe(np.array([0.001, 0.5]), below=0.003, group_size=2)
  # Groups of two have contrast with 2 p (1 - p): .001998 and .5.
  assert figures['rare'] == 1
  assert figures['mean'] == 0.2505
  assert figures['groups_with_contrast'] == 0.251
  assert figures['groups_with_contrast_of_rare'] == 0.002
  assert figures['share_of_contrast_not_rare'] == 0.996
