"""What `ds-jax data` says of a problem set, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ds_jax.data.prepare import REPORTED_SHARE


def format_summary(summary: Mapping[str, Any]) -> str:
  """The summary of either command as lines."""
  num_problems = summary['num_problems']
  lines = [f'{summary["name"]}: {num_problems:,} problems of {summary["num_rows"]:,} rows']
  if 'folder' in summary:
    state = 'written to' if summary['is_new'] else 'there already:'
    lines.append(f'{state} {summary["folder"]}')
  lines += _counts('sources', summary.get('sources', {}), num_problems)
  skipped = summary.get('skipped', {})
  lines += _counts('skipped', {kind.replace('_', ' '): n for kind, n in skipped.items()})
  lines += _counts('answers', summary.get('answer_types', {}), num_problems)
  for name in ('doubtful_golds', 'failing_golds'):
    if summary.get(name):
      lines.append(f'  {summary[name]}')
  lines += _counts('to know', summary.get('peculiar', {}))
  for name in ('prompt_tokens', 'difficulty'):
    if summary.get(name):
      figures = ', '.join(f'{key} {value:,.4g}' for key, value in summary[name].items())
      lines.append(f'{name.replace("_", " ")}: {figures}')
  overlap = summary.get('overlap') or summary.get('prepared', {}).get('overlap')
  if overlap and overlap['checked']:
    lines += _overlap(overlap)
  return '\n'.join(lines)


def _overlap(overlap: Mapping[str, Any]) -> list[str]:
  summary = (
    f'overlap: {overlap["num_training_problems"]} problems share {overlap["gram"]} words in a '
    f'row with {overlap["num_benchmark_problems"]} of {", ".join(overlap["checked"])}'
  )
  lines = [summary]
  for pair in overlap['closest']:
    if pair['share'] >= REPORTED_SHARE:
      lines.append(f'  {pair["share"]:6.1%}  {pair["problem_id"]}  {pair["benchmark_id"]}')
  return lines


def _counts(title: str, counts: Mapping[str, int], total: int = 0) -> list[str]:
  """A title and a line per count that is not 0, with its share of `total` if that is given."""
  lines = []
  for name, count in counts.items():
    if count:
      share = f'{count / total:7.1%}' if total else ''
      lines.append(f'  {count:>8,}{share}  {name}')
  return [f'{title}:', *lines] if lines else []
