"""The layout of the paper's Table 1: a row per model, a column per benchmark, their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.data.benchmarks import BENCHMARKS

# Pass@1 in per cent over 32 samples at temperature 0.6, top-p 0.95 (arXiv:2509.25454, Table 1, as
# on the model card of fangwu97/DeepSearch-1.5B).
PAPER = {
  'Nemotron-Research-Reasoning-Qwen-1.5B v2 (paper)': {
    'aime2024': 51.77,
    'aime2025': 32.92,
    'amc2023': 88.83,
    'math500': 92.24,
    'minerva_math': 39.75,
    'olympiadbench': 64.69,
    'average': 61.70,
  },
  'DeepSearch-1.5B (paper)': {
    'aime2024': 53.65,
    'aime2025': 35.42,
    'amc2023': 90.39,
    'math500': 92.53,
    'minerva_math': 40.00,
    'olympiadbench': 65.72,
    'average': 62.95,
  },
}
PAPER_SETTINGS = {'num_samples': 32, 'temperature': 0.6, 'top_p': 0.95}

_NAMES = (*BENCHMARKS, 'average')
_TITLES = (*(benchmark.title for benchmark in BENCHMARKS.values()), 'Average')


def markdown(
  results: Mapping[str, Mapping[str, Any]], label: str, settings: Mapping[str, float]
) -> str:
  """Returns Table 1 with the paper's rows and ours, then what else there is to know of ours.

  Args:
    results: {benchmark: figures of `samples.summarize_samples`}, and 'average' if all are there.
    label: of our row.
    settings: num_samples, temperature, top_p.
  """
  rows = []
  for model, shares in PAPER.items():
    rows.append([model, *(f'{shares[name]:.2f}' for name in _NAMES)])
  rows.append([label, *(_with_interval(results.get(name)) for name in _NAMES)])
  lines = [
    'Pass@1 in per cent; in brackets the 95 % interval, problems as units.',
    '',
    *_table(['Model', *_TITLES], rows),
  ]
  differing = [
    f'{name} {settings[name]:g} (paper: {value:g})'
    for name, value in PAPER_SETTINGS.items()
    if settings[name] != value
  ]
  if differing:
    lines += ['', "Not the paper's sampling: " + ', '.join(differing) + '.']
  return '\n'.join([*lines, '', *_details(results), ''])


def result_line(name: str, figures: Mapping[str, Any]) -> str:
  """Returns 'AIME 2024: pass@1 53.65 % [46.1, 61.0]' of a benchmark, or of the average."""
  title = dict(zip(_NAMES, _TITLES, strict=True))[name]
  mean, low, high = 100 * figures['pass_at_1'], 100 * figures['low'], 100 * figures['high']
  return f'{title}: pass@1 {mean:.1f} % [{low:.1f}, {high:.1f}]'


def _details(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Returns lines with a row per benchmark: pass@k, majority@k, lengths, what was cut off."""
  names = [name for name in BENCHMARKS if name in results]
  counts = sorted({k for name in names for k in results[name]['pass_at']})
  largest_count = counts[-1:]  # none if there is no result
  header = ['Benchmark', 'problems', 'samples']
  header += [f'pass@{k}' for k in counts]
  header += [f'majority@{k}' for k in largest_count]
  header += ['cut off', 'tokens mean', 'p99', 'errors']
  rows = []
  for name in names:
    figures = results[name]
    lengths = figures['response_tokens']
    row = [BENCHMARKS[name].title, str(figures['num_problems']), str(figures['num_samples'])]
    row += [_percent(figures['pass_at'].get(k)) for k in counts]
    row += [_percent(figures['majority_at'].get(k)) for k in largest_count]
    row += [_percent(figures['cut_share']), f'{lengths["mean"]:.0f}', f'{lengths["p99"]}']
    row += [str(figures['num_errors'])]
    rows.append(row)
  return _table(header, rows)


def _with_interval(figures: Mapping[str, Any] | None) -> str:
  """Returns pass@1 with its interval, in per cent; '–' where nothing was evaluated."""
  if figures is None:
    return '–'
  mean, low, high = 100 * figures['pass_at_1'], 100 * figures['low'], 100 * figures['high']
  return f'{mean:.2f} [{low:.2f}, {high:.2f}]'


def _percent(share: float | None) -> str:
  return '–' if share is None else f'{100 * share:.2f}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns the lines of a Markdown table whose columns line up as text, too."""
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
  first, *others = widths
  # The first column stands to the left, numbers to the right, which the colons say to Markdown.
  rules = ['-' * (first + 2)]
  rules += ['-' * (width + 1) + ':' for width in others]
  lines = [_line(header, widths), f'|{"|".join(rules)}|']
  lines += [_line(row, widths) for row in rows]
  return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
  """Returns one row of a Markdown table, padded to the columns' widths."""
  padded = [cells[0].ljust(widths[0])]
  for cell, width in zip(cells[1:], widths[1:], strict=True):
    padded.append(cell.rjust(width))
  return f'| {" | ".join(padded)} |'
