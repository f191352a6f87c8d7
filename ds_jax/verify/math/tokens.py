r"""Text -> tokens: answers in one spelling, with nothing dropped that carries a meaning.

* Unicode: digits of any script, full-width and mathematical letters are their ASCII twins; runs of
  raised and lowered digits, vulgar fractions, roots, signs and Greek letters are their LaTeX.
  Letters of other scripts that only look like Latin ones stay what they are.
* Layout goes: `$`, \left, \displaystyle, thin spaces, colours, bold, \boxed, …; synonyms get one
  name.
* \text{…}, \mathrm{…} and their like are opened: their words become tokens marked `is_text`.
* Letters in formulas: names of functions become commands (`sin`, `sqrt`), words become words, and
  other runs stay one token `letters` (a product, a name or a unit: the readers decide).
* Numbers: thousands separators are joined. A comma inside brackets, or one with a space behind it,
  separates two numbers instead.

Everything is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from ds_jax.verify.math.vocabulary import FUNCTION_NAMES, is_word

MAX_TOKENS = 700
_MAX_DEPTH = 6  # of \text{… \text{…} …}


class UnreadableError(Exception):
  """The text is no answer of the grammar."""


class Token(NamedTuple):
  """A piece of an answer.

  `kind` is one of number, letters, word, command, sign; `sign` holds brackets and operators, and
  whatever character is known to nothing else.
  """

  kind: str
  text: str
  is_text: bool = False  # stands in \text{…} or the like
  has_space: bool = False  # white space before it
  is_grouped: bool = False  # a number with commas between its thousands


_GREEK = 'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho'
_GREEK_2 = 'sigma tau upsilon phi chi psi omega'
_GREEK_CAPITALS = 'Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega'
_SYMBOLS = {
  **dict.fromkeys('−–—‒‐‑―﹣', '-'),
  **dict.fromkeys('’′‘', "'"),
  **dict.fromkeys('⋅·∙•', r'\cdot '),
  **dict.fromkeys('\u200b\u2061\u2062', ' '),
  '″': "''",
  '“': '"',
  '”': '"',
  '×': r'\times ',
  '✕': r'\times ',
  '÷': r'\div ',
  '∞': r'\infty ',
  '≤': r'\leq ',
  '⩽': r'\leq ',
  '≥': r'\geq ',
  '⩾': r'\geq ',
  '≠': r'\neq ',
  '≈': r'\approx ',
  '≡': r'\equiv ',
  '∪': r'\cup ',
  '∩': r'\cap ',
  '∖': r'\setminus ',
  '∈': r'\in ',
  '∉': r'\notin ',
  '±': r'\pm ',
  '∓': r'\mp ',
  '°': r'^\circ ',
  '∅': r'\emptyset ',
  '∠': r'\angle ',
  '⊆': r'\subseteq ',
  '⊂': r'\subset ',
  '⊇': r'\supseteq ',
  '⊃': r'\supset ',
  '∼': r'\sim ',
  '≅': r'\cong ',
  '⊥': r'\perp ',
  '↦': r'\mapsto ',
  '⇔': r'\Leftrightarrow ',
  '△': r'\triangle ',
  '→': r'\to ',
  '⇒': r'\Rightarrow ',
  '∧': r'\land ',
  '∨': r'\lor ',
  '¬': r'\neg ',
  '∑': r'\sum ',
  '∏': r'\prod ',
  '∫': r'\int ',
  '∣': r'\mid ',
  '∥': r'\|',
  '⟨': r'\langle ',
  '⟩': r'\rangle ',
  '⌊': r'\lfloor ',
  '⌋': r'\rfloor ',
  '⌈': r'\lceil ',
  '⌉': r'\rceil ',
  '…': r'\ldots ',
  '⋯': r'\ldots ',
  '。': '.',
  '，': ', ',
  '、': ', ',
  '：': ':',
  '；': ';',
  '⁄': '/',
  '∕': '/',
  'µ': r'\mu ',
  '∛': r'\sqrt[3]',
  'ϕ': r'\phi ',
  'ϵ': r'\epsilon ',
  'ℝ': r'\mathbb{R}',
  'ℤ': r'\mathbb{Z}',
  'ℕ': r'\mathbb{N}',
  'ℚ': r'\mathbb{Q}',
  'ℂ': r'\mathbb{C}',
  **{chr(0x3B1 + i): rf'\{name} ' for i, name in enumerate(_GREEK.split())},
  'ς': r'\sigma ',
  **{chr(0x3C3 + i): rf'\{name} ' for i, name in enumerate(_GREEK_2.split())},
  **{c: rf'\{name} ' for c, name in zip('ΓΔΘΛΞΠΣΦΨΩ', _GREEK_CAPITALS.split(), strict=True)},
}
_RAISED = dict(zip('⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ', '0123456789+-()nix', strict=True))
_LOWERED = dict(zip('₀₁₂₃₄₅₆₇₈₉₊₋ₙₖₓ', '0123456789+-nkx', strict=True))
_RAISED_RUN, _LOWERED_RUN = (re.compile(f'[{"".join(each)}]+') for each in (_RAISED, _LOWERED))
_GLYPH_ROOT = re.compile(r'√\s*(?:\(([^()]*)\)|([\d.]+|[A-Za-z]|(?=[\\{])))')
_VULGAR = re.compile(r'(\d+)⁄(\d+)')

_LAYOUT = re.compile(
  r'\\(?:displaystyle|textstyle|scriptstyle|left|middle|right|[bB]igg?[lr]?|n?o?limits|mathstrut'
  r'|hfill|noindent|bf|rm|it|sf|boldmath|Large|large|huge|small|null|nonumber|notag'
  r'|allowbreak|relax|mathrel|mathbin|mathop|mathord)(?![A-Za-z])\.?'
  r'|\\color\s*\{[^{}]{0,40}\}|\\textcolor\s*\{[^{}]{0,40}\}|\\[hv]space\*?\s*\{[^{}]{0,20}\}'
  r'|\\tag\*?\s*\{[^{}]{0,20}\}|\\!\s*|(?<!\\)\\[()\[\]]|\*\*(?=[^*]{1,200}\*\*$)|(?<=\S)\*\*$'
  r'|\\(?:phantom|hphantom|vphantom)\s*(?:\{[^{}]{0,40}\})?'
)
_THIN = re.compile(r'\\[,;:>]|(?<!\\)\\ |~|\\q?quad(?![A-Za-z])|\\enspace(?![A-Za-z])')
_PRIMES = re.compile(r"\^\s*(?:\{\s*((?:\\prime\s*|'\s*){1,4})\}|\\prime(?![A-Za-z]))")
_ESCAPED_TWICE = re.compile(r'\\\\(?=[A-Za-z()\[\]{}])')  # of a string within a string
_E_NOTATION = r'(?:[eE][+-]?\d{1,6}(?!\d|\.\d|[A-Za-z]))?'
_TOKEN = re.compile(
  r'(?P<space>\s+)'
  r'|(?P<number>(?:\d{1,3}(?:(?:\s?\{\s?,\s?\}\s?|(?P<comma>,))\d{3})+(?![\d])(?!\{?,\}?\d)|\d+)(?:\.\d+|\.(?!\.))?'
  rf'{_E_NOTATION}|\.\d+{_E_NOTATION})'
  r'|(?P<command>\\(?:[A-Za-z]+|[%$&#_|{}\\]))'
  r'|(?P<letters>atan2|[A-Za-z]+)'
  r'|(?P<sign>\*\*|<=|>=|!=|<>|==|\.\.\.+|.)',
  re.ASCII | re.DOTALL,
)
_TEXT_COMMANDS = frozenset(
  'text mathrm textrm textit textsf texttt textnormal textup textsl textbf textmd mbox hbox '
  'operatorname mathsf mathtt mathit rm unit emph'.split()
)
_WRAPPERS = frozenset(  # of one argument that is the same without them
  'mathbf boldsymbol bm pmb underline boxed fbox ensuremath num mathnormal uline smash '
  'underbrace overbrace cancel operatorname* mathord left right'.split()
)
_SYNONYMS = {
  **dict.fromkeys('dfrac tfrac cfrac nicefrac sfrac flatfrac'.split(), r'\frac'),
  **dict.fromkeys(('dbinom', 'tbinom'), r'\binom'),
  **dict.fromkeys('dots cdots dotsc dotsb dotsm dotso hdots mathellipsis'.split(), r'\ldots'),
  **dict.fromkeys('le leqslant leqq'.split(), r'\leq'),
  **dict.fromkeys('ge geqslant geqq'.split(), r'\geq'),
  **dict.fromkeys(('varnothing', 'O'), r'\emptyset'),
  **dict.fromkeys(('rightarrow', 'longrightarrow'), r'\to'),
  **dict.fromkeys(('implies', 'Longrightarrow'), r'\Rightarrow'),
  **dict.fromkeys(('iff', 'Longleftrightarrow'), r'\Leftrightarrow'),
  **dict.fromkeys(('simeq', 'thickapprox'), r'\approx'),
  **dict.fromkeys(('lvert', 'rvert', 'vert'), '|'),
  **dict.fromkeys(('lVert', 'rVert', 'Vert', '|'), r'\|'),
  'lt': '<',
  'gt': '>',
  'ne': r'\neq',
  'neq': r'\neq',
  'wedge': r'\land',
  'vee': r'\lor',
  'lnot': r'\neg',
  'lbrace': r'\{',
  'rbrace': r'\}',
  'lbrack': '[',
  'rbrack': ']',
  'colon': ':',
  'degree': r'^\circ',
  'percent': '%',
  '%': '%',
  'prime': "'",
  'ast': '*',
  'cdotp': r'\cdot',
  'times': r'\cdot',
  'owns': r'\ni',
  'smallsetminus': r'\setminus',
  'backslash': r'\setminus',
  'reals': r'\mathbb R',
  'R': r'\mathbb R',
  'Z': r'\mathbb Z',
  'N': r'\mathbb N',
  'Q': r'\mathbb Q',
  'varphi': r'\phi',
  'varepsilon': r'\epsilon',
  'arctg': r'\arctan',
  'tg': r'\tan',
  'ctg': r'\cot',
  'Pr': 'P',
  'bar': r'\overline',
  'widehat': r'\hat',
  'overrightarrow': r'\vec',
  'overarc': r'\overline',
  'textdegree': r'^\circ',
  'textbackslash': r'\setminus',
  'dag': r'\dagger',
  'euro': '€',
  'pounds': '£',
  'textsterling': '£',
  'texteuro': '€',
  'dollar': r'\$',
  'textdollar': r'\$',
  'surd': r'\sqrt',
}
_PLAIN_SIGNS = {'**': '^', '<=': r'\leq', '>=': r'\geq', '!=': r'\neq', '<>': r'\neq', '==': '='}
_PREFIXES = ('sin', 'cos', 'tan', 'ln', 'log')  # of runs like sinx
_ESCAPED_SIGNS = (r'\{', r'\}', r'\|', r'\\', r'\$')
_BRACKET_OPEN, _BRACKET_CLOSE = ('(', '[', r'\{'), (')', ']', r'\}')


def tokenize(text: str) -> tuple[Token, ...]:
  """Returns the tokens of one answer.

  Raises:
    UnreadableError: there are more than MAX_TOKENS, or \\text nests too deep.
  """
  tokens = list(_Lexer(_spell(text)).tokens())
  return tuple(_joined_thousands(_without_layout(tokens)))


def _spell(text: str) -> str:
  """`text` without Unicode beyond ASCII that has a LaTeX name, and without layout."""
  if not text.isascii():
    text = _RAISED_RUN.sub(lambda m: '^{' + ''.join(_RAISED[c] for c in m[0]) + '}', text)
    text = _LOWERED_RUN.sub(lambda m: '_{' + ''.join(_LOWERED[c] for c in m[0]) + '}', text)
    text = _VULGAR.sub(r'\\frac{\1}{\2}', ''.join(map(_plain_character, text)))
    text = _GLYPH_ROOT.sub(_latex_root, text)
  if '\\\\begin' in text:  # every backslash twice
    text = text.replace('\\\\', '\\')
  elif '\\begin' not in text:  # there `\\` ends a row
    text = _ESCAPED_TWICE.sub(r'\\', text)
  text = _LAYOUT.sub('', _without_dollars(text))
  text = _PRIMES.sub(lambda m: "'" * max(m[0].count("'") + m[0].count('prime'), 1), text)
  text = _THIN.sub(' ', text).strip().strip('`').strip()
  if text.endswith('.') and not text.endswith('..'):
    text = text[:-1].rstrip()
  return text


def _latex_root(match: re.Match) -> str:
  radicand = match[1] or match[2]
  if not radicand:
    return r'\sqrt '
  return rf'\sqrt{{{radicand}}}'


def _plain_character(c: str) -> str:
  if c.isascii():
    return c
  if c in _SYMBOLS:
    return _SYMBOLS[c]
  if unicodedata.decimal(c, None) is not None:
    return str(unicodedata.decimal(c))
  if unicodedata.decomposition(c).startswith('<fraction>'):
    return f' {unicodedata.normalize("NFKC", c)} '
  compatible = unicodedata.normalize('NFKC', c)  # full width, mathematical italics, …
  if len(compatible) == 1 and compatible != c and compatible != '$':
    if compatible.isascii():
      return compatible
    return _SYMBOLS.get(compatible, compatible)
  category = unicodedata.category(c)
  if category in ('Zs', 'Zl', 'Zp', 'Cc'):  # separators and control characters
    return ' '
  if category == 'Cf':  # invisible marks
    return ''
  return c


def _without_dollars(text: str) -> str:
  """Drops the `$` that enclose formulas; one that is left over is a currency: `$5`, `5$`."""
  positions = [m.start() for m in re.finditer(r'(?<!\\)\$', text)]
  currency = None
  if len(positions) % 2:
    first, last = positions[0], positions[-1]
    if re.match(r'\$\s*[\d.]', text[first : first + 9]):
      currency = first
    elif re.search(r'\d\s{0,4}$', text[max(0, last - 9) : last]):
      currency = last
  pieces, start = [], 0
  for position in positions:
    pieces += [text[start:position], r'\$' if position == currency else '']
    start = position + 1
  return ''.join(pieces) + text[start:]


class _Lexer:
  """Reads one text; each method reads one kind of token."""

  def __init__(self, text: str, *, is_text: bool = False, depth: int = 0):
    if depth > _MAX_DEPTH:
      raise UnreadableError('text within text')
    self._text = text
    self._is_text = is_text
    self._depth = depth
    self._position = 0
    self._num_brackets = 0
    self._has_space = False

  def tokens(self) -> Iterator[Token]:
    """Yields the tokens in their order."""
    num_tokens = 0
    while self._position < len(self._text):
      match = _TOKEN.match(self._text, self._position)
      self._position = match.end()
      if match['space']:
        self._has_space = True
        continue
      num_tokens += 1
      if num_tokens > MAX_TOKENS:
        raise UnreadableError('length')
      if match['number']:
        yield self._number(match)
      elif match['command']:
        yield from self._command(match[0][1:])
      elif match['letters']:
        yield from self._letters(match[0])
      else:
        yield from self._sign(match[0])

  def _token(self, kind: str, text: str, *, is_grouped: bool = False) -> Token:
    has_space, self._has_space = self._has_space, False
    return Token(kind, text, self._is_text, has_space, is_grouped)

  def _number(self, match: re.Match) -> Token:
    text, is_grouped = match[0], bool(match['comma'])
    if is_grouped and self._num_brackets:  # (1,234) are two numbers
      text, is_grouped = text.partition(',')[0], False
      self._position = match.start() + len(text)
    return self._token('number', re.sub(r'[{},\s]', '', text), is_grouped=is_grouped)

  def _command(self, name: str) -> Iterator[Token]:
    if name in _TEXT_COMMANDS:
      yield from self._upright(self._argument())
    elif name in ('begin', 'end'):
      yield self._token('command', rf'\{name} {self._argument().strip().rstrip("*")}')
    elif name in ('mathbb', 'mathcal', 'mathfrak', 'mathscr'):
      letter = self._argument().strip()
      if (name, letter) == ('mathcal', 'O') and not self._is_script_next():
        yield self._token('letters', 'O')  # of an order: O(n)
      else:
        yield self._token('command', rf'\{name} {letter}')
    elif name in _WRAPPERS:
      yield self._token('command', rf'\{name}')
    else:
      yield from self._sign(_SYNONYMS.get(name, rf'\{name}'))

  def _upright(self, content: str) -> Iterator[Token]:
    """The tokens of \\text{content}, with the spaces at its ends."""
    has_space = self._has_space or content[:1].isspace()
    for token in _Lexer(content, is_text=True, depth=self._depth + 1).tokens():
      yield token._replace(has_space=token.has_space or has_space)
      has_space = False
    self._has_space = content[-1:].isspace()

  def _letters(self, run: str) -> Iterator[Token]:
    """A run of letters: a function's name, a word, or letters."""
    is_product = self._is_script_next() and len(run) < 4 and not self._is_text  # at^2
    if run in FUNCTION_NAMES:
      yield self._token('command', FUNCTION_NAMES[run])
    elif is_word(run, self._is_text) and not is_product:
      yield self._token('word', run)
    else:
      prefix = next((name for name in _PREFIXES if run.startswith(name)), '')
      if prefix and len(run) - len(prefix) <= 2 and not self._is_text:  # sinx
        yield self._token('command', f'\\{prefix}')
        run = run[len(prefix) :]
      yield self._token('letters', run)

  def _sign(self, sign: str) -> Iterator[Token]:
    """A sign, a bracket, or a command that is none of the others."""
    sign = _PLAIN_SIGNS.get(sign, sign)
    self._num_brackets += (sign in _BRACKET_OPEN) - (sign in _BRACKET_CLOSE)
    if sign.startswith('...'):
      sign = r'\ldots'
    if sign == r'^\circ':
      yield self._token('sign', '^')
      sign = r'\circ'
    is_command = sign[0] == '\\' and sign not in _ESCAPED_SIGNS
    kind = 'command' if is_command else 'sign'
    yield self._token(kind, sign)

  def _is_script_next(self) -> bool:
    return self._text[self._position : self._position + 1] in ('^', '_')

  def _argument(self) -> str:
    """The content of the group that comes next, or one character."""
    content, self._position = _argument(self._text, self._position)
    return content


