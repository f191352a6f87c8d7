"""10,000 answers, nine of ten easy: our verifier's pool beside math-verify, in one run.

  .venv/bin/python tests/benchmarks/grade.py --hard=../shared/data/equivalence/dev.jsonl

Two processes each. The peer is called as verl calls it (gold boxed, response parsed, then verify),
from `multiprocessing`, with the time limits that it sets itself. Easy answers are integers,
fractions, decimals, percentages, choices and words; every tenth row is one of --hard, in turn, with
spaces added so that no cache of verdicts helps. The peer's figure is of the first --peer-rows.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import multiprocessing
import pathlib
import time

NUM_WORKERS = 2
Item = tuple[str, str]  # gold, response


def easy_answers(count: int) -> list[Item]:
  """Answers of many forms, no two alike; every fourth is wrong."""
  forms = (
    lambda i: (f'{i}', f'{i}'),
    lambda i: (rf'\frac{{{i}}}{{{i + 7}}}', f'{i}/{i + 7}'),
    lambda i: (f'{i}.5', rf'\frac{{{2 * i + 1}}}{{2}}'),
    lambda i: (f'{1000 * i}', f'{1000 * i:,}'),
    lambda i: (f'{i}', rf'{i}\text{{ cm}}'),
    lambda i: (f'({i}, {i + 1})', f'({i},{i + 1})'),
    lambda i: (rf'{i}\sqrt{{2}}', rf'{i} \sqrt 2'),
    lambda i: (rf'\text{{case {i}}}', f'case {i}'),
  )
  rows = []
  for i in range(1, count + 1):
    gold, answer = forms[i % len(forms)](i)
    wrong = i % 4 == 0
    rows.append((gold, rf'So it is $\boxed{{{f"{i + 1}" if wrong else answer}}}$.'))
  return rows


def hard_answers(path: pathlib.Path, count: int) -> list[Item]:
  """Rows of the file in turn; each round with another number of spaces behind."""
  rows = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
  turns = itertools.islice(((row, turn) for turn in itertools.count() for row in rows), count)
  return [
    (row['gold'], rf'So it is $\boxed{{{row["prediction"]}}}$.' + ' ' * turn) for row, turn in turns
  ]


def mixed(path: pathlib.Path, count: int) -> list[Item]:
  """`count` answers, every tenth of them a hard one."""
  easy, hard = easy_answers(count - count // 10), hard_answers(path, count // 10)
  return [hard[i // 10] if i % 10 == 9 else easy[i - i // 10] for i in range(count)]


def ours(items: list[Item]) -> tuple[float, collections.Counter]:
  """Seconds from the first request to the last verdict, workers started; counts of verdicts."""
  from ds_jax.config import VerifyConfig
  from ds_jax.verify.pool import VerifierPool

  config = VerifyConfig(verifier='math', num_workers=NUM_WORKERS)
  with VerifierPool(config) as pool:
    for future in pool.verify([('x', rf'\boxed{{y_{i}}}') for i in range(64)]):
      future.result()
    start = time.monotonic()
    verdicts = [future.result() for future in pool.verify(items)]
    return time.monotonic() - start, collections.Counter(v.value for v in verdicts)


def peer_verdict(item: Item) -> str:
  """math-verify on one answer."""
  from math_verify import parse, verify

  gold, response = item
  try:
    is_equal = verify(parse(rf'\boxed{{{gold}}}'), parse(response))
  except Exception:  # it raises many kinds
    return 'error'
  return 'correct' if is_equal else 'wrong'


def peer(items: list[Item]) -> tuple[float, collections.Counter]:
  """The same for math-verify."""
  with multiprocessing.get_context('spawn').Pool(NUM_WORKERS) as pool:
    pool.map(peer_verdict, [('1', r'\boxed{1}')] * 8, chunksize=1)  # started
    start = time.monotonic()
    verdicts = list(pool.imap_unordered(peer_verdict, items, chunksize=8))
    return time.monotonic() - start, collections.Counter(verdicts)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--hard', type=pathlib.Path, required=True, help='rows: gold, prediction')
  parser.add_argument('--rows', type=int, default=10_000)
  parser.add_argument('--peer-rows', type=int, default=10_000)
  arguments = parser.parse_args()
  items = mixed(arguments.hard, arguments.rows)
  seconds, counts = ours(items)
  print(f'ours: {len(items):,} answers in {seconds:.1f} s: {dict(counts)}', flush=True)
  part = items[: arguments.peer_rows]
  peer_seconds, peer_counts = peer(part)
  print(f'math-verify: {len(part):,} answers in {peer_seconds:.1f} s: {dict(peer_counts)}')
  ratio = peer_seconds / len(part) * len(items) / seconds
  print(f'time of math-verify over ours: {ratio:.1f}')


if __name__ == '__main__':
  main()
