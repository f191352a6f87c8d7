r"""The verifier `math`: the last `\boxed{…}` of a response against the gold, by meaning.

From cheap to dear, and the first stage that can decide does:

1. the same text after `normalize` (never: both empty);
2. words: yes/true and no/false, one option letter, plain text;
3. numbers: exact integers and rationals; a decimal of at least six digits equals what it rounds;
4. relations: an equation is never equal to its right side alone, unless its left side is a name
   (`x = 5` and `5`) or a calculation (`\sqrt{4} = 2`);
5. `guards`: what could explode is wrong from here on;
6. `forms`: expressions, lists and relations, by their values at random points (milliseconds);
7. math-verify (on sympy): sets, intervals, tuples, matrices, algebra.

Units and currency: ignored when one side has none; when both name one, the names must agree, and
a percent sign may be left out or carried out (28 %, 28, 0.28). math-verify parses LaTeX with its
own grammar; nothing here evaluates text. It has no deadline of its own: the pool sets one.
"""

from __future__ import annotations

import functools
import logging
import re
from fractions import Fraction

from ds_jax.types import Verdict
from ds_jax.verify import extract, forms, guards
from ds_jax.verify.normalize import join_thousands, normalize, parse_rational, split_unit, squeeze

_TRUE, _FALSE = ('yes', 'true'), ('no', 'false')
# A letter, in brackets or not, and its option behind it: (B), B. 25.
_OPTION = re.compile(r'\(?\s*([A-Z])\s*\)?(?:[.:)]\s.{0,200})?')
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_TEXT = re.compile(r'\\text\s*\{([^{}]*)\}')
_DOTS = re.compile(r'\\[lcv]?dots|\.\.\.')
_QUANTIFIER = re.compile(r'\\(?:forall|exists)|\\in\s*\\mathbb')
# Signs between two sides; = and \approx alone say that the right side is the value.
_RELATION = re.compile(r'(?<![<>!:\\])=|<|>|\\(?:leq|geq|neq|approx|equiv|sim)(?![a-z])|!=')
_EQUALS = re.compile(r'(?<![<>!:\\])=(?!=)|\\approx(?![a-z])')
_INTERVAL = re.compile(r'\\infty|[\[(].*,.*[\])]')
_BETWEEN_EQUATIONS = re.compile(r'[,;]\s*(?=[^,;]*=)|\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b')
_FREE_LETTER = re.compile(r'(?<!\\)\b[A-Za-z]')
_PERCENT = re.compile(r'(.*?)\s*(?:\\?%|\\?(?:text\{)?\s*(?:percent|percentage|pct)\}?)')
_ROUNDED_PLACES = 6  # behind the point of a decimal that may be rounded
_MEMBERSHIP = re.compile(r'[A-Za-z]\s*\\in\s*(?=[\[({\\])')


def verify(gold: str, response: str) -> Verdict:
  r"""Grades a response by its last box.

  Args:
    gold: the answer, bare, in `$…$` or boxed.
    response: the response text (never the prompt).

  Returns:
    NO_ANSWER without a balanced, non-empty last box; else CORRECT or WRONG.
  """
  answer = extract.last_boxed(response)
  if not answer:
    return Verdict.NO_ANSWER
  bare_gold = extract.last_boxed(gold) or gold
  return Verdict.CORRECT if is_equal(bare_gold, answer) else Verdict.WRONG


def verify_bare(gold: str, prediction: str) -> Verdict:
  """Like `verify`, for predictions that need not be boxed (`extract.final_answer`)."""
  answer = extract.final_answer(prediction)
  if not answer:
    return Verdict.NO_ANSWER
  is_long = len(gold) > extract.MAX_ANSWER
  if is_long or not _is_same_text(_spelling(gold), _spelling(answer)):
    gold = extract.final_answer(gold)  # else it is a bare answer, as in "Player 2"
  return Verdict.CORRECT if is_equal(gold, answer) else Verdict.WRONG


def is_equal(gold: str, answer: str) -> bool:
  """Whether two bare answers mean the same; False if either is empty."""
  if max(len(gold), len(answer)) > extract.MAX_ANSWER:
    return False
  gold, answer = _spelling(gold), _spelling(answer)
  if not gold or not answer:
    return False
  if _is_same_text(gold, answer):
    return True
  for stage in (_compare_words, _compare_numbers, _compare_as_text_only):
    decision = stage(gold, answer)
    if decision is not None:
      return decision
  if guards.excess(gold) or guards.excess(answer):
    return False
  gold, answer = _without_units(gold, answer)
  decision = forms.decide(gold, answer)
  return _compare_algebra(gold, answer) if decision is None else decision


def _spelling(answer: str) -> str:
  return join_thousands(normalize(answer))


def _is_same_text(gold: str, answer: str) -> bool:
  return squeeze(gold) == squeeze(answer)


def _compare_words(gold: str, answer: str) -> bool | None:
  """Decides words against words and options against options; None: not words."""
  gold_words = _TEXT.sub(r'\1', gold).strip()
  answer_words = _TEXT.sub(r'\1', answer).strip()
  truth = _truth(gold_words)
  if truth is not None:
    return _truth(answer_words) is truth
  gold_option = _OPTION.fullmatch(gold_words)
  answer_option = _OPTION.fullmatch(answer_words)
  if gold_option and answer_option:
    return gold_option[1] == answer_option[1]
  has_text = '\\text' in gold or '\\text' in answer
  is_prose = has_text or _reads_as_prose(gold_words)
  if is_prose and _WORDS.fullmatch(gold_words) and _WORDS.fullmatch(answer_words):
    return gold_words.casefold().split() == answer_words.casefold().split()
  return None


