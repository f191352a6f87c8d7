r"""Bounds that an answer must keep before a computer algebra system may see it.

`2^{2^{100}}`, `(10^8)!` or ten thousand braces cost a grader minutes and gigabytes. The bounds
lie far beyond answers that people write; what breaks them is compared as text only. They read
numerals, and compute nothing larger than the bounds themselves.
"""

from __future__ import annotations

import re

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


def excess(text: str) -> str | None:
  """Names the first bound that `text` breaks; None if it keeps all of them."""
  if len(text) > MAX_LENGTH:
    return 'length'
  if _depth(text) > MAX_DEPTH:
    return 'nesting'
  if any(len(numeral) > MAX_DIGITS for numeral in _NUMERAL.findall(text)):
    return 'digits'
  if text.count('&') + text.count('\\\\') > MAX_CELLS or text.count('\\') > MAX_COMMANDS:
    return 'size'
  if _is_large_power(text):
    return 'exponent'
  if any(_is_large_factorial(match[1]) for match in _FACTORIAL.finditer(text)):
    return 'factorial'
  numerals = [int(numeral) for numeral in _NUMERAL.findall(text)]
  has_binomial = re.search(r'\\binom|\\choose|\bnCr|binom|\bC_|\bP_', text)
  has_power = re.search(r'\d\s*\^', text)
  if has_binomial and (has_power or max(numerals, default=0) > MAX_FACTORIAL):
    return 'binomial'
  if re.search(r'\\(?:sum|prod)(?![a-z])', text) and max(numerals, default=0) > MAX_SUM_BOUND:
    return 'sum'
  return None


def _depth(text: str) -> int:
  depth = deepest = 0
  for c in text:
    depth += (c in '({[') - (c in ')}]')
    deepest = max(deepest, depth)
  return deepest


def _is_large_factorial(operand: str) -> bool:
  """n! with a large n, of another factorial, or of a bracket without letters."""
  return operand == '!' or (operand.isdigit() and int(operand) > MAX_FACTORIAL)


def _is_large_power(text: str) -> bool:
  for match in _POWER.finditer(text):
    exponent = _operand(text, match.end())
    size = _numeric_bound(exponent)
    limit = MAX_GROUP_EXPONENT if match[1] in (')', '}', ']') else MAX_EXPONENT
    if size is None or size > limit:
      return True
  # (10^8)!, (9!)!: the factorial of a bracket that holds numerals and operators only.
  return any(
    not re.search(r'[A-Za-z]', group) and re.search(r'[\^!*]|\d{4}', group)
    for group in re.findall(r'[({]([^(){}]*(?:[({][^(){}]*[)}][^(){}]*)*)[)}]\s*!', text)
  )


def _operand(text: str, begin: int) -> str:
  """The exponent that starts at `begin`: a bracket with its content, or a run of characters."""
  if text[begin : begin + 1] not in ('{', '('):
    match = re.compile(r'-?(?:\d+|\\?[A-Za-z]+)?(?:\s*(?:\^|\*\*)\s*-?[\d{(][^+*,=\s]*)*').match(
      text, begin
    )
    return match[0] if match else ''
  depth = 0
  for i in range(begin, len(text)):
    depth += (text[i] in '({') - (text[i] in ')}')
    if not depth:
      return text[begin : i + 1]
  return text[begin:]


def _numeric_bound(exponent: str) -> int | None:
  """The largest numeral in an exponent once its powers are computed; None: beyond all bounds.

  `2^{2^{3}}` has the exponent 8. Powers of powers, factorials, and products are bounded too.
  """
  exponent = exponent.replace('**', '^')
  if '!' in exponent and _NUMERAL.search(exponent):
    return None
  for _ in range(4):
    replaced = _SMALL_POWER.sub(_bounded_power, exponent)
    if replaced == exponent:
      break
    exponent = replaced
  numerals = [int(n) for n in _NUMERAL.findall(exponent)]
  if re.search(r'\d\s*\^|\^\s*\{?\s*\d{3}', exponent):
    return None
  product = 1
  for n in numerals:
    product = min(product * max(n, 1), 10 * MAX_EXPONENT)
  is_product = re.search(r'\\times|\\cdot|\*', exponent)
  return product if is_product else max(numerals, default=0)


def _bounded_power(match: re.Match) -> str:
  if match[1] is None:
    return f' {match[4] or match[5]} '
  base, exponent = int(match[1]), int(match[2] or match[3])
  is_small = base <= 1 or (base <= MAX_EXPONENT and exponent <= 20)
  return (
    f' {min(base**exponent if is_small and base > 1 else base, 10 * MAX_EXPONENT)} '
    if (is_small)
    else f' {10 * MAX_EXPONENT} '
  )
