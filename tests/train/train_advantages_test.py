"""Advantages against the released numbers, and the properties of the tree-consistent ones."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from train_cases import trajectory

from ds_jax.config import TrainConfig
from ds_jax.testing.tolerance import tolerance
from ds_jax.train import advantages
from ds_jax.train.advantages import baseline, flat_group, group_advantages

OURS = TrainConfig(advantage='tree_mean', ends='all', uniform_trees='drop')
# Sums over a few values of at most 1, in double precision; results are float32.
FEW = tolerance('float32', 8)
RECORDED = tolerance('float64', 16, 4.0)

RELEASED = TrainConfig(advantage='q_mean', ends='collected', uniform_trees='keep')


def ours(**settings):
  return dataclasses.replace(OURS, **settings)


def released_case(trace):
  """The trajectories of an oracle trace, its settings and its response limit."""
  settings = trace['config']
  overlong = settings['overlong'] or {'len': 0, 'factor': 1.0}
  config = dataclasses.replace(
    RELEASED,
    q_temperature=settings['adv_temperature'],
    q_max=settings['q_max'],
    overlong_buffer=overlong['len'],
    overlong_factor=overlong['factor'],
  )
  trajectories = [
    trajectory([0.0] * (len(t['path']) + 1), [0.0, *t['q_raw']], [0, *t['n_tok']])
    for t in trace['trajectories']
  ]
  return trajectories, config, settings['max_depth'] * settings['step_len']


def check_trace(trace):
  trajectories, config, limit = released_case(trace)
  for ours, theirs in zip(trajectories, trace['trajectories'], strict=True):
    rewards = advantages.node_rewards(ours, config, limit)[1:]
    np.testing.assert_allclose(rewards, theirs['node_reward'], atol=FEW)
    np.testing.assert_allclose(
      advantages.overlong_penalty(
        len(ours.tokens), limit, buffer=config.overlong_buffer, factor=config.overlong_factor
      ),
      theirs['overlong'],
      atol=tolerance('float64', 8),
    )
  for normalization, field, allowed in (
    ('mean_only', 'adv_mean', {'atol': FEW}),
    ('standard', 'adv_mean_std', {'atol': FEW, 'rtol': FEW}),
  ):
    settings = dataclasses.replace(config, normalization=normalization)
    result = group_advantages(trajectories, settings, limit)
    assert result.is_trained.all()
    for ours, theirs in zip(result.per_token, trace['trajectories'], strict=True):
      values, counts = zip(*theirs[field], strict=True)
      expected = np.repeat(values, counts)
      assert ours.dtype == np.float32 and len(ours) == theirs['length']
      np.testing.assert_allclose(ours, expected[: len(ours)], **allowed)
      assert not expected[len(ours) :].any()


def test_released_trajectories(root):
  traces = json.loads((root / 'tests/golden/advantages.json').read_text())
  assert len(traces) >= 3
  for trace in traces:
    check_trace(trace)


def test_every_released_trajectory(shared):
  with (shared / 'oracle/traces.jsonl').open() as file:
    traces = [json.loads(line) for line in file]
  traces = [t for t in traces if t['outcome'] == 'ok' and t['trajectories']]
  assert len(traces) > 40
  for trace in traces:
    check_trace(trace)


def test_released_baselines(shared):
  data = json.loads((shared / 'oracle/advantage.json').read_text())
  assert data['epsilon'] == advantages.EPSILON
  for case in data['cases']:
    scores, mask = np.array(case['scores'], float), np.array(case['mask'])
    groups = np.array(case['groups'])
    last = [
      row[np.flatnonzero(m)[-1]] if m.any() else 0.0 for row, m in zip(scores, mask, strict=True)
    ]
    for name, normalization in (
      ('sibling_mean', 'mean_only'),
      ('sibling_mean_std', 'standard'),
      ('none', 'none'),
    ):
      for group in set(case['groups']):
        rows = groups == group
        mean, divisor = baseline(np.array(last)[rows], normalization)
        ours = (scores[rows] - mean) / divisor * mask[rows]
        np.testing.assert_allclose(
          ours, np.array(case['results'][name], float)[rows], rtol=RECORDED, atol=RECORDED
        )


def tree():
  """Root 1/3 right; left child has one right and one wrong end, right child a wrong one."""
  return [
    trajectory([-1 / 3, 0.0, 1.0], correct=True),
    trajectory([-1 / 3, 0.0, -1.0], collected=False),
    trajectory([-1 / 3, -1.0, -1.0]),
  ]


def per_token(name, trajectories, limit=100, **settings):
  return group_advantages(trajectories, ours(advantage=name, **settings), limit).per_token


def test_tree_mean_and_td_by_hand():
  mean, td = per_token('tree_mean', tree()), per_token('td', tree())
  np.testing.assert_allclose(mean[0], [1 / 3, 1 / 3, 4 / 3, 4 / 3], rtol=FEW)
  np.testing.assert_allclose(td[0], [1 / 3, 1 / 3, 1.0, 1.0], rtol=FEW)
  np.testing.assert_allclose(td[2], [-2 / 3, -2 / 3, 0.0, 0.0], atol=FEW)


def test_td_sums_to_tree_mean_along_a_path():
  for mean, td in zip(per_token('tree_mean', tree()), per_token('td', tree()), strict=True):
    np.testing.assert_allclose(np.cumsum(td[::2]), mean[::2], atol=FEW)


def test_shared_nodes_have_one_advantage():
  for name in set(advantages.NODE_ADVANTAGES) - {'leave_one_out'}:
    first, second, _ = per_token(name, tree())
    np.testing.assert_array_equal(first[:2], second[:2])


def test_ends_choose_what_trains():
  settings = ours(advantage='td', ends='collected')
  result = group_advantages(tree(), settings, 100)
  assert result.is_trained.tolist() == [True, False, True]
  assert not result.per_token[1].any()
  assert group_advantages(tree(), ours(ends='all'), 100).is_trained.all()


def test_uniform_trees_drop_or_keep():
  wrong = [trajectory([-1.0, -1.0], [0.0, -1.0]), trajectory([-1.0, -1.0], [0.0, -1.0])]
  for name in advantages.NODE_ADVANTAGES:
    dropped = group_advantages(wrong, ours(advantage=name), 100)
    assert not dropped.is_trained.any() and not np.concatenate(dropped.per_token).any()
    kept = group_advantages(wrong, ours(advantage=name, uniform_trees='keep'), 100)
    assert kept.is_trained.all()
  # Uniform among the ends that train, although a passed-over end differs.
  mixed = [*wrong, trajectory([-1.0, 1.0], correct=True, collected=False)]
  assert not group_advantages(mixed, ours(ends='collected'), 100).is_trained.any()
  assert group_advantages(mixed, ours(ends='all'), 100).is_trained.all()


def test_released_all_wrong_tree_raises_its_own_tokens():
  wrong = [trajectory([-1.0] * 3, [0.0, -0.4, -1.0]) for _ in range(2)]
  first = group_advantages(wrong, RELEASED, 100).per_token[0]
  assert first[0] > 0 and first[-1] == 0  # as documented; uniform_trees drops such trees


def test_q_mean_without_collected_end_does_not_train():
  ends = [
    trajectory([0.0, 1.0], correct=True, collected=False),
    trajectory([0.0, -1.0], collected=False),
  ]
  assert not group_advantages(ends, ours(advantage='q_mean'), 100).is_trained.any()


def test_overlong_penalty_reaches_every_estimator():
  short = trajectory([0.0, 1.0], [0.0, 1.0], [0, 2], correct=True)
  long = trajectory([0.0, -1.0], [0.0, -1.0], [0, 9])
  for name in advantages.NODE_ADVANTAGES:
    plain = per_token(name, [short, long], 10)
    fined = per_token(name, [short, long], 10, overlong_buffer=4)
    change = [float(b[0] - a[0]) for a, b in zip(plain, fined, strict=True)]
    # A penalty of -3/4 of the long one, centred; of the others' mean, for leave_one_out.
    expected = 0.75 if name == 'leave_one_out' else 0.375
    np.testing.assert_allclose(change, [expected, -expected], atol=FEW)


def test_leave_one_out_is_the_mean_of_the_others():
  rewards = np.array([1.0, -1.0, -1.0, 1.0, -1.0])
  rollouts = [trajectory([r, r], correct=r > 0) for r in rewards]
  flat = flat_group(rollouts, 0)
  flat[4] = dataclasses.replace(flat[4], is_collected=False)
  found = per_token('leave_one_out', flat, baseline_ends='all')
  for i, ours in enumerate(found):
    np.testing.assert_allclose(ours, rewards[i] - np.delete(rewards, i).mean(), rtol=FEW)
  # The end that was not collected is in no baseline, and compared with all that were.
  found = per_token('leave_one_out', flat)
  np.testing.assert_allclose(found[4], -1.0 - rewards[:4].mean(), rtol=FEW)
  np.testing.assert_allclose(found[0], 1.0 - rewards[1:4].mean(), rtol=FEW)
  alone = flat_group(rollouts[:1], 0)
  assert not per_token('leave_one_out', alone, uniform_trees='keep')[0].any()


def test_baseline_over_all_ends_or_over_the_collected():
  ends = tree()  # rewards 1, -1 (not collected), -1
  last = lambda **settings: [x[-1] for x in per_token('q_mean', ends, **settings)]
  np.testing.assert_allclose(last(), [1.0, -1.0, -1.0], atol=FEW)  # mean of 1 and -1: 0
  np.testing.assert_allclose(last(baseline_ends='all'), [4 / 3, -2 / 3, -2 / 3], rtol=FEW)
  none = [dataclasses.replace(t, is_collected=False) for t in ends]
  settings = ours(advantage='q_mean', baseline_ends='all')
  assert group_advantages(none, settings, 100).is_trained.all()


@pytest.mark.parametrize('name', advantages.NODE_ADVANTAGES)
def test_outcome_gives_all_tokens_that_of_the_end(name):
  """Coarse rows of the paper's Table 4; where all ends count, tree_mean and td coincide."""
  fine = per_token(name, tree(), baseline_ends='all')
  coarse = per_token(name, tree(), baseline_ends='all', granularity='outcome')
  for node, outcome in zip(fine, coarse, strict=True):
    assert len(set(outcome.tolist())) == 1
    if name != 'td':
      np.testing.assert_allclose(outcome[-1], node[-1], rtol=FEW)
  if name != 'leave_one_out':
    np.testing.assert_allclose([x[0] for x in coarse], [4 / 3, -2 / 3, -2 / 3], rtol=FEW)


