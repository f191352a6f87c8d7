"""The baselines are settings of the same run: each config file, on the tiny run."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import flatten, load_config, response_limit
from ds_jax.run.stopping import Stopped
from ds_jax.testing import tiny_run
from ds_jax.testing.tolerance import tolerance
from ds_jax.train.advantages import group_advantages

BASELINES = ('grpo', 'dapo', 'dr_grpo', 'rloo', 'sft')
SPARED = ('curriculum.round_steps', 'train.minibatch_problems')  # sizes of the tiny run


def tiny(root, name, **train):
  """The tiny run with what the file changes of configs/deepsearch.py."""
  ours = flatten(dataclasses.asdict(load_config(str(root / f'configs/{name}.py'))))
  default = flatten(dataclasses.asdict(load_config(str(root / 'configs/deepsearch.py'))))
  sections = {'curriculum': dict(round_steps=(2,))}
  for field, value in ours.items():
    if value != default[field] and field not in SPARED:
      section, _, key = field.partition('.')
      sections.setdefault(section, {})[key] = value
  sections['train'] = sections.get('train', {}) | train
  return tiny_run.config(**sections)


@contextlib.contextmanager
def opened(workdir, cfg):
  with tiny_run.opened(tiny_run.session(workdir, cfg)) as training:
    training.filter_hard()
    yield training


@pytest.mark.parametrize('name', BASELINES)
def test_each_runs_to_its_end(root, warm, tmp_path, name):
  workdir, cfg = tiny_run.copy(warm, tmp_path / 'run'), tiny(root, name)
  assert tiny_run.train(workdir, cfg)['steps'] == 2
  rows = tiny_run.metrics(workdir)
  assert [r['kind'] for r in rows] == ['evaluate', 'train', 'train', 'evaluate']  # no filter
  train = [r for r in rows if r['kind'] == 'train']
  assert all(r['train/num_tokens'] > 0 and r['train/grad_norm'] > 0 for r in train)
  if name == 'sft':
    assert not any(key.startswith('search/') for r in train for key in r)
  else:
    assert all(r['train/ratio_first'] < 1.0001 and r['search/cached_share'] == 0 for r in train)
    assert train[0]['train/copies_per_token'] < 1.5  # rollouts share what they happen to share


def plain_advantages(name, outcomes):
  """As the papers write them, from the outcomes [K] of one group."""
  r, k = np.array(outcomes, float), len(outcomes)
  return {
    'grpo': (r - r.mean()) / (r.std() + 1e-6),
    'dapo': (r - r.mean()) / (r.std() + 1e-6),
    'dr_grpo': r - r.mean(),
    'rloo': r - (r.sum() - r) / (k - 1),
  }[name]


@pytest.mark.parametrize('name', ['grpo', 'dapo', 'dr_grpo', 'rloo'])
def test_advantages_are_the_papers(root, warm, tmp_path, name):
  cfg = tiny(root, name, max_refills=0)
  with opened(tiny_run.copy(warm, tmp_path / 'run'), cfg) as training:
    groups, _, _ = training.sampler.sample(training.host)
  assert len(groups) == cfg.train.batch_problems
  mixed = 0
  for group in groups:
    assert len(group) == cfg.search.num_trajectories
    result = group_advantages(group, cfg.train, response_limit(cfg))
    outcomes = [1.0 if t.is_correct else -1.0 for t in group]
    if len(set(outcomes)) < 2:
      assert not any(np.any(a) for a in result.per_token)
      assert result.is_trained.all() == (name != 'dapo')
      continue
    mixed += 1
    for mine, wanted in zip(result.per_token, plain_advantages(name, outcomes), strict=True):
      np.testing.assert_allclose(mine, wanted, rtol=tolerance('float32', len(outcomes)))
  assert mixed


def test_dynamic_sampling_fills_the_batch_with_contrast(root, warm, tmp_path):
  cfg = tiny(root, 'dapo')
  with opened(tiny_run.copy(warm, tmp_path / 'run'), cfg) as training:
    groups, figures, after = training.sampler.sample(training.host)
    plain = after.batches
    assert plain == 1 + figures['search/refills'] > 1  # one batch has too few
    assert all(0 < sum(t.is_correct for t in group) < len(group) for group in groups)
    share = figures['search/contrast_share']
    assert 0 < share < 1
    assert len(groups) == min(
      cfg.train.batch_problems, round(share * plain * cfg.train.batch_problems)
    )
    # The next step goes on where the refills ended.
    again, _, _ = training.sampler.sample(dataclasses.replace(after, step=1))
    ids = lambda groups: [group[0].problem_id for group in groups]
    assert ids(again) != ids(groups)


@pytest.mark.long
def test_dynamic_sampling_goes_on_after_a_stop(root, warm, tmp_path):
  cfg = tiny(root, 'dapo')
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  tiny_run.train(plain, cfg)
  in_refill = lambda: any(
    path.stat().st_size for path in (stopped.root / 'journal').glob('step_00000?_1.search*')
  )
  with pytest.raises(Stopped):
    tiny_run.train(stopped, cfg, should_stop=in_refill)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)


def imitated(root, workdir, **train):
  """The rows of twelve steps of imitation."""
  cfg = tiny(root, 'sft', **train)
  cfg = dataclasses.replace(cfg, curriculum=dataclasses.replace(cfg.curriculum, round_steps=(12,)))
  tiny_run.train(workdir, cfg)
  return [row for row in tiny_run.metrics(workdir) if row['kind'] == 'train']


def assert_learnt(rows, share=0.9):
  losses = [row['train/loss'] for row in rows]
  assert np.mean(losses[-3:]) < share * np.mean(losses[:3])


def test_imitation_learns_the_solutions(root, warm, tmp_path):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  assert_learnt(imitated(root, workdir, learning_rate=1e-2))


@pytest.mark.long
def test_imitation_by_adapters_learns_the_solutions(root, warm, tmp_path):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  rows = imitated(root, workdir, learning_rate=3e-2, lora_rank=8, lora_alpha=16.0)
  assert_learnt(rows, share=0.97)  # the embedding of this random decoder stays as it is
  assert 0 < rows[0]['train/lora_norm'] < rows[-1]['train/lora_norm']


def test_imitation_without_solutions_is_refused(root, warm, tmp_path):
  cfg = tiny(root, 'sft')
  source = tmp_path / 'plain.jsonl'
  source.write_text('{"problem": "3 from 1 2", "answer": "3 from 1 2"}\n')
  data = dataclasses.replace(cfg.data, source=f'file:{source}', eval_source='countdown')
  with pytest.raises(InputError, match='0 of 1 training problems have one'):
    tiny_run.train(tiny_run.copy(warm, tmp_path / 'run'), dataclasses.replace(cfg, data=data))