def _reads_as_prose(words: str) -> bool:
  """Whether the longest word has more than 3 letters, or the second longest more than 2."""
  lengths = sorted(map(len, words.split()), reverse=True)
  return any(length > limit for length, limit in zip(lengths, (3, 2), strict=False))


def _truth(words: str) -> bool | None:
  """What yes, no, true and false say; None for other words."""
  word = words.strip(' .!').casefold()
  if word in _TRUE:
    return True
  return False if word in _FALSE else None


def _compare_numbers(gold: str, answer: str) -> bool | None:
  """Decides when both sides are rational numbers, with or without a unit."""
  gold_number, gold_unit = _number_and_unit(gold)
  answer_number, answer_unit = _number_and_unit(answer)
  gold_value, answer_value = parse_rational(gold_number), parse_rational(answer_number)
  if gold_value is None or answer_value is None:
    return None
  if gold_unit and answer_unit and gold_unit != answer_unit:
    return False
  if gold_value == answer_value:
    return True
  # One side alone has a percent sign: left out (28 % and 28) or carried out (28 % and 0.28).
  if gold_unit != answer_unit and '%' in (gold_unit, answer_unit):
    gold_scaled = gold_value / 100 if gold_unit else gold_value
    answer_scaled = answer_value / 100 if answer_unit else answer_value
    return gold_scaled == answer_scaled
  num_places = [len(number.partition('.')[2]) for number in (gold_number, answer_number)]
  return max(num_places) >= _ROUNDED_PLACES and _rounds_to(gold_value, answer_value)


def _number_and_unit(text: str) -> tuple[str, str]:
  """A number with '%' or its unit ('' where there is none)."""
  percent = _PERCENT.fullmatch(text)
  if percent:
    return percent[1], '%'
  value, unit = split_unit(text)
  return join_thousands(value), unit


def _rounds_to(gold: Fraction, answer: Fraction) -> bool:
  """Whether two numbers agree in six decimals and five digits, as 0.333333 and 1/3; no integers."""
  if 1 in (gold.denominator, answer.denominator):
    return False
  difference = abs(gold - answer)
  return difference <= Fraction(1, 10**_ROUNDED_PLACES) and difference <= abs(gold) / 10**5


def _compare_as_text_only(gold: str, answer: str) -> bool | None:
  """Decides against what an algebra system would misread: ellipses, quantifiers, half relations.

  A half relation is one between a relation and something that is none.
  """
  if _DOTS.search(gold) or _DOTS.search(answer):
    return False
  if bool(_QUANTIFIER.search(gold)) != bool(_QUANTIFIER.search(answer)):
    return False
  is_gold_related, is_answer_related = map(bool, map(_RELATION.search, (gold, answer)))
  if is_gold_related == is_answer_related:
    return None
  related, other = (gold, answer) if is_gold_related else (answer, gold)
  if _EQUALS.search(related):
    return None if _is_assignment(related) else False
  # x > 3 against the interval (3, oo) is for the algebra; against anything else it is wrong.
  return None if _INTERVAL.search(other) else False


def _is_assignment(text: str) -> bool:
  """Whether every equation in a list has a name or a calculation without letters on its left."""
  if forms.is_name(_left_side(text)):
    return True  # (p, q) = (3, 2) too, which holds a comma
  for part in _BETWEEN_EQUATIONS.split(text):
    if _EQUALS.search(part):
      left = _left_side(part).strip(' $')
      if not forms.is_name(left) and _FREE_LETTER.search(left):
        return False
  return True


def _left_side(equation: str) -> str:
  return squeeze(_EQUALS.split(equation)[0])


def _without_units(gold: str, answer: str) -> tuple[str, str]:
  """Drops units where at most one side has one or both have the same."""
  gold_value, gold_unit = split_unit(gold)
  answer_value, answer_unit = split_unit(answer)
  if gold_unit and answer_unit and gold_unit != answer_unit:
    return gold, answer
  # `x \in [0, 1]` against a bare interval: the membership goes.
  if bool(_MEMBERSHIP.match(gold)) != bool(_MEMBERSHIP.match(answer)):
    gold_value = _MEMBERSHIP.sub('', gold_value, count=1)
    answer_value = _MEMBERSHIP.sub('', answer_value, count=1)
  return gold_value, answer_value


def _compare_algebra(gold: str, answer: str) -> bool:
  """Asks math-verify, gold first: it is not symmetric."""
  engine = _engine()
  parsed = [engine.parse(text) for text in (gold, answer)]
  return all(parsed) and engine.verify(*parsed)


class _Engine:
  """math-verify with LaTeX parsing only (its other parser evaluates) and no deadlines."""

  def __init__(self):
    import math_verify

    logging.getLogger('math_verify').setLevel(logging.ERROR)  # it warns that deadlines are off
    logging.getLogger('latex2sympy2_extended').setLevel(logging.ERROR)
    self._math_verify = math_verify
    self._latex = (math_verify.LatexExtractionConfig(boxed_match_priority=0),)

  def parse(self, text: str) -> list:
    return self._math_verify.parse(
      rf'\boxed{{{text}}}', extraction_config=self._latex, parsing_timeout=None
    )

  def verify(self, gold: list, answer: list) -> bool:
    return self._math_verify.verify(gold, answer, timeout_seconds=None)


@functools.cache
def _engine() -> _Engine:
  return _Engine()


def warm_up() -> None:
  """Imports sympy and builds the parser's tables, so that no answer's deadline pays for them."""
  _compare_algebra(r'\frac{x^2-1}{x-1}', 'x+1')
  _compare_algebra(r'\{1,2\}', r'(1,\sqrt{2}]')
