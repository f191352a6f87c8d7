"""Numerals with a base: `1011_2`, `2A_{16}`, `52_{\\text{eight}}`, `101 base 2`."""

from __future__ import annotations

import re

from ds_jax.verify.math import vocabulary
from ds_jax.verify.math.structures import Numeral
from ds_jax.verify.math.token_lists import Tokens, texts_of

_MARKS = ('_', 'base', 'Base')
_BRACKETS = '(){}'
_ALPHABET = '0123456789abcdefghijklmnopqrstuvwxyz'
_MAX_DIGITS = 400


def read_numeral(tokens: Tokens) -> Numeral | None:
  """The numeral that the tokens are; None: they are none."""
  texts = [text for text in texts_of(tokens) if text not in _BRACKETS]
  marks = [i for i, text in enumerate(texts) if text in _MARKS]
  # Digits, one mark, and one token for the base.
  if len(marks) != 1 or not 0 < marks[0] == len(texts) - 2:
    return None
  if texts_of(tokens).count('(') > 1:
    return None
  digits = ''.join(texts[: marks[0]])
  if not re.fullmatch(r'[0-9A-Za-z.]+', digits) or len(digits) > _MAX_DIGITS:
    return None
  base = _base(texts[-1].casefold())
  if not 2 <= base <= 36:
    return None
  # Letters first are digits of base 16 only: x_2 is a symbol.
  is_hexadecimal = base == 16 and re.fullmatch('[A-F0-9]{2,}', digits)
  if not digits[0].isdigit() and not is_hexadecimal:
    return None
  if not set(digits.casefold()) <= set(_ALPHABET[:base] + '.'):
    return None
  return Numeral(digits.casefold().lstrip('0') or '0', base)


def _base(text: str) -> int:
  """The base that a word or a number names; 0 for anything else."""
  if text in vocabulary.NUMBER_WORDS:
    return vocabulary.NUMBER_WORDS[text]
  return int(text) if re.fullmatch(r'\d{1,2}', text) else 0
