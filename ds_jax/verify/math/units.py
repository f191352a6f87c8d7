r"""Units of measurement, currencies and counted things behind (or before) a number.

A unit is a factor times powers of bases, so that `m/s`, `m s^{-1}` and `meters per second` are one
thing, and so are 5 m and 500 cm. SI symbols tell capitals from small letters (MW, mW); names do
not. Every currency is a base of its own; a cent is a hundredth of a dollar. Counted things
(apples) may be left out. Words that no table has may not.
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
# Symbols: a factor and bases with their exponents. Those of the first table take prefixes.
_PREFIXED_SYMBOLS = r"""
  m 1 m | g 1/1000 kg | s 1 s | A 1 A | K 1 K | mol 1 mol | Hz 1 s-1 | N 1 kg m s-2
  Pa 1 kg m-1 s-2 | J 1 kg m2 s-2 | W 1 kg m2 s-3 | C 1 A s | V 1 kg m2 s-3 A-1
  \Omega 1 kg m2 s-3 A-2 | F 1 kg-1 m-2 s4 A2 | T 1 kg s-2 A-1 | Wb 1 kg m2 s-2 A-1
  H 1 kg m2 s-2 A-2 | L 1/1000 m3 | eV 1 eV | bar 100000 kg m-1 s-2 | cal 4184/1000 kg m2 s-2
  Wh 3600 kg m2 s-2 | pc 1 parsec
"""
_OTHER_SYMBOLS = r"""
  cd 1 cd | lm 1 cd | lx 1 cd m-2 | Bq 1 s-1 | Gy 1 m2 s-2 | Sv 1 sievert | Nm 1 kg m2 s-2
  min 60 s | h 3600 s | hr 3600 s | sec 1 s | day 86400 s | yr 1 year | tonne 1000 kg | ha 10000 m2
  in 254/10000 m | ft 3048/10000 m | yd 9144/10000 m | mi 1609344/1000 m | AU 149597870700 m
  lb 45359237/100000000 kg | oz 45359237/1600000000 kg | cc 1/1000000 m3 | ly 1 lightyear
  mph 1609344/3600000 m s-1 | kph 1000/3600 m s-1 | kmh 1000/3600 m s-1 | kn 1852/3600 m s-1
  atm 101325 kg m-1 s-2 | rad 1 radian | deg 1 degree | dB 1 decibel | rpm 1 revolution s-1
  byte 8 bit | kB 8000 bit | KB 8000 bit | MB 8000000 bit | GB 8000000000 bit | gal 1 gallon
  USD 1 dollar | EUR 1 euro | GBP 1 sterling | INR 1 rupee | JPY 1 yen | CNY 1 yuan | RMB 1 yuan
  Kg 1 kg | KM 1000 m | erg 1/10000000 kg m2 s-2 | dyn 1/100000 kg m s-2
"""
# Names without a symbol.
_OTHER_NAMES = """
  week 604800 s | fortnight 1209600 s | month 1/12 year | decade 10 year | century 100 year
  acre 1 acre | ton 1 ton | gallon 1 gallon | quart 1/4 gallon | pint 1/8 gallon | bit 1 bit
  micron 1/1000000 m | angstrom 1/10000000000 m | gauss 1/10000 kg s-2 A-1
  celsius 1 celsius | centigrade 1 celsius | fahrenheit 1 fahrenheit
  percent 1 percent | percentage 1 percent | pct 1 percent | unit 1 unit
  dollar 1 dollar | buck 1 dollar | cent 1/100 dollar | euro 1 euro | sterling 1 sterling
  rupee 1 rupee | yen 1 yen | yuan 1 yuan | ruble 1 ruble | rouble 1 ruble | franc 1 franc
  peso 1 peso
"""
# Symbols and what they are called, in the singular.
_NAMES = r"""
  m meter metre | g gram gramme | s second sec | A ampere amp | K kelvin | mol mole | cd candela
  Hz hertz | N newton | Pa pascal | J joule | W watt | C coulomb | V volt | \Omega ohm | F farad
  T tesla | Wb weber | H henry | lm lumen | lx lux | Bq becquerel | Gy gray | Sv sievert
  L liter litre | eV electronvolt | cal calorie | pc parsec | byte byte | min minute min
  h hour hr | day day | yr year | tonne tonne | ha hectare | in inch | ft foot ft | yd yard yd
  mi mile mi | lb pound lb | oz ounce oz | atm atmosphere | rad radian rad | deg degree deg
  dB decibel | kn knot | mph mph | kph kph | rpm rpm | USD usd | EUR eur | GBP gbp
