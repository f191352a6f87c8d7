"""Clauses behind an answer: `k \\in \\mathbb{Z}`, `for some constant c`, `if x > 0`."""

from __future__ import annotations

from ds_jax.verify.math.token_lists import Tokens, has_any, split, texts_of, trimmed

_NUMBER_SETS = tuple(rf'\mathbb {name}' for name in 'ZNQRC')
_INTEGERS = r'\mathbb Z'
_MAX_DOMAIN = 13  # characters
_OPENINGS = ('for', 'where', 'with')
_CONDITION_OPENINGS = ('if', 'when', 'for', 'where', 'while')
_CLAUSE_WORDS = frozenset(
  'for where with some any all every each a an is are real constant constants integer integers '
  'number numbers arbitrary positive nonnegative natural fixed being the and complex '
  'nonzero'.split()
)


def without_clauses(pieces: list[Tokens]) -> tuple[list[Tokens], tuple[str, ...]]:
  """Splits clauses off the parts of a statement.

  Returns:
    The parts without clauses, and the names that clauses declare as integers.
  """
  parameters: list[str] = []
  statements: list[Tokens] = []
  for i, piece in enumerate(pieces):
    statement, clause = _split_clause(piece)
    names = declared_names(clause) if clause else None
    is_first = i == 0
    if names is None or is_first and not statement:
      statements.append(piece)
      continue
    if statement:
      statements.append(statement)
    parameters += names
  return statements, tuple(sorted(parameters))


def _split_clause(tokens: Tokens) -> tuple[Tokens, Tokens]:
  """Splits `cx for some constant c` in front of the first of `for`, `where`, `with`."""
  for i, token in enumerate(tokens):
    if token.kind == 'word' and token.text.casefold() in _OPENINGS:
      return tokens[:i], tokens[i:]
    if token.text == '(' and i and tokens[-1].text == ')':
      in_brackets = tokens[i + 1 : -1]
      if declared_names(in_brackets) is not None and has_any(in_brackets, (r'\in',)):
        return tokens[:i], in_brackets
  return (), tokens


def declared_names(tokens: Tokens) -> list[str] | None:
  """The names that a clause declares as integers; [] for other numbers; None: it is no clause."""
  sides, signs = split(tokens, (r'\in',))
  if len(signs) > 1:
    return None
  domain = ''
  if signs:
    domain = ''.join(texts_of(sides[1])).replace('{', '').replace('}', '')
    if not domain.startswith(_NUMBER_SETS) or len(domain) > _MAX_DOMAIN:
      return None
  names: list[str] = []
  has_words = False
  for token in sides[0]:
    word = token.text.casefold()
    if token.kind == 'word' or token.text == 'a':
      if word not in _CLAUSE_WORDS:
        return None
      has_words = True
      if word in ('integer', 'integers'):
        domain = _INTEGERS
    elif token.kind == 'letters' and len(token.text) == 1:
      names.append(token.text)
    elif token.text != ',':
      return None
  if not names or not (has_words or domain):
    return None
  return names if domain == _INTEGERS else []


def without_condition_word(tokens: Tokens) -> Tokens:
  """A condition without `if`, `when`, `for` in front."""
  tokens = trimmed(tokens)
  while tokens and tokens[0].text.casefold() in _CONDITION_OPENINGS:
    tokens = tokens[1:]
  return tokens