def _argument(text: str, position: int) -> tuple[str, int]:
  """The content of the group that starts at `position`, or one character, and where it ends."""
  while text[position : position + 1].isspace():
    position += 1
  if text[position : position + 1] != '{':
    return text[position : position + 1], position + 1
  depth = 0
  for match in re.compile(r'\\.|[{}]', re.DOTALL).finditer(text, position):
    depth += {'{': 1, '}': -1}.get(match[0], 0)
    if not depth:
      return text[position + 1 : match.start()], match.end()
  return text[position + 1 :], len(text)


def _without_layout(tokens: list[Token]) -> list[Token]:
  """Drops the commands of wrappers, and the braces around one token behind them."""
  kept: list[Token] = []
  i = 0
  while i < len(tokens):
    if tokens[i].kind != 'command' or tokens[i].text[1:] not in _WRAPPERS:
      kept.append(tokens[i])
    elif [t.text for t in tokens[i + 1 : i + 4 : 2]] == ['{', '}']:
      kept.append(tokens[i + 2]._replace(has_space=tokens[i].has_space))
      i += 3
    i += 1
  return kept


def _joined_thousands(tokens: list[Token]) -> list[Token]:
  """`12 345` is one number: groups of three digits behind spaces."""
  joined: list[Token] = []
  for token in tokens:
    last = joined[-1] if joined else None
    is_group = token.kind == 'number' and token.has_space and re.match(r'\d{3}(?!\d)', token.text)
    if (
      last
      and is_group
      and last.kind == 'number'
      and re.fullmatch(r'[1-9]\d{0,2}( \d{3})*', last.text)
    ):
      joined[-1] = last._replace(text=f'{last.text} {token.text}')
    else:
      joined.append(token)
  return [t._replace(text=t.text.replace(' ', '')) if t.kind == 'number' else t for t in joined]


def key(tokens: tuple[Token, ...]) -> str:
  """The same for two answers that differ in spaces and superfluous braces only."""
  pieces: list[str] = []
  for i, token in enumerate(tokens):
    is_around_one = (token.text == '{' and i + 2 < len(tokens) and tokens[i + 2].text == '}') or (
      token.text == '}' and i >= 2 and tokens[i - 2].text == '{'
    )
    if not is_around_one:
      pieces.append(token.text)
  return '\x1f'.join(pieces)
