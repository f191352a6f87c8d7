r"""Rows that are readable and yet cannot be trained on: the answer is missing, lost or ambiguous.

With a verifiable reward a wrong gold answer rewards wrong work. The rules, each with a count:

* `no_answer`: the answer holds no number, word, command or symbol, e.g. the lone `=` of DeepMath.
* `letter_without_options`: the answer is a bare letter A–E and the question does not label options
  with it: that letter and another one as (A), [A], A), A.), A. or A:. Most are true/false questions
  whose options were lost, some have numbers or dashes for labels; the right answer in words would
  be graded wrong. A few whose answer is a symbol of the question go with them.
* `control_characters`: the question or answer was decoded once too often, and `\theta` became a
  tab and "heta".
* `repeated_question`: the question of an earlier row with the same answer (case and spaces aside);
  the first is kept.
* `conflicting_answers`: the question occurs with different answers; none of them is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ds_jax.types import Problem

_NOTHING = re.compile(r'[\s=.,;:?!*/|$_]*')  # + and - may be asked for
_LETTER = re.compile(r'\$?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\(?\s*([A-E])\s*\)?\}?\$?\.?')
# What stands around formulas, and line ends that were written out.
_DELIMITER = re.compile(
  r'\\[()\[\],]|\\n(?![a-z])|\\q?quad|\$'
  r'|\\(?:mathrm|mathbf|text|textbf)\{(?=[A-E]\})|(?<=\{[A-E])\}'
)
_OPTION = re.compile(
  r'(?<![\w\\()\[\]^_])(?:\(\s*([A-Ea-e])\s*\)|\[\s*([A-E])\s*\]'
  r'|([A-Ea-e])\.?\)|([A-E])[.:](?=[\s}\\]))'
)
# Controls that no text has, and the letters that follow what \t, \r, \n, \b and \f were read as.
_CONTROL = re.compile(
  r'[\x00-\x07\x0b\x0e-\x1f\x7f-\x9f]|[\x08\x0c]'
  r'|\t(?=heta|ext|imes|an\b|anh|au\b|frac|ilde|riangle|o\b|op\b|herefore)'
  r'|\r(?=ho\b|ight|angle|floor|ceil|m\{)|\n(?=abla|eq\b|otin|mid)'
)

FLAWS = (
  'no_answer',
  'letter_without_options',
  'control_characters',
  'repeated_question',
  'conflicting_answers',
)


def flaw_of(problem: Problem) -> str | None:
  """The flaw that a problem has by itself, if any."""
  if _NOTHING.fullmatch(problem.answer):
    return 'no_answer'
  if _CONTROL.search(problem.prompt) or _CONTROL.search(problem.answer):
    return 'control_characters'
  letter = _LETTER.fullmatch(problem.answer)
  if letter is not None and not has_option(problem.prompt, letter[1]):
    return 'letter_without_options'
  return None


def has_option(text: str, letter: str) -> bool:
  """Whether a question labels at least two options, `letter` among them."""
  plain_text = _DELIMITER.sub(' ', text)
  labels = {match[match.lastindex].upper() for match in _OPTION.finditer(plain_text)}
  return letter in labels and len(labels) > 1


def flaws_between(problems: Iterable[Problem]) -> dict[int, str]:
  """Returns {index: flaw} of the problems that repeat or contradict one another."""
  # {question: {answer: indices of the problems}}
  answers_of: dict[str, dict[str, list[int]]] = {}
  for i, problem in enumerate(problems):
    question = ' '.join(problem.prompt.split())
    answer = ''.join(problem.answer.split()).casefold()
    answers_of.setdefault(question, {}).setdefault(answer, []).append(i)
  flaws: dict[int, str] = {}
  for answers in answers_of.values():
    for indices in answers.values():
      if len(answers) > 1:
        flaws |= dict.fromkeys(indices, 'conflicting_answers')
      else:
        flaws |= dict.fromkeys(indices[1:], 'repeated_question')
  return flaws
