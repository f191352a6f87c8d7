"""What each lever costs: search and update of configs/deepsearch.py with and without, in one run.

  python tests/benchmarks/levers.py --model=runs/deepsearch/warmstart [--levers=off,epochs]
    [--repeats=5]

Levers are sets of overrides (LEVERS; add yours). Each has a run of its own, and the runs take steps
in turn, so that what disturbs one disturbs all. Parameters stay those of the model (the learning
rate is 0): the runs search the same problems with the same policy, step by step. Figures are
medians over the steps, the first two aside, which compile and fill the memory; `paired` ones are
medians of what each step costs over what the same step costs with all levers off. Seconds are the
clock's, unless they are the processor's (verifier workers left out), which neighbours disturb less;
`busy` is the latter over the former. Run it pinned to one core, with nothing else on it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ds_jax.config import Config, config_from, load_config
from ds_jax.report.metrics import read_metrics
from ds_jax.run.training import Training
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

CONFIG = Path(__file__).parents[2] / 'configs/deepsearch.py'
NUM_WARM = 2  # steps that compile, and after which the memory holds solutions

_BANDIT = {'explore.temperature': 'bandit'}
_FORK = {'search.policy': 'fork', 'search.max_expansions': 24}
_MEMORY = {'memory.when': 'at_once', 'memory.per_update': 96}
LEVERS: dict[str, Mapping[str, object]] = {
  'off': {},
  'epochs': {'train.epochs': 4},
  'success_weight': {'train.success_weight': 1.0},
  'contrast_groups': {'train.max_refills': 3, 'train.contrast_groups': 96},
  'temperature': {'sampling.temperature': 1.2},
  'memory': _MEMORY,
  'memory_likeliest': _MEMORY | {'memory.choice': 'likeliest'},
  'memory_further': _MEMORY | {'memory.further_updates': 1},
  'bandit': _BANDIT,
  'plain': _BANDIT | {'train.trained_policy': 'plain', 'train.importance_cap': 2.0},
  'budget': {'budget.max_rollouts': 16},
  # Ways to search: beside each other.
  'direct': {'search.policy': 'direct'},
  'prefix': {'search.policy': 'prefix', 'prefix.worked': True},
  'fork': _FORK,
  'fork_strata': _FORK | {'search.fork_rule': 'strata'},
  'fork_sampling': _FORK | {'search.fork_rule': 'sampling'},
  'fork_groups': _FORK | {'search.min_continuations': 3},
}

COLUMNS = (
  'lever',
  'sampled tokens/s',
  'paired',
  'update s',
  'paired',
  'processor s of a step',
  'paired',
  'update tokens',
  'busy',
)

Row = Mapping[str, float]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--model', required=True, help="the quickstart's warm start")
  parser.add_argument('--levers', default=','.join(LEVERS), help='off, and others')
  parser.add_argument('--repeats', type=int, default=5)
  flags = parser.parse_args()
  names = flags.levers.split(',')
  with tempfile.TemporaryDirectory() as folder:
    workdirs = {name: Workdir(Path(folder) / name) for name in names}
    take_steps(workdirs, flags.model, NUM_WARM + flags.repeats)
    rows = {name: measured(workdir) for name, workdir in workdirs.items()}
  print(*COLUMNS, sep=' | ')
  for name in names:
    print(name, *figures(rows[name], rows['off']), sep=' | ')


def config_of(lever: str, model: str) -> Config:
  """The quickstart with a lever, whose policy stays that of the model."""
  fixed = {'model.path': model, 'train.learning_rate': 0.0, 'curriculum.filter_samples': 0}
  fields = dataclasses.asdict(load_config(str(CONFIG)))
  for name, value in {**fixed, **LEVERS[lever]}.items():
    section, field = name.split('.')
    fields[section][field] = value
  return config_from(fields)


def take_steps(workdirs: Mapping[str, Workdir], model: str, num_steps: int) -> None:
  """Takes steps of the run of each lever in turn."""
  with contextlib.ExitStack() as opened:
    runs: list[Training] = []
    for name, workdir in workdirs.items():
      workdir.root.mkdir()
      session = tiny_run.session(workdir, config_of(name, model))
      runs.append(opened.enter_context(tiny_run.opened(session)))
      runs[-1].filter_hard()
    for _ in range(num_steps):
      for run in runs:
        run.train_step()


def measured(workdir: Workdir) -> list[Row]:
  """The metrics of the steps that count."""
  rows = [row for row in read_metrics(workdir.root / 'metrics.jsonl') if row['kind'] == 'train']
  return rows[NUM_WARM:]


def figures(rows: Sequence[Row], without: Sequence[Row]) -> list[str]:
  """The cells of a lever, beside the same steps without it."""
  speeds = [row['search/tokens'] / row['time/search'] for row in rows]
  speeds_without = [row['search/tokens'] / row['time/search'] for row in without]
  updates, updates_without = column(rows, 'time/update'), column(without, 'time/update')
  busy, busy_without = column(rows, 'time/processor'), column(without, 'time/processor')
  update_tokens = [row['train/updates'] * row['train/num_tokens'] for row in rows]
  return [
    f'{statistics.median(speeds):,.0f}',
    paired(speeds, speeds_without),
    f'{statistics.median(updates):.3f}',
    paired(updates, updates_without),
    f'{statistics.median(busy):.3f}',
    paired(busy, busy_without),
    f'{statistics.median(update_tokens):,.0f}',
    f'{statistics.median(row["time/processor"] / row["time/step"] for row in rows):.2f}',
  ]


def column(rows: Sequence[Row], name: str) -> list[float]:
  """One metric of the steps."""
  return [row[name] for row in rows]


def paired(values: Sequence[float], without: Sequence[float]) -> str:
  """The median of ratios, step by step."""
  return f'{statistics.median(a / b for a, b in zip(values, without, strict=True)):.3f}'


if __name__ == '__main__':
  main()