@pytest.mark.parametrize('name', advantages.NODE_ADVANTAGES)
def test_uniform_trees_centred_sum_to_zero(name):
  """An all-wrong tree does not raise its own tokens; one of mixed outcome is not touched."""
  wrong = [trajectory([-1.0] * 3, [0.0, value, -1.0], [0, 3, 2]) for value in (-0.2, -0.6)]
  config = ours(advantage=name, uniform_trees='centre')
  result = group_advantages(wrong, config, 100)
  assert result.is_trained.all()
  assert abs(np.concatenate(result.per_token).sum(dtype=float)) < tolerance('float32', 8 * 10)
  assert result.per_token[0][0] > result.per_token[1][0] > result.per_token[1][-1]
  for mine, kept in zip(
    per_token(name, tree(), uniform_trees='centre'),
    per_token(name, tree(), uniform_trees='keep'),
    strict=True,
  ):
    np.testing.assert_array_equal(mine, kept)


def test_flat_group_is_grpo():
  rollouts = [
    trajectory([r, r, r], correct=r > 0, problem='p', group=i)
    for i, r in enumerate([1.0, -1.0, -1.0, -1.0])
  ]
  flat = flat_group(rollouts, group=7)
  config = dataclasses.replace(RELEASED, normalization='standard')
  rewards = np.array([1.0, -1, -1, -1])
  expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
  for ours, value in zip(group_advantages(flat, config, 100).per_token, expected, strict=True):
    np.testing.assert_allclose(ours, value, rtol=FEW)
  for name in ('tree_mean', 'td'):
    for ours, value in zip(per_token(name, flat), rewards - rewards.mean(), strict=True):
      np.testing.assert_allclose(ours, value, rtol=FEW)


