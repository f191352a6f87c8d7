"""Signs and words beside the colours of a tree: of verdicts and of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ds_jax.report.text import escaped, or_dash, shorten

MAX_ANSWER = 100  # characters
# A sign beside the colour and the word of every verdict.
SIGNS = {
  'correct': '✓',
  'wrong': '✗',
  'no_answer': '∅',
  'incomplete': '…',
  'timeout': '∞',
  'error': '!',
  'degenerate': '≈',
  'ungraded': '?',
}
UNKNOWN = '·'


def verdict_badge(verdict: str, *, reward: float | None = None) -> str:
  """Returns sign, word and reward of a verdict, coloured."""
  text = f'{SIGNS.get(verdict, UNKNOWN)} {escaped(verdict.replace("_", " "))}'
  return word_badge(verdict, text if reward is None else f'{text} {reward:+.2f}')


def word_badge(verdict: str, text: str) -> str:
  """Returns text, which is HTML, in the colour of a verdict."""
  return f'<span class="w {verdict if verdict in SIGNS else "unknown"}">{text}</span>'


def answer_text(answer: Any) -> str:
  """Returns an answer as code, its middle left out where it is long; '–' of None."""
  return or_dash(answer, lambda x: f'<code>{escaped(shorten(str(x), MAX_ANSWER))}</code>')


def correctness(selected: Mapping[str, Any]) -> str:
  """Returns the sign of a chosen end, coloured; '' where the right answer is not known."""
  is_correct = selected.get('is_correct')
  if is_correct is None:
    return ''
  verdict = 'correct' if is_correct else 'wrong'
  return word_badge(verdict, SIGNS[verdict])


def is_graded(tree: Mapping[str, Any]) -> bool:
  """Returns whether the right answer was known when the tree grew."""
  return not any(node['verdict'] == 'ungraded' for node in tree['nodes'])
