"""The runs of learning.py: a warm start, a set of problems, and training, each a command."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import learning_points
from learning_arms import RARE, TASKS, Run, Task, run_command

from ds_jax.evaluate.metrics import count_correct, pass_rates

ROOT = pathlib.Path(__file__).parents[2]
_UNSOLVED_ROLLOUTS = 64  # of each of the problems that are tried
_UNSOLVED_TRIED = 3000
_SECONDS_BETWEEN_POINTS = 30.0


def run_all(
  runs: Sequence[Run], folder: pathlib.Path, cores: Sequence[str], model: str = ''
) -> None:
  """Makes the runs that are not at their end by their points, one on each core at a time.

  Args:
    runs: in the order in which they begin.
    folder: of warm starts, problems and workdirs.
    cores: names of cores.
    model: folder of the model that runs without a warm start begin with; '': of their config.
  """
  done = learning_points.finished(learning_points.read_points())
  missing = [run for run in runs if (run.task, run.arm, run.seed) not in done]
  settings = {task: prepare(TASKS[task], folder, model) for task in {run.task for run in missing}}
  free: queue.Queue[str] = queue.Queue()
  for core in cores:
    free.put(core)

  def run_one(run: Run) -> None:
    core = free.get()
    try:
      print(run_command(run.task, run.arm, [run.seed]), flush=True)
      last = train(run, settings[run.task], folder / run.task / run.name, core=core)
    finally:
      free.put(core)
    print(f'{run.task} {run.name}: pass@1 {100 * last["pass_at_1"]:.1f} %', flush=True)

  with concurrent.futures.ThreadPoolExecutor(len(cores)) as threads:
    futures = [threads.submit(run_one, run) for run in missing]
    try:
      for future in concurrent.futures.as_completed(futures):
        future.result()
    finally:
      threads.shutdown(cancel_futures=True)  # after a failure no other run begins


def train(
  run: Run, settings: Mapping[str, object], workdir: pathlib.Path, *, core: str
) -> learning_points.Point:
  """Makes a run, or goes on with it, and keeps its points as they come; returns the last one."""
  metrics, start = workdir / 'metrics.jsonl', time.time()
  with command('train', TASKS[run.task], workdir, run.overrides | settings, core=core) as process:
    while process.poll() is None:
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_BETWEEN_POINTS)
      # A run of other settings is refused, and leaves what it finds there as it is.
      if metrics.exists() and metrics.stat().st_mtime > start:
        learning_points.keep(learning_points.points_of(run, workdir))
  points = learning_points.points_of(run, workdir)
  learning_points.keep(points)
  return points[-1]


def prepare(task: Task, folder: pathlib.Path, model: str = '') -> dict[str, object]:
  """Makes warm start and problems of a task, once; returns the overrides that name them.

  A task that has no warm start begins with the model of its config, or with `model`, a folder.
  """
  if not task.is_warm:
    return {'model.path': model} if model else {}
  if task.after:
    return {'model.path': end_of_dapo(task.after, folder)}
  workdir = folder / f'warm_{task.config}'
  warm = workdir / 'warmstart'
  with command('warmstart', task, workdir, {'seed': 0}):
    pass
  overrides: dict[str, object] = {'model.path': warm}
  if task.problems == 'all':
    return overrides
  file = folder / f'{task.problems}_{task.config}.jsonl'
  if not file.exists():
    write = {'unsolved': write_unsolved, 'rare': write_rare}[task.problems]
    write(task, warm, file)
  return overrides | {
    'data.source': f'file:{file}',
    'data.eval_source': 'chain',
    'data.flaws': 'keep',
  }


def end_of_dapo(task: str, folder: pathlib.Path) -> pathlib.Path:
  """The folder of the model that DAPO, seed 0, ends a task with; made once."""
  run = Run(task, 'dapo', 0)
  workdir, model = folder / task / run.name, folder / f'end_of_{task}'
  if not model.exists():
    settings = prepare(TASKS[task], folder)
    train(run, settings, workdir, core='')
    words = ['export', f'--checkpoint={workdir}', f'--output={model}']
    subprocess.run([sys.executable, '-m', 'ds_jax', *words], env=_environment(folder), check=True)
  return model


def write_unsolved(task: Task, warm: pathlib.Path, file: pathlib.Path) -> None:
  """Writes the training problems that a warm start does not solve in 64 rollouts each."""
  settings = {
    'model.path': warm,
    'data.eval_split': 'train',
    'evaluate.num_problems': _UNSOLVED_TRIED,
    'evaluate.num_samples': _UNSOLVED_ROLLOUTS,
  }
  output = file.with_suffix('')
  overrides = task.overrides | settings
  with command('evaluate', task, warm.parent, overrides, f'--output={output}'):
    pass
  rows = list(map(json.loads, (output / 'samples.jsonl').read_text().splitlines()))
  problems = {}
  for row in rows:
    problems[row['id']] = {'id': row['id'], 'problem': row['question'], 'answer': row['gold']}
  rates = pass_rates(count_correct(rows))
  lines = [json.dumps(problem) for name, problem in problems.items() if not rates[name]]
  file.write_text(''.join(f'{line}\n' for line in lines))


def write_rare(task: Task, warm: pathlib.Path, file: pathlib.Path) -> None:
  """Writes the training problems whose right path a warm start seldom takes; see learning_rare."""
  words = [sys.executable, str(pathlib.Path(__file__).with_name('learning_rare.py'))]
  words += [f'--config={ROOT}/configs/{task.config}.py', f'--model={warm}', f'--output={file}']
  words += [f'--below={RARE}']
  subprocess.run(words, env=_environment(file.parent), check=True)


@contextlib.contextmanager
def command(
  name: str,
  task: Task,
  workdir: pathlib.Path,
  overrides: Mapping[str, object],
  *flags: str,
  core: str = '',
) -> Iterator[subprocess.Popen]:
  """Starts a command of ds-jax, on one core where one is named; on leaving waits for its end.

  Raises:
    CalledProcessError: if it fails.
  """
  words = [sys.executable, '-m', 'ds_jax', name, f'--config={ROOT}/configs/{task.config}.py']
  words += [f'--workdir={workdir}', *flags]
  words += [f'--config.{field}={value}' for field, value in overrides.items()]
  environment = _environment(workdir.parent)
  if core:
    words = ['taskset', '-c', core, *words]
    environment |= {'OMP_NUM_THREADS': '1'}
  workdir.parent.mkdir(parents=True, exist_ok=True)
  with (workdir.parent / f'{workdir.name}.log').open('a') as log:
    process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
      yield process
    except BaseException:
      process.terminate()  # it saves, and the same command goes on
      process.wait()
      raise
    if process.wait():
      raise subprocess.CalledProcessError(process.returncode, words)


def _environment(folder: pathlib.Path) -> dict[str, str]:
  paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(paths), 'JAX_PLATFORMS': 'cpu'}
  environment.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder / 'jax_cache'))
  return environment
