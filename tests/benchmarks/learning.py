"""What pays: arms on tasks over seeds, at equal generated tokens; run by hand, hours.

  python tests/benchmarks/learning.py run   --task=chain --arms=dapo,tuned --seeds=1,2
  python tests/benchmarks/learning.py table --task=chain --baseline=dapo
  python tests/benchmarks/learning.py list

An arm is a set of overrides of the task's config. Each run goes on from the task's warm start until
it has generated the task's tokens; evaluations do not count. Runs are pinned to a core each, so
that their seconds are processor time. A run that was interrupted goes on with the same command, and
one whose points are in learning/points.jsonl is not run again. Seeds below 100 test, others tune.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from ds_jax.evaluate.metrics import count_correct, pass_rates
from ds_jax.report.metrics import read_metrics
from ds_jax.run.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[2]
POINTS = pathlib.Path(__file__).parent / 'learning' / 'points.jsonl'
FIRST_TUNING_SEED = 100


@dataclasses.dataclass(frozen=True)
class Task:
  """Where arms compete."""

  config: str  # file of configs/
  tokens: int  # generated, of a run
  every_steps: int  # training steps between evaluations
  overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)
  hard_only: bool = False  # trained on problems that the warm start does not solve in 64 rollouts


_CHAIN = {
  'train.batch_problems': 32,
  'train.minibatch_problems': 32,
  'train.max_refills': 0,
  'train.learning_rate': 1e-3,
  'train.warmup_steps': 0,
  'evaluate.num_problems': 256,
  'evaluate.num_samples': 16,
}
TASKS = {
  'chain': Task('chain', tokens=300_000, every_steps=8, overrides=_CHAIN),
  'chain_starving': Task(
    'chain',
    tokens=420_000,
    every_steps=8,
    overrides=_CHAIN | {'train.max_refills': 15, 'train.contrast_groups': 2},
    hard_only=True,
  ),
  'countdown': Task(
    'dapo',
    tokens=500_000,
    every_steps=10,
    overrides={'evaluate.num_samples': 16},
  ),
}

TUNED = {'train.epochs': 4, 'train.learning_rate': 3e-4, 'train.success_weight': 1.0}
MEMORY = {
  'memory.when': 'at_once',
  'memory.per_update': 96,
  'memory.further_updates': 1,
  'memory.per_further_update': 96,
}
HOT = {'sampling.temperature': 1.2}
ARMS: dict[str, dict[str, object]] = {
  'dapo': {},
  'tuned': TUNED,
  'memory': MEMORY,
  'hot': HOT,
  'tuned_hot': TUNED | HOT,
  'memory_hot': MEMORY | HOT,
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of an arm."""

  task: str
  arm: str
  seed: int

  @property
  def overrides(self) -> dict[str, object]:
    task = TASKS[self.task]
    return {
      **task.overrides,
      **ARMS[self.arm],
      'seed': self.seed,
      'curriculum.max_tokens': task.tokens,
      'curriculum.round_steps': (10_000,),
      'curriculum.filter_samples': 0,
      'evaluate.every_steps': task.every_steps,
      'checkpoint.every_steps': 25,
      'log.tensorboard': False,
    }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('verb', choices=('run', 'table', 'list'))
  parser.add_argument('--task', default='chain', choices=TASKS)
  parser.add_argument('--arms', default=','.join(ARMS))
  parser.add_argument('--seeds', default='1,2,3,4,5')
  parser.add_argument('--baseline', default='dapo', choices=ARMS)
  parser.add_argument('--cores', default='0,1', help='a run on each at a time')
  parser.add_argument('--folder', default=str(ROOT / 'runs/learning'), help='of the runs')
  flags = parser.parse_args()
  if flags.verb == 'list':
    for run in sorted({key_of(point) for point in read_points()}):
      print(*run)
  elif flags.verb == 'table':
    print(table(flags.task, flags.baseline))
  else:
    runs = []
    for seed in map(int, flags.seeds.split(',')):
      runs += [Run(flags.task, arm, seed) for arm in flags.arms.split(',')]
    run_all(runs, pathlib.Path(flags.folder), flags.cores.split(','))


