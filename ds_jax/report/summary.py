"""A run in a few numbers: what the last lines on the terminal and the head of the report say.

A summary is a plain dict that JSON can write; every field may be missing:

  title    str
  before   evaluation before training: pass_at_1, pass_at_1_low, pass_at_1_high (95 % interval),
  after      pass_at_k, num_problems, num_samples; the same after it; None: not evaluated;
             with several evaluation sets also pass_at_1/NAME, pass_at_1_low/NAME, … of each, and
             mean_pass_at_1, mean_pass_at_1_low, … over the sets;
             at further temperatures also t_1.2/pass_at_1, t_1.2/pass_at_1_low, …
  steps    training steps
  updates  optimizer updates that they were to make
  skipped_updates  of these, skipped: nothing to train on, or a gradient that is not finite
  skipped_steps    steps that skipped all of their updates
  rounds   rounds of filtering
  tokens   tokens generated to learn from: by filters, searches and rollouts
  seconds  time spent, as far as the metrics record it
  config   the run's settings, nested by section
  trees    [{title, text, question, gold, tree}], example trees: `text` by format_tree, `tree` by
           tree_to_dict; older runs have title and text
  responses  of the last evaluation: file (that has all), rows (some, from choose_responses)
  beside   what other runs reached with as many tokens, from the file that log.beside names, e.g. of
           `python tests/benchmarks/learning.py curve`: label, command (that makes those runs), k
           (samples per problem), points ([{tokens, pass_at_1, pass_at_k}], tokens so far, shares)
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError, first_line
from ds_jax.report.responses import choose_responses
from ds_jax.report.text import duration, or_dash, percent

_OF_SOURCE = 'pass_at_1/'  # stands before the name of one of several evaluation sets
_OF_MEAN = 'mean_'  # stands before figures of the mean over the sets

# Fields that hold the seconds of their whole row; other time/… fields are parts, or rates.
WHOLE_ROW_TIMES = ('step', 'filter', 'evaluate', 'warmstart')

_BESIDE = ('label', 'command', 'k', 'points')
_OF_POINT = ('tokens', 'pass_at_1', 'pass_at_k')


def make_summary(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what the metrics of a run (rows of read_metrics) say; config and trees are not in it.

  The first evaluation 'before' and the last 'after' count.
  """
  before = after = None
  steps, rounds, seconds = 0, 0, 0.0
  tokens = tokens_of_older_rows = 0  # older versions counted those of the trees of each step
  updates, skipped_updates, skipped_steps = 0, 0, 0
  for row in metrics:
    seconds += _row_seconds(row)
    if row['kind'] == 'train':
      steps += 1
      if 'search/tokens_so_far' in row:
        tokens = row['search/tokens_so_far']
      else:
        tokens_of_older_rows += row.get('search/tokens') or 0
      in_row, skipped = row.get('train/updates') or 1, row.get('train/skipped') or 0.0
      updates += in_row
      skipped_updates += round(skipped * in_row)
      skipped_steps += skipped == 1
    elif row['kind'] == 'filter':
      rounds += 1
    elif row['kind'] == 'evaluate' and row.get('when') == 'before' and before is None:
      before = evaluation_of(row)
    elif row['kind'] == 'evaluate' and row.get('when') == 'after':
      after = evaluation_of(row)
  return {
    'before': before,
    'after': after,
    'steps': steps,
    'updates': updates,
    'skipped_updates': skipped_updates,
    'skipped_steps': skipped_steps,
    'rounds': rounds,
    'tokens': int(tokens + tokens_of_older_rows),
    'seconds': seconds,
  }


