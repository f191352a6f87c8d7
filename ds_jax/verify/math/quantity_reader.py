"""Tokens -> an expression with its unit: `5 m/s^2`, `$3 million`, `3 feet 6 inches`, `5th`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flint import fmpq

from ds_jax.verify.math import expression_reader, expressions, units, vocabulary
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.structures import OTHER_RELATIONS, Answer, Quantity
from ds_jax.verify.math.token_lists import Tokens, depth_change, has_any, texts_of
from ds_jax.verify.math.tokens import UnreadableError
from ds_jax.verify.math.units import Unit

# Signs that no expression holds.
UNREAD_SIGNS = OTHER_RELATIONS | frozenset(
  r'\land \lor \neg \oplus \otimes \ni \vdash \forall \exists \circledast \cap \cup'.split()
)
CURRENCY_CODES = ('USD', 'EUR', 'GBP', 'INR', 'JPY', 'CNY')
_NO_VALUE_SIGNS = UNREAD_SIGNS - {r'\to'}
_OPERATORS = frozenset(('+', '-', '/', '*', '^', '_', r'\cdot'))
_TEMPERATURES = ('c', 'f', 'celsius', 'fahrenheit')
_MAX_BOUNDARIES = 3


def read_quantity(tokens: Tokens, is_plain_unit: bool = False) -> Quantity:
  """Reads an expression with its unit.

  Args:
    tokens: all of it.
    is_plain_unit: whether letters of a formula may be units as well, as in `9.8 m/s^2`.

  Raises:
    UnreadableError: something is neither expression nor unit.
  """
  tokens = _without_ordinal_ending(tokens)
  # -$5
  if len(tokens) > 1 and tokens[0].text in ('+', '-') and units.currency(tokens[1].text):
    quantity = read_quantity(tokens[1:])
    if tokens[0].text == '+':
      return quantity
    return dataclasses.replace(quantity, node=('-', quantity.node))
  currency = _currency_in_front(tokens)
  if currency is not None:
    return _with_currency(currency, read_quantity(tokens[1:]))
  if has_any(tokens, _NO_VALUE_SIGNS):
    raise UnreadableError('a relation that is not read')
  return _value_with_unit(tokens, is_plain_unit) or _value_without_unit(tokens)


def _currency_in_front(tokens: Tokens) -> Unit | None:
  """The currency of `$5` or `USD 5`."""
  if len(tokens) < 2:
    return None
  if tokens[0].text in CURRENCY_CODES:
    return units.lookup(tokens[0].text)
  return units.currency(tokens[0].text)


def _with_currency(currency: Unit, quantity: Quantity) -> Quantity:
  """An amount of money; its currency may stand there twice: `$5 dollars`."""
  if quantity.unit.powers and quantity.unit.powers != currency.powers:
    raise UnreadableError('two units')
  words = quantity.unit._replace(factor=fmpq(1), powers=())
  return dataclasses.replace(quantity, unit=currency.times(words))


def _value_with_unit(tokens: Tokens, is_plain_unit: bool) -> Quantity | None:
  """An expression with a unit behind it, at the first boundary that makes sense of both."""
  for boundary in _boundaries(tokens, is_plain_unit):
    unit_and_magnitude = units.read_unit(tokens[boundary:])
    if unit_and_magnitude is None:
      continue
    unit, magnitude = unit_and_magnitude
    try:
      node = _value(tokens[:boundary])
    except UnreadableError:
      continue
    if magnitude != 1:  # 3 million
      node = ('*', node, expressions.number(magnitude))
    return Quantity(node, unit, tokens)
  return None


def _value_without_unit(tokens: Tokens) -> Quantity:
  """A plain expression; an angle in degrees has them for a unit."""
  node = expression_reader.read(tokens)
  if node[0] == 'degree':
    return Quantity(node[1], units.DEGREE, tokens)
  if node[0] == '-' and node[1][0] == 'degree':
    return Quantity(('-', node[1][1]), units.DEGREE, tokens)
  return Quantity(node, units.NONE, tokens)


def _value(tokens: Tokens) -> Node:
  """The number before a unit, which may be a word: `five cm`."""
  if len(tokens) == 1:
    value = vocabulary.NUMBER_WORDS.get(tokens[0].text.casefold())
    if value is not None:
      return expressions.number(value)
  return expression_reader.read(tokens)


def _without_ordinal_ending(tokens: Tokens) -> Tokens:
  """`5th`, `5^{\\text{th}}` as 5."""
  if not tokens[0].text.isdigit():
    return tokens
  ending = [text for text in texts_of(tokens[1:]) if text not in ('^', '{', '}')]
  is_ordinal = len(ending) == 1 and ending[0] in vocabulary.ORDINAL_ENDINGS
  return tokens[:1] if is_ordinal else tokens


# Where a unit begins.


def _boundaries(tokens: Tokens, is_plain_unit: bool) -> list[int]:
  """Where a unit may begin: at the first few tokens that are words or units, outside brackets."""
  boundaries: list[int] = []
  depth = 0
  has_letters = False
  for i, token in enumerate(tokens):
    is_behind_value = i > 0 and not depth and tokens[i - 1].text not in _OPERATORS
    is_product = token.kind == 'letters' and not token.is_text and has_letters  # x cm
    if is_behind_value and (is_plain_unit or not is_product):
      if _may_start_unit(tokens, i, is_plain_unit):
        boundaries.append(i)
    has_letters |= token.kind == 'letters'
    depth += depth_change(token)
  return boundaries[:_MAX_BOUNDARIES]


def _may_start_unit(tokens: Tokens, i: int, is_plain_unit: bool) -> bool:
  token = tokens[i]
  following = tokens[i + 1 : i + 4]
  if token.text == '^':  # ^\circ C
    scale = [text.casefold() for text in texts_of(following) if text not in '{}']
    return len(scale) > 1 and scale[0] == r'\circ' and scale[1] in _TEMPERATURES
  if token.text == '(':  # 5 (cm)
    is_closed = tokens[-1].text == ')' and len(following) > 1
    return is_closed and following[0].is_text and following[0].kind != 'number'
  if token.text == r'\frac':  # \frac{\text{m}}{\text{s}}
    is_group = len(following) > 1 and following[0].text == '{'
    return is_group and following[1].is_text and following[1].kind != 'number'
  if token.kind == 'command' and token.text != '%' and not _is_unit_command(tokens, i):
    return False
  return units.starts_unit(token, is_plain_unit)


def _is_unit_command(tokens: Tokens, i: int) -> bool:
  """Whether `\\min`, `\\Omega`, `\\mu` behind a number are a unit: with nothing to apply to."""
  following = tokens[i + 1] if i + 1 < len(tokens) else None
  if tokens[i].text == r'\mu':
    return following is not None and following.kind in ('letters', 'word') and following.is_text
  if tokens[i - 1].kind not in ('number', 'letters'):
    return False
  return following is None or following.text in ('/', '.', 'per', r'\cdot')


# Quantities of several units.


def read_compound(tokens: Tokens) -> Quantity | None:
  """`3 feet 6 inches`, `2 hours 30 minutes`: numbers with smaller and smaller units, as one."""
  starts: list[int] = []
  for i, token in enumerate(tokens):
    if token.kind == 'number' and (i == 0 or token.has_space):
      starts.append(i)
  if len(starts) < 2 or starts[0] != 0:
    return None
  parts: list[Quantity] = []
  for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
    try:
      parts.append(read_quantity(tokens[start:end]))
    except UnreadableError:
      return None
  return sum_of_units(parts)


def sum_of_units(parts: Sequence[Answer]) -> Quantity | None:
  """Quantities of one kind with smaller and smaller units, as their sum; None of others."""
  if len(parts) < 2 or not all(isinstance(part, Quantity) for part in parts):
    return None
  first, *others = [part.unit for part in parts]
  if not first.powers:
    return None
  previous = first
  for unit in others:
    if (unit.powers, unit.unknown) != (first.powers, first.unknown):
      return None
    if unit.factor >= previous.factor:
      return None
    previous = unit
  terms = [('*', part.node, expressions.number(part.unit.factor)) for part in parts]
  return Quantity(('+', *terms), first._replace(factor=fmpq(1)))
