r"""What a GPU or TPU does with ds_jax, in eight minutes: right results, speed, the main job.

  python tests/benchmarks/accelerator.py --output=figures     # all parts
  python tests/benchmarks/accelerator.py --tiny               # tries the script, on a CPU too

  part         within   what it says
  compare        50 s   kernels beside XLA's programs: how far either is from float32
  decode        130 s   1.5B in bfloat16, search and direct rollouts, with kernels and without:
                        ms a step, share of the device's bandwidth
  update        120 s   1.5B in bfloat16, rows of 4,096 and of 16,384 tokens, likewise: tokens a
                        second, share of its peak
  quickstart    180 s   warm start, then two minutes of the quickstart's training

Each part is a process of its own, ends when its time is over, and leaves what it did not need to
the next; what stands last within a part (the programs without kernels) is what is cut off. Every
figure is a line of JSON, on the terminal and in OUTPUT/accelerator.jsonl, as soon as it is there.
What the figures mean: `accelerator_parts.py`, which makes them, and takes sizes as flags. Weights
are random: nothing is downloaded.

On a bare machine, from the root of a checkout (nothing beside it is read):

  pip install 'jax[cuda13]'      # or 'jax[tpu]', if it is not there yet
  pip install flax optax ml-collections orbax-checkpoint tokenizers safetensors transformers \
    matplotlib tensorboardX jinja2 'etils[epath]'
  PYTHONPATH=. python tests/benchmarks/accelerator.py --output=figures

Without a network: `pip download -d wheels …` of the same names elsewhere, for the machine's Python,
and `pip install --no-index --find-links=wheels …` there. Of several devices the first is measured;
the quickstart takes them all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
FILE_NAME = 'accelerator.jsonl'
# Seconds of each part, in order.
PARTS = {'compare': 50.0, 'decode': 130.0, 'update': 120.0, 'quickstart': 180.0}
# Seconds of the quickstart's training, and of what it needs to save once it is asked to stop.
TRAINING, SAVING = 120.0, 20.0
TINY_QUICKSTART = {
  'warmstart.num_steps': 2,
  'data.chain.num_train': 64,
  'data.chain.num_warmstart': 64,
  'curriculum.round_steps': 2,
  'evaluate.num_problems': 4,
  'evaluate.num_samples': 2,
  'train.max_refills': 0,
  'train.contrast_groups': 0,
}


@contextlib.contextmanager
def running(command: Sequence[str], seconds: float) -> Iterator[subprocess.Popen]:
  """A process that is asked to stop after some seconds, and ended a little later.

  It does not outlive the block. Standard error goes where that of this process goes.
  """
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  with subprocess.Popen(
    [sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
  ) as process:
    timers = [
      threading.Timer(seconds, process.terminate),
      threading.Timer(seconds + SAVING, process.kill),
    ]
    for timer in timers:
      timer.start()
    try:
      yield process
    finally:
      for timer in timers:
        timer.cancel()
      process.kill()


def measured(part: str, arguments: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
  """Figures of a part of accelerator_parts.py, as it prints them."""
  script = str(pathlib.Path(__file__).with_name('accelerator_parts.py'))
  with running([script, part, *arguments], seconds) as process:
    for line in process.stdout:
      if line.startswith('{'):  # libraries may say something, too
        yield json.loads(line)
    yield from _failure(part, process.wait(), seconds)


def quickstart(
  workdir: pathlib.Path, settings: dict[str, Any], seconds: float, *, training: float
) -> Iterator[dict[str, Any]]:
  """The warm start, and then the training of configs/quickstart.py.

  Args:
    workdir: of the run; what is there is gone on with.
    settings: that differ from the file's, by name.
    seconds: of both together.
    training: seconds of the training, at most.
  """
  # Imported here: the other parts need no package for metrics.
  from ds_jax.report.metrics import read_metrics  # noqa: PLC0415

  flags = [f'--config={ROOT}/configs/quickstart.py', f'--workdir={workdir}', '--json']
  flags += [f'--config.{name}={value}' for name, value in settings.items()]
  start = time.monotonic()
  status = _run_command('warmstart', flags, seconds - SAVING)
  spent = time.monotonic() - start
  if status:
    yield from _failure('warmstart', status, seconds - SAVING)
    return
  yield {'what': 'warmstart', 'seconds': round(spent, 1)}
  left = min(training, seconds - spent - SAVING)
  start = time.monotonic()
  status = _run_command('train', flags, max(left, 1.0))
  spent = time.monotonic() - start
  rows = read_metrics(workdir / 'metrics.jsonl')
  yield {'what': 'train', 'seconds': round(spent, 1), 'exit_code': status} | summary(rows)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """What a run has done: medians over its steps, and the pass@1 of its evaluations."""
  steps = [row for row in rows if row['kind'] == 'train']
  figures: dict[str, Any] = {'steps': len(steps)}
  for name in ('time/step', 'time/search', 'time/update', 'time/tokens_per_second'):
    values = [row[name] for row in steps if name in row]
    if values:
      figures[name] = round(statistics.median(values), 3)
  if steps:
    figures['tokens'] = steps[-1]['search/tokens_so_far']
  evaluations = [row for row in rows if row['kind'] == 'evaluate']
  figures['pass_at_1'] = {row['when']: round(row['evaluate/pass_at_1'], 4) for row in evaluations}
  return figures


def _run_command(name: str, flags: Sequence[str], seconds: float) -> int:
  """Runs a command of ds-jax; returns its exit code, 42 if it saved when its time was over."""
  with running(['-m', 'ds_jax', name, *flags], seconds) as process:
    process.stdout.read()
    return process.wait()


def _failure(what: str, status: int, seconds: float) -> Iterator[dict[str, Any]]:
  """A line about a process that did not end well."""
  if status in (-signal.SIGTERM, -signal.SIGKILL, 42):
    yield {'what': what, 'error': f'cut off after {seconds:.0f} s'}
  elif status:
    yield {'what': what, 'error': f'exit code {status}'}


def results(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """The figures of all parts, one after the other."""
  scale, budget, start = flags.minutes * 60 / sum(PARTS.values()), 0.0, time.monotonic()
  arguments, settings = (['--tiny'], TINY_QUICKSTART) if flags.tiny else ([], {})
  for part, seconds in PARTS.items():
    budget += seconds * scale
    left = max(budget - (time.monotonic() - start), 1.0)
    if part == 'quickstart':
      workdir = flags.output / 'quickstart'
      yield from quickstart(workdir, settings, left, training=TRAINING * scale)
    else:
      yield from measured(part, arguments, left)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--output', type=pathlib.Path, default='figures', help='folder; made')
  parser.add_argument('--minutes', type=float, default=8.0, help='of all parts together')
  parser.add_argument('--tiny', action='store_true', help='sizes that any machine runs')
  flags = parser.parse_args()
  flags.output = flags.output.absolute()
  flags.output.mkdir(parents=True, exist_ok=True)
  # SIGTERM ends the part that is running, too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  with open(flags.output / FILE_NAME, 'a') as file:
    for figures in results(flags):
      line = json.dumps(figures)
      print(line, flush=True)
      print(line, file=file, flush=True)


if __name__ == '__main__':
  main()
