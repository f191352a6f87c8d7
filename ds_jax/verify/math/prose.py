"""Words of answers: true and false, fixed phrases, options, names, dates."""

from __future__ import annotations

from collections.abc import Sequence

from flint import fmpq

from ds_jax.verify.math import expressions, units, vocabulary
from ds_jax.verify.math.quantity_reader import CURRENCY_CODES
from ds_jax.verify.math.structures import Quantity, Truth, Words
from ds_jax.verify.math.token_lists import Tokens, inside
from ds_jax.verify.math.tokens import Token

NEGATIONS = frozenset(
  'not never neither nor no wrong incorrect isnt false either maybe or and'.split()
)
_LEADS = sorted(vocabulary.LEADS, key=len, reverse=True)  # the longest first
_MAX_LEAD = 7
_MARKING_VERBS = ('is', 'are', 'equals', 'have', 'get')
_OPTION_LETTERS = 'ABCDEFGHIJ'
_PROSE_SIGNS = '\'-,.;&"/():!?'


def folded_words(tokens: Sequence[Token]) -> list[str]:
  return [token.text.casefold() for token in tokens]


def without_lead(tokens: Tokens) -> Tokens:
  """Drops `The answer is`, `There are`, `Answer:` from the beginning."""
  words: list[str] = []
  for token in tokens[:_MAX_LEAD]:
    if token.kind not in ('word', 'letters'):
      break
    words.append(token.text.casefold())
  for lead in _LEADS:
    if tuple(words[: len(lead)]) != lead or len(tokens) <= len(lead):
      continue
    following = tokens[len(lead) :]
    has_colon = following[0].text == ':'
    if has_colon and len(following) > 1:
      return following[1:]
    if not has_colon and lead[-1] in _MARKING_VERBS:
      return following
  return tokens


def read_truth(tokens: Tokens) -> Truth | None:
  """`True`, `no`."""
  if len(tokens) != 1 or tokens[0].kind not in ('word', 'letters'):
    return None
  word = tokens[0].text.casefold()
  if word in vocabulary.TRUE or word in vocabulary.FALSE:
    return Truth(word in vocabulary.TRUE)
  return None


def phrase_words(tokens: Tokens) -> list[str]:
  """The words that a fixed phrase may consist of, in the spelling of the vocabulary."""
  words: list[str] = []
  for token in tokens:
    word = token.text.casefold().lstrip('\\').replace('infty', 'infinity')
    if word not in vocabulary.ARTICLES and word not in ("'", '-'):
      words.append(word)
  return words


def read_number_words(words: Sequence[str]) -> Quantity | None:
  """`seven`, `two thirds`."""
  if len(words) == 1 and words[0] in vocabulary.NUMBER_WORDS:
    return Quantity(expressions.number(vocabulary.NUMBER_WORDS[words[0]]), units.NONE)
  if len(words) == 2 and words[1] in vocabulary.FRACTION_WORDS:
    top = vocabulary.NUMBER_WORDS.get(words[0])
    if top is not None:
      value = fmpq(top, vocabulary.FRACTION_WORDS[words[1]])
      return Quantity(expressions.number(value), units.NONE)
  return None


# Options.


def split_option(tokens: Tokens) -> tuple[str, Tokens] | None:
  """The letter of `(B) 12`, `B)`, `B. the third`, `Option B`, and what stands behind it.

  `(B) or (C)` is no option.
  """
  first = tokens[0]
  if first.text.casefold() in ('option', 'choice') and len(tokens) > 1:
    letters = tokens[1:]
    if letters[0].text == '(' and letters[-1].text == ')':
      letters = inside(letters)
    is_option = len(letters) == 1 and _is_option_letter(letters[0])
    return (letters[0].text, ()) if is_option else None
  if len(tokens) < 2:
    return None
  second = tokens[1]
  if first.text == '(' and tokens[2:] and tokens[2].text == ')' and _is_option_letter(second):
    letter, content = second, tokens[3:]
    is_marked = not content or content[0].has_space or letter.is_text
  elif second.text in (')', '.', ':') and _is_option_letter(first):
    letter, content = first, tokens[2:]
    is_marked = not content
    if content and content[0].has_space:
      is_marked = second.text != ':' or letter.is_text
  else:
    return None
  is_hedge = any(word in NEGATIONS for word in folded_words(content))
  if not is_marked or is_hedge:
    return None
  if content and content[0].kind == 'sign':
    return None
  return letter.text, content


