"""Statistics of a set of problems: answer types, prompt lengths, and what else to know of it."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.data import flaws
from ds_jax.types import Gold, Problem

_TRUTH = frozenset(('yes', 'no', 'true', 'false'))
_WRAPPED = re.compile(r'^\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}$')
# What has letters and is no variable: commands, and e and i alone.
_NAMES = re.compile(
  r'\\(?:text|mathrm|operatorname|sqrt|frac|dfrac|tfrac|pi|infty|ln|log|exp|sin|cos|tan'
  r'|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|gamma|zeta|Gamma|cdot|times|left|right'
  r'|binom|circ|pm|ldots|cdots|dots|quad|displaystyle|big|Big|degree)(?![A-Za-z])'
)
_CONSTANT = re.compile(r'(?<![A-Za-z])[ei](?![A-Za-z])')
_LETTER = re.compile(r'[A-Za-z]|\\[A-Za-z]')
_INTEGER = re.compile(r'[-+]?\d{1,3}(?:(?:,|\{,\}|\\,)?\d{3})*|[-+]?\d+')
_FRACTION = re.compile(r'[-+]?(?:\d+/\d+|\\[dt]?frac\{?-?\d+\}?\{?-?\d+\}?)')


def _is_truth_value(answer: str) -> bool:
  return answer.lower().rstrip('.') in _TRUTH


def _has_variables(answer: str) -> bool:
  return _LETTER.search(_CONSTANT.sub('', _NAMES.sub('', answer))) is not None


_EQUATION = 'equation or inequality'

# In this order: the first that fits is an answer's type.
_TYPES: tuple[tuple[str, Callable[[str], Any]], ...] = (
  ('yes/no, true/false', _is_truth_value),
  ('integer', _INTEGER.fullmatch),
  ('letter A-E', re.compile(r'\(?[A-E]\)?\.?').fullmatch),
  ('fraction', _FRACTION.fullmatch),
  ('decimal', re.compile(r'[-+]?\d*\.\d+').fullmatch),
  ('infinity', re.compile(r'[-+]?(?:\\infty|∞|infinity|inf)', re.IGNORECASE).fullmatch),
  ('matrix', re.compile(r'\\begin\{.?(?:matrix|array)').search),
  ('set', re.compile(r'\\\{|\\emptyset|\\varnothing|\\cup').search),
  (
    _EQUATION,
    re.compile(r'[=<>≤≥]|\\(?:leq?|geq?|neq?|equiv|sim)(?![A-Za-z])').search,
  ),
  ('tuple or interval', re.compile(r'[(\[].*,.*[)\]]', re.DOTALL).fullmatch),
  ('words', re.compile(r'[A-Za-z\s.,\'-]*[A-Za-z]{2}[A-Za-z\s.,\'-]*').fullmatch),
  ('expression with variables', _has_variables),
  ('closed-form constant', re.compile(r'\d|\\pi|\\[A-Za-z]|[ei]').search),
)


def answer_type(answer: str) -> str:
  """Says what an answer looks like: a rough class for people, on which no verifier relies."""
  if isinstance(answer, Gold):
    return f'scored by {answer.verifier}'
  flaw = flaws.gold_flaw(answer)
  if flaw is not None:
    return flaw.replace('_', ' ')
  bare = _WRAPPED.sub(r'\1', answer.strip().strip('$').strip())
  for name, fits in _TYPES:
    if fits(bare):
      return name
  return 'other'


def describe_problems(
  problems: Sequence[Problem], skipped: Mapping[str, int] | None = None
) -> dict[str, Any]:
  """Counts answer types, the most frequent first, and questions with something peculiar.

  Args:
    problems: that are used.
    skipped: counts of the rows that are not, by kind; those whose golds are no answers are told of.
  """
  types = collections.Counter(answer_type(problem.answer) for problem in problems)
  difficulties = list(filter(_is_number, map(_difficulty, problems)))
  known_difficulties = [difficulty for difficulty in difficulties if difficulty >= 0]
  num_boxed = sum(problem.prompt.count('\\boxed') > 1 for problem in problems)
  texts = [problem.answer for problem in problems if not isinstance(problem.answer, Gold)]
  num_long = sum(len(text) > 100 for text in texts)
  return {
    'num_problems': len(problems),
    'answer_types': dict(types.most_common()),
    'doubtful_golds': doubtful_golds(types, skipped or {}),
    'peculiar': {
      'question asks for \\boxed more than once': num_boxed,
      'difficulty below 0, i.e. unknown': sum(difficulty < 0 for difficulty in difficulties),
      'answer longer than 100 characters': num_long,
    },
    'difficulty': spread(known_difficulties),
  }


def doubtful_golds(
  types: Mapping[str, int], skipped: Mapping[str, int], setting: str = '--'
) -> str | None:
  """Says so if most golds are no answers, or such as a verifier seldom meets; else None.

  Args:
    types: of the answers of problems that are used, and how many have them.
    skipped: counts of the rows that are not used, by kind.
    setting: what stands before the name of a setting where the user sets it: 'data.' or '--'.
  """
  flaw_counts = {kind: skipped.get(kind, 0) for kind in flaws.GOLD_FLAWS}
  num_golds = sum(types.values()) + sum(flaw_counts.values())
  counts = collections.Counter({_EQUATION: types.get(_EQUATION, 0)})
  for kind, num_skipped in flaw_counts.items():
    name = kind.replace('_', ' ')
    counts[name] = num_skipped + types.get(name, 0)
  if 2 * counts.total() <= num_golds:
    return None
  shares = [f'{name} {n / num_golds:.1%}' for name, n in counts.most_common() if n]
  return (
    f'most golds are equations, prose or no answers at all: {", ".join(shares)}. Verifiers judge '
    f'these badly; if another field holds the answers, name it with {setting}answer_field.'
  )


def spread(values: Sequence[float]) -> dict[str, float] | None:
  """Returns mean, median, 99th percentile and maximum; None for no values."""
  if not len(values):
    return None
  p50, p99 = np.percentile(values, [50, 99], method='nearest')
  return {
    'mean': float(np.mean(values)),
    'p50': float(p50),
    'p99': float(p99),
    'max': float(np.max(values)),
  }


def _difficulty(problem: Problem) -> Any:
  return problem.metadata.get('extra_info.difficulty', problem.metadata.get('difficulty'))


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float)
