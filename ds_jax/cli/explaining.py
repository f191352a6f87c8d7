"""How a verifier decides one pair of gold and prediction, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ds_jax.cli.grading import describe_mode, grading_config
from ds_jax.verify.pool import VerifierPool

if TYPE_CHECKING:
  from ds_jax.run.session import Session
  from ds_jax.types import Verdict

_WIDTH = 100
_INDENT = 14  # columns in front of what a line says
_MAX_SHOWN = 2000  # characters of a text that are shown


def explain_pair(
  session: Session, gold: str, prediction: str, *, mode: str
) -> tuple[dict[str, Any], str]:
  """Grades one pair in a worker, as `grading.grade` does; returns how it was, and that as text.

  Raises:
    InputError: for an unknown mode.
  """
  reports: list[Mapping[str, Any]] = []

  def observe(gold: str, prediction: str, verdict: Verdict, report: Mapping[str, Any]) -> None:
    del gold, prediction, verdict
    reports.append(report)

  config = grading_config(mode, num_workers=1)
  with VerifierPool(config, session.progress.note, observe, explains=True) as pool:
    (future,) = pool.verify([(gold, prediction)])
    verdict = future.result()
  explanation = reports[-1].get('explanation')
  summary = {
    'status': 'done',
    'mode': mode,
    'verifier': config.verifier,
    'gold': gold,
    'prediction': prediction,
    'verdict': verdict.value,
    'explanation': explanation,
  }
  return summary, format_explanation(summary)


def format_explanation(summary: Mapping[str, Any]) -> str:
  """What was read of both sides, the stages in their order, and the verdict, for a person."""
  lines = [_line('verifier', describe_mode(summary['mode']))]
  explanation = summary['explanation']
  if explanation is None:
    lines += [_line('gold', summary['gold']), _line('prediction', summary['prediction'])]
    lines.append(_line('verdict', f'{summary["verdict"]} (no stages are known)'))
    return '\n'.join(lines)
  for side, taken in (('gold', 'gold'), ('prediction', 'answer')):
    lines.append(_line(side, summary[side]))
    if explanation[taken] != summary[side]:
      lines.append(_line('  answer', explanation[taken] or 'none was found'))
    if explanation[taken]:
      lines.append(_line('  read as', explanation[f'{taken}_reading']))
  if explanation['passed_over']:
    lines.append(_line('do not apply', ', '.join(explanation['passed_over'])))
  for number, step in enumerate(explanation['steps']):
    lines.append(_line('decides' if number == 0 else '', step))
  lines.append(_line('verdict', f'{summary["verdict"]}, decided by: {explanation["stage"]}'))
  return '\n'.join(lines)


def _line(name: str, text: str) -> str:
  """A named text, over several lines where it is long."""
  depth = len(text) - len(text.lstrip(' '))
  shown = text.strip()
  if len(shown) > _MAX_SHOWN:
    shown = f'{shown[:_MAX_SHOWN]} …'
  return textwrap.fill(
    shown,
    _WIDTH,
    initial_indent=f'{name:<{_INDENT}}{" " * depth}',
    subsequent_indent=' ' * (_INDENT + depth + 2),
    break_on_hyphens=False,
  )