def _is_option_letter(token: Token) -> bool:
  return token.kind == 'letters' and len(token.text) == 1 and token.text in _OPTION_LETTERS


# Names and descriptions.


def read_name(token: Token) -> Words | None:
  """One run of letters that is a name: `ABC`, `\\text{Bob}`; else it is a product."""
  is_name = len(token.text) >= 3 and (token.text.isupper() or token.is_text)
  return Words((token.text.casefold(),)) if is_name else None


def is_prose(tokens: Tokens) -> bool:
  """Whether there are words, and nothing that mathematics or units are made of."""
  if not any(token.kind == 'word' for token in tokens):
    return False
  for token in tokens:
    if token.kind not in ('word', 'letters', 'number') and token.text not in _PROSE_SIGNS:
      return False
  return not _starts_quantity(tokens)


def _starts_quantity(tokens: Tokens) -> bool:
  """Whether words begin as `USD 5`, `three million dollars` or `x is …` do."""
  first = tokens[0]
  if first.text in CURRENCY_CODES:
    return True
  if first.text.casefold() in vocabulary.NUMBER_WORDS and len(tokens) > 1:
    unit = units.read_unit(tokens[1:])
    return unit is not None and not unit[0].unknown
  is_letter = first.kind == 'letters' and len(first.text) == 1
  return is_letter and tokens[1].kind != 'word'


def has_month(tokens: Tokens) -> bool:
  return any(word in vocabulary.MONTHS for word in folded_words(tokens))


def read_words(tokens: Tokens, has_date: bool) -> Words:
  """The words that count, without articles and openings."""
  words = [token.text.casefold() for token in tokens if token.kind != 'sign']
  words = [word for word in words if word not in vocabulary.ARTICLES] or words
  for opening in vocabulary.WORD_OPENINGS:
    if tuple(words[: len(opening)]) == opening and len(words) > len(opening):
      words = words[len(opening) :]
  return Words(_date(words) if has_date else tuple(words))


def _date(words: Sequence[str]) -> tuple[str, ...]:
  """`14 March`, `March 14th` and `Mar 14` in one spelling."""
  months: list[str] = []
  others: list[str] = []
  for word in words:
    if word in vocabulary.ORDINAL_ENDINGS or word == 'of':
      continue
    word = vocabulary.MONTHS.get(word, word)
    if word in vocabulary.MONTHS:
      months.append(word)
    else:
      others.append(word)
  return (*months, *others)


def is_hedge(tokens: Tokens) -> bool:
  """Whether words in front of a relation deny it, or count something."""
  for token in tokens:
    word = token.text.casefold()
    if token.kind in ('word', 'letters') and (word in NEGATIONS or word in vocabulary.NUMBER_WORDS):
      return True
  return False


def without_half_of_day(tokens: Tokens) -> tuple[Tokens, str]:
  """Splits `p.m.` off a time."""
  tail = ''.join(token.text for token in tokens[-4:]).replace('.', '').casefold()
  for half in ('am', 'pm'):
    if not tail.endswith(half) or len(tokens) < 2:
      continue
    end = len(tokens)
    while end and tokens[end - 1].text.casefold() in ('.', 'a', 'p', 'm', 'am', 'pm'):
      end -= 1
    if end and tokens[end - 1].kind == 'number':
      return tokens[:end], half
  return tokens, ''
