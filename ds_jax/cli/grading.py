"""The verdicts of a verifier on a file of golds and predictions, and its mistakes.

Every verdict is a line of the output as soon as it is known; a command that was stopped or killed
goes on behind the last one.
"""

from __future__ import annotations

import collections
import math
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from ds_jax import __version__
from ds_jax.checks import InputError
from ds_jax.config import VerifyConfig
from ds_jax.data.files import find_files, read_rows
from ds_jax.interfaces import Progress
from ds_jax.run.durable import LineFile
from ds_jax.run.stopping import Stopped
from ds_jax.types import Verdict
from ds_jax.verify.pool import VerifierPool

if TYPE_CHECKING:
  from ds_jax.run.session import Session

# Predictions may be whole responses or bare answers; other verifiers are used as they are.
MODES = {'math': 'math_bare', 'released': 'released_bare'}
_WINDOW = 2048  # rows in work at once
_PERCENTILES = (50, 99)

Summary = dict[str, Any]


class Row(NamedTuple):
  """One prediction to grade."""

  number: int  # of its line, from 1
  gold: str
  prediction: str
  equivalent: bool | None  # what is right, where the file says so


def grade(
  session: Session, path: str, *, mode: str, output: str | None, num_workers: int
) -> tuple[Summary, str]:
  """Grades the rows that have no verdict yet; returns the figures over all, and them as text.

  Args:
    session: tells how far it is, and is asked whether to stop.
    path: .jsonl, .json, .csv or .parquet with fields `gold`, `prediction` and, if known,
      `equivalent` (true or false).
    mode: of MODES, or the name of a verifier.
    output: .jsonl of verdicts; None: beside the file, `NAME.MODE.jsonl`.
    num_workers: processes.

  Raises:
    InputError: if no row can be used, or the output holds something else.
    Stopped: if asked to; the same command goes on.
  """
  file = find_files(path)[0]
  config = VerifyConfig(verifier=MODES.get(mode, mode), degenerate='keep', num_workers=num_workers)
  rows, num_skipped = _read(file, session.progress)
  target = output or str(file.with_suffix(f'.{mode.replace(":", "_")}.jsonl'))
  times = _Times()
  with (
    VerifierPool(config, session.progress.note, observe=times) as pool,
    LineFile(target, f'ds_jax {__version__}, {mode}, {_digest(rows)}') as results,
  ):
    _grade_missing(rows, pool, times, results, session)
    figures = summarize(rows, results.rows)
  summary = {'status': 'done', 'mode': mode, 'output': target, 'num_skipped': num_skipped}
  summary |= figures
  return summary, format_summary(summary)


class _Times(dict[tuple[str, str], float]):
  """Milliseconds in the worker, by gold and prediction; the pool tells them."""

  def __call__(self, gold: str, prediction: str, verdict: Verdict, milliseconds: float) -> None:
    del verdict
    self[gold, prediction] = milliseconds


def _read(file: pathlib.Path, progress: Progress) -> tuple[list[Row], int]:
  rows, reasons = [], []
  for number, fields in read_rows(file):
    reason = _flaw(fields)
    if reason:
      reasons.append(f'{number}: {reason}')
      continue
    rows.append(Row(number, fields['gold'], fields['prediction'], fields.get('equivalent')))
  if reasons:
    progress.note(
      f'{file.name}: {len(reasons)} rows cannot be graded, e.g. line {"; line ".join(reasons[:3])}'
    )
  if not rows:
    raise InputError(
      f'{file}: no row can be graded; expected the fields gold and prediction (text)'
      f', and equivalent (true or false) where it is known.'
    )
  return rows, len(reasons)


def _flaw(fields: dict[str, Any] | str) -> str | None:
  if isinstance(fields, str):
    return fields
  for name in ('gold', 'prediction'):
    if not isinstance(fields.get(name), str):
      return f'{name} is missing' if fields.get(name) is None else f'{name} is no text'
  if not isinstance(fields.get('equivalent'), bool | None):
    return 'equivalent is neither true nor false'
  return None


def _digest(rows: Sequence[Row]) -> str:
  """Of what the verdicts depend on."""
  crc = 0
  for row in rows:
    text = f'{row.number} {len(row.gold)} {row.gold}{row.prediction}'
    crc = zlib.crc32(text.encode('utf-8', 'surrogatepass'), crc)
  return f'rows {crc:08x}'


