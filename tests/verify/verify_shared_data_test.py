"""The math verifier through the pool on the shared rows, and the throughput of a simple one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ds_jax.config import VerifyConfig
from ds_jax.types import Verdict
from ds_jax.verify.pool import VerifierPool

BARE = 'python:ds_jax.verify.grade_math.verify_bare'


def read_rows(path: Path) -> list[dict]:
  if not path.is_file():
    pytest.skip(f'no shared data: {path} does not exist')
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def dev_rows(shared) -> list[dict]:
  """The core rows in LaTeX or answer style, with math-verify's verdict beside ours."""
  folder = shared / 'data' / 'equivalence'
  peers = {row['id']: row['mv_wrapped'] for row in read_rows(folder / 'peer_verdicts_dev.jsonl')}
  return [
    row | {'peer': peers[row['id']]}
    for row in read_rows(folder / 'dev.jsonl')
    if row['core'] and row['style'] != 'cas-ascii'
  ]


def test_accuracy_and_false_positives_on_the_dev_rows(dev_rows, capsys):
  with VerifierPool(VerifyConfig(verifier=BARE)) as pool:
    futures = pool.verify([(row['gold'], row['prediction']) for row in dev_rows])
    ours = [future.result(timeout=120) is Verdict.CORRECT for future in futures]
  num_right = sum(o == row['equivalent'] for o, row in zip(ours, dev_rows, strict=True))
  false_positives = sum(o and not row['equivalent'] for o, row in zip(ours, dev_rows, strict=True))
  peer_false_positives = sum(row['peer'] and not row['equivalent'] for row in dev_rows)
  accuracy = num_right / len(dev_rows)
  with capsys.disabled():
    print(
      f'\n  {len(dev_rows)} dev rows: accuracy {accuracy:.1%}, {false_positives} false '
      f'positives; math-verify: {peer_false_positives} false positives'
    )
  assert accuracy >= 0.93
  assert false_positives <= peer_false_positives


def test_every_training_gold_equals_itself(shared):
  path = shared / 'data' / 'deepmath' / 'deepmath103k_round0' / 'train_25.parquet'
  if not path.is_file():
    pytest.skip(f'no shared data: {path} does not exist')
  parquet = pytest.importorskip('pyarrow.parquet')
  rows = parquet.read_table(path, columns=['reward_model']).to_pylist()
  golds = sorted({row['reward_model']['ground_truth'] for row in rows} - {''})
  with VerifierPool(VerifyConfig(verifier='math')) as pool:
    futures = pool.verify([(gold, rf'\boxed{{{gold}}}') for gold in golds])
    unequal = [
      gold
      for gold, future in zip(golds, futures, strict=True)
      if future.result(timeout=120) is not Verdict.CORRECT
    ]
  assert not unequal


def test_countdown_throughput(capsys):
  """10,000 answers in a few seconds; the bound leaves room for a busy machine."""
  items = [
    (f'{i + 6} from {i} 2 3', f'2 * 3 = 6 | 6 {i} . . {i} + 6 = {i + 6}') for i in range(10_000)
  ]
  with VerifierPool(VerifyConfig(verifier='countdown', num_workers=2)) as pool:
    pool.verify([items[0]])[0].result(timeout=60)
    start = time.monotonic()
    verdicts = {future.result(timeout=60) for future in pool.verify(items)}
    seconds = time.monotonic() - start
  with capsys.disabled():
    print(f'\n  10,000 countdown answers in {seconds:.2f} s')
  assert verdicts == {Verdict.CORRECT}
  assert seconds < 15
