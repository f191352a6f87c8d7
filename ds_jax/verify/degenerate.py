r"""Responses that are no reasoning any more: endless repetition, and garble.

The paper leaves such texts out of its negatives without saying how it finds them; the released code
has nothing of the kind. The rule here reads the last MAX_TEXT characters of a response:

* *Repeating*: the text ends in a loop. Its last part is periodic (each character equals the one a
  period before), covers 4 periods and 200 characters at least. The same after every number has
  been replaced by `0`, with 40 periods and 1,500 characters: a count that goes on for ever.
* *Garbled*: within 400 characters, 40 that no text has (replacement characters, controls, private
  or unassigned code points); or letters of 4 scripts, 4 of each at least (Greek and
  mathematical letters are no script of their own, those of Chinese and Japanese are one); or a word
  of more than 80 letters, 8 of them different, in a script that puts spaces between words.

A loop that the response gets out of is no fault, nor is a long list, a table or a number of many
digits. What stays unseen is a salad of real words of one language: that needs a language model.
Everything is linear in MAX_TEXT.
"""

from __future__ import annotations

import collections
import functools
import re
import unicodedata

MAX_TEXT = 16_384  # characters read, from the end
WINDOW = 400  # characters
_MIN_LOOP = 200  # characters
_MIN_COPIES = 4
_MIN_COUNT = 1500  # characters, numbers masked
_MIN_COUNT_COPIES = 40
_MAX_ALIEN = 40  # characters of a window
_MAX_SCRIPTS = 4
_MIN_LETTERS = 4  # of a script, to count
_MAX_WORD = 80  # letters; the longest words of German and Welsh have fewer
_MIN_DISTINCT = 8

_NUMBER = re.compile(r'\d+')
_WORD = re.compile(r'[^\W\d_]{81,}')
_MATHS = (
  'GREEK',
  'MATHEMATICAL',
  'DOUBLE-STRUCK',
  'BLACK-LETTER',
  'SCRIPT',
  'MICRO',
  'ANGSTROM',
  'KELVIN',
  'PLANCK',
  'FEMININE',
  'MASCULINE',
  'MODIFIER',
)
_EAST_ASIAN = (
  'CJK',
  'HIRAGANA',
  'KATAKANA',
  'KATAKANA-HIRAGANA',
  'HALFWIDTH',
  'FULLWIDTH',
  'IDEOGRAPHIC',
  'BOPOMOFO',
)
_WITHOUT_SPACES = ('CJK', 'THAI', 'LAO', 'KHMER', 'MYANMAR', 'TIBETAN', 'JAVANESE')


def is_degenerate(text: str) -> bool:
  """Whether a response is garbled or ends in endless repetition (module docstring).

  Args:
    text: the response; may be hostile.
  """
  text = text[-MAX_TEXT:]
  return is_repeating(text) or is_garbled(text)


def is_repeating(text: str) -> bool:
  """Whether the text ends in a loop, numbers that count on included."""
  text = text.rstrip('\ufffd')  # half a character, where the response was cut
  if _ends_in_loop(text, _MIN_LOOP, _MIN_COPIES):
    return True
  # The first and last number may be cut, which masking hides.
  return _ends_in_loop(_NUMBER.sub('0', text), _MIN_COUNT, _MIN_COUNT_COPIES)


def _ends_in_loop(text: str, min_length: int, min_copies: int) -> bool:
  """Whether a suffix of that length or more consists of that many copies of something.

  The suffixes are the prefixes of the reversed text; the smallest period of a prefix of length n is
  n - border(n), and the borders of all prefixes take linear time (Knuth, Morris, Pratt 1977). The
  border of a text is its longest prefix that is its suffix, too, and not the whole.
  """
  reversed_text = text[::-1]
  borders = [0] * len(reversed_text)
  border = 0
  for i in range(1, len(reversed_text)):
    while border and reversed_text[i] != reversed_text[border]:
      border = borders[border - 1]
    border += reversed_text[i] == reversed_text[border]
    borders[i] = border
    if i + 1 >= min_length and (i + 1 - border) * min_copies <= i + 1:
      return True
  return False


def is_garbled(text: str) -> bool:
  """Whether a window of the text holds what no text holds."""
  if any(_is_salad(match[0]) for match in _WORD.finditer(text)):
    return True
  if text.isascii() and text.isprintable():
    return False
  step = WINDOW // 2  # windows overlap by half
  starts = range(0, max(len(text) - step, 1), step)
  return any(_is_alien(text[start : start + WINDOW]) for start in starts)


def _is_salad(word: str) -> bool:
  """Whether a run of letters is no word of a language with spaces."""
  letters = set(word)
  if len(word) <= _MAX_WORD or len(letters) < _MIN_DISTINCT:
    return False
  return not any(_script(letter) in _WITHOUT_SPACES for letter in letters)


def _is_alien(window: str) -> bool:
  """Whether a window holds too much that is no text, or letters of too many scripts."""
  if sum(map(_is_no_text, window)) >= _MAX_ALIEN:
    return True
  num_letters = collections.Counter(map(_script, filter(str.isalpha, window)))
  del num_letters['']  # mathematical letters
  num_scripts = sum(count >= _MIN_LETTERS for count in num_letters.values())
  return num_scripts >= _MAX_SCRIPTS


@functools.lru_cache(1 << 16)
def _is_no_text(c: str) -> bool:
  """Whether a character is a control, private, unassigned or a replacement for another one."""
  is_unreadable = unicodedata.category(c) in ('Cc', 'Co', 'Cn', 'Cs')
  return c == '\ufffd' or (is_unreadable and c not in '\n\r\t')


@functools.lru_cache(1 << 16)
def _script(c: str) -> str:
  """'LATIN', 'CYRILLIC', 'CJK', …, by the first word of the character's name; '' for maths."""
  name = unicodedata.name(c, '').partition(' ')[0]
  if name in _MATHS:
    return ''
  return 'CJK' if name in _EAST_ASIAN else name
