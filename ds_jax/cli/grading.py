"""The verdicts of a verifier on a file of golds and predictions, and its mistakes.

Every verdict is a line of the output as soon as it is known; a command that was stopped or killed
goes on behind the last one.
"""

from __future__ import annotations

import collections
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ds_jax import __version__
from ds_jax.checks import InputError
from ds_jax.cli.grading_rows import Fields, Row, read
from ds_jax.config import VerifyConfig
from ds_jax.data.files import find_files
from ds_jax.interfaces import Progress
from ds_jax.run.durable import LineFile
from ds_jax.run.stopping import Stopped
from ds_jax.types import Verdict
from ds_jax.verify.pool import VerifierPool
from ds_jax.verify.verifiers import check_name, source_digest

if TYPE_CHECKING:
  from ds_jax.run.session import Session

# Modes that have another name than their verifier.
_VERIFIERS = {'released': 'released_bare'}
_ABOUT = {
  'math': 'the verifier that rewards: only a box is an answer',
  'math_bare': 'as math, which rewards, but a prediction may be a bare answer, or say it in words',
  'last_number': 'as math, with the last number of a prediction as its answer',
  'released': 'the released grader, defects included; a prediction may be a bare answer',
}
_TOLD = ('answer', 'gold_reading', 'answer_reading', 'stage')  # of an explain.Explanation
_ON_DISK_ALONE = ('gold', 'prediction', 'equivalent', *_TOLD)
_WINDOW = 2048  # rows in work at once
_PERCENTILES = (50, 99)

Summary = dict[str, Any]


def grade(
  session: Session,
  path: str,
  *,
  mode: str,
  fields: Fields,
  output: str | None,
  num_workers: int,
) -> tuple[Summary, str]:
  """Grades the rows that have no verdict yet; returns the figures over all, and them as text.

  Args:
    session: tells how far it is, and is asked whether to stop.
    path: .jsonl, .json, .csv or .parquet with golds, predictions and, if known, whether they are
      equivalent (true or false).
    mode: math, math_bare, released, or the name of another verifier.
    fields: where these stand in a row.
    output: .jsonl of verdicts; None: beside the file, `NAME.MODE.jsonl`.
    num_workers: processes.

  Raises:
    InputError: if no row can be used, or the output holds something else.
    Stopped: if asked to; the same command goes on.
  """
  file = find_files(path)[0]
  config = grading_config(mode, num_workers)
  check_name(config.verifier)
  rows, num_skipped = read(file, fields, session.progress)
  target = output or str(file.with_suffix(f'.{mode.replace(":", "_")}.jsonl'))
  code = source_digest(config.verifier)
  run = f'ds_jax {__version__}, {mode}, code {code}, {_digest(rows)}'
  _check_code(pathlib.Path(target), run)
  reports = _Reports()
  with (
    VerifierPool(config, session.progress.note, reports, explains=True) as pool,
    LineFile(target, run, _ON_DISK_ALONE) as results,
  ):
    _grade_missing(rows, pool, reports, results, session)
    figures = summarize(rows, results.rows)
  summary = {
    'status': 'done',
    'mode': mode,
    'verifier': config.verifier,
    'code': code,
    'output': target,
    'num_skipped': num_skipped,
    **figures,
  }
  if mode == 'math':
    _note_missing_boxes(rows, session.progress)
  return summary, format_summary(summary)


def grading_config(mode: str, num_workers: int) -> VerifyConfig:
  """The settings of the pool that a mode of `ds-jax grade` asks for."""
  verifier = _VERIFIERS.get(mode, mode)
  return VerifyConfig(verifier=verifier, degenerate='keep', num_workers=num_workers)


def describe_mode(mode: str) -> str:
  """Which verifier that is, for a person."""
  return f'{mode}, {_ABOUT[mode]}' if mode in _ABOUT else f'{mode}, as verify.verifier={mode}'


class _Reports(dict[tuple[str, str], dict[str, Any]]):
  """What the worker says of a pair, by gold and prediction; the pool tells it."""

  def __call__(
    self, gold: str, prediction: str, verdict: Verdict, report: Mapping[str, Any]
  ) -> None:
    del verdict
    explanation = report.get('explanation') or {}
    fields = {name: explanation.get(name) for name in _TOLD}
    fields['ms'] = round(report['ms'], 4) if 'ms' in report else None
    self[gold, prediction] = fields


def _check_code(path: pathlib.Path, run: str) -> None:
  """Raises InputError if a file holds verdicts on the same rows by other code of the verifier."""
  if not path.is_file():
    return
  with path.open('rb') as file:
    line = file.readline()
  try:
    kept_run = str(json.loads(line)['run'])
  except (ValueError, TypeError, KeyError, RecursionError):
    return  # a torn line, or no results: LineFile knows what to do
  _, mode, code, rows = run.split(', ')
  is_same_work = kept_run.split(', ')[1:2] == [mode] and kept_run.endswith(f', {rows}')
  if is_same_work and kept_run != run:
    raise InputError(
      f'{path} holds verdicts of other code of the verifier ({kept_run!r:.80}; now it is {code}); '
      'remove it to grade all rows anew, or choose another --output.'
    )


def _note_missing_boxes(rows: Sequence[Row], progress: Progress) -> None:
  """Says how many predictions the verifier that rewards cannot read."""
  num_missing = sum('\\boxed' not in row.prediction for row in rows)
  if num_missing:
    progress.note(
      f'{num_missing:,} of {len(rows):,} predictions have no \\boxed{{…}}, and math reads nothing '
      'else; --mode=math_bare reads bare answers, too.'
    )


def _digest(rows: Sequence[Row]) -> str:
  """Names the rows, of which each line of the output holds one."""
  crc = 0
  for row in rows:
    text = f'{row.number} {row.equivalent} {len(row.gold)} {row.gold}{row.prediction}'
    crc = zlib.crc32(text.encode('utf-8', 'surrogatepass'), crc)
  return f'rows {crc:08x}'


def _grade_missing(
  rows: Sequence[Row], pool: VerifierPool, reports: _Reports, results: LineFile, session: Session
) -> None:
  """Appends verdicts in the order of the rows, so that those there are the first ones."""
  progress, num_done = session.progress, len(results.rows)
  if num_done:
    progress.note(f'{num_done:,} of {len(rows):,} rows are graded already.')
  progress.start('grade', len(rows))
  num_timeouts = 0
  for row, future in _in_flight(rows[num_done:], pool):
    verdict = future.result()
    report = reports[row.gold, row.prediction]
    results.append(row._asdict() | report | {'verdict': verdict.value})
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
  """A few lines for a person."""
  verdicts = ', '.join(f'{count:,} {name}' for name, count in summary['verdicts'].items())
  times = []
  for name, milliseconds in summary['ms'].items():
    shown = 'over the limit' if milliseconds is None else f'{milliseconds:.2f} ms'
    times.append(f'{name} {shown}')
  lines = [
    f'verifier: {describe_mode(summary["mode"])}',
    f'{summary["num_rows"]:,} rows: {verdicts}',
    f'time of an answer: {", ".join(times)}',
  ]
  if summary['accuracy'] is not None:
    lines.append(
      f'accuracy {summary["accuracy"]:.1%} of {summary["num_known"]:,} rows that say what is '
      f'right; {summary["false_positives"]} false positives, {summary["false_negatives"]} false '
      'negatives'
    )
  return '\n'.join([*lines, f'verdicts: {summary["output"]}'])
