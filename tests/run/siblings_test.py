"""Runs that learn from trees of distinct siblings."""

from __future__ import annotations

import pytest

from ds_jax.checks import InputError
from ds_jax.config.rules import check_contradictions
from ds_jax.run.stopping import Stopped
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

# Confident enough that independent siblings are often alike.
SHORT = dict(
  sampling=dict(temperature=0.2),
  curriculum=dict(round_steps=(3,)),
  evaluate=dict(num_problems=2, num_samples=1),
)


def train_rows(workdir: Workdir) -> list[dict]:
  return [row for row in tiny_run.metrics(workdir) if row['kind'] == 'train']


def test_distinct_siblings_are_at_work_and_survive_a_stop(tmp_path):
  warm = tiny_run.warmstart(tmp_path / 'warm', tiny_run.config())
  (warm.root / 'config.json').unlink()
  plain, stopped, independent = (tiny_run.copy(warm, tmp_path / name) for name in ('a', 'b', 'c'))
  cfg = tiny_run.config(search=dict(siblings='distinct'), **SHORT)

  compiled = tiny_run.train_counted(plain, cfg)
  rows = train_rows(plain)
  assert [row['search/duplicate_share'] for row in rows] == [0, 0, 0]
  assert all(row['train/ratio_first'] < 1.001 for row in rows)
  assert compiled[2:] == [0]

  with pytest.raises(Stopped):
    in_step_1 = lambda: any((stopped.root / 'journal').glob('step_000001*'))
    tiny_run.train(stopped, cfg, should_stop=in_step_1)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)

  tiny_run.train(independent, tiny_run.config(**SHORT | dict(curriculum=dict(round_steps=(1,)))))
  (row,) = train_rows(independent)
  assert row['search/duplicate_share'] > 0.05


@pytest.mark.parametrize(
  'sections, remedy',
  [
    (dict(search=dict(policy='direct')), 'search.policy=deepsearch'),
    (dict(search=dict(policy='fork')), 'search.policy=deepsearch'),
    (dict(search=dict(policy='prefix')), 'search.policy=deepsearch'),
    (dict(search=dict(width=1)), 'width = 1 draws one; raise it'),
    (dict(sampling=dict(temperature=0.0)), 'sampling.temperature=1'),
  ],
)
def test_what_has_no_siblings_to_tell_apart_is_refused(sections, remedy):
  check_contradictions(tiny_run.config(**sections))
  search = sections.get('search', {}) | dict(siblings='distinct')
  with pytest.raises(InputError, match=f'search.siblings = distinct.*{remedy}'):
    check_contradictions(tiny_run.config(**sections | dict(search=search)))
