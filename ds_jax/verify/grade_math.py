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
_OPTION = re.compile(r'\(?\s*([A-Z])\s*\)?(?:[.:)]\s.{0,200})?')
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_TEXT = re.compile(r'\\text\s*\{([^{}]*)\}')
_DOTS = re.compile(r'\\[lcv]?dots|\.\.\.')
_QUANTIFIER = re.compile(r'\\(?:forall|exists)|\\in\s*\\mathbb')
_RELATION = re.compile(r'(?<![<>!:\\])=|<|>|\\(?:leq|geq|neq|approx|equiv|sim)(?![a-z])|!=')
_EQUALS = re.compile(r'(?<![<>!:\\])=(?!=)|\\approx(?![a-z])')
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
  return Verdict.CORRECT if is_equal(_bare_gold(gold), answer) else Verdict.WRONG


def verify_bare(gold: str, prediction: str) -> Verdict:
  """Like `verify`, for predictions that need not be boxed (`extract.final_answer`)."""
  answer = extract.final_answer(prediction)
  if not answer:
    return Verdict.NO_ANSWER
  if len(gold) > extract.MAX_ANSWER or squeeze(_spelling(gold)) != squeeze(_spelling(answer)):
    gold = extract.final_answer(gold)  # else it is a bare answer, as in "Player 2"
  return Verdict.CORRECT if is_equal(gold, answer) else Verdict.WRONG


def _bare_gold(gold: str) -> str:
  return extract.last_boxed(gold) or gold


def is_equal(gold: str, answer: str) -> bool:
  """Whether two bare answers mean the same; False if either is empty."""
  if max(len(gold), len(answer)) > extract.MAX_ANSWER:
    return False
  gold, answer = _spelling(gold), _spelling(answer)
  if not gold or not answer:
    return False
  if squeeze(gold) == squeeze(answer):
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


def _compare_words(gold: str, answer: str) -> bool | None:
  """Decides words against words and options against options; None: not words."""
  gold_words, answer_words = _TEXT.sub(r'\1', gold).strip(), _TEXT.sub(r'\1', answer).strip()
  truth = _truth(gold_words)
  if truth is not None:
    return _truth(answer_words) is truth
  option = _OPTION.fullmatch(gold_words)
  if option and _OPTION.fullmatch(answer_words):
    return _OPTION.fullmatch(answer_words)[1] == option[1]
  lengths = sorted(map(len, gold_words.split()))
  is_prose = '\\text' in gold or '\\text' in answer or lengths[-1:] > [3] or lengths[-2:-1] > [2]
  if is_prose and _WORDS.fullmatch(gold_words) and _WORDS.fullmatch(answer_words):
    return gold_words.casefold().split() == answer_words.casefold().split()
  return None


def _truth(words: str) -> bool | None:
  word = words.strip(' .!').casefold()
  return True if word in _TRUE else False if word in _FALSE else None


def _compare_numbers(gold: str, answer: str) -> bool | None:
  """Decides when both sides are rational numbers, with or without a unit."""
  (gold, gold_unit), (answer, answer_unit) = map(_number_and_unit, (gold, answer))
  gold_value, answer_value = parse_rational(gold), parse_rational(answer)
  if gold_value is None or answer_value is None:
    return None
  if '%' in (gold_unit, answer_unit) and gold_unit != answer_unit:
    if gold_unit and answer_unit:
      return False
    gold_scaled = gold_value / 100 if gold_unit else gold_value
    answer_scaled = answer_value / 100 if answer_unit else answer_value
    return gold_value == answer_value or gold_scaled == answer_scaled
  if gold_unit and answer_unit and gold_unit != answer_unit:
    return False
  return gold_value == answer_value or _rounds_to(gold, gold_value, answer, answer_value)


def _number_and_unit(text: str) -> tuple[str, str]:
  percent = re.fullmatch(r'(.*?)\s*(?:\\?%|\\?(?:text\{)?\s*(?:percent|percentage|pct)\}?)', text)
  if percent:
    return percent[1], '%'
  value, unit = split_unit(text)
  return join_thousands(value), unit


def _rounds_to(gold: str, gold_value: Fraction, answer: str, answer_value: Fraction) -> bool:
  """0.333333 is 1/3: one side has at least six digits behind the point, and they agree."""
  places = [len(text.partition('.')[2]) for text in (gold, answer)]
  if max(places) < 6 or 1 in (gold_value.denominator, answer_value.denominator):
    return False
  difference = abs(gold_value - answer_value)
  return difference <= Fraction(1, 10**6) and difference <= abs(gold_value) / 10**5


def _compare_as_text_only(gold: str, answer: str) -> bool | None:
  """Ellipses, quantifiers and half relations: what an algebra system would misread is wrong."""
  if any(_DOTS.search(text) for text in (gold, answer)):
    return False
  if bool(_QUANTIFIER.search(gold)) != bool(_QUANTIFIER.search(answer)):
    return False
  has_relation = [bool(_RELATION.search(text)) for text in (gold, answer)]
  if has_relation[0] == has_relation[1]:
    return None
  related = gold if has_relation[0] else answer
  other = answer if has_relation[0] else gold
  if not _EQUALS.search(related):
    # x > 3 against the interval (3, oo) is for the algebra; against anything else it is wrong.
    return None if re.search(r'\\infty|[\[(].*,.*[\])]', other) else False
  return None if _is_assignment(related) else False


def _is_assignment(text: str) -> bool:
  """Every equation in a list has a name or a calculation without letters on its left."""
  if forms.is_name(squeeze(_EQUALS.split(text)[0])):
    return True  # (p, q) = (3, 2) too, which holds a comma
  parts = re.split(r'[,;]\s*(?=[^,;]*=)|\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b', text)
  lefts = [squeeze(_EQUALS.split(part)[0]).strip(' $') for part in parts if _EQUALS.search(part)]
  return all(forms.is_name(left) or not re.search(r'(?<!\\)\b[A-Za-z]', left) for left in lefts)


def _without_units(gold: str, answer: str) -> tuple[str, str]:
  """Drops units where at most one side has one or both have the same."""
  (gold_value, gold_unit), (answer_value, answer_unit) = split_unit(gold), split_unit(answer)
  if gold_unit and answer_unit and gold_unit != answer_unit:
    return gold, answer
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
