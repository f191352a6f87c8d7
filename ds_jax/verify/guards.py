r"""Bounds that an answer must keep before a computer algebra system may see it.

`2^{2^{100}}`, `(10^8)!` or ten thousand braces cost a grader minutes and gigabytes. The bounds
lie far beyond answers that people write; what breaks them is compared as text only. They read
numerals, and compute nothing larger than the bounds themselves.
"""

from __future__ import annotations

import re

from ds_jax.verify.brackets import closing_index, depths

MAX_LENGTH = 1500  # characters
MAX_DEPTH = 25  # nested brackets
MAX_DIGITS = 200  # of one numeral
MAX_EXPONENT = 5000
MAX_GROUP_EXPONENT = 60  # of (x + y + z)^n, which may be expanded
MAX_FACTORIAL = 1000
MAX_SUM_BOUND = 1000  # of \sum and \prod
MAX_CELLS = 100  # of a matrix
MAX_COMMANDS = 150

_NUMERAL = re.compile(r'\d+')
_SMALL_POWER = re.compile(r'(\d+)\s*\^\s*(?:\{\s*(\d+)\s*\}|(\d))|\{\s*(\d+)\s*\}|\(\s*(\d+)\s*\)')
_FACTORIAL = re.compile(r'(\d+|\S)\s*!')
_POWER = re.compile(r'(\S)?\s*(?:\^|\*\*)\s*')
_BARE_EXPONENT = re.compile(r'-?(?:\d+|\\?[A-Za-z]+)?(?:\s*(?:\^|\*\*)\s*-?[\d{(][^+*,=\s]*)*')
_POWER_LEFT = re.compile(r'\d\s*\^|\^\s*\{?\s*\d{3}')
_PRODUCT = re.compile(r'\\times|\\cdot|\*')
_BINOMIAL = re.compile(r'\\binom|\\choose|\bnCr|binom|\bC_|\bP_')
_NUMERAL_POWER = re.compile(r'\d\s*\^')
_SUM = re.compile(r'\\(?:sum|prod)(?![a-z])')
# A bracket that holds at most one level of others, and its factorial sign: (10^8)!, (9!)!.
_BRACKET_FACTORIAL = re.compile(r'[({]([^(){}]*(?:[({][^(){}]*[)}][^(){}]*)*)[)}]\s*!')
_LETTER = re.compile(r'[A-Za-z]')
_GROWING = re.compile(r'[\^!*]|\d{4}')

_TOO_LARGE = 10 * MAX_EXPONENT  # stands for every number beyond the bounds
_MAX_TOWER = 4  # powers of powers that are computed
_MAX_COMPUTED_EXPONENT = 20


def excess(text: str) -> str | None:
  """Names the first bound that `text` breaks; None if it keeps all of them."""
  if len(text) > MAX_LENGTH:
    return 'length'
  if max(depths(text), default=0) > MAX_DEPTH:
    return 'nesting'
  numerals = _NUMERAL.findall(text)
  if max(map(len, numerals), default=0) > MAX_DIGITS:
    return 'digits'
  if text.count('&') + text.count('\\\\') > MAX_CELLS or text.count('\\') > MAX_COMMANDS:
    return 'size'
  if _is_large_power(text):
    return 'exponent'
  if any(_is_large_factorial(match[1]) for match in _FACTORIAL.finditer(text)):
    return 'factorial'
  largest = max(map(int, numerals), default=0)
  has_power = _NUMERAL_POWER.search(text) is not None
  if _BINOMIAL.search(text) and (has_power or largest > MAX_FACTORIAL):
    return 'binomial'
  if _SUM.search(text) and largest > MAX_SUM_BOUND:
    return 'sum'
  return None


def _is_large_factorial(operand: str) -> bool:
  """Whether n! has a large n, or is the factorial of a factorial."""
  return operand == '!' or (operand.isdigit() and int(operand) > MAX_FACTORIAL)


def _is_large_power(text: str) -> bool:
  """Whether a power has a large exponent, or a factorial a bracket that may come to much."""
  for match in _POWER.finditer(text):
    bound = _numeric_bound(_exponent(text, match.end()))
    limit = MAX_GROUP_EXPONENT if match[1] in (')', '}', ']') else MAX_EXPONENT
    if bound is None or bound > limit:
      return True
  return any(map(_is_large_number, _BRACKET_FACTORIAL.findall(text)))


def _is_large_number(group: str) -> bool:
  """Whether a bracket holds no letters, and an operation or a long numeral: 10^8, 9!, 12345."""
  return not _LETTER.search(group) and _GROWING.search(group) is not None


def _exponent(text: str, begin: int) -> str:
  """The exponent that starts at `begin`: a bracket with its content, or a run of characters."""
  if not text.startswith(('{', '('), begin):
    return _BARE_EXPONENT.match(text, begin)[0]
  end = closing_index(text, begin, '({', ')}')
  return text[begin:] if end is None else text[begin : end + 1]


def _numeric_bound(exponent: str) -> int | None:
  """The largest numeral in an exponent once its powers are computed; None: beyond all bounds.

  `2^{2^{3}}` has the exponent 8. Powers of powers, factorials, and products are bounded too.
  """
  exponent = exponent.replace('**', '^')
  if '!' in exponent and _NUMERAL.search(exponent):
    return None
  # Each pass computes the innermost powers and takes the brackets off single numerals.
  for _ in range(_MAX_TOWER):
    replaced = _SMALL_POWER.sub(_bounded_power, exponent)
    if replaced == exponent:
      break
    exponent = replaced
  if _POWER_LEFT.search(exponent):
    return None
  numerals = list(map(int, _NUMERAL.findall(exponent)))
  if not _PRODUCT.search(exponent):
    return max(numerals, default=0)
  product = 1
  for factor in numerals:
    product = min(product * max(factor, 1), _TOO_LARGE)
  return product


def _bounded_power(match: re.Match) -> str:
  """The value of a power of two numerals, at most _TOO_LARGE; or a numeral without its bracket."""
  if match[1] is None:
    return f' {match[4] or match[5]} '
  base, exponent = int(match[1]), int(match[2] or match[3])
  if base <= 1:
    return f' {base} '
  if base > MAX_EXPONENT or exponent > _MAX_COMPUTED_EXPONENT:
    return f' {_TOO_LARGE} '
  return f' {min(base**exponent, _TOO_LARGE)} '