def summary_table(summary: Mapping[str, Any]) -> str:
  """Returns what is printed at the end of a run: before and after, what it took, and the result."""
  rows = table_rows(summary)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    lines.append('  '.join(cells).rstrip())
  rule = '-' * max(map(len, lines))
  head, *body = lines
  last_lines = [cost_line(summary), skipped_line(summary), result_line(summary)]
  return '\n'.join([head, rule, *body, '', *filter(None, last_lines)])


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Returns the before/after table, its head first; without the one, the other stands alone."""
  after = summary.get('after') or {}
  columns = {'before': summary.get('before') or {}, 'after': after}
  if after and not columns['before']:
    del columns['before']
  change = _change_of('pass_at_1', columns)
  rows = [
    ('', *columns, 'change'),
    ('pass@1 (95 % interval)', *map(with_interval, columns.values()), change),
  ]
  for source in set_names(columns.values()):
    of_source = {label: figures_of(column, source) for label, column in columns.items()}
    change = _change_of('pass_at_1', of_source)
    rows.append((f'  {source}', *map(with_interval, of_source.values()), change))
  means = {label: mean_figures(column) for label, column in columns.items()}
  if any(means.values()):
    change = _change_of('pass_at_1', means)
    rows.append(('  mean over sets', *map(with_interval, means.values()), change))
  counts = [evaluation.get('num_samples') for evaluation in reversed(columns.values())]
  k = next(filter(None, counts), 'k')
  if k != 1 and any('pass_at_k' in evaluation for evaluation in columns.values()):
    shares = [percent(evaluation.get('pass_at_k')) for evaluation in columns.values()]
    rows.append((f'pass@{k}', *shares, _change_of('pass_at_k', columns)))
  for prefix in _temperatures(columns.values()):
    at_it = {label: _figures_under(column, f'{prefix}/') for label, column in columns.items()}
    label = f'pass@1 at temperature {prefix.removeprefix("t_")}'
    rows.append((label, *map(with_interval, at_it.values()), _change_of('pass_at_1', at_it)))
  counts = [
    or_dash(evaluation.get('num_problems'), '{:,}'.format) for evaluation in columns.values()
  ]
  rows.append(('problems', *counts, ''))
  rows.append(('samples per problem', *map(samples_in_words, columns.values()), ''))
  return rows if 'before' in columns else [row[:-1] for row in rows]


def samples_in_words(evaluation: Mapping[str, Any]) -> str:
  """Returns '8', or '4 to 32' where evaluation sets have different numbers; '–' if unknown."""
  fewest, counts = evaluation.get('num_samples'), []
  for source in set_names([evaluation]):
    counts.append(figures_of(evaluation, source).get('num_samples', fewest))
  if fewest is None or len(set(counts)) < 2:
    return or_dash(fewest, '{:,}'.format)
  return f'{min(counts):,} to {max(counts):,}'


def pass_rates_in_words(evaluation: Mapping[str, Any]) -> list[str]:
  """Returns ['pass@1 34.3 % [29.9, 39.0]'], and with several sets that of each and the mean."""
  words = [f'pass@1 {with_interval(evaluation)}']
  for source in set_names([evaluation]):
    words.append(f'{source} {with_interval(figures_of(evaluation, source))}')
  mean = mean_figures(evaluation)
  return [*words, f'mean over sets {with_interval(mean)}'] if mean else words


def set_names(evaluations: Iterable[Mapping[str, Any]]) -> list[str]:
  """The names of several evaluation sets, sorted."""
  names = {name for evaluation in evaluations for name in evaluation}
  return sorted(name.removeprefix(_OF_SOURCE) for name in names if name.startswith(_OF_SOURCE))


def _temperatures(evaluations: Iterable[Mapping[str, Any]]) -> list[str]:
  """The names of further temperatures that evaluations were made at, the lowest first."""
  prefixes = set()
  for evaluation in evaluations:
    for name in evaluation:
      prefix, _, figure = name.partition('/')
      if prefix.startswith('t_') and figure == 'pass_at_1':
        prefixes.add(prefix)
  return sorted(prefixes, key=_temperature_of)


def _temperature_of(prefix: str) -> float:
  return float(prefix.removeprefix('t_'))


def _figures_under(evaluation: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """The figures whose names begin with `prefix`, under their names without it."""
  figures = {}
  for name, value in evaluation.items():
    if name.startswith(prefix):
      figures[name.removeprefix(prefix)] = value
  return figures


def mean_figures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
  """The figures of the mean over several evaluation sets, under their names without it."""
  return _figures_under(evaluation, _OF_MEAN)


def figures_of(evaluation: Mapping[str, Any], source: str) -> dict[str, Any]:
  """The figures of one of several evaluation sets, under their names without it."""
  suffix, figures = f'/{source}', {}
  for name, value in evaluation.items():
    if name.endswith(suffix):
      figures[name.removesuffix(suffix)] = value
  return figures


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


def skipped_line(summary: Mapping[str, Any]) -> str:
  """Returns how many updates were skipped; '' if none was, or no step is known."""
  steps, skipped = summary.get('steps'), summary.get('skipped_updates')
  if not steps or not skipped:
    return ''
  updates = summary.get('updates') or steps
  if skipped >= updates:
    return f'NOTHING WAS LEARNT: all {updates:,} updates were skipped. The model is what it was.'
  line = f'{skipped:,} of {updates:,} updates were skipped'
  skipped_steps = summary.get('skipped_steps')
  if skipped_steps:
    line += f'; {skipped_steps:,} of {steps:,} steps learnt nothing'
  return f'{line}.'


def result_line(summary: Mapping[str, Any]) -> str:
  """Returns 'pass@1 34.3 % [29.9, 39.0], before training 11.8 % [10.0, 13.7]'; '' without any."""
  name, before, after = result_figures(summary)
  if after.get('pass_at_1') is None:
    return ''
  line = f'{name} {with_interval(after)}'
  if before.get('pass_at_1') is not None:
    line += f', before training {with_interval(before)}'
  return line


def headline(summary: Mapping[str, Any]) -> str:
  """Returns the result in one sentence."""
  name, before_figures, after_figures = result_figures(summary)
  before, after = before_figures.get('pass_at_1'), after_figures.get('pass_at_1')
  if before is None and after is not None:
    return f'{name} after training is {percent(after)}'
  if before is None:
    return 'Nothing has been evaluated yet'
  if after is None:
    return f'{name} before training is {percent(before)}'
  return f'{name} went from {percent(before)} to {percent(after)} ({_change(before, after)})'


def result_figures(summary: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """What the result is called, and its figures before and after: the mean over several sets.

  A large set would hide a small one in pass@1 over all problems.
  """
  before, after = summary.get('before') or {}, summary.get('after') or {}
  sets, means = set_names([before, after]), (mean_figures(before), mean_figures(after))
  if not sets or any(bool(m) != bool(e) for m, e in zip(means, (before, after), strict=True)):
    return 'pass@1', before, after
  return f'mean pass@1 over {len(sets)} sets', *means


def with_interval(evaluation: Mapping[str, Any]) -> str:
  """Returns '11.3 % [9.8, 12.9]'."""
  share = percent(evaluation.get('pass_at_1'))
  low, high = evaluation.get('pass_at_1_low'), evaluation.get('pass_at_1_high')
  if low is None or high is None:
    return share
  return f'{share} [{100 * low:.1f}, {100 * high:.1f}]'


def evaluation_of(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the numbers of a row of kind 'evaluate', without the prefix of their names."""
  figures = _figures_under(row, 'evaluate/')
  return {name: value for name, value in figures.items() if value is not None}


