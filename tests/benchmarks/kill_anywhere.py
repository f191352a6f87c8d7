"""Kills one run again and again, and compares its end with that of a run that never was killed.

  python tests/benchmarks/kill_anywhere.py [--kills=25] [--terms=5] [--steps=120] [--seed=0]
    [--levers | --siblings=distinct]

The tiny run of the tests, lengthened to `steps` (120: about 90 s on one core), in processes of its
own; with --levers all levers of learning that go together are at work in it. SIGKILL comes at
random moments; every other time at a random moment after a chosen one has been seen: while a
checkpoint is written, in a search or an update. SIGTERM likewise. Prints one JSON object; exits 1
unless parameters, moments, solutions and metrics (`time/…` aside) are the same bits, no finished
tree was grown twice, and every SIGTERM ended in exit code 42 within 30 s.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

from ds_jax.run.growing import Journal
from ds_jax.run.stopping import ExitCode
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

PATIENCE = 300  # seconds that a process may take to do anything at all
TERM_LIMIT = 30  # seconds from SIGTERM to the end


def config(steps: int, *, has_levers: bool, siblings: str):
  """The tiny run, longer, and evaluated now and then; with levers at a further temperature, too."""
  evaluate = dict(every_steps=max(2, steps // 16))
  if has_levers:
    evaluate['further_temperatures'] = (1.4,)
  longer = dict(
    curriculum=dict(round_steps=(steps // 2, steps - steps // 2), filter_samples=8),
    evaluate=evaluate,
    checkpoint=dict(every_steps=3),
  )
  return longer | (tiny_run.LEVERS if has_levers else dict(search=dict(siblings=siblings)))


class Watch:
  """What a workdir shows of a run from outside."""

  def __init__(self, workdir: Workdir):
    self.workdir = workdir

  def phase(self) -> str:
    """The work under way, as far as files tell."""
    if list(self.workdir.checkpoints.glob('*tmp*')):
      return 'checkpoint'
    names = [p.name for p in self.journals()]
    for phase in ('evaluate', 'filter'):
      if any(name.startswith(phase) for name in names):
        return phase
    steps = sorted(name[:11] for name in names if name.startswith('step_'))
    return 'search or update' if steps else 'between'

  def journals(self) -> list[pathlib.Path]:
    folder = self.workdir.root / 'journal'
    return sorted(folder.iterdir()) if folder.exists() else []

  def size(self) -> int:
    """Bytes that the run has written where it only appends."""
    files = [*self.journals(), self.workdir.root / 'metrics.jsonl']
    total = 0
    for file in files:
      with contextlib.suppress(FileNotFoundError):  # the run removes journals that it has covered
        total += file.stat().st_size
    return total

  def repeated_trees(self) -> int:
    """Trees that stand twice in a journal."""
    count = 0
    for path in self.journals():
      trees = collections.Counter((t.problem_id, t.sample) for t in Journal(path).read())
      count += sum(trees.values()) - len(trees)
    return count


def wait_for(process, is_there) -> bool:
  """Whether it came before the process ended."""
  deadline = time.monotonic() + PATIENCE
  while process.poll() is None:
    if is_there():
      return True
    if time.monotonic() > deadline:
      process.kill()
      raise RuntimeError(f'Nothing happened for {PATIENCE} s: {process.communicate()}')
    time.sleep(0.001)
  return False


def interrupt(
  path,
  watch: Watch,
  number: signal.Signals,
  target: str | None,
  delay: float,
) -> dict | None:
  """One life of the run: started, then signalled at the chosen moment; None if it ended before."""
  process = tiny_run.start(path, watch.workdir.root)
  before, first = watch.size(), {f.name for f in watch.workdir.checkpoints.glob('*tmp*')}
  seen = lambda: watch.size() != before  # it has begun to work
  if target == 'checkpoint':
    seen = lambda: any(f.name not in first for f in watch.workdir.checkpoints.glob('*tmp*'))
  elif target:
    seen = lambda: watch.size() != before and watch.phase() == target
  if not wait_for(process, seen):
    return ended(process)
  time.sleep(delay)
  if process.poll() is not None:
    return ended(process)
  phase, sent = watch.phase(), time.monotonic()
  process.send_signal(number)
  _, err = process.communicate(timeout=PATIENCE)
  wanted = ExitCode.TERMINATED if number == signal.SIGTERM else -signal.SIGKILL
  if process.returncode == 0:
    return None
  if process.returncode != wanted:
    raise RuntimeError(f'Expected exit code {wanted}, got {process.returncode}: {err}')
  return {'phase': phase, 'seconds': time.monotonic() - sent}


def ended(process) -> None:
  _, err = process.communicate()
  if process.returncode:
    raise RuntimeError(f'Exit code {process.returncode}: {err}')


def torture(path, watch: Watch, kills: int, terms: int, rng) -> list[dict]:
  """Lives of one run until all signals have been sent, or it has ended."""
  signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
  rng.shuffle(signals)
  targets = ['checkpoint', 'search or update']
  lives = []
  for i, number in enumerate(signals):
    target = targets[i // 2 % len(targets)] if i % 2 else None
    delay = rng.uniform(0, 0.03) if target else rng.uniform(0, 1.2)
    life = interrupt(path, watch, signal.Signals(number), target, delay)
    if life is None:
      print(f'The run ended after {len(lives)} signals.', file=sys.stderr)
      break
    life |= {
      'signal': signal.Signals(number).name,
      'target': target,
      'repeated_trees': watch.repeated_trees(),
    }
    print(json.dumps(life), file=sys.stderr, flush=True)
    lives.append(life)
  return lives


def finish(path, workdir: Workdir) -> float:
  """Runs to the end; seconds."""
  start = time.monotonic()
  process = tiny_run.start(path, workdir.root)
  _, err = process.communicate()
  if process.returncode:
    raise RuntimeError(f'Exit code {process.returncode}: {err}')
  return time.monotonic() - start


def is_same(a: Workdir, b: Workdir, cfg) -> str:
  """'' or what differs."""
  try:
    tiny_run.assert_same_run(a, b, cfg)
  except AssertionError as e:
    return str(e)[:500] or 'metrics or solutions'
  return ''


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('kills', 25), ('terms', 5), ('steps', 120), ('seed', 0)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--levers', action='store_true')
  parser.add_argument('--siblings', default='independent')
  options = parser.parse_args()
  sections = config(options.steps, has_levers=options.levers, siblings=options.siblings)
  cfg, rng = tiny_run.config(**sections), np.random.default_rng(options.seed)
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    root = pathlib.Path(folder)
    path = tiny_run.config_file(root, **sections)
    tiny_run.warmstart(root / 'killed', cfg)
    (root / 'killed/config.json').unlink(missing_ok=True)
    shutil.copytree(root / 'killed', root / 'whole')
    killed, whole = Workdir(root / 'killed'), Workdir(root / 'whole')
    seconds = finish(path, whole)
    print(f'Uninterrupted: {seconds:.0f} s.', file=sys.stderr, flush=True)
    lives = torture(path, Watch(killed), options.kills, options.terms, rng)
    finish(path, killed)
    difference = is_same(killed, whole, cfg)
    rows = len(tiny_run.metrics(whole))
  terms = [life['seconds'] for life in lives if life['signal'] == 'SIGTERM']
  found = {
    'uninterrupted_seconds': round(seconds, 1),
    'metrics_rows': rows,
    'sigkills': sum(life['signal'] == 'SIGKILL' for life in lives),
    'sigterms': len(terms),
    'phases': dict(collections.Counter(life['phase'] for life in lives)),
    'repeated_trees': sum(life['repeated_trees'] for life in lives),
    'slowest_sigterm_seconds': round(max(terms, default=0.0), 2),
    'same_bits': not difference,
    'difference': difference,
  }
  print(json.dumps(found))
  return int(
    bool(difference)
    or found['repeated_trees'] > 0
    or found['sigkills'] < options.kills
    or len(terms) < options.terms
    or max(terms, default=0.0) > TERM_LIMIT
  )


if __name__ == '__main__':
  sys.exit(main())
