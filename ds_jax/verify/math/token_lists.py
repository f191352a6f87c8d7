"""Tokens of an answer as a list: its pieces between separators, its brackets, its ends."""

from __future__ import annotations

from collections.abc import Container, Iterable

from ds_jax.verify.math.structures import ORDER_SIGNS
from ds_jax.verify.math.tokens import Token, UnreadableError

Tokens = tuple[Token, ...]

OPENING = {'(': ')', '[': ']', r'\{': r'\}', '{': '}', r'\langle': r'\rangle'}
CLOSING = frozenset(OPENING.values())
RELATIONS = frozenset(('=', *ORDER_SIGNS, r'\neq', r'\approx', r'\equiv', r'\in'))
_LIST_SEPARATORS = frozenset((',', ';', 'and', 'or', 'And', 'Or'))
_STATEMENT_SEPARATORS = _LIST_SEPARATORS | {r'\lor', r'\land', '&'}  # between relations
_ENDS_OF_SENTENCES = frozenset(('.', ',', ';', ':', '\\', r'\\', '"', "'"))
_BEGINNINGS = frozenset((',', ';', ':', '"'))


def texts_of(tokens: Iterable[Token]) -> list[str]:
  return [token.text for token in tokens]


def has_any(tokens: Iterable[Token], texts: Container[str]) -> bool:
  """Whether one of the tokens is one of the texts."""
  return any(token.text in texts for token in tokens)


def inside(tokens: Tokens) -> Tokens:
  """What stands between the first and the last token."""
  return tokens[1:-1]


def trimmed(tokens: Tokens) -> Tokens:
  """The tokens without the punctuation that ends a sentence."""
  while tokens and tokens[-1].text in _ENDS_OF_SENTENCES:
    if tokens[-1].text == "'" and (len(tokens) < 2 or tokens[0].text != "'"):
      break  # a prime
    tokens = tokens[:-1]
  while tokens and tokens[0].text in _BEGINNINGS:
    tokens = tokens[1:]
  return tokens


def depth_change(token: Token) -> int:
  """1 at an opening bracket, -1 at a closing one."""
  return (token.text in OPENING) - (token.text in CLOSING)


def split(tokens: Tokens, separators: Container[str]) -> tuple[list[Tokens], list[str]]:
  """The pieces between separators outside all brackets, and those separators."""
  pieces: list[Tokens] = []
  separators_met: list[str] = []
  depth = 0
  start = 0
  for i, token in enumerate(tokens):
    text = token.text
    if text in separators and not depth:
      pieces.append(tokens[start:i])
      separators_met.append(text)
      start = i + 1
    elif text in OPENING or text.startswith(r'\begin '):
      depth += 1
    elif text in CLOSING or text.startswith(r'\end '):
      depth -= 1
  pieces.append(tokens[start:])
  return pieces, separators_met


def split_list(tokens: Tokens) -> tuple[list[Tokens], list[str]]:
  """The parts of a list, and what separates them; `, and` counts once."""
  has_relation = has_any(tokens, RELATIONS)
  all_separators = _STATEMENT_SEPARATORS if has_relation else _LIST_SEPARATORS
  pieces, separators = split(tokens, all_separators)
  if len(pieces) > 1 and not all(pieces):
    filled = [piece for piece in pieces if piece]
    num_empty = len(pieces) - len(filled)
    if num_empty > _num_doubled(separators) or not pieces[0] or not pieces[-1]:
      raise UnreadableError('an empty part of a list')
    pieces = filled
  return pieces, [text.casefold() for text in separators]


def _num_doubled(separators: list[str]) -> int:
  """How many commas stand in front of an `and` or `or`."""
  num_doubled = 0
  for first, second in zip(separators, separators[1:], strict=False):
    num_doubled += first in ',;' and second not in ',;'
  return num_doubled


def connective_of(separators: Container[str]) -> str:
  """What joins the parts of a list: `or`, `and`, or a mere comma."""
  if 'or' in separators or r'\lor' in separators:
    return 'or'
  if 'and' in separators or r'\land' in separators:
    return 'and'
  return ','


def is_enclosed(tokens: Tokens) -> bool:
  """Whether the first bracket is closed by the last token."""
  if len(tokens) < 2 or tokens[0].text not in OPENING:
    return False
  depth = 0
  for i, token in enumerate(tokens):
    depth += depth_change(token)
    if not depth:
      return i == len(tokens) - 1
  return False


def is_in_braces(tokens: Tokens) -> bool:
  """Whether the tokens are a group `{…}` that is not empty."""
  return len(tokens) > 2 and tokens[0].text == '{' and is_enclosed(tokens)


def without_braces(tokens: Tokens) -> Tokens:
  """What stands in round brackets or braces that enclose the tokens."""
  if is_enclosed(tokens) and tokens[0].text in '{(':
    return inside(tokens)
  return tokens


def with_usual_brackets(tokens: Tokens) -> Tokens:
  """`]-\\infty, 2[` as `(-\\infty, 2)`."""
  if tokens[0].text != ']' and not (tokens[-1].text == '[' and tokens[0].text in '['):
    return tokens
  changed: list[Token] = []
  is_open = False
  for token in tokens:
    if token.text in ('[', ']'):
      usual = {'[': ')', ']': ']'} if is_open else {'[': '[', ']': '('}
      token = token._replace(text=usual[token.text])
      is_open = not is_open
    changed.append(token)
  return tuple(changed)


def joined_lines(lines: Iterable[Tokens]) -> Tokens:
  """Lines as one list, with commas between them."""
  tokens: list[Token] = []
  for line in lines:
    tokens += trimmed(line)
    tokens.append(Token('sign', ','))
  return tuple(tokens[:-1])
