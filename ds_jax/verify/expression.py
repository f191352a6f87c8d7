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

from ds_jax.verify.brackets import closing_index

Node = tuple[Any, ...]  # (kind, operands …): see `Reader`

ZERO, ONE = ('number', Fraction(0)), ('number', Fraction(1))
PI, EULER, IMAGINARY = ('constant', 'pi'), ('constant', 'e'), ('constant', 'i')
DEGREE = ('/', PI, ('number', Fraction(180)))


class UnreadableError(Exception):
  """The text is not an expression of this grammar."""


_TRIG = 'sin cos tan cot sec csc'.split()
_HYPERBOLIC = [f'{name}h' for name in _TRIG]
INVERSES = {name: f'arc{name}' for name in (*_TRIG, *_HYPERBOLIC)}
_OTHER_FUNCTIONS = 'sqrt cbrt exp ln log lg abs floor ceil round binom atan2'.split()
_SYNONYMS = {
  'nCr': 'binom',
  'tg': 'tan',
  'ctg': 'cot',
  'arctg': 'arctan',
  **{f'a{name}': inverse for name, inverse in INVERSES.items()},
  **{f'ar{name}': f'arc{name}' for name in _HYPERBOLIC},
}
# {the name as written: the name in a tree}
FUNCTIONS = {
  **{name: name for name in (*INVERSES, *INVERSES.values(), *_OTHER_FUNCTIONS)},
  **_SYNONYMS,
}
_NUM_ARGUMENTS = {'binom': 2, 'atan2': 2}
_GREEK_NAMES = (
  'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi '
  'rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi '
  'Omega hbar ell'
)
_GREEK = frozenset(_GREEK_NAMES.split())
_UNKNOWN_FUNCTIONS = frozenset('fgh')
# {what opens a bracket: what closes it}
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
# A word as text, such as \text{cm}, is a product of letters like any other.
_TEXT = re.compile(r'\\text\s*\{\s*([A-Za-z]+)\s*\}')
# Whole part, fixed and repeated decimals: 0.1\overline{6}.
_REPEATING = re.compile(r'(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d{1,40})\}', re.ASCII)
_MAX_FACTORS = 3  # letters of an unknown word that are read as a product
_MAX_SUBSCRIPT = 6  # tokens between its braces
_DIGITS = frozenset('0123456789.')
_BETWEEN_ATOMS = frozenset(('+', '-', '*', '/', '^', '_', '!', '%', r'\%', ',', "'"))
_PRIME = ['^', '{', r'\prime', '}']
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
  """The tree of left - right."""
  return ('+', left, ('-', right))


def number(text: str) -> Node:
  """The value of a numeral; a long decimal with half a unit of its last digit."""
  if len(text) > MAX_NUMERAL:
    raise UnreadableError('numeral')
  mantissa, _, exponent = text.partition('E')
  num_places = len(mantissa.partition('.')[2])
  num_significant = len(mantissa.replace('.', '').lstrip('0'))
  if not num_places or num_significant < ROUNDED_DIGITS:
    return ('number', Fraction(text))
  # The last digit of 1.23E5 is worth 10^(5 - 2).
  last_unit = Fraction(10) ** (int(exponent or 0) - num_places)
  return ('decimal', Fraction(text), last_unit / 2)


def _tokens(text: str) -> list[str]:
  """Numerals, commands, names, signs and brackets; unknown short words as single letters."""
  text = _REPEATING.sub(_repeating_decimal, _TEXT.sub(r' \1 ', text)).rstrip()
  tokens: list[str] = []
  position = 0
  while position < len(text):
    match = _TOKEN.match(text, position)
    if match is None:
      raise UnreadableError(f'unexpected {text[position : position + 10]!r}')
    position = match.end()
    word = match['word']
    if word is None or _is_known(word):
      tokens.append(match[0].strip())
    elif len(word) <= _MAX_FACTORS:
      tokens += word
    else:
      raise UnreadableError(word)
  return tokens


def _is_known(word: str) -> bool:
  return word in FUNCTIONS or word in _GREEK or word == 'pi'