def run_all(runs: Iterable[Run], folder: pathlib.Path, cores: Sequence[str]) -> None:
  """Runs what has no points yet, one on each core at a time."""
  done = {key_of(point) for point in read_points()}
  missing = [run for run in runs if dataclasses.astuple(run) not in done]
  if not missing:
    return
  problems = {run.task: prepare(TASKS[run.task], folder / run.task) for run in missing}
  free = queue.Queue()
  for core in cores:
    free.put(core)

  def run_one(run: Run) -> None:
    core = free.get()
    try:
      points = train(run, folder, problems[run.task], core)
    finally:
      free.put(core)
    POINTS.parent.mkdir(exist_ok=True)
    with POINTS.open('a') as file:
      file.write(''.join(json.dumps(point) + '\n' for point in points))
    last = points[-1]
    print(*dataclasses.astuple(run), f'pass@1 {100 * last["pass_at_1"]:.1f} %', flush=True)

  with concurrent.futures.ThreadPoolExecutor(len(cores)) as threads:
    for future in concurrent.futures.as_completed([threads.submit(run_one, r) for r in missing]):
      future.result()


def prepare(task: Task, folder: pathlib.Path) -> dict[str, object]:
  """The task's warm start, once; overrides that start from it on the task's problems."""
  command('warmstart', task, folder / 'warm', {'seed': 0})
  overrides: dict[str, object] = {'model.path': folder / 'warm/warmstart'}
  if task.hard_only:
    overrides['data.source'] = f'file:{starving(task, folder)}'
    overrides['data.eval_source'] = 'chain'
    overrides['data.flaws'] = 'keep'
  return overrides


def starving(task: Task, folder: pathlib.Path) -> pathlib.Path:
  """A file of 2,000 training problems that the warm start does not solve in 64 rollouts each."""
  path = folder / 'starving.jsonl'
  if path.exists():
    return path
  settings = {
    'model.path': folder / 'warm/warmstart',
    'data.eval_split': 'train',
    'evaluate.num_problems': 3000,
    'evaluate.num_samples': 64,
  }
  output = folder / 'starving'
  command('evaluate', task, folder / 'warm', task.overrides | settings, f'--output={output}')
  rows = list(map(json.loads, (output / 'samples.jsonl').read_text().splitlines()))
  problems = {}
  for row in rows:
    problems[row['id']] = {'id': row['id'], 'problem': row['question'], 'answer': row['gold']}
  rates = pass_rates(count_correct(rows))
  unsolved = [problem for name, problem in problems.items() if not rates[name]][:2000]
  path.write_text(''.join(json.dumps(problem) + '\n' for problem in unsolved))
  return path


def train(
  run: Run, folder: pathlib.Path, problems: Mapping[str, object], core: str
) -> list[dict[str, object]]:
  """Runs or goes on with a run, and returns its points."""
  workdir = folder / run.task / f'{run.arm}_{run.seed}'
  command('train', TASKS[run.task], workdir, run.overrides | problems, core=core)
  return points_of(run, workdir)


def command(
  name: str,
  task: Task,
  workdir: pathlib.Path,
  overrides: Mapping[str, object],
  *flags: str,
  core: str = '',
) -> None:
  """Runs a command of ds-jax in a process of its own, on one core where one is named."""
  words = [sys.executable, '-m', 'ds_jax', name, f'--config={ROOT}/configs/{task.config}.py']
  words += [f'--workdir={workdir}', *flags]
  words += [f'--config.{field}={value}' for field, value in overrides.items()]
  environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  environment.setdefault('JAX_COMPILATION_CACHE_DIR', str(workdir.parent / 'jax_cache'))
  if core:
    words = ['taskset', '-c', core, *words]
    environment |= {'OMP_NUM_THREADS': '1'}
  workdir.parent.mkdir(parents=True, exist_ok=True)
  with (workdir.parent / f'{workdir.name}.log').open('a') as log:
    subprocess.run(words, env=environment, stdout=log, stderr=log, check=True)


