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
_BRACKET_OPEN, _BRACKET_CLOSE = ('(', '[', r'\{'), (')', ']', r'\}')


def tokenize(text: str) -> tuple[Token, ...]:
  """Returns the tokens of one answer.

  Raises:
    UnreadableError: there are more than MAX_TOKENS, or \\text nests too deep.
  """
  tokens = list(_tokens(_spell(text), is_text=False, depth=0))
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
  return text[:-1].rstrip() if text.endswith('.') and not text.endswith('..') else text


def _latex_root(match: re.Match) -> str:
  radicand = match[1] or match[2]
  return rf'\sqrt{{{radicand}}}' if radicand else r'\sqrt '


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
    return compatible if compatible.isascii() else _SYMBOLS.get(compatible, compatible)
  category = unicodedata.category(c)
  return ' ' if category in ('Zs', 'Zl', 'Zp', 'Cc') else '' if category == 'Cf' else c


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


def _tokens(text: str, is_text: bool, depth: int) -> Iterator[Token]:
  """Reads `text`, opening the commands of upright text."""
  if depth > _MAX_DEPTH:
    raise UnreadableError('text within text')
  position, has_space, num_tokens, brackets = 0, False, 0, 0
  while position < len(text):
    match = _TOKEN.match(text, position)
    position, kind, content = match.end(), match.lastgroup, match[0]
    if kind == 'comma':
      kind = 'number'
    if kind == 'space':
      has_space = True
      continue
    num_tokens += 1
    if num_tokens > MAX_TOKENS:
      raise UnreadableError('length')
    if kind == 'number':
      is_grouped = bool(match['comma'])
      if brackets and is_grouped:  # (1,234) are two numbers
        content, is_grouped = content.partition(',')[0], False
        position = match.start() + len(content)
      content = re.sub(r'[{},\s]', '', content)
      yield Token('number', content, is_text, has_space, is_grouped)
      has_space = False
      continue
    if kind == 'command':
      name = content[1:]
      if name in _TEXT_COMMANDS:
        inside, position = _argument(text, position)
        inner = list(_tokens(inside, is_text=True, depth=depth + 1))
        yield from _spaced(inner, has_space or inside[:1].isspace())
        has_space = inside[-1:].isspace()
        continue
      if name in ('mathbb', 'mathcal', 'mathfrak', 'mathscr'):
        inside, position = _argument(text, position)
        content = rf'\{name} {inside.strip()}'
        if content == r'\mathcal O' and text[position : position + 1] != '_':  # O(n)
          kind, content = 'letters', 'O'
      elif name in ('begin', 'end'):
        inside, position = _argument(text, position)
        content = rf'\{name} {inside.strip().rstrip("*")}'
      elif name not in _WRAPPERS:
        content = _SYNONYMS.get(name, content)
    elif kind == 'letters':
      is_formula = is_text or text[position : position + 1] not in ('^', '_')
      yield from _letters(content, is_text, has_space, is_word_allowed=is_formula)
      has_space = False
      continue
    else:
      content = _PLAIN_SIGNS.get(content, content)
      if content.startswith('...'):
        kind, content = 'command', r'\ldots'
    brackets += (content in _BRACKET_OPEN) - (content in _BRACKET_CLOSE)
    if content == r'^\circ':
      yield from (Token('sign', '^'), Token('command', r'\circ'))
    else:
      is_command = content[0] == '\\' and content not in (r'\{', r'\}', r'\|', r'\\', r'\$')
      kind = 'command' if is_command else 'sign' if kind == 'command' else kind
      yield Token(kind, content, is_text, has_space)
    has_space = False


def _spaced(tokens: list[Token], has_space: bool) -> list[Token]:
  if tokens and has_space:
    tokens[0] = tokens[0]._replace(has_space=True)
  return tokens


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


def _letters(run: str, is_text: bool, has_space: bool, *, is_word_allowed: bool) -> Iterator[Token]:
  """A run of letters: a function's name, a word, or letters."""
  name = FUNCTION_NAMES.get(run)
  if name is not None:
    yield Token('command', name, is_text, has_space)
  elif is_word(run, is_text) and (is_word_allowed or len(run) > 3):
    yield Token('word', run, is_text, has_space)
  else:
    prefix = next((n for n in ('sin', 'cos', 'tan', 'ln', 'log') if run.startswith(n)), '')
    if prefix and len(run) - len(prefix) <= 2 and not is_text:  # sinx
      yield Token('command', f'\\{prefix}', is_text, has_space)
      yield Token('letters', run[len(prefix) :])
    else:
      yield Token('letters', run, is_text, has_space)


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
