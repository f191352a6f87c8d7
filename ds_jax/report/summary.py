"""A run in a few numbers: what the last lines on the terminal and the head of the report say.

A summary is a plain dict that JSON can write; every field may be missing:

  title    str
  before   evaluation before training: pass_at_1, pass_at_1_low, pass_at_1_high (95 % interval),
  after      pass_at_k, num_problems, num_samples; the same after it
  steps    training steps
  rounds   rounds of filtering
  tokens   tokens that the search generated
  seconds  time spent, as far as the metrics record it
             with several sources also pass_at_1/NAME, pass_at_1_low/NAME, … of each
  config   the run's settings, nested by section
  trees    [{title, text}], example trees by format_tree
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.report.text import duration, or_dash, percent

_OF_SOURCE = 'pass_at_1/'  # stands before the name of one of several sources

# Fields that hold the seconds of their whole row; other time/… fields are parts, or rates.
WHOLE_ROW_TIMES = ('step', 'filter', 'evaluate', 'warmstart')


def make_summary(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what the metrics of a run (rows of read_metrics) say; config and trees are not in it.

  The first evaluation 'before' and the last 'after' count.
  """
  before = after = None
  steps, rounds, tokens, seconds = 0, 0, 0, 0.0
  for row in metrics:
    seconds += _row_seconds(row)
    if row['kind'] == 'train':
      steps += 1
      tokens += row.get('search/tokens') or 0
    elif row['kind'] == 'filter':
      rounds += 1
    elif row['kind'] == 'evaluate' and row.get('when') == 'before' and before is None:
      before = _evaluation(row)
    elif row['kind'] == 'evaluate' and row.get('when') == 'after':
      after = _evaluation(row)
  return {
    'before': before,
    'after': after,
    'steps': steps,
    'rounds': rounds,
    'tokens': int(tokens),
    'seconds': seconds,
  }


def summary_table(summary: Mapping[str, Any]) -> str:
  """Returns the table printed at the end of a run: before and after, then what it took."""
  rows = table_rows(summary)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    lines.append('  '.join(cells).rstrip())
  rule = '-' * max(map(len, lines))
  head, *body = lines
  return '\n'.join([head, rule, *body, '', cost_line(summary)])


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
  """Returns the before/after table, its head first."""
  before, after = summary.get('before') or {}, summary.get('after') or {}
  change = _change(before.get('pass_at_1'), after.get('pass_at_1'))
  rows = [
    ('', 'before', 'after', 'change'),
    ('pass@1 (95 % interval)', with_interval(before), with_interval(after), change),
  ]
  for name in sorted(set(before) | set(after)):
    if name.startswith(_OF_SOURCE):
      source = name.removeprefix(_OF_SOURCE)
      evaluations = [_of_source(evaluation, source) for evaluation in (before, after)]
      cells = map(with_interval, evaluations)
      change = _change(*(evaluation.get('pass_at_1') for evaluation in evaluations))
      rows.append((f'  {source}', *cells, change))
  if 'pass_at_k' in before or 'pass_at_k' in after:
    k = after.get('num_samples') or before.get('num_samples') or 'k'
    at_k_before, at_k_after = before.get('pass_at_k'), after.get('pass_at_k')
    change = _change(at_k_before, at_k_after)
    rows.append((f'pass@{k}', percent(at_k_before), percent(at_k_after), change))
  for name, label in (('num_problems', 'problems'), ('num_samples', 'samples per problem')):
    counts = [or_dash(evaluation.get(name), '{:,}'.format) for evaluation in (before, after)]
    rows.append((label, *counts, ''))
  return rows


def _of_source(evaluation: Mapping[str, Any], source: str) -> dict[str, Any]:
  """The figures of one of several sources, under their names without it."""
  suffix = f'/{source}'
  return {
    name.removesuffix(suffix): value for name, value in evaluation.items() if name.endswith(suffix)
  }


def cost_line(summary: Mapping[str, Any]) -> str:
  """Returns '80 training steps · 2 rounds · 1,234,567 tokens generated · 3 min 12 s'."""
  parts = []
  for name, singular, plural in (
    ('steps', 'training step', 'training steps'),
    ('rounds', 'round', 'rounds'),
    ('tokens', 'token generated', 'tokens generated'),
  ):
    count = summary.get(name)
    if count:
      parts.append(f'{count:,} {singular if count == 1 else plural}')
  if summary.get('seconds'):
    parts.append(duration(summary['seconds']))
  return ' · '.join(parts) or 'no training steps yet'


def headline(summary: Mapping[str, Any]) -> str:
  """Returns the result in one sentence."""
  before = (summary.get('before') or {}).get('pass_at_1')
  after = (summary.get('after') or {}).get('pass_at_1')
  if before is None:
    return 'Nothing has been evaluated yet'
  if after is None:
    return f'pass@1 before training is {percent(before)}'
  return f'pass@1 went from {percent(before)} to {percent(after)} ({_change(before, after)})'


def with_interval(evaluation: Mapping[str, Any]) -> str:
  """Returns '11.3 % [9.8, 12.9]'."""
  share = percent(evaluation.get('pass_at_1'))
  low, high = evaluation.get('pass_at_1_low'), evaluation.get('pass_at_1_high')
  if low is None or high is None:
    return share
  return f'{share} [{100 * low:.1f}, {100 * high:.1f}]'


def _evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the numbers of a row of kind 'evaluate', without the prefix of their names."""
  fields = {}
  for name, value in row.items():
    if name.startswith('evaluate/') and value is not None:
      fields[name.removeprefix('evaluate/')] = value
  return fields


def _row_seconds(row: Mapping[str, Any]) -> float:
  return max(row.get(f'time/{whole}') or 0.0 for whole in WHOLE_ROW_TIMES)


def _change(before: float | None, after: float | None) -> str:
  if before is None or after is None:
    return ''
  return f'{100 * (after - before):+.1f} points'