def test_trajectories_of_different_roots_are_refused():
  with pytest.raises(ValueError, match='flat_group'):
    group_advantages([trajectory([1.0, 1.0]), trajectory([-1.0, -1.0])], OURS, 100)


@pytest.mark.parametrize('advantage', ['q_mean', 'tree_mean', 'td', 'leave_one_out'])
def test_rare_successes_can_weigh_more(advantage):
  """(r - p) + w r (1 - p) of outcomes in {0, 1}, twice that of outcomes in {-1, 1}."""
  end = trajectory([0.0, 0.0], None, [0, 3])
  right = dataclasses.replace(end, is_correct=True, reward=1.0)
  wrong = dataclasses.replace(end, is_correct=False, reward=-1.0)
  group = flat_group([right, wrong, wrong, wrong], 0)
  settings = {'advantage': advantage, 'granularity': 'outcome', 'baseline_ends': 'all'}
  plain = group_advantages(group, ours(**settings), 4).per_token
  weighted = group_advantages(group, ours(**settings, success_weight=0.5), 4).per_token
  np.testing.assert_allclose(weighted[0], 1.5 * plain[0], rtol=FEW)
  assert plain[0][0] > 0
  for before, after in zip(plain[1:], weighted[1:], strict=True):
    np.testing.assert_array_equal(after, before)
  if advantage == 'tree_mean':  # p = 1/4
    np.testing.assert_allclose(weighted[0], 2 * (0.75 + 0.5 * 0.75), rtol=FEW)
    np.testing.assert_allclose(weighted[1], 2 * -0.25, rtol=FEW)
