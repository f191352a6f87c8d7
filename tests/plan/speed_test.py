"""How often the programs of a training step run, by which a plan predicts its time."""

from __future__ import annotations

import dataclasses

from ds_jax.config import Config, SearchConfig
from ds_jax.plan.speed import Workload, expansions_per_tree


def workload(**train: int) -> Workload:
  config = Config()
  config = dataclasses.replace(
    config,
    search=dataclasses.replace(config.search, num_slots=4),
    train=dataclasses.replace(config.train, batch_problems=64, minibatch_problems=16, **train),
  )
  return Workload.of(config, 2, micro_rows=8, row_length=1024)


def test_every_pass_over_the_rows_counts():
  one, four = workload(), workload(epochs=4)
  assert (one.updates, four.updates) == (4, 16)
  assert four.passes == 4 * one.passes
  assert (four.rows, four.expansions) == (one.rows, one.expansions)


def test_rollouts_are_half_as_long_as_they_may_be():
  search = SearchConfig(width=1, num_trajectories=8, max_depth=64)
  assert expansions_per_tree(search) == 8 * 32
  assert expansions_per_tree(dataclasses.replace(search, max_depth=1)) == 8
  assert expansions_per_tree(dataclasses.replace(search, width=8)) == 190
