r"""Tokens -> one expression, a tree of `expressions`. Evaluates nothing but determinants.

The readings that need a rule:

* `2x`, `x y`, `(a)(b)` multiply, from left to right with `/`: `1/8 x` is x/8. Two numerals side by
  side are refused. `2\frac{1}{3}` and `2 1/3` are mixed numbers.
* `e`, `\pi` and `i` are the constants; with a subscript, symbols. `\frac12` takes one digit each.
* `\sin 2x` takes the product behind it, up to the next function. `\sin^2 x` is a square,
  `\sin^{-1} x` the inverse. `\log` is natural without a base.
* Products commute; where they do not (transposes, \otimes, compositions), nothing is read.

What is not listed raises UnreadableError. No word is ever skipped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flint import fmpq, fmpz

from ds_jax.verify.math.expressions import (
  EULER,
  IMAGINARY,
  INFINITY,
  ONE,
  PI,
  Node,
  is_integer,
  leaves,
  number,
  replace,
  symbols,
)
from ds_jax.verify.math.tokens import Token, UnreadableError
from ds_jax.verify.math.vocabulary import INVERSES

MAX_NUMERAL = 1000  # characters
ROUNDED_DIGITS = 6  # significant ones of a decimal that may be rounded
MAX_DEPTH = 40
_MAX_CELLS = 100
_MAX_SUBSCRIPT = 12  # tokens

_BRACKETS = {
  '(': ')',
  '[': ']',
  '{': '}',
  '|': '|',
  r'\|': r'\|',
  r'\lfloor': r'\rfloor',
  r'\lceil': r'\rceil',
}
_BRACKET_FUNCTIONS = {'|': 'abs', r'\lfloor': 'floor', r'\lceil': 'ceil'}
_UNARY = frozenset(
  [*INVERSES, *INVERSES.values(), *'exp abs floor ceil round ln log lg sgn Re Im arg cis'.split()]
)
_SEVERAL = {'gcd': None, 'lcm': None, 'max': None, 'min': None, 'binom': 2, 'atan2': 2, 'nPr': 2}
_GREEK = frozenset(
  (
    'alpha beta gamma delta epsilon zeta eta theta vartheta iota kappa lambda mu nu xi omicron '
    'rho varrho sigma varsigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma '
    'Upsilon Phi Psi Omega hbar ell aleph nabla partial wp Re Im pi'
  ).split()
)
_ACCENTS = frozenset('hat vec tilde dot ddot overline mathring check'.split())
_OPERATORS = frozenset('deg det dim ker angle measuredangle triangle'.split())
_UNKNOWN_FUNCTIONS = frozenset(
  ['f', 'g', 'h', *(rf'\{name}' for name in 'phi psi sigma tau chi zeta Phi Psi Gamma'.split())]
)
_DERIVATIVE = re.compile(
  r'\\frac \{ (?:d|\\partial)\b[^{}]{0,20}\} \{ (?:d|\\partial)|\\frac \{ d[a-zA-Z] \} \{ d'
)
_CONSTANT_LETTERS = {'e': EULER, 'i': IMAGINARY}
_KNOWN_GREEK = {r'\Gamma': 'gamma', r'\zeta': 'zeta'}
_MATRIX_KINDS = frozenset('matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array'.split())
_NO_ATOM = frozenset(
  (
    r"+ - * / ^ _ ! % , ; : = < > ' & } ) ] \} \diff \cdot \div \pm \mp \over \choose \rfloor "
    r'\rceil \\ \mod \bmod \pmod \leq \geq \neq \approx \equiv \in \cup \cap \setminus \to \circ '
    r'\rangle " . ? @ ~'
  ).split()
)


def read(tokens: Sequence[Token]) -> Node:
  """Returns the tree of an expression that the tokens are, all of them.

  Raises:
    UnreadableError: they are none, or hold what this grammar does not know.
  """
  reader = Reader(tokens)
  node = reader.sum()
  if reader.peek in (r'\over', r'\choose'):
    node = reader.infix_fraction(node)
  if reader.peek:
    raise UnreadableError(f'unexpected {reader.peek!r}')
  return node


def numeral(text: str) -> Node:
  """The value of a numeral; a long decimal with half a unit of its last digit."""
  if len(text) > MAX_NUMERAL:
    raise UnreadableError('numeral')
  digits, _, exponent = text.casefold().partition('e')
  whole, _, decimals = digits.partition('.')
  places = int(exponent or 0) - len(decimals)
  if abs(places) > 10**4:
    raise UnreadableError('exponent')
  value = fmpq(fmpz((whole + decimals) or '0')) * fmpq(10) ** places
  is_long = len((whole + decimals).lstrip('0')) >= ROUNDED_DIGITS
  if not is_long or (not decimals and not exponent):
    return ('number', value)
  return ('decimal', value, fmpq(10) ** places / 2)


def repeating(whole: str, fixed: str, repeated: str) -> Node:
  """0.1666… of whole '0', fixed '1', repeated '6'."""
  if len(whole + fixed + repeated) > MAX_NUMERAL:
    raise UnreadableError('numeral')
  value = fmpz(whole + fixed + repeated) - fmpz(whole + fixed or '0')
  return number(fmpq(value, fmpz(10) ** len(fixed) * (fmpz(10) ** len(repeated) - 1)))


def _exploded(tokens: Sequence[Token]) -> list[Token]:
  """Runs of letters as single letters, and the `dx` of integrals as one token `\\diff`."""
  if _DERIVATIVE.search(' '.join(t.text for t in tokens)):
    raise UnreadableError('a derivative')
  has_integral = any(t.text == r'\int' for t in tokens)
  exploded: list[Token] = []
  for token in tokens:
    if token.kind != 'letters' or len(token.text) == 1:
      exploded.append(token)
      continue
    letters, variable = token.text, ''
    if has_integral and letters[-2] == 'd':
      letters, variable = letters[:-2], letters[-1]
    spaces = [token.has_space] + [False] * len(letters)
    exploded += [
      Token('letters', c, token.is_text, s) for c, s in zip(letters, spaces, strict=False)
    ]
    if variable:
      exploded.append(Token('command', r'\diff'))
      exploded.append(Token('letters', variable))
  return exploded


class Reader:
  """A recursive-descent reader. Each method reads one construct and returns its node."""

  def __init__(self, tokens: Sequence[Token]):
    self._tokens = _exploded(tokens)
    self._position = 0
    self._open_bars = 0
    self._depth = 0
    self._num_signs = 0

  @property
  def peek(self) -> str:
    """The text of the next token; '' at the end."""
    if self._position == len(self._tokens):
      return ''
    return self._tokens[self._position].text

  @property
  def _kind(self) -> str:
    """The kind of the next token; '' at the end."""
    if self._position == len(self._tokens):
      return ''
    return self._tokens[self._position].kind

  def _ahead(self, *texts: str) -> bool:
    """Whether these texts are next."""
    tokens = self._tokens[self._position : self._position + len(texts)]
    return tuple(token.text for token in tokens) == texts

  def take(self, expected: str | None = None) -> str:
    token = self.peek
    if not token or (expected is not None and token != expected):
      raise UnreadableError(f'expected {expected!r}, got {token!r}')
    self._position += 1
    return token

  def _takes(self, text: str) -> bool:
    """Takes `text` if it is next."""
    if self.peek != text:
      return False
    self._position += 1
    return True

  def sum(self) -> Node:
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise UnreadableError('nesting')
    terms = []
    while True:
      signs = []
      while self.peek in ('+', '-', r'\pm', r'\mp'):
        signs.append(self.take())
      term = self.product()
      for sign in reversed(signs):
        term = self._signed(sign, term)
      terms.append(term)
      if self.peek not in ('+', '-', r'\pm', r'\mp'):
        break
    self._depth -= 1
    if len(terms) == 1:
      return terms[0]
    return ('+', *terms)

  def _signed(self, sign: str, term: Node) -> Node:
    if sign in (r'\pm', r'\mp'):
      self._num_signs += 1
      return (sign[1:], self._num_signs, term)
    if sign == '-':
      return ('-', term)
    return term

  def product(self) -> Node:
    result = self.power()
    while True:
      if self.peek in ('*', r'\cdot'):
        self.take()
        result = ('*', result, self._signed_power())
      elif self.peek in ('/', r'\div'):
        self.take()
        result = ('/', result, self._signed_power())
      elif self.peek in (r'\mod', r'\bmod'):
        self.take()
        result = ('call', 'mod', result, self._signed_power())
      elif self._starts_atom():
        result = self._joined(result)
      else:
        return result

  def _joined(self, left: Node) -> Node:
    """`left` times what follows it; or a mixed number."""
    is_after_number = self._tokens[self._position - 1].kind == 'number'
    # Two numerals side by side are no product, but 2^6 3^5 is one.
    if self._kind == 'number' and is_after_number and not self._is_exponent(self._position - 1):
      return self._mixed_number(left)
    is_fraction = self.peek == r'\frac'
    right = self.power()
    if is_fraction and is_after_number and _is_mixed(left, right):
      return ('+', left, right)
    return ('*', left, right)

  def _is_exponent(self, position: int) -> bool:
    return position > 0 and self._tokens[position - 1].text == '^'

  def _mixed_number(self, whole: Node) -> Node:
    """`2 1/3`; other numerals side by side are refused."""
    top, slash, bottom = ([t.text for t in self._tokens[self._position :][:3]] + ['', '', ''])[:3]
    is_mixed = (
      self._tokens[self._position].has_space
      and slash == '/'
      and top.isdigit()
      and bottom.isdigit()
      and len(bottom) < 10
      and int(top) < int(bottom)
      and is_integer(whole)
    )
    if not is_mixed:
      raise UnreadableError('two numerals side by side')
    self._position += 3
    return ('+', whole, number(fmpq(int(top), int(bottom))))

  def _signed_power(self) -> Node:
    is_negative = False
    while self.peek in ('+', '-'):
      is_negative ^= self.take() == '-'
    node = self.power()
    if is_negative:
      return ('-', node)
    return node

  def _starts_atom(self) -> bool:
    if not self.peek or self._kind == 'word' or self.peek in _NO_ATOM or self.peek[:5] == r'\end ':
      return False
    if self.peek in ('|', r'\|'):
      return not self._open_bars
    return True

  def power(self) -> Node:
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise UnreadableError('nesting')
    base = self.atom()
    while self.peek in ('!', '^', '%'):
      sign = self.take()
      if sign == '!':
        kind = '!!' if self._takes('!') else '!'
        base = (kind, base)
      elif sign == '%':
        base = ('/', base, number(100))
      elif self._takes_degree():
        base = ('degree', self._with_minutes(base))
      else:
        exponent = self.exponent()
        if base[0] == 'symbol' and self.peek == '_':  # x^2_1
          base = ('symbol', base[1] + self._suffix())
        base = ('^', base, exponent)
    self._depth -= 1
    return base

  def _takes_degree(self) -> bool:
    if self._ahead('{', r'\circ', '}'):
      self._position += 3
      return True
    return self._takes(r'\circ')

  def _with_minutes(self, degrees: Node) -> Node:
    """30^\\circ 15' 20'' in degrees."""
    for seconds, marks in ((60, 1), (3600, 2)):
      tokens = self._tokens[self._position : self._position + 1 + marks]
      after = self._tokens[self._position + 1 + marks : self._position + 2 + marks]
      is_part = len(tokens) == 1 + marks and all(t.text == "'" for t in tokens[1:])
      if is_part and tokens[0].kind == 'number' and not (after and after[0].text == "'"):
        degrees = ('+', degrees, ('/', numeral(tokens[0].text), number(seconds)))
        self._position += 1 + marks
    return degrees

  def exponent(self) -> Node:
    """What stands behind `^`: a group, or one atom with its own powers (from the right)."""
    if self._takes('+'):
      return self.exponent()
    if self._takes('-'):
      return ('-', self.exponent())
    if self.peek in ('T', '*', r'\top', r'\dagger', r'\ast', r'\perp', r'\times', r'\intercal'):
      raise UnreadableError('a product that does not commute')
    if self._ahead('{', 'T', '}') or self._ahead('{', r'\top', '}'):
      raise UnreadableError('a product that does not commute')
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise UnreadableError('nesting')
    if self._kind == 'letters':
      base = self._symbol(self.take(), is_applied=False)  # \cos^n (x)
    elif self.peek == '{':
      base = self.group('{')
    else:
      base = self.atom()
    if self._takes('^'):
      base = ('^', base, self.exponent())
    self._depth -= 1
    return base

  def group(self, opening: str) -> Node:
    self.take(opening)
    # Bars within bars close them; other brackets may hold bars of their own.
    bars = self._open_bars
    self._open_bars = int(opening in ('|', r'\|'))
    node = self.sum()
    if self.peek in (r'\over', r'\choose') and opening == '{':
      node = self.infix_fraction(node)
    self.take(_BRACKETS[opening])
    self._open_bars = bars
    return node

  def infix_fraction(self, top: Node) -> Node:
    return self._fraction(self.take()[1:], top, self.sum())

  def _fraction(self, name: str, top: Node, bottom: Node) -> Node:
    if name in ('binom', 'choose'):
      return ('call', 'binom', top, bottom)
    return ('/', top, bottom)

  def _argument(self) -> Node:
    """A group, or as TeX has it, one digit, letter or command."""
    if self.peek == '{':
      return self.group('{')
    # \frac12 is 1/2: the numeral is split behind its first digit.
    if self._kind == 'number' and len(self.peek) > 1:
      first = Token('number', self.peek[0])
      others = Token('number', self.peek[1:])
      self._tokens[self._position : self._position + 1] = [first, others]
    return self.atom()

  def atom(self) -> Node:
    token = self.peek
    kind = self._kind
    if token == '^' or token == '_' or self._ahead('{', '}', '^') or self._ahead('{', '}', '_'):
      return self._combinations_behind_index()
    if token in _BRACKETS:
      node = self.group(token)
      if token == r'\|':
        return ('apply', 'norm' + self._suffix(), node)
      if token in _BRACKET_FUNCTIONS:
        return ('call', _BRACKET_FUNCTIONS[token], node)
      return node
    if kind == 'number':
      return self._number(self.take())
    if token == '.' and self._tokens[self._position + 1 :][:1] and self._decimal_follows():
      self.take()
      return self._number('0.')
    self.take()
    if kind == 'letters':
      return self._letter(token)
    if kind != 'command':
      raise UnreadableError(token)
    return self._command(token, token[1:])

  def _decimal_follows(self) -> bool:
    return self._tokens[self._position + 1].text in (r'\overline', r'\dot')

  def _number(self, text: str) -> Node:
    if '.' in text and text[-1] != '.' and self.peek == r'\ldots':
      self.take()
      return self._repeating_by_example(text)
    if '.' in text and self.peek in (r'\overline', r'\dot'):
      self.take()
      content = re.sub('[{}]', '', ''.join(t.text for t in self._group_tokens()))
      whole, _, fixed = text.partition('.')
      if not content.isdigit() or self._kind == 'number':
        raise UnreadableError('repeating decimal')
      return repeating(whole, fixed, content)
    if self.peek in ('C', 'P') and text.isdigit():  # 10C3
      following = self._tokens[self._position + 1 : self._position + 2]
      if following and following[0].kind == 'number' and not following[0].has_space:
        name = self.take()
        return self._choice(name, numeral(text), numeral(self.take()))
    return numeral(text)

  def _repeating_by_example(self, text: str) -> Node:
    """0.272727…: the last digits stand there twice or more."""
    whole, _, decimals = text.partition('.')
    for period in range(1, len(decimals) // 2 + 1):
      block = decimals[-period:]
      if decimals[-2 * period : -period] == block:
        start = len(decimals) - 2 * period
        while start >= period and decimals[start - period : start] == block:
          start -= period
        return repeating(whole, decimals[:start], block)
    raise UnreadableError('a decimal that goes on')

  def _group_tokens(self) -> list[Token]:
    """Takes a group, or one token, without reading it."""
    depth = 0
    start = self._position
    while True:
      text = self.take()
      depth += (text == '{') - (text == '}')
      if depth <= 0:
        return self._tokens[start : self._position]

  def _choice(self, name: str, n: Node, k: Node) -> Node:
    function = 'binom' if name == 'C' else 'nPr'
    return ('call', function, n, k)

  def _combinations_behind_index(self) -> Node:
    """^{10}C_3, _{10}C_3 and {}_{10}P_3."""
    if self.peek == '{':
      self._position += 2
    self.take()
    n = self._argument()
    name = self.take()
    if name not in ('C', 'P'):
      raise UnreadableError('an index in front')
    self.take('_')
    return self._choice(name, n, self._argument())

  def _command(self, token: str, name: str) -> Node:
    if name in ('frac', 'binom') and (name == 'frac' or self.peek == '{' or self._kind == 'number'):
      return self._fraction(name, self._argument(), self._argument())
    if name == 'sqrt':
      return self._root(2)
    if name == 'cbrt':
      return self._root(3)
    if name in _SEVERAL:
      return ('call', name, *self._listed(name, _SEVERAL[name]))
    if name in ('sum', 'prod', 'int'):
      return self._series(name)
    if name == 'lim':
      return self._limit()
    if name in _UNARY and not (name in ('Re', 'Im') and self.peek not in ('(', '{')):
      return self._call(name)
    if name.startswith('begin ') and name.removeprefix('begin ') in _MATRIX_KINDS:
      return self._matrix(name.removeprefix('begin '))
    if name == 'infty':
      return INFINITY
    if name == 'pi' and self.peek != '_':
      return PI
    if name in _ACCENTS:
      return self._accented(name)
    if name in _OPERATORS:  # \angle ABC, \det A: a name
      content = [t.text for t in self._group_tokens()]
      while self._kind == 'letters':
        content.append(self.take())
      return ('symbol', f'{token} {"".join(content)}')
    if name in _GREEK or name.startswith(('mathbb ', 'mathcal ', 'mathfrak ', 'mathscr ')):
      return self._symbol(token)
    raise UnreadableError(token)

  def _accented(self, accent: str) -> Node:
    start = self._position
    content = self._group_tokens()
    if accent == 'overline':
      after, self._position = self._position, start
      node = self._argument()
      if after == self._position and ('constant', 'i') in leaves(node):
        return ('call', 'conj', node)
      self._position = after
    if any(t.kind == 'number' for t in content[:2]):
      raise UnreadableError(accent)
    return self._symbol(f'{accent} ' + ''.join(t.text for t in content if t.text not in '{}'))

  def _root(self, degree: int) -> Node:
    index = number(degree)
    if degree == 2 and self.peek == '[':
      index = self.group('[')
    if self.peek == '(':
      radicand = self.group('(')
    else:
      radicand = self._root_argument()
    return ('^', radicand, ('/', ONE, index))

  def _root_argument(self) -> Node:
    if self.peek == '{':
      return self.group('{')
    return self.atom()

  def _listed(self, name: str, count: int | None) -> list[Node]:
    """Arguments between brackets: \\gcd(a,b), \\max\\{a,b\\}."""
    opening = self.take()
    closings = {'(': ')', r'\{': r'\}', '{': '}', '[': ']'}
    if opening not in closings:
      raise UnreadableError(name)
    arguments = [self.sum()]
    while self._takes(','):
      arguments.append(self.sum())
    self.take(closings[opening])
    if count is not None and len(arguments) != count:
      raise UnreadableError(f'{name} takes {count}')
    return arguments

  def _call(self, function: str) -> Node:
    base = None
    if function == 'lg':
      function, base = 'log', number(10)
    elif function == 'log' and self._takes('_'):
      base = self._argument()
    power = None
    if self._takes('^'):
      power = self.exponent()
      if power == ('-', ONE):
        if function not in INVERSES:
          raise UnreadableError(f'inverse of {function}')
        function = INVERSES[function]
        power = None
    if function == 'log':
      function = 'ln'
    node = ('call', function, self._call_argument())
    if base is not None:  # log_b x = ln x / ln b
      node = ('/', node, ('call', 'ln', base))
    if power is not None:  # \sin^2 x
      node = ('^', node, power)
    return node

  def _call_argument(self) -> Node:
    """In brackets, or the product behind the name up to the next function."""
    if self.peek in ('(', '[', '{'):
      return self.group(self.peek)
    if self.peek in ('+', '-'):
      return self._signed_power()
    node = self.power()
    while self._starts_atom() and not self._starts_function() and self.peek not in ('(', '['):
      node = self._joined(node)
    if self.peek in ('/', '*', r'\cdot') and not self._function_follows():
      raise UnreadableError('where the argument ends is not clear')
    return node

  def _function_follows(self) -> bool:
    """Whether another function stands behind the next sign: \\ln 2 / \\ln 3."""
    following = self._tokens[self._position + 1 : self._position + 2]
    return bool(following) and following[0].kind == 'command' and following[0].text[1:] in _UNARY

  def _starts_function(self) -> bool:
    return self._kind == 'command' and self.peek[1:] in _UNARY

  def _series(self, name: str) -> Node:
    variable, low, high = None, None, None
    while self.peek in ('_', '^'):
      if self.take() == '^':
        high = self._argument()
      elif name == 'int':
        low = self._argument()
      else:
        self.take('{')
        variable = self._variable()
        self.take('=')
        low = self.sum()
        self.take('}')
    if low is None or high is None:
      raise UnreadableError(f'{name} without bounds')
    if name == 'int':
      body = ONE
      if self.peek != r'\diff':
        body = self.sum()
      self.take(r'\diff')
      variable = self._variable()
    else:
      body = self.product()
    if variable is None:
      raise UnreadableError(f'{name} without a variable')
    if variable == 'i':  # an index, not the imaginary unit
      body = replace(body, lambda part: ('symbol', 'i') if part == IMAGINARY else None)
    return (name, variable, low, high, body)

  def _variable(self) -> str:
    node = self.atom()
    if node == IMAGINARY:
      return 'i'
    if node[0] != 'symbol':
      raise UnreadableError('variable')
    return node[1]

  def _limit(self) -> Node:
    self.take('_')
    self.take('{')
    variable = self._variable()
    self.take(r'\to')
    target, side = self._limit_target()
    self.take('}')
    return ('lim', variable, target, side, self.product())

  def _limit_target(self) -> tuple[Node, int]:
    """Where to, and from which side: 0^+ is (0, 1)."""
    for sign, side in (('+', 1), ('-', -1)):
      tokens = [t.text for t in self._tokens[self._position : self._position + 6]]
      for suffix in (['^', sign, '}'], ['^', '{', sign, '}', '}']):
        if tokens[1 : 1 + len(suffix)] == suffix:
          target = self.atom()
          self._position += len(suffix) - 1
          return target, side
    return self.sum(), 0

  def _letter(self, letter: str) -> Node:
    if letter in ('C', 'P') and self._ahead('_'):
      choice = self._indexed_choice(letter)
      if choice:
        return choice
    if letter in ('C', 'P') and self.peek == '(':
      start = self._position
      try:
        arguments = self._listed(letter, 2)
        is_counted = all(map(is_integer, arguments)) and arguments[0][1] >= arguments[1][1] >= 0
        if is_counted or letter == 'C' and any(map(symbols, arguments)):
          return self._choice(letter, *arguments)
      except UnreadableError:
        pass
      self._position = start
    return self._symbol(letter)

  def _indexed_choice(self, letter: str) -> Node | None:
    """C_{10}^3 is \\binom{10}{3}."""
    start = self._position
    try:
      self.take('_')
      n = self._argument()
      self.take('^')
      k = self._argument()
      is_choice = is_integer(n) and is_integer(k) and n[1] >= k[1]
      if is_choice or letter == 'C' and n[0] == k[0] == 'symbol':
        return self._choice(letter, n, k)
    except UnreadableError:
      pass
    self._position = start
    return None

  def _symbol(self, token: str, is_applied: bool = True) -> Node:
    """A letter with its subscript and primes, or a constant, or a function's value."""
    suffix = self._suffix()
    if token in _CONSTANT_LETTERS and not suffix:
      return _CONSTANT_LETTERS[token]
    name = token + suffix
    if self.peek == '(' and not suffix and token in _KNOWN_GREEK and is_applied:
      return ('call', _KNOWN_GREEK[token], self.group('('))
    # f(x), f^2(x), P(3, -4) and u(t) are values; k(k + 1) is a product.
    start = self._position
    is_function = token in _UNKNOWN_FUNCTIONS or "'" in suffix or token.startswith(r'\mathcal')
    if is_function and self._takes('^'):
      name += f'^{self.exponent()}'
    has_arguments = is_function or self._has_comma_inside() or self._has_one_inside()
    if self.peek == '(' and has_arguments and is_applied:
      return ('apply', name, *self._listed(name, None))
    self._position = start
    return ('symbol', token + suffix)

  def _has_one_inside(self) -> bool:
    """Whether one number or letter stands between the brackets behind a letter: I(0), u(t)."""
    return self._ahead('(') and [t.text for t in self._tokens[self._position + 2 :][:1]] == [')']

  def _has_comma_inside(self) -> bool:
    depth = 0
    for token in self._tokens[self._position :]:
      if token.text in ('(', '{', '['):
        depth += 1
      elif token.text in (')', '}', ']'):
        depth -= 1
      if depth == 1 and token.text == ',':
        return True
      if depth <= 0:
        return False
    return False

  def _suffix(self) -> str:
    """`_1`, `_{max}` and `'`, in one spelling."""
    suffix = ''
    while True:
      if self._takes('_'):
        content = [t.text for t in self._group_tokens() if t.text not in ('{', '}')]
        if len(content) > _MAX_SUBSCRIPT:
          raise UnreadableError('subscript')
        suffix += '_' + ''.join(content)
      elif self._takes("'"):
        suffix += "'"
      else:
        return suffix

  def _matrix(self, kind: str) -> Node:
    if kind == 'array' and self.peek == '{':
      self._group_tokens()
    rows: list[tuple[Node, ...]] = []
    cells: list[Node] = []
    while self.peek != rf'\end {kind}':
      if self._takes(r'\\'):
        if self.peek == '[':
          while self.take() != ']':
            pass
        if cells:
          rows.append(tuple(cells))
        cells = []
      elif not self._takes('&'):
        cells.append(self.sum())
      if len(rows) * len(cells) > _MAX_CELLS or len(cells) > _MAX_CELLS:
        raise UnreadableError('matrix')
    self.take()
    if cells:
      rows.append(tuple(cells))
    if not rows or len({*map(len, rows)}) != 1:
      raise UnreadableError('matrix')
    if kind == 'vmatrix':
      if len(rows) != len(rows[0]) or len(rows) > 4:
        raise UnreadableError('determinant')
      return determinant(rows)
    return ('matrix', tuple(rows))


def _is_mixed(left: Node, right: Node) -> bool:
  """Whether a whole number and a fraction below 1 stand side by side: 2\\frac{1}{3}."""
  if not is_integer(left) or right[0] != '/':
    return False
  _, top, bottom = right
  return is_integer(top) and is_integer(bottom) and top[1] < bottom[1]


def determinant(rows: Sequence[Sequence[Node]]) -> Node:
  """By the first row (Laplace)."""
  if len(rows) == 1:
    return rows[0][0]
  terms = []
  for j, cell in enumerate(rows[0]):
    minor = [[c for k, c in enumerate(row) if k != j] for row in rows[1:]]
    term = ('*', cell, determinant(minor))
    if j % 2:  # the signs alternate
      term = ('-', term)
    terms.append(term)
  return ('+', *terms)