def points_of(run: Run, workdir: pathlib.Path) -> list[dict[str, object]]:
  """The evaluations of a run, each with what had been spent on training by then."""
  spent = collections.Counter()
  points, hard = [], None
  for row in read_metrics(workdir / 'metrics.jsonl'):
    if row['kind'] == 'train':
      spent['tokens'] = row['search/tokens_so_far']
      updates = row['train/updates'] * (1 - row['train/skipped'])
      spent['update_tokens'] += updates * row.get('train/num_tokens', 0.0)
      spent['seconds'] += row['time/step']
    elif row['kind'] == 'evaluate':
      rates = rates_of(workdir, row)
      hard = hard or {name for name, rate in rates.items() if rate < 0.05}
      points.append(
        {
          **dataclasses.asdict(run),
          'step': row['step'],
          'tokens': spent['tokens'],
          'update_tokens': round(spent['update_tokens']),
          'seconds': round(spent['seconds'], 1),
          'pass_at_1': round(row['evaluate/pass_at_1'], 5),
          'pass_at_k': round(row['evaluate/pass_at_k'], 5),
          'hard_pass_at_1': round(float(np.mean([rates[name] for name in sorted(hard)])), 5),
        }
      )
  points[-1]['overrides'] = {name: str(value) for name, value in run.overrides.items()}
  return points


def rates_of(workdir: pathlib.Path, row: Mapping[str, object]) -> dict[str, float]:
  """pass@1 of each problem in an evaluation of a run."""
  samples = Workdir(workdir).samples(row['step'], row['when']).read_text().splitlines()
  return pass_rates(count_correct(map(json.loads, samples)))


def read_points() -> list[dict[str, object]]:
  """All points so far."""
  if not POINTS.exists():
    return []
  return [json.loads(line) for line in POINTS.read_text().splitlines()]


def key_of(point: Mapping[str, object]) -> tuple[object, ...]:
  return point['task'], point['arm'], point['seed']


def table(task: str, baseline: str) -> str:
  """The last points of every arm on a task: test seeds, and paired differences to the baseline."""
  last: dict[str, dict[int, dict]] = collections.defaultdict(dict)
  for point in read_points():
    if point['task'] == task:
      last[point['arm']][point['seed']] = point
  lines = [
    '| arm | seeds | pass@1 | hard pass@1 | pass@k | processor s | M update tokens | paired |',
    '|---|---|---|---|---|---|---|---|',
  ]
  beside = last.get(baseline, {})
  for arm, points in last.items():
    tests = [point for seed, point in points.items() if seed < FIRST_TUNING_SEED]
    if not tests:
      continue
    shared = [s for s in points if s in beside and s < FIRST_TUNING_SEED]
    differences = [points[s]['pass_at_1'] - beside[s]['pass_at_1'] for s in shared]
    cells = [
      arm,
      len(tests),
      *(interval([100 * point[name] for point in tests]) for name in PASS_RATES),
      f'{np.mean([point["seconds"] for point in tests]):.0f}',
      f'{np.mean([point["update_tokens"] for point in tests]) / 1e6:.2f}',
      '' if arm == baseline else interval([100 * d for d in differences]),
    ]
    lines.append(f'| {" | ".join(map(str, cells))} |')
  return '\n'.join(lines)


PASS_RATES = ('pass_at_1', 'hard_pass_at_1', 'pass_at_k')


def interval(values: Sequence[float]) -> str:
  """Mean and half of the 95 % interval over seeds; of one seed the mean alone."""
  if not values:
    return ''
  mean, count = float(np.mean(values)), len(values)
  if count == 1:
    return f'{mean:.1f}'
  error = float(np.std(values, ddof=1)) / count**0.5
  return f'{mean:.1f} +- {error * float(stdtrit(count - 1, 0.975)):.1f}'


if __name__ == '__main__':
  main()
