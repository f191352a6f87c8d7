r"""Units of measurement, currencies and counted things behind (or before) a number.

A unit is a factor times powers of bases, so that `m/s`, `m s^{-1}` and `meters per second` are one
thing, and so are 5 m and 500 cm. SI symbols tell capitals from small letters (MW, mW); names do not.
Every currency is a base of its own, except that a cent is a hundredth of a dollar. A counted thing
(apples) is a base that may be left out. A word that no table has is a base that may not.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from flint import fmpq

from ds_jax.verify.math.tokens import Token
from ds_jax.verify.math.vocabulary import MAGNITUDES, MODIFIERS, NOUNS, singular


class Unit(NamedTuple):
  """`factor` times the product of base^exponent."""

  factor: fmpq
  powers: tuple[tuple[str, int], ...] = ()  # sorted by base
  nouns: tuple[str, ...] = ()  # counted things, singular
  unknown: tuple[str, ...] = ()  # words in no table

  def times(self, other: Unit, exponent: int = 1) -> Unit:
    powers = dict(self.powers)
    for base, power in other.powers:
      powers[base] = powers.get(base, 0) + exponent * power
    return Unit(
      self.factor * other.factor**exponent,
      tuple(sorted((base, power) for base, power in powers.items() if power)),
      self.nouns + other.nouns,
      self.unknown + other.unknown,
    )


NONE = Unit(fmpq(1))
PERCENT = Unit(fmpq(1), (('percent', 1),))
DEGREE = Unit(fmpq(1), (('degree', 1),))

_PREFIXES = {
  'Y': 24, 'Z': 21, 'E': 18, 'P': 15, 'T': 12, 'G': 9, 'M': 6, 'k': 3, 'h': 2, 'd': -1, 'c': -2,
  'm': -3, 'u': -6, 'n': -9, 'p': -12, 'f': -15, 'a': -18,
}  # fmt: skip
_PREFIX_NAMES = {
  'yotta': 24, 'zetta': 21, 'exa': 18, 'peta': 15, 'tera': 12, 'giga': 9, 'mega': 6, 'kilo': 3,
  'hecto': 2, 'deci': -1, 'centi': -2, 'milli': -3, 'micro': -6, 'nano': -9, 'pico': -12,
  'femto': -15,
}  # fmt: skip
# Base or derived unit -> (factor, bases). Symbols take prefixes where `_PREFIXED` has them.
_KG_M2 = 'kg 1 m 2 '
_SYMBOLS = {
  'm': (1, 'm 1'),
  'g': (fmpq(1, 1000), 'kg 1'),
  's': (1, 's 1'),
  'A': (1, 'A 1'),
  'K': (1, 'K 1'),
  'mol': (1, 'mol 1'),
  'cd': (1, 'cd 1'),
  'Hz': (1, 's -1'),
  'N': (1, 'kg 1 m 1 s -2'),
  'Pa': (1, 'kg 1 m -1 s -2'),
  'J': (1, _KG_M2 + 's -2'),
  'W': (1, _KG_M2 + 's -3'),
  'C': (1, 'A 1 s 1'),
  'V': (1, _KG_M2 + 's -3 A -1'),
  r'\Omega': (1, _KG_M2 + 's -3 A -2'),
  'F': (1, 'kg -1 m -2 s 4 A 2'),
  'T': (1, 'kg 1 s -2 A -1'),
  'Wb': (1, _KG_M2 + 's -2 A -1'),
  'H': (1, _KG_M2 + 's -2 A -2'),
  'lm': (1, 'cd 1'),
  'lx': (1, 'cd 1 m -2'),
  'Bq': (1, 's -1'),
  'Gy': (1, 'm 2 s -2'),
  'Sv': (1, 'sievert 1'),
  'L': (fmpq(1, 1000), 'm 3'),
  'eV': (1, 'eV 1'),
  'bar': (10**5, 'kg 1 m -1 s -2'),
  'cal': (fmpq(4184, 1000), _KG_M2 + 's -2'),
  'pc': (1, 'parsec 1'),
  'GB': (8 * 10**9, 'bit 1'),
  'MB': (8 * 10**6, 'bit 1'),
  'kB': (8 * 10**3, 'bit 1'),
  'KB': (8 * 10**3, 'bit 1'),
  'byte': (8, 'bit 1'),
  'min': (60, 's 1'),
  'h': (3600, 's 1'),
  'hr': (3600, 's 1'),
  'sec': (1, 's 1'),
  'day': (86400, 's 1'),
  'yr': (1, 'year 1'),
  'tonne': (1000, 'kg 1'),
  'ha': (10**4, 'm 2'),
  'in': (fmpq(254, 10**4), 'm 1'),
  'ft': (fmpq(3048, 10**4), 'm 1'),
  'yd': (fmpq(9144, 10**4), 'm 1'),
  'mi': (fmpq(1609344, 1000), 'm 1'),
  'lb': (fmpq(45359237, 10**8), 'kg 1'),
  'oz': (fmpq(45359237, 16 * 10**8), 'kg 1'),
  'mph': (fmpq(1609344, 3600 * 1000), 'm 1 s -1'),
  'kph': (fmpq(1000, 3600), 'm 1 s -1'),
  'kmh': (fmpq(1000, 3600), 'm 1 s -1'),
  'kn': (fmpq(1852, 3600), 'm 1 s -1'),
  'atm': (101325, 'kg 1 m -1 s -2'),
  'cc': (fmpq(1, 10**6), 'm 3'),
  'Nm': (1, _KG_M2 + 's -2'),
  'Wh': (3600, _KG_M2 + 's -2'),
  'AU': (149597870700, 'm 1'),
  'ly': (1, 'lightyear 1'),
  'rad': (1, 'radian 1'),
  'deg': (1, 'degree 1'),
  'dB': (1, 'decibel 1'),
  'rpm': (1, 'revolution 1 s -1'),
  'USD': (1, 'dollar 1'),
  'EUR': (1, 'euro 1'),
  'GBP': (1, 'pound sterling 1'),
  'INR': (1, 'rupee 1'),
  'JPY': (1, 'yen 1'),
  'CNY': (1, 'yuan 1'),
  'RMB': (1, 'yuan 1'),
  'Kg': (1, 'kg 1'),
  'KM': (1000, 'm 1'),
  'erg': (fmpq(1, 10**7), _KG_M2 + 's -2'),
  'dyn': (fmpq(1, 10**5), 'kg 1 m 1 s -2'),
  'gal': (1, 'gallon 1'),
}
_PREFIXED = frozenset(r'm g s A K mol Hz N Pa J W C V \Omega F T Wb Wh H L eV bar cal pc'.split())
_NAMES = {
  **dict.fromkeys(('meter', 'metre'), 'm'),
  **dict.fromkeys(('gram', 'gramme'), 'g'),
  **dict.fromkeys(('second', 'sec'), 's'),
  **dict.fromkeys(('liter', 'litre'), 'L'),
  **dict.fromkeys(('ampere', 'amp'), 'A'),
  **dict.fromkeys(('hour', 'hr'), 'h'),
  **dict.fromkeys(('tonne',), 'tonne'),
  **dict.fromkeys(('pound', 'lb'), 'lb'),
  **dict.fromkeys(('ounce', 'oz'), 'oz'),
  **dict.fromkeys(('inch',), 'in'),
  **dict.fromkeys(('foot', 'ft'), 'ft'),
  **dict.fromkeys(('yard', 'yd'), 'yd'),
  **dict.fromkeys(('mile', 'mi'), 'mi'),
  **dict.fromkeys(('radian', 'rad'), 'rad'),
  **dict.fromkeys(('degree', 'deg'), 'deg'),
  **dict.fromkeys(('year',), 'yr'),
  'kelvin': 'K',
  'mole': 'mol',
  'candela': 'cd',
  'hertz': 'Hz',
  'newton': 'N',
  'pascal': 'Pa',
  'joule': 'J',
  'watt': 'W',
  'coulomb': 'C',
  'volt': 'V',
  'ohm': r'\Omega',
  'farad': 'F',
  'tesla': 'T',
  'weber': 'Wb',
  'henry': 'H',
  'lumen': 'lm',
  'lux': 'lx',
  'becquerel': 'Bq',
  'gray': 'Gy',
  'sievert': 'Sv',
  'electronvolt': 'eV',
  'calorie': 'cal',
  'parsec': 'pc',
  'byte': 'byte',
  'minute': 'min',
  'min': 'min',
  'day': 'day',
  'hectare': 'ha',
  'atmosphere': 'atm',
  'decibel': 'dB',
  'knot': 'kn',
  'mph': 'mph',
  'kph': 'kph',
  'rpm': 'rpm',
  'usd': 'USD',
  'eur': 'EUR',
  'gbp': 'GBP',
}
_OTHER_NAMES = {
  'week': (604800, 's 1'),
  'fortnight': (1209600, 's 1'),
  'month': (fmpq(1, 12), 'year 1'),
  'decade': (10, 'year 1'),
  'century': (100, 'year 1'),
  'acre': (1, 'acre 1'),
  'ton': (1, 'ton 1'),
  'gallon': (1, 'gallon 1'),
  'quart': (fmpq(1, 4), 'gallon 1'),
  'pint': (fmpq(1, 8), 'gallon 1'),
  'micron': (fmpq(1, 10**6), 'm 1'),
  'angstrom': (fmpq(1, 10**10), 'm 1'),
  'bit': (1, 'bit 1'),
  'celsius': (1, 'celsius 1'),
  'centigrade': (1, 'celsius 1'),
  'fahrenheit': (1, 'fahrenheit 1'),
  'percent': (1, 'percent 1'),
  'percentage': (1, 'percent 1'),
  'pct': (1, 'percent 1'),
  'dollar': (1, 'dollar 1'),
  'buck': (1, 'dollar 1'),
  'cent': (fmpq(1, 100), 'dollar 1'),
  'euro': (1, 'euro 1'),
  'sterling': (1, 'pound sterling 1'),
  'rupee': (1, 'rupee 1'),
  'yen': (1, 'yen 1'),
  'yuan': (1, 'yuan 1'),
  'ruble': (1, 'ruble 1'),
  'rouble': (1, 'ruble 1'),
  'franc': (1, 'franc 1'),
  'peso': (1, 'peso 1'),
  'unit': (1, 'unit 1'),
  'gauss': (fmpq(1, 10**4), 'kg 1 s -2 A -1'),
}
_OTHER_NAMES['pct'] = _OTHER_NAMES['percent']
CURRENCY_SIGNS = {r'\$': 'dollar', '€': 'euro', '£': 'pound sterling', '¥': 'yen', '₹': 'rupee'}
# Symbols of several letters that need no \text behind a number: `5 cm`, but not `5 m`.
_PLAIN = frozenset(
  'cm mm km nm kg mg ft yd mi lb lbs oz hz Hz cc ml mL kPa kW MW kJ eV keV MeV GeV mol Pa mph'.split()
)
_POWER_WORDS = {'square': 2, 'sq': 2, 'cubic': 3, 'cu': 3}
_POWERS_BEHIND = {'squared': 2, 'cubed': 3}


def currency(sign: str) -> Unit | None:
  """The unit of a currency's sign."""
  name = CURRENCY_SIGNS.get(sign)
  return Unit(fmpq(1), ((name, 1),)) if name else None