def _repeating_decimal(match: re.Match) -> str:
  r"""`0.1\overline{6}` as a fraction: (16 - 1) / (10 * 9)."""
  whole, fixed, repeated = match.groups()
  scale = 10 ** len(fixed)
  # With p repeated digits, 10^p x - x has no digits behind the fixed ones.
  difference = int(whole + fixed + repeated or '0') - int(whole + fixed or '0')
  return f' ({difference}/{scale * (10 ** len(repeated) - 1)}) '


def _is_proper_fraction(node: Node) -> bool:
  """Whether a tree is a quotient of two numbers and less than 1."""
  if node[0] != '/' or node[1][0] != 'number' or node[2][0] != 'number':
    return False
  return node[1][1] < node[2][1]


class Reader:
  """A recursive-descent reader over tokens. Each method reads one construct and returns its node.

  Nodes: ('number', Fraction), ('decimal', Fraction, half a unit), ('constant', name),
  ('symbol', name), ('+', …), ('*', …), ('-', a), ('/', a, b), ('^', a, b), ('!', a),
  ('call', function, …), ('unknown', name, a).
  """

  def __init__(self, tokens: list[str]):
    self._tokens = [*tokens, '']
    self._position = 0
    self._open_bars = 0  # 1 directly within |…|, where a bar closes and does not open

  @property
  def peek(self) -> str:
    """The next token; '' at the end."""
    return self._tokens[self._position]

  @property
  def is_done(self) -> bool:
    return not self.peek

  def take(self, expected: str | None = None) -> str:
    """Moves over the next token, which must be `expected` if that is given, and returns it."""
    token = self.peek
    if not token or (expected is not None and token != expected):
      raise UnreadableError(f'expected {expected!r}, got {token!r}')
    self._position += 1
    return token

  def sum(self) -> Node:
    """Terms with signs, up to what is no term: `a - b + c`."""
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
    """Powers, multiplied with or without a sign and divided, from left to right."""
    result = self.power()
    while True:
      if self.peek in ('*', r'\cdot', r'\times'):
        self.take()
        result = ('*', result, self.signed_power())
      elif self.peek in ('/', r'\div'):
        self.take()
        result = ('/', result, self.signed_power())
      elif self._starts_atom():
        if self._is_between_numerals():
          raise UnreadableError('two numerals side by side')
        result = self._joined(result)
      else:
        return result

  def _is_between_numerals(self) -> bool:
    """Whether the token before and the next one are numerals; not in `2^6 3^5`."""
    before_last, last = ['', *self._tokens][self._position - 1 : self._position + 1]
    return self.peek[0] in _DIGITS and last[0] in _DIGITS and before_last != '^'

  def _joined(self, left: Node) -> Node:
    """`left` and the power behind it, without a sign between them: a product or a mixed number."""
    is_frac = self.peek == r'\frac'
    is_whole = left[0] == 'number' and left[1].denominator == 1
    right = self.power()
    is_mixed = is_frac and is_whole and _is_proper_fraction(right)
    return ('+' if is_mixed else '*', left, right)

  def signed_power(self) -> Node:
    """A power behind signs, as after `*` and `/`: `2 * -3`."""
    is_negative = False
    while self.peek in ('+', '-'):
      is_negative ^= self.take() == '-'
    node = self.power()
    return ('-', node) if is_negative else node

  def _starts_atom(self) -> bool:
    """Whether the next token can begin a factor."""
    token = self.peek
    if not token or token in _BETWEEN_ATOMS:
      return False
    if token == '|':
      return not self._open_bars
    return token not in _BRACKETS.values()

  def power(self) -> Node:
    """An atom with what stands behind it: powers, degrees, factorials and percent signs."""
    base = self.atom()
    while self.peek in ('!', '^', '%', r'\%'):
      sign = self.take()
      if sign == '!':
        base = ('!', base)
      elif sign == '^' and self._takes_degree():
        base = ('*', base, DEGREE)
      elif sign == '^':
        base = ('^', base, self.exponent())
      else:
        base = ('/', base, ('number', Fraction(100)))
    return base

  def _takes_degree(self) -> bool:
    r"""Moves over `\circ` or `{\circ}`; whether it was there."""
    width = 3 if self.peek == '{' else 1
    ahead = self._tokens[self._position : self._position + width]
    if ahead not in ([r'\circ'], ['{', r'\circ', '}']):
      return False
    self._position += width
    return True

  def exponent(self) -> Node:
    """What stands behind `^`: a group, or one atom with its own powers (from the right)."""
    if self.peek in ('+', '-'):
      is_negative = self.take() == '-'
      return ('-', self.exponent()) if is_negative else self.exponent()
    base = self.group('{') if self.peek == '{' else self.atom()
    if self.peek == '^':
      self.take()
      return ('^', base, self.exponent())
    return base

  def group(self, opening: str) -> Node:
    """A sum in brackets."""
    self.take(opening)
    outer_bars = self._open_bars
    self._open_bars = int(opening == '|')
    node = self.sum()
    self.take(_BRACKETS[opening])
    self._open_bars = outer_bars
    return node

  def atom(self) -> Node:
    """A bracket, a numeral, a fraction, a root, a function's value or a symbol."""
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
    r"""What stands behind `\sqrt`, with its degree in square brackets."""
    degree = self.group('[') if self.peek == '[' else ('number', Fraction(2))
    # The n-th root of x is x^(1/n).
    return ('^', self.atom(), ('/', ONE, degree))

  def call(self, function: str) -> Node:
    """A function's value, with the base and the power that stand before the argument."""
    base = power = None
    # The base of a logarithm: \lg x is that of base 10, \log_2 x that of base 2.
    if function == 'lg':
      function, base = 'log', ('number', Fraction(10))
    elif function == 'log' and self.peek == '_':
      self.take()
      base = self.atom()
    # A power before the argument: \sin^2 x = (\sin x)^2, but \sin^{-1} is the inverse.
    if self.peek == '^':
      self.take()
      power = self.exponent()
      if power == ('-', ONE):
        if function not in INVERSES:
          raise UnreadableError(f'inverse of {function}')
        function, power = INVERSES[function], None
    node = ('call', function, *self.arguments(function))
    if base is not None:  # log_b x = ln x / ln b
      node = ('/', node, ('call', 'log', base))
    return node if power is None else ('^', node, power)

  def arguments(self, function: str) -> list[Node]:
    """In brackets, or the product behind the name up to the next function."""
    if self.peek in ('(', '[', '{'):
      closing = _BRACKETS[self.take()]
      arguments = [self.sum()]
      while self.peek == ',':
        self.take()
        arguments.append(self.sum())
      self.take(closing)
    else:
      arguments = [self._bare_argument()]
    count = _NUM_ARGUMENTS.get(function, 1)
    if len(arguments) != count:
      raise UnreadableError(f'{function} takes {count}')
    return arguments

  def _bare_argument(self) -> Node:
    """The product behind a function's name, up to the next function or bracket."""
    if self.peek in ('+', '-'):
      return self.signed_power()
    node = self.power()
    while self._starts_atom() and not self._starts_call():
      node = self._joined(node)
    if self.peek in ('/', '*', r'\cdot', r'\times'):
      raise UnreadableError('where the argument ends is not clear')
    return node

  def _starts_call(self) -> bool:
    """Whether the next token is a function, or a bracket that may hold arguments."""
    return self.peek.removeprefix('\\') in FUNCTIONS or self.peek in ('(', '[')

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
    unpowered_name = name
    if self.peek == '^':  # f^2 is a function of its own
      self.take()
      name += f'^{self.exponent()}'
    if self.peek == '(':
      return ('unknown', name, self.group('('))
    self._position = start
    return ('symbol', unpowered_name)

  def _suffix(self) -> str:
    r"""`_1`, `_{max}`, `'` and `^{\prime}`, in one spelling."""
    suffix = ''
    while True:
      if self.peek == '_':
        self.take()
        suffix += f'_{self._subscript()}'
      elif self.peek == "'":
        suffix += self.take()
      elif self._tokens[self._position : self._position + 4] == _PRIME:
        self._position += len(_PRIME)
        suffix += "'"
      else:
        return suffix

  def _subscript(self) -> str:
    """One token, or the tokens in braces."""
    if self.peek != '{':
      return self.take()
    begin = self._position + 1
    end = closing_index(self._tokens, self._position, ('{',), ('}',))
    if end is None or end - begin > _MAX_SUBSCRIPT:
      raise UnreadableError('subscript')
    self._position = end + 1
    return ''.join(self._tokens[begin:end])
