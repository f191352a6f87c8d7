r"""Finds the answer in a response. Everything here is linear in the text and bounded in length.

Responses are hostile text: nothing is evaluated, and no pattern can backtrack over more than a few
characters.
"""

from __future__ import annotations

import collections
import re

MAX_RESPONSE = 1_000_000  # characters read, from the end
MAX_ANSWER = 10_000  # characters of one answer; a longer one is none
_MAX_BOXES = 30  # that can form one list

# A \boxed without a brace is a mention of the command ("put it in \boxed"), not an answer.
_BOX = re.compile(r'\\(?:boxed|fbox)\s{0,8}\{')
_ANY_BOX = re.compile(r'\\(?:boxed|fbox)\s{0,8}(?:\{|(-?\d+(?:\.\d+)?))')
_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)  # an escaped brace, as in \{1,2\}, is a character
_BETWEEN_BOXES = re.compile(r'(?:[\s,;$]|\\quad|\\text\{|\}|and|or|\\[\[\]()])*')
_MATH = re.compile(
  r'\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\[((?:[^\\]|\\[^\]\\])+)\\\]'
  r'|\\\(((?:[^\\]|\\[^)\\])+)\\\)'
)
_ANNOUNCED = re.compile(r'(?i)answer(?:\s+is)?\s{0,4}:?\s{0,4}|equals\s{0,4}:?\s{0,4}|####\s{0,4}')
_BOLD = re.compile(r'\*\*([^*\n]{1,200})\*\*')
_TAIL = re.compile(r'I hope it is correct|<\|')
_NUMBER = re.compile(
  r'(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?'
  r'|(?<![\w.])[-+]?\.\d+'
)
_PROSE = re.compile(r'(?<![\\A-Za-z])[A-Za-z][a-z]{2,}')


def last_boxed(text: str) -> str | None:
  r"""The content of the last `\boxed{…}` or `\fbox{…}`; None if it is missing or unbalanced.

  An unbalanced last box (a response cut off inside it) is no answer, whatever stands before.

  Args:
    text: the response; only its last MAX_RESPONSE characters are read.

  Returns:
    The content, stripped; None as well if it is longer than MAX_ANSWER characters.
  """
  text = text[-MAX_RESPONSE:]
  starts = collections.deque(_BOX.finditer(text), maxlen=1)
  if not starts:
    return None
  start = starts[0]
  end = _closing_brace(text, start.end())
  return None if end is None else text[start.end() : end].strip()


def _closing_brace(text: str, begin: int) -> int | None:
  """Where the brace opened just before `begin` closes, if within MAX_ANSWER characters."""
  depth = 1
  for match in _BRACE.finditer(text, begin, begin + MAX_ANSWER + 1):
    depth += {'{': 1, '}': -1}.get(match[0], 0)
    if not depth:
      return match.start()
  return None


def boxed_answer(text: str) -> str | None:
  r"""The last box that holds something, with those joined to it: `\boxed{2}, \boxed{3}` is '2, 3'.

  Thoughts do not count: only what follows the last `</think>` is read, and a `<think>` that is
  never closed has no answer behind it. An empty box is a mention of the command where a full one
  stands before it. `\boxed 5` is a box. An unbalanced last box is no answer.

  Args:
    text: a response; only its last MAX_RESPONSE characters are read.

  Returns:
    The content, stripped; '' for an empty box; None where there is no answer.
  """
  text = _without_thoughts(text[-MAX_RESPONSE:])
  contents: list[str] = []
  previous_end: int | None = None
  has_box = False
  for match in collections.deque(_ANY_BOX.finditer(text), maxlen=_MAX_BOXES):
    has_box = True
    is_braced = match[1] is None
    end = _closing_brace(text, match.end()) if is_braced else match.end()
    if end is None:
      contents, previous_end = [], None
      continue
    content = (text[match.end() : end] if is_braced else match[1]).strip()
    is_nested = previous_end is not None and match.start() < previous_end
    if not content or is_nested:
      continue
    gap = '' if previous_end is None else text[previous_end : match.start()]
    is_joined = previous_end is not None and len(gap) < 40 and _BETWEEN_BOXES.fullmatch(gap)
    contents = [*contents, content] if is_joined else [content]
    previous_end = end + is_braced
  if not contents:
    return '' if has_box and previous_end is None and _closing_is_last(text) else None
  return contents[0] if len(set(contents)) == 1 else ', '.join(contents)


def _closing_is_last(text: str) -> bool:
  """Whether the last box is balanced, though empty."""
  return last_boxed(text) == ''


def _without_thoughts(text: str) -> str:
  """What follows the last `</think>`; nothing if a `<think>` stays open."""
  _, closed, answer = text.rpartition('</think>')
  answer = answer if closed else text
  return answer.partition('<think>')[0] if '<think>' in answer else answer


def final_answer(text: str, *, is_gold: bool = False) -> str:
  r"""The answer in a prediction that need not be boxed: data rows, other people's outputs.

  Never used for rewards, where only a box counts. In order: the last box, with those joined to it
  (`boxed_answer`); what follows the last "answer is", "answer:"; the last formula, when there are
  words around it; the last number, likewise; the whole text.

  Args:
    text: a bare answer or a response.
    is_gold: whether it is the gold, which is no prose around a number (`July 4, 1776`).

  Returns:
    The answer, stripped; '' when the last box is unbalanced.
  """
  text = text[-MAX_RESPONSE:]
  if _ANY_BOX.search(text):
    return boxed_answer(text) or ''
  text = _TAIL.split(_without_thoughts(text), maxsplit=1)[0].strip()
  starts = [match.end() for match in _ANNOUNCED.finditer(text) if match.end() < len(text)]
  text = text[starts[-1] if starts else 0 :][:MAX_ANSWER].strip()
  if starts and (bold := _BOLD.match(text)):
    return bold[1].strip()
  outside = _MATH.sub(' ', text)
  formulas = [next(filter(None, groups)) for groups in _MATH.findall(text)]
  has_words = bool(_PROSE.search(re.sub(r'\b(?:and|or)\b', '', outside)))
  if (
    len(formulas) == 1
    and not outside.strip(' .')
    or (has_words and formulas and not _NUMBER.search(outside.rsplit('\n', 1)[-1]))
  ):
    return formulas[-1].strip()
  numbers = _NUMBER.findall(outside)
  if numbers and has_words and not is_gold and _is_prose(outside):
    return numbers[-1]
  return text


def _is_prose(text: str) -> bool:
  """Words and numbers, no formula: 'so it is 1,000.99m²', '33 eggs.'."""
  return ' ' in text and not re.search(r'[=^*/()\[\]{}<>|]|\d\s*[+-]', text)
