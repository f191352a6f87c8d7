r"""Reads one expression, in LaTeX or calculator style, into a small tree. Evaluates nothing.

The readings that need a rule:

* `2x`, `x y`, `(a)(b)` multiply, from left to right with `/`: `1/8 x` is x/8. Two numerals side by
  side are refused. `2\frac{1}{3}` is a mixed number.
* Runs of letters are names of functions (`sin`, `sqrt`, `binom`, …) or products of letters; longer
  unknown words are refused. `e`, `\pi`, `i` and `I` are the constants; with a subscript, symbols.
* `\sin 2x` takes the product behind it, up to the next function. `\sin^2 x` is a square,
  `\sin^{-1} x` the inverse. `\log` is natural without a base.
* f, g and h before a bracket are unknown functions; `f^2(x)` is no square of f(x).

Whatever is not listed (sums, integrals, prose, …) raises UnreadableError: others must decide.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Node = tuple[Any, ...]  # (kind, operands …): see `Reader`

ZERO, ONE = ('number', Fraction(0)), ('number', Fraction(1))
PI, EULER, IMAGINARY = ('constant', 'pi'), ('constant', 'e'), ('constant', 'i')
DEGREE = ('/', PI, ('number', Fraction(180)))


class UnreadableError(Exception):
  """The text is not an expression of this grammar."""


_TRIG = 'sin cos tan cot sec csc'.split()
_HYPERBOLIC = [f'{name}h' for name in _TRIG]
INVERSES = {name: f'arc{name}' for name in (*_TRIG, *_HYPERBOLIC)}
FUNCTIONS = {
  **{
    name: name
    for name in (
      *INVERSES,
      *INVERSES.values(),
      'sqrt',
      'exp',
      'abs',
      'floor',
      'ceil',
      'round',
      'ln',
      'log',
      'lg',
      'atan2',
    )
  },
  **{f'a{name}': inverse for name, inverse in INVERSES.items()},
  **{f'ar{name}': f'arc{name}' for name in _HYPERBOLIC},
  'nCr': 'binom',
  'binom': 'binom',
  'cbrt': 'cbrt',
  'arctg': 'arctan',
  'tg': 'tan',
  'ctg': 'cot',
}
_NUM_ARGUMENTS = {'binom': 2, 'atan2': 2}
_GREEK = frozenset(
  (
    'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi '
    'rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi '
    'Omega hbar ell'
  ).split()
)
_UNKNOWN_FUNCTIONS = frozenset('fgh')
_BRACKETS = {
  '(': ')',
  '[': ']',
  '{': '}',
  r'\lvert': r'\rvert',
  '|': '|',
  r'\lfloor': r'\rfloor',
  r'\lceil': r'\rceil',
}
_BRACKET_FUNCTIONS = {'|': 'abs', r'\lvert': 'abs', r'\lfloor': 'floor', r'\lceil': 'ceil'}
_TOKEN = re.compile(
  r'\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:E[+-]?\d{1,3}(?!\d))?)|(?P<command>\\[A-Za-z]+|\\%)'
  r'|(?P<word>atan2|[A-Za-z]+)|(?P<sign>[-+*/^_!%(){}\[\]|,\']))',
  re.ASCII,
)
_TEXT = re.compile(r'\\text\s*\{\s*([A-Za-z]+)\s*\}')
_REPEATING = re.compile(r'(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d{1,40})\}', re.ASCII)
_MAX_WORD = 3  # letters of an unknown word that are read as a product
_MAX_SUBSCRIPT = 8  # tokens
_DIGITS = frozenset('0123456789.')
MAX_NUMERAL = 400  # characters
ROUNDED_DIGITS = 6  # significant ones of a decimal that may be rounded


def read(text: str) -> Node:
  """Returns the tree of `text`, which `normalize.normalize` has seen.

  Raises:
    UnreadableError: the text is none, or holds what this grammar does not know.
  """
  reader = Reader(_tokens(text))
  try:
    node = reader.sum()
  except RecursionError:
    raise UnreadableError('nesting') from None
  if not reader.is_done:
    raise UnreadableError(f'unexpected {reader.peek!r}')
  return node


def subtract(left: Node, right: Node) -> Node:
  return ('+', left, ('-', right))


def number(text: str) -> Node:
  """The value of a numeral; a long decimal with half a unit of its last digit."""
  if len(text) > MAX_NUMERAL:
    raise UnreadableError('numeral')
  digits, _, exponent = text.partition('E')
  places = len(digits.partition('.')[2])
  if not places or len(digits.replace('.', '').lstrip('0')) < ROUNDED_DIGITS:
    return ('number', Fraction(text))
  return ('decimal', Fraction(text), Fraction(10) ** (int(exponent or 0) - places) / 2)


def _tokens(text: str) -> list[str]:
  text = _REPEATING.sub(_repeating_decimal, _TEXT.sub(r' \1 ', text))
  tokens, position, text = [], 0, text.rstrip()
  while position < len(text):
    match = _TOKEN.match(text, position)
    if match is None:
      raise UnreadableError(f'unexpected {text[position : position + 10]!r}')
    position = match.end()
    if (
      match['word']
      and match['word'] not in FUNCTIONS
      and match['word'] not in _GREEK
      and (match['word'] != 'pi')
    ):
      if len(match['word']) > _MAX_WORD:
        raise UnreadableError(match['word'])
      tokens += match['word']
    else:
      tokens.append(match[0].strip())
  return tokens


def _repeating_decimal(match: re.Match) -> str:
  whole, fixed, repeated = match.groups()
  scale = 10 ** len(fixed)
  value = int(whole + fixed + repeated or '0') - int(whole + fixed or '0')
  return f' ({value}/{scale * (10 ** len(repeated) - 1)}) '


class Reader:
  """A recursive-descent reader over tokens. Each method reads one construct and returns its node.

  Nodes: ('number', Fraction), ('decimal', Fraction, half a unit), ('constant', name),
  ('symbol', name), ('+', …), ('*', …), ('-', a), ('/', a, b), ('^', a, b), ('!', a),
  ('call', function, …), ('unknown', name, a).
  """

  def __init__(self, tokens: list[str]):
    self._tokens = [*tokens, '']
    self._position = 0
    self._open_bars = 0

  @property
  def peek(self) -> str:
    return self._tokens[self._position]

  @property
  def is_done(self) -> bool:
    return not self.peek

  def take(self, expected: str | None = None) -> str:
    token = self.peek
    if not token or (expected is not None and token != expected):
      raise UnreadableError(f'expected {expected!r}, got {token!r}')
    self._position += 1
    return token

  def sum(self) -> Node:
    terms = []
    while True:
      is_negative = False
      while self.peek in ('+', '-'):
        is_negative ^= self.take() == '-'
      term = self.product()
      terms.append(('-', term) if is_negative else term)
      if self.peek not in ('+', '-'):
        return terms[0] if len(terms) == 1 else ('+', *terms)

  def product(self) -> Node:
    result = self.power()
    while True:
      if self.peek in ('*', r'\cdot', r'\times'):
        self.take()
        result = ('*', result, self.signed_power())
      elif self.peek in ('/', r'\div'):
        self.take()
        result = ('/', result, self.signed_power())
      elif self._starts_atom():
        before, last = ['', *self._tokens][self._position - 1 : self._position + 1]
        if self.peek[0] in _DIGITS and last[0] in _DIGITS and before != '^':  # but 2^6 3^5
          raise UnreadableError('two numerals side by side')
        result = self._joined(result)
      else:
        return result

  def _joined(self, left: Node) -> Node:
    is_frac = self.peek == r'\frac'
    right = self.power()
    is_mixed = (
      is_frac
      and left[0] == 'number'
      and left[1].denominator == 1
      and right[0] == '/'
      and right[1][0] == right[2][0] == 'number'
      and right[1][1] < right[2][1]
    )
    return ('+' if is_mixed else '*', left, right)

  def signed_power(self) -> Node:
    is_negative = False
    while self.peek in ('+', '-'):
      is_negative ^= self.take() == '-'
    node = self.power()
    return ('-', node) if is_negative else node

  def _starts_atom(self) -> bool:
    token = self.peek
    if not token or token in ('+', '-', '*', '/', '^', '_', '!', '%', r'\%', ',', "'"):
      return False
    if token == '|':
      return not self._open_bars
    return token not in _BRACKETS.values()

  def power(self) -> Node:
    base = self.atom()
    while self.peek in ('!', '^', '%', r'\%'):
      sign = self.take()
      if sign == '!':
        base = ('!', base)
      elif sign == '^':
        base = ('*', base, DEGREE) if self._takes_degree() else ('^', base, self.exponent())
      else:
        base = ('/', base, ('number', Fraction(100)))
    return base

  def _takes_degree(self) -> bool:
    width = 3 if self.peek == '{' else 1
    ahead = self._tokens[self._position : self._position + width]
    if ahead not in ([r'\circ'], ['{', r'\circ', '}']):
      return False
    self._position += width
    return True

  def exponent(self) -> Node:
    """What stands behind `^`: a group, or one atom with its own powers (from the right)."""
    if self.peek in ('+', '-'):
      sign = self.take()
      return ('-', self.exponent()) if sign == '-' else self.exponent()
    base = self.group('{') if self.peek == '{' else self.atom()
    if self.peek == '^':
      self.take()
      return ('^', base, self.exponent())
    return base

  def group(self, opening: str) -> Node:
    self.take(opening)
    bars, self._open_bars = self._open_bars, int(opening == '|')
    node = self.sum()
    self.take(_BRACKETS[opening])
    self._open_bars = bars
    return node

  def atom(self) -> Node:
    token = self.peek
    if token in _BRACKETS:
      node = self.group(token)
      function = _BRACKET_FUNCTIONS.get(token)
      return ('call', function, node) if function else node
    self.take()
    if token[0] in _DIGITS:
      return number(token)
    name = token.removeprefix('\\')
    if name in ('frac', 'binom') and token[0] == '\\':
      operands = self.group('{'), self.group('{')
      return ('/', *operands) if name == 'frac' else ('call', 'binom', *operands)
    if name == 'sqrt':
      return self.root()
    if name in FUNCTIONS:
      return self.call(FUNCTIONS[name])
    return self.symbol(token, name)

  def root(self) -> Node:
    degree = self.group('[') if self.peek == '[' else ('number', Fraction(2))
    return ('^', self.atom(), ('/', ONE, degree))

  def call(self, function: str) -> Node:
    if function == 'lg':
      function, base = 'log', ('number', Fraction(10))
    else:
      base = self._subscript_node() if function == 'log' and self.peek == '_' else None
    power = None
    if self.peek == '^':
      self.take()
      power = self.exponent()
      if power == ('-', ONE):
        if function not in INVERSES:
          raise UnreadableError(f'inverse of {function}')
        function, power = INVERSES[function], None
    node = ('call', function, *self.arguments(function))
    if base is not None:
      node = ('/', node, ('call', 'log', base))
    return node if power is None else ('^', node, power)

  def _subscript_node(self) -> Node:
    self.take('_')
    return self.atom()

  def arguments(self, function: str) -> list[Node]:
    """In brackets, or the product behind the name up to the next function."""
    count = _NUM_ARGUMENTS.get(function, 1)
    if self.peek in ('(', '[', '{'):
      closing = _BRACKETS[self.take()]
      found = [self.sum()]
      while self.peek == ',':
        self.take()
        found.append(self.sum())
      self.take(closing)
    else:
      found = [self._bare_argument()]
    if len(found) != count:
      raise UnreadableError(f'{function} takes {count}')
    return found

  def _bare_argument(self) -> Node:
    if self.peek in ('+', '-'):
      return self.signed_power()
    node = self.power()
    while (
      self._starts_atom()
      and self.peek.removeprefix('\\') not in FUNCTIONS
      and (self.peek not in ('(', '['))
    ):
      node = self._joined(node)
    if self.peek in ('/', '*', r'\cdot', r'\times'):
      raise UnreadableError('where the argument ends is not clear')
    return node

  def symbol(self, token: str, name: str) -> Node:
    """A letter with its subscript and primes, or a constant, or an unknown function's value."""
    is_letter = len(token) == 1 and token.isalpha()
    if not is_letter and name not in _GREEK and name != 'pi':
      raise UnreadableError(token)
    suffix = self._suffix()
    if not suffix and name in ('pi', 'e', 'i', 'I'):
      return {'pi': PI, 'e': EULER}.get(name, IMAGINARY)
    name += suffix
    if token not in _UNKNOWN_FUNCTIONS:
      return ('symbol', name)
    start = self._position
    if self.peek == '^':
      self.take()
      name += f'^{self.exponent()}'
    if self.peek == '(':
      return ('unknown', name, self.group('('))
    self._position = start
    return ('symbol', token + suffix)

  def _suffix(self) -> str:
    r"""`_1`, `_{max}`, `'` and `^{\prime}`, in one spelling."""
    suffix = ''
    while True:
      if self.peek == '_':
        self.take()
        suffix += f'_{self._subscript()}'
      elif self.peek == "'":
        suffix += self.take()
      elif self.peek == '^' and self._tokens[self._position + 1 : self._position + 4] == [
        '{',
        r'\prime',
        '}',
      ]:
        self._position += 4
        suffix += "'"
      else:
        return suffix

  def _subscript(self) -> str:
    if self.peek != '{':
      return self.take()
    found, depth = [], 0
    while len(found) < _MAX_SUBSCRIPT:
      token = self.take()
      depth += (token == '{') - (token == '}')
      if not depth:
        return ''.join(found[1:])
      found.append(token)
    raise UnreadableError('subscript')
