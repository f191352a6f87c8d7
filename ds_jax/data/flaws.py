r"""Rows that are readable and yet cannot be trained on: the answer is missing, lost or ambiguous.

With a verifiable reward a wrong gold answer rewards wrong work, and one that no verifier can judge
rewards nothing. The rules, each with a count:

* `no_answer`: the answer holds no number, word, command or symbol, e.g. the lone `=` of DeepMath or
  an empty box; or it is `N/A`, `None`, `null`, `not found`, … or a dash, and the question does not
  ask for that (`write "none" if there are none`, `which sign`); or it is a JSON object, e.g. the
  tests of a program.
* `proof_or_reference`: `See solution`, `Proof omitted.`, `Answers may vary`.
* `unclear_box`: several boxes (`\boxed{5} or \boxed{6}`), or one that is never closed.
* `prose`: a sentence of six words or more that begins with a word and does not end in a value, or
  a whole worked solution. Short statements stay, and so does what there is or is not (`There are no
  integer solutions to …`): some questions ask for them.
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

import json
import re
from collections.abc import Iterable

from ds_jax.types import Gold, Problem

_NOTHING = re.compile(  # + and - may be asked for
  r'(?:[\s=.,;:?!*/|$_"\']|\[\s*\]|\\(?:boxed|fbox|text|mbox|mathrm)\s*\{\s*\})*'
)
# What stands around the words of an answer.
_WRAPPER = re.compile(r'\\(?:text|textbf|textit|mathrm|mbox|boxed|fbox)\s*\{|[{}]')
_DASH = re.compile(r'\s*[-\u2012-\u2015]+\s*')
_ASKS_FOR_SIGN = re.compile(r'(?i)\b(?:signs?|symbols?|operators?|operations?|plus|minus|charge)\b')
# None and null as programs write them; other spellings may be the answer of a person.
_NO_ANSWER = re.compile(
  r'None|null|NULL|(?i:n/a|n\.a\.|nan|not ?found|not available|not given|unknown|tbd|todo)'
)
_REFERENCE = re.compile(
  r"""
  (?:the\ |a\ |full\ |detailed\ )*
  (?: proof\b
    | (?:please\ )?(?:see|refer\ to)\ | cf\.\ | omitted\b | q\.?e\.?d\.?\W*$
    | left\ (?:to|as)\ (?:the|an?)\ (?:reader|exercise)
    | (?:shown|proved|proven|stated|given|described)\ (?:above|below|in\ the)
    | as\ (?:shown|proved|stated|given|above|below)\b
    | (?:we|to)\ (?:prove|show)\b
    | (?:solution|answer|detail)s?
      (?:\ is|\ are)?
      (?: \W*$ | \ (?:above|below|attached)\W*$ | \ omitted | \ not\ (?:given|provided|available)
        | \ in\ the\ (?:solution|text|book|appendix|explanation)
        | \ (?:may\ |will\ |can\ )?var(?:y|ies))
  )""",
  re.IGNORECASE | re.VERBOSE,
)
_BOX = re.compile(r'\\(?:boxed|fbox)(?![A-Za-z])')
_FORMULA = re.compile(r'\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]', re.DOTALL)
_COMMAND = re.compile(r'\\[A-Za-z]+')
_WORD = re.compile(r"[A-Za-z]{2,}(?:['-][A-Za-z]+)*")
_BEGINS_WITH_WORD = re.compile(r"[\s\"'*(]*(?!There\b)[A-Za-z][a-z']+(?=[\s,:;.])")
# "The answer is $5$", "There are 12 ways": a value at the end, which the verifier can read.
_ENDS_IN_VALUE = re.compile(
  r'\b(?:is|are|equals?|be|answer)\s*:?\s+'
  r'(?:\$[^$]*\$|\\\((?:(?!\\\)).)*\\\)|[-+]?[\d\\][^\sA-Za-z]*)'
  r'(?:\s+[A-Za-z]+)?\s*\.?\s*$',
  re.DOTALL,
)
# A sentence has one of these; a list of names has not.
_SENTENCE_WORDS = frozenset(
  'is are was were be been has have had can cannot could may must will would does do did holds '
  'hold exists exist follows follow implies means converges converge diverges diverge depends '
  'depend gives shows prove consider let suppose assume since because therefore hence thus we '
  'if'.split()
)
_SENTENCE = 6  # words of the shortest sentence that is prose; shorter ones may be asked for
_TEXT = 30  # words that no answer has, or half as many with a line break between them
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

_OF_ENTRY = {'question', 'answer'}  # fields of every entry of a gym

GOLD_FLAWS = ('no_answer', 'proof_or_reference', 'unclear_box', 'prose')  # the gold is no answer
FLAWS = (
  *GOLD_FLAWS,
  'letter_without_options',
  'control_characters',
  'repeated_question',
  'conflicting_answers',
)


def flaw_of(problem: Problem) -> str | None:
  """The flaw that a problem has by itself, if any."""
  if isinstance(problem.answer, Gold):  # no text to judge
    return None
  flaw = gold_flaw(problem.answer, problem.prompt)
  if flaw == 'no_answer':
    return flaw
  if _CONTROL.search(problem.prompt) or _CONTROL.search(problem.answer):
    return 'control_characters'
  letter = _LETTER.fullmatch(problem.answer)
  if letter is not None and not has_option(problem.prompt, letter[1]):
    return 'letter_without_options'
  return flaw


def gold_flaw(answer: str, question: str = '') -> str | None:
  """Why a gold is no answer: one of GOLD_FLAWS, or None.

  Args:
    answer: the gold.
    question: may ask for `none` or a sign, which then are answers.
  """
  bare_answer = _WRAPPER.sub('', answer).strip(' .$')
  if _NOTHING.fullmatch(answer) or _is_data(answer):
    return 'no_answer'
  if _DASH.fullmatch(bare_answer):
    return None if _ASKS_FOR_SIGN.search(question) else 'no_answer'
  if _is_missing(answer, bare_answer):
    is_asked_for = re.search(rf'(?i)\b{re.escape(bare_answer)}(?!\w)', question)
    return None if is_asked_for else 'no_answer'
  if _BOX.search(answer):
    return 'unclear_box'
  if _REFERENCE.match(bare_answer):
    return 'proof_or_reference'
  return 'prose' if _is_prose(answer) else None


def _is_missing(answer: str, bare_answer: str) -> bool:
  """Whether the answer stands for a missing one; `\\text{None}` is what people write."""
  if bare_answer == 'None' and '\\' in answer:
    return False
  return _NO_ANSWER.fullmatch(bare_answer) is not None


def _is_data(answer: str) -> bool:
  """Whether an answer is a JSON object, other than the entry of a gym, which `gym:TASK` reads."""
  if not answer.startswith('{"'):
    return False
  try:
    fields = json.loads(answer)
  except (ValueError, RecursionError):
    return False
  return isinstance(fields, dict) and not _OF_ENTRY <= set(fields)


def _is_prose(answer: str) -> bool:
  if answer.startswith('{"'):
    return False  # the entry of a reasoning gym
  text = _WRAPPER.sub(' ', answer)
  words = _WORD.findall(_COMMAND.sub(' ', _FORMULA.sub(' ', text)))
  longest = _TEXT // 2 if '\n' in answer else _TEXT
  if len(words) >= longest:
    return True
  if len(words) < _SENTENCE or not _BEGINS_WITH_WORD.match(text) or _ENDS_IN_VALUE.search(answer):
    return False
  return any(word.lower() in _SENTENCE_WORDS for word in words)


def has_option(text: str, letter: str) -> bool:
  """Whether a question labels at least two options, `letter` among them."""
  plain_text = _DELIMITER.sub(' ', text)
  labels = {match[match.lastindex].upper() for match in _OPTION.finditer(plain_text)}
  return letter in labels and len(labels) > 1


def _comparable(answer: str) -> str:
  """An answer as it is compared with others of the same question.

  A task of the gym scores any right answer, and its entry also says how hard it was to be: what it
  asks twice, with other options, is a repetition.
  """
  if isinstance(answer, Gold) and answer.verifier.startswith('gym:'):
    return answer.verifier.partition('?')[0]
  return ''.join(answer.split()).casefold()


def flaws_between(problems: Iterable[Problem]) -> dict[int, str]:
  """Returns {index: flaw} of the problems that repeat or contradict one another."""
  # {question: {answer: indices of the problems}}
  answers_of: dict[str, dict[str, list[int]]] = {}
  for i, problem in enumerate(problems):
    question = ' '.join(problem.prompt.split())
    answer = _comparable(problem.answer)
    answers_of.setdefault(question, {}).setdefault(answer, []).append(i)
  flaws: dict[int, str] = {}
  for answers in answers_of.values():
    for indices in answers.values():
      if len(answers) > 1:
        flaws |= dict.fromkeys(indices, 'conflicting_answers')
      else:
        flaws |= dict.fromkeys(indices[1:], 'repeated_question')
  return flaws