def _grade_missing(
  rows: Sequence[Row], pool: VerifierPool, times: _Times, results: LineFile, session: Session
) -> None:
  """Appends verdicts in the order of the rows, so that those there are the first ones."""
  progress, num_done = session.progress, len(results.rows)
  if num_done:
    progress.note(f'{num_done:,} of {len(rows):,} rows are graded already.')
  progress.start('grade', len(rows))
  num_timeouts = 0
  for row, future in _in_flight(rows[num_done:], pool):
    verdict = future.result()
    milliseconds = times.get((row.gold, row.prediction))
    if milliseconds is not None and not math.isnan(milliseconds):
      milliseconds = round(milliseconds, 4)
    else:
      milliseconds = None
    results.append({'number': row.number, 'verdict': verdict.value, 'ms': milliseconds})
    num_timeouts += verdict is Verdict.TIMEOUT
    progress.update(len(results.rows), timeouts=num_timeouts)
    if session.should_stop():
      raise Stopped
  progress.finish()


def _in_flight(rows: Sequence[Row], pool: VerifierPool) -> Iterator[tuple[Row, Future]]:
  """The rows with the futures of their verdicts, _WINDOW of them in work."""
  waiting: collections.deque[tuple[Row, Future]] = collections.deque()
  for start in range(0, len(rows), _WINDOW // 2):
    part = rows[start : start + _WINDOW // 2]
    futures = pool.verify([(row.gold, row.prediction) for row in part])
    waiting.extend(zip(part, futures, strict=True))
    while len(waiting) > _WINDOW // 2:
      yield waiting.popleft()
  yield from waiting


def summarize(rows: Sequence[Row], graded: Sequence[Mapping[str, Any]]) -> Summary:
  """Counts of verdicts; times in ms; accuracy where the file says what is right.

  `error`, our fault, is left out of the accuracy.
  """
  verdicts = [Verdict(line['verdict']) for line in graded]
  counts = collections.Counter(verdicts)
  num_known = false_positives = false_negatives = 0
  for row, verdict in zip(rows, verdicts, strict=True):
    if row.equivalent is None or verdict is Verdict.ERROR:
      continue
    num_known += 1
    is_correct = verdict is Verdict.CORRECT
    false_positives += is_correct and not row.equivalent
    false_negatives += row.equivalent and not is_correct
  num_right = num_known - false_positives - false_negatives
  return {
    'num_rows': len(rows),
    'verdicts': {v.value: counts[v] for v in Verdict if counts[v]},
    'num_known': num_known,
    'false_positives': false_positives,
    'false_negatives': false_negatives,
    'accuracy': num_right / num_known if num_known else None,
    'ms': _percentiles([line['ms'] for line in graded]),
  }


def _percentiles(milliseconds: Sequence[float | None]) -> dict[str, float | None]:
  """Percentiles of the worker's wall clock per answer.

  An answer whose worker was ended has no time, and stands at the upper end.
  """
  times: list[float | None] = sorted(ms for ms in milliseconds if ms is not None)
  times += [None] * (len(milliseconds) - len(times))
  figures = {}
  for percent in _PERCENTILES:
    figures[f'p{percent}'] = times[min(len(times) - 1, len(times) * percent // 100)]
  figures['max'] = times[-1]
  return figures


def format_summary(summary: Summary) -> str:
  """Three lines for a person."""
  verdicts = ', '.join(f'{count:,} {name}' for name, count in summary['verdicts'].items())
  times = []
  for name, milliseconds in summary['ms'].items():
    shown = 'over the limit' if milliseconds is None else f'{milliseconds:.2f} ms'
    times.append(f'{name} {shown}')
  lines = [f'{summary["num_rows"]:,} rows: {verdicts}', f'time of an answer: {", ".join(times)}']
  if summary['accuracy'] is not None:
    lines.append(
      f'accuracy {summary["accuracy"]:.1%} of {summary["num_known"]:,} rows that say what is '
      f'right; {summary["false_positives"]} false positives, {summary["false_negatives"]} false '
      'negatives'
    )
  return '\n'.join([*lines, f'verdicts: {summary["output"]}'])
