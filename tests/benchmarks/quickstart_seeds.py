"""The quickstart with several seeds: gain in pass@1, wall-clock seconds, peak memory.

  .venv/bin/python tests/benchmarks/quickstart_seeds.py --seeds=1,2,3,4,5 --output=/tmp/seeds

Runs the two commands of launch/quickstart.sh one seed after the other and prints one JSON line a
seed. A seed draws its own problems as well, so that held-out sets differ; the settings were chosen
on those of data.chain.seed=0. Other arguments go to both commands.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]


def run(command: str, workdir: pathlib.Path, seed: int, overrides: list[str]) -> dict:
  """One command in a process of its own; its JSON summary and seconds."""
  started = time.monotonic()
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'ds_jax',
      command,
      f'--config={ROOT}/configs/quickstart.py',
      f'--workdir={workdir}',
      f'--config.seed={seed}',
      f'--config.data.chain.seed={seed}',
      '--json',
      *overrides,
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return json.loads(done.stdout.splitlines()[-1]) | {'seconds': time.monotonic() - started}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', default='1,2,3,4,5')
  parser.add_argument('--output', type=pathlib.Path, required=True)
  arguments, overrides = parser.parse_known_args()
  gains = []
  for seed in map(int, arguments.seeds.split(',')):
    workdir = arguments.output / f'seed_{seed}'
    warm = run('warmstart', workdir, seed, overrides)
    trained = run('train', workdir, seed, overrides)
    before, after = (trained[when]['pass_at_1'] for when in ('before', 'after'))
    gains.append(100 * (after - before))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB -> GiB
    print(
      json.dumps(
        {
          'seed': seed,
          'before': round(100 * before, 1),
          'after': round(100 * after, 1),
          'gain': round(gains[-1], 1),
          'pass_at_k': [round(100 * trained[when]['pass_at_k'], 1) for when in ('before', 'after')],
          'warmstart_seconds': round(warm['seconds']),
          'train_seconds': round(trained['seconds']),
          'peak_gib_of_one_process': round(peak, 2),
        }
      ),
      flush=True,
    )
  print(json.dumps({'seeds': len(gains), 'at_least_20': sum(g >= 20 for g in gains)}))


if __name__ == '__main__':
  main()