@functools.lru_cache(1024)
def lookup(word: str, is_symbol_allowed: bool = True) -> Unit | None:
  """The unit with that symbol or name; None: there is none."""
  if is_symbol_allowed:
    if word in _SYMBOLS:
      return _unit(*_SYMBOLS[word])
    for prefix, power in _PREFIXES.items():
      symbol = word[len(prefix) :]
      if word.startswith(prefix) and symbol in _PREFIXED:
        return _scaled(_unit(*_SYMBOLS[symbol]), power)
  name = singular(word)
  if name in _OTHER_NAMES:
    return _unit(*_OTHER_NAMES[name])
  if name in _NAMES:
    return _unit(*_SYMBOLS[_NAMES[name]])
  for prefix, power in _PREFIX_NAMES.items():
    if name.startswith(prefix) and _NAMES.get(name[len(prefix) :]) in _PREFIXED:
      return _scaled(_unit(*_SYMBOLS[_NAMES[name[len(prefix) :]]]), power)
  return None


def _scaled(unit: Unit, power: int) -> Unit:
  return unit._replace(factor=unit.factor * fmpq(10) ** power)


def _unit(factor: fmpq | int, bases: str) -> Unit:
  names = bases.replace('pound sterling', 'pound_sterling').split()
  powers = zip(names[::2], map(int, names[1::2]), strict=True)
  return Unit(fmpq(factor), tuple(sorted((n.replace('_', ' '), p) for n, p in powers)))


