r"""Answers in one spelling: Unicode, LaTeX synonyms, layout commands, units, numbers.

Safe in two senses: nothing is evaluated, and each rule keeps the meaning, so that two answers that
become the same text are equal. The rules:

* Unicode: any decimal digit and full-width form is its ASCII twin; vulgar fractions, superscripts,
  roots, signs and Greek letters are their LaTeX; controls and invisible characters go.
* Layout: $, \(…\), \left, \displaystyle, thin spaces, \dfrac, … go or become the plain command.
* Numbers: thousands separators and leading zeros go.
* Currency signs and degrees around a number go (but `\sin 30^\circ` keeps them), and so do units
  behind it (`split_unit`).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_GREEK = 'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho'
_SYMBOLS = {
  '−': '-',
  '–': '-',
  '—': '-',
  '×': r'\times ',
  '⋅': r'\cdot ',
  '·': r'\cdot ',
  '÷': r'\div ',
  '∞': r'\infty ',
  '≤': r'\leq ',
  '≥': r'\geq ',
  '≠': r'\neq ',
  '∪': r'\cup ',
  '∩': r'\cap ',
  '∈': r'\in ',
  '±': r'\pm ',
  '≈': r'\approx ',
  '°': r'^\circ ',
  '∅': r'\emptyset ',
  'ℝ': r'\mathbb{R}',
  '⁄': '/',
  '∕': '/',
  '’': "'",
  '′': "'",
  '％': '%',
  '＄': '$',
  **{chr(0x3B1 + i): rf'\{name} ' for i, name in enumerate(_GREEK.split())},
}
# Characters that stand raised or lowered, and what they are.
_SUPERSCRIPTS = dict(zip('⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ', '0123456789+-n', strict=True))
_SUBSCRIPTS = dict(zip('₀₁₂₃₄₅₆₇₈₉', '0123456789', strict=True))

_LAYOUT = re.compile(
  r'\\(?:displaystyle|textstyle|left|right|bigl?|bigr|Bigl?|Bigr|limits|nolimits)(?![A-Za-z])'
  r'|\\[!,;:>]|\\\(|\\\)|\\\[|\\\]|(?<!\\)\$'
)
_VISIBLE_SPACES = (r'\;', r'\:', r'\>')  # of _LAYOUT
_SPACE = re.compile(r'(?<!\\)\\ |~|\\q?quad(?![A-Za-z])|\s+')
_COMMANDS = {
  r'\dfrac': r'\frac',
  r'\tfrac': r'\frac',
  r'\cfrac': r'\frac',
  r'\lt': '<',
  r'\gt': '>',
  r'\le': r'\leq',
  r'\ge': r'\geq',
  r'\ne': r'\neq',
  r'\textbf': r'\text',
  r'\mbox': r'\text',
  r'\textit': r'\text',
  r'\textrm': r'\text',
  r'\mathrm': r'\text',
  r'\textnormal': r'\text',
  r'\mathbf': r'\text',
  r'\dbinom': r'\binom',
  r'\tbinom': r'\binom',
  r'\operatorname': r'\text',
  r'\lbrace': r'\{',
  r'\rbrace': r'\}',
  r'\to': r'\rightarrow',
  r'\degree': r'^\circ',
  r'\percent': '%',
  r'\land': r'\wedge',
}
_COMMAND = re.compile(r'\\[A-Za-z]+')
_ESCAPED_TWICE = re.compile(r'\\\\(?=[A-Za-z()\[\]])')  # of a string within a string
# Fractions and roots that lack braces: \frac12, \frac{1}2, \sqrt2, sqrt(2), √2.
_SHORT_FRACTION = re.compile(r'\\frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))')
_SHORT_ROOT = re.compile(r'\\sqrt\s*(\d)')
_ROUND_ROOT = re.compile(r'(?:\\sqrt|(?<![A-Za-z\\])sqrt)\s*\(([^(){}]*)\)')
_GLYPH_ROOT = re.compile(r'√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))')
_VULGAR = re.compile(r'(\d+)⁄(\d+)')
# Numbers: sign, digits and decimals; two integers of a fraction; the three of a mixed number.
_DECIMAL = re.compile(r'([-+]?)(\d*)\.?(\d*)', re.ASCII)
_RATIO = re.compile(
  r'([-+]?)\s*(?:\\frac\{\s*([-+]?\d+)\s*\}\{\s*([-+]?\d+)\s*\}'
  r'|([-+]?\d+)\s*/\s*([-+]?\d+))',
  re.ASCII,
)
_MIXED = re.compile(r'([-+]?)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}', re.ASCII)
_CURRENCY = re.compile(r'^([-+]?)\s*(?:\\?\$|€|£|¥|₹)\s*(?=[\d.])|(?<=\d)\s*(?:\\?\$|€|£|¥|₹)$')
_DEGREES = re.compile(r'(?<=[\d})])\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*$')
_TRIG = re.compile(r'\\(?:sin|cos|tan|sec|csc|cot)')
_THOUSANDS = re.compile(r'([-+]?)(\d{1,3}(?:(?:\{,\}|,|\s|,\s)\d{3})+)((?:\.\d*)?)\s*(%?)')
_LOOSE_SIGN = re.compile(r'^([-+])\s+')
_DIGIT = re.compile(r'\d')
_IDLE_SPACE = re.compile(r'(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])')
_NO_UNIT = re.compile(r'\\text|[^A-Za-z ]')
# A value without letters, but for \frac, \sqrt and \pi, and a unit of text or up to four words.
_UNIT = re.compile(
  r'^(?P<value>[-+]?[^A-Za-z]*?(?:\\(?:frac|sqrt|pi)[^A-Za-z]*?)*)\s*'
  r'(?P<unit>(?:\\text\s*\{[^{}]*\}|(?<![A-Za-z\\])[A-Za-z]+(?:\s[A-Za-z]+){0,3})'
  r'(?:\s*\^\s*\{?\s*[23]\s*\}?)?)$'
)
_MAX_NUMBER = 1000  # characters of a number
_MAX_QUANTITY = 200  # characters of a number with its unit

# Plain names of functions and constants, as calculators and models write them.
_BARE_COMMANDS = (
  'pi sin cos tan sec csc cot sinh cosh tanh log ln exp arcsin arccos arctan infty theta alpha '
  'beta gamma lambda max min'
)
_PLAIN_NAMES = {
  **{name: rf'\{name} ' for name in _BARE_COMMANDS.split()},
  'asin': r'\arcsin ',
  'acos': r'\arccos ',
  'atan': r'\arctan ',
  'infinity': r'\infty ',
  'Infinity': r'\infty ',
  'inf': r'\infty ',
  'oo': r'\infty ',
}
# Names of functions as whole words, but for the atan of atan2.
_PLAIN_NAME = re.compile(rf'(?<![A-Za-z\\])(?!atan2)(?:{"|".join(_PLAIN_NAMES)})(?![A-Za-z])')
_INVERSE = re.compile(r'\\(sin|cos|tan)\s*\^\s*(?:\{\s*-\s*1\s*\}|\(\s*-\s*1\s*\))')

# Bare words that count as units behind a number; in \text{…} any word does.
_UNIT_WORDS = (
  'cm mm km nm kg mg lb oz ft yd mi mph kph hz cc ml meter metre inch inche foot feet yard mile '
  'gram kilogram pound ounce ton tonne liter litre gallon second minute hour day week month year '
  'sec min hr degree radian rad deg dollar cent euro rupee yuan unit square cubic sq cu percent '
  'point people person student men women way time box boxe coin apple egg page step number '
  'integer solution joule watt volt newton ohm kelvin celsius mole'
)
_UNITS = frozenset(_UNIT_WORDS.split())


def normalize(text: str) -> str:
  """Returns `text` in one spelling (module docstring). Linear in its length."""
  text = _plain_unicode(text)
  # Layout goes first, so that the rules behind it see commands side by side.
  if '\\begin' not in text:  # there `\\` ends a row
    text = _ESCAPED_TWICE.sub(r'\\', text)
  text = _LAYOUT.sub(lambda m: ' ' if m[0] in _VISIBLE_SPACES else '', text)
  text = _COMMAND.sub(lambda m: _COMMANDS.get(m[0], m[0]), text)
  text = _SPACE.sub(' ', text).strip().rstrip('.,; \\')
  # Then all fractions, roots and functions get one form.
  text = _SHORT_FRACTION.sub(_whole_fraction, text)
  text = _SHORT_ROOT.sub(r'\\sqrt{\1}', text)
  text = _ROUND_ROOT.sub(r'\\sqrt{\1}', text)
  if '\\text' not in text:
    text = _PLAIN_NAME.sub(lambda m: _PLAIN_NAMES[m[0]], text.replace('**', '^'))
  text = _INVERSE.sub(r'\\arc\1', text)
  # Last, what stands around a number.
  text = _CURRENCY.sub(r'\1', text)
  if not _TRIG.search(text):
    text = _DEGREES.sub('', text)
  return text.strip()


def _whole_fraction(match: re.Match) -> str:
  r"""`\frac12` and `\frac1{2}` with both pairs of braces."""
  return rf'\frac{{{match[1] or match[2]}}}{{{match[3] or match[4]}}}'


def _plain_unicode(text: str) -> str:
  """The text with LaTeX for every character beyond ASCII that has some, and without controls."""
  if text.isascii():
    return text if text.isprintable() else ''.join(map(_plain_character, text))
  text = _VULGAR.sub(r'\\frac{\1}{\2}', ''.join(map(_plain_character, text)))
  return _GLYPH_ROOT.sub(lambda m: rf'\sqrt{{{m[1] or m[2]}}}', text)


def _plain_character(c: str) -> str:
  """What stands for a character: itself, an ASCII twin, LaTeX, a space or nothing."""
  if c.isascii():
    return c if c >= ' ' else ' '
  if c in _SYMBOLS:
    return _SYMBOLS[c]
  if c in _SUPERSCRIPTS:
    return f'^{{{_SUPERSCRIPTS[c]}}}'
  if c in _SUBSCRIPTS:
    return f'_{{{_SUBSCRIPTS[c]}}}'
  digit = unicodedata.decimal(c, None)
  if digit is not None:
    return str(digit)
  if 0xFF01 <= ord(c) <= 0xFF5E:  # full-width forms stand in the order of ASCII
    return chr(ord(c) - 0xFEE0)
  if unicodedata.decomposition(c).startswith('<fraction>'):
    return unicodedata.normalize('NFKC', c)
  category = unicodedata.category(c)
  if category in ('Zs', 'Zl', 'Zp', 'Cc'):
    return ' '
  return '' if category == 'Cf' else c


def join_thousands(text: str) -> str:
  """'7,425,000' and '7 425 000' become '7425000', if the whole text is one such number."""
  match = _THOUSANDS.fullmatch(text)
  if match is None:
    return text
  sign, groups, decimals, percent = match.groups()
  return sign + ''.join(filter(str.isdigit, groups)) + decimals + percent


def squeeze(text: str) -> str:
  """Removes the spaces that carry no meaning: all but those between two letters or digits."""
  return _IDLE_SPACE.sub('', text)


def split_unit(text: str) -> tuple[str, str]:
  r"""Splits '10 cm^2' or '3\text{ miles}' into value and unit ('' where there is none)."""
  match = _UNIT.match(text) if len(text) <= _MAX_QUANTITY else None
  if match is None or not _DIGIT.search(match['value']):
    return text, ''
  words = list(map(_singular, _NO_UNIT.sub(' ', match['unit']).split()))
  is_marked = match['unit'].startswith('\\text')
  if not words or not (is_marked or words[0] in _UNITS):
    return text, ''
  return match['value'].strip(), ' '.join(words)


def _singular(word: str) -> str:
  """A word in lower case, without the s of a plural."""
  return word.lower().removesuffix('s')


def parse_rational(text: str) -> Fraction | None:
  r"""Reads an integer, a finite decimal, a/b, \frac{a}{b} or a mixed number; else None."""
  text = join_thousands(text.strip())
  if len(text) > _MAX_NUMBER:
    return None
  if text.startswith('{') and text.endswith('}'):
    text = text[1:-1].strip()
  text = _LOOSE_SIGN.sub(r'\1', text)
  if (match := _MIXED.fullmatch(text)) and int(match[4]):
    value = int(match[2]) + Fraction(int(match[3]), int(match[4]))
  elif match := _RATIO.fullmatch(text):
    top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
    if not bottom:
      return None
    value = Fraction(top, bottom)
  elif (match := _DECIMAL.fullmatch(text)) and (match[2] or match[3]):
    value = Fraction(int(match[2] + match[3]), 10 ** len(match[3]))
  else:
    return None
  return -value if match[1] == '-' else value