"""
CURRENCY_SIGNS = {r'\$': 'dollar', '€': 'euro', '£': 'sterling', '¥': 'yen', '₹': 'rupee'}
# Symbols of several letters that need no \text behind a number: `5 cm`, but not `5 m`.
_PLAIN = frozenset(
  'cm mm km nm kg mg ft yd mi lb lbs oz hz Hz cc ml mL kPa kW MW kJ eV keV MeV GeV mol Pa '
  'mph'.split()
)
_POWER_WORDS = {'square': 2, 'sq': 2, 'cubic': 3, 'cu': 3}
_POWERS_BEHIND = {'squared': 2, 'cubed': 3}


def currency(sign: str) -> Unit | None:
  """The unit of a currency's sign."""
  name = CURRENCY_SIGNS.get(sign)
  if name is None:
    return None
  return Unit(fmpq(1), ((name, 1),))


def _entries(table: str) -> list[list[str]]:
  """The words of each entry of a table; an entry ends at a bar or at the end of the line."""
  return [entry.split() for line in table.strip().splitlines() for entry in line.split('|')]


def _unit(factor: str, *bases: str) -> Unit:
  """A unit as the tables write it: '1', 'kg', 'm2', 's-2'."""
  powers = []
  for base in bases:
    name = base.rstrip('-0123456789')
    powers.append((name, int(base[len(name) :] or 1)))
  top, _, bottom = factor.partition('/')
  return Unit(fmpq(int(top), int(bottom or 1)), tuple(sorted(powers)))


_PREFIXED = {symbol: _unit(*unit) for symbol, *unit in _entries(_PREFIXED_SYMBOLS)}
_SYMBOLS = _PREFIXED | {symbol: _unit(*unit) for symbol, *unit in _entries(_OTHER_SYMBOLS)}
_SYMBOL_OF_NAME = {name: symbol for symbol, *names in _entries(_NAMES) for name in names}
_BY_NAME = {name: _unit(*unit) for name, *unit in _entries(_OTHER_NAMES)}
_BY_NAME |= {name: _SYMBOLS[symbol] for name, symbol in _SYMBOL_OF_NAME.items()}


@functools.lru_cache(1024)
def lookup(word: str) -> Unit | None:
  """The unit with that symbol or name; None: there is none."""
  if word in _SYMBOLS:
    return _SYMBOLS[word]
  for prefix, power in _PREFIXES.items():
    symbol = word[len(prefix) :]
    if word.startswith(prefix) and symbol in _PREFIXED:
      return _scaled(_PREFIXED[symbol], power)
  name = singular(word)
  if name in _BY_NAME:
    return _BY_NAME[name]
  for prefix, power in _PREFIX_NAMES.items():
    symbol = _SYMBOL_OF_NAME.get(name[len(prefix) :])
    if name.startswith(prefix) and symbol in _PREFIXED:
      return _scaled(_PREFIXED[symbol], power)
  return None


def _scaled(unit: Unit, power: int) -> Unit:
  return unit._replace(factor=unit.factor * fmpq(10) ** power)


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
    if self._position >= len(self._tokens):
      return ''
    return self._tokens[self._position].text

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
    unit = NONE
    while self._peek() and self._peek() != ')':
      if self._peek() in (r'\cdot', '*', '-', ','):
        self._take()
      elif self._peek() in ('/', 'per'):
        if self._take() == 'per' and self._peek() == 'cent':
          self._take()
          unit = unit.times(PERCENT)
          continue
        unit = unit.times(self._factor(), -1)
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
    is_prefix_of_ohm = self._peek() == r'\Omega' and word in _PREFIXES
    if self._peek() and (word == 'u' or is_prefix_of_ohm):
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
    if not word:
      raise _NoUnitError
    token = self._tokens[self._position - 1]
    is_word = token.kind == 'word' or token.kind == 'letters' and token.is_text
    if not is_word:
      raise _NoUnitError
    name = singular(word)
    if word.casefold() in MODIFIERS or name in MODIFIERS:
      return NONE
    if name in NOUNS:
      return Unit(fmpq(1), nouns=(name,))
    return Unit(fmpq(1), unknown=(name,))

  def _with_exponent(self, unit: Unit) -> Unit:
    if self._peek().casefold() in _POWERS_BEHIND and unit.powers:
      return NONE.times(unit, _POWERS_BEHIND[self._take().casefold()])
    if self._peek() != '^':
      return unit
    self._take()
    in_braces = self._peek() == '{' and bool(self._take())
    sign = -1 if self._peek() == '-' and self._take() else 1
    digits = self._take()
    if not digits.isdigit() or len(digits) > 2 or not int(digits):
      raise _NoUnitError
    if in_braces and self._take() != '}':
      raise _NoUnitError
    return NONE.times(unit, sign * int(digits))
