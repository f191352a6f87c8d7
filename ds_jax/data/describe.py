"""Statistics of a set of problems: answer types, prompt lengths, and what else to know of it."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ds_jax.types import Problem

_TRUTH = frozenset(('yes', 'no', 'true', 'false'))
_NAMES = (
  r'\\(?:text|mathrm|operatorname|sqrt|frac|dfrac|tfrac|pi|infty|ln|log|exp|sin|cos|tan'
  r'|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|gamma|zeta|Gamma|cdot|times|left|right'
  r'|binom|circ|pm|ldots|cdots|dots|quad|displaystyle|big|Big|degree)(?![A-Za-z])'
)
_INTEGER = re.compile(r'[-+]?\d{1,3}(?:(?:,|\{,\}|\\,)?\d{3})*|[-+]?\d+')
_FRACTION = re.compile(r'[-+]?(?:\d+/\d+|\\[dt]?frac\{?-?\d+\}?\{?-?\d+\}?)')

# In this order: the first that fits is an answer's type.
_TYPES: tuple[tuple[str, Callable[[str], Any]], ...] = (
  ('yes/no, true/false', lambda a: a.lower().rstrip('.') in _TRUTH),
  ('integer', _INTEGER.fullmatch),
  ('letter A-E', re.compile(r'\(?[A-E]\)?\.?').fullmatch),
  ('fraction', _FRACTION.fullmatch),
  ('decimal', re.compile(r'[-+]?\d*\.\d+').fullmatch),
  ('infinity', re.compile(r'[-+]?(?:\\infty|∞|infinity|inf)', re.IGNORECASE).fullmatch),
  ('matrix', re.compile(r'\\begin\{.?(?:matrix|array)').search),
  ('set', re.compile(r'\\\{|\\emptyset|\\varnothing|\\cup').search),
  (
    'equation or inequality',
    re.compile(r'[=<>≤≥]|\\(?:leq?|geq?|neq?|equiv|sim)(?![A-Za-z])').search,
  ),
  ('tuple or interval', re.compile(r'[(\[].*,.*[)\]]', re.DOTALL).fullmatch),
  ('words', re.compile(r'[A-Za-z\s.,\'-]*[A-Za-z]{2}[A-Za-z\s.,\'-]*').fullmatch),
  (
    'expression with variables',
    lambda a: re.search(
      r'[A-Za-z]|\\[A-Za-z]', re.sub(r'(?<![A-Za-z])[ei](?![A-Za-z])', '', re.sub(_NAMES, '', a))
    ),
  ),
  ('closed-form constant', re.compile(r'\d|\\pi|\\[A-Za-z]|[ei]').search),
)


def answer_type(answer: str) -> str:
  """What an answer looks like; a rough class for people, no verifier relies on it."""
  bare = answer.strip().strip('$').strip()
  bare = re.sub(r'^\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}$', r'\1', bare)
  return next((name for name, fits in _TYPES if fits(bare)), 'other')


def describe_problems(problems: Sequence[Problem]) -> dict[str, Any]:
  """Counts of answer types, the longest first, and of questions with something peculiar."""
  types = collections.Counter(answer_type(problem.answer) for problem in problems)
  difficulties = [d for problem in problems if isinstance(d := _difficulty(problem), int | float)]
  return {
    'num_problems': len(problems),
    'answer_types': dict(types.most_common()),
    'peculiar': {
      'question asks for \\boxed more than once': sum(
        problem.prompt.count('\\boxed') > 1 for problem in problems
      ),
      'difficulty below 0, i.e. unknown': sum(d < 0 for d in difficulties),
      'answer longer than 100 characters': sum(len(p.answer) > 100 for p in problems),
    },
    'difficulty': spread([d for d in difficulties if d >= 0]),
  }


def spread(values: Sequence[float]) -> dict[str, float] | None:
  """Mean, median, 99th percentile and maximum; None of nothing."""
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
