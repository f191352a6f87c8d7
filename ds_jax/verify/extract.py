r"""Finds the answer in a response. Everything here is linear in the text and bounded in length.

Responses are hostile text: nothing is evaluated, and no pattern can backtrack over more than a few
characters.
"""

from __future__ import annotations

import collections
import re

from ds_jax.verify.brackets import closing_index

MAX_RESPONSE = 1_000_000  # characters read, from the end
MAX_ANSWER = 10_000  # characters of one answer; a longer one is none
_MAX_BOXES = 30  # that can form one list
_MAX_GAP = 40  # characters between two boxes of a list

# A \boxed without a brace is a mention of the command ("put it in \boxed"), not an answer.
_BOX = re.compile(r'\\(?:boxed|fbox)\s{0,8}\{')
_BOX_OR_NUMERAL = re.compile(r'\\(?:boxed|fbox)\s{0,8}(?:\{|(?P<numeral>-?\d+(?:\.\d+)?))')
_ESCAPED = re.compile(r'\\.', re.DOTALL)  # an escaped brace, as in \{1,2\}, is a character
_BETWEEN_BOXES = re.compile(r'(?:[\s,;$]|\\quad|\\text\{|\}|and|or|\\[\[\]()])*')
# Formulas between $$…$$, $…$, \[…\] and \(…\).
_MATH = re.compile(
  r'\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\[((?:[^\\]|\\[^\]\\])+)\\\]'
  r'|\\\(((?:[^\\]|\\[^)\\])+)\\\)'
)
# "Answer is", "answer:", "equals", and the mark in front of GSM8K's answers.
_ANNOUNCED = re.compile(r'(?i)answer(?:\s+is)?\s{0,4}:?\s{0,4}|equals\s{0,4}:?\s{0,4}|####\s{0,4}')
_BOLD = re.compile(r'\*\*([^*\n]{1,200})\*\*')
_TAIL = re.compile(r'I hope it is correct|<\|')
# Integers with or without thousands separators, decimals and fractions of integers.
_NUMBER = re.compile(
  r'(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?'
  r'|(?<![\w.])[-+]?\.\d+'
)
_PROSE = re.compile(r'(?<![\\A-Za-z])[A-Za-z][a-z]{2,}')
_CONJUNCTION = re.compile(r'\b(?:and|or)\b')
_FORMULA_SIGN = re.compile(r'[=^*/()\[\]{}<>|]|\d\s*[+-]')


def last_boxed(text: str) -> str | None:
  r"""The content of the last `\boxed{…}` or `\fbox{…}`; None if it is missing or unbalanced.

  An unbalanced last box (a response cut off inside it) is no answer, whatever stands before.

  Args:
    text: the response; only its last MAX_RESPONSE characters are read.

  Returns:
    The content, stripped; None as well if it is longer than MAX_ANSWER characters.
  """
  text = text[-MAX_RESPONSE:]
  boxes = _last_boxes(text, 1)
  if not boxes:
    return None
  end = _closing_brace(text, boxes[0])
  return None if end is None else text[boxes[0].end() : end].strip()


def last_closed_box(text: str) -> str | None:
  r"""The content of the last `\boxed{…}` or `\fbox{…}` whose braces balance; None without one.

  For worked solutions and gold answers, which are whole: an unbalanced box is a slip there, and the
  box before it holds the answer. Of a response `last_boxed` reads the answer.

  Args:
    text: a solution; its last boxes are tried only, as many as can form one list.

  Returns:
    The content, stripped; boxes of more than MAX_ANSWER characters are passed over.
  """
  for box in reversed(_last_boxes(text, _MAX_BOXES)):
    end = _closing_brace(text, box)
    if end is not None:
      return text[box.end() : end].strip()
  return None


def _last_boxes(text: str, count: int) -> list[re.Match]:
  """Where the last `count` boxes open, in order."""
  return list(collections.deque(_BOX.finditer(text), maxlen=count))


def _closing_brace(text: str, box: re.Match) -> int | None:
  """Where the brace of a box closes, if within MAX_ANSWER characters."""
  # From the brace itself to the first character beyond the longest answer.
  brace = box.end() - 1
  nearby = text[brace : brace + MAX_ANSWER + 2]
  length = closing_index(_ESCAPED.sub('  ', nearby), 0, '{', '}')
  return None if length is None else brace + length


