"""A run in a few numbers: what the last lines on the terminal and the head of the report say.

A summary is a plain dict that JSON can write; every field may be missing:

  title    str
  before   evaluation before training: pass_at_1, pass_at_1_low, pass_at_1_high (95 % interval),
  after      pass_at_k, num_problems, num_samples; the same after it
  steps    training steps
  rounds   rounds of filtering
  tokens   tokens that the search generated
  seconds  time spent, as far as the metrics record it
  config   the run's settings, nested by section
  trees    [{title, text}], example trees by format_tree
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.report.text import duration, percent

# Fields that hold the seconds of their whole row; other time/… fields are parts, or rates.
WHOLE_ROW_TIMES = ('step', 'filter', 'evaluate', 'warmstart')


def make_summary(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what the metrics of a run (rows of read_metrics) say; config and trees are not in it.

  The first evaluation 'before' and the last 'after' count.
  """
  of_kind = lambda kind: [row for row in metrics if row['kind'] == kind]
  evaluations = {
    when: [_evaluation(row) for row in of_kind('evaluate') if row.get('when') == when]
    for when in ('before', 'after')
  }
  train = of_kind('train')
  return {
    'before': next(iter(evaluations['before']), None),
    'after': next(reversed(evaluations['after']), None),
    'steps': len(train),
    'rounds': len(of_kind('filter')),
    'tokens': int(sum(row.get('search/tokens') or 0 for row in train)),
    'seconds': float(sum(map(_row_seconds, metrics))),
  }


def summary_table(summary: Mapping[str, Any]) -> str:
  """Returns the table printed at the end of a run: before and after, then what it took."""
  head, *rows = table_rows(summary)
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
  lines = [
    '  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths, strict=True)).rstrip()
    for row in (head, *rows)
  ]
  return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:], '', cost_line(summary)])


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
  """The before/after table, its head first."""
  before, after = (summary.get(when) or {} for when in ('before', 'after'))
  rows = [('', 'before', 'after', 'change')]
  rows.append(
    (
      'pass@1 (95 % interval)',
      with_interval(before),
      with_interval(after),
      _change(before.get('pass_at_1'), after.get('pass_at_1')),
    )
  )
  num_samples = after.get('num_samples') or before.get('num_samples') or 'k'
  if 'pass_at_k' in {*before, *after}:
    values = [e.get('pass_at_k') for e in (before, after)]
    rows.append((f'pass@{num_samples}', *map(percent, values), _change(*values)))
  for name, label in (('num_problems', 'problems'), ('num_samples', 'samples per problem')):
    rows.append((label, *(_count(e.get(name)) for e in (before, after)), ''))
  return rows


def cost_line(summary: Mapping[str, Any]) -> str:
  """'80 training steps · 2 rounds · 1,234,567 tokens generated · 3 min 12 s'."""
  parts = [
    f'{summary[name]:,} {one if summary[name] == 1 else many}'
    for name, one, many in (
      ('steps', 'training step', 'training steps'),
      ('rounds', 'round', 'rounds'),
      ('tokens', 'token generated', 'tokens generated'),
    )
    if summary.get(name)
  ]
  parts += [duration(summary['seconds'])] if summary.get('seconds') else []
  return ' · '.join(parts) or 'no training steps yet'


def headline(summary: Mapping[str, Any]) -> str:
  """The result in one sentence."""
  before, after = (summary.get(when) or {} for when in ('before', 'after'))
  if after.get('pass_at_1') is None or before.get('pass_at_1') is None:
    return (
      'pass@1 before training is ' + percent(before['pass_at_1'])
      if before.get('pass_at_1') is not None
      else 'Nothing has been evaluated yet'
    )
  return (
    f'pass@1 went from {percent(before["pass_at_1"])} to {percent(after["pass_at_1"])} '
    f'({_change(before["pass_at_1"], after["pass_at_1"])})'
  )


def with_interval(evaluation: Mapping[str, Any]) -> str:
  """'11.3 % [9.8, 12.9]'."""
  low, high = (evaluation.get(f'pass_at_1_{end}') for end in ('low', 'high'))
  interval = '' if low is None or high is None else f' [{100 * low:.1f}, {100 * high:.1f}]'
  return percent(evaluation.get('pass_at_1')) + interval


def _evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
  return {
    name.removeprefix('evaluate/'): value
    for name, value in row.items()
    if name.startswith('evaluate/') and value is not None
  }


def _row_seconds(row: Mapping[str, Any]) -> float:
  return max(row.get(f'time/{whole}') or 0.0 for whole in WHOLE_ROW_TIMES)


def _change(before: float | None, after: float | None) -> str:
  return '' if before is None or after is None else f'{100 * (after - before):+.1f} points'


def _count(value: int | None) -> str:
  return '–' if value is None else f'{value:,}'
