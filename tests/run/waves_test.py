"""Further waves of rollouts, and groups that wait, in a whole tiny run that stops and goes on."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from ds_jax.run.growing import Journal
from ds_jax.run.stopping import Stopped
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

BUDGET = dict(max_rollouts=8, wave=2, until='success', first_wave=1, first_wave_rate=0.35)
SECTIONS = dict(
  budget=BUDGET,
  train=dict(max_refills=2, waiting_groups=2),
  curriculum=dict(round_steps=(3,)),
  evaluate=dict(num_problems=2, num_samples=1, num_slots=1),  # a wave takes many expansions
  mesh=dict(tensor=2),
)


@contextlib.contextmanager
def filtered(workdir: Workdir, cfg):
  with tiny_run.opened(tiny_run.session(workdir, cfg)) as training:
    training.filter_hard()
    yield training


def kept_trees(workdir: Workdir) -> set:
  paths = list((workdir.root / 'journal').iterdir())
  return {(path.name, t.problem_id, t.sample) for path in paths for t in Journal(path).read()}


def test_waves_and_groups_that_wait_survive_stops(warm, tmp_path, monkeypatch):
  cfg = tiny_run.config(**SECTIONS)
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  compiled = tiny_run.train_counted(plain, cfg)
  assert compiled[1:] == [0, 0]
  rows = [row for row in tiny_run.metrics(plain) if row['kind'] == 'train']
  for name in ('wave_rollouts', 'wave_contrasts', 'short_groups', 'refills', 'waited_groups'):
    assert max(row[f'search/{name}'] for row in rows) > 0, name
  for row in rows:
    assert 0 <= row['search/unused_tokens_share'] < 1
    assert (row['search/wave_rollouts'] > 0) == (row['search/wave_tokens_share'] > 0)
  assert max(row['search/unused_tokens_share'] for row in rows) > 0

  def has_trees(name):
    return lambda: any(
      path.stat().st_size for path in (stopped.root / 'journal').glob(f'{name}.process_*')
    )

  in_second_wave = next(i for i, row in enumerate(rows) if row['search/waves'] > 1)
  with pytest.raises(Stopped):
    tiny_run.train(stopped, cfg, should_stop=has_trees(f'step_{in_second_wave:06d}.wave_2'))
  kept = kept_trees(stopped)
  assert {'.wave_1.' in name for name, *_ in kept} == {True, False}
  grown, append = set(), Journal.append

  def recorded(journal, tree):
    grown.add((journal.path.name, tree.problem_id, tree.sample))
    append(journal, tree)

  monkeypatch.setattr(Journal, 'append', recorded)
  with_waiting = next(i for i, row in enumerate(rows) if row['search/waited_groups'])
  with pytest.raises(Stopped):  # once more, where the state holds groups that wait
    tiny_run.train(stopped, cfg, should_stop=has_trees(f'step_{with_waiting:06d}*'))
  tiny_run.train(stopped, cfg)
  assert any('.wave_2.' in name for name, *_ in grown)  # the wave was gone on with
  assert not kept & grown
  tiny_run.assert_same_run(stopped, plain, cfg)


@pytest.mark.parametrize(
  'policy',
  [
    'direct',
    *[pytest.param(p, marks=pytest.mark.long) for p in ('deepsearch', 'fork', 'faithful')],
  ],
)
def test_all_waves_of_a_problem_are_one_group_and_all_is_counted(warm, tmp_path, policy):
  cfg = tiny_run.config(
    search=dict(policy=policy, num_trajectories=2),
    budget=dict(max_rollouts=9, wave=3),
    train=dict(max_refills=1, contrast_groups=100),
    memory=dict(when='at_once'),
  )
  with filtered(tiny_run.copy(warm, tmp_path / 'run'), cfg) as training:
    grow, grown = training.sampler.grow, []

    def recording(work, name):
      done = grow(work, name)
      grown.extend((work.purpose, tree) for tree in done.trees)
      return done

    sampler = dataclasses.replace(training.sampler, grow=recording)
    # Two problems for three places: one comes twice.
    host = dataclasses.replace(training.host, step=1, hard_ids=training.host.hard_ids[:2])
    sampled = sampler.sample_waves(host)
    keys = [(purpose, tree.problem_id, tree.sample) for purpose, tree in grown]
    assert len(set(keys)) == len(keys)  # no two share their random numbers
    tokens = sum(tree.statistics['generated_tokens'] for _, tree in grown)
    assert sampled.num_tokens == tokens and 0 < sampled.wave_tokens < tokens
    extended = [group for group in sampled.groups if group.num_asked > 2]
    assert sampled.num_waves and {group.is_tree for group in extended} == {True, False}
    assert {group.job.sample for group in extended} > {0}
    for group in extended:
      assert len({(t.group, float(t.node_outcomes[0])) for t in group.ends}) == 1
      below_root = [tuple(t.node_ids[1:]) for t in group.ends]
      assert len(set(below_root)) == len(group.ends) > 2
      assert group.num_asked == 9 or group.has_contrast
    groups, figures, after = sampler.sample(host)  # from the journals
    assert after.generated_tokens - host.generated_tokens == tokens
    assert figures['search/wave_rollouts'] == sampled.wave_rollouts
    num_ends = sum(len(group.ends) for group in sampled.groups)
    assert after.memory.overall.trials == num_ends
    contrasting = [group.ends for group in sampled.groups if group.has_contrast]
    assert list(map(len, groups)) == list(map(len, contrasting))  # all, with contrast_groups
