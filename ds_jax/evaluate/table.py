"""The layout of the paper's Table 1: a row per model, a column per benchmark, their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.data.benchmarks import BENCHMARKS

# Pass@1 in per cent over 32 samples at temperature 0.6, top-p 0.95 (arXiv:2509.25454, Table 1, as
# on the model card of fangwu97/DeepSearch-1.5B), in the order of BENCHMARKS, then the average.
PAPER = {
  'Nemotron-Research-Reasoning-Qwen-1.5B v2 (paper)': (
    51.77,
    32.92,
    88.83,
    92.24,
    39.75,
    64.69,
    61.70,
  ),
  'DeepSearch-1.5B (paper)': (53.65, 35.42, 90.39, 92.53, 40.00, 65.72, 62.95),
}
PAPER_SETTINGS = {'num_samples': 32, 'temperature': 0.6, 'top_p': 0.95}

_COLUMNS = (*(benchmark.title for benchmark in BENCHMARKS.values()), 'Average')
_NAMES = (*BENCHMARKS, 'average')


def markdown(
  results: Mapping[str, Mapping[str, Any]], label: str, settings: Mapping[str, float]
) -> str:
  """Table 1 with the paper's rows and ours, then what else there is to know of ours.

  Args:
    results: {benchmark: figures of `samples.summarize_samples`}, and 'average' if all are there.
    label: of our row.
    settings: num_samples, temperature, top_p.
  """
  paper = [[name, *(f'{value:.2f}' for value in values)] for name, values in PAPER.items()]
  ours = [label, *(_cell(results.get(name)) for name in _NAMES)]
  differing = [
    f'{name} {settings[name]:g} (paper: {value:g})'
    for name, value in PAPER_SETTINGS.items()
    if settings[name] != value
  ]
  lines = [
    'Pass@1 in per cent; in brackets the 95 % interval, problems as units.',
    '',
    *_table(['Model', *_COLUMNS], [*paper, ours]),
  ]
  if differing:
    lines += ['', "Not the paper's sampling: " + ', '.join(differing) + '.']
  return '\n'.join([*lines, '', *_details(results), ''])


def _details(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A row per benchmark: pass@k, majority@k, lengths, what was cut off."""
  names = [name for name in BENCHMARKS if name in results]
  counts = sorted({k for name in names for k in results[name]['pass_at']})
  most = counts[-1:]
  header = [
    'Benchmark',
    'problems',
    'samples',
    *(f'pass@{k}' for k in counts),
    *(f'majority@{k}' for k in most),
    'cut off',
    'tokens mean',
    'p99',
    'errors',
  ]
  percent = lambda share: '–' if share is None else f'{100 * share:.2f}'
  rows = [
    [
      BENCHMARKS[name].title,
      str(found['num_problems']),
      str(found['num_samples']),
      *(percent(found['pass_at'].get(k)) for k in counts),
      *(percent(found['majority_at'].get(k)) for k in most),
      percent(found['cut_share']),
      f'{found["response_tokens"]["mean"]:.0f}',
      f'{found["response_tokens"]["p99"]}',
      str(found['num_errors']),
    ]
    for name, found in ((name, results[name]) for name in names)
  ]
  return _table(header, rows)


def _cell(found: Mapping[str, Any] | None) -> str:
  if found is None:
    return '–'
  return '{:.2f} [{:.2f}, {:.2f}]'.format(
    *(100 * found[name] for name in ('pass_at_1', 'low', 'high'))
  )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """A Markdown table whose columns line up as text, too."""
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
  line = lambda cells: (
    '| '
    + ' | '.join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    + ' |'
  )
  rule = (
    '|'
    + '|'.join(('-' * (w + 1) + ':') if i else ('-' * (w + 2)) for i, w in enumerate(widths))
    + '|'
  )
  return [line(header), rule, *map(line, rows)]