def _row_seconds(row: Mapping[str, Any]) -> float:
  return max(row.get(f'time/{whole}') or 0.0 for whole in WHOLE_ROW_TIMES)


def _change_of(name: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns by how much a share has changed; '' where one of the two is not known."""
  before, after = columns.get('before') or {}, columns.get('after') or {}
  return _change(before.get(name), after.get(name))


def _change(before: float | None, after: float | None) -> str:
  if before is None or after is None:
    return ''
  return f'{100 * (after - before):+.1f} points'


def read_beside(path: str) -> dict[str, Any]:
  """Returns the fields of a curve of other runs; {} for the path ''.

  Raises:
    InputError: if the file cannot be read, or is none.
  """
  if not path:
    return {}
  try:
    fields = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as e:
    raise InputError(f'log.beside: {path} cannot be read: {first_line(e)}.') from e
  if not _is_curve(fields):
    raise InputError(
      f'log.beside: expected {path} to hold {", ".join(_BESIDE)}, each point with '
      f'{", ".join(_OF_POINT)}, as `python tests/benchmarks/learning.py curve` writes them.'
    )
  return {name: fields[name] for name in _BESIDE}


def read_responses(path: pathlib.Path, count: int) -> list[Mapping[str, Any]]:
  """Returns some responses out of the file of an evaluation; see `choose_responses`.

  Raises:
    InputError: if the file cannot be read, or holds something else.
  """
  try:
    with path.open(encoding='utf-8') as lines:
      return choose_responses(map(json.loads, lines), count)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise InputError(f'{path} cannot be read: {first_line(e)}.') from e


def _is_curve(fields: Any) -> bool:
  if not isinstance(fields, dict) or not isinstance(fields.get('points'), list):
    return False
  if not all(isinstance(fields.get(name), str) for name in ('label', 'command')):
    return False
  if not isinstance(fields.get('k'), int):
    return False
  return bool(fields['points']) and all(map(_is_point, fields['points']))


def _is_point(point: Any) -> bool:
  if not isinstance(point, dict):
    return False
  values = [point.get(name) for name in _OF_POINT]
  return all(isinstance(value, (int, float)) and value >= 0 for value in values)
