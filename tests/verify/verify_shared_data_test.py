"""The math verifier on the shared rows, its time for an answer, and a simple one's throughput."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from pathlib import Path

import pytest

from ds_jax.config import VerifyConfig
from ds_jax.types import Verdict
from ds_jax.verify import extract, grade_math
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
  assert accuracy >= 0.984
  assert false_positives == 0
  assert false_positives <= peer_false_positives


def test_accuracy_and_false_positives_on_the_hunted_rows(shared, capsys):
  rows = read_rows(shared / 'data' / 'equivalence' / 'hunt.jsonl')
  with VerifierPool(VerifyConfig(verifier=BARE)) as pool:
    futures = pool.verify([(row['gold'], row['prediction']) for row in rows])
    ours = [future.result(timeout=120) is Verdict.CORRECT for future in futures]
  num_right = sum(o == row['equivalent'] for o, row in zip(ours, rows, strict=True))
  false_positives = sum(o and not row['equivalent'] for o, row in zip(ours, rows, strict=True))
  with capsys.disabled():
    print(
      f'\n  {len(rows)} hunted rows: accuracy {num_right / len(rows):.1%}, '
      f'{false_positives} false positives'
    )
  assert num_right >= 0.97 * len(rows)
  assert false_positives <= 8


def test_no_answer_takes_long(shared):
  """Of the hunt, and of its answers and golds in another order; in this process."""
  rows = read_rows(shared / 'data' / 'equivalence' / 'hunt.jsonl')
  pairs = [(row['gold'], extract.final_answer(row['prediction'])) for row in rows]
  golds = [gold for gold, _ in pairs]
  pairs += zip(golds, random.Random(4).sample(golds, len(golds)), strict=True)
  grade_math.warm_up()
  seconds = []
  for gold, answer in pairs:
    start = time.process_time()
    grade_math.is_equal(gold, answer)
    seconds.append(time.process_time() - start)
  assert max(seconds) < 0.2
  assert sorted(seconds)[len(seconds) // 2] < 1e-3


def test_a_changed_digit_is_not_accepted(shared):
  """Of answers that were accepted: what is accepted all the same means the same."""
  rows = read_rows(shared / 'data' / 'equivalence' / 'hunt.jsonl')
  rng = random.Random(7)
  pairs = [
    (row['gold'], extract.final_answer(row['prediction'])) for row in rows if row['equivalent']
  ]
  pairs = [pair for pair in pairs if re.search(r'\d', pair[1]) and grade_math.is_equal(*pair)]
  accepted = set()
  for gold, answer in itertools.islice(itertools.cycle(pairs), 3000):
    position = rng.choice([match.start() for match in re.finditer(r'[0-9]', answer)] or [-1])
    if position < 0:
      continue
    digit = rng.choice([d for d in '0123456789' if d != answer[position]])
    changed = answer[:position] + digit + answer[position + 1 :]
    if grade_math.is_equal(gold, changed):
      accepted.add((gold, changed))
  # Names (P(7) = 371), letters of options with their content, exponents and operands that do not
  # matter (i^6, \max(6, 12)), layout.
  plain = [(gold, changed) for gold, changed in accepted if re.fullmatch(r'[-+\d.,/ ]+', changed)]
  assert not plain
  assert len(accepted) < 100


def test_every_training_gold_equals_itself(shared):
  parquet = pytest.importorskip('pyarrow.parquet')
  paths = sorted((shared / 'data' / 'deepmath').glob('**/train_*.parquet'))
  if not paths:
    pytest.skip(f'no shared data: no training files in {shared}')
  golds = set()
  for path in paths:
    rows = parquet.read_table(path, columns=['reward_model']).to_pylist()
    golds.update(row['reward_model']['ground_truth'] for row in rows)
  for path in sorted((shared / 'data' / 'benchmarks').glob('*.jsonl')):
    golds.update(str(row['answer']) for row in read_rows(path) if 'answer' in row)
  golds = sorted(gold for gold in golds if gold.strip())
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
