r"""The verifier `released`: the verdicts of the released DeepSearch grader, mistakes included.

For repeating the paper's runs; `math` is the verifier to learn with. The rule: the last `\boxed{`
in the last 300 characters, and then equality of strings under the normalization that was published
with Minerva (Lewkowycz et al. 2022). It calls `x = 5` and `y = 5` equal, `1/2` and `\frac{1}{2}`
different, and two empty answers equal.
"""

from __future__ import annotations

import re

from ds_jax.types import Verdict
from ds_jax.verify.brackets import closing_index

TAIL = 300  # characters read, from the end
INVALID = '[INVALID]'  # what stands for a missing answer, in comparisons too
_BOX = '\\boxed{'

# In order: later entries see what earlier ones left.
_REPLACED = (
  ('an ', ''),
  ('a ', ''),
  ('.$', '$'),
  ('\\$', ''),
  ('\\ ', ''),
  (' ', ''),
  ('mbox', 'text'),
  (',\\text{and}', ','),
  ('\\text{and}', ','),
  ('\\text{m}', '\\text{}'),
)
_WORDS = (
  'square ways integers dollars mph inches hours km units \\ldots sue points feet minutes '
  'digits cents degrees cm gm pounds meters meals edges students childrentickets '
  'multiples'
).split()
_REMOVED = (
  *_WORDS,
  '\\text{s}',
  '\\text{.}',
  '\\text{\ns}',
  '\\text{}^2',
  '\\text{}^3',
  '\\text{\n}',
  '\\text{}',
  '\\mathrm{th}',
  '^\\circ',
  '^{\\circ}',
  '\\;',
  ',\\!',
  '{,}',
  '"',
  '\\dots',
)
_PATTERNS = (
  (re.compile(r'.*?\$(.*?)\$.*'), r'$\1$'),  # the first pair of dollars of a line
  (re.compile(r'\\text\{(.*?)\}'), r'\1'),
  (re.compile(r'\\textbf\{(.*?)\}'), r'\1'),
  (re.compile(r'\\overline\{(.*?)\}'), r'\1'),
  (re.compile(r'\\boxed\{(.*)\}'), r'\1'),
  (re.compile(r'frac([^{])(.)'), r'frac{\1}{\2}'),
  (re.compile(r'sqrt([^{])'), r'sqrt{\1}'),
)


def verify(gold: str, response: str) -> Verdict:
  """Grades a response as the released code does.

  Args:
    gold: the bare answer; a box around it is unwrapped by the normalization.
    response: the response text; only its last TAIL characters count.

  Returns:
    CORRECT, WRONG, or NO_ANSWER without a balanced last box (unless the gold is INVALID itself).
  """
  answer, gold = parse_response(response), normalize(gold)
  if answer == gold:
    return Verdict.CORRECT
  return Verdict.NO_ANSWER if answer == INVALID else Verdict.WRONG


def verify_bare(gold: str, prediction: str) -> Verdict:
  """Like `verify`, for predictions that may be the bare answer."""
  return verify(gold, boxed(prediction))


def boxed(prediction: str) -> str:
  """The prediction as it is if it holds a box, else in one."""
  return prediction if _BOX in prediction else f'{_BOX}{prediction}}}'


def parse_response(response: str) -> str:
  """The normalized answer of a response, or INVALID."""
  tail = response[-TAIL:]
  start = tail.rfind(_BOX)
  if start < 0:
    return INVALID
  begin = start + len(_BOX)
  end = closing_index(tail, begin - 1, '{', '}')  # escaped braces count, as released
  return INVALID if end is None else normalize(tail[begin:end])


def normalize(answer: str) -> str:
  """Minerva's spelling of an answer: what follows its last `=`, without units and layout."""
  answer = answer.rpartition('=')[2]
  for before, after in _REPLACED:
    answer = answer.replace(before, after)
  for word in _REMOVED:
    answer = answer.replace(word, '')
  for pattern, replacement in _PATTERNS:
    answer = pattern.sub(replacement, answer)
  answer = answer.replace('$', '')
  digits = answer.replace(',', '')
  return (digits if digits.isdigit() else answer).strip()
