"""The update on packed trees beside the same update on flattened trajectories, in one run.

  python tests/benchmarks/packed_update.py [--ratio=1.85] [--segment=8] [--prompt=8] [--row=160]
    [--lengths=4]

Random trees of K = 8 ends, depth 4, whose path tokens over distinct tokens are about `ratio` (1.85:
the released runs). Both forms get the same tokens per pass, and the same decoder of 1.0 M
parameters. Updates are warm and alternate; figures are medians. The bound of the speed-up is
positions forwarded by the flattened form (prompts included, padding not) over those of trees whose
distinct tokens are forwarded once; attention, whose cost per position depends on the form, and
packing are what separates the two. With `--lengths` there is a third form, packed trees in the best
of so many row lengths (train.row_lengths). Seconds are those of the processor on a CPU, which
neighbours disturb less, else of the clock. Also prints the time of packing, which is the host's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time

import jax
import numpy as np

from ds_jax.config import TrainConfig
from ds_jax.model.decoder import init_decoder
from ds_jax.sharding import make_mesh
from ds_jax.testing.sizes import SIZES
from ds_jax.train.advantages import group_advantages
from ds_jax.train.batch import row_shapes, trained_branches
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import init_state
from ds_jax.train.step import make_learner, policy_loss_fn
from ds_jax.train.trees import PACKINGS, choose_shape
from ds_jax.types import Trajectory

DECODER = SIZES['1M']
ENDS, DEPTH = 8, 4


def widths_for(ratio: float) -> list[int]:
  """Distinct nodes of each depth, not fewer than above, that come nearest to the ratio."""
  options = [
    (a, b, c, ENDS)
    for a in range(1, ENDS + 1)
    for b in range(a, ENDS + 1)
    for c in range(b, ENDS + 1)
  ]
  return list(min(options, key=lambda w: (abs(ENDS * DEPTH / sum(w) - ratio), w)))


def random_tree(
  rng: np.random.Generator, group: int, widths: list[int], segment: int, prompt: int
) -> list[Trajectory]:
  """All ends collected; the node of end e at depth d is e * widths[d] // ENDS."""
  first = np.cumsum([1, *widths])
  tokens = [rng.integers(1, 1024, (w, segment)).astype(np.int32) for w in widths]
  logprobs = [rng.normal(-7, 0.1, (w, segment)).astype(np.float32) for w in widths]
  correct = np.arange(ENDS) % 2 == group % 2
  question = rng.integers(1, 1024, prompt).astype(np.int32)
  ends = []
  for e in range(ENDS):
    place = [e * w // ENDS for w in widths]
    below = [
      correct[[x * w // ENDS == p for x in range(ENDS)]] for w, p in zip(widths, place, strict=True)
    ]
    outcomes = [2 * b.mean() - 1 for b in (correct, *below)]
    ends.append(
      Trajectory(
        problem_id=str(group),
        group=group,
        prompt_tokens=question,
        tokens=np.concatenate([t[p] for t, p in zip(tokens, place, strict=True)]),
        behavior_logprobs=np.concatenate([x[p] for x, p in zip(logprobs, place, strict=True)]),
        node_ids=np.array([0, *(first[d] + p for d, p in enumerate(place))], np.int32),
        node_lengths=np.array([0] + [segment] * DEPTH, np.int32),
        node_values=np.array(outcomes, np.float32),
        node_outcomes=np.array(outcomes, np.float32),
        reward=1.0 if correct[e] else -1.0,
        is_correct=bool(correct[e]),
        is_collected=True,
      )
    )
  return ends


def updater(config: TrainConfig, groups: list, mesh: jax.sharding.Mesh):
  """Returns (run, seconds of packing, rows, positions that are not padding)."""
  shapes = row_shapes(config, 1)
  optimizer = make_optimizer(config)
  learner = make_learner(
    optimizer,
    mesh,
    micro_rows=shapes[-1].micro_rows,
    loss_fn=policy_loss_fn(config),
    short_rows=shapes[:-1],
  )
  state = [init_state(init_decoder(DECODER, jax.random.key(0)), optimizer, mesh)]
  start = time.monotonic()
  trees = trained_branches(groups, config.loss_aggregation)
  shape = choose_shape(trees, shapes, config.packing)
  batch = PACKINGS[config.packing](trees, shape.row_length)
  seconds = time.monotonic() - start

  def run() -> dict[str, float]:
    state[0], figures = learner.update(state[0], batch)
    return figures

  used = int((batch.key_end > np.arange(shape.row_length)).sum())
  return run, seconds, batch.tokens.shape, used


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, kind, default in (
    ('ratio', float, 1.85),
    ('trees', int, 32),
    ('repeats', int, 5),
    ('segment', int, 8),
    ('prompt', int, 8),
    ('row', int, 160),
    ('lengths', int, 1),
  ):
    parser.add_argument(f'--{name}', type=kind, default=default)
  options = parser.parse_args()
  rng, length = np.random.default_rng(0), options.prompt + DEPTH * options.segment
  base = TrainConfig(
    row_length=length,
    micro_rows=64,
    learning_rate=1e-4,
    advantage='tree_mean',
    ends='all',
    uniform_trees='drop',
  )
  trees = [
    random_tree(rng, i, widths_for(options.ratio), options.segment, options.prompt)
    for i in range(options.trees)
  ]
  groups = [(tree, group_advantages(tree, base, length)) for tree in trees]
  mesh = make_mesh(devices=jax.devices()[:1])
  tree = dataclasses.replace(base, packing='tree', tree_row_length=options.row)
  configs = {'flat': dataclasses.replace(base, packing='flat'), 'tree': tree}
  if options.lengths > 1:
    configs['fitted'] = dataclasses.replace(tree, row_lengths=options.lengths)
  forms = {name: updater(config, groups, mesh) for name, config in configs.items()}
  clock = time.process_time if jax.default_backend() == 'cpu' else time.monotonic
  times = {name: [] for name in forms}
  for repeat in range(options.repeats + 1):
    for name, (run, *_) in forms.items():
      start = clock()
      figures = run()
      if repeat:  # the first compiles
        times[name].append(clock() - start)
  seconds = {name: statistics.median(values) for name, values in times.items()}
  distinct = sum(widths_for(options.ratio)) * options.segment + options.prompt
  bound = ENDS * length / distinct
  speedup = seconds['flat'] / seconds['tree']
  print(
    json.dumps(
      {
        'device': jax.devices()[0].device_kind,
        'path_over_distinct': round(figures['train/copies_per_token'], 3),
        'seconds': {name: round(x, 3) for name, x in seconds.items()},
        'packing_seconds': {name: round(form[1], 3) for name, form in forms.items()},
        'rows': {name: form[2] for name, form in forms.items()},
        'row_use': {
          name: round(form[3] / (form[2][0] * form[2][1]), 3) for name, form in forms.items()
        },
        'speedup': round(speedup, 2),
        'bound': round(bound, 2),
        'share_of_bound': round(speedup / bound, 2),
      }
    )
  )


if __name__ == '__main__':
  main()