def boxed_answer(text: str) -> str | None:
  r"""The last box that holds something, with those joined to it: `\boxed{2}, \boxed{3}` is '2, 3'.

  Thoughts do not count: only what follows the last `</think>` is read, and a `<think>` that is
  never closed has no answer behind it. An empty box is a mention of the command where a full one
  stands before it. `\boxed 5` is a box. An unbalanced last box is no answer.

  Args:
    text: a response; only its last MAX_RESPONSE characters are read.

  Returns:
    The content, stripped; '' where all boxes are empty; None where there is no answer.
  """
  text = _without_thoughts(text[-MAX_RESPONSE:])
  contents: list[str] = []
  previous_end: int | None = None
  is_cut_off = True  # also where there is no box
  for box in collections.deque(_BOX_OR_NUMERAL.finditer(text), maxlen=_MAX_BOXES):
    if previous_end is not None and box.start() < previous_end:
      continue  # a box within a box
    end = box.end() if box['numeral'] else _closing_brace(text, box)
    is_cut_off = end is None
    if is_cut_off:  # a list ends here, and an answer cut off is none
      contents, previous_end = [], None
      continue
    content = box['numeral'] or text[box.end() : end].strip()
    if not content:
      continue
    if previous_end is None or not _joins_boxes(text[previous_end : box.start()]):
      contents = []
    contents.append(content)
    previous_end = end if box['numeral'] else end + 1
  if not contents:
    return None if is_cut_off else ''
  return contents[0] if len(set(contents)) == 1 else ', '.join(contents)


def _joins_boxes(gap: str) -> bool:
  return len(gap) < _MAX_GAP and _BETWEEN_BOXES.fullmatch(gap) is not None


def _without_thoughts(text: str) -> str:
  """What follows the last `</think>`; nothing if a `<think>` stays open."""
  answer = text.rpartition('</think>')[2]
  return answer.partition('<think>')[0]


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
  if _BOX_OR_NUMERAL.search(text):
    return boxed_answer(text) or ''
  text = _TAIL.split(_without_thoughts(text), maxsplit=1)[0].strip()
  answer_start = 0
  for announcement in _ANNOUNCED.finditer(text):
    if announcement.end() < len(text):
      answer_start = announcement.end()
  text = text[answer_start:][:MAX_ANSWER].strip()
  if answer_start and (bold := _BOLD.match(text)):
    return bold[1].strip()
  if answer_start:
    text = text.lstrip('* ')  # **Answer:** 5
  around_formulas = _MATH.sub(' ', text)
  formulas = [match[match.lastindex] for match in _MATH.finditer(text)]
  has_words = _PROSE.search(_CONJUNCTION.sub('', around_formulas)) is not None
  if formulas and _is_last_formula_the_answer(formulas, around_formulas, has_words):
    return formulas[-1].strip()
  numbers = _NUMBER.findall(around_formulas)
  if numbers and has_words and not is_gold and _is_prose(around_formulas):
    return numbers[-1]
  return text


def last_number(text: str) -> str:
  """The last number of a response: '1,200' of 'so she pays $1,200 a month.'; '' without one.

  For models too small to box their answers. What stands before `</think>` is not read.

  Args:
    text: a response; only its last MAX_RESPONSE characters are read.
  """
  numbers = collections.deque(_NUMBER.finditer(_without_thoughts(text[-MAX_RESPONSE:])), maxlen=1)
  return numbers[0][0][:MAX_ANSWER] if numbers else ''


def _is_last_formula_the_answer(formulas: list[str], around_formulas: str, has_words: bool) -> bool:
  """Whether a text is one formula alone, or prose without a number in its last line."""
  if len(formulas) == 1 and not around_formulas.strip(' .'):
    return True
  last_line = around_formulas.rpartition('\n')[2]
  return has_words and not _NUMBER.search(last_line)


def _is_prose(text: str) -> bool:
  """Whether a text holds words and numbers but no formula: 'so it is 1,000.99m²', '33 eggs.'."""
  return ' ' in text and not _FORMULA_SIGN.search(text)