_UNIT_COMMANDS = {r'\min': 'min', r'\sec': 'sec', r'\deg': 'deg', r'\Omega': r'\Omega', r'\mu': 'u'}


class _NoUnitError(Exception):
  pass


def starts_unit(token: Token, is_plain_allowed: bool) -> bool:
  """Whether a unit, a magnitude or a counted thing may begin with that token."""
  if token.kind == 'word':
    return True
  if token.text in _UNIT_COMMANDS:
    return True
  if token.kind == 'letters':
    if token.is_text or is_plain_allowed:
      return lookup(token.text) is not None
    return token.text in _PLAIN
  return token.text in CURRENCY_SIGNS or token.text == '%'


def read_unit(tokens: Sequence[Token]) -> tuple[Unit, int] | None:
  """Reads all of `tokens` as magnitude, unit and counted things: `million dollars`, `m/s^2`.

  Returns:
    The unit, and the number that magnitudes multiply with; None: the tokens are something else.
  """
  try:
    return _Reader(tokens).read()
  except _NoUnitError:
    return None


class _Reader:
  """A unit's grammar: factors, each with an exponent, behind one another or with · / per."""

  def __init__(self, tokens: Sequence[Token]):
    self._tokens = [t for t in tokens if t.text != '.']
    self._position = 0

  def _peek(self) -> str:
    more = self._position < len(self._tokens)
    return self._tokens[self._position].text if more else ''

  def _take(self) -> str:
    text = self._peek()
    self._position += 1
    return text

  def read(self) -> tuple[Unit, int]:
    magnitude = 1
    while self._peek().casefold() in MAGNITUDES:
      magnitude *= MAGNITUDES[self._take().casefold()]
    unit = self._product()
    if self._peek():
      raise _NoUnitError
    return unit, magnitude

  def _product(self) -> Unit:
    unit, sign = NONE, 1
    while self._peek() and self._peek() != ')':
      if self._peek() in (r'\cdot', '*', '-', ','):
        self._take()
      elif self._peek() in ('/', 'per'):
        if self._take() == 'per' and self._peek() == 'cent':
          self._take()
          unit = unit.times(PERCENT)
          continue
        sign = -1
        unit = unit.times(self._factor(), sign)
        sign = 1
      else:
        unit = unit.times(self._factor())
    return unit

  def _factor(self) -> Unit:
    word = self._take()
    if word == r'\frac':
      return self._group().times(self._group(), -1)
    if word in ('(', '{'):
      unit = self._product() if word == '(' else self._factor()
      if self._take() not in (')', '}'):
        raise _NoUnitError
      return self._with_exponent(unit)
    if word.casefold() in _POWER_WORDS:
      following = lookup(self._peek())
      if following is None:
        raise _NoUnitError
      self._take()
      return NONE.times(following, _POWER_WORDS[word.casefold()])
    if word == '^' and self._peek() in (r'\circ', '{'):  # ^\circ C
      in_braces = self._peek() == '{' and self._take() and True
      if self._take() != r'\circ' or (in_braces and self._take() != '}'):
        raise _NoUnitError
      return self._degrees()
    if word in ('degree', 'degrees', r'\circ'):
      return self._degrees()
    word = _UNIT_COMMANDS.get(word, word)
    if word == 'u' or self._peek() == r'\Omega' and word in _PREFIXES:
      word += self._take()
    unit = currency(word) or (PERCENT if word == '%' else lookup(word))
    return self._with_exponent(unit or self._noun(word))

  def _group(self) -> Unit:
    if self._take() != '{':
      raise _NoUnitError
    unit = NONE
    while self._peek() != '}':
      unit = unit.times(self._factor())
    self._take()
    return unit

  def _degrees(self) -> Unit:
    scale = {'c': 'celsius', 'f': 'fahrenheit', 'celsius': 'celsius', 'fahrenheit': 'fahrenheit'}
    name = scale.get(self._peek().casefold())
    if name is None:
      return DEGREE
    self._take()
    return lookup(name)

  def _noun(self, word: str) -> Unit:
    token = self._tokens[self._position - 1] if word else None
    if (
      token is None
      or token.kind not in ('word', 'letters')
      or not (token.kind == 'word' or token.is_text)
    ):
      raise _NoUnitError
    name = singular(word)
    if word.casefold() in MODIFIERS or name in MODIFIERS:
      return NONE
    return Unit(fmpq(1), nouns=(name,)) if name in NOUNS else Unit(fmpq(1), unknown=(name,))

  def _with_exponent(self, unit: Unit) -> Unit:
    if self._peek().casefold() in _POWERS_BEHIND and unit.powers:
      return NONE.times(unit, _POWERS_BEHIND[self._take().casefold()])
    if self._peek() != '^':
      return unit
    self._take()
    in_braces = self._peek() == '{' and bool(self._take())
    sign = -1 if self._peek() == '-' and self._take() else 1
    digits = self._take()
    if (
      not digits.isdigit()
      or len(digits) > 2
      or not int(digits)
      or (in_braces and self._take() != '}')
    ):
      raise _NoUnitError
    return NONE.times(unit, sign * int(digits))
