"""The command for a machine with a GPU or TPU: bounded in time, and its figures are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import accelerator
import accelerator_parts
import numpy as np
import pytest

SCRIPT = accelerator.ROOT / 'tests/benchmarks/accelerator.py'


def test_a_part_that_takes_too_long_is_cut_off_and_leaves_its_figures(tmp_path, monkeypatch):
  script = tmp_path / 'accelerator_parts.py'
  script.write_text(
    'import sys, time\nprint("a library says something")\n'
    'print(\'{"what": "decode", "n": 1}\', flush=True)\ntime.sleep(600)\n'
  )
  monkeypatch.setattr(accelerator, '__file__', str(tmp_path / 'accelerator.py'))
  found = list(accelerator.measured('decode', [], seconds=2.0))
  assert found == [{'what': 'decode', 'n': 1}, {'what': 'decode', 'error': 'cut off after 2 s'}]
  script.write_text('raise SystemExit(3)')
  found = list(accelerator.measured('decode', [], seconds=60.0))
  assert found == [{'what': 'decode', 'error': 'exit code 3'}]


def test_a_run_is_summed_up():
  rows = [
    {'kind': 'evaluate', 'when': 'before', 'evaluate/pass_at_1': 0.25},
    *(
      {'kind': 'train', 'time/step': seconds, 'search/tokens_so_far': 100 * seconds}
      for seconds in (2.0, 4.0, 9.0)
    ),
  ]
  assert accelerator.summary(rows) == {
    'steps': 3,
    'time/step': 4.0,
    'tokens': 900,
    'pass_at_1': {'before': 0.25},
  }
  assert accelerator.summary([]) == {'steps': 0, 'pass_at_1': {}}


def test_distances_are_shares_of_the_largest_value():
  exact = (np.array([1.0, -4.0]), np.array([0.5]))
  assert accelerator_parts.distance((np.array([1.0, -3.0]), np.array([0.5])), exact) == 1 / 4
  assert accelerator_parts.distance((np.array([1.0, -4.0]), np.array([0.25])), exact) == 1 / 2


@pytest.mark.long
def test_all_parts_run_at_a_tiny_size(tmp_path):
  done = subprocess.run(
    [sys.executable, SCRIPT, '--tiny', '--minutes=60', f'--output={tmp_path / "figures"}'],
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(accelerator.ROOT)},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  figures = [json.loads(line) for line in done.stdout.splitlines()]
  kept = (tmp_path / 'figures' / accelerator.FILE_NAME).read_text()
  assert kept == done.stdout
  assert not [row for row in figures if 'error' in row]
  parts = [row['what'] for row in figures]
  assert parts == ['compare'] * 3 + ['decode'] * 4 + ['update'] * 4 + ['warmstart', 'train']
  assert all(row['agree'] for row in figures if row['what'] == 'compare')
  assert [row['kernels'] for row in figures if row['what'] == 'decode'] == ['auto'] * 2 + [
    'off'
  ] * 2
  assert all(row['share_of_peak'] is not None for row in figures if row['what'] == 'update')
  train = figures[-1]
  assert train['exit_code'] == 0 and train['steps'] == 2
  assert set(train['pass_at_1']) == {'before', 'after'}
